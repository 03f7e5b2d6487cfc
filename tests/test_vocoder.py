import librosa
import numpy as np
import pytest
import torch
from scipy.signal import lfilter
from torch.nn.utils.rnn import pad_sequence

from skipmodal.audio import AudioConfig, linear_spectrogram, magnitudes
from skipmodal.vocoder import _deemphasis, _together, _Transform, griffin_lim

PAPER = AudioConfig()
PLAIN = AudioConfig(power=1.0)
SMALL = AudioConfig(sample_rate=8000, n_fft=512, win_length=201, hop_length=50, n_mels=20, power=1.2)


def voiced(seconds, seed=0, rate=16000):
    """Harmonics of a gliding pitch under a moving spectral tilt, with pauses and breath."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 0.7 * t + seed)) / rate
    tilt = 1 + 0.5 * np.sin(2 * np.pi * 1.3 * t + seed)
    wav = sum(np.sin(k * phase) / k**tilt for k in range(1, 25)) * np.clip(np.sin(2 * np.pi * 3 * t), 0, 1)
    wav = wav + 0.01 * rng.standard_normal(len(t))
    return torch.from_numpy((0.7 * wav / np.abs(wav).max()).astype(np.float32))


def linear_of(wav, config):
    return linear_spectrogram(wav[None], config)[0]


def alone(linear, config, **options):
    return griffin_lim(linear[None], torch.tensor([len(linear)]), config, **options)[0]


def stft(wav, config=PAPER):
    return librosa.stft(
        np.asarray(wav),
        n_fft=config.n_fft,
        hop_length=config.hop_length,
        win_length=config.win_length,
        pad_mode="constant",
    )


def convergence(wav, target):
    """Spectral convergence: the distance of the magnitudes, as a part of the target's norm."""
    return np.linalg.norm(np.abs(stft(wav)) - target) / np.linalg.norm(target)


def test_converges_like_librosa():
    """As close as librosa with as many iterations and the same momentum; its own seeds differ by as much."""
    config = AudioConfig(power=1.0, preemphasis=0.0)
    ours, theirs = [], []
    for seed in range(3):
        linear = linear_of(voiced(0.5, seed), config)
        target = magnitudes(linear, config).T.numpy()
        ours.append(convergence(alone(linear, config, iterations=30), target))
        reference = librosa.griffinlim(
            target,
            n_iter=30,
            hop_length=200,
            win_length=800,
            momentum=0.99,
            pad_mode="constant",
            random_state=seed,
        )
        theirs.append(convergence(reference, target))
    assert np.mean(ours) < 1.05 * np.mean(theirs)
    assert np.mean(ours) < 0.3  # both work


def test_more_iterations_come_closer():
    config = AudioConfig(power=1.0, preemphasis=0.0)
    linear = linear_of(voiced(0.4), config)
    target = magnitudes(linear, config).T.numpy()
    distances = [convergence(alone(linear, config, iterations=n), target) for n in (0, 2, 8, 32)]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.5 * distances[0]


@pytest.mark.parametrize("config", [PAPER, SMALL], ids=["paper", "small"])
@pytest.mark.parametrize("padding", [0.0, 0.8])
def test_a_batch_gives_the_waveforms_of_its_items(config, padding):
    wavs = [voiced(seconds, seed) for seed, seconds in enumerate((0.3, 0.02, 0.011, 0.2, 0.3))]
    items = [linear_of(wav, config) for wav in wavs] + [linear_of(wavs[2], config)[:1]]
    assert min(map(len, items)) == 1
    padded = pad_sequence(items, batch_first=True, padding_value=padding)
    lengths = torch.tensor([len(item) for item in items])
    for batch in (griffin_lim(padded, lengths, config, 8), _together(padded, lengths, config, 8)):
        for item, wav in zip(items, batch, strict=True):
            assert wav.shape == (max(len(item) - 1, 1) * config.hop_length,)
            assert wav.abs().max() > 1e-3
            torch.testing.assert_close(wav, alone(item, config, iterations=8), atol=1e-5, rtol=0)


def test_a_single_frame_is_one_hop():
    linear = linear_of(voiced(0.3, 1), PLAIN)[10:11]
    wav = alone(linear, PLAIN)
    assert wav.shape == (200,)
    assert wav.isfinite().all()
    assert 0 < wav.abs().max() < 10


def test_silence_and_the_loudest_spectrogram_stay_finite():
    for value in (0.0, 1.0):
        wav = alone(torch.full((6, 1025), value), PAPER, iterations=4)
        assert wav.isfinite().all()
    assert alone(torch.zeros(6, 1025), PAPER).abs().max() < 1e-3


def test_padding_is_not_looked_at():
    linear = linear_of(voiced(0.1), PAPER)
    padded = torch.cat([linear, torch.full((3, 1025), torch.nan)])
    wav = griffin_lim(padded[None], torch.tensor([len(linear)]), PAPER, iterations=3)[0]
    torch.testing.assert_close(wav, alone(linear, PAPER, iterations=3), atol=1e-5, rtol=0)


