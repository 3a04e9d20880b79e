"""Faults of known strength have that strength, and scenes hold what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from judge import degrade
from judge.scenes import FAULTS, QUESTIONS, Recipe, Scenes, settings_of

RATE = 8_000


def tone(hz: float, seconds: float = 1.0) -> Tensor:
    return 0.4 * torch.sin(2 * math.pi * hz * torch.arange(round(seconds * RATE)) / RATE)


def noise(seed: int, seconds: float = 1.0) -> Tensor:
    return 0.1 * torch.randn(round(seconds * RATE), generator=torch.Generator().manual_seed(seed))


def power(x: Tensor) -> float:
    return float(x.square().mean())


def db(a: Tensor, b: Tensor) -> float:
    return 10 * math.log10(power(a) / power(b))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("level", [-20.0, 0.0, 6.0])
def test_a_leak_is_the_rest_at_its_level(level):
    s, n = tone(300), noise(0)
    assert db(degrade.leak(s, n, level) - s, n) == pytest.approx(level, abs=0.01)


def test_suppression_takes_off_what_it_says():
    assert db(degrade.suppress(tone(300), 12), tone(300)) == pytest.approx(-12, abs=0.01)


def test_a_stretch_is_quiet_inside_and_untouched_outside():
    x = noise(0)
    y = degrade.suppress_stretch(x, 0.3, 0.4, 20, RATE)
    ramp = round(0.02 * RATE)
    inside, before, after = slice(2_400 + ramp, 5_600 - ramp), slice(0, 2_400 - ramp), slice(5_600 + ramp, None)
    assert db(y[inside], x[inside]) == pytest.approx(-20, abs=0.01)
    assert torch.equal(y[before], x[before]) and torch.equal(y[after], x[after])
    # no click: nowhere does the gain jump by more than its ramp
    assert float((y / x.where(x.abs() > 1e-3, torch.ones(()))).diff().abs()[x[1:].abs() > 1e-3].median()) < 0.02


@pytest.mark.parametrize(("hz", "left"), [(200, 0.0), (1_000, -40.0), (3_000, 0.0)], ids=["below", "inside", "above"])
def test_a_band_takes_its_tones(hz, left):
    assert db(degrade.suppress_band(tone(hz), 500, 2_000, 40, RATE), tone(hz)) == pytest.approx(left, abs=0.5)


def test_the_equaliser_stays_within_its_depth():
    for seed in range(5):
        for hz in (100, 900, 3_500):
            assert abs(db(degrade.equalise(tone(hz), rng(seed), 6, RATE), tone(hz))) <= 6.1
    assert not torch.equal(degrade.equalise(noise(0), rng(0), 6, RATE), degrade.equalise(noise(0), rng(1), 6, RATE))


class Identity:
    """A codec whose latent is the waveform in frames of eight samples."""

    def latents(self, waveform: Tensor) -> Tensor:
        return waveform[:, 0].unflatten(1, (-1, 8)).transpose(1, 2)

    def decode(self, latent: Tensor, length: int | None = None) -> Tensor:
        return latent.transpose(1, 2).flatten(1)[:, None, :length]


@pytest.mark.parametrize("snr", [0.0, 15.0])
def test_codec_noise_lies_below_the_signal_and_follows_it(snr):
    x = noise(0) * (torch.arange(RATE) < RATE // 2)
    error = degrade.codec_noise(x, Identity(), rng(), snr) - x
    assert db(error, x) == pytest.approx(-snr, abs=0.7)
    assert power(error[RATE // 2 + 64 :]) == 0  # silence stays silent


@pytest.mark.parametrize("share", [0.1, 0.6])
def test_musical_noise_hits_its_share_of_the_bins(share):
    spectrum = degrade._stft(degrade.musical_noise(noise(0, 3.0), rng(), share, 80, 256), 256)
    clean = degrade._stft(noise(0, 3.0), 256)
    assert float(spectrum.abs().square().sum() / clean.abs().square().sum()) < 1 - 0.7 * share
    assert torch.equal(degrade.musical_noise(noise(0), rng(3), share, 80, 256),
                       degrade.musical_noise(noise(0), rng(3), share, 80, 256))  # fmt: skip


def test_gaps_are_as_many_as_asked():
    x = torch.ones(4 * RATE)
    y = degrade.gaps(x, rng(1), 3, 0.1, RATE)
    assert int(((y < 0.5).int().diff() == 1).sum()) == 3
    assert float((y < 0.5).float().mean()) == pytest.approx(0.3 / 4, abs=0.005)


def test_clipping_and_noise():
    assert float(degrade.clip(tone(300), 6).abs().max()) == pytest.approx(0.4 * 10 ** (-6 / 20), rel=1e-3)
    assert db(degrade.noise(tone(300), rng(), 10) - tone(300), tone(300)) == pytest.approx(-10, abs=0.3)


def test_a_mask_without_error_separates_and_errs_the_more_the_worse():
    s, n = tone(300) + tone(800), noise(0)
    quality = [db(s, degrade.wrong_mask(s, n, rng(), error, 0.0, 512, (8, 4)) - s) for error in (0.0, 4.0, 12.0)]
    assert quality[0] > db(s, n) + 8 and quality[0] > quality[1] > quality[2]


def test_a_generous_mask_lets_more_through():
    s, n = tone(300), noise(0)
    strict, generous = (degrade.wrong_mask(s, n, rng(), 0.0, bias, 512) for bias in (-4.0, 4.0))
    assert power(generous) > power(strict)
    assert db(s, generous - s) < db(s, n) + 20


# --- scenes ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scenes(store):
    return Scenes(store, Recipe(seconds=0.5), seed=3)


def test_a_scene_depends_on_its_number_alone(store, scenes):
    one, again, other = scenes[4], Scenes(store, Recipe(seconds=0.5), seed=3)[4], scenes[5]
    assert torch.equal(one.outputs, again.outputs) and one.kinds == again.kinds and one.questions == again.questions
    assert one.outputs.shape != other.outputs.shape or not torch.equal(one.outputs, other.outputs)


@pytest.mark.parametrize("fault", FAULTS)
def test_scenes_of_one_fault_hold_nothing_else_but_the_mixture(store, fault):
    for i in range(4):
        scene = Scenes(store, Recipe(seconds=0.5, fault=fault), seed=3)[i]
        assert scene.outputs.shape == (8, 4_000) and scene.kinds[0] == "mixture" and scene.of[0] == -1
        assert torch.equal(scene.outputs[0], scene.mixture)
        assert all(kind.startswith(f"sweep {fault} ") for kind in scene.kinds[1:])
        assert set(scene.of[1:]) <= {q for q in range(QUESTIONS) if scene.questions[q].present}


def test_faults_are_those_that_scenes_can_make(store):
    assert tuple(Scenes(store, Recipe(seconds=0.5), seed=3)._sweeps()) == FAULTS
    with pytest.raises(ValueError, match="fault='hum' is none of leak, suppress"):
        Recipe(fault="hum")
    assert "fault" not in settings_of(Scenes(store, Recipe(seconds=0.5), seed=3))


def test_a_leak_of_one_fault_holds_the_rest_at_its_level(store):
    scene = Scenes(store, Recipe(seconds=0.5, sources=(0.0, 1.0), fault="leak"), seed=3)[1]
    for output, kind, of in zip(scene.outputs[1:], scene.kinds[1:], scene.of[1:], strict=True):
        stem = scene.stems[of]
        wanted = degrade.leak(stem, scene.mixture - stem, 50 * float(kind.split()[-1]) - 40)
        torch.testing.assert_close(output, wanted, rtol=0.1, atol=1e-3)


def test_scenes_hold_what_they_say(scenes):
    seen = set()
    for i in range(30):
        scene = scenes[i]
        assert scene.outputs.shape == (8, 4_000) and scene.stems.shape == (QUESTIONS, 4_000)
        assert bool(scene.outputs.isfinite().all()) and len(scene.kinds) == len(scene.of) == 8
        assert [q.present for q in scene.questions] == [bool(s.abs().max() > 0) for s in scene.stems]
        assert not scene.questions[-1].present  # one question in every scene is about what is not there
        labels = [q.label for q in scene.questions]
        assert labels[-1] not in labels[:-1] and float(scene.mixture.abs().max()) <= 0.91
        assert all(-1 <= q < 2 and (q < 0 or scene.questions[q].present) for q in scene.of)
        seen |= {kind.split(" ")[0].strip(",") for kind in scene.kinds}
    assert {"mask", "stem", "sweep", "mixture", "silence", "the"} <= seen


def test_steps_of_a_sweep_go_one_way(scenes):
    for i in range(40):
        scene = scenes[i]
        steps = [m for m, kind in enumerate(scene.kinds) if kind.startswith("sweep")]
        if steps:
            levels = [float(scene.kinds[m].split()[-1]) for m in steps]
            assert len(steps) == 3 and levels == sorted(levels) and len({scene.of[m] for m in steps}) == 1
            errors = [power(scene.outputs[m] - scene.stems[scene.of[m]]) for m in steps]
            assert errors[0] <= errors[-1] + 1e-9
