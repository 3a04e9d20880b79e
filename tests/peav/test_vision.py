"""The PE vision tower: its weights under timm's names, other image sizes, and its rotary grid.

The tower's numbers on the reference's weights are checked in test_published.py.
"""

from __future__ import annotations

import pytest
import torch

from peav.published_keys import from_timm
from peav.vision import VisionConfig, VisionTransformer, grid_angles

CONFIG = VisionConfig(
    width=16, num_layers=2, num_heads=2, mlp_width=24, output_dim=5, patch_size=(4, 4), grid=(3, 3), pool_heads=4
)


@pytest.fixture(autouse=True)
def _no_grad_and_seed():
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def with_(**changes) -> VisionConfig:
    return VisionConfig(**{**CONFIG.__dict__, **changes})


@pytest.mark.parametrize("config", [
    pytest.param(CONFIG, id="class token"),
    pytest.param(with_(class_token=False), id="no class token"),
    pytest.param(with_(grid=(4, 4), proj_bias=True, pool_mlp_width=20), id="with bias"),
])  # fmt: skip
def test_sizes_are_read_off_the_weights(config):
    model = VisionTransformer(config)
    read = VisionConfig.from_state(model.state_dict(), num_heads=2, pool_heads=4)
    again = VisionTransformer(read)
    again.load_state_dict(model.state_dict())
    images = torch.randn(2, 3, *config.image_size)
    assert torch.equal(again(images), model(images))


def test_a_grid_that_is_not_square_must_be_told():
    state = VisionTransformer(with_(grid=(2, 3))).state_dict()
    with pytest.raises(ValueError, match="6 patches"):
        VisionConfig.from_state(state, num_heads=2)
    assert VisionConfig.from_state(state, num_heads=2, grid=(2, 3)).image_size == (8, 12)


def test_the_rotary_grid_turns_columns_first_and_leaves_the_class_token():
    angles = grid_angles(CONFIG, 2, 3)
    assert angles.shape == (1 + 6, 4)
    assert not angles[0].any()
    # Two frequencies per axis, 1 and 10000^(-1/2); row 1, column 2 of the grid, both counted from 1.
    assert torch.allclose(angles[1 + 3 + 2], torch.tensor([3.0, 0.03, 2.0, 0.02]))
    plain = grid_angles(with_(class_token=False), 2, 3)
    assert torch.allclose(plain[3 + 2], torch.tensor([2.0, 0.02, 1.0, 0.01]))


def test_the_rotary_grid_can_be_scaled_to_the_trained_one():
    scaled = grid_angles(with_(rope_reference=(4, 9)), 2, 3)
    assert torch.allclose(scaled[1 + 3 + 2], torch.tensor([3.0, 0.03, 2.0, 0.02]) * torch.tensor([3, 3, 2, 2]))
    same = grid_angles(with_(rope_reference=(2, 3)), 2, 3)
    assert torch.allclose(same, grid_angles(CONFIG, 2, 3))


def test_pairs_of_patches_that_lie_the_same_way_attend_the_same_way():
    angles = grid_angles(CONFIG, 3, 3)[1:]
    differences = angles[:, None] - angles
    assert torch.allclose(differences[4, 0], differences[8, 4])  # one down, one right
    assert not torch.allclose(differences[1, 0], differences[3, 0])  # right is not down


def test_other_image_sizes_resize_the_positions():
    model = VisionTransformer(CONFIG)
    flat = model.positional_embedding
    flat[1:] = torch.arange(1.0, 4).repeat(3)[:, None].expand(9, 16)  # depends on the column alone
    wide = model._positions(2, 6)
    assert torch.equal(wide[0], flat[0])
    assert torch.allclose(wide[1:7, 0], torch.tensor([1.0, 1.25, 1.75, 2.25, 2.75, 3.0]))
    assert torch.allclose(wide[1:7], wide[7:])
    assert model(torch.randn(1, 3, 8, 24)).shape == (1, 5)
    with pytest.raises(ValueError, match="10x12 pixels"):
        model(torch.randn(1, 3, 10, 12))


def test_pooling_takes_queries_keys_and_values_from_timms_two_matrices():
    q, kv = torch.randn(4, 4), torch.randn(8, 4)
    joined = from_timm({"attn_pool.q.weight": q, "attn_pool.kv.weight": kv})
    assert torch.equal(joined.pop("attn_pool.attn.in_proj_weight"), torch.cat((q, kv)))
    assert not joined
    assert set(from_timm({"blocks.3.something": q})) == {"blocks.3.something"}


@pytest.mark.parametrize(("change", "told"), [
    ({"num_heads": 8}, "multiple of 4 wide"), ({"pool_heads": 3}, "pool_heads 3"),
])  # fmt: skip
def test_impossible_sizes_are_refused(change, told):
    with pytest.raises(ValueError, match=told):
        with_(**change)
