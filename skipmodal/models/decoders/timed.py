"""D_spch of tokens, which gives each character of a sentence its time."""

import torch
from torch import Tensor, nn

from skipmodal.audio import AudioConfig
from skipmodal.config import TokensModel
from skipmodal.models.alignment import Aligner, Timing, align, spread
from skipmodal.models.decoders.refiner import Refiner
from skipmodal.models.decoders.speech import Imitation, Part, PostNet, Speech, Transcript, cut
from skipmodal.models.layers import BiGRU, length_mask
from skipmodal.text import PAD, SYMBOLS

MAX_LOG_DURATION = 5.0  # of one character, in frames: a pause of two seconds
PROSODY = 4  # numbers a character, as in AdaSpeech
TEMPO = 0.1  # deviation of the logarithm of how fast a sentence is said that is to be learned from
LONGEST_FRAMES = 1000  # of such a sentence


class Prosody(nn.Module):
    """What a recording says of each character beyond its letter: mel -> convolutions -> the mean over its frames -> FC
    -> tanh.
    """

    def __init__(self, n_mels: int, width: int) -> None:
        super().__init__()
        first, second = nn.Conv1d(n_mels, width, 3, padding=1), nn.Conv1d(width, width, 1)
        self.convs = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())
        self.project = nn.Linear(width, PROSODY)

    def forward(self, mel: Tensor, lengths: Tensor, durations: Tensor) -> Tensor:
        """mel (B, T, n_mels), lengths (B,), durations in frames (B, L) -> (B, L, PROSODY)."""
        x = self.convs((mel * length_mask(lengths, mel.shape[1])[:, :, None]).transpose(1, 2)).transpose(1, 2)
        weights, _ = spread(durations, 1, mel.shape[1])
        means = weights.transpose(1, 2) @ x / durations.clamp(min=1)[:, :, None]
        return torch.tanh(self.project(means))


