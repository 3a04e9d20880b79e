"""Embeddings of items: texts, sounds, videos and pairs of two, each computed once.

Long items are cut into windows of `peav.windows.WINDOW` seconds whose embeddings are averaged by length, so an item
of any length takes the same memory. A model that looks at a fixed number of images sees these of the whole item;
in windows only where sound comes with them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import media, windows
from ..errors import UserError, shown
from ..excerpts import Mean
from .manifest import VIDEO, Item
from .store import Store, file_key, key_of

BATCH = 64  # texts embedded at a time
_RULES = f"2|{windows.WINDOW}"  # part of every key: how items are cut; counted up when that changes
TEXT_FOR = {"audio": "audio", "video": "video", "audio+video": "audio_video"}
Track = Callable[[Sequence[Any], str], Iterator[Any]]


def _silently(things: Sequence[Any], title: str) -> Iterator[Any]:
    return iter(things)


class Embeddings:
    """A model's embeddings ``[E]`` of items and texts, kept in a store.

    Args:
        model: see `peav.model.PEAV`.
        store: where results are kept.
        fps: look at no more pictures a second; None: at all of them. Models with a fixed number ignore it.
        lenient: leave out what cannot be read, instead of stopping.
        track: wraps a loop to show how far it is.

    ``left_out``: per reason the items that got no embedding.
    """

    def __init__(
        self, model: Any, store: Store, *, fps: float | None = None, lenient: bool = False, track: Track = _silently
    ) -> None:
        self.model, self.store, self.fps, self.lenient, self.track = model, store, fps, lenient, track
        self.left_out: dict[str, set[str]] = {}
        config = getattr(model, "config", None)
        self._fixed: int | None = getattr(config, "video_frames", None)
        self._size: tuple[int, int] | None = getattr(getattr(config, "vision", None), "image_size", None)

    def can(self, kind: str) -> bool:
        """Whether the model embeds ``kind``, e.g. "audio+text"."""
        return getattr(self.model, "has_clips", True) and set(kind.split("+")) <= set(self.model.modalities)

    def texts(self, texts: Sequence[str], text_for: str) -> Tensor:
        """``[B, E]`` of texts that are compared with ``text_for``: audio, video or audio_video."""
        keys = [key_of("text", text_for, text.strip()) for text in texts]
        words = {key: text.strip() for key, text in zip(keys, texts, strict=True)}
        new = [key for key in words if self.store.get(key) is None]
        starts = range(0, len(new), BATCH)
        for start in self.track(starts, "texts"):
            part = new[start : start + BATCH]
            self._keep(part, self.model.embed(text=[words[key] for key in part], text_for=text_for), "a text")
        return torch.stack([self._kept(key) for key in keys])

    def media(self, kind: str, items: Sequence[Item]) -> list[Tensor | None]:
        """Embedding ``[E]`` of each item's audio, video, or "audio+video"; None where it has none of it."""
        return [found[0] if (found := self._of(kind, item, ())) else None for item in self.track(items, kind)]

    def joined(self, kind: str, items: Sequence[Item], texts: Sequence[Sequence[str]]) -> list[list[Tensor] | None]:
        """Embeddings of each item together with each of its texts; ``kind`` is "audio+text" or "video+text"."""
        pairs = list(zip(items, texts, strict=True))
        alone = kind.removesuffix("+text")
        return [self._of(alone, item, own) if own else None for item, own in self.track(pairs, kind)]

    def _of(self, kind: str, item: Item, texts: Sequence[str]) -> list[Tensor] | None:
        """One embedding, or one for each text."""
        wanted = {name: getattr(item, name) for name in kind.split("+")}
        if None in wanted.values():
            return None
        files = [file_key(path) for path in dict.fromkeys(wanted.values())]
        base = (_RULES, kind, *files, item.start, item.end, self.fps if "video" in wanted else None)
        keys = [key_of(*base, "with", text.strip()) for text in texts] or [key_of(*base)]
        if any(self.store.get(key) is None for key in keys):
            try:
                vectors = self._computed(kind, item, [text.strip() for text in texts])
            except UserError:
                if self._is_mute(item, kind):
                    self.left_out.setdefault("have no sound", set()).add(item.id)
                    return None
                if not self.lenient:
                    raise
                self.left_out.setdefault("cannot be read", set()).add(item.id)
                return None
            self._keep(keys, vectors, item.id)
        return [self._kept(key) for key in keys]

    def _keep(self, keys: Sequence[str], vectors: Tensor, name: str) -> None:
        if not bool(vectors.isfinite().all()):
            raise UserError(f"{shown(name)}: its embedding holds NaN or infinity; check the model, or its dtype")
        for key, vector in zip(keys, vectors.float().cpu().numpy(), strict=True):
            self.store.put(key, vector)

    def _kept(self, key: str) -> Tensor:
        value = self.store.get(key)
        assert value is not None
        return torch.from_numpy(value.copy())

    def _is_mute(self, item: Item, kind: str) -> bool:
        """Whether the only thing wrong with the item is that its video has no sound."""
        if "audio" not in kind or item.audio is None or item.audio.suffix.lower() not in VIDEO:
            return False
        try:
            media.probe(item.audio)
        except UserError:
            return _shows(item)
        return False

    def _computed(self, kind: str, item: Item, texts: Sequence[str]) -> Tensor:
        """``[1, E]``, or ``[C, E]`` with texts."""
        if kind == "audio" and not texts:
            return self._heard(item)[None]
        if kind == "video" and self._fixed is not None:
            frames = self._frames(item, item.start, item.end)
            return self._embed(video=[frames], texts=texts)
        means = [Mean() for _ in texts or ("",)]
        late = _delay(item) if kind == "audio+video" else 0.0
        for start, end in _cuts(item, kind, late):
            given = {}
            if "audio" in kind:
                given["audio"] = [self._sound(item, start, end)]
            if "video" in kind:
                given["video"] = [self._frames(item, start + late, end + late)]
            for mean, vector in zip(means, self._embed(**given, texts=texts), strict=True):
                mean.add(vector, end - start)
        return torch.stack([vector for mean in means if (vector := mean.result()) is not None])

    def _embed(self, *, texts: Sequence[str] = (), **given: list[Tensor]) -> Tensor:
        times = max(1, len(texts))
        inputs: dict[str, Any] = {name: value * times for name, value in given.items()}
        if texts:
            inputs["text"] = list(texts)
        return self.model.embed(**inputs)

    def _heard(self, item: Item) -> Tensor:
        assert item.audio is not None
        with media.stream(item.audio, 1 << 16, first_sample(item)) as blocks:
            rate = blocks.info.sample_rate
            found = windows.embed_blocks(self.model, until(blocks, item, rate), rate)
        if found is None:
            # Digital silence: an item like any other, which a model has to place somewhere.
            found = self.model.embed(audio=[torch.zeros(self.model.sample_rate, device=self.model.device)])[0]
        return found

    def _sound(self, item: Item, start: float, end: float) -> Tensor:
        """Mono ``[T]`` at the model's rate."""
        assert item.audio is not None
        waveform, rate = media.read(item.audio, start, end - start)
        return media.resample(waveform.mean(0, keepdim=True), rate, self.model.sample_rate)[0].to(self.model.device)

    def _frames(self, item: Item, start: float, end: float | None) -> Tensor:
        from ..media.video import FASTEST, read_frames

        assert item.video is not None
        small: dict[str, Any] = {"max_side": 448} if self._size is None else {"size": self._size}
        many: dict[str, Any] = {"num_frames": self._fixed} if self._fixed else {"fps": self.fps or FASTEST}
        return read_frames(item.video, start=start, end=end, **many, **small)[0]


