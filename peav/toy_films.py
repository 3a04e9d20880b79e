"""Toy films, drawn and synthesised when they are asked for: enough to train a PE-AV end to end without any file.

A coloured shape drifts and pulses while its sound pulses with it. Its colour is that of its timbre, so pictures say
what is heard; the shape is only seen, and the pitch is only heard, so a caption says what the other modality cannot.

Axes: ``T`` samples, ``N`` images, ``H`` and ``W`` pixels.
"""

from __future__ import annotations

import numpy as np
import torch

from .films import Cut, Item

SHAPES = ("square", "circle", "cross")
COLOURS = {"red": (230, 40, 40), "green": (40, 200, 70), "blue": (60, 80, 240)}
TIMBRES = {"red": "buzz", "green": "whistle", "blue": "hiss"}
PITCHES = {"low": 220.0, "high": 880.0}  # Hz
DRIFTS = {"right": (0.0, 0.5), "down": (0.5, 0.0)}  # of the picture's height and width per second
KINDS = [(s, c, p, d) for s in SHAPES for c in COLOURS for p in PITCHES for d in DRIFTS]


class ToyFilms:
    """As many films as asked for, of :data:`KINDS` in turn; each differs in place, level, pace and detail.

    Args:
        cut: rate, size and length of what is made.
        seed: another one gives other films of the same kinds.
    """

    def __init__(self, number: int, cut: Cut, seed: int = 0) -> None:
        self.number, self.cut, self.seed = number, cut, seed

    def __len__(self) -> int:
        return self.number

    def inputs(self, i: int) -> frozenset[str]:
        return frozenset({"audio", "video", "caption_audio", "caption_video", "caption_audio_video"})

    def item(self, i: int, rng: np.random.Generator) -> Item:
        shape, colour, pitch, drift = KINDS[i % len(KINDS)]
        own = np.random.default_rng((self.seed, i))
        pulses, phase = own.uniform(2, 5), own.uniform(0, 2 * np.pi)

        def loudness(t: np.ndarray) -> np.ndarray:
            return 0.55 + 0.45 * np.sin(2 * np.pi * pulses * t + phase)

        sound = f"{pitch} {TIMBRES[colour]}"
        return {
            "id": f"toy {self.seed} {i}",
            "audio": self._audio(TIMBRES[colour], PITCHES[pitch] * own.uniform(0.9, 1.1), loudness, own),
            "video": self._video(shape, COLOURS[colour], DRIFTS[drift], loudness, own),
            "captions": {
                "audio": f"a {sound}",
                "video": f"a {colour} {shape} moving {drift}",
                "audio_video": f"a {colour} {shape} moving {drift} with a {sound}",
            },
        }

    def _audio(self, timbre: str, hertz: float, loudness, rng: np.random.Generator) -> torch.Tensor:
        t = np.arange(round(self.cut.seconds * self.cut.sample_rate)) / self.cut.sample_rate
        if timbre == "whistle":
            x = np.sin(2 * np.pi * hertz * t)
        elif timbre == "buzz":
            x = np.sign(np.sin(2 * np.pi * hertz * t)) * 0.6
        else:  # noise around the pitch
            noise = np.fft.rfft(rng.standard_normal(len(t)))
            band = np.exp(-((np.fft.rfftfreq(len(t), 1 / self.cut.sample_rate) / hertz - 1) ** 2) * 4)
            x = np.fft.irfft(noise * band, len(t))
            x /= max(float(np.abs(x).max()), 1e-9)
        x = rng.uniform(0.1, 0.4) * loudness(t) * x + 0.002 * rng.standard_normal(len(t))
        return torch.from_numpy(x.astype(np.float32))

    def _video(self, shape: str, colour, drift, loudness, rng: np.random.Generator) -> torch.Tensor:
        H, W = self.cut.size
        N = self.cut.num_frames or max(1, round(self.cut.seconds * (self.cut.fps or 1)))
        times = np.arange(N) * self.cut.seconds / N
        y, x = (np.arange(H)[:, None] + 0.5) / H, (np.arange(W)[None] + 0.5) / W
        place, background = rng.uniform(0.2, 0.5, 2), rng.uniform(0, 90, 3)
        images = np.empty((N, H, W, 3))
        for n, time in enumerate(times):
            down, right = y - place[0] - drift[0] * time, x - place[1] - drift[1] * time
            radius = 0.12 + 0.14 * float(loudness(np.array(time)))
            if shape == "circle":
                inside = down**2 + right**2 < radius**2
            elif shape == "square":
                inside = np.maximum(abs(down), abs(right)) < 0.9 * radius
            else:
                inside = (np.minimum(abs(down), abs(right)) < radius / 3) & (np.maximum(abs(down), abs(right)) < radius)
            images[n] = np.where(inside[..., None], colour, background)
        images += rng.normal(0, 6, images.shape)
        return torch.from_numpy(images.clip(0, 255).astype(np.uint8)).permute(0, 3, 1, 2).contiguous()
