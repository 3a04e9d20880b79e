"""The mask network: what it can never do wrong, and that every part of a query is felt."""

from __future__ import annotations

import pytest
import torch

from peav.latents import log_features
from samaudio.mask import ANYWHERE, INSIDE, OUTSIDE, FilmConv, MaskConfig, MaskSeparator, hints_of

CONFIG = MaskConfig(12, 8, width=16, dilations=(1, 2, 4, 1), attention_every=2, num_heads=2, hypotheses=3)


@pytest.fixture(autouse=True)
def _no_grad_and_seed():
    torch.manual_seed(0)
    with torch.no_grad():
        yield


@pytest.fixture
def separator() -> MaskSeparator:
    """As initialised, but with anchors that say something, as after the first step of training."""
    model = MaskSeparator(CONFIG).eval()
    torch.nn.init.normal_(model.anchors.weight)
    return model


@pytest.fixture
def latent() -> torch.Tensor:
    return torch.randn(2, 12, 20)


@pytest.fixture
def query() -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(2, 8), dim=-1)


def test_a_mask_of_ones_gives_the_mixture_and_one_of_zeros_silence(separator, latent, query):
    for number, mask in enumerate(separator.masks):
        mask.weight.zero_()
        mask.bias.fill_(50.0 if number else -50.0)
    out = separator(latent, query)
    for k in (1, 2):
        torch.testing.assert_close(out.target[:, k], latent)
    assert out.target[:, 0].abs().max() < 1e-6
    torch.testing.assert_close(out.residual[:, 0], latent)


def test_half_a_mask_gives_half_the_mixture(separator, latent, query):
    separator.masks[0].weight.zero_()
    separator.masks[0].bias.zero_()
    torch.testing.assert_close(separator(latent, query).target[:, 0], latent / 2)


def test_target_and_residual_add_up_to_the_latent(separator, latent, query):
    out = separator(latent, query)
    assert out.target.shape == (2, 3, 12, 20) and out.activity.shape == (2, 20)
    assert out.presence.shape == (2,) and out.confidence.shape == (2, 3)
    torch.testing.assert_close(out.target + out.residual, latent[:, None].expand_as(out.target))
    assert out.target.std() > 0.1 * latent.std() and out.residual.std() > 0.1 * latent.std()


def test_hypotheses_differ(separator, latent, query):
    target = separator(latent, query).target
    assert min(float((target[:, a] - target[:, b]).std()) for a, b in ((0, 1), (0, 2), (1, 2))) > 1e-2


def changes(one, other) -> dict[str, float]:
    return {name: float((getattr(one, name) - getattr(other, name)).abs().max())
            for name in ("target", "activity", "presence", "confidence")}  # fmt: skip


def test_the_query_is_felt_from_the_first_step(separator, latent, query):
    found = changes(separator(latent, query), separator(latent, query.flip(0)))
    assert min(found.values()) > 1e-2, found


def test_anchors_are_felt(separator, latent, query):
    marks = torch.full((2, 20), OUTSIDE)
    marks[:, 5:9] = INSIDE
    found = changes(separator(latent, query), separator(latent, query, marks))
    assert min(found.values()) > 1e-2, found
    moved = changes(separator(latent, query, marks.roll(6, 1)), separator(latent, query, marks))
    assert min(moved["target"], moved["activity"]) > 1e-2, moved


def test_no_anchors_mean_anywhere(separator, latent, query):
    everywhere = torch.full((2, 20), ANYWHERE)
    assert max(changes(separator(latent, query), separator(latent, query, everywhere)).values()) == 0


def test_before_training_anchors_say_nothing(latent, query):
    model = MaskSeparator(CONFIG).eval()
    marks = torch.randint(0, 3, (2, 20))
    assert max(changes(model(latent, query), model(latent, query, marks)).values()) == 0


