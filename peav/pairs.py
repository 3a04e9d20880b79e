"""The ten contrastive pairs of PE-AV (arXiv 2512.19687, section 2), one temperature and bias each.

A batch may carry three captions per clip: of its audio, of its picture, and of both. Each goes through a head of its
own, so a text embedding names its *caption*, not what it is compared with: ``text_audio`` is the audio caption, also
where the video is asked for it. The two pairs of fine-tuning join a clip with the caption of the *other* modality,
which says what the clip itself lacks: audio and visual caption look for the video, video and audio caption for the
audio.

=========================== ================ ================= ======================= =========
pair                        rows             columns           caption                 stage
=========================== ================ ================= ======================= =========
audio_video                 audio            video             none                    both
text_audio                  audio            text_audio        audio                   both
text_audio_of_video         video            text_audio        audio                   both
text_audio_of_audio_video   audio_video      text_audio        audio                   both
text_video                  video            text_video        visual                  both
text_audio_video            audio_video      text_audio_video  audio-visual            both
text_audio_video_of_audio   audio            text_audio_video  audio-visual            both
text_audio_video_of_video   video            text_audio_video  audio-visual            both
audio_plus_text             audio_plus_text  video             visual, in the rows     fine-tune
video_plus_text             video_plus_text  audio             audio, in the rows      fine-tune
=========================== ================ ================= ======================= =========

A model keeps the scales of six of them, under the same names (``<pair>_logit_scale`` and ``_bias``,
`peav.model.PAIRS`); the other four compare the same embeddings in other ways and matter for training alone. A model
stores ``exp(log_scale)``; training learns the logarithm, see `PairLosses.export_to`.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from .errors import UserError, shown
from .gather import check_alike, gather_rows, place
from .losses import sum_of_terms


@dataclass(frozen=True)
class Pair:
    """Two embeddings that belong together where they are of the same clip."""

    rows: str
    columns: str
    stored_as: str  # the pair whose scale and bias a model keeps: itself, or the nearest one

    @property
    def ends(self) -> tuple[str, str]:
        return self.rows, self.columns


PAIRS = {
    "audio_video": Pair("audio", "video", "audio_video"),
    "text_audio": Pair("audio", "text_audio", "text_audio"),
    "text_audio_of_video": Pair("video", "text_audio", "text_audio"),
    "text_audio_of_audio_video": Pair("audio_video", "text_audio", "text_audio"),
    "text_video": Pair("video", "text_video", "text_video"),
    "text_audio_video": Pair("audio_video", "text_audio_video", "text_audio_video"),
    "text_audio_video_of_audio": Pair("audio", "text_audio_video", "text_audio_video"),
    "text_audio_video_of_video": Pair("video", "text_audio_video", "text_audio_video"),
    "audio_plus_text": Pair("audio_plus_text", "video", "audio_plus_text"),
    "video_plus_text": Pair("video_plus_text", "audio", "video_plus_text"),
}
FINE_TUNING = tuple(PAIRS)
PRETRAINING = FINE_TUNING[:8]
SETS = {"pretraining": PRETRAINING, "fine_tuning": FINE_TUNING}

# Which caption stands in an embedding. Captions are named as in a manifest: of the audio, the video, or both.
CAPTION_OF = {
    "text_audio": "audio",
    "text_video": "video",
    "text_audio_video": "audio_video",
    "audio_plus_text": "video",
    "video_plus_text": "audio",
}


def choose_pairs(names: str | Iterable[str]) -> tuple[str, ...]:
    """The pairs of a configuration: names of pairs, or of the sets ``pretraining`` and ``fine_tuning``, in our order.

    Raises:
        UserError: a name is unknown, or there is none.
    """
    names = [names] if isinstance(names, str) else list(names)
    unknown = [name for name in names if name not in PAIRS and name not in SETS]
    if unknown:
        raise UserError(f"unknown pair {shown(unknown[0])!r}; choose {', '.join(SETS)}, or of {', '.join(PAIRS)}")
    chosen = {pair for name in names for pair in SETS.get(name, (name,))}
    if not chosen:
        raise UserError(f"no pairs; choose {' or '.join(SETS)}, or of {', '.join(PAIRS)}")
    return tuple(name for name in PAIRS if name in chosen)


@dataclass
class PairOutput:
    """``total``: what to minimise. ``terms``: each pair's loss by name, unweighted; pairs without inputs are absent."""

    total: Tensor
    terms: dict[str, Tensor]


