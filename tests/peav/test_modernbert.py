"""The text tower against transformers' ModernBERT, where that can be trusted: after the final norm."""

from __future__ import annotations

import pytest
import torch

from peav.modernbert import ModernBert, ModernBertConfig

SETTINGS = {
    "vocab_size": 40,
    "hidden_size": 24,
    "intermediate_size": 20,
    "num_hidden_layers": 5,
    "num_attention_heads": 3,
    "local_attention": 6,
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 5000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
    },
}
OLD_SPELLING = {
    "vocab_size": 40,
    "hidden_size": 24,
    "intermediate_size": 20,
    "num_hidden_layers": 5,
    "num_attention_heads": 3,
    "local_attention": 6,
    "global_attn_every_n_layers": 3,
    "global_rope_theta": 5000.0,
    "local_rope_theta": 300.0,
}


@pytest.fixture(autouse=True)
def _no_grad_and_seed():
    torch.manual_seed(0)
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def reference():
    from transformers import ModernBertConfig as ReferenceConfig
    from transformers import ModernBertModel

    tokens = {"pad_token_id": 0, "bos_token_id": 1, "cls_token_id": 1, "eos_token_id": 2, "sep_token_id": 2}
    model = ModernBertModel(ReferenceConfig(**SETTINGS, **tokens)).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3 + (parameter.ndim == 1)
    return model


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("settings", [SETTINGS, OLD_SPELLING], ids=["new spelling", "old spelling"])
def test_states_are_those_of_transformers(reference, settings, padded):
    model = ModernBert(ModernBertConfig.from_dict(settings, final_norm=True)).eval()
    model.load_state_dict(reference.state_dict())
    tokens = torch.randint(0, 40, (2, 30))
    mask = torch.ones(2, 30, dtype=torch.long)
    if padded:
        mask[1, 7:] = 0
    want = reference(input_ids=tokens, attention_mask=mask).last_hidden_state[mask.bool()]
    got = model(tokens, mask if padded else None)[mask.bool()]
    assert (got - want).abs().max() / want.abs().max().clamp(min=1) < 2e-5


def test_without_the_norm_the_state_is_the_one_that_would_be_normalised(reference):
    before = ModernBert(ModernBertConfig.from_dict(SETTINGS)).eval()
    state = {n: t for n, t in reference.state_dict().items() if not n.startswith("final_norm")}
    before.load_state_dict(state)
    after = ModernBert(ModernBertConfig.from_dict(SETTINGS, final_norm=True)).eval()
    after.load_state_dict(reference.state_dict())
    tokens = torch.randint(0, 40, (1, 9))
    assert torch.equal(after.final_norm(before(tokens)), after(tokens))


def test_padding_changes_nothing_and_leaves_no_holes():
    model = ModernBert(ModernBertConfig.from_dict(SETTINGS)).eval()
    tokens = torch.randint(0, 40, (1, 60))
    mask = torch.arange(60)[None] < 9
    padded = model(tokens, mask)
    assert padded.isfinite().all()  # far from every real token there is nothing to attend to
    assert torch.allclose(padded[:, :9], model(tokens[:, :9]), atol=1e-5)


def test_sliding_layers_see_half_the_window_on_each_side():
    config = ModernBertConfig.from_dict(SETTINGS | {"layer_types": ["sliding_attention"] * 5}, num_layers=1)
    model = ModernBert(config).eval()
    tokens = torch.full((1, 20), 3)
    other = tokens.clone()
    other[0, 10] = 4
    moved = (model(tokens) - model(other)).abs().amax(-1)[0] > 0
    assert moved.nonzero().flatten().tolist() == list(range(7, 14))


def test_layers_can_be_cut_off_the_end():
    config = ModernBertConfig.from_dict(SETTINGS, num_layers=4)
    assert config.full_attention == (True, False, False, True)
    with pytest.raises(ValueError, match="6 text layers wanted, 5 described"):
        ModernBertConfig.from_dict(SETTINGS, num_layers=6)


def test_wrong_shapes_and_settings_are_told():
    model = ModernBert(ModernBertConfig.from_dict(SETTINGS))
    with pytest.raises(ValueError, match=r"give \[B, S\]"):
        model(torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="mask has shape"):
        model(torch.zeros(1, 3, dtype=torch.long), torch.ones(1, 4))
    with pytest.raises(ValueError, match="hidden_activation 'relu'"):
        ModernBertConfig.from_dict(SETTINGS | {"hidden_activation": "relu"})
    with pytest.raises(ValueError, match="even heads"):
        ModernBertConfig.from_dict(SETTINGS | {"num_attention_heads": 8})
