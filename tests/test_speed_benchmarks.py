"""The benchmarks of speed: they compare like with like, and count every second once."""

from __future__ import annotations

import time

import pytest
import torch

import samaudio
from benchmarks import audio_tower, embed_folder, speed, tables
from benchmarks.audio_tower import Sizes, Turn
from samaudio import cut

TINY = Sizes(hidden=16, layers=1, heads=2, head_dim=8, intermediate=24, codec_width=4, rates=(2, 3), latent=6)


@pytest.fixture(scope="module")
def towers():
    theirs, ours = audio_tower.pair(TINY)
    with torch.no_grad():
        for parameter in ours.parameters():  # norms and snakes are ones so far, which any mix-up would survive
            parameter.add_(0.1 * torch.rand_like(parameter))
        named = dict(ours.named_parameters())
        state, _ = audio_tower.to_ours(
            {f"audio_encoder.{name}": p for name, p in theirs.named_parameters()},
            audio_tower.Kind(audio_tower.TRANSFORMERS, frame_level=True),
        )
        for name, parameter in state.items():
            parameter.copy_(named[name.removeprefix("audio.")])
    return theirs, ours


def test_the_two_towers_are_one_model(towers):
    wave = torch.randn(1, 1, 6 * 20)
    assert audio_tower.check_equal(*towers, wave, 1e-5) < 1e-5


def test_different_models_are_not_timed(towers):
    theirs, _ = towers
    _, other = audio_tower.pair(TINY, seed=1)
    with pytest.raises(ValueError, match="not the same model"):
        audio_tower.check_equal(theirs, other, torch.randn(1, 1, 120), 1e-5)


def test_both_take_turns(towers):
    turns = audio_tower.compare(*towers, torch.randn(1, 1, 120), 3)
    assert len(turns) == 3 and all(0 < turn.codec < turn.processor for pair in turns for turn in pair)


def test_a_ratio_is_ours_over_theirs():
    turns = [(Turn(6.0, 5.0, 4.0), Turn(3.0, 2.0, 1.0)), (Turn(10.0, 10.0, 8.0), Turn(4.0, 4.0, 2.0))]
    name, theirs, ours, *ratios = audio_tower.row("x", turns)
    assert (name, theirs, ours, ratios) == ("x", "7.50 s", "3.00 s", ["**0.40**", "0.25", "1.00", "0.45"])


def test_parts_within_parts_count_once():
    def work(seconds: float) -> None:
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    clock = embed_folder.Clock()
    with clock.part("outer"):
        work(0.03)
        clock.timed("inner", work)(0.06)
        work(0.01)
    assert clock.seconds["inner"] == pytest.approx(0.06, abs=0.01)
    assert clock.seconds["outer"] == pytest.approx(0.04, abs=0.01)


def test_every_part_of_embedding_is_on_the_clock(tmp_path):
    from peav.codec import CodecConfig
    from peav.config import PEAVConfig
    from peav.model import PEAV
    from peav.transformer import TransformerConfig

    codec = CodecConfig(
        sample_rate=8_000, encoder_dim=4, encoder_rates=(8, 20), latent_dim=8, codebook_dim=4, decoder_dim=16,
        decoder_rates=(20, 8),
    )  # fmt: skip
    model = PEAV(PEAVConfig(codec, TransformerConfig(16, 1, 2, 32), output_dim=8)).eval()
    files = embed_folder.synthesise(tmp_path, "flac", 1, 2.0)
    clock = embed_folder.profile(model, files)
    assert set(clock.seconds) == set(embed_folder.PARTS) and min(clock.seconds.values()) > 0
    assert len(embed_folder.row("a", clock, 2.0)) == len(embed_folder.PARTS) + 2


def test_a_table_goes_to_its_place_in_a_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- a -->\nold\n<!-- /a -->\nafter\n<!-- b -->\n<!-- /b -->\n")
    tables.put(page, "a", tables.table(("x", "y"), [("1", r"2 \1")]))
    tables.put(page, "b", "new")
    first = "before\n<!-- a -->\n| x | y |\n| --- | ---: |\n| 1 | 2 \\1 |\n<!-- /a -->\n"
    assert page.read_text() == first + "after\n<!-- b -->\nnew\n<!-- /b -->\n"
    with pytest.raises(ValueError, match="0 places for c"):
        tables.put(page, "c", "")


def test_a_clock_leaves_out_what_its_parts_call():
    clock = speed.Clock()
    inner = clock.timed("inner", lambda: time.sleep(0.05))

    def outer():
        time.sleep(0.02)
        inner()
        inner()

    clock.timed("outer", outer)()
    assert 0.1 <= clock.spent["inner"] < 0.16 and 0.02 <= clock.spent["outer"] < 0.06


def test_a_watched_separator_is_left_as_it_was():
    separator = samaudio.load(judge=False)
    before = separator.model.codec.__dict__.get("latents"), cut.stft
    clock = speed.Clock()
    with speed.watched(separator, clock):
        separator.separate(0.1 * torch.randn(1, 8_000), "guitar", sample_rate=16_000)
    assert (separator.model.codec.__dict__.get("latents"), cut.stft) == before
    assert {"separator", "codec, analysis", "codec, synthesis", "embedder, audio", "cutting out of the mixture",
            "resampling", "sentence encoder"} == set(clock.spent)  # fmt: skip
    assert all(seconds > 0 for seconds in clock.spent.values())
