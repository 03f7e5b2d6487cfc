"""Transcribers: a command as the engine, silence, the cache, what can be wrong."""

import json
import stat
import sys

import numpy as np
import pytest
import torch

from skipmodal.errors import UserError
from skipmodal.metrics.transcribe import Transcriber

TONE = (0.5 * np.sin(np.arange(8000) / 5)).astype(np.float32)


@pytest.fixture
def engine(tmp_path):
    """A program that counts its calls and prints the length of the wav."""
    script = tmp_path / "hear.py"
    script.write_text(
        f"#!{sys.executable}\nimport sys, wave\nopen({str(tmp_path / 'calls')!r}, 'a').write('x')\n"
        "print(' heard  ', wave.open(sys.argv[1]).getnframes())\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IEXEC)
    return script


def test_a_command_hears_once_and_silence_is_not_heard(engine, tmp_path):
    cache = tmp_path / "cache.jsonl"
    recordings = [(TONE, 8000), (np.zeros(800, np.float32), 8000), (TONE[:4000], 8000), (TONE[:0], 8000)]
    expected = ["heard 8000", "", "heard 4000", ""]
    assert list(Transcriber(f"command:{engine}", cache)(recordings)) == expected
    assert (tmp_path / "calls").read_text() == "xx"
    cache.write_text(cache.read_text() + '["torn')  # a run that was killed
    assert list(Transcriber(f"command:{engine}", cache)(recordings)) == expected
    assert (tmp_path / "calls").read_text() == "xx"


@pytest.mark.parametrize("spec", ["siri", "whisper", "command:", "faster-whisper", "pocketsphinx:x", ""])
def test_unknown_engines_are_refused_with_what_there_is(spec):
    with pytest.raises(UserError, match="expected faster-whisper:NAME_OR_FOLDER"):
        Transcriber(spec)


def test_a_command_that_fails_is_one_line(tmp_path):
    with pytest.raises(UserError, match="cannot be run"):
        list(Transcriber(f"command:{tmp_path / 'none'}")([(TONE, 8000)]))
    with pytest.raises(UserError, match="exit status"):
        list(Transcriber("command:false")([(TONE, 8000)]))


def test_missing_packages_say_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for spec, install in (
        ("faster-whisper:base", "faster-whisper"), ("whisper:base", "openai-whisper"), ("wav2vec2:x", "transformers")
    ):  # fmt: skip
        with pytest.raises(UserError, match=f"pip install '?{install}"):
            Transcriber(spec)


def test_whisper_hears_with_weights_from_a_file(tmp_path):
    whisper = pytest.importorskip("whisper")
    sizes = {"n_mels": 80, "n_audio_ctx": 1500, "n_audio_state": 16, "n_audio_head": 2, "n_audio_layer": 1}
    sizes |= {"n_vocab": 51864, "n_text_ctx": 8, "n_text_state": 16, "n_text_head": 2, "n_text_layer": 1}
    torch.manual_seed(0)
    net = whisper.model.Whisper(whisper.model.ModelDimensions(**sizes))
    torch.save({"dims": sizes, "model_state_dict": net.state_dict()}, tmp_path / "tiny.pt")
    (text,) = Transcriber(f"whisper:{tmp_path / 'tiny.pt'}")([(TONE, 8000)])
    assert isinstance(text, str)
    (tmp_path / "bad.pt").write_bytes(b"x")
    with pytest.raises(UserError, match=r"whisper:.*cannot be loaded"):
        list(Transcriber(f"whisper:{tmp_path / 'bad.pt'}")([(TONE, 8000)]))


def test_wav2vec2_hears_with_weights_from_a_folder(tmp_path):
    transformers = pytest.importorskip("transformers")
    words = {word: number for number, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGH"])}
    (tmp_path / "vocab.json").write_text(json.dumps(words))
    processor = transformers.Wav2Vec2Processor(
        feature_extractor=transformers.Wav2Vec2FeatureExtractor(sampling_rate=16000),
        tokenizer=transformers.Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json")),
    )
    processor.save_pretrained(tmp_path)
    config = transformers.Wav2Vec2Config(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        conv_dim=(16, 16), conv_stride=(16, 20), conv_kernel=(16, 20), num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, pad_token_id=0,
    )  # fmt: skip
    net = transformers.Wav2Vec2ForCTC(config)
    torch.nn.init.zeros_(net.lm_head.weight)
    net.lm_head.bias.data = torch.eye(len(words))[words["C"]]  # C is all it hears
    net.save_pretrained(tmp_path)
    assert list(Transcriber(f"wav2vec2:{tmp_path}")([(TONE, 8000)])) == ["c"]
    with pytest.raises(UserError, match=r"wav2vec2:.*cannot be loaded"):
        list(Transcriber(f"wav2vec2:{tmp_path / 'vocab.json'}")([(TONE, 8000)]))


def test_a_damaged_or_impossible_cache_is_no_traceback(engine, tmp_path):
    cache = tmp_path / "cache.jsonl"
    cache.write_bytes(b'5\n["x"]\n\xff\xfe\n{"a": 1}\n')
    assert list(Transcriber(f"command:{engine}", cache)([(TONE, 8000)])) == ["heard 8000"]
    with pytest.raises(UserError, match="--cache"):
        Transcriber(f"command:{engine}", tmp_path)
