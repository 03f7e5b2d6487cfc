"""Figures: sound with the characters it goes with, words on a picture, clouds of points, learning curves.

Arrays in, matplotlib figures out, for the training monitor and for `skipmodal eval`. The colours (viridis, and those of
Okabe and Ito) are told apart by colour-blind readers; clouds differ in their marks too.
"""

import io
import logging
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from skipmodal.audio import AudioConfig
from skipmodal.errors import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 9.0  # inches
DPI = 100
MODALITY_STYLES = {"image": ("#E69F00", "o"), "text": ("#0072B2", "s"), "speech": ("#009E73", "^")}
SPLIT_STYLES: dict[str, dict[str, Any]] = {
    "train": {"color": "#56B4E9", "linewidth": 1},
    "val": {"color": "#D55E00", "linewidth": 1.5, "marker": "o", "markersize": 3},
}
MAX_WORDS = 59  # that are drawn on a picture
MAX_LABEL = 18  # characters of a word
Curves = dict[str, dict[str, tuple[list[int], list[float]]]]  # loss -> split -> steps and values
Interval = tuple[Sequence[float], tuple[float, float] | None]  # values, and where their mean lies


class Picture(NamedTuple):
    """A PNG for a report."""

    name: str  # of its file, without a folder
    caption: str
    png: bytes


def check_matplotlib() -> None:
    """Raises UserError where figures can't be drawn."""
    require("plots", matplotlib="matplotlib")


