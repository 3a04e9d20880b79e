"""What can be pointed at, and what is said about the rest; masks that were drawn elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from visual_films import RED, H, W, disc, draw, gradient

import samaudio
from peav.errors import UserError
from samaudio.prompts import Box, Click, Example, Mask, Span, Text, Video, as_prompts, describe
from samaudio.visual import parse_box, parse_click, track
from samaudio.visual.pictures import Pictures, grid


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("film") / "film.mp4", 6, gradient, lambda i: [(disc(60, 50, 15), RED)])


@pytest.mark.parametrize(
    "text, click",
    [("412,230@1.5", Click(412, 230, 1.5)), (" 4.5, 2 @ 0", Click(4.5, 2, 0)), ("1,2@1e1", Click(1, 2, 10))],
)
def test_clicks_are_read(text, click):
    assert parse_click(text) == click


def test_a_negative_click_and_a_box_are_read():
    assert parse_click("1,2@3", positive=False) == Click(1, 2, 3, positive=False)
    assert parse_box("10,20,30,40@0.5") == Box(10, 20, 30, 40, 0.5)


@pytest.mark.parametrize("text", ["", "412,230", "412@1", "1,2,3@1", "a,b@1", "1,2@", "1;2@3"])
def test_other_text_is_refused_with_the_form_that_is_wanted(text):
    with pytest.raises(UserError, match="X,Y@SECONDS"):
        parse_click(text)
    with pytest.raises(UserError, match="X0,Y0,X1,Y1@SECONDS"):
        parse_box(text)


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: parse_click("nan,2@1"), "two pixels"),
        (lambda: Click(-1, 2, 0), "-1,2@0"),
        (lambda: Click(1, 2, float("inf")), "time in seconds"),
        (lambda: Box(10, 10, 10, 30, 1), "no area"),
        (lambda: Box(10, 10, 20, 30, -1), "two corners"),
        (lambda: Mask(), "one of object"),
        (lambda: Mask(object="a.png", background="b.png"), "one of object"),
        (lambda: Mask(object=torch.zeros(3)), r"shape \[3\]"),
        (lambda: Mask(object=torch.zeros(3, 4, 5)), "one time in seconds"),
        (lambda: Mask(object=torch.zeros(4, 5), times=(0.0,)), "none for a single mask"),
        (lambda: Mask(object=torch.zeros(2, 4, 5), times=(1.0, 0.0)), "do not rise"),
        (lambda: Mask(object="a.png", times=(1.0,)), "a file has its own"),
    ],
)
def test_impossible_prompts_are_refused(make, says):
    with pytest.raises(UserError, match=says):
        make()


def test_prompts_and_their_names():
    assert as_prompts(Click(1, 2, 3)) == (Click(1, 2, 3),)
    assert describe(as_prompts([Click(1, 2, 3, False), Click(4.25, 5, 6)])) == "click 4.25,5 at 6s"
    assert describe(as_prompts([Box(1, 2, 3, 4, 5), Span(0, 1)])) == "box 1,2,3,4 at 5s"
    assert describe(as_prompts([Mask(object="a.png")])) == "mask" and describe(as_prompts(Video())) == "video"
    assert describe(as_prompts([Click(1, 2, 3), "guitar"])) == "guitar"
    assert samaudio.Click is Click and samaudio.Mask is Mask


@pytest.mark.parametrize(
    "prompts, says",
    [
        (Click(W, 5, 0), f"outside of the picture, which has {W} x {H} pixels"),
        (Box(5, 5, W + 1, 20, 0), "outside of the picture"),
        (Click(5, 5, 9), "after the end of .* lasts 0.40 s"),
        ([Click(5, 5, 0, False), Click(8, 8, 0, False)], "all clicks are negative"),
        ([Box(5, 5, 20, 20, 0.1), Box(30, 5, 40, 20, 0.1)], "two boxes at 0.1 s; draw one around"),
        ([Text("guitar"), Span(0, 1)], "nothing is pointed at"),
        ([Mask(object=torch.ones(H, W)), Click(1, 1, 0)], "one mask says all"),
        (Mask(object=torch.ones(H, H)), "at its proportions"),
        (Mask(object=torch.zeros(H, W)), "it must be white on it"),
        (Mask(background=torch.ones(H, W)), "it must be black on it"),
        (Mask(object="none.png"), "none.png"),
    ],
)
def test_what_is_not_in_the_film_is_refused(film, prompts, says):
    with pytest.raises(UserError, match=says) as caught:
        track(film.path, prompts, [0.0])
    assert "\n" not in str(caught.value)


def test_too_many_masks_are_refused(film):
    with pytest.raises(UserError, match="GiB; ask for fewer"):
        track(film.path, Video(), [0.0] * 60_000)


def test_the_whole_video_is_white(film):
    found = track(film.path, Video(), [0.1, 0.0, 0.3])
    assert found.masks.shape == (3, H, W) and found.masks.all() and found.segmenter == "whole picture"
    assert (found.width, found.height, found.times) == (W, H, (0.1, 0.0, 0.3))
    assert not as_prompts([Example("a.wav"), Video()])[1].path


@pytest.mark.parametrize("kind", ["grey", "alpha", "deep", "tensor"])
def test_a_picture_is_one_mask_for_the_whole_film(film, tmp_path, kind):
    truth = film.truth[0]
    path = tmp_path / "mask.png"
    if kind == "grey":
        Image.fromarray(np.uint8(255 * truth)).resize((2 * W, 2 * H)).save(path)
    elif kind == "alpha":
        Image.fromarray(np.dstack([np.full((H, W, 3), 30, np.uint8), np.uint8(255 * truth)])).save(path)
    elif kind == "deep":
        Image.fromarray(np.uint16(65535 * truth)).save(path)
    given = torch.from_numpy(truth) if kind == "tensor" else path
    found = track(film.path, Mask(object=given), [0.0, 0.3], size=96)
    assert found.masks.shape == (2, H // 2, W // 2) and found.segmenter == "given mask"
    small = torch.nn.functional.interpolate(torch.from_numpy(truth)[None, None].float(), (H // 2, W // 2), mode="area")
    assert (found.masks[1] != (small[0, 0] > 0.5)).float().mean() < 0.01
    inverse = track(film.path, Mask(background=given), [0.0, 0.3], size=96)
    assert torch.equal(inverse.masks, ~found.masks)


def test_a_film_is_a_mask_for_each_frame(film, tmp_path):
    moving = draw(tmp_path / "mask.mp4", 6, lambda i: np.zeros((H, W, 3), np.uint8),
                  lambda i: [(disc(30 + 20 * i, 50, 15), (255, 255, 255))])
    found = track(film.path, Mask(object=moving.path), [moving.times[4], 0.0])
    assert found.segmenter == "given masks"
    for row, i in enumerate((4, 0)):
        assert (found.masks[row].numpy() != moving.truth[i]).mean() < 0.01


def test_masks_in_memory_hold_until_the_next(film):
    masks = torch.stack([torch.from_numpy(disc(x, 50, 10)) for x in (20, 60)])
    found = track(film.path, Mask(object=masks, times=(0.1, 0.2)), [0.0, 0.19, 0.2, 0.4])
    assert [bool(mask[50, 20]) for mask in found.masks] == [True, True, False, False]


def test_a_broken_mask_file_is_refused(film, tmp_path):
    path = tmp_path / "mask.png"
    Image.new("L", (W, H)).save(path)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match="mask.png"):
        track(film.path, Mask(object=path), [0.0])


def test_masks_are_laid_over_other_sizes(film):
    found = track(film.path, Mask(object=torch.from_numpy(film.truth[0])), [0.0])
    assert found.resized(48, 48).shape == (1, 48, 48) and found.resized(2 * H, 2 * W).shape == (1, 2 * H, 2 * W)
    for size in ((48, 48), (2 * H, 2 * W)):
        share = found.resized(*size).float().mean()
        assert float(share) == pytest.approx(float(film.truth[0].mean()), rel=0.1)
    assert float(found.areas()[0]) == pytest.approx(float(film.truth[0].mean()))


def test_looked_at_often_enough_between_what_is_wanted():
    times = grid([3.0, 0.2], [1.0], rate=10.0, end=2.5)
    assert times[0] == 0.2 and times[-1] == 2.5 and 1.0 in times
    assert max(np.diff(times)) < 0.151 and min(np.diff(times)) > 0.05
    assert grid([], [1.0], rate=10.0, end=2.0) == [1.0]


def test_pictures_are_decoded_by_need(tmp_path):
    class Counting:
        asked: list[float] = []

        def frames(self, times, max_side):
            self.asked += times
            return ((time, torch.full((3, 4, 6), int(time))) for time in times)

    film = Counting()
    pictures = Pictures(film, range(200), 6)
    assert pictures[100][1][0, 0, 0] == 100 and len(film.asked) < 30
    for i in range(99, -1, -1):
        assert pictures[i][0] == i
    assert len(film.asked) < 130 and len(pictures._blocks) <= 3
