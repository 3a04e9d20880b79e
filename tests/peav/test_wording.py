"""Unusual wordings are led to plain ones, and everything else stays where it was."""

from __future__ import annotations

import pytest
import torch

from peav import captions, checkpoints, train_wording
from peav.codec import CodecConfig
from peav.config import PEAVConfig
from peav.model import PEAV
from peav.transformer import TransformerConfig
from peav.vocabulary import ABSENT, SYNONYMS
from peav.wording import Wording, phrasings

CODEC = CodecConfig(
    sample_rate=8_000, stem_kernel=160, stem_stride=80, encoder_dim=80, encoder_rates=(), latent_dim=80,
    codebook_dim=80, decoder_dim=80, decoder_rates=(), final_tanh=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def model() -> PEAV:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return PEAV(PEAVConfig(CODEC, TransformerConfig(32, 1, 2, 64), output_dim=32, log_input=True, normalise=True,
                               frames=True)).eval()  # fmt: skip


def test_a_fresh_wording_changes_nothing():
    vectors = torch.randn(3, 384)
    assert torch.equal(Wording(384, 16)(vectors), vectors)


def test_the_phrases_are_many_and_each_means_one_sound():
    labels, absent = phrasings()
    assert set(SYNONYMS) <= set(labels)
    assert min(map(len, labels.values())) >= 10 and len(absent) >= 200
    owner: dict[str, str] = {}
    for label, phrases in labels.items():
        for phrase in phrases:
            assert phrase == phrase.strip().lower() and phrase
            assert phrase not in owner or captions.overlap(owner[phrase], label), phrase
            owner[phrase] = label
    assert not set(absent) & set(owner) and not set(ABSENT) & set(owner)


def test_texts_pass_the_wording_on_every_way(model):
    worded = train_wording.with_wording(model, 8)
    texts = ["guitar", "somebody sneezing"]
    plain = worded.embed(text=texts)
    torch.testing.assert_close(plain, model.embed(text=texts))  # nothing is learned yet
    torch.nn.init.normal_(worded.wording.leave.weight, std=0.1)
    moved = worded.embed(text=texts)
    assert float((moved - plain).abs().max()) > 1e-3
    vectors = worded.text_vectors(texts)
    torch.testing.assert_close(worded.text_embedding(vectors), moved)
    torch.testing.assert_close(worded(text_vectors=vectors).embeddings["text_audio"], moved)


def test_what_was_kept_from_it_is_understood_too_and_the_rest_stays(model, monkeypatch, tmp_path):
    monkeypatch.setattr(train_wording, "phrasings", few)
    teaching = train_wording.Teaching(model, share=0.25)
    worded = train_wording.with_wording(model, 128)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        before = teaching.understood(model, teaching.held)
        train_wording.teach(worded, teaching, 150)
    assert teaching.understood(worded, teaching.held) > before + 0.04 and teaching.kept(worded) > 0.99
    assert teaching.understood(worded, teaching.taught) > 0.95
    known = worded.text_embedding(teaching.known.vectors)
    assert float((known * teaching.before["audio"]).sum(1).mean()) > 0.95
    state, old = worded.state_dict(), model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in old.items())
    checkpoints.save(worded, tmp_path / "embedder")
    assert checkpoints.read_json(tmp_path / "embedder" / "config.json")["wording"] == 128


def few():
    labels, absent = phrasings()
    chosen = ("violin", "helicopter", "rain", "snare drum", "baby crying", "rooster crowing", "piano", "trumpet")
    return {label: labels[label] for label in chosen}, absent[:40]
