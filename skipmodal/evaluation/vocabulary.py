"""How many words a model really says (paper, section 4.1), and which of them its recordings never held."""

from dataclasses import replace

from skipmodal.data.prepared import PreparedDataset
from skipmodal.errors import UserError
from skipmodal.evaluation.tasks import Report
from skipmodal.metrics.captions import tokenise
from skipmodal.metrics.wer import normalise_transcript


def check_recordings(recordings: PreparedDataset) -> None:
    """Raises UserError for a dataset without speech."""
    if recordings.meta.kind != "text-speech":
        raise UserError(f"{recordings.path}: is a {recordings.meta.kind} dataset; --against takes recordings")


def vocabulary_report(spoken: Report, pictures: PreparedDataset, recordings: PreparedDataset | None = None) -> Report:
    """Unique words of what was heard, from the report of img2speech on `pictures`.

    A recogniser mishears into words that exist, so heard words are also counted where the item's own latent sentence
    has them. With `recordings`, the text-speech data the model learned from: how far the two training vocabularies
    overlap, and the words that were spoken right without ever having been heard (the paper's zero-shot words).
    Models without a latent sentence have no meant words to count.
    """
    heard = [set(_words(detail["heard"])) for detail in spoken.details]
    meant = [set(_words(detail["text"] or "")) for detail in spoken.details]
    kept = [h & m for h, m in zip(heard, meant, strict=True)]
    references = {word for detail in spoken.details for text in detail["references"] for word in _words(text)}
    both = set().union(*kept)
    figures: dict[str, float] = {
        "words heard": sum(len(_words(detail["heard"])) for detail in spoken.details),
        "unique words heard": len(set().union(*heard)),
        "unique words of the references": len(references),
    }
    latent = any(detail["text"] is not None for detail in spoken.details)
    if latent:
        figures |= {"unique words meant": len(set().union(*meant)), "unique words meant and heard": len(both)}
    if recordings is not None:
        seen, recorded = _training_words(pictures), _training_words(recordings)
        figures |= {
            "unique words of the pictures' training texts": len(seen),
            "unique words of the recordings' training texts": len(recorded),
            "in both": len(seen & recorded),
        }
        figures |= {"meant and heard, never in a recording": len(both - recorded)} if latent else {}
    return replace(spoken, task="vocabulary", figures=figures, notes=[])


def _words(text: str) -> list[str]:
    return tokenise(normalise_transcript(text))


def _training_words(dataset: PreparedDataset) -> set[str]:
    return {word for i in dataset.indices("train") for text in dataset.texts(i) for word in _words(text)}
