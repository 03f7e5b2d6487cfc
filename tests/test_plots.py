"""What figures show: axes in seconds and words, lit places, colours, readable PNGs."""

import io

import numpy as np
import pytest
from PIL import Image

from skipmodal import plots
from skipmodal.audio import AudioConfig
from skipmodal.errors import UserError
from skipmodal.plots import check_matplotlib, draw_curves, draw_points, draw_sound, draw_words, to_png

AUDIO = AudioConfig(sample_rate=8000, hop_length=80, win_length=160, n_fft=256, n_mels=8)  # 10 ms a frame
PHOTO = np.full((16, 16, 3), 200, np.uint8)


def test_sound_lies_on_one_axis_in_seconds():
    target, mel = np.full((70, 8), 0.25, np.float16), np.random.default_rng(0).random((60, 8))
    attention, stop = np.eye(20, 10), np.linspace(0, 1, 20)
    figure = draw_sound(
        {"target": target, "output": mel}, AUDIO, sentence="a dog runs", attention=attention, stop=stop,
        frames_a_step=3,
    )  # fmt: skip
    panels = figure.axes[:4]
    assert [axes.get_title() for axes in panels] == [
        "target", "output", "alignment, 0 to 1.00", "stop probability of each decoder step",
    ]  # fmt: skip
    assert all(axes.get_xlim() == pytest.approx((0, 0.7)) for axes in panels)
    assert panels[0].images[0].get_extent()[:2] == pytest.approx([0, 0.7])
    assert np.asarray(panels[0].images[0].get_array()) == pytest.approx(-75)  # dB: a quarter above the floor of -100
    assert panels[2].images[0].get_extent()[:2] == pytest.approx([0, 0.6])
    assert [label.get_text() for label in panels[2].get_yticklabels()] == ["a", "dog", "runs"]
    assert list(panels[2].get_yticks()) == [0, 3, 7.5]
    assert panels[3].lines[0].get_xdata()[-1] == pytest.approx(0.585)  # the middle of the last step
    assert panels[3].get_xlabel() == "seconds"


def test_a_figure_is_a_png_and_the_same_every_time():
    def png():
        return to_png(draw_sound({"output": np.zeros((5, 8))}, AUDIO, picture=PHOTO, stop=np.zeros(5)))

    assert png() == png()
    with Image.open(io.BytesIO(png())) as image:
        image.load()
        assert image.format == "PNG" and image.width == 900


@pytest.mark.parametrize("sentence", ["", "  ", "x " * 80, "y" * 300])
def test_odd_sentences_are_drawn(sentence):
    attention = np.full((len(sentence) + 1, 9), 1 / 9)
    assert len(draw_words(PHOTO, sentence, attention).axes) >= 1
    assert to_png(draw_sound({"mel": np.zeros((9, 8))}, AUDIO, sentence=sentence, attention=attention.T))


def test_a_word_lights_where_its_characters_look(monkeypatch):
    attention = np.zeros((len("one two") + 1, 4))
    attention[:3, 1] = 1  # top right of the two by two grid
    attention[4:, 2] = 1  # bottom left
    _, one, two, *rest = draw_words(PHOTO, "one two", attention).axes
    assert [axes.get_title() for axes in (one, two)] == ["one", "two"]
    shades = [np.asarray(axes.images[1].get_array())[..., 3] for axes in (one, two)]
    assert (shades[0] > 0).tolist() == [[True, False], [True, True]]
    assert (shades[1] > 0).tolist() == [[True, True], [False, True]]
    assert not any(axes.images for axes in rest)
    monkeypatch.setattr(plots, "MAX_WORDS", 1)
    assert [axes.get_title() for axes in draw_words(PHOTO, "one two", attention).axes if axes.images] == ["", "one"]


def test_clouds_differ_in_colour_and_mark():
    modalities = ["image"] * 3 + ["text"] * 3 + ["speech"] * 3
    points = np.arange(18.0).reshape(9, 2)
    figure = draw_points({"z": points, "u": -points}, modalities)
    assert [axes.get_title() for axes in figure.axes] == ["z", "u"]
    clouds = figure.axes[1].collections
    assert np.asarray(clouds[2].get_offsets()) == pytest.approx(-points[6:])
    assert len({tuple(cloud.get_facecolor()[0]) for cloud in clouds}) == 3
    assert len({cloud.get_paths()[0].vertices.tobytes() for cloud in clouds}) == 3
    assert [label.get_text() for label in figure.legends[0].get_texts()] == ["image", "text", "speech"]


def test_curves_are_logarithmic_where_they_range_widely():
    figure = draw_curves({
        "text_from_image": {"train": ([1, 2, 3], [4.0, 2.0, 0.5]), "val": ([2], [1.0])},
        "image": {"train": ([1, 2], [0.5, 0.4])},
        "adversary": {"val": ([1, 2], [1.0, 0.0])},
        "stop": {"train": ([1], [1.0])},
    })  # fmt: skip
    assert [axes.get_yscale() for axes in figure.axes[:4]] == ["log", "linear", "linear", "linear"]
    assert figure.axes[0].get_title() == "text from image"
    assert [label.get_text() for label in figure.legends[0].get_texts()] == ["train", "val"]
    assert to_png(figure).startswith(b"\x89PNG")


def test_without_matplotlib_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install matplotlib"):
        check_matplotlib()
