"""Sources -> prepared datasets: every row is validated, and what is left out is counted by reason."""

import hashlib
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skipmodal.audio import AudioConfig, audio_seconds, read_audio, spectrograms, trim_silence
from skipmodal.data import sources
from skipmodal.data import speak as engines
from skipmodal.data.pipeline import Loaded, Pipeline, Task, Unusable, one_by_one
from skipmodal.data.sources import BadRow, Medium, Row
from skipmodal.data.writer import Dropped, PrepReport
from skipmodal.errors import UserError
from skipmodal.features.regions import Regions
from skipmodal.image import ENCODER_SIDES, ImageConfig, check_picture, read_image, read_views, shrink, to_tensor
from skipmodal.text import normalise

if TYPE_CHECKING:
    import torch

MAX_CAPTION = 1000  # characters; more is not a caption
SILENCE = 1e-3  # a recording that stays under this (-60 dB) is silent
BATCH = 8  # pictures in one encoding, recordings in one transform,
BATCH_FRAMES = 4000  # and the recordings' padded frames: beyond 32 MB, each temporary array costs page faults


@dataclass(frozen=True)
class _Rules:
    """Which recordings can be used."""

    min_seconds: float  # after trimming
    max_seconds: float
    max_chars: int  # after normalisation
    trim_db: float  # what is this far under the peak, at both ends, is silence


def prepare_image_text(
    source: Path,
    out: Path,
    *,
    layout: str = "auto",
    image: ImageConfig | None = None,
    regions: Path | None = None,
    views: int = 0,
    licence: str = "unknown",
    val: float = 0.02,
    test: float = 0.02,
    limit: int | None = None,
    jobs: int | None = None,
    device: str = "auto",
    dry_run: bool = False,
    overwrite: bool = False,
) -> PrepReport:
    """Pictures with captions -> a prepared dataset at `out`.

    Args:
        image: size of the pictures, and the frozen encoder whose features are cached.
        regions: a file or folder with features of regions, which take the place of an encoder's (see
            `features.regions`); a picture that it lacks is left out.
        views: how many parts of each training picture that encoder sees beside it, to learn from them, too.
        device: where that encoder runs.
        layout: a name in `sources.LAYOUTS`, or auto.
        licence: of the data, as it shall stand in model cards.
        val, test: fractions, for rows whose source names no split; a hash of the id decides.
        limit: stop after so many rows that can be read.
        jobs: threads that decode (default: one a core); they don't change the result.
        dry_run: validate every row as far as its header and write nothing.
        overwrite: replace what is at `out`, once the new dataset is complete.

    Raises UserError for an unusable source or target, and where no row is usable.
    """
    from skipmodal.device import pick_device

    image, place = image or ImageConfig(), pick_device(device)
    name, rows = _read_source(source, layout, "image", val, test, limit)
    found = None
    if regions is not None:
        if image.encoder != "none":
            raise UserError("regions take the place of an encoder's features; give one of both")
        found = Regions(regions)
        image = ImageConfig(size=image.size, encoder="regions", regions=found.shape)
    if views and image.encoder not in ENCODER_SIDES:
        raise UserError("views are for a frozen image encoder: --encoder")
    encode: Callable[[list[Any]], list[tuple[np.ndarray, ...]]] = partial(_as_rows, config=image)
    load = one_by_one(partial(_load_picture, read=partial(read_image, config=image)))
    if dry_run:
        load = one_by_one(partial(_check_picture, regions=found))
    elif found is not None:
        load, encode = one_by_one(partial(_load_regions, config=image, regions=found)), _with_regions
    elif image.encoder != "none":
        load, encode = one_by_one(partial(_load_views, config=image, views=views)), _FeatureEncoder(image, views, place)
    pipeline = Pipeline(rows, _captions, load, encode, jobs)
    if dry_run:
        return pipeline.check()
    settings = {
        "kind": "image-text",
        "source": f"{source.resolve().name} ({name})",
        "licence": licence,
        "image": image.model_dump(),
        "views": views or None,
        "options": {"path": str(source.resolve()), "val": val, "test": test, "limit": limit}
        | ({"regions": str(regions.resolve())} if regions is not None else {}),
    }
    return pipeline.write(out, settings, [_digest(row) for row in rows], overwrite)


