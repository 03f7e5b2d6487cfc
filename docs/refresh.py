"""Everything in the documentation that depends on the bundled model, made anew by one command: python docs/refresh.py

It describes and speaks each photo in examples/, writes docs/gallery/ (the recordings and gallery.json) and
docs/gallery.jpg, and copies the figures of the model's card between the markers in README.md and docs/bundled.md.
Run it after the bundled model has changed. `--check` writes nothing and says what is out of date (status 1).
"""

import hashlib
import json
import re
import sys
import textwrap
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parent.parent
GALLERY = ROOT / "docs" / "gallery"
CARD = ROOT / "skipmodal" / "bundled" / "card.md"
PAGES = ("README.md", "docs/bundled.md")  # with the figures of the card
COLUMNS = 3


def main() -> None:
    """Refreshes, or with --check only tells."""
    if sys.argv[1:] == ["--check"]:
        if stale := out_of_date():
            sys.exit(f"out of date: {', '.join(stale)}; run python docs/refresh.py")
        return
    items = speak_photos()
    draw(items)
    record = {"model": model(), "items": [{key: item[key] for key in ("photo", *SHOWN)} for item in items]}
    (GALLERY / "gallery.json").write_text(json.dumps(record, indent=1) + "\n")
    (ROOT / "docs" / "gallery.md").write_text(page(items))
    for name in PAGES:
        (ROOT / name).write_text(with_figures((ROOT / name).read_text()))


SHOWN = ("sentence", "confidence", "seconds")


def out_of_date() -> list[str]:
    """Files that are not of the bundled model as it is."""
    stale = [name for name in PAGES if with_figures((ROOT / name).read_text()) != (ROOT / name).read_text()]
    made_of = json.loads((GALLERY / "gallery.json").read_text())["model"]
    return stale if made_of == model() else [*stale, "docs/gallery.jpg"]


def model() -> str:
    """A name for the weights and settings that the gallery was made with."""
    files = (CARD.parent / name for name in ("model.safetensors", "config.yaml"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def with_figures(text: str) -> str:
    """A page with the first table of the card, which is that of the test split, between its markers."""
    table = re.search(r"(^\|.*\n)+", CARD.read_text(), re.MULTILINE)
    assert table is not None, f"{CARD} has no table"
    block = f"<!-- figures of the card -->\n\n{table[0]}\n<!-- end of figures -->"
    return re.sub(r"<!-- figures of the card -->.*?<!-- end of figures -->", lambda _: block, text, flags=re.DOTALL)


def speak_photos() -> list[dict]:
    """Each photo in examples/ with its sentence, how sure the model is, and its sound, the surest first."""
    import skipmodal
    from skipmodal.audio import write_audio
    from skipmodal.image import read_photo

    GALLERY.mkdir(exist_ok=True)
    translator = skipmodal.load(device="cpu")
    items = []
    for path in sorted((ROOT / "examples").glob("*.jpg")):
        (speech,) = translator.img2speech([path])
        rate = translator.audio.sample_rate
        write_audio(GALLERY / f"{path.stem}.ogg", speech.value, rate)
        items.append({
            "photo": path.stem, "sentence": speech.text, "confidence": round(speech.confidence, 2),
            "seconds": round(len(speech.value) / rate, 1), "pixels": read_photo(path, 512), "wav": speech.value,
        })  # fmt: skip
    return sorted(items, key=lambda item: -item["confidence"])


def draw(items: list[dict]) -> None:
    """docs/gallery.jpg: photos, sentences and waveforms."""
    from matplotlib.figure import Figure

    rows = -(-len(items) // COLUMNS)
    figure = Figure(figsize=(11, 4.1 * rows), layout="constrained", facecolor="white")
    grid = figure.subplots(2 * rows, COLUMNS, height_ratios=[5, 1] * rows, squeeze=False)
    for number, item in enumerate(items):
        row, column = divmod(number, COLUMNS)
        photo, sound = grid[2 * row][column], grid[2 * row + 1][column]
        photo.imshow(square(item["pixels"]))
        sentence = textwrap.fill(f"“{item['sentence']}”", 34)
        photo.set_title(f"{sentence}\nconfidence {item['confidence']:.2f}", fontsize=12)
        parts = np.array_split(np.abs(item["wav"]), 180)
        peaks = np.array([part.max(initial=0) for part in parts])
        sound.vlines(np.arange(len(peaks)), -peaks, peaks, color="#0072B2", linewidth=1)
        sound.set_ylim(-1, 1)
    for axes in grid.ravel():
        axes.axis("off")
    figure.canvas.draw()
    figure.savefig(ROOT / "docs" / "gallery.jpg", dpi=100, pil_kwargs={"quality": 85})


def square(pixels: np.ndarray, side: int = 400) -> np.ndarray:
    """The whole photo on a white square."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side))
    ground = Image.new("RGB", (side, side), "white")
    ground.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return np.asarray(ground)


def page(items: list[dict]) -> str:
    """docs/gallery.md: the picture, and a player for each photo."""
    credits = (ROOT / "examples" / "README.md").read_text().partition("\n\n")[2]
    lines = [
        "# Gallery",
        "",
        "What the bundled model says of six photos, the surest first. They were chosen because anyone may pass them",
        "on, and most are unlike the everyday scenes that the model has learned from.",
        "",
        "![Six photos with their sentences and waveforms](gallery.jpg)",
        "",
    ]
    for item in items:
        lines += [
            f"**{item['photo']}**: “{item['sentence']}” (confidence {item['confidence']:.2f})",
            "",
            f'<audio controls preload="none" src="gallery/{item["photo"]}.ogg"></audio>',
            "",
        ]
    lines += [
        "This page is made by `python docs/refresh.py`. What the confidence means is said under",
        "[The bundled model](bundled.md#how-sure-it-is).",
        "",
        "## The photos",
        "",
        credits.strip(),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
