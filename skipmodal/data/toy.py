"""A toy world that is generated: pictures of coloured shapes, captions, and "speech" made of tones.

A caption is four words, `size colour shape place` ("big red circle left"): 2 x 6 x 5 x 4 = 240 combinations.
The seed deals them into three disjoint sets, each balanced over words and pairs of words:

* 120 that have pictures and never speech: train of image-text (and val: other renderings of the same);
* 80 that have speech and never a picture: train of text-speech (and val: the same again, at other levels);
* 40 that have neither: test of both datasets, and the loose photos.

A word is always the same two tones at once, so that a transcript is decoded exactly, without a recogniser:
image -> speech is right when the tones name what the picture shows.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from skipmodal.audio import AudioConfig, write_audio
from skipmodal.errors import UserError
from skipmodal.image import ImageConfig, write_image

TOY_AUDIO = AudioConfig(
    sample_rate=8000, n_fft=512, win_length=400, hop_length=150, n_mels=40,
    preemphasis=0.0, ref_db=30.0, floor_db=-80.0, power=1.0,
)  # fmt: skip

SIZES = {"big": 0.26, "small": 0.16}  # radius, in sides of the picture
COLOURS = {
    "red": (225, 40, 40), "green": (40, 190, 60), "blue": (50, 90, 245),
    "yellow": (240, 215, 40), "purple": (175, 50, 215), "white": (240, 240, 240),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "star", "cross")
PLACES = {"left": (0.29, 0.5), "right": (0.71, 0.5), "top": (0.5, 0.29), "bottom": (0.5, 0.71)}
WORDS = (*SIZES, *COLOURS, *SHAPES, *PLACES)
CAPTIONS = tuple(" ".join(words) for words in product(SIZES, COLOURS, SHAPES, PLACES))
# The fewer combinations a word has pictures in, the more it is learned by its company.
PICTURED, SPOKEN = 120, 80
HELD_OUT = len(CAPTIONS) - PICTURED - SPOKEN  # captions with neither pictures nor speech to learn from

SIDE = 64  # pixels a picture
_OVERSAMPLING = 4
_ARM = 0.32
_OUTLINES = {  # corners in radii from the centre, y downwards
    "square": [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)],
    "triangle": [(0, -1.05), (1.05, 0.85), (-1.05, 0.85)],
    "star": [(r * np.sin(np.pi * i / 5), -r * np.cos(np.pi * i / 5)) for i, r in enumerate((1.15, 0.5) * 5)],
    "cross": [
        (-_ARM, -1), (_ARM, -1), (_ARM, -_ARM), (1, -_ARM), (1, _ARM), (_ARM, _ARM),
        (_ARM, 1), (-_ARM, 1), (-_ARM, _ARM), (-1, _ARM), (-1, -_ARM), (-_ARM, -_ARM),
    ],
}  # fmt: skip

# Every word is one low and one high tone, as on a telephone keypad; the mel filters keep all nine apart.
_GRID = 500 * 1.26 ** np.arange(9)  # Hz: 500 ... 3176
_LOW = 4  # the first four are the low ones
_CHORDS = dict(zip(WORDS, product(range(_LOW), range(_LOW, len(_GRID))), strict=False))
_WORD_OF = {chord: word for word, chord in _CHORDS.items()}
_WORD_SAMPLES = 1500  # two decoder steps of five frames
_TONE_SAMPLES = 1100  # the rest is silence, a full analysis window between two words
_FADE_SAMPLES = 80
_AMPLITUDE = 0.25  # of each tone


@dataclass(frozen=True)
class Partition:
    """The three disjoint sets of captions."""

    pictured: tuple[str, ...]
    spoken: tuple[str, ...]
    held_out: tuple[str, ...]


@dataclass(frozen=True)
class ToyReport:
    """What was written: items by split, and the number of loose photos."""

    pictures: dict[str, int]
    sentences: dict[str, int]
    photos: int

    def __str__(self) -> str:
        pictures, sentences = (
            ", ".join(f"{split} {count}" for split, count in splits.items())
            for splits in (self.pictures, self.sentences)
        )
        return f"pictures: {pictures}\nsentences: {sentences}\nphotos of held-out captions: {self.photos}"


def partition(seed: int) -> Partition:
    """Deals the 240 captions into 120 pictured, 80 spoken and 40 held out, each balanced over the words."""
    quota = {"pictured": PICTURED, "spoken": SPOKEN, "held_out": HELD_OUT}
    dealt: dict[str, list[str]] = {name: [] for name in quota}
    seen: dict[str, Counter[tuple[str, ...]]] = {name: Counter() for name in quota}
    for i in np.random.default_rng(seed).permutation(len(CAPTIONS)):
        words = CAPTIONS[i].split()
        parts = [*combinations(words, 1), *combinations(words, 2)]

        def crowding(name: str, parts: list[tuple[str, ...]] = parts) -> float:
            return sum(seen[name][part] for part in parts) / quota[name]

        chosen = min((name for name in quota if len(dealt[name]) < quota[name]), key=crowding)
        dealt[chosen].append(CAPTIONS[i])
        seen[chosen].update(parts)
    return Partition(**{name: tuple(captions) for name, captions in dealt.items()})


def draw(caption: str, rng: np.random.Generator) -> np.ndarray:
    """One rendering of a caption: uint8 (64, 64, 3), with jittered place, size and shades, and noise."""
    size, colour, shape, place = caption.split()
    side = SIDE * _OVERSAMPLING
    radius = SIZES[size] * side * rng.uniform(0.92, 1.08)
    x, y = (np.array(PLACES[place]) + rng.uniform(-0.03, 0.03, 2)) * side
    fill = tuple(np.clip(COLOURS[colour] + rng.normal(0, 10, 3), 0, 255).astype(int))
    background = tuple(np.clip(rng.uniform(25, 75) + rng.normal(0, 6, 3), 0, 255).astype(int))

    image = Image.new("RGB", (side, side), background)
    pen = ImageDraw.Draw(image)
    if shape == "circle":
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill)
    else:
        pen.polygon([(x + radius * dx, y + radius * dy) for dx, dy in _OUTLINES[shape]], fill)
    pixels = np.asarray(image.reduce(_OVERSAMPLING), dtype=np.float32)
    return np.clip(pixels + rng.normal(0, 4, pixels.shape), 0, 255).round().astype(np.uint8)


def say(caption: str, gain: float = 1.0) -> np.ndarray:
    """Words as tones: float32 samples at 8 kHz, 10 frames of `TOY_AUDIO` a word.

    The last hop is left off, so that centred frames number exactly 10 a word and lie symmetrically in it.
    Raises UserError for words outside the language.
    """
    words = caption.split()
    unknown = [word for word in words if word not in _CHORDS]
    if unknown or not words:
        raise UserError(f"{caption!r}: the toy language only has the words {', '.join(WORDS)}")
    t = np.arange(_TONE_SAMPLES) / TOY_AUDIO.sample_rate
    fade = np.sin(np.pi / 2 * np.minimum(1, (np.arange(_TONE_SAMPLES) + 1) / _FADE_SAMPLES)) ** 2
    wav = np.zeros(len(words) * _WORD_SAMPLES - TOY_AUDIO.hop_length, dtype=np.float32)
    margin = (_WORD_SAMPLES - TOY_AUDIO.hop_length - _TONE_SAMPLES) // 2
    for i, word in enumerate(words):
        tones = sum(np.sin(2 * np.pi * _GRID[tone] * t) for tone in _CHORDS[word])
        start = i * _WORD_SAMPLES + margin
        wav[start : start + _TONE_SAMPLES] = gain * _AMPLITUDE * tones * fade * fade[::-1]
    return wav


_WINDOW_SECONDS, _HOP_SECONDS = 0.040, 0.005
_TOLERANCE = 0.08  # of a tone's frequency: vocoded tones are blurred, and off by a few Hz
_MIN_SECONDS = 0.050  # a chord held for less is a transition
_BRIDGE_SECONDS = 0.015  # a break for less is still the same word
_NEAR_SECONDS = 0.060  # loudness is judged against the loudest frame so near


def transcribe_tones(wav: np.ndarray, sample_rate: int) -> str:
    """The words heard in samples (n,): nothing is snapped to the grammar, and what is unclear is left out.

    Raises UserError below 6,500 Hz, where the highest tone does not exist.
    """
    if sample_rate < 6500:
        raise UserError(f"toy speech needs a sample rate of at least 6500 Hz, not {sample_rate}")
    labels = _frame_labels(np.asarray(wav, dtype=np.float32), sample_rate)
    changes = np.flatnonzero(np.diff(labels)) + 1
    heard: list[list[int]] = []  # chord, first frame, frame after the last
    for start, end in zip([0, *changes], [*changes, len(labels)], strict=True):
        chord = labels[start]
        if chord < 0:
            continue
        if heard and heard[-1][0] == chord and (start - heard[-1][2]) * _HOP_SECONDS <= _BRIDGE_SECONDS:
            heard[-1][2] = end
        else:
            heard.append([chord, start, end])
    held = [chord for chord, start, end in heard if (end - start) * _HOP_SECONDS >= _MIN_SECONDS]
    words = [_WORD_OF.get(divmod(chord, len(_GRID))) for chord in held]
    return " ".join(word for word in words if word)


def _frame_labels(wav: np.ndarray, sample_rate: int) -> np.ndarray:
    """The chord of each frame as low * 9 + high, or -1 where there is none."""
    window = np.hanning(round(_WINDOW_SECONDS * sample_rate))
    n, hop = len(window), round(_HOP_SECONDS * sample_rate)
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(wav, n), n)[::hop] * window
    power = np.square(np.abs(np.fft.rfft(frames, 2 * n)))
    energy = power.sum(1) / n + 1e-12  # of the frame's samples
    hertz = np.fft.rfftfreq(2 * n, 1 / sample_rate)
    bands = np.abs(hertz[:, None] / _GRID - 1) < _TOLERANCE
    share = power @ bands.astype(float) / (n * energy[:, None])  # of the frame's energy, by tone

    low, high = share[:, :_LOW], share[:, _LOW:]
    chord = low.argmax(1) * len(_GRID) + high.argmax(1) + _LOW
    near = round(_NEAR_SECONDS / _HOP_SECONDS)
    loudest = np.lib.stride_tricks.sliding_window_view(np.pad(energy, near), 2 * near + 1).max(1)
    clear = (low.max(1) + high.max(1) > 0.6) & _dominated(low) & _dominated(high)
    audible = (energy > 0.06 * loudest) & (energy > 1e-5 * np.square(window).sum())
    return np.where(clear & audible, chord, -1)


def _dominated(share: np.ndarray) -> np.ndarray:
    """Frames in which one tone of the group is present and all others are well below it."""
    second, first = np.sort(share, axis=1)[:, -2:].T
    return (first > 0.05) & (second < 0.25 * first)


def write_toy(out: Path, *, pictures: int = 4000, sentences: int = 1000, seed: int = 0) -> ToyReport:
    """Writes raw sources for `prep` to a new folder: image-text/, text-speech/ and photos/.

    Of `pictures` and `sentences`, 80 % are train, 10 % val and 10 % test. photos/ has another picture of each
    held-out caption, and truth.tsv. The same seed gives the same bytes.
    The folder appears complete or not at all.
    Raises UserError if `out` exists or cannot be written, or if a number is below 10.
    """
    if out.exists():
        raise UserError(f"{out}: exists already; give a new folder")
    if min(pictures, sentences) < 10:
        raise UserError("toy data needs at least 10 pictures and 10 sentences")
    sets = partition(seed)
    picture_rng, speech_rng, photo_rng = np.random.default_rng(seed).spawn(3)

    def picture(path: Path, caption: str) -> None:
        write_image(path, draw(caption, picture_rng))

    def speech(path: Path, caption: str) -> None:
        write_audio(path, say(caption, gain=speech_rng.uniform(0.8, 1.2)), TOY_AUDIO.sample_rate)

    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        image_plan = _plan(sets.pictured, sets.held_out, pictures)
        speech_plan = _plan(sets.spoken, sets.held_out, sentences)
        _write_source(partial / "image-text", "image", "images/{}.png", image_plan, picture)
        _write_source(partial / "text-speech", "audio", "wavs/{}.wav", speech_plan, speech)
        (partial / "photos").mkdir()
        truth = [(f"{i:02d}.png", caption) for i, caption in enumerate(sorted(sets.held_out))]
        for file, caption in truth:
            write_image(partial / "photos" / file, draw(caption, photo_rng))
        _write_table(partial / "photos" / "truth.tsv", ("file", "caption"), truth)
        partial.replace(out)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return ToyReport(_by_split(image_plan), _by_split(speech_plan), len(truth))


def prepare_toy(out: Path, *, pictures: int = 4000, sentences: int = 1000, seed: int = 0, size: int = 64) -> ToyReport:
    """Toy data to train on: the prepared datasets image-text/ and text-speech/, photos/, and raw/ sources.

    `size` is that of the prepared pictures, in pixels; other arguments and errors are those of `write_toy`.
    """
    from skipmodal.data.prepare import prepare_image_text, prepare_text_speech

    if out.exists():
        raise UserError(f"{out}: exists already; give a new folder")
    image, licence = ImageConfig(size=size), "CC0-1.0"
    try:
        report = write_toy(out / "raw", pictures=pictures, sentences=sentences, seed=seed)
        manifests = [out / "raw" / kind / "manifest.tsv" for kind in ("image-text", "text-speech")]
        prepare_image_text(manifests[0], out / "image-text", image=image, licence=licence)
        prepare_text_speech(manifests[1], out / "text-speech", audio=TOY_AUDIO, licence=licence, device="cpu")
        (out / "raw" / "photos").replace(out / "photos")
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    return report


def _plan(seen: tuple[str, ...], held_out: tuple[str, ...], count: int) -> list[tuple[str, str, str]]:
    """(id, split, caption) of each item; the captions of a split take turns."""
    tenth = count // 10
    splits = [("train", count - 2 * tenth, seen), ("val", tenth, seen), ("test", tenth, held_out)]
    return [
        (f"{split}-{i:05d}", split, captions[i % len(captions)])
        for split, number, captions in splits
        for i in range(number)
    ]


def _by_split(plan: list[tuple[str, str, str]]) -> dict[str, int]:
    return dict(Counter(split for _, split, _ in plan))


def _write_source(
    folder: Path, column: str, file: str, plan: list[tuple[str, str, str]], write: Callable[[Path, str], None]
) -> None:
    """One file an item, and the manifest that names them; `file` is a path with {} for the id."""
    (folder / file).parent.mkdir(parents=True)
    for name, _, caption in plan:
        write(folder / file.format(name), caption)
    rows = [(name, split, file.format(name), caption) for name, split, caption in plan]
    _write_table(folder / "manifest.tsv", ("id", "split", column, "text"), rows)


def _write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    path.write_text("".join("\t".join(row) + "\n" for row in (header, *rows)), encoding="utf-8", newline="\n")
