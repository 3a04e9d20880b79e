"""The ten pairs: which they are, what each compares, and what a batch that lacks something costs."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from peav import model as peav_model
from peav.errors import UserError
from peav.losses import match_keys, sigmoid_contrastive
from peav.pairs import CAPTION_OF, FINE_TUNING, PAIRS, PRETRAINING, PairLosses, choose_pairs

NAMES = ("audio", "video", "audio_video", "text_audio", "text_video", "text_audio_video", "audio_plus_text",
         "video_plus_text")  # fmt: skip


def embeddings(rows: int = 4, names: tuple[str, ...] = NAMES) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {n: nn.functional.normalize(torch.randn(rows, 6, generator=generator), dim=-1) for n in names}


# --- the table -------------------------------------------------------------------------------------


def test_eight_pairs_in_pretraining_and_two_more_in_fine_tuning():
    ends = {frozenset(PAIRS[n].ends) for n in PRETRAINING}
    assert ends == {frozenset(pair) for pair in (
        ("audio", "video"),
        ("audio", "text_audio"), ("audio", "text_audio_video"),
        ("video", "text_audio"), ("video", "text_video"), ("video", "text_audio_video"),
        ("audio_video", "text_audio"), ("audio_video", "text_audio_video"),
    )}  # fmt: skip
    assert FINE_TUNING[:8] == PRETRAINING and FINE_TUNING[8:] == ("audio_plus_text", "video_plus_text")


def test_joined_queries_look_for_the_other_modality_with_its_caption():
    assert PAIRS["audio_plus_text"].columns == CAPTION_OF["audio_plus_text"] == "video"
    assert PAIRS["video_plus_text"].columns == CAPTION_OF["video_plus_text"] == "audio"
    assert {name for pair in PAIRS.values() for name in pair.ends} == set(NAMES)


def test_stored_pairs_are_those_of_the_model():
    assert {name: pair.ends for name, pair in PAIRS.items() if pair.stored_as == name} == peav_model.PAIRS
    for name, pair in PAIRS.items():  # the others start from the pair of the same text
        assert pair.columns == PAIRS[pair.stored_as].columns, name


@pytest.mark.parametrize(
    ("names", "wanted"),
    [("pretraining", PRETRAINING), (["fine_tuning"], FINE_TUNING), (["text_video", "audio_video"], FINE_TUNING[:5:4]),
     (["pretraining", "video_plus_text", "audio_video"], (*PRETRAINING, "video_plus_text"))],
    ids=["set", "set_in_a_list", "pairs", "set_and_pairs"])  # fmt: skip
def test_pairs_are_chosen_by_name(names, wanted):
    assert choose_pairs(names) == wanted


@pytest.mark.parametrize(
    ("names", "message"),
    [(["text_audio", "audio_txt"], "unknown pair 'audio_txt'; choose pretraining, fine_tuning"), ([], "no pairs")])
def test_unknown_pairs_are_named(names, message):
    with pytest.raises(UserError, match=message):
        choose_pairs(names)


# --- the losses ------------------------------------------------------------------------------------


def test_every_pair_is_the_loss_of_its_two_ends():
    pairs, found = PairLosses(FINE_TUNING), embeddings()
    for i, parameter in enumerate(pairs.parameters()):  # all different, so that a mix-up shows
        parameter.data += 0.1 * i
    with torch.no_grad():
        out = pairs(found)
    assert tuple(out.terms) == FINE_TUNING
    for name, term in out.terms.items():
        wanted = sigmoid_contrastive(found[PAIRS[name].rows], found[PAIRS[name].columns],
                                     pairs.log_scale[name].detach().exp(), pairs.bias[name].detach())  # fmt: skip
        assert float(term) == pytest.approx(float(wanted), rel=1e-6)
    assert float(out.total) == pytest.approx(sum(map(float, out.terms.values())), rel=1e-6)


def test_it_starts_as_siglip_does():
    pairs = PairLosses()
    assert all(p.item() == pytest.approx(math.log(10)) for p in pairs.log_scale.values())
    assert all(p.item() == -10 for p in pairs.bias.values())
    assert sum(p.numel() for p in pairs.parameters()) == 16  # one temperature and one bias each


def test_weights_scale_the_sum_and_not_the_terms():
    found = embeddings()
    plain, weighted = PairLosses(["audio_video", "text_audio"]), PairLosses(["audio_video", "text_audio"],
                                                                           {"text_audio": 0.25})
    with torch.no_grad():
        a, b = plain(found), weighted(found)
    assert {n: float(t) for n, t in a.terms.items()} == {n: float(t) for n, t in b.terms.items()}
    assert float(b.total) == pytest.approx(float(a.terms["audio_video"] + 0.25 * a.terms["text_audio"]))


@pytest.mark.parametrize(
    ("there", "wanted"),
    [(("audio", "text_audio"), {"text_audio"}),
     (("audio", "text_audio_video", "text_video"), {"text_audio_video_of_audio"}),
     (("video", "text_audio", "text_video"), {"text_audio_of_video", "text_video"}),
     (("audio", "video", "audio_video"), {"audio_video"})],
    ids=["sounds", "av_captions", "silent_film", "no_captions"])  # fmt: skip
def test_pairs_without_inputs_are_skipped(there, wanted):
    pairs = PairLosses(FINE_TUNING)
    out = pairs(embeddings(names=there))
    assert set(out.terms) == wanted
    out.total.backward()
    assert {n for n, p in pairs.bias.items() if p.grad is not None} == wanted


def test_a_batch_for_no_pair_is_refused():
    with pytest.raises(ValueError, match=r"\['text_audio', 'text_video'\] make none of the pairs audio_video"):
        PairLosses(["audio_video"])(embeddings(names=("text_audio", "text_video")))


def test_batches_of_different_size_are_refused():
    with pytest.raises(ValueError, match=r"must all be \[B, E\]; got .*'video': \(3, 6\)"):
        PairLosses(["audio_video"])(embeddings() | {"video": torch.zeros(3, 6)})


def test_keys_of_either_end_count():
    pairs, found = PairLosses(["text_audio"]), embeddings()
    pairs.bias["text_audio"].data += 10
    captions, clips = match_keys(["dog", "dog", "rain", "sea"], "caption"), match_keys(["0", "1", "2", "0"], "clip")
    same = torch.eye(4, dtype=torch.bool)
    same[[0, 1, 0, 3], [1, 0, 3, 0]] = True
    wanted = sigmoid_contrastive(found["audio"], found["text_audio"], torch.tensor(10.0), torch.tensor(0.0), same)
    out = pairs(found, {"text_audio": captions, "audio": clips, "video": match_keys(["x"] * 4)})
    assert float(out.total.detach()) == pytest.approx(float(wanted), rel=1e-6)


def test_chunks_change_nothing():
    results = []
    for size in (None, 3):
        pairs, found = PairLosses(FINE_TUNING, chunk_size=size).double(), embeddings(8)
        found = {n: x.double().requires_grad_() for n, x in found.items()}
        out = pairs(found, {"text_audio": match_keys(list("aabcdefg"))})
        out.total.backward()
        results.append([out.total.detach(), *(x.grad for x in (*found.values(), *pairs.parameters()))])
    for whole, chunked in zip(*results, strict=True):
        assert torch.allclose(whole, chunked, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"weights": {"text": 2}}, "weight of 'text', which is none of the pairs"), ({"scale": 0.0}, "scale 0.0")])
def test_impossible_settings_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        PairLosses(**arguments)


# --- what a model keeps ----------------------------------------------------------------------------


class Scales(nn.Module):
    """The scales of a model that sees, as `peav.model.PEAV` keeps them."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        for name in names:
            self.register_parameter(f"{name}_logit_scale", nn.Parameter(torch.zeros(1)))
            self.register_parameter(f"{name}_logit_bias", nn.Parameter(torch.zeros(1)))


