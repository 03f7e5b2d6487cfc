"""From how likely a model finds its own sentence to how much of it a person would have said too."""

import math
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Confidence(BaseModel):
    """A logistic curve (Platt, 1999) over the mean log-probability of a sentence's characters.

    Its value is the share of the sentence's content words that is expected in one of five people's captions.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    slope: Finite
    intercept: Finite

    def __call__(self, score: float) -> float:
        """Mean log-probability a character -> expected share, in [0, 1]."""
        return 1 / (1 + math.exp(-min(max(self.slope * score + self.intercept, -50.0), 50.0)))
