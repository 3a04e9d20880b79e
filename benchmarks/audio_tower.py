"""Speed of the published audio tower here and in transformers, on the same random weights in the same run.

    python -m benchmarks.audio_tower                              # sizes of pe-av-small, 10 s and 30 s
    python -m benchmarks.audio_tower --seconds 2 --repeats 3      # a first look
    python -m benchmarks.audio_tower --write                      # and put the table into docs/benchmarks/embedding.md

The two must give equal outputs before anything is timed. Then they take turns, so that whatever else the machine does
falls on both; a figure is the median of the turns, a ratio the median of the ratios of neighbours. Ratios are given by
the clock and, less disturbed by other work, of processor time.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.tables import DOCS, machine, put, table
from peav.codec import CodecConfig
from peav.published_keys import TRANSFORMERS, Kind, to_ours
from peav.towers import AudioTower
from peav.transformer import TransformerConfig

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Largest difference of the outputs, as a share of the largest output. bfloat16 has 8 bits, and twelve layers.
TOLERANCE = {"float32": 2e-5, "bfloat16": 0.05}


@dataclass(frozen=True)
class Sizes:
    """Those of pe-av-small and the published codec."""

    hidden: int = 768
    layers: int = 12
    heads: int = 6
    head_dim: int = 128
    intermediate: int = 2048
    codec_width: int = 64
    rates: tuple[int, ...] = (2, 8, 10, 12)
    latent: int = 128


@dataclass(frozen=True)
class Turn:
    """Seconds of one pass."""

    clock: float
    processor: float  # time of all threads
    codec: float  # of the processor time


def pair(sizes: Sizes, seed: int = 0) -> tuple[Any, AudioTower]:
    """transformers' encoder with random weights, and ours with the same."""
    from transformers import DacConfig, PeAudioEncoder, PeAudioEncoderConfig

    torch.manual_seed(seed)
    codec = DacConfig(
        encoder_hidden_size=sizes.codec_width, downsampling_ratios=list(sizes.rates), codebook_dim=sizes.latent
    )
    theirs = PeAudioEncoder(
        PeAudioEncoderConfig(
            dac_config=codec.to_dict(),
            hidden_size=sizes.hidden,
            intermediate_size=sizes.intermediate,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            head_dim=sizes.head_dim,
        )
    ).eval()
    width = sizes.codec_width * 2 ** len(sizes.rates)
    ours = AudioTower(
        CodecConfig(
            encoder_dim=sizes.codec_width,
            encoder_rates=sizes.rates,
            latent_dim=width,
            codebook_dim=sizes.latent,
            decoder_dim=width,
            decoder_rates=sizes.rates[::-1],
        ),
        TransformerConfig(
            sizes.hidden, sizes.layers, sizes.heads, sizes.intermediate, head_dim=sizes.head_dim
        ),
    ).eval()
    named = {f"audio_encoder.{name}": tensor for name, tensor in theirs.state_dict().items()}
    state, _ = to_ours(named, Kind(TRANSFORMERS, frame_level=True))
    ours.load_state_dict({name.removeprefix("audio."): tensor for name, tensor in state.items()})
    return theirs, ours


def check_equal(theirs: Any, ours: AudioTower, wave: Tensor, tolerance: float) -> float:
    """Largest difference of pooled vector and frames, as a share of the largest number.

    Raises:
        ValueError: it is above `tolerance`, so a comparison of their speed would mean nothing.
    """
    with torch.inference_mode():
        want, got = theirs(wave), ours(ours.latents(wave)[0])
    worst = max(
        float((a.float() - b.float()).abs().max() / b.float().abs().max())
        for a, b in ((got.frames, want.last_hidden_state), (got.pooled, want.pooler_output))
    )
    if not worst <= tolerance:
        raise ValueError(f"outputs differ by {worst:.1e} of their largest; the two are not the same model")
    return worst


@torch.inference_mode()
def turn_of_theirs(model: Any, wave: Tensor) -> Turn:
    marks: list[float] = []
    hook = model.embedder.bottleneck.register_forward_hook(lambda *_: marks.append(time.process_time()))
    try:
        clock, began = time.perf_counter(), time.process_time()
        model(wave)
        return Turn(time.perf_counter() - clock, time.process_time() - began, marks[0] - began)
    finally:
        hook.remove()


@torch.inference_mode()
def turn_of_ours(model: AudioTower, wave: Tensor) -> Turn:
    clock, began = time.perf_counter(), time.process_time()
    latents, _ = model.latents(wave)
    middle = time.process_time()
    model(latents)
    return Turn(time.perf_counter() - clock, time.process_time() - began, middle - began)


def compare(theirs: Any, ours: AudioTower, wave: Tensor, repeats: int) -> list[tuple[Turn, Turn]]:
    """Turns of theirs and ours; each begins as often as the other."""
    turns = []
    for i in range(repeats):
        if i % 2:
            second = turn_of_ours(ours, wave)
            turns.append((turn_of_theirs(theirs, wave), second))
        else:
            turns.append((turn_of_theirs(theirs, wave), turn_of_ours(ours, wave)))
    return turns


def row(name: str, turns: Sequence[tuple[Turn, Turn]]) -> list[str]:
    def ratio(seconds) -> str:
        return f"{median(seconds(ours) / seconds(theirs) for theirs, ours in turns):.2f}"

    return [
        name,
        f"{median(theirs.processor for theirs, _ in turns):.2f} s",
        f"{median(ours.processor for _, ours in turns):.2f} s",
        f"**{ratio(lambda turn: turn.processor)}**",
        ratio(lambda turn: turn.codec),
        ratio(lambda turn: turn.processor - turn.codec),
        ratio(lambda turn: turn.clock),
    ]


HEADER = ("clip", "transformers", "here", "ratio", "of the codec", "of the transformer", "by the clock")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, nargs="+", default=[10.0, 30.0])
    parser.add_argument("--types", nargs="+", choices=TYPES, default=list(TYPES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks/embedding.md")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    import transformers

    theirs, ours = pair(Sizes())
    rows = []
    for kind in given.types:
        theirs.to(TYPES[kind]), ours.to(TYPES[kind])
        for seconds in given.seconds:
            wave = (0.1 * torch.randn(1, 1, round(48_000 * seconds))).to(TYPES[kind])
            worst = check_equal(theirs, ours, wave, TOLERANCE[kind])
            rows.append(row(f"{seconds:g} s, {kind}", compare(theirs, ours, wave, given.repeats)))
            print(f"{seconds:g} s, {kind}: outputs differ by {worst:.1e} of their largest", file=sys.stderr, flush=True)
            print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    text = (
        f"{machine(given.threads)}, torch {torch.__version__.split('+')[0]}, transformers {transformers.__version__}, "
        f"median of {given.repeats}.\n\n{table(HEADER, rows)}"
    )
    print(text)
    if given.write:
        put(DOCS / "embedding.md", "audio_tower", text)


if __name__ == "__main__":
    main()
