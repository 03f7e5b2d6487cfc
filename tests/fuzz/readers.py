"""The readers: for each, how to make what is valid, and how to read it."""

import base64
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import librosa.effects  # noqa: F401
import numpy as np
import soundfile
import torch
import torch._dynamo  # as librosa's effects: what would be imported late would be so in every child
import yaml
from PIL import Image

from skipmodal.audio import AudioConfig, audio_seconds, read_audio
from skipmodal.checkpoint import TRAINER, Checkpoint, load_checkpoint, read_card, save_checkpoint
from skipmodal.confidence import Confidence
from skipmodal.config import DataConfig
from skipmodal.data.batches import TrainingBatches, validation_batches
from skipmodal.data.prepare import prepare_image_text, prepare_text_speech
from skipmodal.data.prepared import PreparedDataset
from skipmodal.data.toy import prepare_toy
from skipmodal.features.regions import Regions
from skipmodal.image import ImageConfig, check_picture, read_image, read_photo
from skipmodal.models.system import SkipModal
from skipmodal.recipe import load_recipe, parse_recipe
from skipmodal.retrieval.index import Index, build_index
from skipmodal.study.score import QUESTIONS, Key, read_answers, read_key
from skipmodal.tokenizer import Tokenizer
from skipmodal.training.resume import Progress, restore, trainer_state
from skipmodal.translate import Translator
from tests.conftest import TINY

CPU = torch.device("cpu")
AUDIO = AudioConfig(sample_rate=8000, n_fft=128, win_length=128, hop_length=64, n_mels=8, griffin_lim_iters=3)
IMAGE = ImageConfig(size=16)


@dataclass(frozen=True)
class Reader:
    """`make` writes what is valid into a folder; `read` reads it there, and is told which file was changed."""

    make: Callable[[Path], object]
    read: Callable[[Path, Path], object]
    writes: frozenset[str] = field(default=frozenset())  # names in the folder that a success may leave


# ---------------------------------------------------------------- media


def _picture(number: int = 0, size: tuple[int, int] = (40, 30)) -> Image.Image:
    rng = np.random.default_rng(number)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8))


def _tone(seconds: float = 0.5, rate: int = 8000) -> np.ndarray:
    return 0.5 * np.sin(np.arange(int(seconds * rate)) / 5)


def _make_pictures(folder: Path) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "a.png": {}, "i.png": {"interlace": 1}, "a.jpg": {}, "p.jpg": {"progressive": True}, "a.webp": {},
        "l.webp": {"lossless": True}, "a.gif": {}, "a.bmp": {}, "a.tiff": {}, "z.tiff": {"compression": "tiff_lzw"},
        "j.tiff": {"compression": "jpeg"}, "a.avif": {}, "a.jp2": {}, "a.ppm": {}, "a.tga": {}, "a.ico": {},
        "a.dds": {},
        "a.mpo": {"save_all": True, "append_images": [_picture(1)]},
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, options in kinds.items():
        _picture().save(folder / name, **({"exif": exif} if name in ("a.jpg", "a.png", "a.webp") else {}), **options)
    _picture().convert("P").save(folder / "palette.png", transparency=3)
    Image.fromarray(np.float32([[0.5, 1.0]] * 4)).save(folder / "float.tiff")
    _picture().save(folder / "a.eps")


def _read_picture(folder: Path, changed: Path) -> None:
    check_picture(changed)
    read_image(changed, IMAGE)
    read_photo(changed, 64)


def _make_recordings(folder: Path) -> None:
    kinds = {"a.wav": None, "f.wav": "FLOAT", "u.wav": "ULAW", "m.wav": "IMA_ADPCM", "a.flac": None, "a.ogg": "VORBIS",
             "o.ogg": "OPUS", "a.mp3": None, "a.aiff": None, "a.caf": None, "a.au": None, "a.w64": None,
             "a.rf64": None}  # fmt: skip
    for name, subtype in kinds.items():
        soundfile.write(folder / name, np.stack([_tone(), _tone()], 1), 8000, subtype)
    soundfile.write(folder / "a.sds", _tone(), 8000, format="SDS")


def _read_recording(folder: Path, changed: Path) -> None:
    audio_seconds(changed)
    read_audio(changed, 16000)


# ---------------------------------------------------------------- recipes, sources and prepared datasets


