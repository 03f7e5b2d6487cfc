"""Features of regions: the public layouts, what is refused, and models that must not see the padding."""

import base64
import io
import sys
import zipfile
from functools import partial

import numpy as np
import pytest
import torch

from skipmodal.config import TokensModel
from skipmodal.data.batches import collate
from skipmodal.data.prepare import prepare_image_text
from skipmodal.data.prepared import PreparedDataset
from skipmodal.errors import UserError
from skipmodal.features.regions import MAX_LINE, Regions
from skipmodal.image import ImageConfig
from skipmodal.models.encoders.image import ImageTokenEncoder
from skipmodal.tokenizer import Tokenizer
from tests.comparators.captions import batch_of, learns, untrained
from tests.conftest import write_captioned_pictures
from tests.models.tiny import tiny_model

FEATURES = {
    name: np.random.default_rng(count).random((count, 6), dtype=np.float32) + 0.1
    for name, count in (("0", 3), ("1", 1), ("2", 4), ("3", 2))
}
REGIONS = ImageConfig(size=16, encoder="regions", regions=(4, 6))


def line(name, features, boxes=None):
    boxes = len(features) if boxes is None else boxes
    coded = [base64.b64encode(np.ascontiguousarray(part)).decode() for part in (np.zeros((boxes, 4), "<f4"), features)]
    return "\t".join((name, "640", "480", str(boxes), *coded)) + "\n"


def table(folder, features=FEATURES):
    (folder / "r.tsv").write_text("".join(line(name, each) for name, each in features.items()))
    return folder / "r.tsv"


def arrays(folder, key="feat", features=FEATURES, turned=False):
    (folder / "npz").mkdir()
    for name, each in features.items():
        boxes = np.zeros((len(each), 4), dtype=int if turned else float)
        np.savez(folder / "npz" / f"{name}.npz", **{key: each.T if turned else each, "bbox": boxes})
    return folder / "npz"


@pytest.mark.parametrize(
    "write",
    [table, arrays, partial(arrays, key="x"), partial(arrays, key="features"), partial(arrays, key="x", turned=True)],
)
def test_both_layouts_hold_the_same(tmp_path, write):
    found = Regions(write(tmp_path))
    assert found.shape == (4, 6) and "4" not in found
    assert "COCO_val2014_000000000002" in found and "000000000002" in found
    for name, features in FEATURES.items():
        assert found[name].dtype == np.float16 and not found[name][len(features) :].any()
        np.testing.assert_allclose(found[name][: len(features)], features, rtol=1e-3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no features of regions"),
        ("a\tb\n", r"r\.tsv:1: is no line of image_id"),
        (line("0", FEATURES["0"]) * 2, r"r\.tsv:2: picture '0' is there twice"),
        (line("0", FEATURES["0"], 5), r"r\.tsv:1: picture '0': 72 bytes of features for 5 boxes"),
        (line("0", np.ones((101, 6), "<f4")), r"r\.tsv:1: picture '0': 2424 bytes of features for 101 boxes"),
        (line("0", np.ones((1, 4097), "<f4")), r"shape \(1, 4097\); expected 1 to 100 regions"),
        (line("0", FEATURES["0"]) + line("1", np.ones((1, 5), "<f4")), r"r\.tsv:2: width 5, that of others is 6"),
        ("0\t1\t1\t9" + "9" * 30 + "\tAAAA\tAAAA\n", "bytes of features for"),
        ("x" * (MAX_LINE + 1), "a line of more than"),
    ],
)
def test_a_table_that_is_none_is_one_line(tmp_path, content, message):
    (tmp_path / "r.tsv").write_text(content)
    with pytest.raises(UserError, match=message) as refused:
        Regions(tmp_path / "r.tsv")
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.full((1, 6), np.nan, "<f4"), "not finite"),
        (np.full((1, 6), 1e6, "<f4"), "not finite in 16 bits"),
        (np.zeros((1, 6), "<f4"), "a region whose features are all zero"),
    ],
)
def test_damaged_features_are_named_when_they_are_read(tmp_path, features, message):
    found = Regions(table(tmp_path, {**FEATURES, "9": features}))
    with pytest.raises(UserError, match=rf"r\.tsv:5: .*{message}"):
        found["9"]
    (tmp_path / "r.tsv").write_text(line("0", FEATURES["0"]).replace("\n", "")[:-4] + "!!!!\n")
    with pytest.raises(UserError, match=r"r\.tsv:1: picture '0': its features are not base64"):
        Regions(tmp_path / "r.tsv")["0"]


class Runs:
    def __reduce__(self):
        return sys.exit, (99,)


