"""The drawn film in `examples/`: a violin and drums, each moving with its own sound.

    python -m samaudio.drawn.example examples/ --pictures PICTURES

Its sounds come from `samaudio.render_examples` and need its synthesiser, its pictures are Microsoft's Fluent emoji.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import soundfile
import torch
import typer

from peav import console
from samaudio.pulse import envelope
from samaudio.render_examples import SAMPLE_RATE, drum_part, fit, flute_part
from samaudio.render_sound import SOUNDFONT, render_phrase, require

from .backgrounds import Background
from .films import DrawnFilm
from .render import draw_film
from .scene import Actor, Motion
from .styles import Look, Pictures, require_extra

SECONDS, FPS, SIDE = 7.0, 15.0, 320
_VIOLIN = 40  # General MIDI
PEAK = 0.7  # of the mixture
LOOKS = (Look("fluent", "1f3bb", "violin"), Look("fluent", "1f941", "drum"))
LABELS = ("violin", "drums")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def main(arguments: Sequence[str] | None = None) -> int:
    return console.run(app, "python -m samaudio.drawn.example", arguments)


@app.command()
def example(
    folder: Annotated[Path, typer.Argument(metavar="EXAMPLES", help="Where the film and its stems go.")],
    pictures: Annotated[Path, typer.Option(metavar="PICTURES", help="What python -m samaudio.drawn.collect wrote.")],
) -> None:
    """Draw the example film again."""
    require_extra()
    require(["fluidsynth"], SOUNDFONT)
    from .files import write_film

    stems, rate = _stems(), SAMPLE_RATE
    film = drawn(stems, rate, Pictures(pictures, ["fluent"]))
    write_film(folder / "drawn.mp4", film)
    for name, stem in zip(LABELS, stems, strict=True):
        soundfile.write(folder / f"drawn.{name}.flac", stem, rate, subtype="PCM_16")
    about = [{"label": label, "stem": f"drawn.{label}.flac", "click": _middle(masks, film.times)}
             for label, masks in zip(LABELS, film.masks, strict=True)]
    (folder / "drawn.json").write_text(json.dumps({"film": "drawn.mp4", "objects": about}, indent=1) + "\n")
    console.say(console.whole(folder / "drawn.mp4"))


def drawn(stems: np.ndarray, rate: int, pictures: Pictures) -> DrawnFilm:
    """The film of two stems ``[2, T]``."""
    times = np.arange(round(SECONDS * FPS)) / FPS
    beats = [envelope(stem, rate, times) for stem in stems]
    size, light = 0.3 * SIDE, np.ones(len(times))
    slow = 2 * np.pi * times / SECONDS
    violin = Motion(x=SIDE * (0.28 + 0.05 * np.sin(slow)), y=SIDE * (0.62 - 0.07 * beats[0]), angle=14 * beats[0] - 5,
                    size=size * (1 + 0.25 * beats[0]), light=light)  # fmt: skip
    drum = Motion(x=SIDE * (0.74 + 0.03 * np.cos(slow)), y=SIDE * (0.36 + 0.03 * np.sin(slow)), angle=-6 * beats[1],
                  size=size * (1 + 0.35 * beats[1]), light=light)  # fmt: skip
    actors = [Actor(look, motion) for look, motion in zip(LOOKS, (violin, drum), strict=True)]
    background = Background(np.random.default_rng(21), pictures, [], (SIDE, SIDE), times, 0, 0.3)
    frames, masks = draw_film(pictures, actors, background.at, len(times))
    return DrawnFilm(
        frames=torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2))), times=torch.from_numpy(times),
        masks=torch.from_numpy(masks), silent_masks=torch.zeros(0, len(times), SIDE, SIDE, dtype=torch.bool),
        stems=torch.from_numpy(stems), loudness=torch.from_numpy(np.stack(beats)), sample_rate=rate,
        labels=list(LABELS), phrases=list(LABELS), looks=list(LOOKS), clips=[], alike=False, clicks=[None, None],
        silent_clicks=[])  # fmt: skip


def _stems() -> np.ndarray:
    """float32 ``[2, T]`` at `SAMPLE_RATE`, as loud as each other, together at `PEAK`."""
    found = []
    for phrase in (replace(flute_part(), program=_VIOLIN), drum_part()):
        wave = render_phrase(phrase, SOUNDFONT, SAMPLE_RATE)
        found.append(fit(wave.mean(1) if wave.ndim == 2 else wave, SECONDS))
    stems = np.stack(found)
    stems /= np.sqrt((stems**2).mean(1, keepdims=True))
    return (stems * PEAK / np.abs(stems.sum(0)).max()).astype(np.float32)


def _middle(masks: torch.Tensor, times: torch.Tensor, at: float = 2.0) -> list[float]:
    """The pixel of an object ``[N, H, W]`` that is farthest from its outline, near a time: x, y and the time."""
    import cv2

    n = int(torch.searchsorted(times, at))
    depth = cv2.distanceTransform(masks[n].numpy().astype(np.uint8), cv2.DIST_L2, 3)
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return [float(x), float(y), round(float(times[n]), 3)]


if __name__ == "__main__":
    sys.exit(main())
