"""An embedder and a network whose answers are known, and small networks with random weights."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from judge.model import JudgeConfig, JudgeModel, JudgeOutput
from peav.codec import CodecConfig
from peav.transformer import TransformerConfig

RATE = 8_000
TOKEN = 320  # samples


class Ears(nn.Module):
    """Embeds a clip as its amounts below and above 1 kHz, and the words "low" and "high" as the two axes."""

    sample_rate = RATE
    modalities = frozenset({"audio", "text"})
    device = torch.device("cpu")

    def embed(self, *, text=None, audio=None, video=None) -> Tensor:
        if text is not None:
            return torch.stack([torch.eye(3)[{"low": 0, "high": 1}.get(words.lower(), 2)] for words in text])
        if video is not None:  # the redder, the lower
            red, _, blue = video[0].float().mean((0, 2, 3))
            return nn.functional.normalize(torch.stack([red, blue, 0 * red]), dim=0)[None]
        bands = []
        for clip in audio:
            power = torch.fft.rfft(clip).abs().square()
            edge = round(1_000 * len(clip) / RATE)
            bands.append(torch.stack([power[:edge].sum(), power[edge:].sum(), torch.tensor(0.0)]).sqrt())
        return nn.functional.normalize(torch.stack(bands), dim=-1)


class Eyes(Ears):
    modalities = frozenset({"audio", "text", "video"})


class Network(nn.Module):
    """Overall is 5 times the target's level over the mixture's, recall its sample count over 10000, precision the
    first number of the text vector, faithfulness 3; present where the mixture peaks above 0.5."""

    sample_rate = RATE
    frame_seconds = TOKEN / RATE
    device = torch.device("cpu")

    def __init__(self, window_seconds: float = 10.0, presence: bool = True) -> None:
        super().__init__()
        self.config = SimpleNamespace(window_seconds=window_seconds, token_samples=TOKEN, presence=presence)
        self.heard: list[list[int]] = []  # lengths, by batch

    def text_vectors(self, texts) -> Tensor:
        return torch.tensor([[{"low": 1.0, "high": 2.0}.get(words, 4.0)] for words in texts])

    def judge(self, mixtures, targets, text) -> list[JudgeOutput]:
        self.heard.append([len(mixture) for mixture in mixtures])
        found = []
        for mixture, target, words in zip(mixtures, targets, text, strict=True):
            assert len(mixture) == len(target)
            level = 5 * float(target.square().mean().sqrt() / mixture.square().mean().sqrt())
            row = torch.tensor([level, len(target) / 10_000, float(words[0]), 3.0])
            frames = row.repeat(1, math.ceil(len(target) / TOKEN), 1)
            present = torch.tensor([20.0 if float(mixture.abs().max()) > 0.5 else -20.0])
            found.append(JudgeOutput(row[None], frames, present if self.config.presence else None))
        return found


def tone(hz: float, seconds: float = 1.0, rate: int = RATE) -> Tensor:
    return 0.4 * torch.sin(2 * math.pi * hz * torch.arange(round(seconds * rate)) / rate)


# A judge in the published layout, and the reference's numbers.
FIXTURE = Path(__file__).parent.parent / "fixtures" / "judge"

CODEC = CodecConfig(
    sample_rate=8_000, stem_kernel=320, stem_stride=160, encoder_dim=16, encoder_rates=(), latent_dim=16,
    codebook_dim=16, decoder_dim=16, decoder_rates=(), final_tanh=False,
)  # fmt: skip
TOWER = TransformerConfig(hidden_size=16, num_layers=1, num_heads=2, intermediate_size=24)


def small(**changes) -> JudgeModel:
    torch.manual_seed(0)
    settings = {"bottleneck_dim": 12, "token_frames": 2, "log_input": True, "residual": True, "presence": True}
    return JudgeModel(JudgeConfig(CODEC, TOWER, TOWER, **(settings | changes))).eval()


def words(model: JudgeModel, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, model.config.text_dim, generator=generator)
