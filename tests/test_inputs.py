"""Pictures and recordings as Python users hold them, one or several, and what they get."""

import io

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from skipmodal import load
from skipmodal.errors import UserError
from skipmodal.translation import Translation
from tests.tiny import AUDIO, tiny_checkpoint


@pytest.fixture(scope="module")
def translator(tmp_path_factory):
    return load(tiny_checkpoint(tmp_path_factory.mktemp("model") / "tokens"), "cpu")


@pytest.fixture(scope="module")
def photo():
    return Image.effect_noise((40, 30), 80).convert("RGB")


def test_every_form_of_a_picture_is_the_same_picture(translator, photo, tmp_path):
    photo.save(tmp_path / "p.png")
    pixels = np.asarray(photo)
    tensor = torch.from_numpy(pixels.copy())
    forms = [
        str(tmp_path / "p.png"), tmp_path / "p.png", (tmp_path / "p.png").read_bytes(), photo, pixels,
        pixels / np.float32(255), pixels / 255, tensor, tensor.permute(2, 0, 1), tensor.permute(2, 0, 1) / 255,
        photo.convert("RGBA"), np.asarray(photo.convert("RGBA")),
    ]  # fmt: skip
    read = [translator.read(form, "image") for form in forms]
    for other in read[1:]:
        torch.testing.assert_close(other, read[0], atol=0.02, rtol=0)
    turned = photo.transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6
    torch.testing.assert_close(translator.read(turned, "image"), read[0], atol=0.02, rtol=0)
    assert turned.getexif()[0x0112] == 6  # it stays as it is
    grey = np.asarray(photo.convert("L"))
    torch.testing.assert_close(translator.read(grey, "image"), translator.read(grey[:, :, None], "image"))


def test_every_form_of_a_recording_is_the_same_recording(translator, tmp_path):
    wav = (np.sin(np.arange(8000) / 5) * 0.5).astype(np.float32)
    soundfile.write(tmp_path / "s.wav", wav, 8000, "FLOAT")
    double = soundfile.read(io.BytesIO((tmp_path / "s.wav").read_bytes()))[0]
    forms = [
        tmp_path / "s.wav", str(tmp_path / "s.wav"), (tmp_path / "s.wav").read_bytes(), wav, double,
        torch.from_numpy(wav), np.stack([wav, wav]), np.stack([wav, wav], 1), (wav, 8000),
        (wav * 32767).round().astype(np.int16),
    ]  # fmt: skip
    read = [translator.read(form, "speech") for form in forms]
    for other in read[1:]:
        torch.testing.assert_close(other, read[0], atol=1e-4, rtol=0)
    assert len(translator.read((wav, 16000), "speech")) == 4000


def test_one_and_several_give_the_same(translator, photo):
    one = translator.img2speech(photo)
    assert isinstance(one, Translation)
    (several,) = translator.img2speech([photo])
    np.testing.assert_array_equal(one.value, several.value)
    assert translator.img2text(iter([photo, photo]))[1].text == translator.img2text(photo).text
    assert translator.img2text([]) == []
    (pair,) = translator.speech2text([(np.ones(800, np.float32), 8000)])
    assert pair.text == translator.speech2text((np.ones(800, np.float32), 8000)).text


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (np.zeros((8, 8, 5), np.uint8), "not uint8 \\(8, 8, 5\\)"),
        (np.zeros(8, np.uint8), "not uint8 \\(8,\\)"),
        (np.full((8, 8), 2.0), "between 0 and 1"),
        (np.full((8, 8), np.nan), "between 0 and 1"),
        (np.zeros((8, 8), np.int64), "uint8 or floats"),
    ],
)
def test_arrays_that_are_no_picture_are_one_line(translator, item, message):
    with pytest.raises(UserError, match=message):
        translator.img2text(item)


@pytest.mark.parametrize("item", [np.zeros((2, 8, 3)), np.zeros(0), np.zeros(8, np.uint8), np.full(8, np.inf)])
def test_arrays_that_are_no_recording_are_one_line(translator, item):
    with pytest.raises(UserError, match="a recording's"):
        translator.speech2text(item)


def test_what_is_nothing_of_the_kind_is_a_type_error(translator):
    for call, item in ((translator.img2text, 3), (translator.speech2text, [3.0]), (translator.text2img, b"a dog")):
        with pytest.raises(TypeError):
            call(item)


def test_speech_is_saved_shown_and_timed(translator, tmp_path):
    speech = translator.text2speech("a dog runs")
    for name, container in (("a.wav", "WAV"), ("a.flac", "FLAC"), ("a.ogg", "OGG")):
        info = soundfile.info(speech.save(tmp_path / name, rate=16000))
        assert (info.format, info.samplerate) == (container, 16000)
        assert info.duration == pytest.approx(speech.seconds, abs=0.01)
    assert [word.text for word in speech.words] == ["a", "dog", "runs"]
    assert 0 == speech.words[0].begin < speech.words[-1].end <= speech.seconds + AUDIO.hop_length / AUDIO.sample_rate
    assert "a dog runs" in speech.save(tmp_path / "a.vtt").read_text()
    assert 'src="data:audio/wav;base64,' in speech._repr_html_()
    assert 'src="data:image/png;base64,' in translator.text2img("a dog")._repr_html_()
    with pytest.raises(UserError, match="unknown audio suffix"):
        speech.save(str(tmp_path / "a.mp3"))


def test_a_long_text_is_spoken_in_sentences_with_pauses(translator):
    translator.pause = 0.5
    long = translator.text2speech("A dog. " * 40)
    one = translator.text2speech("A dog.")
    assert len(long.value) == 40 * len(one.value) + 39 * 4000
    assert len(long.words) == 80
    assert long.words[-2].begin == pytest.approx(39 * (one.seconds + 0.5), abs=0.002)
    assert not long.value[len(one.value) : len(one.value) + 4000].any()


def test_no_text_is_cut_without_an_error(translator, monkeypatch):
    monkeypatch.setattr(translator, "max_seconds", 0.1)
    with pytest.raises(UserError, match=r"takes more than 0\.1 s"):
        translator.text2speech("a dog runs on the beach")


def test_a_model_without_word_times_says_so(tmp_path):
    speech = load(tiny_checkpoint(tmp_path / "vector", "vector"), "cpu").text2speech("a dog")
    assert speech.words is None
    with pytest.raises(UserError, match="does not know when each word sounds"):
        speech.save(tmp_path / "a.srt")


def test_names_that_are_escaped_in_html():
    assert "<b>" not in Translation("<b>", False, "<b>")._repr_html_()