def test_scales_go_to_a_model_and_come_back():
    pairs, model = PairLosses(FINE_TUNING), Scales(tuple(peav_model.PAIRS))
    for i, name in enumerate(FINE_TUNING):
        pairs.log_scale[name].data.fill_(0.5 * i)
        pairs.bias[name].data.fill_(-i)
    pairs.export_to(model)
    assert model.text_video_logit_scale.item() == pytest.approx(math.exp(0.5 * FINE_TUNING.index("text_video")))
    again = PairLosses(FINE_TUNING)
    again.import_from(model)
    for name in FINE_TUNING:
        stored = PAIRS[name].stored_as
        assert again.log_scale[name].item() == pytest.approx(pairs.log_scale[stored].item(), abs=1e-6)
        assert again.bias[name].item() == pytest.approx(pairs.bias[stored].item())


def test_logits_of_the_model_are_those_that_were_trained():
    pairs, found = PairLosses(["text_audio"], scale=7.0, bias=-2.0), embeddings()
    model = Scales(("text_audio",))
    pairs.export_to(model)
    logits = found["audio"] @ found["text_audio"].T * model.text_audio_logit_scale + model.text_audio_logit_bias
    by_hand = -nn.functional.logsigmoid((2 * torch.eye(4) - 1) * logits).sum() / 4
    assert float(pairs(found).total.detach()) == pytest.approx(float(by_hand.detach()), rel=1e-6)


def test_scales_that_were_never_trained_are_left_out():
    pairs = PairLosses(FINE_TUNING)
    pairs.import_from(Scales(("text_audio", "audio_video")))  # zero, as in published files
    assert pairs.log_scale["text_audio"].item() == pytest.approx(math.log(10))
    assert pairs.bias["text_audio"].item() == -10