class PairLosses(nn.Module):
    """Sum of `peav.losses.sigmoid_contrastive` over pairs, each with its own temperature and bias.

    They start as in SigLIP (arXiv 2303.15343), so that the first step sees almost all pairs as negatives, as they
    are. Temperatures suit unit embeddings; ones that keep their length want a smaller start.

    Args:
        names: see `choose_pairs`.
        weights: factor of a pair's loss, by name; 1 for the others.
        scale, bias: where all of them start.
        chunk_size: rows whose logits exist at once.
    """

    def __init__(
        self,
        names: str | Sequence[str] = PRETRAINING,
        weights: Mapping[str, float] | None = None,
        scale: float = 10.0,
        bias: float = -10.0,
        chunk_size: int | None = None,
    ) -> None:
        super().__init__()
        self.names = choose_pairs(names)
        self.weights = dict(weights or {})
        unknown = sorted(set(self.weights) - set(self.names))
        if unknown:
            raise UserError(f"weight of {shown(unknown[0])!r}, which is none of the pairs: {', '.join(self.names)}")
        if scale <= 0:
            raise UserError(f"scale {scale} of the pairs; give a positive number")
        self.chunk_size = chunk_size
        self.log_scale = nn.ParameterDict({name: torch.tensor(math.log(scale)) for name in self.names})
        self.bias = nn.ParameterDict({name: torch.tensor(float(bias)) for name in self.names})

    def possible(self, embeddings: Iterable[str]) -> tuple[str, ...]:
        """The pairs of which both ends are there."""
        there = set(embeddings)
        return tuple(name for name in self.names if there.issuperset(PAIRS[name].ends))

    def forward(
        self,
        embeddings: Mapping[str, Tensor],
        keys: Mapping[str, Tensor] | None = None,
        group: ProcessGroup | None = None,
    ) -> PairOutput:
        """Losses of a batch that may be spread over processes, by the convention of `peav.losses`.

        Args:
            embeddings: ``[B, E]`` by name, row i of each of the same clip.
            keys: ``[B]`` or ``[B, K]`` int64 by the embedding's name, see `peav.losses.match_keys`. Where two clips
                share a key of either end of a pair, they are no negatives of each other there.

        Raises:
            ValueError: there is no pair, or shapes differ, here or between processes.
        """
        names = self.possible(embeddings)
        if not names:
            raise ValueError(f"embeddings {sorted(embeddings)} make none of the pairs {', '.join(self.names)}")
        used = {end: embeddings[end] for name in names for end in PAIRS[name].ends}
        shapes = {tuple(x.shape) for x in used.values()}
        if len(shapes) > 1 or next(iter(used.values())).dim() != 2:
            raise ValueError(f"embeddings must all be [B, E]; got {({n: tuple(x.shape) for n, x in used.items()})}")
        ((B, E),) = shapes
        own_keys = {name: self._keys_of(name, B, keys or {}) for name in names}
        widths = [0 if key is None else key.shape[1] for key in own_keys.values()]
        told = {"batch": B, "width": E, "kinds of inputs": zlib.crc32(f"{names} {widths}".encode())}
        check_alike(told, next(iter(used.values())).device, group)

        # The columns of all pairs travel together, which is one collective call instead of one per pair.
        ends = list(dict.fromkeys(PAIRS[name].columns for name in names))
        columns = dict(zip(ends, gather_rows(torch.stack([used[n] for n in ends], 1), group).unbind(1), strict=True))
        present = {name: key for name, key in own_keys.items() if key is not None}
        all_keys: dict[str, Tensor] = {}
        if present:
            parts = gather_rows(torch.cat(list(present.values()), 1), group).split([w for w in widths if w], 1)
            all_keys = dict(zip(present, parts, strict=True))
        first = place(group)[0] * B
        terms = {
            name: sum_of_terms(
                used[PAIRS[name].rows], columns[PAIRS[name].columns], self.log_scale[name].exp(), self.bias[name],
                first, None, own_keys[name], all_keys.get(name), self.chunk_size) / B
            for name in names
        }  # fmt: skip
        total = torch.stack([self.weights.get(name, 1.0) * term for name, term in terms.items()]).sum()
        return PairOutput(total, terms)

    @staticmethod
    def _keys_of(name: str, B: int, keys: Mapping[str, Tensor]) -> Tensor | None:
        """``[B, K]``: keys of both ends of a pair side by side, so that sharing any of them counts."""
        found = [keys[end].reshape(B, -1) for end in PAIRS[name].ends if end in keys]
        return torch.cat(found, 1) if found else None

    @torch.no_grad()
    def export_to(self, model: nn.Module) -> None:
        """Write temperatures and biases where a `peav.model.PEAV` keeps them; pairs that it lacks are left out."""
        for name in self.names:
            if PAIRS[name].stored_as == name and hasattr(model, f"{name}_logit_scale"):
                getattr(model, f"{name}_logit_scale").fill_(self.log_scale[name].exp())
                getattr(model, f"{name}_logit_bias").fill_(self.bias[name])

    @torch.no_grad()
    def import_from(self, model: nn.Module) -> None:
        """Start from a model's temperatures and biases; pairs of which it keeps none, from those of the same text.

        Published ones that were never trained are zero, which is no temperature: these start afresh.
        """
        for name in self.names:
            stored = PAIRS[name].stored_as
            scale = getattr(model, f"{stored}_logit_scale", None)
            if scale is not None and float(scale) > 0:
                self.log_scale[name].copy_(scale.log().squeeze())
                self.bias[name].copy_(getattr(model, f"{stored}_logit_bias").squeeze())