def to_png(figure: "Figure") -> bytes:
    """The figure as a PNG file; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def draw_sound(
    spectrograms: Mapping[str, np.ndarray], audio: AudioConfig, *, sentence: str = "",
    attention: np.ndarray | None = None, stop: np.ndarray | None = None, frames_a_step: int = 1,
    picture: np.ndarray | None = None,
) -> "Figure":  # fmt: skip
    """Titled spectrograms (frames, bands) in [0, 1], one time axis for all, and under them what a decoder did.

    attention (steps, characters) and stop (steps,), a probability, are of steps of `frames_a_step` frames;
    `picture` (H, W, 3) uint8 stands at the left.
    """
    frame, step = audio.hop_length / audio.sample_rate, frames_a_step * audio.hop_length / audio.sample_rate
    words = _words(sentence)
    heights = [1.5] * len(spectrograms)
    heights += [] if attention is None else [min(max(2.2, 0.16 * len(words)), 8.0)]
    heights += [] if stop is None else [1.2]
    figure = _figure(WIDTH, sum(heights) + 0.8)
    main: Any = figure
    if picture is not None:
        parts: Any = figure.subfigures(1, 2, width_ratios=(1, 3))
        _show_picture(parts[0].subplots(), picture)
        main = parts[1]
    panels = list(main.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0])
    rest = iter(panels)
    for title, values in spectrograms.items():
        axes = next(rest)
        level = (np.asarray(values, dtype=np.float32).T - 1) * -audio.floor_db
        shown = _heat(axes, level, len(values) * frame, audio.floor_db, 0)
        axes.set(title=title, ylabel="band")
    main.colorbar(shown, ax=panels, label="dB", aspect=40, shrink=0.6)
    if attention is not None:
        axes = next(rest)
        _heat(axes, np.asarray(attention, dtype=np.float32).T, len(attention) * step, 0)
        axes.set(title=f"alignment, 0 to {attention.max(initial=0):.2f}", ylabel="characters, by word")
        axes.set_yticks([(a + b - 1) / 2 for _, a, b in words], [word for word, _, _ in words], fontsize=7)
    if stop is not None:
        axes = next(rest)
        axes.plot((np.arange(len(stop)) + 0.5) * step, stop, color=SPLIT_STYLES["val"]["color"], marker=".")
        axes.set(title="stop probability of each decoder step", ylim=(-0.05, 1.05))
    longest = max(len(values) for values in spectrograms.values()) * frame
    panels[-1].set(xlabel="seconds", xlim=(0, max(longest, 0 if attention is None else len(attention) * step)))
    if sentence:
        figure.suptitle(textwrap.fill(sentence, 100), fontsize=10)
    return figure


def draw_words(picture: np.ndarray, sentence: str, attention: np.ndarray) -> "Figure":
    """Where each word was seen: the lit parts of a picture (H, W, 3) uint8.

    attention (characters, side * side) is that over the picture's grid, row by row; a word's is the mean of its
    characters'.
    """
    side = round(attention.shape[1] ** 0.5)
    words = _words(sentence)[:MAX_WORDS]
    columns = 6
    rows = -(-(1 + len(words)) // columns)
    figure = _figure(WIDTH, 1.75 * rows + 0.5)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.axis("off")
    _show_picture(panels[0], picture)
    for axes, (word, start, end) in zip(panels[1:], words, strict=False):
        weights = attention[start:end].mean(0).reshape(side, side)
        shade = np.zeros((side, side, 4))
        shade[..., 3] = 0.75 * (1 - weights / max(weights.max(), 1e-9))
        _show_picture(axes, picture)
        axes.imshow(shade, extent=(0, 1, 0, 1), interpolation="bilinear")
        axes.set_title(word, fontsize=9)
    figure.suptitle(textwrap.fill(sentence, 100), fontsize=10)
    return figure


def draw_points(clouds: Mapping[str, np.ndarray], modalities: Sequence[str]) -> "Figure":
    """Titled clouds (N, 2) side by side; `modalities` names that of each point."""
    figure = _figure(WIDTH, 4.8)
    names = list(dict.fromkeys(modalities))
    chosen = np.array(modalities)
    for axes, (title, points) in zip(figure.subplots(1, len(clouds), squeeze=False)[0], clouds.items(), strict=True):
        for name in names:
            colour, mark = MODALITY_STYLES[name]
            axes.scatter(*points[chosen == name].T, s=12, c=colour, marker=mark, alpha=0.6, linewidths=0, label=name)
        axes.set(title=title, xticks=[], yticks=[])
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(names), markerscale=2)
    return figure


def draw_curves(curves: Curves) -> "Figure":
    """Small multiples, one a loss, over the steps of a training; logarithmic where the values range widely."""
    columns = min(3, len(curves))
    rows = -(-len(curves) // columns)
    figure = _figure(WIDTH, 2.2 * rows + 0.6)
    panels = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
    handles = {}
    for number, (axes, (name, splits)) in enumerate(zip(panels, curves.items(), strict=False)):
        for split, (steps, values) in splits.items():
            (handles[split],) = axes.plot(steps, values, **SPLIT_STYLES[split])
        _log_where_wide(axes, [value for _, values in splits.values() for value in values])
        axes.set_title(name.replace("_", " "), fontsize=10)
        axes.tick_params(labelsize=8, labelbottom=number + columns >= len(curves))
        axes.grid(alpha=0.3)
    for axes in panels[len(curves) :]:
        axes.axis("off")
    figure.supxlabel("training steps", fontsize=10)
    figure.legend(list(handles.values()), list(handles), loc="outside upper right", ncols=2)
    return figure


def draw_reliability(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], title: str) -> "Figure":
    """Expected against found shares of some bins, beside the diagonal of a perfect calibration; up to three curves."""
    figure = _figure(4.5, 4.5)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for (label, (expected, found)), (color, _) in zip(curves.items(), MODALITY_STYLES.values(), strict=False):
        axes.plot(expected, found, "o-", color=color, label=label)
    axes.legend(loc="upper left", fontsize=8)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="content words in a human caption", aspect="equal")
    axes.set_title(title, fontsize=10)
    return figure


def draw_weights(weights: np.ndarray, across: str, down: str) -> "Figure":
    """Attention weights (pictures, rows, columns), one under the other."""
    figure = _figure(WIDTH, 6)
    for axes, picture in zip(figure.subplots(len(weights), 1, squeeze=False)[:, 0], weights, strict=True):
        axes.imshow(picture, aspect="auto", interpolation="none")
        axes.set(xlabel=across, ylabel=down)
    return figure


def draw_intervals(panels: Mapping[str, Sequence[Interval]], names: Sequence[str], title: str) -> "Figure":
    """Small multiples, one a figure: of each name, from the top, its values, their mean, and the interval around it."""
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = _figure(WIDTH, rows * (0.6 + 0.26 * len(names)) + 0.5)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for axes, (head, intervals) in zip(grid, panels.items(), strict=False):
        for place, (values, interval) in enumerate(intervals):
            if interval is not None:
                axes.plot(interval, [place, place], color="0.6", linewidth=2, zorder=1)
            axes.scatter(values, [place] * len(values), s=14, c=MODALITY_STYLES["text"][0], alpha=0.6, linewidths=0)
            if len(values):
                axes.scatter([np.mean(values)], [place], s=60, c="black", marker="|", zorder=3)
        axes.set_title(head, fontsize=9)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
    for axes in grid[len(panels) :]:
        axes.axis("off")
    figure.suptitle(title, fontsize=10)
    return figure


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure  # not pyplot, which would look for a screen

    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    return Figure(figsize=(width, height), layout="constrained")


def _heat(axes: "Axes", values: np.ndarray, seconds: float, lowest: float, highest: float | None = None) -> Any:
    """values (rows, columns) over a time axis, the first row at the bottom."""
    return axes.imshow(
        values, origin="lower", aspect="auto", interpolation="none", extent=(0, seconds, -0.5, len(values) - 0.5),
        vmin=lowest, vmax=highest,
    )  # fmt: skip


def _log_where_wide(axes: "Axes", values: Sequence[float]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    lowest, highest = min(values), max(values)
    if lowest > 0 and highest > 3 * lowest:
        axes.set_yscale("log")
        subs = (1, 2, 5) if highest < 30 * lowest else (1, 3) if highest < 1000 * lowest else (1,)
        axes.yaxis.set_major_locator(LogLocator(subs=subs))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())


def _show_picture(axes: "Axes", picture: np.ndarray) -> None:
    axes.imshow(picture, extent=(0, 1, 0, 1))
    axes.axis("off")


def _words(sentence: str) -> list[tuple[str, int, int]]:
    """Each word, cut to a label's length, with its first character and the one after its last."""
    return [(match.group()[:MAX_LABEL], match.start(), match.end()) for match in re.finditer(r"\S+", sentence)]
