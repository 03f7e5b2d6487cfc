"""The page of the listening study: photos and clips of several systems -> one HTML file without names, and its key."""

import base64
import hashlib
import io
import json
import random
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from skipmodal.audio import audio_rate, read_audio, write_audio
from skipmodal.errors import UserError
from skipmodal.files import write_atomic
from skipmodal.image import read_photo
from skipmodal.modality import SUFFIXES
from skipmodal.study.score import MAX_ITEMS, MAX_TITLE, QUESTIONS, Key, KeyItem
from skipmodal.templates import render

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
SYSTEMS = (2, 6)  # fewest and most
PHOTO_SIDE = 800  # pixels, the longer one
MAX_CLIP_SECONDS = 60
MAX_PAGE_BYTES = 200_000_000
LOUDNESS = 0.05  # root mean square of a clip whose peaks allow it: the louder of two samples passes for the better one
SILENCE = 1e-3  # peak; what is below is left as it is


def make_study(
    photos: Path, systems: Mapping[str, Path], out: Path, *, title: str, seed: int
) -> tuple[Path, list[Path]]:
    """Writes the page `out`, and beside it the key, which says whose each clip is.

    `systems` maps a name to a folder with one audio file a photo, of the photo's stem. An item's clips lie in the
    page in an order drawn from `seed`; the page shuffles them, and the items, anew for every judge. Photos become
    JPEG without their metadata, clips 16-bit WAV, as loud as each other as far as their peaks allow.
    The same arguments make the same bytes.

    Returns the path of the key, and the audio files that belonged to no photo and were left out.
    Raises UserError for what is missing, ambiguous, unreadable or too large, and where the key exists already.
    """
    key_path = out.with_suffix(".key.json")
    _check(systems, out, key_path, title)
    pictures = _by_stem(photos, "photo")
    if not 1 <= len(pictures) <= MAX_ITEMS:
        raise UserError(f"{photos}: {len(pictures)} photos; a study has 1 to {MAX_ITEMS}")
    speech = {name: _by_stem(folder, "recording") for name, folder in systems.items()}
    for name, files in speech.items():
        missing = [stem for stem in pictures if stem not in files]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise UserError(f"{systems[name]}: no audio of {name} for the photo {missing[0]}{more}")

    draw = random.Random(seed)
    shown, items, size = [], [], 0
    for number, (stem, (picture,)) in enumerate(pictures.items(), 1):
        order = draw.sample(list(systems), len(systems))
        clips = {f"i{number}c{i}": name for i, name in enumerate(order, 1)}
        item = {
            "id": f"i{number}",
            "photo": _data_uri("image/jpeg", _photo(picture)),
            "clips": [
                {"id": clip, "audio": _data_uri("audio/wav", _clip(_only(speech[name][stem])))}
                for clip, name in clips.items()
            ],
        }
        size += len(json.dumps(item))
        if size > MAX_PAGE_BYTES:
            limit = MAX_PAGE_BYTES // 1_000_000
            raise UserError(f"{out}: would be larger than {limit} MB at {picture.name}; use fewer photos")
        shown.append(item)
        name = picture.name.encode("utf-8", "replace").decode()  # a file's name need not be UTF-8
        items.append(KeyItem(id=f"i{number}", photo=name, clips=clips))

    media = hashlib.sha256(json.dumps([title, seed, shown, [item.model_dump() for item in items]]).encode())
    key = Key(study=media.hexdigest()[:16], title=title, systems=list(systems), items=items)
    page = _page(title, {"id": key.study, "questions": QUESTIONS, "items": shown}).encode()
    write_atomic(key_path, (key.model_dump_json(indent=1) + "\n").encode())  # first: no page without its key
    write_atomic(out, page)
    extra = (paths for files in speech.values() for stem, paths in files.items() if stem not in pictures)
    unknown = [path for paths in extra for path in paths]
    return key_path, unknown


def _check(systems: Mapping[str, Path], out: Path, key_path: Path, title: str) -> None:
    if not SYSTEMS[0] <= len(systems) <= SYSTEMS[1]:
        raise UserError(f"{len(systems)} systems; a study compares {SYSTEMS[0]} to {SYSTEMS[1]}")
    if not out.parent.is_dir():
        raise UserError(f"{out}: the folder {out.parent} does not exist")
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"{out}: the page's name must end in .html")
    if key_path.exists():
        raise UserError(f"{key_path}: exists already, and answers may belong to it; give another name for the page")
    if not title.isprintable() or len(title) > MAX_TITLE:
        raise UserError(f"title {title[:40]!r}: must be one line of at most {MAX_TITLE} characters")
    for name in systems:
        if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", title, re.IGNORECASE):
            raise UserError(f"title {title!r}: names the system {name}, and judges read it; give another one")


def _by_stem(folder: Path, kind: str) -> dict[str, list[Path]]:
    """Files of a folder by stem, sorted; photos must not share one, recordings are told apart when they are needed."""
    if not folder.is_dir():
        raise UserError(f"{folder}: is not a folder with one {kind} an item")
    files: dict[str, list[Path]] = defaultdict(list)
    suffixes = SUFFIXES["image"] if kind == "photo" else AUDIO_SUFFIXES
    try:
        for path in sorted(folder.iterdir()):
            if not path.name.startswith(".") and path.suffix.lower() in suffixes:
                files[path.stem].append(path)
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror or error})") from error
    if kind == "photo":
        for paths in files.values():
            _only(paths)
    return dict(files)


def _only(paths: list[Path]) -> Path:
    if len(paths) > 1:
        raise UserError(f"{paths[0]}: {paths[1].name} has the same stem; keep one of them")
    return paths[0]


def _photo(path: Path) -> bytes:
    """A JPEG of at most PHOTO_SIDE pixels a side, upright, without metadata."""
    buffer = io.BytesIO()
    Image.fromarray(read_photo(path, PHOTO_SIDE)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _clip(path: Path) -> bytes:
    """A mono 16-bit WAV at the file's own rate, as far as browsers play it, of the common loudness."""
    rate = min(max(audio_rate(path), 8000), 48000)
    wav = read_audio(path, rate, MAX_CLIP_SECONDS)
    peak = float(np.abs(wav).max())
    if peak >= SILENCE:
        wav = wav * min(LOUDNESS / float(np.sqrt(np.mean(wav**2))), 0.99 / peak)
    buffer = io.BytesIO()
    write_audio(buffer, wav, rate)
    return buffer.getvalue()


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _page(title: str, study: dict[str, object]) -> str:
    data = json.dumps(study)
    for letter in "<>&":  # a script element ends at the first `</script`, wherever it stands
        data = data.replace(letter, f"\\u{ord(letter):04x}")
    return render("study.html.j2", title=title, study=data).decode()
