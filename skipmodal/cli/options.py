"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

CHECKPOINT = "Folder of a checkpoint or of a training run, or bundled: the one that comes with the package."
Model = Annotated[
    Path | None,
    typer.Option("--model", "-m", help=CHECKPOINT, show_default="the bundled one"),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Inputs that are decoded together.")]
MaxSeconds = Annotated[float, typer.Option(min=0.1, max=60, help="Length cap of the speech.")]
MaxCharacters = Annotated[int, typer.Option(min=1, max=2000, help="Length cap of the text.")]
Beam = Annotated[int, typer.Option(min=1, max=16, help="Width of the search for a sentence; 1 is greedy, and fastest.")]
