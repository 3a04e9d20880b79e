"""Clicks followed through small films by GrabCut and optical flow, measured against where the objects are drawn.

IoU is intersection over union with the drawn shape.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from visual_films import (
    BLUE,
    COLUMNS,
    GREEN,
    RED,
    ROWS,
    YELLOW,
    H,
    W,
    blobs,
    disc,
    draw,
    gradient,
    ious,
    noise,
    scrolling,
    square,
)

from peav.errors import UserError
from samaudio.prompts import Box, Click, Span
from samaudio.visual import track
from samaudio.visual.classical import Classical
from samaudio.visual.segment import GRABCUT, WALKER, Seeds, segment, without

N = 20


def face(x, y, size=1.0):
    """Four colours that move as one."""
    mouth = disc(x, y + 3 * size, 7 * size) & (y + 5 * size < ROWS)
    eyes = [(disc(x + side * 5 * size, y - 4 * size, 2 * size), (60, 40, 20)) for side in (-1, 1)]
    return [(disc(x, y, 14 * size), (250, 205, 60)), *eyes, (mouth, (180, 40, 50))]


SIMPLE = {
    "disc over noise": (noise, lambda i: [(disc(40 + 4 * i, 50 + 10 * np.sin(i / 4), 12), RED)]),
    "disc against moving clutter": (scrolling(), lambda i: [(disc(150 - 4 * i, 50, 12), RED)]),
    "small disc": (scrolling(3), lambda i: [(disc(150 - 4 * i, 50 + 10 * np.sin(i / 4), 5), YELLOW)]),
    "dull square in a dim room": (gradient, lambda i: [(square(40 + 4 * i, 60, 14), (150, 110, 120))]),
    "square that grows": (scrolling(5), lambda i: [(square(90 + i, 55, 8 + 0.7 * i), GREEN)]),
    "fast, there and back": (scrolling(6), lambda i: [(disc(96 + 60 * np.sin(i / 4), 54 + 8 * i / 5, 10), BLUE)]),
    "face": (scrolling(13), lambda i: face(40 + 4 * i, 50, 1.2)),
    "face that pulses": (scrolling(14, 1), lambda i: face(90 + 2 * i, 50, 1.2 + 0.3 * np.sin(i))),
}  # fmt: skip


@pytest.mark.parametrize("name", SIMPLE)
def test_simple_motion(tmp_path, name):
    background, objects = SIMPLE[name]
    film = draw(tmp_path / "film.mp4", N, background, objects, parts=4)
    found = track(film.path, Click(*film.click(8)), film.times)
    assert found.segmenter == "GrabCut with optical flow" and found.visible.all()
    score = ious(found.masks, film.truth)
    assert score.mean() > 0.85 and score.min() > 0.6
    assert (found.confidence > 0.4).all() and (found.confidence <= 1).all()


def test_an_object_of_a_few_pixels(tmp_path):
    film = draw(tmp_path / "film.mp4", N, noise, lambda i: [(disc(30 + 3 * i, 60, 3.2), RED)])
    found = track(film.path, Click(*film.click(8)), film.times)
    assert ious(found.masks, film.truth).mean() > 0.55


def test_what_was_used_is_said_of_each_run_by_itself(tmp_path, monkeypatch):
    """One segmenter serves many films: what one needed is not said of the next."""
    film = draw(tmp_path / "film.mp4", 2, noise, lambda i: [(disc(60, 50, 14), BLUE)])
    methods = iter((WALKER, GRABCUT))
    monkeypatch.setattr("samaudio.visual.classical.segment", lambda *_: (film.truth[0], next(methods)))
    shared = Classical()
    said = [track(film.path, Click(60, 50, 0.0), [0.0], segmenter=shared).segmenter for _ in range(2)]
    assert said == ["random walker with optical flow", "GrabCut with optical flow"]


@pytest.mark.parametrize("first", [0, 1], ids=["red that goes right", "red that goes left"])
def test_two_that_look_alike_and_cross(tmp_path, first):
    def objects(i):
        both = [(disc(30 + 6.5 * i, 50, 11), RED), (disc(160 - 6.5 * i, 62, 11), RED)]
        return [both[first], both[1 - first]]

    film = draw(tmp_path / "film.mp4", N, scrolling(7), objects)
    score = ious(track(film.path, Click(*film.click(2)), film.times).masks, film.truth)
    assert score.mean() > 0.7 and score[-4:].min() > 0.7


def test_two_that_look_alike_and_part(tmp_path):
    film = draw(tmp_path / "film.mp4", N, scrolling(8),
                lambda i: [(disc(90 - 2.5 * i, 50, 11), RED), (disc(104 + 2.5 * i, 60, 11), RED)])
    score = ious(track(film.path, Click(*film.click(N - 1)), film.times).masks, film.truth)
    assert score.mean() > 0.7 and score[8:].min() > 0.8


def test_out_of_the_picture_and_back(tmp_path):
    film = draw(tmp_path / "film.mp4", 24, scrolling(10), lambda i: [(disc(100 + 130 * np.sin(i / 7.3), 50, 12), RED)])
    found = track(film.path, Click(*film.click(0)), film.times)
    there = film.truth.sum((1, 2)) / film.truth[0].sum()
    assert (there == 0).sum() > 2 and not found.visible[there == 0].any()
    assert found.visible[there > 0.5].all() and (found.confidence[there == 0] <= 0.4).all()
    assert ious(found.masks, film.truth)[there > 0.5].mean() > 0.8


def test_a_twin_does_not_take_the_place_of_what_has_left(tmp_path):
    film = draw(tmp_path / "film.mp4", N, scrolling(9),
                lambda i: [(disc(110 + 7 * i, 40, 12), RED), (disc(50, 80, 12), RED)])
    found = track(film.path, Click(*film.click(1)), film.times)
    gone = ~film.truth.any((1, 2))
    assert gone.sum() > 3 and not found.visible[gone].any()


def test_nothing_after_a_cut(tmp_path):
    film = draw(tmp_path / "film.mp4", N, lambda i: blobs(11) if i < 12 else blobs(99, 30, levels=(150, 250)),
                lambda i: [(disc(60 + 3 * i, 50, 12) & (i < 12), RED)])
    found = track(film.path, Click(*film.click(4)), film.times)
    assert found.visible.tolist() == [i < 12 for i in range(N)]
    assert ious(found.masks, film.truth).mean() > 0.85


def test_the_same_shot_again_after_another(tmp_path):
    film = draw(tmp_path / "film.mp4", N, lambda i: blobs(99, 30, levels=(150, 250)) if 6 <= i < 12 else blobs(11),
                lambda i: [(disc(60 + 3 * i, 50, 12) & (not 6 <= i < 12), RED)])
    found = track(film.path, Click(*film.click(2)), film.times)
    assert found.visible.tolist() == [not 6 <= i < 12 for i in range(N)]
    assert ious(found.masks, film.truth)[12:].mean() > 0.7


def test_seldom_wanted_is_looked_at_often(tmp_path):
    film = draw(tmp_path / "film.mp4", N, scrolling(), lambda i: [(disc(150 - 5 * i, 50, 9), RED)])
    ticks: list[float] = []
    found = track(film.path, Click(*film.click(0)), [film.times[-1], 0.0], size=96, progress=ticks.append)
    assert found.masks.shape == (2, H // 2, W // 2) and found.times == (film.times[-1], 0.0)
    assert ious(found.resized(H, W), film.truth[[-1, 0]]).min() > 0.6
    assert ticks == sorted(ticks) and ticks[-1] == 1.0 and len(ticks) > N - 3


def test_variable_frame_rate(tmp_path):
    """Pictures at odd times: each wanted time gets the mask of what is shown then."""
    stamps = [0, 3, 10, 13, 20, 60, 66, 70, 71, 90, 100, 104]
    film = draw(tmp_path / "film.mkv", len(stamps), scrolling(2, 1), lambda i: [(disc(40 + stamps[i], 50, 12), RED)],
                stamps=stamps)
    wanted = [0.02, 0.11, 0.59, 0.605, 0.95, 1.03]
    shown = [0, 2, 4, 5, 9, 10]
    found = track(film.path, Click(40 + 66, 50, 0.68), wanted)
    assert ious(found.masks, film.truth[shown]).min() > 0.7


def test_every_frame_by_default(tmp_path):
    film = draw(tmp_path / "film.mp4", 8, gradient, lambda i: [(disc(40 + 4 * i, 50, 12), RED)])
    found = track(film.path, [Click(*film.click(3)), Span(0, 1)])
    assert np.allclose(found.times, film.times, atol=0.01)
    again = track(film.path, Click(*film.click(3)))
    assert torch.equal(found.masks, again.masks) and torch.equal(found.confidence, again.confidence)


@pytest.mark.parametrize("i", [0, 4, 7])
def test_a_preview_shows_what_will_be_followed(tmp_path, i):
    film = draw(tmp_path / "film.mp4", 8, scrolling(2), lambda i: face(60 + 4 * i, 50))
    whole = track(film.path, Click(*film.click(i)), film.times)
    preview = track(film.path, Click(*film.click(i)), [film.times[i]])
    assert torch.equal(preview.masks[0], whole.masks[i]) and preview.visible.all()


def test_a_box(tmp_path):
    film = draw(tmp_path / "film.mp4", 8, scrolling(), lambda i: [(disc(60 + 4 * i, 50, 14), BLUE)])
    found = track(film.path, Box(60 - 18, 50 + 17, 60 + 17, 50 - 18, 0.0), film.times)
    assert ious(found.masks, film.truth).mean() > 0.85


def test_clicks_at_two_times_bridge_a_cut(tmp_path):
    def objects(i):
        return [(disc(60 + 2 * i, 50, 12), RED)] if i < 8 else [(square(140 - 2 * i, 60, 10), BLUE)]

    film = draw(tmp_path / "film.mp4", 16, lambda i: blobs(11) if i < 8 else blobs(99, 30), objects)
    found = track(film.path, [Click(*film.click(12)), Click(*film.click(3))], film.times)
    assert ious(found.masks, film.truth).mean() > 0.85


def test_a_click_later_where_the_first_was_lost(tmp_path):
    """Each moment belongs to the click that is nearer in time, however often it is looked at in between."""
    def objects(i):
        return [(disc(30, 50, 12), RED), (disc(150, 50, 12), BLUE)]

    film = draw(tmp_path / "film.mp4", 16, gradient, objects)
    wanted = [0.0, 0.1, 0.2, 0.3, 0.41, 0.6, 0.8]
    found = track(film.path, [Click(30, 50, 0.0), Click(150, 50, 0.8)], wanted)
    assert [bool(mask[50, 30]) for mask in found.masks] == [time < 0.4 for time in wanted]
    assert [bool(mask[50, 150]) for mask in found.masks] == [time > 0.4 for time in wanted]


def test_a_negative_click_later_takes_back_what_does_not_belong(tmp_path):
    """A box around two: what was clicked away is gone from there on."""
    film = draw(tmp_path / "film.mp4", 10, gradient,
                lambda i: [(disc(60 + i, 50, 12), RED), (disc(80 + i, 50, 12), BLUE)])
    both = Box(44, 36, 96, 64, 0.0)
    away = Click(85 + 4, 50, film.times[4], positive=False)
    before, after = track(film.path, both, film.times), track(film.path, [both, away], film.times)
    assert ious(before.masks, film.truth)[5:].mean() < 0.6 < 0.75 < ious(after.masks, film.truth)[5:].mean()


def test_seeds_of_one_picture():
    """Clicks say which of two that touch is meant, or both."""
    picture = gradient()
    left, right = disc(80, 50, 14), disc(104, 50, 14)
    picture[right], picture[left] = BLUE, RED
    right &= ~left
    for seeds, truth in [
        (Seeds([(108, 50)], [(76, 50)]), right),
        (Seeds([(78, 50), (108, 50)]), left | right),
        (Seeds([(78, 50)], [(108, 50)]), left),
    ]:
        mask, method = segment(picture, seeds)
        assert ious(torch.from_numpy(mask)[None], truth[None])[0] > 0.8, seeds
        assert method == "GrabCut"
    kept = without(picture, left | right, [(110, 50)])
    assert ious(torch.from_numpy(kept)[None], left[None])[0] > 0.8
    assert without(picture, left, [(150, 90)]) is left


def test_what_moves_together_is_one_object():
    """Two that touch come apart in the next picture; two colours of one object do not."""
    pictures = [scrolling(3)(0), scrolling(3)(0)]
    for k, picture in enumerate(pictures):
        picture[disc(104 + 5 * k, 50, 14)] = BLUE
        picture[disc(80 - 5 * k, 50, 14)] = RED
    mask, _ = segment(pictures[0], Seeds([(108, 50)]), pictures[1])
    assert ious(torch.from_numpy(mask)[None], (disc(104, 50, 14) & ~disc(80, 50, 14))[None])[0] > 0.8
    for k, picture in enumerate(pictures):
        picture[:] = scrolling(3)(0)
        for shape, colour in face(90 + 5 * k, 50, 1.5):
            picture[shape] = colour
    mask, _ = segment(pictures[0], Seeds([(90, 62)]), pictures[1])  # on the mouth
    assert ious(torch.from_numpy(mask)[None], face(90, 50, 1.5)[0][0][None])[0] > 0.8


@pytest.mark.parametrize("level", [0, 255])
def test_a_click_on_nothing_still_gives_a_mask(level):
    mask, _ = segment(np.full((40, 60, 3), level, np.uint8), Seeds([(59.9, 39.9)]))
    assert mask[39, 59]


def test_a_phone_held_upright(tmp_path):
    """Clicks are in the picture as displayed, after the turn that the file asks for."""
    import av

    film = draw(tmp_path / "film.mp4", 6, scrolling(), lambda i: [(disc(60 + 3 * i, 30, 12), RED)])
    turned = tmp_path / "turned.mp4"
    with av.open(str(film.path)) as source, av.open(str(turned), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    data = bytearray(turned.read_bytes())
    # The display matrix of the track header: a quarter turn, in 16.16 fixed point.
    at = data.index(b"tkhd") + 4 + 40
    turn = [0, 1 << 16, 0, -(1 << 16), 0, 0, H << 16, 0, 1 << 30]
    data[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in turn)
    turned.write_bytes(data)
    truth = np.rot90(film.truth, -1, axes=(1, 2))
    rows, columns = np.nonzero(truth[0])
    found = track(turned, Click(columns.mean(), rows.mean(), 0.0), film.times)
    assert (found.width, found.height) == (H, W) and found.masks.shape == (6, W, H)
    assert ious(found.masks, truth).mean() > 0.85
    with pytest.raises(UserError, match=f"{H} x {W} pixels"):
        track(turned, Click(W - 1, 5, 0.0), [0.0])


def test_opencv_missing_is_said(tmp_path, monkeypatch):
    film = draw(tmp_path / "film.mp4", 2, gradient, lambda i: [(disc(40, 50, 12), RED)])
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(UserError, match=r'pip install "samaudio\[video\]"'):
        track(film.path, Click(40, 50, 0.0), [0.0])


def test_shapes_of_the_test_films():
    assert COLUMNS.shape == (H, W) and disc(5, 5, 2).sum() == 13
