"""The mean of several checkpoints' weights, often better than each (Wortsman et al., Model soups, ICML 2022)."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from skipmodal.checkpoint import CARD, STARTED_FROM, load_checkpoint, read_card, resolve_checkpoint, save_checkpoint
from skipmodal.errors import UserError
from skipmodal.recipe import architecture


def average_checkpoints(paths: Sequence[Path], out: Path) -> None:
    """Writes a checkpoint with the mean of the weights of several, which are of one model and one vocabulary.

    Whole numbers are those of the last one, as are its recipe and its card. Its confidence is not kept.
    Raises UserError where they don't fit, or `out` exists.
    """
    if out.exists():
        raise UserError(f"{out}: exists already; give a new folder")
    if len(paths) < 2:
        raise UserError("give at least two checkpoints to average")
    loaded = [load_checkpoint(path, torch.device("cpu")) for path in paths]
    last = loaded[-1]
    for path, each in zip(paths, loaded, strict=True):
        differs = each.audio != last.audio or each.image != last.image
        differs |= each.model.tokenizer.words != last.model.tokenizer.words
        if differs or architecture(each.recipe) != architecture(last.recipe):
            raise UserError(f"{path}: is of another model, or of other data, than {paths[-1]}")
    states = [each.model.state_dict() for each in loaded]
    mean = {
        name: torch.stack([state[name] for state in states]).mean(0) if value.is_floating_point() else value
        for name, value in states[-1].items()
    }
    last.model.load_state_dict(mean)
    folders = [resolve_checkpoint(path) for path in paths]
    own, heading, quoted = read_card(folders[-1] / CARD).partition(STARTED_FROM)
    names = ", ".join(folder.parent.name if folder.name in ("latest", "best") else folder.name for folder in folders)
    line = f"- the mean of the weights of {names}; the steps and the loss above are those of the last\n"
    card = own.rstrip("\n") + "\n" + line + heading + quoted
    save_checkpoint(out, replace(last, confidence=None, prototypes=None), card)
