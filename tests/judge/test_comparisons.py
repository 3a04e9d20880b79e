"""What a Judge that does not listen is told, computed once and judged again and again."""

from __future__ import annotations

import pytest
import torch

from judge.collection import Collection, Example, Question, write
from judge.comparisons import Comparisons
from judge.estimate import CLIP, MORE, Estimator
from judge.figures import table
from judge.grid import Words, compare, judge_compared, judge_grid
from judge.model import JudgeConfig, JudgeModel
from judge.refit import learn, numbers
from judge.train import CollectionBatches
from peav.codec import DACVAE, CodecConfig, lapped_init_
from peav.config import PEAVConfig
from peav.mask import MaskConfig, MaskSeparator
from peav.model import PEAV
from peav.transformer import TransformerConfig

D, RATE = 64, 8_000
CODEC = CodecConfig(
    sample_rate=RATE, stem_kernel=128, stem_stride=64, encoder_dim=64, encoder_rates=(), latent_dim=64,
    codebook_dim=D, decoder_dim=64, decoder_rates=(), final_tanh=False,
)  # fmt: skip
TOWER = TransformerConfig(32, 1, 2, 64)
PHRASES = ("a dog", "rain", "a bell")


def judge_model(listen: bool = False, bands: int = 4) -> JudgeModel:
    torch.manual_seed(0)
    model = JudgeModel(JudgeConfig(CODEC, TOWER, TOWER, bottleneck_dim=16, token_frames=2, log_input=True, bands=bands,
                                   presence=True, estimate=6, overall=8, listen=listen))  # fmt: skip
    model.use_codec(lapped_init_(DACVAE(CODEC)))
    embedder = PEAV(PEAVConfig(CODEC, TOWER, output_dim=16, log_input=True, normalise=True, frames=True,
                               token_frames=2))  # fmt: skip
    embedder.use_codec(lapped_init_(DACVAE(CODEC)))
    separator = MaskSeparator(MaskConfig(D, 16, width=16, dilations=(1, 2), num_heads=2, hypotheses=2, hint_dim=16))
    model.use_estimator(Estimator(embedder.eval(), separator))
    return model.eval()


@pytest.fixture
def words(monkeypatch) -> None:
    """A vector for each phrase, without the sentence encoder."""
    rng = torch.Generator().manual_seed(0)
    known = {phrase: torch.nn.functional.normalize(torch.randn(384, generator=rng), dim=0) for phrase in PHRASES}
    monkeypatch.setattr(JudgeModel, "text_vectors", lambda self, texts: torch.stack([known[t] for t in texts]))


@pytest.fixture(scope="module")
def collections(tmp_path_factory) -> list[Collection]:
    folder = tmp_path_factory.mktemp("collections")

    def make(i: int) -> Example:
        rng = torch.Generator().manual_seed(i)
        a, b = 0.1 * torch.randn(2, 4_000, generator=rng)
        outputs = torch.stack((a, b, 0.03 * (i - 19) * a, a + b))
        questions = [Question(phrase, phrase, k < 2) for k, phrase in enumerate(PHRASES)]
        return Example(a + b, outputs, torch.stack((a, b, 0 * a)), questions, ["stem"] * 4, [0, 1, 0, 1])

    for name, count in (("one", 3), ("other", 2)):
        write(folder / name, {"sample_rate": RATE, "seconds": 0.5}, lambda i, n=count: make(10 * n + i), count)
    return [Collection(folder / name) for name in ("one", "other")]


@torch.no_grad()
def test_what_was_compared_is_judged_as_what_is_heard(collections, words):
    model = judge_model()
    items = [collections[0][i].example for i in range(2)]
    mixture = model.latents(torch.stack([e.mixture for e in items])[:, None])
    outputs = torch.stack([model.latents(e.outputs[:, None]) for e in items])
    text = torch.stack([Words(model)(PHRASES)] * 2)
    known = compare(model, mixture, outputs, text)
    for a, b in zip(vars(judge_compared(model, known)).values(),
                    vars(judge_grid(model, mixture, outputs, text)).values(), strict=True):  # fmt: skip
        torch.testing.assert_close(a, b)
    one = model(mixture[1:], outputs[1, 2][None], text[1, 1][None])
    torch.testing.assert_close(judge_compared(model, known).scores[1, 1, 2], one.scores[0], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_places_and_outputs_are_those_of_a_batch(collections, words):
    model = judge_model()
    known = Comparisons(model, collections)
    batch = CollectionBatches(collections, 4, 2, model.config.token_samples, seed=3)(1)
    assert batch["places"].shape == (4, 2) and batch["kept"].shape == (4, 2)
    assert {int(c) for c in batch["places"][:, 0]} == {0, 1}
    told = judge_compared(model, known.batch(batch["places"], batch["kept"]))
    text = torch.stack([Words(model)(phrases) for phrases in batch["phrases"]])
    mixture = model.latents(batch["mixture"][:, None])
    outputs = model.latents(batch["outputs"].flatten(0, 1)[:, None]).unflatten(0, batch["outputs"].shape[:2])
    heard = judge_grid(model, mixture, outputs, text)
    # Kept in half precision.
    torch.testing.assert_close(told.scores, heard.scores, rtol=0, atol=0.02)
    assert float((told.scores[0] - told.scores[1]).abs().max()) > 0.05


@torch.no_grad()
def test_a_table_of_what_is_known_is_the_same(collections, words, monkeypatch):
    model = judge_model()
    known = Comparisons(model, collections, most=2)
    plain = table(model, collections[1])
    monkeypatch.setattr(model, "estimated", None)  # nothing is compared again
    again = table(model, collections[1], known=(known, 1))
    assert abs(plain.told - again.told).max() < 0.02 and (plain.of == again.of).all()
    assert abs(table(model, collections[0], most=2, known=(known, 0)).told - again.told).max() > 0.05


def test_a_judge_that_listens_needs_more(collections, words):
    listening = judge_model(listen=True)
    known = Comparisons(listening, collections)
    with pytest.raises(ValueError, match="listens"):
        judge_compared(listening, known.batch(torch.tensor([[0, 0]])))


def test_overall_can_be_learned_anew_from_what_is_known(collections, words):
    model = judge_model()
    found = numbers(Comparisons(model, collections))
    asked = sum(2 * len(c) for c in collections) * 4  # two sounds that are there, four outputs
    assert len(found.overall) == asked and found.clip.shape == (asked, len(CLIP) + len(MORE))
    assert int(found.own.sum()) == asked // 2
    item = collections[0][0]
    torch.testing.assert_close(found.overall[:4], item.scores[0, :, 0])
    mixture = model.latents(item.example.mixture[None, None])
    outputs = model.latents(item.example.outputs[:, None])[None]
    clip = model.estimated(mixture, outputs, Words(model)(PHRASES)[None]).clip[0]
    torch.testing.assert_close(found.clip[:8], clip[:2].flatten(0, 1), rtol=0, atol=0.01)
    learn(model, found, steps=3, batch=8)


@torch.no_grad()
def test_a_judge_without_bands_can_be_compared(collections, words):
    known = Comparisons(judge_model(listen=True, bands=0), collections)
    assert known.of(0, 0).bands.shape == (4, 0) and known.of(0, 0).clip.shape[:2] == (3, 4)
