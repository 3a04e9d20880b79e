"""A tiny model with eyes and random weights, and a film for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from peav.codec import DACVAE, CodecConfig, lapped_init_
from peav.config import PEAVConfig
from peav.model import PEAV
from peav.transformer import TransformerConfig
from peav.vision import VisionConfig
from samaudio.mask import MaskConfig, MaskSeparator
from samaudio.model import MaskModel

RATE = 8_000
CODEC = CodecConfig(
    sample_rate=RATE, stem_kernel=160, stem_stride=80, encoder_dim=80, encoder_rates=(), latent_dim=80,
    codebook_dim=32, decoder_dim=80, decoder_rates=(), final_tanh=False,
)  # fmt: skip
VISION = VisionConfig(width=16, num_layers=1, num_heads=2, mlp_width=32, output_dim=12, patch_size=(8, 8), grid=(4, 4),
                      class_token=False, stem=(4, 8), parts=2)  # fmt: skip


def seeing_model(seed: int = 0) -> MaskModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        codec = lapped_init_(DACVAE(CODEC))
        tower = TransformerConfig(32, 1, 2, 64)
        embedder = PEAV(PEAVConfig(CODEC, tower, output_dim=16, vision=VISION, video=tower, audio_video=tower,
                                   log_input=True, normalise=True, frames=True))  # fmt: skip
        embedder.use_codec(codec)
        sizes = MaskConfig(32, 16, width=16, dilations=(1, 2), attention_every=2, num_heads=2, hypotheses=2,
                           hint_dim=16, sight=True)  # fmt: skip
        separator = MaskSeparator(sizes)
        for part in (separator.hints, separator.seen_hints):
            torch.nn.init.normal_(part.weight, std=0.1)
        settings = {"presence_threshold": 0.0, "name": "seeing", "close_up": [32, 32]}
        return MaskModel(codec, embedder, separator, settings).eval()


def sounding_film(path: Path, seconds: float = 2.0, fps: int = 15, delay: float = 0.0) -> Path:
    """A red disc that wanders over grey and a blue square that stays, with a noise that begins ``delay`` seconds in."""
    import av

    rows, columns = np.mgrid[:72, :96]
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "crf": "10"})
        video.width, video.height, video.pix_fmt = 96, 72, "yuv420p"
        audio = out.add_stream("flac", rate=RATE, layout="mono")
        for i in range(round(seconds * fps)):
            picture = np.full((72, 96, 3), 120, np.uint8)
            picture[(columns - 20 - i) ** 2 + (rows - 30) ** 2 <= 144] = (220, 30, 30)
            picture[50:66, 70:86] = (30, 60, 220)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = i
            out.mux(video.encode(frame))
        out.mux(video.encode())
        samples = (rng.normal(0, 3000, round((seconds - delay) * RATE))).astype(np.int16)
        for start in range(0, len(samples), 1024):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="s16", layout="mono")
            frame.sample_rate, frame.pts = RATE, start + round(delay * RATE)
            out.mux(audio.encode(frame))
        out.mux(audio.encode())
    return path
