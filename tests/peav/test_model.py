"""The embedder: what goes in does not depend on its company, what comes out lies in one space."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from peav.codec import DACVAE, CodecConfig, lapped_init_
from peav.config import PEAVConfig
from peav.model import PEAV
from peav.transformer import TransformerConfig

CODEC = CodecConfig(
    sample_rate=8_000, stem_kernel=160, stem_stride=80, encoder_dim=80, encoder_rates=(), latent_dim=80,
    codebook_dim=80, decoder_dim=80, decoder_rates=(), final_tanh=False,
)  # fmt: skip
CONFIG = PEAVConfig(
    CODEC, TransformerConfig(32, 1, 2, 64), output_dim=16, token_frames=2, log_input=True, normalise=True
)


def build(**changes) -> PEAV:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = PEAV(dataclasses.replace(CONFIG, **changes))
        model.use_codec(lapped_init_(DACVAE(CODEC)))
    return model.eval()


@pytest.fixture(scope="module")
def model() -> PEAV:
    return build()


@pytest.fixture(scope="module")
def clips() -> list[torch.Tensor]:
    """Clips whose lengths share no frame count; one is shorter than a frame."""
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(T, generator=draw) for T in (1_000, 2_437, 50, 4_000)]


def test_clips_do_not_depend_on_their_batch(model, clips):
    together = model.embed(audio=clips)
    alone = torch.cat([model.embed(audio=[clip]) for clip in clips])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(model.embed(audio=clips[::-1]), together.flip(0), rtol=0, atol=1e-5)


def test_different_clips_and_texts_have_different_embeddings(model, clips):
    for found in (model.embed(audio=clips), model.embed(text=["rain", "violin", "dog barking"])):
        assert float((found @ found.T).fill_diagonal_(-1).max()) < 0.9999


def test_texts_do_not_depend_on_their_batch(model):
    texts = ["rain", "a dog barking in the park", "violin"]
    alone = torch.cat([model.embed(text=[t]) for t in texts])
    torch.testing.assert_close(model.embed(text=texts), alone, rtol=0, atol=1e-5)


def test_embeddings_have_unit_length(model, clips):
    for found in (model.embed(audio=clips), model.embed(text=["rain", "violin"])):
        torch.testing.assert_close(found.norm(dim=1), torch.ones(len(found)))


def test_published_embeddings_keep_their_length(model, clips):
    plain = build(normalise=False)
    found = plain.embed(audio=clips[:1])
    assert abs(float(found.norm()) - 1) > 1e-2
    torch.testing.assert_close(found / found.norm(), model.embed(audio=clips[:1]))


def test_loudness_does_not_matter(model, clips):
    quiet = [0.01 * clip for clip in clips]
    torch.testing.assert_close(model.embed(audio=quiet), model.embed(audio=clips), rtol=0, atol=1e-4)


def test_log_odds_start_as_the_pairwise_loss_wants_them(model):
    # Temperature 10, bias -10: unit vectors that agree are undecided, strangers are near impossible.
    logits = model.logits("text_audio", torch.eye(2), torch.eye(2))
    torch.testing.assert_close(logits, torch.tensor([[0.0, -10.0], [-10.0, 0.0]]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_frames_are_gathered_into_tokens(frames):
    model = build(token_frames=frames)
    latent = torch.randn(1, 80, 7)
    assert model.audio(latent).frames.shape == (1, -(-7 // frames), 32)


def test_only_the_codec_is_frozen(model):
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters() if name.startswith("audio.codec.")} != set()


def test_the_config_survives_json():
    again = PEAVConfig.from_dict(json.loads(json.dumps(CONFIG.to_dict())))
    assert again == CONFIG and isinstance(again.codec, CodecConfig) and again.audio.width_per_head == 16


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "give one or two of text="),
        ({"text": ["rain"], "audio": [torch.zeros(9)]}, "this model embeds audio or text; for audio and text load"),
        ({"text": "rain"}, "text='rain'; give a list"),
        ({"text": []}, "give a list with at least one phrase"),
        ({"audio": []}, "no clips; give a list"),
        ({"audio": [torch.zeros(1, 9)]}, r"clip 0 has shape \(1, 9\)"),
        ({"audio": [torch.zeros(0)]}, r"clip 0 has shape \(0,\)"),
    ],
    ids=["nothing", "both", "bare_string", "no_text", "no_audio", "two_axes", "no_samples"],
)
def test_what_cannot_be_embedded_is_refused(model, asked, message):
    with pytest.raises(ValueError, match=message):
        model.embed(**asked)
