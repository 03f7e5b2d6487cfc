"""The paper's own figures (tables 1 to 6), shown beside measured ones and never mixed with them."""

from dataclasses import dataclass

SOURCE = "published by Ma, McDuff and Song (ICCV 2019) on their own data, with their own recogniser: not comparable"

HEARD = "heard by the authors' recogniser"
AMONG = "with each other: rows of one table differ in one thing, on the authors' data"


@dataclass(frozen=True)
class Published:
    """One table of the paper; figures as printed."""

    place: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]  # name, then one figure a column
    tasks: tuple[str, ...]  # of `eval`, that each column is a figure of
    why: str  # it can be compared with what is measured here, or can't

    @property
    def figures(self) -> list[str]:
        """What each column is called by `eval`."""
        return [{"unique words": "unique words heard"}.get(column, column.split(",")[0]) for column in self.columns]


_BLEU = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4")
SKIP_MODAL = Published(
    "Table 1", "image to speech, COCO and EMT-4", (*_BLEU, "WER"),
    (
        ("CycleGAN", "26.2", "20.1", "11.3", "9.2", "12.1"),
        ("Piecewise", "68.2", "51.9", "39.2", "30.1", "4.1"),
        ("Ours", "69.2", "52.1", "40.8", "29.9", "3.9"),
    ),
    ("img2speech",) * 5, f"no: COCO's photos, the voices of EMT-4, {HEARD}",
)  # fmt: skip
VOCABULARY = Published(
    "Section 4.1",
    "words of the speech, as heard",
    ("unique words",),
    (("Piecewise", "1,959"), ("Ours", "2,761")),
    ("vocabulary",), f"no: COCO's photos, {HEARD}",
)  # fmt: skip
CAPTIONS = Published(
    "Table 2", "image to text, COCO", (*_BLEU, "CIDEr", "SPICE"),
    (
        ("ATT", "70.9", "53.7", "40.2", "30.4", "-", "-"),
        ("SAT", "71.8", "50.4", "35.7", "25.0", "-", "-"),
        ("RFNet", "76.4", "60.4", "46.6", "35.8", "112.5", "20.5"),
        ("UD", "77.2", "-", "-", "36.2", "113.5", "20.3"),
        ("Ours", "74.1", "55.2", "41.1", "30.6", "-", "-"),
        ("Ours with RFNet", "78.9", "63.2", "48.1", "37.0", "116.2", "22.4"),
        ("Ours with UD", "79.8", "64.0", "48.9", "37.1", "117.8", "22.5"),
    ),
    ("img2text",) * 6, "no: COCO's photos; only on the same split of COCO",
)  # fmt: skip
RECOGNITION = Published(
    "Table 3", "speech to text, LibriSpeech", ("WER",),
    (("Policy", "5.42"), ("DeepSpeech2", "5.15"), ("GateConv", "4.80"), ("Seq2Seq", "4.01"), ("Ours", "3.88")),
    ("speech2text",), "no: the recordings of LibriSpeech",
)  # fmt: skip
SYNTHESIS = Published(
    "Table 3", "text to speech", ("WER",),
    (("DeepVoice3", "10.8"), ("Tacotron", "10.6"), ("Tacotron 2", "10.5"), ("GST", "10.2"), ("Ours", "10.5")),
    ("text2speech",), f"no: other sentences and voices, {HEARD}",
)  # fmt: skip
ABLATION = Published(
    "Table 4", "ablation", ("BLEU-1, image to text", "WER, speech to text"),
    (
        ("Ours w/o M", "65.2", "6.99"), ("Ours M -> FC", "65.9", "6.32"), ("Ours w/o T", "68.6", "6.01"),
        ("Ours w/o L_adv", "69.8", "5.87"), ("Ours", "74.1", "3.88"),
    ),
    ("img2text", "speech2text"), AMONG,
)  # fmt: skip
SAMPLING = Published(
    "Table 5", "batch sampling", ("BLEU-1, image to text", "WER, speech to text", "WER, text to speech"),
    (("alternate", "74.1", "3.88", "10.5"), ("mix", "74.5", "3.76", "10.5")),
    ("img2text", "speech2text", "text2speech"), AMONG,
)  # fmt: skip
MEMORY = Published(
    "Table 6", "memory size", ("BLEU-1, image to text",),
    (
        ("n_k 10, d_k 256", "62.5"), ("n_k 128, d_k 256", "74.1"), ("n_k 256, d_k 256", "73.9"),
        ("n_k 128, d_k 64", "49.3"), ("n_k 128, d_k 128", "70.2"),
    ),
    ("img2text",), AMONG,
)  # fmt: skip
TABLES = {  # by the names that a sweep file gives them
    table.place if table.place != "Table 3" else f"Table 3, {table.title}": table
    for table in (
        SKIP_MODAL, VOCABULARY, CAPTIONS, RECOGNITION, SYNTHESIS, ABLATION, SAMPLING, MEMORY,
    )
}  # fmt: skip


def rows_beside(task: str) -> list[tuple[str, dict[str, str], str]]:
    """Name, figures and whether they can be compared, of every published row that has a figure of the task."""
    found = []
    for table in TABLES.values():
        columns = [
            (i, name) for i, (of, name) in enumerate(zip(table.tasks, table.figures, strict=True), 1) if of == task
        ]
        for row in table.rows if columns else ():
            name = row[0].replace("Ours", "Ma et al.")
            found.append((f"{name} ({table.place})", {figure: row[i] for i, figure in columns}, table.why))
    return found