def prepare_text_speech(
    source: Path,
    out: Path,
    *,
    layout: str = "auto",
    audio: AudioConfig | None = None,
    speak: Sequence[str] = (),
    min_seconds: float = 0.3,
    max_seconds: float = 15.0,
    max_chars: int = 300,
    trim_db: float = 40.0,
    licence: str = "unknown",
    val: float = 0.02,
    test: float = 0.02,
    limit: int | None = None,
    jobs: int | None = None,
    device: str = "auto",
    dry_run: bool = False,
    overwrite: bool = False,
) -> PrepReport:
    """Recordings with transcripts, or sentences spoken by an engine -> a prepared dataset at `out`.

    Args:
        speak: voices, each ENGINE:VOICE, that in turn speak the rows of a manifest that name no recording.
        min_seconds, max_seconds: of audio, after trimming; what lies outside is left out.
        max_chars: of text, after normalisation; what is longer is left out.
        trim_db: silence at both ends is what lies this far under the peak.
        device: where spectrograms are computed.

    The other arguments, and errors, as in `prepare_image_text`.
    """
    from skipmodal.device import pick_device

    audio, place = audio or AudioConfig(), pick_device(device)
    name, rows = _read_source(source, layout, "sentence" if speak else "audio", val, test, limit)
    voices = [engines.parse(spec) for spec in speak]
    rules = _Rules(min_seconds, max_seconds, max_chars, trim_db)
    if dry_run:
        load = one_by_one(partial(_check_recording, rules=rules))
    else:
        load = _Loader(audio, rules, voices, rows)
    encode = partial(_with_mels, config=audio, device=place)
    pipeline = Pipeline(
        rows, partial(_transcript, rules=rules), load, encode, jobs, max([voice.batch for voice in voices], default=1)
    )
    if dry_run:
        return pipeline.check()
    settings = {
        "kind": "text-speech",
        "source": f"{source.resolve().name} ({name})"
        + (f", spoken by {', '.join(dict.fromkeys(map(str, voices)))}" if voices else ""),
        "licence": licence,
        "audio": audio.model_dump(),
        "options": {
            "path": str(source.resolve()),
            "speak": list(speak),
            "val": val,
            "test": test,
            "limit": limit,
            **asdict(rules),
        },
    }
    return pipeline.write(out, settings, [_digest(row) for row in rows], overwrite)


# ---------------------------------------------------------------- rows and texts


def _read_source(
    source: Path, layout: str, medium: Medium, val: float, test: float, limit: int | None
) -> tuple[str, list[Row | BadRow]]:
    """The layout's name and its rows, each with a split and an id of its own."""
    if not (val >= 0 and test >= 0 and val + test < 1):
        raise UserError(f"val {val} and test {test}: not fractions that leave something to train on")
    name = sources.detect(source) if layout == "auto" else layout
    module = sources.load(name)
    media, look = sources.LAYOUTS[name]
    if medium not in media:
        raise UserError(f"{source}: the layout {name} ({look}) offers {' and '.join(media)}, not {medium}")
    seen: set[str] = set()
    rows: list[Row | BadRow] = []
    for row in module.rows(source, medium):
        if len(seen) == limit:  # rows that can be read: some layouts tell of all others first
            break
        if isinstance(row, Row):
            if row.id in seen:
                row = BadRow(row.where, "duplicate id", row.id)
            else:
                seen.add(row.id)
                row = replace(row, split=row.split or split_of(row.id, val, test))
        rows.append(row)
    return name, rows


def split_of(item_id: str, val: float, test: float) -> str:
    """A split that depends on nothing but the id, so that adding rows moves none."""
    share = int.from_bytes(hashlib.sha256(item_id.encode()).digest()[:8], "big") / 2**64
    return "test" if share < test else "val" if share < test + val else "train"


def _digest(row: Row | BadRow) -> str:
    """Tells, on resuming, whether the source still has this row in this place."""
    if isinstance(row, Row):
        content: tuple[Any, ...] = (row.id, row.split, row.texts, row.media and row.media.name)
    else:
        content = (row.where.rpartition(":")[2], row.reason, row.detail)
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]


def _captions(row: Row) -> list[str]:
    """The usable captions of a picture."""
    usable = [text for raw in row.texts if len(raw) <= MAX_CAPTION and (text := normalise(raw))]
    if not usable:
        raise Unusable("no usable text", repr(row.texts[0][:80]))
    return usable


