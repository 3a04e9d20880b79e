"""Separation in memory, with a model whose answers are known (see `fake`)."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from fake import CONFIDENCE, RATE, FakeModel, snr, tone
from hypothesis import given, settings
from hypothesis import strategies as st

from peav import media
from peav.errors import UserError
from samaudio import pipeline, rank
from samaudio.pipeline import Separator, load
from samaudio.prompts import Click, Span
from samaudio.rank import Tally, best
from samaudio.result import Candidate
from samaudio.spans import find_spans, span_gate

RATES = [8_000, 16_000, 22_050, 44_100, 48_000]


@pytest.fixture
def separator() -> Separator:
    return Separator(FakeModel(), "fake")


def two_tones(rate: int, seconds: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    return tone(300, seconds, rate), tone(3_000, seconds, rate)


def test_a_separator_tells_what_it_is(separator):
    assert (separator.name, separator.sample_rate, separator.device.type) == ("fake", RATE, "cpu")


# The promise: same rate, same channels, same length, and the two parts add up


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("prompt", ["low", "high"])
def test_tones_come_apart_at_every_rate(separator, rate, prompt):
    low, high = two_tones(rate)
    result = separator.separate(low + high, prompt, sample_rate=rate)
    wanted, other = (low, high) if prompt == "low" else (high, low)
    assert result.present and result.sample_rate == rate
    assert snr(result.target[0], wanted) > 20
    assert snr(result.residual[0], other) > 20


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("samples", [4_801, 48_000, 77_777])
def test_the_parts_add_up_to_the_input(separator, channels, samples):
    mixture = 0.3 * torch.randn(channels, samples, generator=torch.Generator().manual_seed(0))
    result = separator.separate(mixture, "low", sample_rate=48_000)
    assert result.target.shape == result.residual.shape == mixture.shape
    assert result.target.dtype == torch.float32
    assert (result.target + result.residual - mixture).abs().max() < 1e-6
    assert 0.01 < result.target.square().mean() / mixture.square().mean() < 0.9


@settings(max_examples=25, deadline=None)
@given(samples=st.integers(1, 3_000), rate=st.sampled_from([4_000, 8_000, 11_025, 16_000, 44_100, 96_000]))
def test_any_length_works_down_to_one_sample(samples, rate):
    mixture = torch.full((1, samples), 0.5)
    result = Separator(FakeModel(), "fake").separate(mixture, "low", sample_rate=rate)
    assert result.target.shape == mixture.shape and bool(result.target.isfinite().all())
    assert (result.target + result.residual - mixture).abs().max() < 1e-6


def test_channels_are_independent(separator):
    low, high = two_tones(44_100)
    result = separator.separate(torch.stack((low, high)), "low", sample_rate=44_100)
    assert snr(result.target[0], low) > 20
    assert result.target[1].abs().max() < 0.1 * high.abs().max()
    assert result.residual[0].abs().max() < 0.1 * low.abs().max()


def test_a_silent_channel_stays_silent(separator):
    low, _ = two_tones(44_100)
    result = separator.separate(torch.stack((low, 0 * low)), "low", sample_rate=44_100)
    assert result.target[1].eq(0).all() and result.residual[1].eq(0).all()


@pytest.mark.parametrize("prompt", ["low", "anything"])
def test_silence_prompted_with_anything_stays_silent(separator, prompt):
    result = separator.separate(torch.zeros(2, 50_000), prompt, sample_rate=44_100)
    assert result.target.eq(0).all() and result.residual.eq(0).all()
    assert not result.present and result.spans == [] and result.scores.presence == 0


def test_a_silent_stretch_between_sounds_stays_silent(separator):
    sound, silence = tone(300, 10, 16_000), torch.zeros(40 * 16_000)
    result = separator.separate(torch.cat((sound, silence, sound)), "low", sample_rate=16_000)
    assert result.target[0, 12 * 16_000 : 48 * 16_000].eq(0).all()
    assert result.present and len(result.spans) == 2


@pytest.mark.parametrize("gain", [1e-4, 1e-2, 1.0, 1e3])
def test_the_level_of_the_input_scales_the_output_and_nothing_else(separator, gain):
    low, high = two_tones(16_000)
    result = separator.separate(gain * (low + high), "low", sample_rate=16_000)
    assert result.present and snr(result.target[0] / gain, low) > 20


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_scale_of_the_estimates_does_not_matter(scale):
    low, high = two_tones(44_100)
    result = Separator(FakeModel(scale=scale), "fake").separate(low + high, "low", sample_rate=44_100)
    assert snr(result.target[0], low) > 20


def test_above_the_models_range_the_mask_follows_the_band_below(separator):
    noise = torch.randn(2 * 48_000, generator=torch.Generator().manual_seed(0))
    spectrum = torch.fft.rfft(0.1 * noise)
    frequency = torch.linspace(0, 24_000, len(spectrum))
    bright = torch.fft.irfft(spectrum * (frequency > 4_000), n=len(noise))
    air = torch.fft.irfft(spectrum * (frequency > 8_500), n=len(noise))
    low = tone(300, 2, 48_000)
    kept = separator.separate(bright + low, "high", sample_rate=48_000).target[0]
    left = separator.separate(bright + low, "low", sample_rate=48_000).target[0]
    above = torch.fft.rfft(kept)[frequency > 8_500].abs().square().sum()
    assert above > 0.9 * torch.fft.rfft(air)[frequency > 8_500].abs().square().sum()
    assert torch.fft.rfft(left)[frequency > 8_500].abs().square().sum() < 0.1 * above


# Everything the user says changes the output


def test_the_prompt_decides(separator):
    low, high = two_tones(16_000)
    one, other = separator.separate_many(low + high, ["low", "high"], sample_rate=16_000)
    assert snr(one.target[0], low) > 20 and snr(other.target[0], high) > 20
    assert (one.prompt, other.prompt) == ("low", "high")


def test_what_is_not_there_is_said_so(separator):
    low, high = two_tones(44_100)
    result = separator.separate(low + high, "cat", sample_rate=44_100)
    assert not result.present and result.scores.presence < 0.5 and result.spans == []
    assert result.target.eq(0).all() and result.residual[0].equal(low + high)


def test_a_sound_that_is_there_once_is_there(separator):
    low, high = tone(300, 3, 16_000), tone(3_000, 40, 16_000)
    mixture = high.clone()
    mixture[20 * 16_000 : 23 * 16_000] += low
    result = separator.separate(mixture, "low", sample_rate=16_000)
    assert result.present
    ((start, end, confidence),) = result.spans
    assert start == pytest.approx(20, abs=0.1) and end == pytest.approx(23, abs=0.1) and confidence > 0.9


def test_a_span_limits_the_target(separator):
    low, high = two_tones(44_100, 6.0)
    free = separator.separate(low + high, "low", sample_rate=44_100)
    held = separator.separate(low + high, ["low", Span(2.0, 3.0)], sample_rate=44_100)
    assert held.target[0, : round(1.74 * 44_100)].eq(0).all()
    assert held.target[0, round(3.26 * 44_100) :].eq(0).all()
    middle = slice(round(2.1 * 44_100), round(2.9 * 44_100))
    assert snr(held.target[0, middle], low[middle]) > 20
    assert free.target[0, :44_100].abs().max() > 0.1
    ((start, end, _),) = held.spans
    assert start == pytest.approx(2, abs=0.1) and end == pytest.approx(3, abs=0.1)


def test_a_span_alone_takes_what_is_in_it(separator):
    low, _ = two_tones(16_000, 4.0)
    result = separator.separate(low, Span(1.0, 2.0), sample_rate=16_000)
    assert result.present and result.prompt == "span 1-2s"
    assert snr(result.target[0, 18_000:30_000], low[18_000:30_000]) > 20
    assert np.isnan(result.scores.similarity)


@pytest.mark.parametrize("span", [Span(2.5, 3.0), Span(1.0, 9.0)], ids=["behind", "beyond"])
def test_a_span_outside_of_the_recording_is_refused(separator, span):
    with pytest.raises(UserError, match=r"span .* which is 2\.00 s long"):
        separator.separate(two_tones(16_000)[0], ["low", span], sample_rate=16_000)


def test_what_is_excluded_is_kept_out(separator):
    low, high = two_tones(44_100)
    everything = separator.separate(low + high, Span(0, 2), sample_rate=44_100)
    clean = separator.separate(low + high, Span(0, 2), exclude=["high"], sample_rate=44_100)
    assert snr(everything.target[0], low + high) > 20
    assert snr(clean.target[0], low) > 20
    assert (clean.target[0] + clean.residual[0] - (low + high)).abs().max() < 1e-6


def test_a_sound_can_be_excluded_for_a_while(separator):
    low, high = two_tones(16_000, 4.0)
    kept_out = [["high", Span(1.0, 2.0)]]
    result = separator.separate(low + high, Span(0, 4), exclude=kept_out, sample_rate=16_000)
    during, after = slice(18_000, 30_000), slice(40_000, 60_000)
    assert snr(result.target[0, during], low[during]) > 20
    assert snr(result.target[0, after], (low + high)[after]) > 20


def test_excluding_what_is_not_there_changes_nothing(separator):
    low, high = two_tones(16_000)
    plain = separator.separate(low + high, "low", sample_rate=16_000)
    other = separator.separate(low + high, "low", exclude=["cat"], sample_rate=16_000)
    assert plain.target.equal(other.target)


def test_more_candidates_give_the_best_of_them(separator, monkeypatch):
    monkeypatch.setattr(rank, "ALONE", {"similarity": 1.0, "confidence": 1.0})  # without the order of hypotheses
    low, high = two_tones(44_100)
    one = separator.separate(low + high, "low", sample_rate=44_100)
    three = separator.separate(low + high, "low", sample_rate=44_100, candidates=3)
    assert one.chosen == 0 and len(one.candidates) == 1
    assert three.chosen == 1 and len(three.candidates) == 3
    assert snr(three.target[0], low) > snr(one.target[0], low) + 10
    assert three.target.equal(three.candidates[1].target)
    assert three.scores.confidence == pytest.approx(CONFIDENCE[1])
    assert three.scores.similarity > one.scores.similarity


def test_similarity_outweighs_a_wrong_confidence(monkeypatch):
    monkeypatch.setattr(rank, "ALONE", {"similarity": 1.0, "confidence": 1.0})  # without the order of hypotheses
    low, high = two_tones(16_000)
    model = FakeModel(confidence=(0.33, 0.34, 0.33))
    result = Separator(model, "fake").separate(low + high, "high", sample_rate=16_000, candidates=3)
    assert result.chosen == 1


@pytest.mark.parametrize("candidates", [0, -1, 4])
def test_impossible_numbers_of_candidates_are_refused(separator, candidates):
    with pytest.raises(UserError, match=f"candidates {candidates}: this model has 3"):
        separator.separate(torch.zeros(100), "low", sample_rate=16_000, candidates=candidates)


def test_several_prompts_share_the_codec_pass():
    model = FakeModel()
    low, high = two_tones(16_000)
    Separator(model, "fake").separate_many(low + high, ["low", "high", "cat"], exclude=["dog"], sample_rate=16_000)
    assert len(model.encoded) == 1


# Long recordings


def test_chunked_equals_whole_when_no_chunk_is_needed(separator):
    low, high = two_tones(16_000, 5.0)
    usual = separator.separate(low + high, "low", sample_rate=16_000)
    long = separator.separate(low + high, "low", sample_rate=16_000, chunk_seconds=100)
    assert usual.target.equal(long.target)


def test_chunks_cannot_be_heard(separator):
    low, high = two_tones(16_000, 40.0)
    whole = separator.separate(low + high, "low", sample_rate=16_000, chunk_seconds=100)
    cut = separator.separate(low + high, "low", sample_rate=16_000)
    assert snr(cut.target, whole.target) > 50
    assert [span[:2] for span in cut.spans] == [span[:2] for span in whole.spans] == [(0.0, 40.0)]


def test_progress_arrives_at_the_end(separator):
    seen: list[tuple[float, float | None]] = []
    separator.separate(
        torch.randn(1, 30 * 8_000), "low", sample_rate=8_000, progress=lambda done, total: seen.append((done, total))
    )
    assert seen[-1] == (30.0, 30.0) and len(seen) == 3 and seen == sorted(seen)


# The same again


def test_the_seed_decides_and_nothing_else_is_touched():
    separator = Separator(FakeModel(noise=0.05), "fake")
    low, high = two_tones(16_000)
    torch.manual_seed(123)
    before = torch.get_rng_state()
    one = separator.separate(low + high, "low", sample_rate=16_000, seed=7)
    assert torch.get_rng_state().equal(before)
    torch.rand(5)
    again = separator.separate_many(low + high, ["high", "low"], sample_rate=16_000, seed=7)[1]
    other = separator.separate(low + high, "low", sample_rate=16_000, seed=8)
    assert one.target.equal(again.target) and not one.target.equal(other.target)
    assert not one.target.is_inference() and torch.is_grad_enabled()


# What goes in and what comes back


def test_files_tensors_and_arrays_are_alike(separator, tmp_path):
    low, high = two_tones(44_100)
    media.write(tmp_path / "mix.wav", (low + high)[None], 44_100, format="wavf")
    from_file = separator.separate(tmp_path / "mix.wav", "low")
    from_tensor = separator.separate(low + high, "low", sample_rate=44_100)
    from_array = separator.separate((low + high).double().numpy()[None], "low", sample_rate=44_100)
    assert from_file.target.equal(from_tensor.target) and from_file.target.equal(from_array.target)


@pytest.mark.parametrize(
    "audio, rate, says",
    [
        (torch.zeros(10), None, "sample_rate"),
        (torch.zeros(10), 1_000, "sample_rate 1000"),
        (torch.zeros(10), 44_100.5, "sample_rate 44100.5"),
        (torch.zeros(10, dtype=torch.int16), 16_000, "give floats"),
        (torch.zeros(48_000, 2), 16_000, "give \\[channels, samples\\]"),
        (torch.zeros(1, 2, 3), 16_000, "shape \\[1, 2, 3\\]"),
        (torch.zeros(1, 0), 16_000, "at least one sample"),
        (torch.tensor([0.0, torch.nan]), 16_000, "NaN"),
    ],
    ids=["no rate", "rate", "half a Hz", "integers", "transposed", "batch", "empty", "nan"],
)
def test_unusable_samples_are_refused(separator, audio, rate, says):
    with pytest.raises(UserError, match=says):
        separator.separate(audio, "low", sample_rate=rate)


def test_a_missing_file_is_refused(separator, tmp_path):
    with pytest.raises(UserError, match="no such file"):
        separator.separate(tmp_path / "mix.wav", "low")


def test_an_empty_prompt_is_refused(separator):
    with pytest.raises(UserError, match="name the sound"):
        separator.separate(torch.zeros(10), " ", sample_rate=16_000)
    with pytest.raises(UserError, match="no prompt"):
        separator.separate_many(torch.zeros(10), [], sample_rate=16_000)


def test_results_are_ready_for_json(separator):
    result = separator.separate(two_tones(16_000)[0], Span(0.5, 1.0), sample_rate=16_000)
    facts = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert facts["prompt"] == "span 0.5-1s" and facts["present"] is True
    assert facts["scores"]["similarity"] is None and facts["spans"][0]["start"] == pytest.approx(0.5, abs=0.1)


# Loading


@pytest.mark.parametrize("name", ["no/such/folder", "nonsense", "/nowhere", "../x/y"])
def test_unknown_models_are_refused(name):
    with pytest.raises(UserError, match="no such model"):
        load(name, device="cpu")


def test_a_hub_that_cannot_be_reached_is_told_in_one_line(monkeypatch):
    import huggingface_hub

    def unreachable(*args, **options):
        raise OSError("no\nroute to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(UserError, match="^org/name: is no folder here and cannot be fetched .*no route to host"):
        load("org/name", device="cpu")


def test_without_the_packaged_model_the_way_out_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(pipeline, "PACKAGED", tmp_path / "none")
    with pytest.raises(UserError, match="name a model folder"):
        load(device="cpu")


def test_unknown_devices_are_refused():
    with pytest.raises(UserError, match="device 'abacus'"):
        load("nonsense", device="abacus")


def test_importing_the_package_is_light():
    code = "import sys, samaudio, peav; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Spans and ranking, alone


def test_activity_becomes_spans():
    activity = torch.zeros(500)
    activity[100:200] = 0.9
    activity[210:300] = 0.7  # after a gap of 0.1 s: the same span
    activity[400:405] = 0.9  # 0.05 s: none at all
    ((start, end, confidence),) = find_spans(activity, rate=100)
    assert (start, end) == (1.0, 3.0)
    assert confidence == pytest.approx((100 * 0.9 + 90 * 0.7) / 200)


def test_activity_everywhere_ends_with_the_recording():
    assert find_spans(torch.ones(101), rate=100, seconds=1.005) == [(0.0, 1.005, 1.0)]
    assert find_spans(torch.zeros(0)) == find_spans(torch.zeros(50)) == []


def test_gates_open_a_little_early_and_close_smoothly():
    gate = span_gate([Span(1.0, 2.0)], 0, 3_000, 1_000)
    assert gate is not None
    assert gate[:750].eq(0).all() and gate[800:2_200].eq(1).all() and gate[2_251:].eq(0).all()
    assert gate.diff().abs().max() < 0.04
    assert span_gate([], 0, 10, 1_000) is None


@pytest.mark.parametrize("prompt", [Click(3, 4, 0.5), ["low", Click(3, 4, 0.5)]], ids=["alone", "with words"])
def test_what_the_model_cannot_see_is_refused(prompt):
    with pytest.raises(UserError, match=r"click 3,4 at 0.5s: this model does not see; name the sound"):
        Separator(FakeModel(), "fake").separate(torch.zeros(1, 100), prompt, sample_rate=16_000)


def test_unknown_similarities_rank_nothing(monkeypatch):
    monkeypatch.setattr(rank, "ALONE", {"similarity": 1.0, "confidence": 1.0})  # without the order of hypotheses
    nan = float("nan")
    tally = Tally(3)
    tally.add(1.0, [nan, nan, nan], [0.2, 0.5, 0.3], 1.0)
    found = tally.candidates()
    assert sum(c.score for c in found) == pytest.approx(0) and best(found) == 1


def test_the_first_of_equals_is_chosen():
    assert best([Candidate(0.0, 0.5, 0.5), Candidate(0.0, 0.5, 0.5)]) == 0
