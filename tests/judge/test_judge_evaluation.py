"""Figures with known answers, and the report."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from judge import checkpoints, collection, evaluate, sweeps
from judge.collection import Collection
from judge.figures import Table, auroc, figures, gains, right_prompt, spearman
from judge.grid import Grid
from judge.model import JudgeConfig, JudgeModel
from judge.scenes import Recipe, Scenes, settings_of
from peav.codec import DACVAE, CodecConfig, lapped_init_
from peav.transformer import TransformerConfig

RATE = 8_000


def test_rank_correlation():
    a = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert spearman(a, np.exp(a)) == pytest.approx(1) and spearman(a, -(a**3)) == pytest.approx(-1)
    # By hand: ranks 1 2 3 4 5 against 2 1 4 3 5, six times the squared differences over n (n^2 - 1).
    assert spearman(a, np.array([2.0, 1.0, 4.0, 3.0, 5.0])) == pytest.approx(1 - 6 * 4 / 120)
    assert spearman(np.array([1.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0])) == pytest.approx(math.sqrt(3) / 2)
    assert math.isnan(spearman(a, np.ones(5))) and math.isnan(spearman(a[:2], a[:2]))


def test_auroc():
    assert auroc(np.array([3.0, 2.0]), np.array([1.0, 2.5])) == pytest.approx(0.75)
    assert math.isnan(auroc(np.array([]), np.array([1.0])))


def make_table(told: list[float], si_sdr: list[float]) -> Table:
    """One mixture, two questions (the second about an absent sound), candidates for the first."""
    M = len(told)
    scores = np.full((1, 2, M, 4), 2.0)
    scores[0, 0, :, 0] = told
    true = np.full((1, 2, M, 4), 1.0)
    true[0, 0] = np.array(si_sdr)[:, None] / 5
    ratio = np.full((1, 2, M), np.nan)
    ratio[0, 0] = si_sdr
    return Table(scores, true, ratio, np.zeros((1, M), int), np.ones((1, M), bool), np.array([[True, False]]),
                 np.array([[3.0, -3.0]]))  # fmt: skip


def test_choosing_gains_over_the_mean():
    found = gains(t := make_table([4.0, 1.0, 2.0, 3.0], [10.0, 0.0, 5.0, 15.0]), t.told[..., 0])
    assert found == {"gain": 2.5, "oracle_gain": 7.5, "gain_share": pytest.approx(1 / 3), "questions": 1}
    silent = gains(t := make_table([4.0, 1.0], [10.0, -80.0]), t.told[..., 0])
    assert silent["oracle_gain"] == 20  # silence counts as -30 dB
    t.candidate[:] = False
    assert math.isnan(gains(t, t.told[..., 0])["gain_share"])


def test_the_right_prompt_counts_where_it_is_deserved():
    other, absent = right_prompt(make_table([4.0, 1.0, 2.5, 3.0], [10.0, 20.0, 15.0, 5.0]))
    assert other == [] and absent == [True, False, True]  # the last deserves no more than a wrong prompt
    found = figures(make_table([1.0, 2.0, 3.0, 4.0], [1.0, 5.0, 7.0, 20.0]))
    assert found["spearman_si_sdr"] == pytest.approx(1) and found["presence_auroc"] == 1
    assert math.isnan(found["right_prompt_other"]) and found["error_overall"] == pytest.approx(0.85)


@pytest.fixture(scope="module")
def known(store, tmp_path_factory) -> Collection:
    folder = tmp_path_factory.mktemp("known") / "known"
    scenes = Scenes(store, Recipe(seconds=0.5, sources=(0.0, 1.0), outputs=4), seed=1)
    collection.write(folder, settings_of(scenes) | {"split": "valid"}, scenes.__getitem__, 4)
    return Collection(folder)


class Knowing(nn.Module):
    """Its latents are the waveforms, so that a fake grid can look at them."""

    device = torch.device("cpu")

    def latents(self, waveform):
        return waveform

    def text_vectors(self, texts):
        return torch.zeros(len(texts), 1)


@pytest.mark.parametrize("sense", [1.0, -1.0], ids=["right", "upside_down"])
@pytest.mark.parametrize("sweep", sweeps.SWEEPS, ids=lambda sweep: sweep.name)
def test_a_sweep_tells_right_from_wrong(known, monkeypatch, sweep, sense):
    """A judge that knows the stems falls along every sweep, and its opposite does not."""
    from judge.targets import measure

    stems = {round(float(known[i].example.mixture.square().sum()), 4): known[i].example.stems[0] for i in range(4)}

    def knowing(model, mixture, outputs, text):
        stem = stems[round(float(mixture.square().sum()), 4)]
        scores = measure(outputs[0, :, 0], stem, mixture[0, 0], RATE).scores
        return Grid(3 + sense * (scores - 3)[None, None], None, None)

    monkeypatch.setattr(sweeps, "judge_grid", knowing)
    curve = sweeps.run(Knowing(), known, sweep, 4)
    which = ("overall", "recall", "precision", "faithfulness").index(sweep.score)
    assert curve.true.shape == curve.told.shape == (len(sweep.levels), 4)
    assert np.diff(curve.true[:, which]).max() < 0.05 and curve.true[0, which] > curve.true[-1, which] + 1
    assert curve.steps == (1.0 if sense > 0 else 0.0) and not (sense < 0 and curve.falls)


def test_a_report_is_written(known, tmp_path, capsys):
    sizes = CodecConfig(
        sample_rate=RATE, stem_kernel=320, stem_stride=160, encoder_dim=160, encoder_rates=(), latent_dim=160,
        codebook_dim=160, decoder_dim=160, decoder_rates=(), final_tanh=False)  # fmt: skip
    codec = lapped_init_(DACVAE(sizes))
    tower = TransformerConfig(32, 1, 2, 64)
    model = JudgeModel(JudgeConfig(sizes, tower, tower, bottleneck_dim=16, log_input=True, presence=True))
    model.use_codec(codec)
    checkpoints.save(model, tmp_path / "model")
    codec.save_pretrained(tmp_path / "model" / "codec", torch.float16)
    model.use_codec(DACVAE.from_pretrained(tmp_path / "model" / "codec"))
    checkpoints.save(model, tmp_path / "model")
    evaluate.main(["--model", str(tmp_path / "model"), "--known", str(known.folder), "--separations", str(known.folder),
                   "--stems", "2", "--out", str(tmp_path / "out")])  # fmt: skip
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"judge.json", "judge.md", "judge.png"}
    result = json.loads((tmp_path / "out/judge.json").read_text())
    assert -1 <= result["figures"]["known"]["spearman_si_sdr"] <= 1
    assert [s["name"] for s in result["sweeps"]] == [s.name for s in sweeps.SWEEPS]
    page = (tmp_path / "out/judge.md").read_text()
    assert "| Spearman: overall with true SI-SDR |" in page and "| leakage | precision |" in page and "nan" not in page
    assert "leakage: precision" in capsys.readouterr().out
