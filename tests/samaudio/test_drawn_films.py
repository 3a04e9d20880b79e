"""Drawn films: what is seen answers to what is heard, and everything said of a film is true of it."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn_pictures import write_pictures

from peav.clips import ClipStore
from peav.errors import UserError
from peav.films import Cut, FilmBatches
from samaudio.drawn import HELD_OUT, LOOK_ALIKES, DrawnFilms, Pictures, Recipe, open_pictures
from samaudio.drawn import films as films_module
from samaudio.drawn.films import likeness
from samaudio.drawn.items import DrawnItems
from samaudio.drawn.render import degrade, draw_film
from samaudio.drawn.scene import Actor, Answer, Motion, Paths, _covered, _path, answer, place_all
from samaudio.drawn.sounds import DrawableMixtures
from samaudio.drawn.styles import Look
from samaudio.pulse import envelope

RATE = 8_000
SHORT = replace(Recipe().sound, seconds=2.0)
PLAIN = Recipe(sound=replace(SHORT, sources=(0.0, 1.0)), size=(64, 72), silent=(1.0,), alike=0.0, still=0.0, clutter=0,
               camera=0.0, wear=0.0, paths=Paths(kinds=("still",)))  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def pictures(folder):
    return open_pictures(folder, "train")


@pytest.fixture(scope="module")
def valid_store(pool, tmp_path_factory):
    return ClipStore([pool], RATE, tmp_path_factory.mktemp("valid"), "valid", progress=False)


def motion(x, y, size, angle=0.0, N: int = 3) -> Motion:
    return Motion(*(np.full(N, float(value)) for value in (x, y, angle, size)), light=np.ones(N))


def grey(n: int) -> np.ndarray:
    return np.full((64, 72, 3), 128, np.float32)


class Two:
    """Pictures of a red box and a blue one."""

    def image(self, style: str, code: str) -> np.ndarray:
        return np.tile(np.array([255, 0, 0, 255] if code == "red" else [0, 0, 255, 255], np.uint8), (40, 40, 1))


def test_masks_are_the_pixels_that_were_painted():
    actors = [Actor(Look("", code, ""), motion(x, 30.3, 24, angle))
              for code, x, angle in (("red", 20.4, 30), ("blue", 50.2, -12))]  # fmt: skip
    frames, masks = draw_film(Two(), actors, grey, 3)
    red, blue = (frames[..., channel] > 191 for channel in (0, 2))
    assert (masks == np.stack((red, blue))).mean() > 0.999 and masks.any((2, 3)).all()
    assert masks[0, 0].sum() == pytest.approx(24**2, rel=0.04)
    rows, columns = np.nonzero(masks[0, 0])
    assert (columns.mean() + 0.5, rows.mean() + 0.5) == pytest.approx((20.4, 30.3), abs=0.15)
    assert (frames[~(red | blue)].astype(int) - 128).__abs__().mean() < 6  # edges alone differ from the background


def test_what_is_behind_another_object_is_not_in_its_mask():
    back, front = (Actor(Look("", code, ""), motion(x, 30, 24)) for code, x in (("red", 30), ("blue", 40)))
    frames, masks = draw_film(Two(), [back, front], grey, 3)
    assert not (masks[0] & masks[1]).any()
    assert masks[1, 0].sum() > 1.6 * masks[0, 0].sum()
    assert (frames[masks[0]][:, 0] > 150).all()


def test_envelope_is_loud_where_the_sound_is():
    sound = np.zeros(RATE, np.float32)
    sound[4_000:6_000] = 0.25
    loudness = envelope(sound, RATE, np.array([0.0, 0.25, 0.55, 0.7, 0.9]))
    assert loudness.tolist() == pytest.approx([0, 0, 1, 1, 0], abs=1e-6)
    assert not envelope(np.zeros(100, np.float32), RATE, np.zeros(3)).any()


@pytest.mark.parametrize(("way", "part"), [("grow", "size"), ("jump", "y"), ("shake", "x"), ("turn", "angle"),
                                           ("light", "light")])  # fmt: skip
def test_every_way_of_answering_follows_loudness(way, part):
    still = motion(30, 30, 20, N=40)
    loudness = (np.arange(40) >= 20).astype(float)
    moved = getattr(answer(np.random.default_rng(1), still, Answer(**{way: 0.5}), loudness), part)
    quiet, loud = moved[:20], moved[20:]
    assert np.ptp(quiet) < 1e-9
    assert abs(loud - quiet.mean()).mean() > 0.02
    silent = answer(np.random.default_rng(1), still, Answer(**{way: 0.5}), np.zeros(40))
    assert np.ptp(getattr(silent, part)) < 1e-9


def test_objects_grow_with_their_own_sound_and_not_with_the_others(store, pictures, monkeypatch):
    monkeypatch.setattr(films_module, "draw_answer", lambda rng, strength: Answer(grow=0.6))
    films = DrawnFilms(store, pictures, replace(PLAIN, delay=(0.0, 0.0), size=(96, 96)), seed=5)
    own, other = [], []
    for i in range(24):
        film = films[i]
        if likeness(film.loudness.numpy()) > 0.5:
            continue  # sounds that come and go together say nothing
        covered = (film.masks.sum((2, 3)) == 0).any()
        areas = film.masks.sum((2, 3)).numpy().astype(float)
        if covered or areas.std(1).min() == 0:
            continue
        for k in range(2):
            own.append(np.corrcoef(areas[k], film.loudness[k])[0, 1])
            other.append(np.corrcoef(areas[k], film.loudness[1 - k])[0, 1])
    assert len(own) >= 16
    assert np.mean(own) > 0.8 and np.mean(other) < 0.3


def test_a_film_depends_on_seed_and_number_alone(store, pictures, folder):
    recipe = Recipe(sound=SHORT, size=(64, 64))
    films = DrawnFilms(store, pictures, recipe, seed=2)
    for i in range(4):
        films[i]
    fresh = pickle.loads(pickle.dumps(DrawnFilms(store, open_pictures(folder, "train"), recipe, seed=2)))
    one, same = films[6], fresh[6]
    assert torch.equal(one.frames, same.frames) and torch.equal(one.masks, same.masks)
    assert torch.equal(one.stems, same.stems) and one.phrases == same.phrases and one.clicks == same.clicks
    other = DrawnFilms(store, pictures, recipe, seed=3)[6]
    assert other.frames.shape == one.frames.shape and not torch.equal(other.frames, one.frames)


def test_what_a_film_says_of_itself(store, pictures):
    films = DrawnFilms(store, pictures, Recipe(sound=SHORT, size=(64, 80), fps=6.0, silent=(0.3, 0.3, 0.4)), seed=1)
    counts = set()
    for i in range(16):
        film = films[i]
        K, S, N = len(film.labels), len(film.looks) - len(film.labels), 12
        counts.add(K)
        assert film.frames.dtype == torch.uint8 and film.frames.shape == (N, 3, 64, 80)
        assert film.times.tolist() == pytest.approx([n / 6 for n in range(N)])
        assert film.masks.shape == (K, N, 64, 80) and film.silent_masks.shape == (S, N, 64, 80)
        assert film.stems.shape == (K, 2 * RATE) and torch.equal(film.samples, film.stems.sum(0))
        assert film.stems.abs().amax(1).min() > 0 and film.samples.abs().max() <= 0.901
        assert [films.store.clips[clip].label for clip in film.clips] == film.labels and len(film.phrases) == K
        together = torch.cat((film.masks, film.silent_masks))
        assert together.sum(0).max() <= 1
        for mask, click in zip(together, film.clicks + film.silent_clicks, strict=True):
            if click is not None:
                n = int(np.flatnonzero(np.isclose(film.times.numpy(), click.time))[0])
                assert mask[n, int(click.y), int(click.x)]
        assert not {look.thing for look in film.looks[K:]} & {look.thing for look in film.looks[:K]}
        assert all(look in films.looks[label] for label, look in zip(film.labels, film.looks, strict=False))
    assert {1, 2, 3} <= counts


def test_objects_are_seen_most_of_the_time(store, pictures):
    films = DrawnFilms(store, pictures, Recipe(sound=SHORT, size=(64, 64)), seed=9)
    seen = [(film.masks.sum((2, 3)) >= 12).float().mean().item() for film in (films[i] for i in range(20))]
    assert np.mean(seen) > 0.95 and min(seen) > 0.6


def test_different_objects_look_different_unless_they_shall_not(store, pictures):
    films = DrawnFilms(store, pictures, PLAIN, seed=4)
    for i in range(25):
        things = [look.thing for look in films[i].looks]
        assert len(things) == len(set(things)) and not films[i].alike


def test_look_alikes_share_their_picture_and_move_apart(store, pictures):
    films = DrawnFilms(store, pictures, replace(LOOK_ALIKES, sound=SHORT, size=(64, 64), silent=(1.0,)), seed=4)
    pairs = []
    for i in range(16):
        film = films[i]
        assert film.alike and len(film.labels) == 2 and film.looks[0] == film.looks[1]
        assert not torch.equal(film.stems[0], film.stems[1])
        pairs.append(likeness(film.loudness.numpy()))
    assert np.mean([pair < 0.5 for pair in pairs]) > 0.8
    # Both in the same colours: the picture must not tell them apart.
    monochrome = replace(films.recipe, wear=0.0, clutter=0, paths=Paths(kinds=("still",)))
    film = DrawnFilms(store, pictures, replace(monochrome, strength=(0, 0)), seed=4)[0]
    first, second = (film.frames.permute(0, 2, 3, 1)[mask].float().median(0).values for mask in film.masks)
    assert (first - second).abs().max() < 4


def test_look_alikes_are_drawn_until_movement_can_decide(store, pictures):
    films = DrawnFilms(store, pictures, replace(LOOK_ALIKES, sound=SHORT, size=(64, 64)), seed=0)
    last = [likeness(films._mixture(i, True)[1]) for i in range(40)]
    first = [likeness(np.stack([envelope(stem, RATE, films.times) for stem in films._twins[8 * i].stems]))
             for i in range(40)]  # fmt: skip
    assert sum(pair >= 0.5 for pair in first) >= 3  # or this would show nothing
    assert sum(pair >= 0.5 for pair in last) == 0


def test_labels_with_one_picture_between_them_are_not_heard_together(store):
    looks = {label: [Look("noto", "1f941", "a tin")] for label in ("rain", "dog barking", "flute")}
    looks["violin"] = [Look("noto", "1f3bb", "violin")]
    part = [clip for clip in store.clips if clip.label in looks]
    assert {clip.label for clip in part} == set(looks)
    keep = copy.copy(store)
    keep._parts = [store._parts[i] for i, clip in enumerate(store.clips) if clip.label in looks]
    keep.clips = part
    sampler = DrawableMixtures(keep, replace(SHORT, sources=(0.0, 0.0, 1.0)), 0, looks)
    drawn = [sampler[i].labels for i in range(30)]
    assert all(len(set(labels) - {"violin"}) <= 1 for labels in drawn)
    assert max(map(len, drawn)) == 2  # fewer than asked for, as there are two things


def test_the_held_out_style_is_drawn_for_validation_alone(store, valid_store, folder):
    recipe = Recipe(sound=SHORT, size=(64, 64), silent=(0.0, 0.0, 1.0))
    for pool, split in ((store, "train"), (valid_store, "valid")):
        films = DrawnFilms(pool, open_pictures(folder, split), replace(recipe, alike=0.0), seed=0)
        said = {look.style for i in range(12) for look in films[i].looks}
        touched = {style for style, _ in films.pictures._read}  # backgrounds too
        assert said <= touched and touched == ({HELD_OUT} if split == "valid" else {"noto", "openmoji"})


def test_splits_share_no_recording_and_no_scene(store, valid_store, folder):
    train, valid = (DrawnFilms(pool, open_pictures(folder, split), PLAIN, seed=0)
                    for pool, split in ((store, "train"), (valid_store, "valid")))  # fmt: skip
    used = [{films.store.clips[clip].group for i in range(12) for clip in films[i].clips} for films in (train, valid)]
    assert not used[0] & used[1] and all(used)
    assert [train[i].labels for i in range(12)] != [valid[i].labels for i in range(12)]


def test_labels_without_a_picture_are_left_out(store, folder, tmp_path):
    write_pictures(tmp_path, {"noto": (200, 0, 0)}, ("1f436", "1f327"))
    films = DrawnFilms(store, Pictures(tmp_path, ["noto"]), replace(PLAIN, sound=SHORT), seed=0)
    assert {label for i in range(10) for label in films[i].labels} == {"dog barking", "rain"}
    with pytest.raises(UserError, match="none of the clips has a label"):
        write_pictures(tmp_path / "silent", {"noto": (200, 0, 0)}, ("1f34e",))
        DrawnFilms(store, Pictures(tmp_path / "silent", ["noto"]), PLAIN)


def test_paths_stay_in_the_picture():
    rng = np.random.default_rng(0)
    for _ in range(30):
        for one in place_all(rng, 3, Paths(), np.arange(24) / 8, (100, 140)):
            assert one.x.min() > 0 and one.x.max() < 140 and one.y.min() > 0 and one.y.max() < 100
            assert np.hypot(np.diff(one.x), np.diff(one.y)).max() < 30  # smooth


def test_paths_keep_objects_apart():
    rng, times = np.random.default_rng(1), np.arange(24) / 8
    chosen = [_covered(place_all(rng, 3, Paths(), times, (100, 100))) for _ in range(40)]
    blind = [_covered([_path(rng, 3, Paths(), times, (100, 100)) for _ in range(3)]) for _ in range(40)]
    assert np.mean(chosen) < 0.75 * np.mean(blind)


def test_wear_changes_frames_and_keeps_what_they_show():
    frames = np.random.default_rng(0).integers(60, 200, (3, 8, 9, 3)).repeat(8, 1).repeat(8, 2).astype(np.uint8)
    worn = degrade(frames.copy(), np.random.default_rng(0), 1.0)
    assert worn.shape == frames.shape and not np.array_equal(worn, frames)
    assert np.corrcoef(worn.ravel(), frames.ravel())[0, 1] > 0.6
    assert np.array_equal(degrade(frames.copy(), np.random.default_rng(0), 0.0), frames)


def test_training_takes_drawn_films(store, pictures):
    films = DrawnFilms(store, pictures, Recipe(sound=SHORT, size=(64, 64)), seed=0)
    cut = Cut(sample_rate=16_000, size=(32, 32), seconds=1.0, num_frames=4)
    batch = FilmBatches(DrawnItems(films, 10, cut), 3, ["audio_video"], frozenset({"audio", "video", "audio_video"}))(0)
    assert batch["waveform"].shape == (3, 1, 16_000) and batch["video"].shape == (3, 4, 3, 32, 32)
    assert all(len(batch[f"caption_{kind}"]) == 3 for kind in ("audio", "video", "audio_video"))
    with pytest.raises(UserError, match="cannot give 9 s"):
        DrawnItems(films, 10, replace(cut, seconds=9.0))


@pytest.mark.parametrize(("settings", "message"), [({"fps": 0}, "no frame"), ({"size": (16, 64)}, "too small")])
def test_recipes_that_cannot_be_drawn_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        Recipe(**settings)


def test_folders_without_pictures_are_refused(tmp_path, folder):
    with pytest.raises(UserError, match="no such folder of pictures"):
        open_pictures(tmp_path / "nothing", "train")
    with pytest.raises(UserError, match="no pictures of style 'oils'"):
        Pictures(folder, ["oils"])
    with pytest.raises(UserError, match="choose train or valid"):
        open_pictures(folder, "test")
