"""From a film and a click to what the separator gets: close-ups, embeddings through time, the clock of the sound."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from seeing import RATE, seeing_model, sounding_film

import samaudio
from peav import media
from peav.errors import UserError
from samaudio import Click, Span, Text, Video
from samaudio.sight import LOOKS, Sight, _embedded, film_of, looks, watch
from samaudio.visual.frames import GREY, close_ups, follow, masked_frames
from samaudio.visual.track import ObjectTrack

DISC = Click(25, 30, 0.3)
SQUARE = Click(78, 58, 0.3)


@pytest.fixture(scope="module")
def model():
    return seeing_model()


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return sounding_film(tmp_path_factory.mktemp("films") / "film.mkv")


def square(top: int, left: int, side: int, count: int = 1, size=(40, 60)) -> torch.Tensor:
    masks = torch.zeros(count, *size, dtype=torch.bool)
    masks[:, top : top + side, left : left + side] = True
    return masks


# --- pictures ------------------------------------------------------------------------------------------


def test_all_but_the_object_is_grey_and_proportions_stay():
    frames = torch.full((2, 3, 40, 60), 200, dtype=torch.uint8)
    shown = masked_frames(frames, square(10, 15, 20, 2), (60, 60))
    assert shown.shape == (2, 3, 60, 60) and shown.dtype == torch.uint8
    assert bool((shown[:, :, :10] == GREY).all()) and bool((shown[:, :, 50:] == GREY).all())  # letterboxed
    assert bool((shown[:, :, 22:38, 17:33] == 200).all())  # still a square
    assert bool((shown[:, :, 12:19] == GREY).all()) and bool((shown[:, :, :, :13] == GREY).all())
    whole = masked_frames(frames, None, (20, 30))
    assert bool((whole == 200).all())
    assert masked_frames(frames[:0], None, (8, 8)).shape == (0, 3, 8, 8)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="shape"):
        masked_frames(torch.zeros(2, 40, 60), None, (8, 8))
    with pytest.raises(ValueError, match="masks"):
        masked_frames(torch.zeros(2, 3, 4, 4), torch.zeros(1, 4, 4), (8, 8))


def test_close_ups_hold_a_drifting_object_and_show_a_jump():
    times = torch.arange(48) / 8.0
    drift, jump = torch.zeros(2, 48, 60, 200, dtype=torch.bool)
    for i in range(48):
        left = 10 + 3 * i
        drift[i, 20:40, left : left + 20] = True
        top = 20 if i % 8 else 8  # up for an eighth of a second
        jump[i, top : top + 20, 90:110] = True
    frames = torch.full((48, 3, 60, 200), 250, dtype=torch.uint8)

    def middles(masks):
        views, inside = close_ups(frames, masks, follow(masks, times), (40, 40))
        assert bool((views[:, :, -1, 0] == GREY).all())
        rows = torch.stack([torch.nonzero(one).float().mean(0) for one in inside])
        return rows[8:-8]  # where there is film on both sides

    held = middles(drift)
    assert float((held - 19.5).abs().max()) < 3.0  # it drifted over 96 pixels of the film
    shown = middles(jump)[:, 0]
    assert float(shown.max() - shown.min()) > 6.0  # it leaves the close-up in part


def test_close_ups_are_as_near_for_small_objects_as_for_large_ones():
    times = torch.arange(4) / 8.0
    for side in (6, 30):
        masks = square(4, 10, side, 4)
        frames = torch.zeros(4, 3, 40, 60, dtype=torch.uint8)
        _, inside = close_ups(frames, masks, follow(masks, times), (32, 32))
        assert 0.3 < float(inside.float().mean()) < 0.5  # (1 / 1.6)^2


def test_growth_is_seen():
    times, masks = torch.arange(16) / 8.0, torch.zeros(16, 80, 80, dtype=torch.bool)
    for i in range(16):
        r = 14 if i % 4 == 0 else 9
        masks[i, 40 - r : 40 + r, 40 - r : 40 + r] = True
    _, inside = close_ups(torch.zeros(16, 3, 80, 80, dtype=torch.uint8), masks, follow(masks, times), (32, 32))
    areas = inside.flatten(1).float().mean(1)
    assert float(areas[::4].mean()) > 1.8 * float(areas[1::4].mean())


def test_an_object_that_is_nowhere_gives_grey():
    masks = torch.zeros(3, 40, 60, dtype=torch.bool)
    frames = torch.zeros(3, 3, 40, 60, dtype=torch.uint8)
    views, inside = close_ups(frames, masks, follow(masks, torch.arange(3.0)), (8, 8))
    assert bool((views == GREY).all()) and not bool(inside.any())


# --- through time --------------------------------------------------------------------------------------


def test_a_time_shows_the_latest_look_that_is_not_after_it():
    frames = torch.eye(3)
    sight = Sight(torch.ones(3), torch.tensor([0.0, 0.5, 1.0]), frames, torch.ones(3, dtype=torch.bool), "")
    assert sight.at(torch.tensor([-1.0, 0.0, 0.49, 0.5, 7.0])).argmax(1).tolist() == [0, 0, 0, 1, 2]


def test_windows_agree_with_the_whole_and_where_nothing_is_seen_the_mean_counts(model):
    features = torch.nn.functional.normalize(torch.randn(24, 12, generator=torch.Generator().manual_seed(1)), dim=-1)
    with torch.no_grad():
        clip, frames = _embedded(model.embedder, features, torch.ones(24, dtype=torch.bool))
        seen = model.embedder.video(features[None])
        torch.testing.assert_close(clip, model.embedder.head("video", seen.pooled)[0])
        torch.testing.assert_close(frames, model.embedder.head("video_frame", seen.frames)[0])
        clip, frames = _embedded(model.embedder, features.repeat(5, 1)[:101], torch.arange(101) < 60)
    assert frames.shape == (101, 16) and float((frames.norm(dim=1) - 1).abs().max()) < 1e-4
    assert bool((frames[60:] == frames[60]).all()) and not bool((frames[:60] == frames[60]).all())


def test_looks_are_as_frequent_as_in_training():
    assert looks(1.0) == [i / LOOKS for i in range(8)] and looks(0.01) == [0.0]


def test_a_film_is_watched(model, film):
    told: list[float] = []
    sight = model.watch(film, [DISC], progress=told.append)
    assert sight.frames.shape == (16, 16) and sight.clip.shape == (16,)
    assert "GrabCut" in sight.used and sight.track is not None and bool(sight.visible.all())
    assert told == sorted(told) and told[-1] == pytest.approx(1.0)
    other = model.watch(film, [SQUARE])
    assert float((sight.clip - other.clip).abs().max()) > 1e-3
    whole = model.watch(film, [Video()])
    assert whole.track is None and whole.used == "whole picture"


def test_models_that_are_shown_whole_frames_get_them(model, film):
    near, far = model.watch(film, [DISC]), watch(model.embedder, film, [DISC], close_up=None)
    assert float((near.clip - far.clip).abs().max()) > 1e-3


def test_an_empty_mask_is_said(model, film):
    with pytest.raises(UserError, match="marks no object"):
        model.watch(film, [samaudio.Mask(object=torch.zeros(72, 96))])
    times = tuple(looks(2.0))
    nothing = torch.zeros(len(times), 72, 96, dtype=torch.bool)
    lost = ObjectTrack(times, nothing, torch.zeros(len(times)), "test", 96, 72)
    with pytest.raises(UserError, match=r"film.mkv: nothing was found where you pointed"):
        model.watch(film, [DISC], found=lost)


def test_which_film_is_meant(film):
    assert film_of([DISC], film) == film
    assert film_of([DISC, Video("other.mp4")], film).name == "other.mp4"
    with pytest.raises(UserError, match="give the film"):
        film_of([DISC], None)


# --- the separator -------------------------------------------------------------------------------------


def test_what_is_pointed_at_decides_and_is_followed_once(model, film, monkeypatch):
    separator = samaudio.Separator(model, "seeing")
    calls = []
    watched = model.watch
    monkeypatch.setattr(model, "watch", lambda *a, **k: calls.append(a) or watched(*a, **k))
    disc, again, box = (separator.separate(film, p, candidates=2).candidates[0].target for p in (DISC, DISC, SQUARE))
    assert len(calls) == 2
    torch.testing.assert_close(disc, again)
    assert float((disc - box).abs().max()) > 1e-4
    both = separator.separate(film, [Text("disc"), DISC]).candidates[0].target
    words = separator.separate(film, "disc").candidates[0].target
    assert min(float((both - x).abs().max()) for x in (disc, words)) > 1e-4
    assert len(calls) == 2


def test_words_are_read_as_ever_by_a_model_that_sees(model, film):
    separator = samaudio.Separator(model, "seeing")
    words = separator.separate(film, "disc").candidates[0].target
    with torch.no_grad():
        for part in (model.separator.seen_query, model.separator.seen_hints):
            for parameter in part.parameters():
                parameter.add_(1.0)
    torch.testing.assert_close(separator.separate(film, "disc").candidates[0].target, words, rtol=0, atol=0)
    with torch.no_grad():
        for part in (model.separator.seen_query, model.separator.seen_hints):
            for parameter in part.parameters():
                parameter.sub_(1.0)


def test_target_and_residual_are_the_sound(model, film, tmp_path):
    (result,) = samaudio.Separator(model, "seeing").separate_file(film, [DISC], tmp_path)
    mixture, rate = media.read(film)
    target, rest = media.read(result.target)[0], media.read(result.residual)[0]
    assert rate == RATE and target.shape == mixture.shape
    assert float((target + rest - mixture).abs().max()) < 1e-5
    assert result.prompt == "click 25,30 at 0.3s"


def test_sound_that_begins_later_is_seen_later(model, tmp_path):
    """The same sound, half a second into its film: what is seen is half a second further on."""
    film = sounding_film(tmp_path / "late.mkv", delay=0.5)
    assert media.probe(film).start_seconds == pytest.approx(0.5, abs=0.01)
    separator = samaudio.Separator(model, "seeing")
    asked = []
    split = model.split

    def spy(heard, latent, query, *rest):
        asked.append(query)
        return split(heard, latent, query, *rest)

    model.split = spy
    try:
        separator.separate(film, DISC)
        sound, rate = media.read(film)
        separator.separate(sound, [DISC, Video(film)], sample_rate=rate)
    finally:
        del model.split
    assert asked[0].offset == pytest.approx(0.5, abs=0.01) and asked[-1].offset == 0.0
    now = torch.tensor([0.0])
    torch.testing.assert_close(asked[0].seen(now), asked[-1].seen(now + 0.5))


def test_progress_counts_the_watching_and_never_falls(model, film):
    told = []
    samaudio.Separator(model, "seeing").separate(film, DISC, progress=lambda done, total: told.append((done, total)))
    done = [d for d, _ in told]
    assert {round(t, 3) for _, t in told} == {4.0} and done == sorted(done) and done[-1] == pytest.approx(4.0)


def test_samples_without_a_film_are_refused(model):
    with pytest.raises(UserError, match="give the film"):
        samaudio.Separator(model, "seeing").separate(np.zeros((1, 800), np.float32), DISC, sample_rate=RATE)


def test_a_recording_without_pictures_is_refused(model, tmp_path):
    import soundfile

    soundfile.write(tmp_path / "mix.wav", np.random.default_rng(0).normal(0, 0.1, RATE), RATE)
    with pytest.raises(UserError, match=r"mix.wav"):
        samaudio.Separator(model, "seeing").separate(tmp_path / "mix.wav", DISC)


def test_a_span_and_a_click_go_together(model, film):
    result = samaudio.Separator(model, "seeing").separate(film, [DISC, Span(0.5, 1.0)])
    target = result.candidates[0].target
    assert float(target[:, : int(0.2 * RATE)].abs().max()) == 0 and float(target.abs().max()) > 0
