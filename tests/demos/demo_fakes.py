"""A separator whose answers are known, a film for it, and the page that runs on them.

A disc on the left hums at 300 Hz, a square on the right whistles at 2 kHz. "low" or a click on the left half is what is
below 1 kHz, "high" or a click on the right half what is above, anything else is not there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from peav import media
from samaudio.prompts import Click, Span, Text, as_prompts, describe
from samaudio.result import Candidate, Quality, Result, Scores

RATE, FPS, SECONDS = 16_000, 12, 4.0
WIDTH, HEIGHT = 320, 180
DISC, SQUARE = (80.0, 90.0), (240.0, 90.0)  # where they are at the start
CROSSOVER = 1_000.0


def tone(frequency: float, seconds: float = SECONDS) -> np.ndarray:
    times = np.arange(round(seconds * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * frequency * times) * (0.6 + 0.4 * np.sin(2 * np.pi * times))).astype(np.float32)


LOW, HIGH = tone(300.0), tone(2_000.0)


def make_film(path: Path, turned: int = 0) -> Path:
    import av

    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    rng = np.random.default_rng(0)
    ground = rng.integers(90, 150, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "crf": "16"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        if turned:
            video.set_display_rotation(turned)
        audio = out.add_stream("flac", rate=RATE, layout="mono")
        for i in range(round(SECONDS * FPS)):
            picture = ground.copy()
            picture[(columns - DISC[0]) ** 2 + (rows - DISC[1] - 12 * np.sin(i / 6)) ** 2 <= 28**2] = (220, 30, 30)
            y = SQUARE[1] - 12 * np.sin(i / 4)
            picture[(abs(columns - SQUARE[0]) <= 24) & (abs(rows - y) <= 24)] = (30, 60, 220)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = i
            out.mux(video.encode(frame))
        out.mux(video.encode())
        samples = np.round((LOW + HIGH) * 32767).astype(np.int16)
        for start in range(0, len(samples), 1024):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="s16", layout="mono")
            frame.sample_rate, frame.pts = RATE, start
            out.mux(audio.encode(frame))
        out.mux(audio.encode())
    return path


def make_sound(path: Path) -> Path:
    media.write(path, torch.from_numpy(LOW + HIGH)[None], RATE)
    return path


class FakeViewer:
    segmenter = None

    def __init__(self, sees: bool) -> None:
        self.sees, self.calls = sees, 0

    def __call__(self, recording, prompts, start, progress=None):
        from peav.media.video import probe_video
        from samaudio.visual import track

        self.calls += 1
        times = [i / 8 for i in range(int(8 * probe_video(recording).seconds))]
        return SimpleNamespace(track=track(recording, list(prompts), times, progress=progress)), start


class FakeSeparator:
    """As `samaudio.Separator`, for the film above."""

    name, device = "fake", "cpu"
    model = SimpleNamespace(hypotheses=3)

    def __init__(self, sees: bool = True, slowness: float = 0.0) -> None:
        self.viewer, self.slowness = FakeViewer(sees), slowness
        self.asked: list = []

    def separate(self, audio, prompt, *, candidates=1, progress=None) -> Result:
        prompts = as_prompts(prompt)
        self.asked.append(prompts)
        mixture, rate = media.read(audio)
        for step in range(1, 11):
            time.sleep(self.slowness / 10)
            if progress is not None:
                progress(step * mixture.shape[-1] / rate / 10, mixture.shape[-1] / rate)
        low, high = bands(mixture, rate)
        wanted, present = self._wanted(prompts, low, high), True
        if wanted is None:
            wanted, present = 0.01 * low, False
        for span in (p for p in prompts if isinstance(p, Span)):
            gate = torch.zeros(mixture.shape[-1])
            gate[round(span.start * rate) : round(span.end * rate)] = 1
            wanted = wanted * gate
        leaks = (0.3, 0.0, 0.6)[:candidates]
        found = [Candidate(-leak, 0.5 - leak, 0.4, Quality(4.5 - leak, 4, 4, 4), wanted + leak * (mixture - wanted))
                 for leak in leaks]  # fmt: skip
        chosen = leaks.index(min(leaks))
        target = found[chosen].target if present else torch.zeros_like(mixture)
        scores = Scores(0.5, 0.97 if present else 0.02, 0.4, found[chosen].quality)
        spans = [(0.5, 3.5, 0.9)] if present else []
        return Result(target, mixture - target, rate, scores, spans, present, describe(prompts), found, chosen)

    @staticmethod
    def _wanted(prompts, low: Tensor, high: Tensor) -> Tensor | None:
        for p in prompts:
            if isinstance(p, Text):
                return {"low": low, "high": high}.get(p.text)
            if isinstance(p, Click) and p.positive:
                return low if p.x < WIDTH / 2 else high
        return low + high


def bands(mixture: Tensor, rate: int) -> tuple[Tensor, Tensor]:
    spectrum = torch.fft.rfft(mixture)
    below = torch.linspace(0, rate / 2, spectrum.shape[-1]) < CROSSOVER
    low = torch.fft.irfft(spectrum * below, n=mixture.shape[-1])
    return low, mixture - low


def si_sdr(estimate: np.ndarray, truth: np.ndarray) -> float:
    """dB, of the same length, without means; nothing is about as good as noise is."""
    estimate, truth = (x.astype(np.float64) - x.mean() for x in (estimate, truth))
    part = (estimate @ truth) / (truth @ truth) * truth
    error = float((estimate - part) @ (estimate - part))
    return float(10 * np.log10(max(1e-20, float(part @ part)) / max(1e-20, error)))


@contextmanager
def running(separator, root: Path, limits, examples=()) -> Iterator[tuple[str, object]]:
    """The page on a free port of this machine: its address, and the application."""
    import uvicorn

    from demos.video_click.server import create_app, listen, sweeping

    app = create_app(separator, root, limits, examples)
    with listen("127.0.0.1", 0) as socket:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
        with sweeping(app.state.sessions, root / "uploads"):
            thread.start()
            try:
                while not server.started:
                    time.sleep(0.05)
                yield f"http://127.0.0.1:{socket.getsockname()[1]}", app
            finally:
                server.should_exit = True
                thread.join(timeout=10)
