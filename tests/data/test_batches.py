"""Batches: every item once an epoch, a function of seed and number, padded right."""

import shutil

import numpy as np
import pytest
import torch

from skipmodal import text
from skipmodal.config import DataConfig
from skipmodal.data.batches import TrainingBatches, _captions, _Plan, collate, validation_batches
from skipmodal.data.prepared import PreparedDataset
from skipmodal.errors import UserError
from skipmodal.tokenizer import Tokenizer

WORDLESS = Tokenizer()


@pytest.fixture
def datasets(toy):
    return PreparedDataset(toy / "image-text"), PreparedDataset(toy / "text-speech")


def test_an_epoch_is_a_permutation_and_epochs_differ():
    plan = _Plan(np.arange(100, 130), np.ones(30), 5, (0, 0))
    first, second = (np.concatenate([plan.batch(e * 6 + k) for k in range(6)]) for e in range(2))
    assert sorted(first) == sorted(second) == list(range(100, 130))
    assert list(first) != list(second)


def test_items_left_over_by_whole_batches_are_not_always_the_same():
    plan = _Plan(np.arange(11), np.ones(11), 5, (0, 0))
    missing = {(set(range(11)) - {i for k in range(2) for i in plan.batch(e * 2 + k)}).pop() for e in range(20)}
    assert len(missing) > 3


def test_batches_hold_items_of_about_equal_length():
    lengths = np.random.default_rng(0).integers(50, 500, 640)
    plan = _Plan(np.arange(640), lengths, 8, (0, 0))
    spread = np.mean([np.ptp(lengths[plan.batch(k)]) for k in range(80)])
    assert spread < 0.1 * np.ptp(lengths)
    order = [lengths[plan.batch(k)].mean() for k in range(80)]
    assert order != sorted(order)


def test_batches_that_cannot_be_shared_equally_are_refused(datasets, monkeypatch):
    few = len(datasets[1].indices("train"))
    config = DataConfig(batch_size=4 * few, sampling="text-speech")
    with pytest.raises(
        UserError, match=rf"has {few} texts or recordings to train on, so batches have {few}, which {few + 1} processes"
    ):
        TrainingBatches(*datasets, config, WORDLESS, 0, 0, few + 1)
    assert len(TrainingBatches(*datasets, config, WORDLESS, 0, 1, few)[0].mel) == 1


def test_mix_has_half_of_each_and_alternate_takes_turns(datasets):
    mix = TrainingBatches(*datasets, DataConfig(batch_size=6), WORDLESS, seed=0)[3]
    assert (len(mix.images), len(mix.mel), len(mix.ids)) == (3, 3, 6)
    turns = TrainingBatches(*datasets, DataConfig(batch_size=6, sampling="alternate"), WORDLESS, seed=0)
    a, b = turns[0], turns[1]
    assert (len(a.images), len(a.mel)) == (6, 0)
    assert (len(b.images), len(b.mel)) == (0, 6)


@pytest.mark.parametrize(("sampling", "halves"), [("image-text", (6, 0)), ("text-speech", (0, 6))])
def test_one_dataset_alone(datasets, sampling, halves):
    stream = TrainingBatches(*datasets, DataConfig(batch_size=6, sampling=sampling), WORDLESS, 0)
    assert all((len(stream[k].images), len(stream[k].mel)) == halves for k in range(3))
    items = len(datasets[sampling == "text-speech"].indices("train"))
    assert stream.per_epoch == items // 6
    for batch in validation_batches(*datasets, WORDLESS, 3, 4, sampling):
        assert (len(batch.images) > 0, len(batch.mel) > 0) == (halves[0] > 0, halves[1] > 0)


def test_a_batch_is_a_function_of_seed_and_number(datasets):
    def draw(seed, number):
        return TrainingBatches(*datasets, DataConfig(batch_size=6), WORDLESS, seed)[number]

    assert draw(0, 17).names == draw(0, 17).names
    assert draw(0, 17).names != draw(1, 17).names
    stream = TrainingBatches(*datasets, DataConfig(batch_size=6), WORDLESS, 0)
    list(map(stream.__getitem__, range(17)))
    assert stream[17].names == draw(0, 17).names


