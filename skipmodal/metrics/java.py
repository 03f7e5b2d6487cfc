"""METEOR and SPICE through pycocoevalcap, which runs its authors' programs under Java; one line for what is missing."""

import importlib.util
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from skipmodal.errors import reason
from skipmodal.metrics.captions import tokenise

CORENLP = "lib/stanford-corenlp-3.6.0.jar"  # of SPICE; not in the package


def java_scores(
    hypotheses: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> tuple[dict[str, float], list[str]]:
    """METEOR (Denkowski and Lavie, WMT 2014) and SPICE (Anderson et al., ECCV 2016) of a corpus, in [0, 1].

    Returns the scores that could be had, and a line for each that could not.
    """
    package = importlib.util.find_spec("pycocoevalcap")
    if package is None or package.submodule_search_locations is None:
        return {}, ["METEOR and SPICE: pycocoevalcap is not installed (pip install pycocoevalcap)"]
    if shutil.which("java") is None:
        return {}, ["METEOR and SPICE: there is no java on the PATH"]
    found = {key: [" ".join(tokenise(text))] for key, text in hypotheses.items()}
    right = {key: [" ".join(tokenise(text)) for text in texts] for key, texts in references.items()}
    metrics, missing = {"METEOR": _meteor, "SPICE": _spice}, []
    if not (Path(package.submodule_search_locations[0]) / "spice" / CORENLP).exists():
        del metrics["SPICE"]  # which would download it unasked
        missing.append("SPICE: CoreNLP is missing (python -m pycocoevalcap.spice.get_stanford_models)")
    scores = {}
    for name, score in metrics.items():
        try:
            scores[name] = float(score(right, found)[0])
        except Exception as error:  # of Java, of a pipe, or of the answer
            missing.append(f"{name}: failed under this Java, SPICE wants 8 to 13 ({reason(error)})")
    return scores, missing


def _meteor(right: dict[str, list[str]], found: dict[str, list[str]]) -> Any:
    from pycocoevalcap.meteor.meteor import Meteor

    return Meteor().compute_score(right, found)


def _spice(right: dict[str, list[str]], found: dict[str, list[str]]) -> Any:
    from pycocoevalcap.spice.spice import Spice

    return Spice().compute_score(right, found)
