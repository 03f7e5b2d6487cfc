"""One vector u an item, as in the paper: all that is said of a picture has to pass through it.

D_spch is trained on the u of B's texts alone. If u carried nothing, size, colour and place would be right as often as
by chance: 1 in 2, 1 in 6 and 1 in 4. A single layer stands in for T, as it learns in fewer steps.
"""

from pathlib import Path

import pytest

from .toy_world import spoken_pictures, spoken_sentences, trained, written_recordings


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("end-to-end-vector"), "toy_paper", 2000, "model.transformer=false")


def test_pictures_of_unseen_combinations_are_spoken(world: Path):
    said = spoken_pictures(world)
    assert min(said["size"], said["colour"], said["place"]) > 0.6, said
    assert said["whole"] > 0.2, said


def test_unseen_sentences_are_spoken(world: Path):
    assert spoken_sentences(world) > 0.5


def test_unheard_sentences_are_written_down(world: Path):
    assert written_recordings(world) > 0.5