@pytest.mark.parametrize("name", ["image-text", "text-speech"])
def test_a_damaged_line_is_found_before_training(toy, tmp_path, name):
    shutil.copytree(toy, tmp_path / "toy")
    file = tmp_path / "toy" / name / "items.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"texts"', b'"tests"'))
    with pytest.raises(UserError, match=r"line \d+ of items\.jsonl"):
        TrainingBatches(
            *(PreparedDataset(tmp_path / "toy" / each) for each in ("image-text", "text-speech")),
            DataConfig(),
            WORDLESS,
            0,
        )


def test_only_training_items_are_drawn(datasets):
    stream = TrainingBatches(*datasets, DataConfig(batch_size=6), WORDLESS, 0)
    names = {name for number in range(3 * stream.per_epoch) for name in stream[number].names}
    assert all(name.startswith("train") for name in names)
    assert all(
        name.startswith("val") for batch in validation_batches(*datasets, WORDLESS, 3, 4) for name in batch.names
    )


def test_collate_pads_and_pairs(datasets):
    a, b = datasets
    items_a, items_b = a.indices("train")[:2], b.indices("train")[:3]
    batch = collate(a, b, [(int(i), [0]) for i in items_a], items_b, WORDLESS)
    expected = [a.texts(i)[0] for i in items_a] + [b.texts(i)[0] for i in items_b]
    assert [text.decode(row) for row in batch.ids.tolist()] == expected
    assert torch.equal(batch.tokens, batch.ids)  # without words they are the same
    assert batch.owners.tolist() == batch.firsts.tolist() == [0, 1]
    for row, n in zip(batch.ids, batch.lengths, strict=True):
        assert row[n - 1] == text.EOS
        assert (row[n:] == text.PAD).all()
    assert batch.images.min() >= -1
    assert batch.images.max() <= 1
    assert torch.equal(batch.mel[0], torch.from_numpy(b.mel(items_b[0]).astype(np.float32)))
    assert b.meta.audio
    linear = batch.linear(b.meta.audio)
    assert linear.shape[:2] == batch.mel.shape[:2]


def test_every_caption_of_a_picture_is_drawn_once_an_epoch(tmp_path):
    from skipmodal.data.prepare import prepare_image_text
    from tests.conftest import write_captioned_pictures

    a = PreparedDataset(write_captioned_pictures(tmp_path, prepare_image_text))
    pairs, lengths = _captions(a, 12)
    drawn = {(a.item(i)["id"], a.texts(i)[choice]) for i, choice in pairs}
    # Longer ones are left out, unless a picture has nothing else.
    assert drawn == {("0", "a dog"), ("0", "a big dog"), ("1", "a cat on a sofa in a room"), ("2", "a cat"), ("3", "x")}
    assert lengths.tolist() == [len(a.texts(i)[choice]) for i, choice in pairs]


def test_a_part_of_the_linear_targets_is_that_part_of_the_whole(datasets):
    a, b = datasets
    audio, items = b.meta.audio, b.indices("train")[:4]
    whole = collate(a, b, [], items, WORDLESS).linear(audio)
    for seed in range(3):
        cut = collate(a, b, [], items, WORDLESS, DataConfig(linear_frames=7), range(seed, seed + 4))
        part, (firsts, lengths, longest) = cut.linear(audio), cut.linear_part
        assert part.shape[1] == longest == 7
        for row, expected, first, n in zip(part, whole, firsts, lengths, strict=True):
            torch.testing.assert_close(row[:n], expected[first : first + n])
    longer = collate(a, b, [], items, WORDLESS, DataConfig(linear_frames=1000), range(4))
    for row, expected, n in zip(longer.linear(audio), whole, longer.linear_part[1], strict=True):
        torch.testing.assert_close(row[:n], expected[:n])
    assert longer.linear_part[1].tolist() == b.frames[items].tolist()


def test_processes_share_a_batch(datasets):
    words = Tokenizer.learn((each for dataset in datasets for i in range(20) for each in dataset.texts(i)), 20)
    config = DataConfig(batch_size=8, linear_frames=7, spelled=0.5)
    whole = TrainingBatches(*datasets, config, words, 0)[5]
    shares = [TrainingBatches(*datasets, config, words, 0, rank, 2)[5] for rank in range(2)]
    assert sorted(whole.names) == sorted(name for share in shares for name in share.names)
    assert all(len(share.images) == len(share.mel) == 2 for share in shares)
    for rank, share in enumerate(shares):  # and what is drawn for an item is drawn for it alone
        own = [*range(rank, 4, 2), *range(4 + rank, 8, 2)]
        for row, expected in zip(share.tokens, whole.tokens[own], strict=True):
            assert row[row > 0].tolist() == expected[expected > 0].tolist()
        assert share.linear_part[0].tolist() == whole.linear_part[0][rank::2].tolist()


