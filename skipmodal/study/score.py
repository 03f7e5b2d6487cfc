"""The listening study (paper section 4.1): its key, the judges' answers, and what they add up to.

Every judge sees every photo, hears what each system says about it, and picks one sample a question.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

import numpy as np
from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from skipmodal.errors import UserError, require

QUESTIONS = {
    "content": "Which sample has the most accurate content for this photo?",
    "voice": "Which sample is closest to a human voice?",
    "overall": "Which sample has the highest overall quality?",
}
PAPER = {"content": (78.6, 27.6), "voice": (65.0, 35.7), "overall": (74.3, 33.9)}  # percent and sd of its own system
MAX_ITEMS = 200
MAX_TITLE = 200  # characters
MAX_FILE_BYTES = 2_000_000  # of a key or of answers
RESAMPLES = 9999


def _printable(name: str) -> str:
    if not name.isprintable():
        raise ValueError("has characters that cannot be printed")
    return name


Id = Annotated[str, Field(pattern=r"^[a-z0-9]{1,32}$")]
Name = Annotated[str, Field(min_length=1, max_length=40), AfterValidator(_printable)]
Title = Annotated[str, Field(max_length=MAX_TITLE), AfterValidator(_printable)]


class KeyItem(BaseModel):
    """One photo: its file's name, and whose each clip is."""

    id: Id
    photo: str
    clips: dict[Id, Name]


class Key(BaseModel):
    """study.key.json, which the judges do not see."""

    format: Literal[1] = 1
    study: Id
    title: Title
    systems: list[Name] = Field(min_length=2, max_length=6)
    items: list[KeyItem] = Field(min_length=1, max_length=MAX_ITEMS)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if any(sorted(item.clips.values()) != sorted(set(self.systems)) for item in self.items):
            raise ValueError("an item does not have one clip of each system")
        if len({item.id for item in self.items}) < len(self.items):
            raise ValueError("two items have the same id")
        return self


class Answer(BaseModel):
    """What was picked for one photo: a clip a question; `clips` is the order in which they were shown."""

    item: Id
    clips: list[Id] = Field(max_length=6)
    content: Id
    voice: Id
    overall: Id


class Answers(BaseModel):
    """The file that the page gives to a judge."""

    format: Literal[1]
    study: Id
    judge: str = Field(pattern=r"^[a-z0-9_-]{1,32}$")
    answers: list[Answer] = Field(max_length=MAX_ITEMS)


@dataclass(frozen=True)
class SystemScore:
    """How often one system was picked for one question; percentages of all judgements."""

    system: str
    chosen: int
    percent: float
    sd_judges: float | None  # of the judges' percentages, n - 1; none for a single judge
    sd_items: float | None  # of the items' percentages
    interval: tuple[float, float]  # 95 %


@dataclass(frozen=True)
class QuestionScore:
    """One question; systems in the key's order. See `score` for what the p-values assume."""

    question: str
    systems: list[SystemScore]
    chi_square: float
    p_chi_square: float
    p_judges: float
    p_items: float
    best: str
    second: str
    p_best: float


@dataclass(frozen=True)
class StudyReport:
    """All questions of a study."""

    study: str
    title: str
    judges: list[str]
    items: int
    questions: list[QuestionScore]


def read_key(path: Path) -> Key:
    """Raises UserError where it can't be read or is no key."""
    return _read(path, Key, "is not the key of a study")


def read_answers(paths: Sequence[Path], key: Key) -> list[Answers]:
    """One complete file a judge, of the study that the key is of.

    Raises UserError for a file that is none, is of another study, is not complete, or whose judge has another one.
    """
    files: dict[str, Path] = {}
    read = []
    for path in paths:
        answers = _read(path, Answers, "is not a judge's answers")
        _check_answers(path, answers, key)
        if answers.judge in files:
            raise UserError(f"{path}: judge {answers.judge} has answered in {files[answers.judge]}; leave one out")
        files[answers.judge] = path
        read.append(answers)
    return read


Model = TypeVar("Model", bound=BaseModel)


def _read(path: Path, model: type[Model], otherwise: str) -> Model:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    if len(data) > MAX_FILE_BYTES:
        raise UserError(f"{path}: {otherwise} (larger than {MAX_FILE_BYTES // 1_000_000} MB)")
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ascii(".".join(map(str, first["loc"])))[1:-1]
        raise UserError(f"{path}: {otherwise} ({where + ': ' if where else ''}{first['msg']})") from error


