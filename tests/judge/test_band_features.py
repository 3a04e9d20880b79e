"""Mixture and target compared band by band, where the answer is known."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F_

from judge.features import band_features, band_weights

BANDS, D, F = 8, 64, 12
WHOLE, PART, REST, KEPT, BOTH, MEAN, SPREAD = range(7)


def random(seed: int) -> torch.Tensor:
    return torch.randn(2, D, F, generator=torch.Generator().manual_seed(seed))


def by_kind(mixture: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """``[7, B, BANDS, F]``."""
    return band_features(mixture, target, BANDS).unflatten(1, (7, BANDS)).transpose(0, 1)


@pytest.mark.parametrize(("channels", "bands"), [(480, 40), (64, 8), (128, 10)])
def test_bands_share_out_all_channels(channels, bands):
    weights = band_weights(channels, bands)
    assert weights.shape == (bands, channels) and bool((weights.sum(0) > 0).all())
    torch.testing.assert_close(weights.sum(1), torch.ones(bands))
    middles = weights @ torch.arange(float(channels))
    widths = 1 / weights.square().sum(1)
    assert bool((middles.diff() > 0).all()) and widths[-1] > 3 * widths[0]


def test_a_share_of_the_mixture_is_seen_as_one():
    found = by_kind(random(0), 0.5 * random(0))
    torch.testing.assert_close(found[KEPT], torch.full_like(found[KEPT], math.log(0.25) / 2), rtol=0, atol=2e-3)
    torch.testing.assert_close(found[BOTH], torch.full_like(found[BOTH], math.log(0.5) / 2), rtol=0, atol=2e-3)
    torch.testing.assert_close(found[PART], found[REST], rtol=0, atol=1e-5)


def test_what_was_added_is_more_than_the_mixture():
    mixture, noise = random(0), random(1)
    added, masked = by_kind(mixture, mixture + noise), by_kind(mixture, mixture * (random(2) > 0))
    assert added[BOTH].mean() > 0.3 and abs(float(masked[BOTH].mean())) < 0.01


def test_a_mask_that_warbles_spreads():
    mixture = random(0)
    smooth, rough = by_kind(mixture, 0.5 * mixture), by_kind(mixture, mixture * (random(2) > 0))
    assert smooth[SPREAD].max() < 0.1 and rough[SPREAD].mean() > 0.5


def test_a_band_that_is_missing_is_told_from_the_others():
    target = random(0)
    target[:, 32:] = 0
    found = by_kind(random(0), target)
    assert found[KEPT][:, -1].max() < -4 and found[KEPT][:, :4].abs().max() < 1e-3
    assert found[PART][:, -1].max() < found[REST][:, -1].min() - 2


def test_the_level_does_not_matter():
    torch.testing.assert_close(band_features(1e-3 * random(0), 5e-4 * random(1), BANDS),
                               band_features(random(0), 0.5 * random(1), BANDS), rtol=1e-3, atol=1e-3)  # fmt: skip


def test_padding_changes_nothing():
    mixture, target = random(0)[:1], random(1)[:1]
    mask = torch.arange(F + 5)[None] < F
    padded = band_features(F_.pad(mixture, (0, 5)), F_.pad(target, (0, 5), value=3.0), BANDS, mask)
    alone = band_features(mixture, target, BANDS)
    torch.testing.assert_close(padded[..., :F], alone, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(padded[..., F:], alone[..., -1:].expand(-1, -1, 5), rtol=1e-5, atol=1e-5)
