"""Sentences in characters and words: round trips, where units lie, and what a damaged table does."""

import subprocess
import sys

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from skipmodal import text
from skipmodal.text import BOS, EOS, PAD, SYMBOLS
from skipmodal.tokenizer import LONGEST, UnitLogits, Units

TEXTS = ["A dog runs.", "A dog sits on a log.", "Two dogs run, don't they?", "A well-known dog's owner"]


def learned(words=6, texts=TEXTS):
    units = Units(words)
    units.learn(texts)
    return units


def characters(*sentences):
    return pad_sequence([torch.tensor(text.encode(each)) for each in sentences], batch_first=True, padding_value=PAD)


def written(units, row):
    return [text.decode(units.spelling[i].tolist()) for i in row if i not in (PAD, EOS)]


def test_frequent_words_are_units_and_others_are_spelled():
    units = learned(words=2, texts=["a dog runs", "the dog runs", "a dog sits"])
    rows = units.segment(characters("a dog naps", "dog runs"))
    assert written(units, rows[0].tolist()) == ["a", " dog", *" naps"]
    assert written(units, rows[1].tolist()) == [*"dog", " runs"]  # without its space it is another word
    assert rows[0, -1] == EOS and (rows[1] == EOS).sum() == 1


@pytest.mark.parametrize("words", [0, 3, 50])
def test_spelling_undoes_segmentation(words):
    units = learned(words)
    ids = characters(*TEXTS, "zzz", "")
    rows = units.segment(ids)
    assert torch.equal(units.spell(rows), ids)
    if not words:
        assert torch.equal(rows, ids)


def test_a_part_of_the_words_may_be_spelled_all_the_same():
    torch.manual_seed(0)
    units, ids = learned(words=50), characters(*TEXTS * 20)
    rows = [units.segment(ids, spelled) for spelled in (0.0, 0.5, 1.0)]
    for each in rows:
        assert torch.equal(units.spell(each), ids)
    words = [int((each >= len(SYMBOLS)).sum()) for each in rows]
    assert 0.4 * words[0] < words[1] < 0.6 * words[0] and words[2] == 0


def test_a_sentence_that_breaks_off_has_no_end():
    units = learned()
    rows = units.segment(torch.tensor([text.encode("A dog")[:-1]]))
    assert EOS not in rows
    assert text.decode(units.spell(rows)[0].tolist()) == "A dog"


def test_units_lie_where_their_first_character_does_and_characters_have_the_state_of_their_unit():
    units = learned(words=50)
    ids = characters("A dog runs.", "Two")
    rows = units.segment(ids)
    assert units.starts(rows)[0, : (rows[0] != PAD).sum()].tolist() == [0, 1, 5, 10, 11]
    states = torch.arange(rows.shape[1]).float()[None, :, None].expand(len(rows), -1, 2)
    spread = units.to_characters(states, rows, ids.shape[1])
    assert spread[0, :, 1].tolist() == [0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 4]
    assert spread[1, :4, 0].tolist() == [0, 0, 0, 1]


def test_a_word_has_one_beginning_however_it_is_written():
    units, ids = learned(words=50), characters("A dog's log.")
    for spelled in (0.0, 1.0):
        rows = units.segment(ids, spelled)
        assert units.begins[rows].sum() == 4  # dog's, log, the full stop and the end


def test_long_words_are_spelled_and_places_left_over_cannot_be_written():
    long = "x" * LONGEST
    units = learned(words=5, texts=[f"a {long}"] * 9 + ["a dog"])
    assert written(units, units.segment(characters(f"a {long}"))[0].tolist()) == ["a", " ", *long]
    empty = (units.lengths == 0).nonzero()[:, 0].tolist()
    assert empty == [PAD, BOS, *range(len(SYMBOLS) + 1, len(SYMBOLS) + 5)]


def test_the_table_travels_with_the_weights():
    units, other = learned(words=6), learned(words=6, texts=["x y zz"])
    other.segment(characters("A dog"))  # its look-up exists already
    other.load_state_dict(units.state_dict())
    ids = characters(*TEXTS)
    assert torch.equal(other.segment(ids), units.segment(ids))


def test_a_forged_table_writes_characters_that_exist():
    units, ids = learned(), characters("A dog", "runs")
    forged = units.spelling.clone()
    forged[: len(SYMBOLS)] = 0
    forged[70], forged[71, :2] = 255, torch.tensor([5, EOS])
    units.load_state_dict({"spelling": forged})
    assert (units.lengths[[70, 71]] == 0).all()
    assert torch.equal(units.spell(units.segment(ids)), ids)


def test_loading_a_checkpoint_imports_no_compiler():
    code = (
        "import sys, torch\nfrom skipmodal.tokenizer import Units\n"
        "with torch.device('meta'): Units(2000)\nassert 'sympy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_a_word_shares_with_others_is_its_letters_at_their_places():
    torch.manual_seed(0)
    units = Units(3)
    units.learn([" ab ab ab", " ac ac", " a"])
    logits = UnitLogits(4, units)
    letters = logits.letters.detach().view(LONGEST, len(SYMBOLS), 4)
    vectors = logits.vectors(units.spelling)
    for unit in range(len(units)):
        row = [i for i in units.spelling[unit].tolist() if i]
        expected = logits.weight[unit] + sum(letters[place, i] for place, i in enumerate(row))
        torch.testing.assert_close(vectors[unit], expected)
    x = torch.randn(2, 4)
    torch.testing.assert_close(logits(x, vectors), x @ vectors.T + logits.bias)
    vectors[units.segment(torch.tensor([text.encode(" ab")]))[0, 0]].sum().backward()
    moved = logits.letters.grad.view(LONGEST, len(SYMBOLS), 4).abs().sum(2).nonzero().tolist()
    assert moved == sorted([place, i] for place, i in enumerate(text.encode(" ab")[:-1]))


def test_gradients_of_letters_are_the_same_each_time_on_several_threads():
    torch.manual_seed(0)
    units = Units(2000)
    units.learn([" " + "".join("abcdefgh"[i // 8**k % 8] for k in range(4)) for i in range(2000)])
    logits, seen = UnitLogits(320, units), []
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for _ in range(4):
            logits.zero_grad()
            logits.vectors(units.spelling).square().sum().backward()
            seen.append(logits.letters.grad.clone())
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(seen[0], each) for each in seen)
