"""Caption metrics against several references, without Java: BLEU-1..4, ROUGE-L, CIDEr-D.

The numbers are those of the COCO caption evaluation (github.com/tylin/coco-caption, PyPI pycocoevalcap), whose
tokeniser (Stanford's PTB, lower case, punctuation dropped) is followed as far as captions need it.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from skipmodal.errors import UserError

ORDERS = (1, 2, 3, 4)
ROUGE_BETA = 1.2
CIDER_SIGMA = 6.0
Ngrams = Counter[tuple[str, ...]]
Vector = tuple[dict[tuple[str, ...], float], float]  # weights of n-grams, and their norm

_BRACKETS = str.maketrans({
    "(": " -lrb- ", ")": " -rrb- ", "[": " -lsb- ", "]": " -rsb- ", "{": " -lcb- ", "}": " -rcb- ",
    "“": " ", "”": " ", '"': " ", "‘": "'", "’": "'", "`": " ",  # noqa: RUF001
})  # fmt: skip
_APART = re.compile(r"&amp;|(?<![a-z0-9])([#=$%+*@~])|([#=])|(?<=[a-z]{2})(&)|(&)(?=[a-z]{2})")
_DROPPED = re.compile(r"\.{2,}|--+|[?!;]|(?<!\d)[,:]|[,:](?!\d)")
_CLITIC = re.compile(r"(?<=[a-z])(n't|'(?:s|re|ve|ll|d|m))(?![a-z'])|(?<=\d)('s)(?![a-z'])")
_DOTTED = re.compile(r"(?:[a-z]\.)+|(?:st|mr|mrs|ms|dr|jr|sr|vs|prof|gen|lt|col|capt|sgt|rev|ave|blvd|inc|co|corp)\.")
_WHOLE = {"'s", "'re", "'ve", "'ll", "'d", "'m", "n't", "-lrb-", "-rrb-", "-lsb-", "-rsb-", "-lcb-", "-rcb-"}
_FUSED = {"cannot": "can not", "gonna": "gon na", "gotta": "got ta", "wanna": "wan na", "gimme": "gim me"}


@dataclass(frozen=True)
class CaptionScores:
    """Corpus scores; BLEU and ROUGE-L in [0, 1], CIDEr-D in [0, 10]. Tables show them times 100."""

    bleu: tuple[float, float, float, float]
    rouge_l: float
    cider: float


def tokenise(caption: str) -> list[str]:
    """Lower-case words, contractions split ("the dog 's"), punctuation dropped."""
    text = caption.lower().translate(_BRACKETS)
    text = _APART.sub(lambda match: f" {'&' if match.group() == '&amp;' else match.group()} ", text)
    text = _CLITIC.sub(r" \g<0>", _DROPPED.sub(" ", text))
    words = []
    for word in text.split():
        if word.rstrip(".") in _WHOLE:
            word = word.rstrip(".")
        else:
            word = word.strip("'-")
            word = word if _DOTTED.fullmatch(word) else word.strip(".'-")
        if word:
            words.append(_FUSED.get(word, word))
    return " ".join(words).split()


def score_captions(hypotheses: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> CaptionScores:
    """Scores one hypothesis an image against its references.

    Raises UserError for fewer than two images, where CIDEr is zero by construction, or where the keys differ.
    """
    if hypotheses.keys() != references.keys():
        raise UserError("captions: hypotheses and references are of different images")
    if len(hypotheses) < 2:
        raise UserError("captions: CIDEr of a single image is 0 by construction; score at least two")
    pairs = [(tokenise(hypotheses[key]), [tokenise(r) for r in references[key]]) for key in hypotheses]
    rouge = sum(_rouge_l(h, refs) for h, refs in pairs) / len(pairs)
    cider = CiderD(references for _, references in pairs)
    scores = [cider([hypothesis], references)[0] for hypothesis, references in pairs]
    return CaptionScores(_bleu(pairs), rouge, sum(scores) / len(scores))


Pair = tuple[list[str], list[list[str]]]


def _ngrams(words: list[str], order: int) -> Ngrams:
    return Counter(tuple(words[i : i + order]) for i in range(len(words) - order + 1))


def _bleu(pairs: list[Pair]) -> tuple[float, float, float, float]:
    """Corpus BLEU (Papineni et al., ACL 2002) with the closest reference length."""
    right, guessed = [0] * len(ORDERS), [0] * len(ORDERS)
    length = reference_length = 0
    for hypothesis, references in pairs:
        length += len(hypothesis)
        reference_length += min((abs(len(r) - len(hypothesis)), len(r)) for r in references)[1]
        for k, order in enumerate(ORDERS):
            most: Ngrams = Counter()
            for reference in references:
                most |= _ngrams(reference, order)
            right[k] += (_ngrams(hypothesis, order) & most).total()
            guessed[k] += max(0, len(hypothesis) - order + 1)
    brevity = min(0.0, 1 - (reference_length + 1e-9) / (length + 1e-15))
    scores, product = [], 1.0
    for k, order in enumerate(ORDERS):
        product *= (right[k] + 1e-15) / (guessed[k] + 1e-9)
        scores.append(product ** (1 / order) * math.exp(brevity))
    return tuple(scores)  # type: ignore[return-value]


def _rouge_l(hypothesis: list[str], references: list[list[str]]) -> float:
    """F-measure of the longest common subsequence (Lin, ACL workshop 2004), best precision and best recall."""
    if not hypothesis:
        return 0.0
    common = [_common_subsequence(hypothesis, r) for r in references]
    precision = max(common) / len(hypothesis)
    recall = max(n / max(len(r), 1) for n, r in zip(common, references, strict=True))
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + ROUGE_BETA**2) * precision * recall / (recall + ROUGE_BETA**2 * precision)


def _common_subsequence(a: list[str], b: list[str]) -> int:
    row = [0] * (len(b) + 1)
    for x in a:
        diagonal = 0
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], diagonal + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]


class CiderD:
    """CIDEr-D (Vedantam, Zitnick, Parikh, CVPR 2015) with the n-gram frequencies of some images' references."""

    def __init__(self, corpus: Iterable[Sequence[list[str]]]) -> None:
        """`corpus` has the tokenised references of each image."""
        self._documents: Ngrams = Counter()
        images = 0
        for references in corpus:
            images += 1
            self._documents.update({gram for r in references for order in ORDERS for gram in _ngrams(r, order)})
        self._total = math.log(max(images, 1))

    def __call__(self, hypotheses: Sequence[list[str]], references: Sequence[list[str]]) -> list[float]:
        """Scores in [0, 10] of several hypotheses for one image."""
        known = [[self._vector(r, order) for order in ORDERS] for r in references]
        return [self._score(hypothesis, references, known) for hypothesis in hypotheses]

    def _vector(self, words: list[str], order: int) -> Vector:
        counts = _ngrams(words, order)
        weights = {gram: n * (self._total - math.log(max(self._documents[gram], 1))) for gram, n in counts.items()}
        return weights, math.sqrt(sum(w * w for w in weights.values()))

    def _score(
        self, hypothesis: list[str], references: Sequence[list[str]], known: Sequence[Sequence[Vector]]
    ) -> float:
        score = 0.0
        mine = [self._vector(hypothesis, order) for order in ORDERS]
        for reference, theirs in zip(references, known, strict=True):
            # Lengths in bigrams, as the reference code counts them.
            longer = max(len(hypothesis) - 1, 0) - max(len(reference) - 1, 0)
            similarity = 0.0
            for (a, a_norm), (b, b_norm) in zip(mine, theirs, strict=True):
                if a_norm and b_norm:
                    similarity += sum(min(w, b[g]) * b[g] for g, w in a.items() if g in b) / (a_norm * b_norm)
            score += similarity * math.exp(-(longer**2) / (2 * CIDER_SIGMA**2))
        return 10 * score / len(references) / len(ORDERS)