def _delay(item: Item) -> float:
    """Seconds by which the sound of a film begins after the film; pictures are asked for by the film's clock."""
    if item.audio is None or item.audio != item.video:
        return 0.0
    return max(0.0, media.probe(item.audio).start_seconds)


def _cuts(item: Item, kind: str, late: float = 0.0) -> list[tuple[float, float]]:
    """Windows of the item in seconds of its sound, if that counts; a short rest at the end belongs to the last one."""
    start, end = item.start, item.end
    ends = [] if end is None else [end]
    if "audio" in kind and item.audio is not None and (seconds := media.probe(item.audio).seconds) is not None:
        ends.append(seconds)
    if "video" in kind and item.video is not None:
        from ..media.video import probe_video

        ends.append(probe_video(item.video).seconds - late)
    if not ends or min(ends) <= start:
        raise UserError(f"{shown(item.id)}: nothing from {start:g} s on; check start and end in the manifest")
    length = min(ends) - start
    number = max(1, math.floor((length - windows.SHORTEST) / windows.WINDOW) + 1)
    edges = [start + windows.WINDOW * i for i in range(number)] + [start + length]
    return list(zip(edges[:-1], edges[1:], strict=True))


def first_sample(item: Item) -> int:
    """Number of the first sample that counts."""
    if not item.start:
        return 0
    assert item.audio is not None
    return round(item.start * media.probe(item.audio).sample_rate)


def until(blocks: media.AudioStream, item: Item, rate: int) -> Iterator[Tensor]:
    """The blocks up to the item's end."""
    left = math.inf if item.end is None else round((item.end - item.start) * rate)
    for block in blocks:
        if left <= 0:
            return
        yield block if block.shape[-1] <= left else block[:, : int(left)]
        left -= block.shape[-1]


def _shows(item: Item) -> bool:
    from ..media.video import probe_video

    try:
        probe_video(item.audio)  # type: ignore[arg-type]
    except UserError:
        return False
    return True
