"""Localisation with a model whose answers are known."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import soundfile
import torch
from frame_fakes import HOP, RATE, Meter
from torch import Tensor

import peav
from peav import media
from peav.errors import UserError
from peav.localize import Localization, frame_logits, localize


def noise(seconds: float, rate: int = RATE, seed: int = 0) -> Tensor:
    """Noise whose level changes every tenth of a second."""
    generator = torch.Generator().manual_seed(seed)
    T = round(seconds * rate)
    level = torch.rand(int(seconds * 10) + 1, generator=generator).repeat_interleave(-(-rate // 10))[:T]
    return torch.randn(T, generator=generator).clamp(-3, 3) * level / 6


def whole(wave: Tensor, rate: int = RATE, reach: int = 3) -> Tensor:
    """One pass over everything."""
    return Meter(reach).frame_logits([media.resample(wave, rate, RATE)], ["loud"])[0]


def in_windows(wave: Tensor, rate: int = RATE, window: float = 2.0, block: int = 1_000, reach: int = 3) -> Tensor:
    return frame_logits(Meter(reach), wave[None].split(block, 1), rate, ["loud"], window=window).logits


@pytest.mark.parametrize("window", [1.1, 2.0, 2.03, 7.0])
@pytest.mark.parametrize("frames", [50.0, 51, 99.5, 100.01, 149, 217.3])
def test_windows_say_what_one_pass_says(frames, window):
    wave = noise(frames * HOP / RATE)
    got, want = in_windows(wave, window=window, reach=2), whole(wave, reach=2)
    assert got.shape == want.shape and torch.allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("rate", [44_100, 22_050, 11_025, 48_000, 7_999])
def test_frames_lie_on_the_time_of_the_file_at_any_rate(rate):
    wave = noise(9.37, rate)
    got, want = in_windows(wave, rate, window=2.03, block=4_321), whole(wave, rate)
    assert got.shape == want.shape and torch.allclose(got, want, atol=1e-4)


@pytest.mark.parametrize("rate", [RATE, 44_100, 16_000])
def test_a_burst_is_found_where_it_is_in_every_window(rate):
    # 0.4 s of sound every 3.28 s: on the frame grid, but on no grid of windows.
    frame = round(rate * 0.04)
    wave = torch.zeros(frame * 82 * 12 + 7)
    for i in range(12):
        wave[frame * (82 * i + 30) : frame * (82 * i + 40)] = 0.5
    wave *= torch.randn(len(wave), generator=torch.Generator().manual_seed(0)).sign()
    found = frame_logits(Meter(0), [wave[None]], rate, ["loud"], window=5.03)
    on = (found.logits[0] > 0).nonzero()[:, 0].tolist()
    assert on == [82 * i + k for i in range(12) for k in range(30, 40)]


def test_a_seam_where_windows_disagree_is_a_slope():
    class Moody(Meter):
        def frame_logits(self, audio, text):
            self.lengths.append(len(audio[0]))
            return [torch.full((1, -(-len(audio[0]) // HOP)), float(len(self.lengths)))]

    got = frame_logits(Moody(), [noise(20.0)[None]], RATE, ["x"], window=9.0).logits[0]
    assert got[0] == 1 and got[-1] == 3 and got.diff().min() >= 0
    assert got.diff().max() < 0.06


def test_the_last_window_is_as_long_as_the_others():
    meter = Meter()
    frame_logits(meter, [noise(10.1)[None]], RATE, ["loud"], window=3.0)
    assert min(meter.lengths) > 3.0 * RATE - HOP and max(meter.lengths) == 3.0 * RATE
    meter = Meter()
    frame_logits(meter, [noise(3.0)[None]], RATE, ["loud"], window=3.0)
    assert meter.lengths == [3 * RATE]


def test_an_hour_takes_the_memory_of_a_minute():
    def held() -> int:
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
                    for t in gc.get_objects() if isinstance(t, Tensor)}  # fmt: skip
        return sum(storages.values())

    class Watching(Meter):
        def frame_logits(self, audio, text):
            if len(self.lengths) in (2, 100):
                sizes.append(held())
            return super().frame_logits(audio, text)

    sizes: list[int] = []
    block = torch.randn(2, 2_000 * 10)
    found = frame_logits(Watching(3, 1_000), (block * 0.1 for _ in range(360)), 2_000, ["loud", "quiet"])
    assert found.logits.shape == (2, 90_000) and found.seconds == 3_600
    # 98 windows later there is more of the answer, and nothing else.
    assert len(sizes) == 2 and 0 <= sizes[1] - sizes[0] < 2 * 90_000 * 4 + 2**16, sizes


@pytest.fixture
def file(tmp_path):
    def write(wave: np.ndarray, rate: int = 16_000) -> str:
        soundfile.write(tmp_path / "a.wav", wave, rate, subtype="FLOAT")
        return str(tmp_path / "a.wav")

    return write


def test_spans_and_confidences_of_a_file(file):
    wave = np.zeros(2 * 16_000, np.float32)
    wave[16_000 : 24_000] = 0.5
    found = localize(file(wave), ["loud", " quiet "], Meter(0))
    assert isinstance(found, Localization) and found.prompts == ("loud", "quiet")
    (span,), quiet = found.spans
    # The filter of the resampler rings, which is why an edge may lie in the next frame.
    assert (span.start, span.end) == (pytest.approx(1.0, abs=0.041), pytest.approx(1.5, abs=0.041))
    assert span.confidence == pytest.approx(torch.tensor(8.0).sigmoid().item(), abs=0.02)
    assert len(quiet) == 2 and quiet[1].end == 2.0
    assert found.probabilities.shape == (2, 50) and found.frame_seconds == 0.04 and found.seconds == 2.0
    assert (found.threshold, found.low, found.silent) == (0.3, None, False)


def test_spans_end_with_the_file(file):
    T = 16_000 + 5
    found = localize(file(np.full(T, 0.5, np.float32)), ["x"], Meter(0))
    assert found.probabilities.shape == (1, 26)
    assert found.spans[0][-1].end == found.seconds == T / 16_000


@pytest.mark.parametrize("samples", [1, 100, 639])
def test_less_than_a_frame_is_one_frame(file, samples):
    found = localize(file(np.full(samples, 0.9, np.float32)), ["x"], Meter(0))
    assert found.probabilities.shape == (1, 1)
    assert [(a, b) for a, b, _ in found.spans[0]] == [(0, samples / 16_000)]


def test_channels_are_averaged(file):
    left = np.full(16_000, 0.6, np.float32)
    stereo = localize(file(np.stack([left, 0 * left], 1)), ["loud"], Meter())
    mono = localize(file(left / 2), ["loud"], Meter())
    assert torch.allclose(stereo.probabilities, mono.probabilities, atol=1e-6)


def test_silence_is_no_sound_whatever_the_model_says(file):
    found = localize(file(np.zeros(16_000, np.float32)), ["quiet"], Meter(), threshold=0.0)
    assert found.silent and found.spans == [[]] and float(found.probabilities.max()) == 0
    half = np.zeros(16_000, np.float32)
    half[:8_000] = 0.5
    assert localize(file(half), ["quiet"], Meter()).spans[0]


def test_a_waveform_is_taken_at_its_rate():
    wave = noise(3.0, 16_000)
    found = localize(wave, ["loud"], Meter(), sample_rate=16_000)
    assert found.seconds == 3.0
    assert torch.allclose(found.probabilities, whole(wave, 16_000).sigmoid(), atol=1e-5)
    assert localize(wave[None], "loud", Meter()).seconds == 6.0  # at the model's rate


def test_the_rule_reaches_the_spans():
    wave = noise(10.0)
    plain = localize(wave, ["loud"], Meter(0)).spans[0]
    assert len(plain) > 5
    for rule in ({"threshold": 0.6}, {"low": 0.05}, {"smooth": 0.6}, {"max_gap": 0.5}, {"min_duration": 0.3}):
        assert localize(wave, ["loud"], Meter(0), **rule).spans[0] != plain, rule


def test_a_model_may_have_a_threshold_of_its_own():
    class Shy(Meter):
        frame_threshold = 0.9

    wave = noise(5.0)
    shy = localize(wave, ["loud"], Shy())
    assert shy.threshold == 0.9 and shy.spans == localize(wave, ["loud"], Meter(), threshold=0.9).spans
    assert localize(wave, ["loud"], Shy(), threshold=0.3).spans == localize(wave, ["loud"], Meter()).spans


def test_a_model_is_loaded_by_name(monkeypatch):
    asked = []
    monkeypatch.setattr(peav, "load", lambda model=None, device="auto": asked.append((model, device)) or Meter())
    localize(noise(1.0), ["loud"])
    localize(noise(1.0), ["loud"], "folder", device="cpu")
    assert asked == [(None, "auto"), ("folder", "cpu")]


class Blunt(Meter):
    has_frames = False


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"model": Blunt()}, "this model embeds whole clips .* facebook/pe-a-frame-small"),
        ({"prompts": []}, "no prompt"),
        ({"prompts": ["dog", "  "]}, "a prompt is empty"),
        ({"threshold": 2.0}, "threshold 2 is no probability"),
        ({"low": 0.9}, "hysteresis 0.9 is above the threshold 0.3"),
        ({"smooth": -1.0}, "smooth -1"),
        ({"window": 0.1}, "at least three frames, 0.12 s"),
        ({"window": float("nan")}, "window nan s"),
        ({"recording": torch.zeros(2, 0)}, "at least one sample"),
        ({"recording": torch.zeros(9, dtype=torch.int16)}, "give float"),
        ({"recording": "nowhere.wav"}, "nowhere.wav: no such file"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_mistakes_are_told(given, told):
    arguments = {"recording": noise(1.0), "prompts": ["loud"], "model": Meter()} | given
    with pytest.raises(UserError, match=told):
        localize(**arguments)


def test_nothing_in_is_an_error():
    with pytest.raises(UserError, match="no samples"):
        frame_logits(Meter(), [], RATE, ["loud"])


def test_a_model_whose_frames_are_no_whole_samples_is_refused():
    class Odd(Meter):
        frame_seconds = 0.04001

    with pytest.raises(ValueError, match=r"320\.08 samples"):
        localize(noise(1.0), ["loud"], Odd())


def test_the_real_interface_fits(monkeypatch):
    # Random weights: frames of two latent frames, and a rate that no frame divides.
    from peav.codec import CodecConfig
    from peav.config import PEAVConfig
    from peav.model import PEAV
    from peav.transformer import TransformerConfig

    codec = CodecConfig(
        sample_rate=RATE, encoder_dim=4, encoder_rates=(8, 20), latent_dim=8, codebook_dim=4, decoder_dim=16,
        decoder_rates=(20, 8),
    )  # fmt: skip
    torch.manual_seed(0)
    tower = TransformerConfig(16, 1, 2, 32)
    model = PEAV(PEAVConfig(codec, tower, output_dim=8, token_frames=2, frames=True)).eval()
    vectors = torch.randn(2, 384)
    monkeypatch.setattr(model, "text_vectors", lambda texts: vectors[: len(texts)])
    wave = noise(4.33, 11_025)
    found = localize(wave, ["rain", "a dog barking"], model, sample_rate=11_025, threshold=0.0, window=60.0)
    assert found.probabilities.shape == (2, 109) and found.seconds == pytest.approx(4.33, abs=1e-4)
    alone = model.frame_logits(audio=[media.resample(wave, 11_025, RATE)], text=["rain", "a dog barking"])[0]
    assert torch.allclose(found.probabilities, alone.sigmoid(), atol=1e-5)
    parts = localize(wave, ["rain", "a dog barking"], model, sample_rate=11_025, window=1.5)
    assert parts.probabilities.shape == (2, 109) and bool(parts.probabilities.isfinite().all())