def test_rows_of_nan_mean_that_nothing_was_named(separator, latent, query):
    mixed = query.clone()
    mixed[1] = torch.nan
    out, named, unnamed = separator(latent, mixed), separator(latent, query), separator(latent, None)
    torch.testing.assert_close(out.target[0], named.target[0])
    torch.testing.assert_close(out.target[1], unnamed.target[1])
    assert (named.target[1] - unnamed.target[1]).abs().max() > 1e-2


def test_rows_of_nan_leave_gradients_finite(separator, latent, query):
    query[1] = torch.nan
    with torch.enable_grad():
        out = separator(latent, query)
        (out.target.square().mean() + out.activity.mean() + out.presence.mean()).backward()
    used = {name: p.grad for name, p in separator.named_parameters() if p.grad is not None}
    assert all(bool(grad.isfinite().all()) for grad in used.values())
    assert float(used["no_query"].abs().max()) > 0


def test_items_do_not_depend_on_their_batch(separator, latent, query):
    together = separator(latent, query)
    for b in range(2):
        alone = separator(latent[b : b + 1], query[b : b + 1])
        torch.testing.assert_close(alone.target, together.target[b : b + 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gain", [0.01, 30.0])
def test_a_louder_mixture_is_split_in_the_same_way(separator, latent, query, gain):
    plain, louder = separator(latent, query), separator(gain * latent, query)
    torch.testing.assert_close(louder.target, gain * plain.target, rtol=1e-3, atol=1e-4 * gain)
    torch.testing.assert_close(louder.presence, plain.presence, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("frames", [1, 2, 33])
def test_any_number_of_frames(separator, frames):
    out = separator(torch.randn(1, 12, frames), None)
    assert out.target.shape[-1] == frames and bool(out.target.isfinite().all())


def test_silence_stays_silent(separator, query):
    out = separator(torch.zeros(2, 12, 6), query)
    assert out.target.abs().max() == 0 and bool(out.presence.isfinite().all())


def test_a_block_starts_close_to_its_input_when_the_query_says_nothing():
    block = FilmConv(8, dilation=2)
    block.out.weight.zero_()
    block.out.bias.zero_()
    x = torch.randn(1, 8, 9)
    torch.testing.assert_close(block(x, torch.zeros(1, 8)), x)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [({"width": 20, "num_heads": 4}, "width 20 must be a multiple of twice num_heads 4"),
     ({"hypotheses": 0}, "hypotheses 0 must be at least 1")],
    ids=["width", "hypotheses"],
)  # fmt: skip
def test_impossible_sizes_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        MaskConfig(12, 8, **sizes)


# --- hints: what the embedder hears ------------------------------------------------------------------


def test_hints_are_what_is_heard_and_what_of_it_agrees_with_the_query():
    frames = torch.tensor([[[0.6, 0.8], [1.0, 0.0], [0.0, -1.0]]])
    hints = hints_of(frames, torch.tensor([[0.0, 1.0]]))
    torch.testing.assert_close(hints[0, :2], frames[0].T * 2**0.5)
    torch.testing.assert_close(hints[0, 2:], torch.tensor([[0.0, 0.0, 0.0], [1.6, 0.0, -2.0]]))


def test_nothing_agrees_when_nothing_is_named():
    frames = torch.nn.functional.normalize(torch.randn(2, 5, 8), dim=-1)
    hints = hints_of(frames, torch.full((2, 8), torch.nan))
    assert hints[:, 8:].abs().max() == 0
    torch.testing.assert_close(hints[:, :8], hints_of(frames, frames[:, 0])[:, :8])


@pytest.fixture
def hinted() -> MaskSeparator:
    return MaskSeparator(MaskConfig(**{**vars(CONFIG), "hint_dim": 4})).eval()


def test_before_training_hints_say_nothing(hinted, latent, query):
    assert max(changes(hinted(latent, query), hinted(latent, query, hints=torch.randn(2, 8, 5))).values()) == 0


def test_hints_are_felt_where_they_are(hinted, latent, query):
    torch.nn.init.normal_(hinted.hints.weight)
    hints = torch.zeros(2, 8, 5)  # one to four frames
    hints[..., 1] = 3.0
    plain, out = hinted(latent, query), hinted(latent, query, hints=hints)
    assert min(changes(plain, out).values()) > 1e-3
    moved = (out.target - plain.target).abs().amax((0, 1, 2))
    assert moved[4:8].mean() > 2 * moved[16:].mean()


def test_a_separator_without_hints_refuses_them(separator, latent, query):
    with pytest.raises(ValueError, match="takes no hints"):
        separator(latent, query, hints=torch.zeros(2, 8, 5))


# --- what the network sees ------------------------------------------------------------------------


@pytest.mark.parametrize("gain", [1e-3, 1e3])
def test_features_do_not_depend_on_the_level(latent, gain):
    torch.testing.assert_close(log_features(gain * latent), log_features(latent), rtol=1e-3, atol=1e-3)


def test_features_of_a_constant_latent():
    # Its power is the mean power everywhere: log(1 + 1e-5) / 3 + 1.5
    assert log_features(torch.full((1, 4, 5), -7.0)).sub(1.5).abs().max() < 1e-5


def test_the_second_half_of_the_features_is_averaged_over_three_frames():
    latent = torch.zeros(1, 1, 5)
    latent[..., 2] = 1.0
    plain, smooth = ((log_features(latent)[0] - 1.5) * 3).exp() - 1e-5  # power relative to the mean of 1 / 5
    torch.testing.assert_close(plain, torch.tensor([0.0, 0, 5, 0, 0]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(smooth, torch.tensor([0.0, 5 / 3, 5 / 3, 5 / 3, 0]), atol=1e-4, rtol=1e-4)


def test_features_of_silence_are_finite():
    assert bool(log_features(torch.zeros(1, 3, 4)).isfinite().all())


# --- sight: what was pointed at ----------------------------------------------------------------------


@pytest.fixture
def sighted() -> MaskSeparator:
    made = MaskSeparator(MaskConfig(**{**vars(CONFIG), "hint_dim": 4, "sight": True})).eval()
    torch.nn.init.normal_(made.hints.weight)
    made.look_like_words()
    return made


def test_looks_are_read_as_words_at_first(sighted, latent, query):
    hints = torch.randn(2, 8, 5)
    named, seen = sighted(latent, query, hints=hints), sighted(latent, None, seen=(query, hints))
    assert max(changes(named, seen).values()) < 1e-6
    both = sighted(latent, query, hints=hints, seen=(query, hints))
    assert max(changes(named, both).values()) < 1e-5


def test_looks_have_weights_of_their_own(sighted, latent, query):
    hints = torch.randn(2, 8, 5)
    named, seen = sighted(latent, query, hints=hints), sighted(latent, None, seen=(query, hints))
    with torch.no_grad():
        for part in (sighted.seen_query, sighted.seen_hints):
            for parameter in part.parameters():
                parameter.add_(0.1)
    assert max(changes(named, sighted(latent, query, hints=hints)).values()) == 0
    assert min(changes(seen, sighted(latent, None, seen=(query, hints))).values()) > 1e-4


def test_a_query_may_change_with_time():
    frames = torch.nn.functional.normalize(torch.randn(2, 5, 4), dim=-1)
    named = torch.nn.functional.normalize(torch.randn(2, 5, 4), dim=-1)
    hints = hints_of(frames, named)
    for i in range(5):
        torch.testing.assert_close(hints[..., i], hints_of(frames, named[:, i])[..., i])


def test_a_separator_without_sight_refuses_looks(hinted, latent, query):
    with pytest.raises(ValueError, match="without sight"):
        hinted(latent, None, seen=(query, torch.zeros(2, 8, 5)))
    with pytest.raises(ValueError, match="hint_dim"):
        MaskConfig(**{**vars(CONFIG), "sight": True}) and MaskSeparator(MaskConfig(**{**vars(CONFIG), "sight": True}))


# --- what else is heard, and a closer look ---------------------------------------------------------------


@pytest.fixture
def knowing() -> MaskSeparator:
    return MaskSeparator(MaskConfig(**{**vars(CONFIG), "hint_dim": 4, "rest": 5})).eval()


def rest() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.nn.functional.normalize(torch.randn(2, 8), dim=-1), torch.randn(2, 4, 5)


def test_before_training_the_rest_says_nothing(knowing, latent, query):
    assert max(changes(knowing(latent, query), knowing(latent, query, rest=rest())).values()) == 0


def test_the_rest_is_felt_where_it_is_known(knowing, latent, query):
    torch.nn.init.normal_(knowing.rest_query[2].weight)
    torch.nn.init.normal_(knowing.rest_hints.weight)
    clip, agreement = rest()
    clip[1] = torch.nan  # as at a first look
    plain, out = knowing(latent, query), knowing(latent, query, rest=(clip, agreement))
    assert float((plain.target - out.target)[0].abs().max()) > 1e-3
    assert float((plain.target - out.target)[1].abs().max()) == 0
    # Both halves count: which sound it is, and when it is heard.
    assert min(changes(out, knowing(latent, query, rest=(clip, agreement.flip(2)))).values()) > 1e-4
    assert min(changes(out, knowing(latent, query, rest=(-clip, agreement))).values()) > 1e-4


def test_a_separator_without_names_is_told_nothing_of_the_rest(hinted, latent, query):
    with pytest.raises(ValueError, match="what else is heard"):
        hinted(latent, query, rest=rest())
    with pytest.raises(ValueError, match="hint_dim"):
        MaskConfig(**{**vars(CONFIG), "rest": 5})


DETAILED = MaskConfig(**{**vars(CONFIG), "detail": 8, "detail_group": 2, "detail_blocks": 2})


def test_a_closer_look_starts_as_none(separator, latent, query):
    closer = MaskSeparator(DETAILED).eval()
    missing, odd = closer.load_state_dict(separator.state_dict(), strict=False)
    assert not odd and all(name.startswith("detail.") for name in missing)
    assert max(changes(separator(latent, query), closer(latent, query)).values()) == 0


def test_a_closer_look_compares_neighbours(latent, query):
    detail = MaskSeparator(DETAILED).eval().detail
    torch.nn.init.normal_(detail.leave.weight)
    features, coarse, x = torch.randn(1, 24, 20), torch.zeros(1, 24, 20), torch.zeros(1, 16, 20)
    q = torch.randn(1, 16)
    # Group norms look at everything, so what is only theirs is taken away: with them off, what is left is local.
    for module in detail.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.forward = lambda y: y
    before = detail(features, coarse, x, q)
    features[0, 5, 10] += 1.0  # channel 5 is in band 2 of 6
    moved = (detail(features, coarse, x, q) - before)[0].abs().amax(0).view(2, 6, 2, 20).amax((0, 2)) > 1e-6
    # Blocks of dilation 1 and 2: up to three bands and three frames away.
    assert moved[:, 7:14].any(1).tolist() == [True] * 6
    assert not moved[:, :7].any() and not moved[:, 14:].any()
    assert moved[2, 10] and moved[1, 10] and moved[2, 9]


def test_logits_of_a_closer_look_reach_their_own_channels(latent, query):
    """Grouping channels into bands and back is the identity."""
    detail = MaskSeparator(DETAILED).eval().detail
    x = torch.arange(24 * 3, dtype=torch.float32).view(1, 24, 3)
    picture = detail._picture(x)  # [1, 2 * group, bands, F]
    back = picture.view(1, 1, 2, 2, 6, 3).transpose(3, 4).reshape(1, 1, 24, 3)
    assert back[0].equal(x)


def test_bands_must_fit():
    with pytest.raises(ValueError, match="detail_group 5 must divide latent_dim 12"):
        MaskConfig(**{**vars(CONFIG), "detail": 8, "detail_group": 5})
