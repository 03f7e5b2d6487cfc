"""Caption metrics against pycocoevalcap 1.2 (its tokeniser under Java 17), and by hand."""

import json
from pathlib import Path

import pytest

from skipmodal.errors import UserError
from skipmodal.metrics.captions import score_captions, tokenise


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("A man doesn't like the dog's toy .", "a man does n't like the dog 's toy"),
        ("Two girls' hats; one (red) t-shirt!", "two girls hats one -lrb- red -rrb- t-shirt"),
        ('A sign says "Grand Opening" on St. Mary\'s #5.', "a sign says grand opening on st. mary 's # 5"),
        ("They cannot pay 2.00 Euros, or 1,000?", "they can not pay 2.00 euros or 1,000"),
        ("It's at a McDonald's.", "it 's at a mcdonald 's"),
    ],
)
def test_tokens_are_those_of_the_penn_treebank_tokeniser(caption, tokens):
    assert " ".join(tokenise(caption)) == tokens


def test_scores_are_those_of_the_coco_caption_evaluation():
    references = {
        "a": ["A dog runs on the beach.", "The brown dog is running along the shore.", "A dog's day at the sea"],
        "b": ["Two men sit on a bench.", "A pair of men are sitting on a wooden bench in the park."],
        "c": ["A woman in a red T-shirt (smiling) holds a cup.", "The lady doesn't drop her cup."],
        "d": ["Children play football on grass.", "Some kids are playing with a ball on the grass.", "Kids play."],
    }
    hypotheses = {
        "a": "A brown dog runs along the beach.",
        "b": "Two men are sitting on a bench in a park.",
        "c": "A man in a red shirt holds a cup.",
        "d": "Two kids are playing on the grass on the grass.",
    }
    scores = score_captions(hypotheses, references)
    expected = (0.8105037308852625, 0.684143889957268, 0.5066651600104125, 0.32042731887571213)
    assert scores.bleu == pytest.approx(expected, abs=1e-9)
    assert scores.rouge_l == pytest.approx(0.7123292218888905, abs=1e-9)
    assert scores.cider == pytest.approx(1.8987049078116853, abs=1e-9)


def test_scores_of_six_hundred_real_sets_are_those_of_the_coco_caption_evaluation():
    # Flickr8k's dev captions may not be given away: after Java's tokeniser each word became a number, whose meaning
    # was not kept. 400 sets are a human caption against the four others, 200 a model's sentence against all five.
    stored = json.loads((Path(__file__).parent / "data" / "caption_sets.json").read_text())
    hypotheses = {str(i): hypothesis for i, (hypothesis, _) in enumerate(stored["sets"])}
    references = {str(i): captions for i, (_, captions) in enumerate(stored["sets"])}
    assert len(hypotheses) == 600
    scores = score_captions(hypotheses, references)
    assert scores.bleu == pytest.approx(stored["expected"]["BLEU"], abs=1e-6)
    assert scores.rouge_l == pytest.approx(stored["expected"]["ROUGE-L"], abs=1e-6)
    assert scores.cider == pytest.approx(stored["expected"]["CIDEr-D"], abs=1e-6)


def test_a_perfect_copy_and_a_stranger():
    references = {"a": ["a dog runs on the beach", "the dog is running"], "b": ["two men sit on a bench"]}
    perfect = score_captions({"a": "A dog runs on the beach.", "b": "Two men sit on a bench."}, references)
    assert perfect.bleu == pytest.approx((1, 1, 1, 1))
    assert perfect.rouge_l == pytest.approx(1)
    strange = score_captions({"a": "zebra", "b": "quagga"}, references)
    assert max(strange.bleu) < 1e-3
    assert strange.rouge_l == strange.cider == 0


def test_bleu_by_hand():
    # Clipped unigrams 2 of 4 and 4 of 4; bigrams 1 of 3 and 3 of 3; lengths 4 + 4 against closest 3 + 4.
    references = {"a": ["the cat sat", "a cat"], "b": ["a man walks home"]}
    scores = score_captions({"a": "the the cat cat", "b": "a man walks home"}, references)
    assert scores.bleu[0] == pytest.approx(6 / 8)
    assert scores.bleu[1] == pytest.approx((6 / 8 * 4 / 6) ** 0.5)


def test_a_short_corpus_is_punished():
    references = {"a": ["one two three four"], "b": ["five six seven eight"]}
    scores = score_captions({"a": "one two", "b": "five six"}, references)
    assert scores.bleu[0] == pytest.approx(2.718281828 ** (1 - 8 / 4))


def test_empty_hypotheses_score_nothing():
    scores = score_captions({"a": "", "b": "a dog"}, {"a": ["a cat"], "b": ["a dog"]})
    assert 0 < scores.bleu[0] < 1
    assert scores.rouge_l == pytest.approx(0.5)


def test_a_single_image_is_refused():
    with pytest.raises(UserError, match="single image"):
        score_captions({"a": "a dog"}, {"a": ["a dog"]})
    with pytest.raises(UserError, match="different images"):
        score_captions({"a": "a dog", "b": "x"}, {"a": ["a dog"], "c": ["x"]})