def test_a_part_of_the_words_of_recordings_alone_is_spelled(datasets):
    a, b = datasets
    words = Tokenizer.learn((each for dataset in datasets for i in range(20) for each in dataset.texts(i)), 50)
    items = b.indices("train")[:5]
    rows = {}
    for part in (0.0, 0.5, 1.0):
        captions = [(int(i), [0]) for i in a.indices("train")[:5]]
        rows[part] = collate(a, b, captions, items, words, DataConfig(spelled=part), range(5)).tokens
        assert (rows[part][:5] >= 66).any(1).all()  # of captions none is
        written = [words.decode(row) for row in rows[part][5:].tolist()]
        assert written == [b.texts(i)[0] for i in items]
    counts = [int((each[5:] >= 66).sum()) for each in rows.values()]
    assert counts[0] > counts[1] > counts[2] == 0


def test_pictures_are_seen_by_any_of_their_views(captioned, monkeypatch):
    meta = captioned[0].meta
    image = meta.image.model_copy(update={"encoder": "efficientnet_lite0"})
    captioned[0].meta = meta.model_copy(update={"views": 2, "image": image})
    monkeypatch.setattr(PreparedDataset, "features", lambda self, i, view=0: np.full((1, 1), 10 * i + view))
    config = DataConfig(batch_size=4, captions=2, sampling="image-text")
    batches, shares = (
        [TrainingBatches(*captioned, config, WORDLESS, 3, rank, count) for rank in range(count)] for count in (1, 2)
    )
    seen = []
    for number in range(20):
        whole = batches[0][number]
        assert [f"{int(each) // 10}" for each in whole.features] == whole.names
        seen += [int(each) % 10 for each in whole.features]
        for rank, share in enumerate(shares):
            assert torch.equal(share[number].features, whole.features[rank::2])
    assert sorted(set(seen)) == [0, 1, 2] and min(map(seen.count, (0, 1, 2))) > 15


@pytest.fixture
def captioned(tmp_path, datasets):
    from skipmodal.data.prepare import prepare_image_text
    from tests.conftest import write_captioned_pictures

    return PreparedDataset(write_captioned_pictures(tmp_path, prepare_image_text)), datasets[1]


def test_captions_of_a_picture_are_drawn_together(captioned):
    config = DataConfig(batch_size=4, captions=2, sampling="image-text", max_characters=12)

    def draw(number, rank=0, count=1):
        return TrainingBatches(*captioned, config, WORDLESS, 3, rank, count)[number]

    pairs = set()
    for number in range(8):
        batch = draw(number)
        texts = [text.decode(row) for row in batch.ids.tolist()]
        assert sorted(batch.names) == ["0", "1", "2", "3"]
        counts = torch.bincount(batch.owners, minlength=4)
        assert [int(n) for n in counts] == [2 if name == "0" else 1 for name in batch.names]
        assert batch.owners.tolist() == sorted(batch.owners.tolist())
        assert batch.owners[batch.firsts].tolist() == [0, 1, 2, 3]
        of_first = [texts[k] for k, owner in enumerate(batch.owners) if batch.names[owner] == "0"]
        assert sorted(of_first) == ["a big dog", "a dog"]  # not the longer one, and none twice
        pairs.add(tuple(of_first))
        again = draw(number)  # as a resumed run has it
        assert again.names == batch.names and torch.equal(again.ids, batch.ids)
    assert len(pairs) == 2  # in any order
    whole, shares = draw(5), [draw(5, rank, 2) for rank in range(2)]
    for rank, share in enumerate(shares):
        assert share.names == whole.names[rank::2]
        assert share.owners.tolist() == sorted(share.owners.tolist()) and share.owners.max() == 1
    every = [text.decode(row) for each in (whole, *shares) for row in each.ids.tolist()]
    assert sorted(every[: len(every) // 2]) == sorted(every[len(every) // 2 :])
