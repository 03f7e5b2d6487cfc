"""What the published classifier of a frozen image encoder takes a picture for, as tokens beside the picture's grid."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipmodal.features import kinds
from skipmodal.image import FEATURE_WIDTH as WIDTH
from skipmodal.models.latent import Suggested
from skipmodal.text import PAD
from skipmodal.tokenizer import Tokenizer


class KindTokens(nn.Module):
    """The likeliest words of a picture: the mean of its features -> classifier -> FC -> tanh -> a token each.

    A word has the probability of all its kinds. Its token is made of the classifier's rows of these kinds, so that
    words that no caption of the training data has lie beside others that are alike.
    """

    members: Tensor  # (1000, W): which words a kind has
    numbers: Tensor  # (W, 2): the token of each word and of its plural, PAD where that is the same

    def __init__(self, count: int, embedding: int, tokenizer: Tokenizer) -> None:
        """`count` words a picture."""
        super().__init__()
        self.count = count
        self.classifier = nn.Linear(WIDTH, kinds.COUNT).requires_grad_(False)
        self.project = nn.Linear(WIDTH + 2, embedding)
        words = {word: number for number, word in enumerate(kinds.words())}
        places = [(kind, words[word]) for kind, of_one in enumerate(kinds.kinds()) for word in of_one]
        members = torch.zeros(kinds.COUNT, len(words), device="cpu")
        members[tuple(torch.tensor(places, device="cpu").T)] = 1.0
        numbers = [[tokenizer.number(form) for form in kinds.forms(word)] for word in words]
        self.register_buffer("members", members, persistent=False)
        self.register_buffer(
            "numbers", torch.tensor([[one, PAD if one == more else more] for one, more in numbers], device="cpu"), False
        )

    def forward(self, features: Tensor) -> tuple[Tensor, Suggested]:
        """features (B, N, width) -> tokens (B, count, embedding), and the words that they stand for."""
        p = self.classifier(features.mean(1)).softmax(1)
        likely, which = (p @ self.members).topk(self.count)
        rows = F.normalize(self.classifier.weight)
        share = p[:, None] * self.members.T[which] / likely[:, :, None].clamp(min=1e-9)  # (B, count, 1000)
        sure = torch.stack([likely.clamp(min=1e-6).log(), likely], 2)
        tokens = torch.tanh(self.project(torch.cat([share @ rows, sure], 2)))
        return tokens, Suggested(self.numbers[which], likely)