def _transcript(row: Row, rules: _Rules) -> list[str]:
    raw = row.texts[0]
    if len(raw) > 10 * rules.max_chars:  # not worth normalising
        raise Unusable("text too long", f"{len(raw)} characters, the limit is {rules.max_chars}")
    text = normalise(raw)
    if not text:
        raise Unusable("no usable text", repr(raw[:80]))
    if len(text) > rules.max_chars:
        raise Unusable("text too long", f"{len(text)} characters, the limit is {rules.max_chars}")
    return [text]


def _file(row: Row) -> Path:
    assert row.media
    if not os.path.isfile(row.media):  # unlike Path's, it never raises
        raise Unusable("missing file", str(row.media))
    return row.media


# ---------------------------------------------------------------- pictures


def _load_picture(row: Row, texts: list[str], read: Callable[[Path], np.ndarray]) -> Loaded:
    try:
        return Loaded(row, texts, read(_file(row)))
    except UserError as error:
        raise Unusable("unreadable picture", str(error)) from error


def _load_views(row: Row, texts: list[str], config: ImageConfig, views: int) -> Loaded:
    """The picture and, of the training split, its views: (1 or more, side, side, 3)."""
    count, seed = views if row.split == "train" else 0, zlib.crc32(row.id.encode())
    return _load_picture(row, texts, partial(read_views, config=config, count=count, seed=seed))


def _as_rows(pictures: list[np.ndarray], config: ImageConfig) -> list[tuple[np.ndarray, ...]]:
    return [(shrink(picture, config.size)[None],) for picture in pictures]


class _FeatureEncoder:
    """Pictures at the encoder's size, each with its views -> (picture at the dataset's size, features, theirs) rows."""

    def __init__(self, config: ImageConfig, views: int, device: "torch.device") -> None:
        from skipmodal.features import efficientnet

        self.config, self.views, self.device = config, views, device
        self.encoder = efficientnet.build(config.encoder).load_published().to(device)

    def __call__(self, pictures: list[np.ndarray]) -> list[tuple[np.ndarray, ...]]:
        features = self._features([view for views in pictures for view in views])
        first, rows = 0, []
        for views, images in zip(pictures, _as_rows([each[0] for each in pictures], self.config), strict=True):
            own, *others = features[first : first + len(views)]
            first += len(views)
            row = (*images, own[None])
            if self.views:
                row += (np.stack(others or [np.zeros_like(own)] * self.views)[None],)
            rows.append(row)
        return rows

    def _features(self, pictures: list[np.ndarray]) -> list[np.ndarray]:
        import torch

        features: list[np.ndarray] = []
        with torch.inference_mode():
            for start in range(0, len(pictures), BATCH):
                batch = to_tensor(np.stack(pictures[start : start + BATCH])).to(self.device)
                features.extend(self.encoder(batch).half().cpu().numpy())
        return features


def _load_regions(row: Row, texts: list[str], config: ImageConfig, regions: Regions) -> Loaded:
    """The picture at the dataset's size, and the features of its regions."""
    _check_regions(row, regions)
    loaded = _load_picture(row, texts, partial(read_image, config=config))
    try:
        features = regions[_file(row).stem]
    except UserError as error:
        raise Unusable("unreadable features of regions", str(error)) from error
    return replace(loaded, media=(loaded.media, features))


def _check_regions(row: Row, regions: Regions) -> None:
    if (file := _file(row)).stem not in regions:
        raise Unusable("no features of regions", file.name)


def _with_regions(loaded: list[tuple[np.ndarray, np.ndarray]]) -> list[tuple[np.ndarray, ...]]:
    return [(picture[None], found[None]) for picture, found in loaded]


def _check_picture(row: Row, texts: list[str], regions: Regions | None = None) -> Loaded:
    if regions is not None:
        _check_regions(row, regions)
    try:
        check_picture(_file(row))
    except UserError as error:
        raise Unusable("unreadable picture", str(error)) from error
    return Loaded(row, texts, None)


# ---------------------------------------------------------------- recordings


