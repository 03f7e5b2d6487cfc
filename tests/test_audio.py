import io
import struct
import tracemalloc
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
import torch
from pydantic import ValidationError

from skipmodal import audio
from skipmodal.audio import (
    AudioConfig,
    linear_spectrogram,
    magnitudes,
    mel_to_linear,
    read_audio,
    spectrograms,
    trim_silence,
    write_audio,
)
from skipmodal.errors import UserError

CONFIG = AudioConfig()
SMALL = AudioConfig(sample_rate=8000, n_fft=512, win_length=200, hop_length=50, n_mels=20, preemphasis=0.9, ref_db=10)


def noise(samples, seed=0, level=0.1):
    return (np.random.default_rng(seed).standard_normal(samples) * level).astype(np.float32)


def tone(hertz, seconds=0.5, rate=16000, level=0.5):
    return (level * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def pitch(wav, rate):
    """Hertz of the strongest bin of the middle half."""
    middle = wav[len(wav) // 4 : -len(wav) // 4]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 8 * len(middle)))
    return spectrum.argmax() * rate / (8 * len(middle))


def encoded(wav, rate=16000, container="WAV", subtype=None):
    buffer = io.BytesIO()
    soundfile.write(buffer, wav, rate, format=container, subtype=subtype)
    return buffer.getvalue()


# Settings


def test_the_defaults_are_the_papers():
    assert CONFIG.model_dump() == {
        "sample_rate": 16000, "n_fft": 2048, "win_length": 800, "hop_length": 200, "n_mels": 80,
        "preemphasis": 0.97, "ref_db": 20.0, "floor_db": -100.0, "power": 1.5, "griffin_lim_iters": 60,
    }  # fmt: skip
    assert CONFIG.n_linear == 1025
    assert [CONFIG.frames(n) for n in (1, 199, 200, 16000)] == [1, 1, 2, 81]


@pytest.mark.parametrize(
    "setting",
    [
        {"win_length": 4096}, {"hop_length": 801}, {"n_fft": 1025}, {"n_fft": 1 << 20}, {"floor_db": 0.0},
        {"floor_db": float("-inf")}, {"ref_db": float("nan")}, {"power": float("inf")}, {"power": 0.0},
        {"preemphasis": 1.0}, {"sample_rate": 0}, {"griffin_lim_iters": 0}, {"hop": 200},
        {"griffin_lim_iters": 10**9}, {"power": 1e9}, {"floor_db": -1e30}, {"ref_db": 1e30},
        {"n_fft": 8192, "hop_length": 16},
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(setting):
    with pytest.raises(ValidationError):
        AudioConfig(**setting)


# Spectrograms


def reference(wav, config):
    """Mel and linear by librosa, pre-emphasis and scaling by hand."""
    wav = wav.astype(np.float64)
    emphasised = np.append(wav, 0) - config.preemphasis * np.insert(wav, 0, 0)
    stft = librosa.stft(
        emphasised,
        n_fft=config.n_fft,
        hop_length=config.hop_length,
        win_length=config.win_length,
        pad_mode="constant",
    )
    magnitude = np.abs(stft)[:, : config.frames(len(wav))]
    mel = librosa.feature.melspectrogram(S=magnitude, sr=config.sample_rate, n_mels=config.n_mels, n_fft=config.n_fft)
    floor = config.floor_db

    def scale(x):
        return np.clip((20 * np.log10(np.maximum(x, 1e-5)) - config.ref_db - floor) / -floor, 0, 1).T

    return scale(mel), scale(magnitude)


@pytest.mark.filterwarnings("ignore:n_fft=.* is too large")
@pytest.mark.parametrize("config", [CONFIG, SMALL], ids=["paper", "small"])
@pytest.mark.parametrize("samples", [1, 777, 800, 4321])
def test_spectrograms_are_librosas(config, samples):
    wav = noise(samples) + tone(700, rate=config.sample_rate, seconds=1)[:samples]
    mel, linear = spectrograms(torch.from_numpy(wav)[None], config)
    expected_mel, expected_linear = reference(wav, config)
    assert mel.shape == (1, config.frames(samples), config.n_mels)
    np.testing.assert_allclose(mel[0], expected_mel, atol=2e-5)
    np.testing.assert_allclose(linear[0], expected_linear, atol=2e-4)  # float32 on nearly empty bins
    assert torch.equal(linear, linear_spectrogram(torch.from_numpy(wav)[None], config))


@pytest.mark.parametrize("config", [CONFIG, SMALL], ids=["paper", "small"])
def test_a_padded_batch_gives_every_item_its_own_frames(config):
    wavs = [torch.from_numpy(noise(n, seed=n)) for n in (4000, 3999, 1234, 200, 1)]
    padded = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
    for batch, alone in zip(zip(*spectrograms(padded, config), strict=True), wavs, strict=True):
        frames = config.frames(len(alone))
        for both, single in zip(batch, spectrograms(alone[None], config), strict=True):
            assert single.shape[1] == frames
            torch.testing.assert_close(both[:frames], single[0], atol=1e-5, rtol=0)
            assert len(both[frames + 5 :]) == 0 or both[frames + 5 :].max() == 0


@pytest.mark.parametrize("config", [CONFIG, SMALL], ids=["paper", "small"])
def test_a_mel_spectrogram_has_the_envelope_of_the_linear_one(config):
    wav = torch.from_numpy(noise(30000) + tone(700, seconds=4, rate=config.sample_rate)[:30000])[None]
    mel, linear = spectrograms(wav, config)
    weights, offset = mel_to_linear(config)
    centres = librosa.mel_frequencies(config.n_mels + 2, fmin=0, fmax=config.sample_rate / 2)[1:-1]
    bins = np.linspace(0, config.sample_rate / 2, config.n_linear)
    np.testing.assert_allclose(centres @ weights, bins.clip(centres[0], centres[-1]), rtol=1e-4)
    envelope = mel[0] @ torch.from_numpy(weights) + offset
    high = len(bins) // 4  # where bands are wider than what the window blurs
    off = (envelope - linear[0]).mean(0)[high:-1]  # the last has half
    assert off.abs().max() < 0.05  # of 100 dB
    assert off.mean().abs() < 0.03  # noise's mean magnitude is above the magnitude of its mean logarithm


def test_magnitudes_undo_the_scaling():
    wav = torch.from_numpy(noise(4000))[None]
    linear = linear_spectrogram(wav, CONFIG)
    expected = audio._stft_magnitude(wav, CONFIG)
    heard = (linear > 0) & (linear < 1)
    assert heard.float().mean() > 0.9
    torch.testing.assert_close(magnitudes(linear, CONFIG)[heard], expected[heard], rtol=1e-3, atol=0)
    edges = magnitudes(torch.tensor([-1.0, 0.0, 1.0, 2.0]), CONFIG)  # what a network may say
    torch.testing.assert_close(edges, torch.tensor([1e-4, 1e-4, 10.0, 10.0]))


# Reading


@pytest.mark.parametrize(
    ("container", "subtype", "tolerance"),
    [("WAV", "PCM_16", 1e-4), ("WAV", "PCM_U8", 0.01), ("WAV", "DOUBLE", 1e-7), ("FLAC", None, 1e-4)],
)
def test_lossless_formats_are_read_exactly(container, subtype, tolerance, tmp_path):
    wav = tone(440)
    data = encoded(wav, 16000, container, subtype)
    (tmp_path / "any name").write_bytes(data)
    for source in (data, tmp_path / "any name"):
        read = read_audio(source, 16000)
        assert read.dtype == np.float32
        np.testing.assert_allclose(read, wav, atol=tolerance)


def test_stereo_is_averaged():
    left, right = tone(440), tone(550)
    both = encoded(np.stack([left, right], axis=1), subtype="FLOAT")
    np.testing.assert_allclose(read_audio(both, 16000), (left + right) / 2, atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
def test_resampling_keeps_length_pitch_and_level(rate):
    read = read_audio(encoded(tone(1000, seconds=0.4, rate=rate), rate), 16000)
    assert abs(len(read) - 6400) <= 1
    assert pitch(read, 16000) == pytest.approx(1000, abs=3)
    assert np.sqrt(np.mean(read[800:-800] ** 2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.02)


@pytest.mark.parametrize("rate", [8000, 22050, 44100])
@pytest.mark.parametrize("samples", [1, 2, 333, 65_535, 70_000])
def test_resampling_piece_by_piece_is_resampling_at_once(rate, samples):
    wav = noise(samples)
    read = read_audio(encoded(wav, rate, subtype="FLOAT"), 16000)
    assert np.array_equal(read, librosa.resample(wav, orig_sr=rate, target_sr=16000))


@pytest.mark.parametrize("rate", [16000, 44100])
def test_the_largest_floats_are_scaled_down_not_infinite(rate):
    wav = tone(440, rate=rate, level=1)
    loud = np.stack([wav, wav], axis=1) * np.float32(3.3e38)
    read = read_audio(encoded(loud, rate, subtype="FLOAT"), 16000)
    assert np.abs(read).max() == 1
    np.testing.assert_allclose(read, read_audio(encoded(wav, rate, subtype="FLOAT"), 16000), atol=0.02)


def test_long_recordings_of_a_high_rate_take_little_memory():
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", 192_000, 2, "PCM_16", format="FLAC") as file:
        for _ in range(20):
            file.write(np.zeros((192_000, 2), np.int16))
    tracemalloc.start()
    assert len(read_audio(buffer.getvalue(), 16000)) == 20 * 16000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6  # the whole is 31 MB


def tagged(data, size):
    """Behind an ID3 tag."""
    return b"ID3\x04\0\0" + bytes([0, 0, size >> 7, size & 0x7F]) + bytes(size) + data


def test_tags_before_a_recording_are_skipped():
    assert len(read_audio(tagged(encoded(tone(440), container="MP3"), 300), 16000)) == 8000


def test_samplers_dumps_are_refused_before_they_print(capfd):
    dump = bytearray(encoded(tone(440), container="SDS"))
    dump[30:400] = bytes(370)
    for data in (bytes(dump), tagged(bytes(dump), 5), tagged(tagged(bytes(dump), 200), 5)):
        with pytest.raises(UserError, match="not wav, flac, ogg, mp3"):
            read_audio(data, 16000)
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no such device")
def test_a_device_without_an_end_is_refused():
    with pytest.raises(UserError, match="/dev/zero: more than 200 MB from a pipe or device"):
        read_audio(Path("/dev/zero"), 16000)


def test_samples_beyond_full_scale_are_scaled_down():
    loud = tone(440, level=4.0)
    np.testing.assert_allclose(read_audio(encoded(loud, subtype="FLOAT"), 16000), loud / np.abs(loud).max(), atol=1e-6)
    square = np.sign(tone(50)).astype(np.float32)
    assert np.abs(read_audio(encoded(square, 44100), 16000)).max() <= 1  # a resampler overshoots


def test_a_streamed_wav_whose_header_has_no_length_is_read():
    data = bytearray(encoded(tone(440)))
    data[4:8] = data[40:44] = b"\xff" * 4  # what ffmpeg writes into a pipe
    assert len(read_audio(bytes(data), 16000)) == 8000


def flac_of_claimed_length(samples):
    data = bytearray(encoded(tone(440), container="FLAC"))
    assert struct.unpack(">I", data[22:26]) == (8000,)
    data[21] = data[21] & 0xF0 | samples >> 32
    data[22:26] = struct.pack(">I", samples & 0xFFFFFFFF)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "cannot be read as audio"),
        (b"just a line of text, of some length\n" * 20, "cannot be read as audio"),
        (encoded(np.zeros(0)), "no samples"),
        (encoded(np.array([0.1, np.nan, 0.2]), subtype="FLOAT"), "not finite"),
        (encoded(np.array([0.1, np.inf, 0.2]), subtype="FLOAT"), "not finite"),
        (encoded(tone(440), container="FLAC")[:600], "cannot be read as audio"),
        (encoded(noise(12_000), 1000), "12.0 s of audio, the limit is 10 s"),
        (flac_of_claimed_length(2**36 - 1), "4294967.3 s of audio"),
        (flac_of_claimed_length(100_000), "cannot be read as audio"),  # a lie within the limit
        (flac_of_claimed_length(0), "does not say how long"),
        (encoded(noise(100), 999_999), "999999 Hz, not between 1000 and 768000"),
        (encoded(np.zeros((100, 1)), container="VOC"), "not wav, flac, ogg, mp3"),
    ],
    ids=[
        "empty",
        "text",
        "no samples",
        "nan",
        "inf",
        "truncated",
        "long",
        "huge claim",
        "false claim",
        "no claim",
        "high rate",
        "other format",
    ],
)
def test_what_cannot_be_used_is_one_line(data, words, tmp_path):
    with pytest.raises(UserError, match=words) as from_bytes:
        read_audio(data, 16000, max_seconds=10)
    assert str(from_bytes.value).startswith("audio on stdin: ")
    path = tmp_path / "x.wav"
    path.write_bytes(data)
    with pytest.raises(UserError, match=words) as from_file:
        read_audio(path, 16000, max_seconds=10)
    assert str(from_file.value).startswith(f"{path}: ")
    for error in (from_bytes, from_file):
        assert "\n" not in str(error.value)
        assert " object at 0x" not in str(error.value)


def test_too_many_samples_are_refused_by_the_header(monkeypatch):
    monkeypatch.setattr(audio, "MAX_SAMPLES", 999)
    assert len(read_audio(encoded(noise(999)), 16000)) == 999
    with pytest.raises(UserError, match="more than 999 samples"):
        read_audio(encoded(np.zeros((500, 2))), 16000)


def test_the_limit_itself_is_allowed():
    assert len(read_audio(encoded(tone(440, seconds=0.5)), 16000, max_seconds=0.5)) == 8000
    with pytest.raises(UserError, match="limit"):
        read_audio(encoded(tone(440, seconds=0.51)), 16000, max_seconds=0.5)


def test_paths_that_are_no_recording(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read_audio(tmp_path / "missing.wav", 16000)
    with pytest.raises(UserError, match="directory"):
        read_audio(tmp_path, 16000)
    (tmp_path / "x.raw").write_bytes(bytes(100))
    with pytest.raises(UserError, match="cannot be read as audio"):
        read_audio(tmp_path / "x.raw", 16000)


# Writing


@pytest.mark.parametrize(("suffix", "tolerance"), [(".wav", 5e-5), (".flac", 5e-5), (".ogg", 0.05), (".WAV", 5e-5)])
def test_written_files_read_back(suffix, tolerance, tmp_path):
    wav = tone(440, level=0.9)
    path = tmp_path / f"x{suffix}"
    write_audio(path, wav, 16000)
    assert soundfile.info(path).format == audio.FORMATS[suffix.lower()]
    assert soundfile.info(path).samplerate == 16000
    np.testing.assert_allclose(read_audio(path, 16000), wav, atol=tolerance)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_out_of_range_samples_are_clipped_not_wrapped(tmp_path):
    write_audio(tmp_path / "x.wav", np.array([0.0, 1.5, -3.0]), 16000)
    np.testing.assert_allclose(read_audio(tmp_path / "x.wav", 16000), [0, 1, -1], atol=1e-4)


def test_half_precision_can_be_written(tmp_path):
    write_audio(tmp_path / "x.wav", tone(440).astype(np.float16), 16000)
    assert len(read_audio(tmp_path / "x.wav", 16000)) == 8000


def test_a_stream_gets_wav_without_seeking():
    class Pipe(io.RawIOBase):
        data = b""

        def writable(self):
            return True

        def seek(self, *_):
            raise OSError("Illegal seek")

        def write(self, chunk):
            self.data += bytes(chunk)
            return len(chunk)

    pipe = Pipe()
    write_audio(pipe, tone(440), 16000)
    assert pipe.data[:4] == b"RIFF"
    np.testing.assert_allclose(read_audio(pipe.data, 16000), tone(440), atol=5e-5)


def test_ogg_of_minutes_is_written_in_pieces(tmp_path):
    pieces = []

    class Counting(soundfile.SoundFile):
        def write(self, data):
            pieces.append(len(data))
            super().write(data)

    with pytest.MonkeyPatch.context() as patch:  # libsndfile's vorbis crashes the process otherwise
        patch.setattr(soundfile, "SoundFile", Counting)
        write_audio(tmp_path / "x.ogg", np.zeros(16000 * 20), 16000)
    assert max(pieces) <= 65536
    assert sum(pieces) == soundfile.info(tmp_path / "x.ogg").frames == 16000 * 20


def test_a_failing_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.wav"
    path.write_bytes(b"old")

    def full(self, data):
        with self.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"x\.wav: cannot be written \(No space left on device\)"):
        write_audio(path, tone(440), 16000)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"x.wav": b"old"}

    def interrupted(self, data):
        with self.open("wb") as file:
            file.write(data[:10])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_audio(path, tone(440), 16000)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"x.wav": b"old"}


def test_a_reader_of_the_old_file_never_sees_half_of_the_new(tmp_path):
    path = tmp_path / "x.wav"
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        write_audio(path, tone(440), 16000)
        assert reader.read() == b"old"
    assert len(read_audio(path, 16000)) == 8000


def test_targets_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder.wav").mkdir()
    for target in ("missing/x.wav", "file/x.wav", "folder.wav", f"{'x' * 300}.wav"):
        with pytest.raises(UserError, match="cannot be written"):
            write_audio(tmp_path / target, tone(440), 16000)
    for target in ("x.mp4", "x", ".wav"):
        with pytest.raises(UserError, match=r"unknown audio suffix; use \.wav, \.flac, \.ogg"):
            write_audio(tmp_path / target, tone(440), 16000)
    with pytest.raises(UserError, match="not finite"):
        write_audio(tmp_path / "x.wav", np.array([0, np.nan]), 16000)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.wav"]


# Silence


def test_trim_cuts_both_ends_and_says_how_much():
    rng = np.random.default_rng(0)
    wav = np.concatenate([np.zeros(8000), tone(300, seconds=0.5), np.zeros(5000)]).astype(np.float32)
    wav += rng.standard_normal(len(wav)).astype(np.float32) * 1e-4  # room noise, 70 dB under the tone
    trimmed, cut = trim_silence(wav, pad=400)
    assert len(trimmed) + cut == len(wav)
    start = int(np.flatnonzero(wav == trimmed[0])[0])
    assert np.array_equal(trimmed, wav[start : start + len(trimmed)])
    assert 8000 - 400 - 1024 <= start <= 8000 - 400
    assert 400 <= start + len(trimmed) - 16000 <= 400 + 1024


def test_trim_leaves_a_pause_and_never_runs_over():
    speech = np.concatenate([tone(300), np.zeros(16000), tone(300)]).astype(np.float32)
    for wav in (speech, noise(5000), noise(10), np.zeros(3000, np.float32)):
        trimmed, cut = trim_silence(wav)
        assert np.array_equal(trimmed, wav)
        assert cut == 0


def test_what_the_vocoder_alone_uses_makes_no_other_spectrogram():
    assert AudioConfig().fits(AudioConfig(power=1.0, griffin_lim_iters=5))
    assert not AudioConfig().fits(AudioConfig(hop_length=160))
    assert not AudioConfig().fits(None)