class TimedSpeechDecoder(nn.Module):
    """What the text decoder knows -> bidirectional GRU -> each character for as long as it lasts -> 2 x bidirectional
    GRU -> r frames of mel a step -> refiner, where there is one -> CBHG post-net -> linear magnitudes.

    Nothing that it made is fed back: durations are learned from alignments (see `alignment`), and with them where each
    frame lies is known before any is made. How each character sounds beyond its letter, its pitch above all, is told by
    a few numbers: of the recording in training, predicted in synthesis (Chen et al., AdaSpeech, ICLR 2021). Without
    them the decoder would average over all pitches.
    """

    def __init__(self, config: TokensModel, audio: AudioConfig) -> None:
        super().__init__()
        n_mels = audio.n_mels
        self.n_mels, self.r, self.width = n_mels, config.frames_per_step, config.speech_decoder
        self.state_dropout = config.dropout
        self.embed = nn.Embedding(len(SYMBOLS), config.text_channels, padding_idx=PAD)
        self.reader = BiGRU(config.text_decoder + config.text_channels, self.width // 2)
        read = self.width // 2 * 2
        self.aligner = Aligner(n_mels, config.text_channels)
        self.duration = nn.Sequential(nn.Linear(read, self.width), nn.ReLU(), nn.Linear(self.width, 1))
        self.place = nn.Linear(2, read)
        self.prosody = Prosody(n_mels, config.text_channels)
        self.prosody_predictor = nn.Sequential(nn.Linear(read, self.width), nn.ReLU(), nn.Linear(self.width, PROSODY))
        self.prosody_project = nn.Linear(PROSODY, read)
        self.rnns = nn.ModuleList(BiGRU(width, self.width) for width in (read, 2 * self.width))
        self.dropout = nn.Dropout(config.speech_dropout)
        self.output = nn.Linear(2 * self.width, self.r * n_mels)
        self.refiner = Refiner(config.refiner, n_mels) if config.refiner else None
        self.postnet = PostNet(config, audio, envelope=True)

    def forward(
        self, transcript: Transcript, mel: Tensor, lengths: Tensor, part: Part | None = None, flow: bool = True
    ) -> Speech:
        """With the durations of mel (B, T, n_mels), lengths (B,); linear of `part` alone: of mel itself, where a
        refiner will stand before the post-net. `flow`: whether the refiner is to learn.
        """
        predicted, alignment, timing = self._follow(transcript, mel, lengths)
        shown, shown_lengths = cut(predicted, lengths, part)
        matching = None
        if self.refiner is not None:  # the post-net hears what it makes, which is more like recordings than like this
            recorded, _ = cut(mel, lengths, part)
            matching = self.refiner.match(shown.detach(), recorded, shown_lengths) if flow else None
            shown = recorded
        linear = self.postnet(shown, shown_lengths)
        return Speech(
            predicted, linear, lengths, -(-lengths // self.r), torch.zeros_like(lengths).bool(),
            alignment=alignment, timing=timing, matching=matching,
        )  # fmt: skip

    def imitate(self, transcript: Transcript, model: Transcript) -> Imitation:
        """Speaks a transcript in the rhythm in which it speaks the model, another of the same sentences."""
        with torch.no_grad():
            read, target = self._read(model)
            durations = self._durations(target, model.lengths)
            lengths = durations.sum(1).round().long().clamp(min=1)
            frames = int(lengths.max())
            mel, _ = self._decode(self._intoned(read), durations, lengths, frames)
        read, predicted = self._read(transcript)
        spoken, _ = self._decode(self._intoned(read), durations, lengths, frames)
        return Imitation(spoken, mel, lengths, predicted, target, model.lengths)

    def _durations(self, predicted: Tensor, lengths: Tensor) -> Tensor:
        return predicted.clamp(max=MAX_LOG_DURATION).exp() * length_mask(lengths, predicted.shape[1])

    @torch.no_grad()
    def generate(self, transcript: Transcript, max_frames: int) -> Speech:
        """With durations of its own, at most `max_frames` in sum."""
        mel, lengths, capped, alignment = self._speak(transcript, max_frames)
        return Speech(mel, self.postnet(mel, lengths), lengths, -(-lengths // self.r), capped, alignment=alignment)

    @torch.no_grad()
    def vary(self, transcript: Transcript) -> tuple[Tensor, Tensor]:
        """A spectrogram to learn from (B, T, n_mels), (B,): with a tempo and noise of its own each time."""
        tempo = TEMPO * torch.randn(len(transcript.ids), 1, device=transcript.ids.device)
        mel, lengths, _, _ = self._speak(transcript, LONGEST_FRAMES, tempo)
        return mel, lengths

    def _speak(self, transcript: Transcript, max_frames: int, tempo: Tensor | None = None) -> tuple[Tensor, ...]:
        """Mel (B, T, n_mels), its frames (B,), whether more than `max_frames` were wanted, alignment (B, steps, L)."""
        read, predicted = self._read(transcript)
        durations = self._durations(predicted if tempo is None else predicted + tempo, transcript.lengths)
        wanted = durations.sum(1).round().long()
        lengths = wanted.clamp(max=max_frames).clamp(min=1)
        mel, alignment = self._decode(self._intoned(read), durations, lengths, int(lengths.max()))
        if self.refiner is not None:
            mel = self.refiner.refine(mel, lengths, None if tempo is None else torch.randn_like(mel))
        return mel, lengths, wanted > max_frames, alignment

    def _follow(self, transcript: Transcript, mel: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Timing]:
        """Mel (B, T, n_mels) with the durations that mel has, and how it was aligned."""
        read, predicted = self._read(transcript)
        scores = self.aligner(transcript.ids, transcript.lengths, mel, lengths)
        durations = align(scores, transcript.lengths, lengths)
        heard = self.prosody(mel, lengths, durations)
        decoded, alignment = self._decode(read + self.prosody_project(heard), durations, lengths, mel.shape[1])
        prosody = (self.prosody_predictor(read), heard.detach())
        return decoded, alignment, Timing(predicted, durations, scores, transcript.lengths, prosody)

    def _intoned(self, read: Tensor) -> Tensor:
        """read (B, L, width) with the prosody that it predicts."""
        return read + self.prosody_project(self.prosody_predictor(read))  # type: ignore[no-any-return]

    def _read(self, transcript: Transcript) -> tuple[Tensor, Tensor]:
        """What sounds at each character (B, L, width), and the logarithm of its duration (B, L)."""
        states = transcript.states
        if self.training:
            # So that sound also follows from the characters alone: the states of a picture's sentence are new to it.
            keep = torch.rand(len(states), 1, 1, device=states.device) >= self.state_dropout
            states = states * keep
        read = self.reader(torch.cat([states, transcript.letters @ self.embed.weight], 2), transcript.lengths)
        return read, self.duration(read)[..., 0]

    def _decode(self, read: Tensor, durations: Tensor, lengths: Tensor, frames: int) -> tuple[Tensor, Tensor]:
        """Durations (B, L) in frames, lengths (B,) -> mel (B, frames, n_mels), alignment (B, steps, L)."""
        weights, place = spread(durations, self.r, -(-frames // self.r))
        x = weights @ read + self.place(place)
        for rnn in self.rnns:
            x = rnn(self.dropout(x), -(-lengths // self.r))
        return self.output(self.dropout(x)).view(len(x), -1, self.n_mels)[:, :frames], weights
