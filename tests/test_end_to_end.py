"""The whole idea, from prep to a spoken picture: train on toy pictures with captions and toy speech with captions, and
have pictures spoken whose combination of words was in neither dataset.

Some minutes on a CPU. Chance is 1 in 2 for size, 6 for colour, 4 for place, and 1 in 240 for the whole sentence.
"""

from pathlib import Path

import pytest

from .toy_world import spoken_pictures, spoken_sentences, trained, written_recordings


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("end-to-end"), "toy", 1500)


def test_pictures_of_unseen_combinations_are_spoken(world: Path):
    said = spoken_pictures(world)
    assert min(said["size"], said["colour"], said["place"]) > 0.85, said
    assert said["whole"] > 0.4, said


def test_unseen_sentences_are_spoken(world: Path):
    assert spoken_sentences(world) > 0.8


def test_unheard_sentences_are_written_down(world: Path):
    assert written_recordings(world) > 0.7
