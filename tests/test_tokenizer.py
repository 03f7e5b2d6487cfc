"""Sentences in characters and words: round trips, what is spelled, and vocabularies that are refused."""

import subprocess
import sys

import numpy as np
import pytest

from skipmodal import text
from skipmodal.errors import UserError
from skipmodal.text import BOS, EOS, PAD, SYMBOLS
from skipmodal.tokenizer import LONGEST, MAX_WORDS, Tokenizer

TEXTS = ["A dog runs.", "A dog sits on a log.", "Two dogs run, don't they?", "A well-known dog's owner"]


def written(tokenizer, tokens):
    return [tokenizer.decode([token]) for token in tokens if token != EOS]


def test_frequent_words_are_tokens_and_others_are_spelled():
    tokenizer = Tokenizer.learn(["a dog runs", "the dog runs", "a dog sits"], 2)
    assert tokenizer.words == (" dog", " runs")
    naps, runs = tokenizer.encode("a dog naps"), tokenizer.encode("dog runs")
    assert written(tokenizer, naps) == ["a", " dog", *" naps"]
    assert written(tokenizer, runs) == [*"dog", " runs"]  # without its space it is another word
    assert naps[-1] == EOS and runs.count(EOS) == 1


@pytest.mark.parametrize("words", [0, 3, 50])
def test_decoding_undoes_encoding(words):
    tokenizer = Tokenizer.learn(TEXTS, words)
    for sentence in (*TEXTS, "zzz", ""):
        tokens = tokenizer.encode(sentence)
        assert tokenizer.decode(tokens) == sentence
        if not words:
            assert tokens == text.encode(sentence)


def test_a_part_of_the_words_may_be_spelled_all_the_same():
    tokenizer, sentence = Tokenizer.learn(TEXTS, 50), " ".join(TEXTS * 20)
    rows = [tokenizer.encode(sentence, spelled, np.random.default_rng(0)) for spelled in (0.0, 0.5, 1.0)]
    for each in rows:
        assert tokenizer.decode(each) == sentence
    words = [sum(token >= len(SYMBOLS) for token in each) for each in rows]
    assert 0.4 * words[0] < words[1] < 0.6 * words[0] and words[2] == 0


def test_long_words_are_spelled_and_padding_and_the_start_cannot_be_written():
    long = "x" * LONGEST
    tokenizer = Tokenizer.learn([f"a {long}"] * 9 + ["a dog"], 5)
    assert tokenizer.words == (" dog",)
    assert written(tokenizer, tokenizer.encode(f"a {long}")) == ["a", " ", *long]
    assert (tokenizer.spelling == PAD).all(1).nonzero()[0].tolist() == [PAD, BOS]
    assert tokenizer.spelling.shape == (len(tokenizer), LONGEST)


@pytest.mark.parametrize(
    "words",
    [["dog\x00"], ["do g"], ["d2g"], [""], ["a"], [" " + "x" * LONGEST], [" dog", " dog"], ["Straße"],
     ["a" + "".join("bcdefghi"[k // 8**i % 8] for i in range(5)) for k in range(MAX_WORDS + 1)]],
)  # fmt: skip
def test_words_that_are_none_are_refused(words):
    with pytest.raises(UserError, match=r"^vocabulary: .*\S$"):
        Tokenizer(words)


def test_characters_that_no_text_has_are_an_error():
    with pytest.raises(KeyError):
        Tokenizer().encode("犬")


def test_tokenising_needs_no_torch():
    code = "import sys, skipmodal.tokenizer\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
