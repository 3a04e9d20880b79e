"""Drawn films as `peav.films.FilmBatches` takes them: no files, a new film for every look."""

from __future__ import annotations

import numpy as np
import torch

from peav import media
from peav.errors import UserError
from peav.films import Cut, Item

from .films import DrawnFilms


class DrawnItems:
    """The first ``number`` films of a stream, cut as a model wants them.

    Args:
        films: where they come from; their length, size and frame rate are those of ``cut``, or longer and larger.

    Raises:
        UserError: ``cut`` asks for more seconds than films have.
    """

    def __init__(self, films: DrawnFilms, number: int, cut: Cut) -> None:
        if cut.seconds > films.recipe.sound.seconds + 1e-6:
            raise UserError(f"films of {films.recipe.sound.seconds:g} s cannot give {cut.seconds:g} s; draw longer "
                            "ones")
        self.films, self.number, self.cut = films, number, cut

    def __len__(self) -> int:
        return self.number

    def inputs(self, i: int) -> frozenset[str]:
        return frozenset({"audio", "video", "caption_audio", "caption_video", "caption_audio_video"})

    def item(self, i: int, rng: np.random.Generator) -> Item:
        """Film i from a random place: sound at the model's rate, frames as it wants them, a caption of each kind."""
        film, cut = self.films[i], self.cut
        start = float(rng.uniform(0, max(self.films.recipe.sound.seconds - cut.seconds, 0)))
        begin = round(start * film.sample_rate)
        sound = film.samples[begin : begin + round(cut.seconds * film.sample_rate)]
        count = cut.num_frames or max(1, round(cut.seconds * (cut.fps or 1)))
        wanted = start + np.arange(count) * cut.seconds / count
        shown = np.searchsorted(film.times.numpy(), wanted + 1e-6, side="right") - 1
        video = film.frames[shown.clip(0)]
        if tuple(video.shape[-2:]) != cut.size:
            small = torch.nn.functional.interpolate(video.float(), size=cut.size, mode="bilinear", antialias=True)
            video = small.round().clamp(0, 255).to(torch.uint8)
        captions = {kind: texts[int(rng.integers(len(texts)))] for kind, texts in film.captions.items()}
        return {"id": f"drawn {self.films.seed} {i}", "captions": captions, "video": video,
                "audio": media.resample(sound[None], film.sample_rate, cut.sample_rate)[0]}  # fmt: skip
