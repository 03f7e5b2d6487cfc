"""One training step as one module: the model's pass and its losses, so that several processes can share it."""

from torch import Tensor, nn

from skipmodal.audio import AudioConfig
from skipmodal.config import Losses
from skipmodal.data.batches import Batch
from skipmodal.models.base import System
from skipmodal.training.losses import compute_losses
from skipmodal.training.self_critical import SelfCritical


class TrainingStep(nn.Module):
    """A batch -> its losses by name. DistributedDataParallel wants all that has a gradient inside one forward pass."""

    def __init__(self, model: System, audio: AudioConfig, loss: Losses, critic: SelfCritical | None) -> None:
        super().__init__()
        self.model, self.audio, self.critic = model, audio, critic
        self.wanted = frozenset(loss.weights())

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Unweighted losses; `reward` beside them where captions are rewarded."""
        linear = batch.linear(self.audio) if len(batch.mel) and "linear" in self.wanted else None
        outputs = self.model(batch, self.wanted)
        losses = compute_losses(outputs, batch, linear, self.wanted)
        if self.critic is not None and outputs.image is not None:
            decoder, references = self.model.text_decoder, batch.references
            losses["self_critical"], losses["reward"] = self.critic(decoder, outputs.image, references)
        return losses