def test_is_deterministic_and_ignores_the_random_state():
    linear = linear_of(voiced(0.2), PAPER)
    torch.manual_seed(0)
    first = alone(linear, PAPER, iterations=4)
    state = torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(first, alone(linear, PAPER, iterations=4))
    torch.manual_seed(0)
    assert torch.equal(state, torch.get_rng_state())


def test_iterations_default_to_the_configuration():
    linear = linear_of(voiced(0.1), PAPER)
    config = PAPER.model_copy(update={"griffin_lim_iters": 3})
    assert torch.equal(alone(linear, config), alone(linear, PAPER, iterations=3))
    assert not torch.equal(alone(linear, config), alone(linear, PAPER, iterations=4))


def fundamental(wav, rate=16000):
    """Hertz, from the highest peak of the autocorrelation between 70 and 500 Hz."""
    spectrum = np.abs(np.fft.rfft(wav, 4 * len(wav))) ** 2
    lags = np.fft.irfft(spectrum, 16 * len(wav))  # four times as fine
    first, last = 4 * rate // 500, 4 * rate // 70
    return 4 * rate / (first + lags[first:last].argmax())


@pytest.mark.parametrize("hertz", [90.0, 157.0, 311.0])
def test_a_tone_keeps_pitch_and_level(hertz):
    """With overtones: Griffin-Lim, whoever's, splits a pure sine into a pair of lines beside it."""
    t = torch.arange(8000) / 16000
    tone = sum(torch.sin(2 * torch.pi * hertz * k * t) / k for k in range(1, 12)) / 4
    assert fundamental(tone[2000:6000].numpy()) == pytest.approx(hertz, rel=0.005)
    wav = alone(linear_of(tone, PLAIN), PLAIN)
    assert fundamental(wav[2000:6000].numpy()) == pytest.approx(hertz, rel=0.01)
    assert float(wav.square().mean().sqrt()) == pytest.approx(float(tone.square().mean().sqrt()), rel=0.1)


def test_power_sharpens():
    """Magnitudes are raised to `power`: 1.5 times the decibels between loud and soft."""
    loud, soft = (alone(torch.full((12, 1025), v), PAPER, iterations=0).square().mean().sqrt() for v in (0.8, 0.6))
    assert 20 * np.log10(float(loud / soft)) == pytest.approx(1.5 * 20, abs=0.1)


# Parts


@pytest.mark.parametrize("coefficient", [0.0, 0.5, 0.97, 0.999])
def test_deemphasis_is_the_recursive_filter(coefficient):
    wav = torch.randn(3, 3000, generator=torch.Generator().manual_seed(0))
    expected = lfilter([1], [1, -coefficient], wav.numpy().astype(np.float64))
    np.testing.assert_allclose(_deemphasis(wav, coefficient), expected, atol=1e-5 * np.abs(expected).max())


def test_every_second_bin_is_the_transform_of_half_the_size():
    wav = voiced(0.2)[None]
    long, short = (
        magnitudes(linear_spectrogram(wav, config), config)
        for config in (PAPER, PAPER.model_copy(update={"n_fft": 1024}))
    )
    transform = _Transform(PAPER, torch.ones(1, long.shape[1], dtype=torch.bool))
    assert (transform.n_fft, transform.step) == (1024, 2)
    torch.testing.assert_close(transform.decimate(long), short, rtol=1e-4, atol=1e-5)


def test_a_window_that_needs_the_whole_transform_keeps_it():
    for n_fft, win, used in (
        (1024, 800, 1024),
        (800, 800, 800),
        (1600, 800, 800),
        (2000, 250, 250),
        (514, 128, 257),
    ):
        config = AudioConfig(n_fft=n_fft, win_length=win, hop_length=100)
        transform = _Transform(config, torch.ones(1, 4, dtype=torch.bool))
        assert transform.n_fft == used
        assert transform.decimate(torch.zeros(1, 4, config.n_linear)).shape[2] == used // 2 + 1


@pytest.mark.parametrize("config", [PAPER, SMALL], ids=["paper", "odd window"])
def test_the_transform_is_the_front_ends_and_its_inverse_is_exact(config):
    samples = 20 * config.hop_length
    wav = voiced(0.5)[None, :samples]
    transform = _Transform(config, torch.ones(1, 21, dtype=torch.bool))
    spectrum = transform.forward(wav)
    expected = np.abs(stft(wav[0], config)).T[None, :, :: transform.step]
    np.testing.assert_allclose(spectrum.abs(), expected, atol=1e-3)
    torch.testing.assert_close(transform.inverse(spectrum), wav, atol=1e-5, rtol=0)


def test_the_first_phase_advances_at_the_centre_of_each_bin():
    transform = _Transform(PAPER, torch.ones(1, 3, dtype=torch.bool))
    phase = transform.steady_phase(3000).double()
    frame, bins = torch.arange(3000)[:, None], torch.arange(513)
    expected = 2 * torch.pi * ((frame * bins * 200) % 1024) / 1024  # in integers: exact in the last frame too
    torch.testing.assert_close(torch.cos(phase), torch.cos(expected.double()), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.sin(phase), torch.sin(expected.double()), atol=1e-5, rtol=0)
