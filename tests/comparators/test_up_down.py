"""Up-Down learns captions by heart, and its second LSTM reports back to its first."""

import torch

from tests.comparators.captions import OWNERS, batch_of, learns, untrained

BATCH = batch_of((49, 1280))


def test_it_learns_captions_by_heart():
    learns("up_down", 250, BATCH)


def test_attention_follows_what_was_said():
    system = untrained("up_down", BATCH)
    with torch.no_grad():
        latent = system.encode_image(BATCH.features)
        written = system.text_decoder(latent, BATCH.tokens, OWNERS)
        assert written.attention.shape == (4, 1, BATCH.tokens.shape[1], 49)
        other = BATCH.tokens.clone()
        other[:, 0] = other[:, 0].roll(1)
        again = system.text_decoder(latent, other, OWNERS)
        torch.testing.assert_close(again.attention[:, :, 0], written.attention[:, :, 0])  # before the first token
        assert (again.attention[:, :, 1] != written.attention[:, :, 1]).any()
        # From the same token on, the language LSTM's state alone tells the attention LSTM of another past.
        x, memory = system.text_decoder.embedded(BATCH.tokens[:3, :1])[:, 0], system.text_decoder.remember(latent)
        first = system.text_decoder.first(latent)
        _, plain, _ = system.text_decoder.step(x, memory, first)
        _, told, _ = system.text_decoder.step(x, memory, (*first[:2], first[2] + 1, first[3]))
        assert (plain != told).any()