def _check_answers(path: Path, answers: Answers, key: Key) -> None:
    if answers.study != key.study:
        raise UserError(f"{path}: answers to study {answers.study}, and the key is of study {key.study}")
    known = {item.id: item.clips for item in key.items}
    for answer in answers.answers:
        if answer.item not in known:
            raise UserError(f"{path}: item {answer.item} is not in the key")
        clips = known[answer.item]
        picked = [getattr(answer, question) for question in QUESTIONS]
        if sorted(answer.clips) != sorted(clips) or not clips.keys() >= set(picked):
            raise UserError(f"{path}: item {answer.item} has clips that the key does not give to it")
    answered = {answer.item for answer in answers.answers}
    if len(answered) < len(answers.answers):
        raise UserError(f"{path}: an item is answered twice")
    if missing := len(known) - len(answered):
        raise UserError(f"{path}: {missing} of {len(known)} items are not answered; have it finished, or leave it out")


def choices(key: Key, answers: Sequence[Answers], question: str) -> np.ndarray:
    """Numbers of the systems that were picked, int (judges, items); judges and items in the given orders."""
    number = {name: i for i, name in enumerate(key.systems)}
    rows = []
    for one in answers:
        picked = {answer.item: getattr(answer, question) for answer in one.answers}
        rows.append([number[item.clips[picked[item.id]]] for item in key.items])
    return np.array(rows)


def score(key: Key, answers: Sequence[Answers], seed: int = 0) -> StudyReport:
    """Percentages, deviations, intervals and tests, for each question.

    The paper gives a percentage and one deviation without saying whether it is over the seven judges or the twenty
    samples, so both are here. The interval is of a bootstrap that draws judges and items anew (Owen, "The pigeonhole
    bootstrap", 2007), 2.5 to 97.5 %; where all picked the same it has no width, and says nothing.

    The chi-square test against equal choice, and the exact binomial test of the best system against the second (the
    judgements that picked either), take judgements for independent, as the paper counts them. They are not: a judge
    who likes a voice picks it every time, and a good sample is picked by all. So `p_judges` and `p_items` come from
    permutations of the same statistic that exchange the systems' names for a whole judge, or a whole item, at once,
    which keeps what hangs together. Claim a difference only where both are small; few judges can't make `p_judges` so.
    The best system is picked by looking, and no p-value is corrected for three questions.
    """
    require("study score", scipy="scipy")
    scores = [_score_question(key, choices(key, answers, question), question, seed) for question in QUESTIONS]
    return StudyReport(key.study, key.title, [one.judge for one in answers], len(key.items), scores)


def _score_question(key: Key, chosen: np.ndarray, question: str, seed: int) -> QuestionScore:
    from scipy import stats

    random = np.random.default_rng(seed)
    one_hot = np.eye(len(key.systems), dtype=np.int64)[chosen]  # (judges, items, systems)
    by_judge, by_item = one_hot.sum(1), one_hot.sum(0)
    counts = by_judge.sum(0)
    low, high = _intervals(one_hot, random)
    systems = [
        SystemScore(
            name, int(counts[i]), float(100 * counts[i] / chosen.size),
            _deviation(by_judge[:, i] / by_judge.sum(1)), _deviation(by_item[:, i] / by_item.sum(1)),
            (float(low[i]), float(high[i])),
        )
        for i, name in enumerate(key.systems)
    ]  # fmt: skip
    best, second = np.argsort(-counts, kind="stable")[:2]
    test = stats.chisquare(counts)
    return QuestionScore(
        question, systems, float(test.statistic), float(test.pvalue),
        _permutation_test(by_judge, random), _permutation_test(by_item, random),
        key.systems[best], key.systems[second],
        float(stats.binomtest(int(counts[best]), int(counts[best] + counts[second])).pvalue),
    )  # fmt: skip


def _deviation(shares: np.ndarray) -> float | None:
    return float(100 * shares.std(ddof=1)) if len(shares) > 1 else None


def _intervals(one_hot: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(judges, items, systems) -> percentages (2, systems): 2.5 and 97.5 % of the bootstrap."""
    judges, items, _ = one_hot.shape
    weights = [random.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) for n in (judges, items)]
    drawn = np.einsum("rj,jis,ri->rs", weights[0], one_hot, weights[1], optimize=True)
    return np.percentile(100 * drawn / (judges * items), [2.5, 97.5], axis=0)


def _permutation_test(table: np.ndarray, random: np.random.Generator) -> float:
    """p of the chi-square statistic of a table's column sums, where each row's columns are exchangeable."""
    totals = np.zeros((RESAMPLES, table.shape[1]), dtype=np.int64)
    for row in table:
        totals += random.permuted(np.tile(row, (RESAMPLES, 1)), axis=1)
    # The sum of squares orders the tables as chi-square does, and is exact.
    extreme = (totals**2).sum(1) >= (table.sum(0) ** 2).sum()
    return float((1 + extreme.sum()) / (1 + RESAMPLES))