class _Loader:
    """Recordings as they are, and sentences that have none, spoken by one voice after the other."""

    def __init__(
        self, config: AudioConfig, rules: _Rules, voices: list[engines.Voice], rows: list[Row | BadRow]
    ) -> None:
        self.config, self.rules = config, rules
        unspoken = [row.id for row in rows if isinstance(row, Row) and row.media is None]
        self.voices = dict(zip(unspoken, cycle(voices), strict=False))

    def __call__(self, group: list[Task]) -> list[Loaded | Dropped]:
        done: dict[str, Loaded | Dropped] = {}
        for voice in dict.fromkeys(self.voices.get(row.id) for row, _ in group):
            tasks = [task for task in group if self.voices.get(task[0].id) == voice]
            each = one_by_one(self._recorded)(tasks) if voice is None else self._spoken(tasks, voice)
            done.update(zip((row.id for row, _ in tasks), each, strict=True))
        return [done[row.id] for row, _ in group]

    def _recorded(self, row: Row, texts: list[str]) -> Loaded:
        return _trimmed(row, texts, _file(row), self.config, self.rules)

    def _spoken(self, tasks: list[Task], voice: engines.Voice) -> list[Loaded | Dropped]:
        """A sentence that fails is found by speaking each alone."""
        try:
            wavs = iter(voice.speak([texts[0] for _, texts in tasks]))
        except engines.EngineError as error:
            if len(tasks) == 1:
                return [Dropped(tasks[0][0].where, "engine failed", str(error))]
            return [result for task in tasks for result in self._spoken([task], voice)]
        return one_by_one(lambda row, texts: _trimmed(row, texts, next(wavs), self.config, self.rules))(tasks)


def _trimmed(row: Row, texts: list[str], source: Path | bytes, config: AudioConfig, rules: _Rules) -> Loaded:
    """int16 samples without the silence at both ends."""
    try:
        wav = read_audio(source, config.sample_rate)
    except UserError as error:
        raise Unusable("unreadable audio", str(error)) from error
    if np.abs(wav).max() < SILENCE:
        raise Unusable("only silence", f"{len(wav) / config.sample_rate:.2f} s")
    wav, cut = trim_silence(wav, rules.trim_db, pad=config.sample_rate // 40)
    seconds = len(wav) / config.sample_rate
    if seconds < rules.min_seconds:
        raise Unusable("too short", f"{seconds:.2f} s, the limit is {rules.min_seconds:g} s")
    if seconds > rules.max_seconds:
        raise Unusable("too long", f"{seconds:.2f} s, the limit is {rules.max_seconds:g} s")
    samples = np.clip(np.round(wav * 32768), -32768, 32767).astype(np.int16)
    return Loaded(row, texts, samples, seconds, cut / config.sample_rate)


def _check_recording(row: Row, texts: list[str], rules: _Rules) -> Loaded:
    """Too long is not for a header to say: silence is yet to be cut."""
    if row.media is None:  # a sentence yet to be spoken
        return Loaded(row, texts, None)
    try:
        seconds = audio_seconds(_file(row))
    except UserError as error:
        raise Unusable("unreadable audio", str(error)) from error
    if seconds < rules.min_seconds:
        raise Unusable("too short", f"{seconds:.2f} s, the limit is {rules.min_seconds:g} s")
    return Loaded(row, texts, None, seconds)


def _with_mels(wavs: list[np.ndarray], config: AudioConfig, device: "torch.device") -> list[tuple[np.ndarray, ...]]:
    """(mel, samples) of each recording, computed in batches of about equal length."""
    batches: list[list[int]] = []
    for i in sorted(range(len(wavs)), key=lambda i: len(wavs[i])):
        room = min(BATCH, BATCH_FRAMES // config.frames(len(wavs[i])))
        if not batches or len(batches[-1]) >= room:
            batches.append([])
        batches[-1].append(i)
    mels: dict[int, np.ndarray] = {}
    for batch in batches:
        mels |= zip(batch, mel_batch([wavs[i] for i in batch], config, device), strict=True)
    return [(mels[i], wav) for i, wav in enumerate(wavs)]


def mel_batch(wavs: list[np.ndarray], config: AudioConfig, device: "torch.device") -> list[np.ndarray]:
    """int16 waveforms -> float16 mels (frames, n_mels), each what it would be alone."""
    import torch

    padded = np.zeros((len(wavs), max(map(len, wavs))), dtype=np.float32)
    for row, wav in zip(padded, wavs, strict=True):
        row[: len(wav)] = wav / np.float32(32768)
    with torch.inference_mode():
        mel, _ = spectrograms(torch.from_numpy(padded).to(device), config)
        batch = mel.half().cpu().numpy()
    return [item[: config.frames(len(wav))] for item, wav in zip(batch, wavs, strict=True)]
