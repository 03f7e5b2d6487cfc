"""The paper's own figures (tables 1 to 6), shown beside measured ones and never mixed with them."""

from dataclasses import dataclass

HEARD = "heard by the authors' recogniser"
AMONG = "with each other: rows of one table differ in one thing, on the authors' data"


@dataclass(frozen=True)
class Published:
    """One table of the paper; figures as printed."""

    place: str
    why: str  # it can be compared with what is measured here, or can't
    columns: tuple[tuple[str, str], ...]  # task and figure
    rows: tuple[tuple[str, ...], ...]  # name, then one figure a column


_BLEU = tuple(f"BLEU-{n}" for n in range(1, 5))
SKIP_MODAL = Published(
    "table 1", f"no: COCO's photos, the voices of EMT-4, {HEARD}",
    tuple(("img2speech", name) for name in (*_BLEU, "WER")),
    (
        ("CycleGAN", "26.2", "20.1", "11.3", "9.2", "12.1"),
        ("Piecewise", "68.2", "51.9", "39.2", "30.1", "4.1"),
        ("Ma et al.", "69.2", "52.1", "40.8", "29.9", "3.9"),
    ),
)  # fmt: skip
VOCABULARY = Published(
    "section 4.1",
    f"no: COCO's photos, {HEARD}",
    (("vocabulary", "unique words heard"),),
    (("Piecewise", "1,959"), ("Ma et al.", "2,761")),
)
CAPTIONS = Published(
    "table 2", "no: COCO's photos; only on the same split of COCO",
    tuple(("img2text", name) for name in (*_BLEU, "CIDEr", "SPICE")),
    (
        ("ATT", "70.9", "53.7", "40.2", "30.4", "-", "-"),
        ("SAT", "71.8", "50.4", "35.7", "25.0", "-", "-"),
        ("RFNet", "76.4", "60.4", "46.6", "35.8", "112.5", "20.5"),
        ("UD", "77.2", "-", "-", "36.2", "113.5", "20.3"),
        ("Ma et al.", "74.1", "55.2", "41.1", "30.6", "-", "-"),
        ("Ma et al. with RFNet", "78.9", "63.2", "48.1", "37.0", "116.2", "22.4"),
        ("Ma et al. with UD", "79.8", "64.0", "48.9", "37.1", "117.8", "22.5"),
    ),
)  # fmt: skip
RECOGNITION = Published(
    "table 3", "no: the recordings of LibriSpeech", (("speech2text", "WER"),),
    (("Policy", "5.42"), ("DeepSpeech2", "5.15"), ("GateConv", "4.80"), ("Seq2Seq", "4.01"), ("Ma et al.", "3.88")),
)  # fmt: skip
SYNTHESIS = Published(
    "table 3", f"no: other sentences and voices, {HEARD}", (("text2speech", "WER"),),
    (("DeepVoice3", "10.8"), ("Tacotron", "10.6"), ("Tacotron 2", "10.5"), ("GST", "10.2"), ("Ma et al.", "10.5")),
)  # fmt: skip
ABLATION = Published(
    "table 4", AMONG, (("img2text", "BLEU-1"), ("speech2text", "WER")),
    (
        ("Ma et al. w/o M", "65.2", "6.99"), ("Ma et al. M -> FC", "65.9", "6.32"), ("Ma et al. w/o T", "68.6", "6.01"),
        ("Ma et al. w/o L_adv", "69.8", "5.87"), ("Ma et al.", "74.1", "3.88"),
    ),
)  # fmt: skip
SAMPLING = Published(
    "table 5", AMONG, (("img2text", "BLEU-1"), ("speech2text", "WER"), ("text2speech", "WER")),
    (("alternate", "74.1", "3.88", "10.5"), ("mix", "74.5", "3.76", "10.5")),
)  # fmt: skip
MEMORY = Published(
    "table 6", AMONG, (("img2text", "BLEU-1"),),
    (
        ("n_k 10, d_k 256", "62.5"), ("n_k 128, d_k 256", "74.1"), ("n_k 256, d_k 256", "73.9"),
        ("n_k 128, d_k 64", "49.3"), ("n_k 128, d_k 128", "70.2"),
    ),
)  # fmt: skip
TABLES = {  # by the names that a sweep file gives them
    "table 1": SKIP_MODAL, "section 4.1": VOCABULARY, "table 2": CAPTIONS, "table 3, speech to text": RECOGNITION,
    "table 3, text to speech": SYNTHESIS, "table 4": ABLATION, "table 5": SAMPLING, "table 6": MEMORY,
}  # fmt: skip


def rows_beside(task: str) -> list[tuple[str, dict[str, str], str]]:
    """Name, figures and whether they can be compared, of every published row that has a figure of the task."""
    found = []
    for table in TABLES.values():
        places = [(i, figure) for i, (of, figure) in enumerate(table.columns, 1) if of == task]
        for row in table.rows if places else ():
            found.append((f"{row[0]} ({table.place})", {figure: row[i] for i, figure in places}, table.why))
    return found
