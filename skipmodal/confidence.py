"""How much of a sentence about a picture to believe: by its likelihood, and by how familiar the picture is."""

import math
from typing import Annotated

import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

Bounded = Annotated[float, Field(ge=-1e6, le=1e6)]  # sums and products stay finite


class Confidence(BaseModel):
    """A logistic curve (Platt, 1999) over the mean log-probability of a sentence's characters, and over how far the
    picture is from those that the model was trained on.

    Its value is the share of the sentence's content words that is expected in one of five people's captions.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    slope: Bounded
    distance: Bounded
    intercept: Bounded
    far: Bounded = Field(description="the distance beyond which one in a hundred pictures like the training's lies")

    def __call__(self, score: float, distance: float) -> float:
        """Mean log-probability a character, and what `distances` gives -> expected share, in [0, 1]."""
        x = self.slope * score + self.distance * distance + self.intercept
        return 1 / (1 + math.exp(-min(max(x, -50.0), 50.0)))


def distances(seen: Tensor, prototypes: Tensor) -> Tensor:
    """How far pictures are from the nearest of some prototypes of the training's: 1 - cosine, (B,).

    seen (B, width) is the mean of each picture's features, prototypes (P, width).
    """
    return 1 - (F.normalize(seen.float(), dim=1) @ F.normalize(prototypes.to(seen).float(), dim=1).T).amax(1)
