"""The network that draws the outline of a clicked object."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from seeing import seeing_model, sounding_film

from peav.errors import UserError
from samaudio.checkpoints import load_model, save_model
from samaudio.prompts import Click
from samaudio.train_outline import clicked, losses, shared
from samaudio.viewer import Viewer
from samaudio.visual.classical import Classical
from samaudio.visual.outline import SIDE, Outline, OutlineConfig, placed, stirred, view
from samaudio.visual.segment import OUTLINE, SURE, Seeds, segment

SMALL = OutlineConfig(widths=(8, 16))


def scene(rng: np.random.Generator, size: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """A picture with a bright disc on a patchwork, and the disc's mask."""
    picture = np.kron(rng.integers(0, 120, (size // 8, size // 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    rows, columns = np.mgrid[:size, :size]
    r = rng.uniform(8, 20)
    x, y = rng.uniform(r, size - r, 2)
    mask = (rows - y) ** 2 + (columns - x) ** 2 <= r * r
    picture[mask] = rng.integers(170, 256, 3)
    return picture, mask


@pytest.mark.parametrize("side", [30, 64, 151])
@pytest.mark.parametrize("point", [(40.5, 33.5), (3.5, 90.5)], ids=["inside", "at the border"])
def test_what_is_drawn_in_a_view_lies_where_it_was_seen(point, side):
    picture, mask = scene(np.random.default_rng(1))
    seen = view(picture, *point, side)
    assert seen.shape == (4, SIDE, SIDE) and seen.dtype == np.float32
    bright = seen[:3].mean(0) > 0
    found = placed(np.where(bright, 5.0, -5.0).astype(np.float32), *point, side, *mask.shape) > 0
    whole = placed(np.ones((SIDE, SIDE), np.float32), *point, side, *mask.shape) > 0
    assert (found & mask).sum() >= 0.8 * (mask & whole).sum()
    assert (found & ~mask).sum() <= 0.25 * mask.sum()
    # Beyond the picture nothing is seen, and nothing is drawn.
    assert abs(float(seen[3].mean()) - whole.sum() / side**2) < 0.05


@pytest.mark.parametrize("side", [30, 151])
def test_how_things_move_is_seen_where_they_are(side):
    picture, mask = scene(np.random.default_rng(1))
    flow = np.zeros((*mask.shape, 2), np.float32)
    flow[...] = 3.0, -1.0  # the camera
    flow[mask] += (0.0, 8.0)
    motion = stirred(flow, *mask.shape)
    np.testing.assert_allclose(motion[~mask], np.broadcast_to((0, 0, 1), motion[~mask].shape), atol=1e-6)
    assert not motion[mask][:, 0].any() and np.ptp(motion[mask][:, 1]) == 0 and 1 <= motion[mask][0, 1] <= 2
    rows, columns = np.nonzero(mask)
    point = float(columns.mean()), float(rows.mean())
    seen = view(picture, *point, side, motion)
    assert seen.shape == (7, SIDE, SIDE)
    np.testing.assert_array_equal(seen[:4], view(picture, *point, side))
    whole = placed(np.ones((SIDE, SIDE), np.float32), *point, side, *mask.shape) > 0
    found = placed(seen[5] - 0.5, *point, side, *mask.shape) > 0
    assert (found & mask).sum() >= 0.8 * (mask & whole).sum() and (found & ~mask).sum() <= 0.25 * mask.sum()
    assert not stirred(None, 4, 5).any() and stirred(None, 4, 5).shape == (4, 5, 3)


def test_noise_of_a_still_picture_is_not_blown_up():
    flow = 0.05 * np.random.default_rng(0).standard_normal((20, 30, 2)).astype(np.float32)
    assert np.abs(stirred(flow, 20, 30)[..., :2]).max() < 0.3


def test_a_network_that_knows_of_motion_hears_of_it(tmp_path):
    torch.manual_seed(0)
    outline = Outline(OutlineConfig(widths=(8, 16), motion=True)).eval()
    outline.save(tmp_path / "outline", torch.float32)
    outline = Outline.load(tmp_path / "outline")
    assert outline.config.motion and outline.config.channels == 7
    seen, forward = [], outline.forward
    outline.forward = lambda views: seen.append(views) or forward(views)
    picture, mask = scene(np.random.default_rng(1))
    flow = np.where(mask[..., None], 5.0, 0.0).astype(np.float32).repeat(2, -1)
    neighbour = picture.copy()
    neighbour[np.roll(mask, 4, axis=1)] = picture[mask][0]
    point = tuple(np.argwhere(mask).mean(0)[::-1])
    outline.draw(picture, [point], flow)
    outline.draw(picture, [point])
    segment(picture, Seeds(wanted=[point]), neighbour, outline)
    with_flow, without, found = seen[0], *(v for v in seen[1:] if len(v) == len(seen[0]))
    assert float(with_flow[:, 6].max()) == 1 and float(with_flow[:, 4:6].abs().max()) > 0.9
    assert not without[:, 4:].any() and torch.equal(with_flow[:, :4], without[:, :4])
    assert float(found[:, 6].max()) == 1 and float(found[:, 4:6].abs().max()) > 0.5


def test_overlap_counts_what_the_view_does_not_show():
    masks = torch.zeros(2, 8, 8)
    masks[:, :4] = 1
    logits = masks * 2 - 1
    assert shared(logits, masks, torch.tensor([0.0, 32.0])).tolist() == [1.0, 0.5]


def test_clicks_are_on_the_object():
    rng = np.random.default_rng(0)
    for _ in range(20):
        _, mask = scene(rng)
        x, y, extent = clicked(mask, rng)
        assert mask[int(y), int(x)]
        assert extent == pytest.approx(np.sqrt(mask.sum() / np.pi) * 2, abs=2.5)


@pytest.fixture(scope="module")
def learned() -> Outline:
    """A small one that has learned what bright discs are."""
    rng = np.random.default_rng(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        outline = Outline(SMALL)
        optimizer = torch.optim.Adam(outline.parameters(), 5e-3)
        for _ in range(60):
            views, masks, beyond = [], [], []
            for _ in range(8):
                picture, mask = scene(rng)
                x, y, extent = clicked(mask, rng)
                side = int(extent * rng.uniform(1.2, 4))
                views.append(view(picture, x, y, side))
                masks.append(view(np.repeat(255 * mask[..., None].astype(np.uint8), 3, -1), x, y, side)[0] > 0)
                beyond.append(max(0.0, mask.sum() * (SIDE / side) ** 2 - masks[-1].sum()))
            batch = {"views": torch.from_numpy(np.stack(views)), "masks": torch.from_numpy(np.stack(masks)).float(),
                     "beyond": torch.tensor(beyond, dtype=torch.float32)}  # fmt: skip
            optimizer.zero_grad()
            sum(losses(outline, batch).values()).backward()
            optimizer.step()
    return outline.eval()


def test_it_draws_what_it_learned_and_knows_how_well(learned):
    rng = np.random.default_rng(5)
    best = []
    for _ in range(10):
        picture, mask = scene(rng)
        x, y, _ = clicked(mask, rng)
        drawn, fit = learned.draw(picture, [(x, y)])
        best.append((drawn & mask).sum() / (drawn | mask).sum())
        assert 0 <= fit <= 1
    assert np.mean(best) > 0.75


def test_a_click_is_segmented_by_it_where_it_is_sure_and_as_ever_where_not(learned):
    picture, mask = scene(np.random.default_rng(9))
    x, y, _ = clicked(mask, np.random.default_rng(0))
    seeds = Seeds(wanted=[(x, y)])
    found, used = segment(picture, seeds, None, learned)
    assert used == OUTLINE and (found & mask).sum() / (found | mask).sum() > 0.6 and found[int(y), int(x)]
    # Never over what must not be in it.
    other = np.argwhere(found)[0]
    kept, used = segment(picture, Seeds([(x, y)], [(other[1] + 0.5, other[0] + 0.5)]), None, learned)
    assert not kept[tuple(other)]
    unsure = Outline(SMALL)
    torch.nn.init.zeros_(unsure.fit[2].weight)
    torch.nn.init.constant_(unsure.fit[2].bias, -3.0)
    assert torch.sigmoid(torch.tensor(-3.0)) < SURE
    plain, without = segment(picture, seeds)
    same, used = segment(picture, seeds, None, unsure.eval())
    assert used == without and np.array_equal(same, plain)


def test_it_is_kept_with_a_model_and_used_where_nothing_else_was_named(tmp_path, learned):
    model = seeing_model()
    model.outline = learned
    save_model(model, tmp_path / "model")
    again = load_model(tmp_path / "model")
    picture, mask = scene(np.random.default_rng(2))
    point = clicked(mask, np.random.default_rng(0))[:2]
    ours, theirs = (outline.draw(picture, [point]) for outline in (learned, again.outline))
    assert ours[1] == pytest.approx(theirs[1], abs=0.02)
    assert Viewer(again).segmenter.outline is again.outline
    film = sounding_film(tmp_path / "film.mkv")
    click = (Click(25, 30, 0.3),)
    known = model.watch(film, click, segmenter=Classical()).track.masks[2].numpy()
    again.outline.draw = lambda picture, points, flow: (known, 0.9)
    assert again.watch(film, click).used == "outline network with optical flow"
    (tmp_path / "model" / "outline" / "config.json").write_text("{}")
    with pytest.raises(UserError, match="outline"):
        load_model(tmp_path / "model")


def test_what_it_does_not_see_is_left_to_the_others():
    blind = Outline(SMALL)
    torch.nn.init.zeros_(blind.leave.weight)
    torch.nn.init.constant_(blind.leave.bias, -5.0)
    picture, mask = scene(np.random.default_rng(3))
    x, y, _ = clicked(mask, np.random.default_rng(0))
    assert blind.eval().draw(picture, [(x, y)]) is None
    assert segment(picture, Seeds([(x, y)]), None, blind)[1] != OUTLINE
