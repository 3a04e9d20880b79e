"""PE-A-Frame: frame logits and spans against the reference's numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from peav.frame import PEAFrame, find_spans
from peav.published import load_published

FRAME = Path(__file__).parent.parent / "fixtures" / "pe_a_frame_model"
FRAME_IN, FRAME_OUT = load_file(FRAME / "inputs.safetensors"), load_file(FRAME / "outputs.safetensors")
TOLERANCE = 2e-5  # the reference against itself, with other thread counts: 6.5e-6


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def frame() -> PEAFrame:
    return load_published(FRAME)


def far(got: torch.Tensor, want: torch.Tensor) -> float:
    assert got.shape == want.shape
    return float((got - want).abs().max() / max(1.0, float(want.abs().max())))


@pytest.mark.parametrize("case", ["full", "padded"])
def test_frame_logits_are_the_published_ones(frame, case):
    mask = FRAME_IN["padded.padding_mask"] if case == "padded" else None
    out = frame(
        FRAME_IN["input_ids"], FRAME_IN["attention_mask"], FRAME_IN[f"{case}.input_values"], mask, compatible=True
    )
    keep = torch.ones(2, 25, dtype=torch.bool) if out.mask is None else out.mask
    assert far(out.logits.transpose(1, 2)[keep], FRAME_OUT[f"{case}.prenorm.logits_audio_text"].mT[keep]) < TOLERANCE
    assert far(out.frames[keep], FRAME_OUT[f"{case}.audio_embeds"][keep]) < TOLERANCE
    assert far(out.text, FRAME_OUT[f"{case}.prenorm.text_audio_embeds"]) < TOLERANCE
    assert far(out.audio.pooled, FRAME_OUT[f"{case}.audio_pooler_output"]) < TOLERANCE
    words = FRAME_IN["attention_mask"].bool()
    want = FRAME_OUT[f"{case}.prenorm.text_last_hidden_state"]
    assert far(out.text_states[words], want[words]) < TOLERANCE


@pytest.mark.parametrize("case", ["full", "padded"])
def test_spans_of_matching_pairs_are_the_published_ones_up_to_the_end_of_the_clip(frame, case):
    mask = FRAME_IN["padded.padding_mask"] if case == "padded" else torch.ones(2, 600)
    out = frame(
        FRAME_IN["input_ids"], FRAME_IN["attention_mask"], FRAME_IN[f"{case}.input_values"], mask, compatible=True
    )
    got = find_spans(out.logits[[0, 1], [0, 1]], frame.config.frame_seconds, mask=out.mask)
    for i, spans in enumerate(got):
        end = float(mask[i].sum()) / frame.sample_rate
        want = torch.tensor([(a, min(b, end)) for item, a, b in FRAME_OUT[f"{case}.prenorm.spans_table"].tolist()
                             if item == i and a < end - 1e-6])  # fmt: skip
        assert torch.allclose(torch.tensor(spans), want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["hand", "hand_half", "random", "random_half"])
def test_spans_of_given_logits_follow_the_published_rule(name):
    threshold = float(FRAME_IN[f"spans.{name}.threshold"])
    found = find_spans(FRAME_IN[f"spans.{name}.logits"], 24 / 48_000, threshold=threshold)
    rows = torch.tensor([(i, a, b) for i, spans in enumerate(found) for a, b in spans])
    assert rows.shape == FRAME_OUT[f"spans.{name}.table"].shape
    assert (rows - FRAME_OUT[f"spans.{name}.table"]).abs().max() < 1e-6


def test_near_spans_join_and_short_ones_go_when_asked():
    logits = torch.tensor([[9.0, -9, 9, -9, -9, -9, 9, -9, -9, -9]])
    assert find_spans(logits, 0.5)[0] == [(0, 0.5), (1, 1.5), (3, 3.5)]
    assert find_spans(logits, 0.5, max_gap=0.5)[0] == [(0, 1.5), (3, 3.5)]
    assert find_spans(logits, 0.5, max_gap=0.5, min_duration=1.0)[0] == [(0, 1.5)]
    assert find_spans(logits, 0.5, end=3.2)[0][-1] == (3, 3.2)


def test_spans_of_clips_and_words_do_not_depend_on_the_batch(frame):
    clips = [FRAME_IN["padded.input_values"][0, 0], FRAME_IN["padded.input_values"][1, 0, :371]]
    words = ["thunder far away", "a baby crying on gravel"]
    together = frame.spans(clips, words, threshold=0.4)
    assert together[1] == frame.spans(clips[1:], words, threshold=0.4)[0]
    assert max(b for spans in together[1] for _, b in spans) <= 371 / 48_000
    assert frame.tokenizer(words)[0].equal(FRAME_IN["input_ids"])


def test_a_long_clip_has_no_end_of_the_table(frame):
    assert frame.audio(torch.zeros(1, 6, 10_050)).frames.shape == (1, 10_050, 32)