def _make_recipes(folder: Path) -> None:
    recipe = parse_recipe({"model": TINY["vector"]}, "tiny").model_dump(mode="json")
    (folder / "base.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    (folder / "r.yaml").write_text("extends: base.yaml\noptim: {lr: 1e-3, betas: [0.5, 0.9]}\ntrain:\n  max_steps: 5\n")


def _make_source(kind: str, folder: Path) -> None:
    """A layout with three pictures or recordings."""
    media = {"flickr8k": "Images", "coco": "val2017", "ljspeech": "wavs"}.get(kind, ".")
    (folder / media).mkdir(exist_ok=True)
    names = []
    for i in range(3):
        if kind in ("ljspeech", "speech.csv"):
            names.append(f"a{i}.wav")
            soundfile.write(folder / media / names[-1], _tone(0.4), 8000)
        else:
            names.append(f"a{i}.png")
            _picture(i).save(folder / media / names[-1])
    captions = ["A dog runs.", 'Two "big" cats, 3 birds', "½ of a pizza, $5.50 at 5:30 pm in the 1990s."]
    pairs = list(zip(names, captions, strict=True))
    if kind == "flickr8k":
        lines = [f"{name}#{i}\t{text}" for name, text in pairs for i in range(2)]
        (folder / "Flickr8k.token.txt").write_text("\n".join(lines))
        (folder / "Flickr_8k.trainImages.txt").write_text("\n".join(names))
    elif kind == "coco":
        (folder / "annotations").mkdir()
        table = {
            "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
            "annotations": [{"id": i, "image_id": i, "caption": text} for i, text in enumerate(captions)],
        }
        (folder / "annotations" / "captions_val2017.json").write_text(json.dumps(table))
    elif kind == "ljspeech":
        (folder / "metadata.csv").write_text("\n".join(f"{name[:-4]}|{text}|{text}" for name, text in pairs))
    elif kind == "m.jsonl":
        rows = [{"image": name, "text": [text, "x"], "split": "train", "id": name} for name, text in pairs]
        (folder / kind).write_text("\n".join(map(json.dumps, rows)))
    else:
        header = "audio,text" if kind == "speech.csv" else "image\ttext" if kind == "m.tsv" else "image,text"
        separator = "\t" if kind == "m.tsv" else ","
        quoted = [(name, text if separator == "\t" else '"' + text.replace('"', '""') + '"') for name, text in pairs]
        (folder / kind).write_text("\n".join([header, *(separator.join(row) for row in quoted)]))


def _source(kind: str) -> Reader:
    def read(folder: Path, changed: Path) -> None:
        source = folder / kind if "." in kind else folder
        if kind in ("ljspeech", "speech.csv"):
            prepare_text_speech(source, folder / "out", audio=AUDIO, jobs=1, device="cpu", val=0, test=0)
        else:
            prepare_image_text(source, folder / "out", image=IMAGE, jobs=1, device="cpu", val=0, test=0)
        PreparedDataset(folder / "out").item(0)

    return Reader(lambda folder: _make_source(kind, folder), read, frozenset({"out"}))


def _make_prepared(folder: Path) -> None:
    prepare_toy(folder / "toy", pictures=10, sentences=10, size=16)
    shutil.rmtree(folder / "toy" / "photos")


def _read_prepared(folder: Path, changed: Path) -> None:
    a, b = (PreparedDataset(folder / "toy" / name) for name in ("image-text", "text-speech"))
    batches = TrainingBatches(a, b, DataConfig(batch_size=2), Tokenizer(), seed=0)
    for batch in (batches[0], *validation_batches(a, b, Tokenizer(), 2, 2)):
        if b.meta.audio is not None and len(batch.mel):
            batch.linear(b.meta.audio)


# ---------------------------------------------------------------- checkpoints and trainer's state


@cache
def _parts(kind: str) -> tuple[Any, ...]:
    torch.manual_seed(0)
    recipe = parse_recipe({"model": TINY[kind]}, "tiny")
    model = SkipModal(recipe.model, AUDIO, IMAGE, Tokenizer([" dog", " runs"] if kind == "tokens" else []))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0, fused=True)
    sum(p.sum() for p in model.parameters()).backward()
    optimizer.step()  # so that it has a state
    return recipe, model, optimizer, torch.amp.GradScaler("cpu", enabled=False)


