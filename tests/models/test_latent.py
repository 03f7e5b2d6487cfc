"""The latent: what its means see, where its tokens lie, and rows of it."""

import torch

from skipmodal.models.latent import Latent
from tests.models.tiny import KINDS, latents, tiny_batch, tiny_model

LENGTHS = torch.tensor([4, 1, 3])


def drawn():
    generator = torch.Generator().manual_seed(0)
    mask = (torch.arange(4) < LENGTHS[:, None])[:, :, None]
    z, u = (torch.randn(3, 4, 5, generator=generator) * mask for _ in range(2))
    return Latent(z, u, LENGTHS, rate=1.5)


def test_a_mean_is_of_valid_tokens_alone():
    latent = drawn()
    for i, n in enumerate(LENGTHS):
        torch.testing.assert_close(latent.mean[i], latent.u[i, :n].mean(0))
        torch.testing.assert_close(latent.mean_z[i], latent.z[i, :n].mean(0))
    pad = torch.nn.functional.pad
    wider = Latent(pad(latent.z, (0, 0, 0, 7)), pad(latent.u, (0, 0, 0, 7)), LENGTHS)
    torch.testing.assert_close(wider.mean, latent.mean)
    assert latent.mask.sum(1).tolist() == LENGTHS.tolist() and not latent.mask[1, 1:].any()


def test_means_of_the_model_ignore_padding():
    for kind in KINDS:
        model, batch = tiny_model(kind).eval(), tiny_batch()
        batch.mel[1, batch.mel_lengths[1] :] = 0.7  # must not be seen
        for name, encode in latents(model, batch):
            together = encode(slice(0, 2))
            assert not together.u[~together.mask].any() and not together.z[~together.mask].any()
            for i in range(2):
                alone = encode(slice(i, i + 1))
                n = int(alone.lengths[0])
                torch.testing.assert_close(together.mean[i], alone.u[0, :n].mean(0), msg=f"{kind} {name}")
                torch.testing.assert_close(together.mean_z[i], alone.z[0, :n].mean(0), msg=f"{kind} {name}")


def test_tokens_lie_as_far_apart_as_the_rate_says():
    assert drawn().positions.tolist() == [[0, 1.5, 3, 4.5]] * 3
    assert not Latent(torch.ones(2, 3, 4), torch.ones(2, 3, 4), torch.tensor([3, 3])).positions.any()


def test_rows_may_repeat_and_are_of_no_source():
    latent = drawn().with_source(ids=torch.ones(3, 2, dtype=torch.long))
    rows = latent.rows(torch.tensor([2, 0, 2]))
    assert torch.equal(rows.u, latent.u[[2, 0, 2]]) and torch.equal(rows.z, latent.z[[2, 0, 2]])
    assert rows.lengths.tolist() == [3, 4, 3] and rows.rate == 1.5
    assert latent.ids is not None and rows.ids is None and not rows.heard


def test_a_latent_remembers_what_it_was_made_from():
    model, batch = tiny_model().eval(), tiny_batch()
    made = {name: encode(slice(0, 2)) for name, encode in latents(model, batch)}
    assert torch.equal(made["text"].ids, batch.ids[:2]) and not made["text"].heard
    assert made["speech"].heard and made["speech"].ids is None
    assert made["image"].ids is None and not made["image"].heard
