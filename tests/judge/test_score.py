"""Scores and rankings, with an embedder whose answers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn

import judge
from peav.errors import UserError

RATE = 8_000


class Ears(nn.Module):
    """Embeds a clip as its amounts below and above 1 kHz, and the words "low" and "high" as the two axes."""

    sample_rate, device = RATE, torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def embed(self, *, text=None, audio=None) -> Tensor:
        if text is not None:
            return torch.stack([torch.eye(3)[{"low": 0, "high": 1}.get(words.lower(), 2)] for words in text])
        bands = []
        for clip in audio:
            power = torch.fft.rfft(clip).abs().square()
            edge = round(1_000 * len(clip) / RATE)
            bands.append(torch.stack([power[:edge].sum(), power[edge:].sum(), torch.tensor(0.0)]).sqrt())
        return nn.functional.normalize(torch.stack(bands), dim=-1)


def tone(hz: float, seconds: float = 1.0) -> Tensor:
    return 0.4 * torch.sin(2 * math.pi * hz * torch.arange(round(seconds * RATE)) / RATE)


LOW, HIGH = tone(200), tone(3_000)
MIX = LOW + HIGH


@pytest.fixture
def ears() -> judge.Judge:
    return judge.Judge(Ears())


def test_similarity_is_the_cosine_of_target_and_prompt(ears):
    assert ears.score(MIX, LOW, " Low", sample_rate=RATE).similarity == pytest.approx(1.0, abs=1e-3)
    assert ears.score(MIX, LOW, "high", sample_rate=RATE).similarity == pytest.approx(0.0, abs=1e-2)
    assert ears.score(MIX, MIX, "high", sample_rate=RATE).similarity == pytest.approx(math.sqrt(0.5), abs=1e-2)


def test_what_is_not_measured_is_none(ears):
    score = ears.score(MIX, LOW, "low", sample_rate=RATE).to_dict()
    assert {name for name, value in score.items() if value is None} == {
        "overall", "recall", "precision", "faithfulness", "presence",
    }  # fmt: skip


def test_rank_puts_the_best_first_and_silence_last(ears):
    ranking = ears.rank(MIX, [0 * LOW, HIGH, LOW, MIX], "low", sample_rate=RATE)
    assert [index for index, _ in ranking] == [2, 3, 1, 0]
    assert math.isnan(ranking[-1][1].similarity)


def test_files_and_samples_score_alike(ears, tmp_path):
    for name, samples in {"mix": MIX, "low": LOW}.items():
        stereo = np.stack([samples, samples], 1)
        soundfile.write(tmp_path / f"{name}.wav", stereo, RATE, subtype="FLOAT")
    files = ears.score(tmp_path / "mix.wav", str(tmp_path / "low.wav"), "low").similarity
    assert files == pytest.approx(ears.score(MIX, LOW[None], "low", sample_rate=RATE).similarity, abs=1e-6)


def test_lengths_must_agree_within_what_encoders_pad(ears):
    ears.score(MIX, LOW[: -RATE // 5], "low", sample_rate=RATE)
    with pytest.raises(UserError, match=r"the mixture lasts 1\.00 s but the target 0\.50 s; give a target"):
        ears.score(MIX, LOW[: RATE // 2], "low", sample_rate=RATE)


@pytest.mark.parametrize(
    ("target", "prompt", "rate", "message"),
    [
        (LOW, " ", RATE, "prompt is empty"),
        (LOW, "low", None, "sample_rate"),
        (LOW * math.nan, "low", RATE, "not a number"),
        (LOW[:0], "low", RATE, r"shape \[0\]"),
        (LOW.view(1, 1, -1), "low", RATE, "shape"),
        ("none.wav", "low", RATE, "no such file"),
    ],
    ids=["prompt", "rate", "NaN", "empty", "shape", "file"],
)
def test_mistakes_are_named(ears, target, prompt, rate, message):
    with pytest.raises(UserError, match=message):
        ears.score(MIX, target, prompt, sample_rate=rate)


def test_ranking_nothing_is_refused(ears):
    with pytest.raises(UserError, match="no targets"):
        ears.rank(MIX, [], "low", sample_rate=RATE)
