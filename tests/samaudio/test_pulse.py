"""What movement says of loudness, and how what is seen is put into words."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from seeing import seeing_model, sounding_film

from peav.errors import UserError
from samaudio.checkpoints import load_model, save_model
from samaudio.model import Query
from samaudio.prompts import Click
from samaudio.pulse import Pulse, PulseConfig, agreement, changes, envelope
from samaudio.sight import Sight
from samaudio.visual.geometry import geometry


def disc(sizes, size=(40, 60)) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames and masks of a disc of these radii."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    masks = np.stack([(rows - 20) ** 2 + (columns - 30) ** 2 <= r * r if r else np.zeros(size, bool) for r in sizes])
    frames = np.where(masks[:, None], 200, 90) * np.ones((1, 3, 1, 1))
    return torch.from_numpy(frames.astype(np.uint8)), torch.from_numpy(masks)


def test_changes_are_zero_where_nothing_moves_and_across_gaps():
    still = changes(geometry(*disc([8] * 6))[None])
    assert still.shape == (1, 6, 36) and float(still[..., :-1].abs().max()) < 1e-5
    lost = changes(geometry(*disc([8, 8, 0, 0, 5, 5]))[None])[0]
    assert not lost[2:4].any()
    assert not lost[4, 9:].any()  # it came back in another size, which is no movement
    grows = changes(geometry(*disc([5, 5, 9, 9]))[None])[0]
    assert float(grows[2, 9:18].abs().max()) > 0.5 and not grows[3, 9:18].any()


def test_agreement_is_the_correlation():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 20)), rng.normal(size=(4, 20))
    found = agreement(torch.from_numpy(a), torch.from_numpy(b))
    np.testing.assert_allclose(found, np.corrcoef(a, b)[:3, 3:], atol=1e-6)
    assert not agreement(torch.ones(1, 20), torch.from_numpy(b).float()).any()


def test_it_learns_that_an_object_grows_with_its_sound():
    rng = np.random.default_rng(0)
    loudness = torch.from_numpy(rng.random((32, 24)).astype(np.float32))
    ways = torch.stack([geometry(*disc((6 + 6 * row).tolist())) for row in loudness])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pulse = Pulse(PulseConfig(width=16, dilations=(1, 2), dropout=0.0))
        optimizer = torch.optim.Adam(pulse.parameters(), 1e-2)
        for _ in range(60):
            loss = -agreement(pulse(ways[:16]), loudness[:16]).diagonal().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    unseen = agreement(pulse.eval()(ways[16:]).detach(), loudness[16:])
    assert unseen.argmax(1).tolist() == list(range(16)) and float(unseen.diagonal().mean()) > 0.9


def test_a_model_keeps_its_pulse_and_watches_with_it(tmp_path):
    model = seeing_model()
    model.pulse = Pulse(PulseConfig(width=8, dilations=(1,))).eval()
    film = sounding_film(tmp_path / "film.mkv")
    seen = model.watch(film, (Click(25, 30, 0.3),))
    assert seen.pulse is not None and seen.pulse.shape == seen.times.shape
    save_model(model, tmp_path / "model")
    again = load_model(tmp_path / "model").watch(film, (Click(25, 30, 0.3),))
    torch.testing.assert_close(again.pulse, seen.pulse, atol=1e-2, rtol=1e-2)
    assert seeing_model().watch(film, (Click(25, 30, 0.3),)).pulse is None
    (tmp_path / "model" / "pulse" / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError, match="pulse"):
        load_model(tmp_path / "model")


def looking(model, clip: torch.Tensor, pulse: torch.Tensor | None = None) -> Query:
    """A query that shows an object and says nothing."""
    times = torch.arange(16) / 8.0
    sight = Sight(clip, times, clip.expand(16, -1), torch.ones(16, dtype=torch.bool), "test", None, pulse)
    return Query(torch.full((16,), torch.nan), None, sight)


@pytest.fixture
def naming(monkeypatch):
    """A model that knows three names, of which two look alike, and what it hears of each."""
    model = seeing_model()
    model.separator = seeing_names()
    clips = torch.eye(16)[:3].clone()
    clips[1] = clips[0]  # a drum looks like every drum
    for own, value in zip(model.separator.names, (clips, torch.eye(16)[:3]), strict=True):
        own.copy_(value)
    heard = torch.full((1, 3, 20), -6.0)
    monkeypatch.setattr(type(model.embedder), "frame_pairs", lambda self, frames, text: heard)
    monkeypatch.setattr(type(model), "_frames", lambda self, latent: torch.zeros(1, 20, 16))
    return model, heard


def seeing_names():
    from samaudio.mask import MaskConfig, MaskSeparator

    return MaskSeparator(MaskConfig(32, 16, width=16, dilations=(1, 2), attention_every=2, num_heads=2, hypotheses=2,
                                    hint_dim=16, sight=True, rest=3)).requires_grad_(False).eval()  # fmt: skip


def test_of_the_names_that_it_looks_like_the_one_that_is_heard_is_asked_for(naming):
    model, heard = naming
    heard[0, 1] = heard[0, 2] = 4.0
    latent = torch.randn(1, 32, 40)
    found = model.named(latent, looking(model, torch.eye(16)[0]))
    assert found.sight is None and int(found.frame.argmax()) == 1
    assert float(found.frame[1]) > 0.99  # not the third, which is heard but looks otherwise


def test_of_two_names_that_are_heard_the_one_that_moves_so_is_asked_for(naming):
    model, heard = naming
    heard[0, 0, :8] = heard[0, 1, 12:] = 4.0
    latent, rising = torch.randn(1, 32, 40), torch.linspace(-1, 1, 16)
    for pulse, name in ((rising, 1), (-rising, 0)):
        assert int(model.named(latent, looking(model, torch.eye(16)[0], pulse)).frame.argmax()) == name


def test_words_are_left_as_they_are(naming):
    model, _ = naming
    latent = torch.randn(1, 32, 40)
    spoken = Query(torch.eye(16)[2], torch.eye(16)[2], looking(model, torch.eye(16)[0]).sight)
    assert model.named(latent, spoken) is spoken
    nothing = Query(torch.full((16,), torch.nan))
    assert model.named(latent, nothing) is nothing


def test_loudness_is_a_share_of_the_loudest_moment():
    rate = 1000
    sound = np.concatenate((np.full(500, 0.1), np.full(500, 0.4))).astype(np.float32)
    quiet, loud = envelope(sound, rate, np.array([0.25, 0.75]))
    assert loud == pytest.approx(1) and quiet == pytest.approx(0.25**0.7, rel=0.01)


def test_a_sound_that_is_loud_as_the_object_moves_fits_better():
    model = seeing_model()
    rng = np.random.default_rng(0)
    noise = rng.normal(size=16_000).astype(np.float32)
    time = np.arange(16_000) / 8_000
    sounds = torch.from_numpy(np.stack([noise * np.exp(-3 * time), noise * np.exp(3 * time - 6)]).astype(np.float32))
    clip = torch.nn.functional.normalize(torch.randn(16), dim=-1)
    rising = looking(model, clip, torch.linspace(-1, 1, 16)).sight
    falling = looking(model, clip, torch.linspace(1, -1, 16)).sight
    plain = model.matches(looking(model, clip).sight, sounds)
    up, down = model.matches(rising, sounds), model.matches(falling, sounds)
    assert float(up[1] - plain[1]) > 5 > float(up[0] - plain[0])
    assert float(down[0] - plain[0]) > 5 > float(down[1] - plain[1])