def test_arrays_that_are_none_are_refused_unread(tmp_path):
    folder = arrays(tmp_path)

    def refused(message):
        with pytest.raises(UserError, match=rf"0\.npz: {message}"):
            Regions(folder)

    np.savez(folder / "0.npz", feat=np.array([Runs()], dtype=object))
    refused("features are object, not floats")
    np.savez(folder / "0.npz", feat=np.ones((2, 3, 4)))
    refused(r"features of shape \(2, 3, 4\)")
    np.savez(folder / "0.npz", boxes=np.ones((2, 3)))
    refused("has no array feat or features or x")
    (folder / "0.npz").write_bytes(b"PK and nothing")
    refused("cannot be read")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**9, 10**6)})
    with zipfile.ZipFile(folder / "0.npz", "w") as archive:
        archive.writestr("feat.npy", header.getvalue())
    refused("features of shape")


def test_prep_stores_them_in_place_of_an_encoders(tmp_path):
    data = PreparedDataset(
        write_captioned_pictures(
            tmp_path, partial(prepare_image_text, image=ImageConfig(size=16), regions=table(tmp_path))
        )
    )
    assert data.meta.image == REGIONS and data.image(0).shape == (16, 16, 3)
    for i in range(4):
        np.testing.assert_array_equal(data.features(i), Regions(tmp_path / "r.tsv")[data.item(i)["id"]])
    batch = collate(data, data, [(0, [0]), (1, [0])], np.empty(0, dtype=int), Tokenizer())
    assert batch.pictures.shape == (2, 4, 6)
    assert PreparedDataset(data.path, features=False).meta.image == ImageConfig(size=16)
    table(tmp_path, {name: FEATURES[name] for name in ("0", "2")})
    report = prepare_image_text(
        tmp_path / "manifest.csv", tmp_path / "b", image=ImageConfig(size=16), regions=tmp_path / "r.tsv"
    )
    assert report.kept.total() == 2 and report.dropped == {"no features of regions": 2}
    table(tmp_path, {**FEATURES, "1": np.zeros((1, 6), "<f4")})
    report = prepare_image_text(
        tmp_path / "manifest.csv", tmp_path / "d", image=ImageConfig(size=16), regions=tmp_path / "r.tsv"
    )
    assert report.kept.total() == 3 and report.dropped == {"unreadable features of regions": 1}
    with pytest.raises(UserError, match="give one of both"):
        prepare_image_text(
            tmp_path / "manifest.csv", tmp_path / "c", image=ImageConfig(encoder="efficientnet_lite0"),
            regions=tmp_path / "r.tsv",
        )  # fmt: skip


def padded(features, more):
    return torch.cat([features, torch.zeros(len(features), more, features.shape[2])], 1)


def test_padding_is_not_seen():
    torch.manual_seed(0)
    features = torch.rand(2, 4, 6) + 0.1
    features[1, 2:] = 0
    encoder = ImageTokenEncoder(TokensModel(embedding=8, n_k=4, d_k=8), REGIONS, Tokenizer()).eval()
    e, lengths, *_ = encoder(features)
    assert lengths.tolist() == [4, 2] and not e[1, 2:].any()
    torch.testing.assert_close(encoder(padded(features, 3)).e, padded(e, 3))
    torch.testing.assert_close(encoder.mean(features)[1], features[1, :2].mean(0))
    batch = batch_of((4, 6))
    batch.features[1, 2:] = 0
    for kind in ("sat", "up_down"):
        system = untrained(kind, batch, REGIONS)
        with torch.no_grad():
            latents = [system.encode_image(each) for each in (batch.features, padded(batch.features, 3))]
            logits = [system.text_decoder(each, batch.tokens, batch.owners).logits for each in latents]
        torch.testing.assert_close(*logits)
        torch.testing.assert_close(latents[0].mean, latents[1].mean)


def test_both_kinds_of_model_learn_from_regions_and_refuse_photos():
    batch = batch_of((4, 6))
    batch.features[1, 2:] = 0
    system = learns("up_down", 250, batch, REGIONS)
    with pytest.raises(UserError, match="can't find them in a picture"):
        system.encode_image(torch.zeros(1, 3, 16, 16))


def test_a_photo_given_to_such_a_model_is_refused(tmp_path):
    from skipmodal.inputs import picture

    with pytest.raises(UserError, match="can't find them in a photo"):
        picture(tmp_path / "photo.jpg", REGIONS)
    with pytest.raises(UserError, match=r"model\.kinds"):
        ImageTokenEncoder(TokensModel(kinds=3), REGIONS, Tokenizer())
    assert tiny_model().image_encoder.places is not None