def _checkpoint(kind: str) -> Reader:
    def make(folder: Path) -> None:
        recipe, model, optimizer, scaler = _parts(kind)
        state = trainer_state(optimizer, scaler, Progress(3, 0, 1.0))
        confidence = Confidence(slope=1.0, distance=-1.0, intercept=0.5, far=0.5)
        prototypes = torch.rand(4, model.image_encoder.width)
        whole = Checkpoint(model, recipe, AUDIO, IMAGE, confidence, prototypes)
        save_checkpoint(folder / "run", whole, "# A card\n", state)

    def read(folder: Path, changed: Path) -> None:
        if changed.name == TRAINER:
            recipe, model, optimizer, scaler = _parts(kind)
            restore(folder / "run", recipe, AUDIO, IMAGE, model, optimizer, scaler, CPU)
            return
        translator = Translator(load_checkpoint(folder / "run", CPU), CPU, max_seconds=0.5, max_text=20, beam=1)
        read_card(folder / "run" / "card.md")
        for target in ("image", "text", "speech"):
            translator.translate(["a dog"], "text", target)
        translator.translate([_picture()], "image", "text")

    return Reader(make, read)


# ---------------------------------------------------------------- indices and studies


def _make_index(folder: Path) -> None:
    recipe, model, *_ = _parts("vector")
    (folder / "files").mkdir()
    _picture().save(folder / "files" / "a.png")
    soundfile.write(folder / "files" / "a.wav", _tone(), 8000)
    (folder / "files" / "a.txt").write_text("a dog runs\ntwo cats\n")
    translator = Translator(Checkpoint(model.eval(), recipe, AUDIO, IMAGE), CPU)
    build_index(folder / "index", [folder / "files"], translator, "0" * 64)


def _read_index(folder: Path, changed: Path) -> None:
    index = Index(folder / "index")
    query = np.full((1, 16), 0.25, np.float32)
    for modality in index.present:
        for hit in index.search(query, modality, 3)[0]:
            index.where(hit.item)
            source = index.source(hit.item)
            if modality == "image":
                source.picture(hit.item)
            elif modality == "speech":
                source.sound(hit.item)


def _make_regions(folder: Path) -> None:
    features = np.linspace(0.1, 2, 24, dtype="<f4").reshape(4, 6)
    coded = [base64.b64encode(np.ascontiguousarray(part)).decode() for part in (features[:, :4], features)]
    (folder / "r.tsv").write_text("".join("\t".join((name, "64", "48", "4", *coded)) + "\n" for name in "abc"))
    (folder / "npz").mkdir()
    for name in "abc":
        np.savez(folder / "npz" / f"{name}.npz", x=features)


def _read_regions(folder: Path, changed: Path) -> None:
    source = folder / "npz" if changed.suffix == ".npz" else folder / "r.tsv"
    found = Regions(source)
    for name in "abc":
        if name in found:
            rows = found[name]
            assert rows.shape == found.shape and np.isfinite(rows).all()


def _make_study(folder: Path) -> None:
    key = {
        "study": "abc", "title": "A study", "systems": ["ours", "theirs"],
        "items": [
            {"id": f"i{i}", "photo": f"{i}.jpg", "clips": {f"a{i}": "ours", f"b{i}": "theirs"}} for i in range(3)
        ],
    }  # fmt: skip
    Key.model_validate(key)
    (folder / "study.key.json").write_text(json.dumps(key, indent=1))
    for judge in ("ann", "bob"):
        answers = [
            {"item": f"i{i}", "clips": [f"a{i}", f"b{i}"], **{question: f"a{i}" for question in QUESTIONS}}
            for i in range(3)
        ]
        table = {"format": 1, "study": "abc", "judge": judge, "answers": answers}
        (folder / f"{judge}.json").write_text(json.dumps(table, indent=1))


def _read_study(folder: Path, changed: Path) -> None:
    read_answers([folder / "ann.json", folder / "bob.json"], read_key(folder / "study.key.json"))


READERS: dict[str, Reader] = {
    "images": Reader(_make_pictures, _read_picture),
    "audio": Reader(_make_recordings, _read_recording),
    "recipes": Reader(_make_recipes, lambda folder, changed: load_recipe(str(folder / "r.yaml"))),
    **{kind: _source(kind) for kind in ("flickr8k", "coco", "ljspeech", "m.csv", "m.tsv", "m.jsonl", "speech.csv")},
    "regions": Reader(_make_regions, _read_regions),
    "prepared": Reader(_make_prepared, _read_prepared),
    "checkpoints": _checkpoint("vector"),
    "token checkpoints": _checkpoint("tokens"),
    "indices": Reader(_make_index, _read_index),
    "studies": Reader(_make_study, _read_study),
}
