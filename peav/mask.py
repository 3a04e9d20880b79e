"""The mask separator: which part of a mixture's latent answers the query.

Axes: ``B`` batch, ``D`` latent channels, ``F`` latent frames, ``E`` query width, ``W`` network width,
``K`` hypotheses, ``N`` embedder frames.

The latent is lifted to a wider non-negative basis, a mask between 0 and 1 is predicted for it from the latent
and the query, and the masked basis is projected back. At initialisation lift and projection are exact inverses,
so a mask of ones returns the mixture: training starts from a separator that loses nothing.

The network lies here, below `samaudio`, because the small Judge listens with it too (`judge.estimate`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F_
from torch import Tensor, nn

from .checkpoints import Part
from .latents import log_features
from .transformer import Layer, TransformerConfig, rotary_angles

ANYWHERE, OUTSIDE, INSIDE = 0, 1, 2  # what a time span says of a frame


@dataclass(frozen=True)
class MaskConfig:
    """Sizes of the separator. ``dilations``: one convolution block each; an attention layer after every
    ``attention_every`` of them. ``hint_dim``: width of the embedder's frame embeddings, 0 to do without them.
    ``sight``: reads what was pointed at in a film by weights of its own, so that words are read as ever.
    ``rest``: how many names of sounds it knows for what else is heard (`peav.rest`), 0 to be told nothing of it.
    ``detail``: channels of the layers that look at neighbouring latent channels, 0 for none; ``detail_blocks`` of them,
    on groups of ``detail_group`` latent channels."""

    latent_dim: int
    query_dim: int
    width: int = 320
    dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 1, 2, 4, 8, 16)
    attention_every: int = 5
    num_heads: int = 4
    hypotheses: int = 4
    hint_dim: int = 0
    sight: bool = False
    rest: int = 0
    detail: int = 0
    detail_blocks: int = 3
    detail_group: int = 4

    def __post_init__(self) -> None:
        object.__setattr__(self, "dilations", tuple(self.dilations))
        if self.width % (2 * self.num_heads):
            raise ValueError(f"width {self.width} must be a multiple of twice num_heads {self.num_heads}")
        if self.hypotheses < 1:
            raise ValueError(f"hypotheses {self.hypotheses} must be at least 1")
        if self.detail and self.latent_dim % self.detail_group:
            raise ValueError(f"detail_group {self.detail_group} must divide latent_dim {self.latent_dim}")
        if self.rest and not self.hint_dim:
            raise ValueError("rest needs hints; give a hint_dim")

    def to_dict(self) -> dict:
        return asdict(self)


@dataclass
class MaskOutput:
    """What the separator says of a mixture.

    ``target`` and ``residual`` are latents ``[B, K, D, F]`` whose sum is what a mask of ones would give: at
    initialisation exactly the mixture's latent, later close to it. ``activity [B, F]`` are logits that the target
    sounds in a frame; ``presence [B]`` that it sounds at all; ``confidence [B, K]`` of each hypothesis being the best.
    """

    target: Tensor
    residual: Tensor
    activity: Tensor
    presence: Tensor
    confidence: Tensor


class FilmConv(nn.Module):
    """Dilated gated convolution, its input scaled and shifted by the query, added to its input.

    Over frames, or over bands and frames where ``dilation`` has two numbers; ``channels`` default to the query's
    ``width``.
    """

    def __init__(self, width: int, dilation: int | tuple[int, int], channels: int | None = None):
        super().__init__()
        C = channels or width
        conv = nn.Conv1d if isinstance(dilation, int) else nn.Conv2d
        self.norm = nn.GroupNorm(1, C)
        self.film = nn.Linear(width, 2 * C)
        self.mix = conv(C, 2 * C, 3, padding=dilation, dilation=dilation)  # type: ignore[arg-type]
        self.out = conv(C, C, 1)
        nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, query: Tensor) -> Tensor:
        """``x [B, C, F]`` or ``[B, C, bands, F]``, ``query [B, W]``."""
        film = self.film(query)
        scale, shift = film.view(*film.shape, *[1] * (x.dim() - 2)).chunk(2, dim=1)
        value, gate = self.mix(self.norm(x) * (1 + scale) + shift).chunk(2, dim=1)
        return x + self.out(value * F_.silu(gate))


def _zero(layer: nn.Conv1d | nn.Conv2d | nn.Linear) -> None:
    """Let a layer start as nothing."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class Detail(nn.Module):
    """What is added to the masks' logits where the picture is looked at closely.

    The trunk sees all latent channels of a frame through ``W`` numbers, which blurs them. Here the latent is a picture
    of bands (``group`` neighbouring channels each) and frames, and small convolutions compare it with what the trunk
    makes of it. Starts as nothing, so that it can be given to a separator that was trained without it.
    """

    SPREAD = 4  # numbers that the trunk tells every band
    SPREADS = ((1, 1), (2, 2), (4, 1))  # dilations over bands and frames, block by block

    def __init__(self, config: MaskConfig):
        super().__init__()
        self.group, self.hypotheses = config.detail_group, config.hypotheses
        self.bands = config.latent_dim // self.group
        C, W = config.detail, config.width
        self.told = nn.Conv1d(W, self.bands * self.SPREAD, 1)
        self.enter = nn.Conv2d(4 * self.group + self.SPREAD, C, 1)
        self.blocks = nn.ModuleList(
            FilmConv(W, self.SPREADS[i % len(self.SPREADS)], C) for i in range(config.detail_blocks))
        self.norm = nn.GroupNorm(1, C)
        self.leave = nn.Conv2d(C, 2 * self.group * config.hypotheses, 1)
        _zero(self.leave)

    def forward(self, features: Tensor, coarse: Tensor, x: Tensor, query: Tensor) -> Tensor:
        """Logits ``[B, K, 2D, F]`` to add.

        Args:
            features: the latent's, ``[B, 2D, F]``.
            coarse: the first mask's logits ``[B, 2D, F]``.
            x: what the trunk ends with ``[B, W, F]``.
            query: ``[B, W]``.
        """
        B, _, F = features.shape
        picture = torch.cat((self._picture(features), self._picture(coarse.to(features.dtype) / 4),
                             self._picture(self.told(x).to(features.dtype), self.SPREAD)), dim=1)
        # Channels last: twice as fast on a CPU.
        y = self.enter(picture.contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            y = block(y, query)
        y = self.leave(self.norm(y))
        y = y.view(B, self.hypotheses, 2, self.group, self.bands, F).transpose(3, 4)
        return y.reshape(B, self.hypotheses, -1, F)

    def _picture(self, x: Tensor, group: int | None = None) -> Tensor:
        """``[B, n * bands * group, F]`` as ``[B, n * group, bands, F]``."""
        B, _, F = x.shape
        group = group or self.group
        return x.view(B, -1, self.bands, group, F).transpose(2, 3).reshape(B, -1, self.bands, F)


class MaskSeparator(Part):
    """Latent of a mixture and a query in, ``K`` ways to split the latent out."""

    format, sizes = "samaudio-mask-separator", MaskConfig

    def __init__(self, config: MaskConfig):
        super().__init__()
        self.config = config
        D, W, K = config.latent_dim, config.width, config.hypotheses
        self.lift = nn.Conv1d(D, 2 * D, 1, bias=False)
        self.drop = nn.Conv1d(2 * D, D, 1, bias=False)
        identity = torch.eye(D)
        with torch.no_grad():  # relu(z) - relu(-z) = z
            self.lift.weight.copy_(torch.cat((identity, -identity))[..., None])
            self.drop.weight.copy_(torch.cat((identity, -identity), dim=1)[..., None])
        self.features = nn.Conv1d(2 * D, W, 1)
        self.anchors = nn.Embedding(3, W)
        nn.init.zeros_(self.anchors.weight)
        if config.hint_dim:
            # Starts at zero, so that hints can be given to a separator that was trained without them.
            self.hints = nn.Conv1d(2 * config.hint_dim, W, 1)
            _zero(self.hints)
        # Queries are unit vectors, so their entries are tiny; without the norm at the end every prompt would look
        # the same to the layers for thousands of steps.
        self.query = nn.Sequential(nn.Linear(config.query_dim, W), nn.SiLU(), nn.Linear(W, W), nn.LayerNorm(W))
        if config.sight:
            if not config.hint_dim:
                raise ValueError("sight needs hints; give a hint_dim")
            self.seen_query = nn.Sequential(
                nn.Linear(config.query_dim, W), nn.SiLU(), nn.Linear(W, W), nn.LayerNorm(W))
            self.seen_hints = nn.Conv1d(2 * config.hint_dim, W, 1)
            self.look_like_words()
        if config.rest:
            # Both end in layers that start at zero: what else is heard can be told later.
            last = nn.Linear(W, W, bias=False)
            self.rest_query = nn.Sequential(nn.Linear(config.query_dim, W), nn.SiLU(), last)
            self.rest_hints = nn.Conv1d(config.hint_dim, W, 1, bias=False)
            _zero(last)
            _zero(self.rest_hints)
            for kind in ("clip", "frame"):
                self.register_buffer(f"names_{kind}", torch.zeros(config.rest, config.query_dim))
        # Stands for "no words given": the span alone says what is meant.
        self.no_query = nn.Parameter(torch.randn(config.query_dim) * config.query_dim**-0.5)
        self.blocks = nn.ModuleList(FilmConv(W, d) for d in config.dilations)
        self.attention_config = TransformerConfig(W, 1, config.num_heads, 2 * W)
        self.attention = nn.ModuleList(
            Layer(self.attention_config) for _ in range(len(config.dilations) // config.attention_every))
        self.norm = nn.GroupNorm(1, W)
        self.masks = nn.ModuleList(nn.Conv1d(W, 2 * D, 1) for _ in range(K))
        self.activity = nn.Conv1d(W, 1, 1)
        self.summary = nn.Sequential(nn.Linear(3 * W, W), nn.SiLU(), nn.Linear(W, 1 + K))
        if config.detail:
            self.detail = Detail(config)

    def look_like_words(self) -> None:
        """Begin to read what is seen as words are read."""
        self.seen_query.load_state_dict(self.query.state_dict())
        self.seen_hints.load_state_dict(self.hints.state_dict())

    @property
    def names(self) -> tuple[Tensor, Tensor]:
        """Unit vectors ``[L, E]`` of names of sounds, among clips and among frames, for `peav.rest.rest_query`."""
        return self.get_buffer("names_clip"), self.get_buffer("names_frame")

    def forward(
        self,
        latent: Tensor,
        query: Tensor | None,
        anchors: Tensor | None = None,
        hints: Tensor | None = None,
        seen: tuple[Tensor, Tensor] | None = None,
        rest: tuple[Tensor, Tensor] | None = None,
    ) -> MaskOutput:
        """Args:
            latent: ``[B, D, F]``.
            query: unit vectors ``[B, E]``; rows of NaN, or None, mean that nothing was named.
            anchors: ``[B, F]`` with ANYWHERE, OUTSIDE or INSIDE; None means ANYWHERE.
            hints: ``[B, 2 * hint_dim, N]``, see `hints_of`; None means that there are none.
            seen: the same two of what was pointed at in a film, unit vectors ``[B, E]`` and hints; together with words
                both count half.
            rest: what else is heard, to be kept out: unit vectors ``[B, E]``, and what of the embedder's frames agrees
                with it, ``[B, hint_dim, N]`` (`agreement_of`). Rows of NaN: nothing is known.

        Raises:
            ValueError: hints are given to a separator made without (``hint_dim`` 0), ``seen`` to one without sight, or
                ``rest`` to one made without.
        """
        B, D, F = latent.shape
        features = log_features(latent)
        x = self.features(features)
        if anchors is None:
            anchors = torch.full((B, F), ANYWHERE, device=x.device)
        x = x + self.anchors(anchors).transpose(1, 2)
        if hints is not None and not self.config.hint_dim:
            raise ValueError("this separator takes no hints: its hint_dim is 0")
        if seen is not None and not self.config.sight:
            raise ValueError("this separator was made without sight")
        if rest is not None and not self.config.rest:
            raise ValueError("this separator cannot be told what else is heard: its rest is off")
        told = None if hints is None else self.hints(hints.to(x.dtype))
        # Queries are unit vectors: scaled to entries of order one.
        scale = self.config.query_dim**0.5
        if seen is None:
            q = self.query(self._named(query, B) * scale)
        else:
            q, shown = self.seen_query(seen[0].to(x.dtype) * scale), self.seen_hints(seen[1].to(x.dtype))
            if query is not None:
                q = (q + self.query(self._named(query, B) * scale)) / 2
                shown = shown if told is None else (shown + told) / 2
            told = shown
        if rest is not None:
            known = (~rest[0].isnan().any(1, keepdim=True)).to(x.dtype)
            q = q + known * self.rest_query(rest[0].nan_to_num(0.0).to(x.dtype) * scale)
            kept_out = known[..., None] * self.rest_hints(rest[1].nan_to_num(0.0).to(x.dtype))
            told = kept_out if told is None else told + kept_out
        if told is not None:
            x = x + F_.interpolate(told, F, mode="nearest")
        angles = rotary_angles(F, self.attention_config.width_per_head, self.attention_config.rope_theta, x.device)
        for i, block in enumerate(self.blocks, 1):
            x = block(x, q)
            if i % self.config.attention_every == 0:
                x = self.attention[i // self.config.attention_every - 1](x.transpose(1, 2), angles).transpose(1, 2)
        x = self.norm(x)
        activity = self.activity(x)[:, 0]
        weight = activity.float().softmax(-1).to(x.dtype)
        # A short sound in a long clip shows in the extremes and where it is active, not in the mean.
        pooled = torch.cat((x.mean(-1), x.amax(-1), (x * weight[:, None]).sum(-1)), dim=1)
        presence, confidence = self.summary(pooled).split((1, self.config.hypotheses), dim=1)
        basis = F_.relu(self.lift(latent))
        logits = [mask(x) for mask in self.masks]
        if self.config.detail:
            closer = self.detail(features, logits[0], x, q)
            logits = [logit + more for logit, more in zip(logits, closer.unbind(1), strict=True)]
        target = torch.stack([self.drop(torch.sigmoid(logit) * basis) for logit in logits], dim=1)
        whole = self.drop(basis)[:, None]
        return MaskOutput(target.float(), (whole - target).float(), activity.float(), presence[:, 0].float(),
                          confidence.float())

    def _named(self, query: Tensor | None, batch: int) -> Tensor:
        """Unit vectors ``[B, E]``, with what stands for "no words" where there are none."""
        if query is None:
            return self.no_query.expand(batch, -1)
        return torch.where(query.isnan(), self.no_query.to(query.dtype), query)


def hints_of(frames: Tensor, named: Tensor) -> Tensor:
    """What the embedder hears, frame by frame, and what of it agrees with the query: ``[B, 2E, N]``.

    Args:
        frames: unit vectors ``[B, N, E]`` of its frame-level head on the mixture.
        named: the query's unit vectors in the same space, ``[B, E]``, or ``[B, N, E]`` of a query that changes with
            time, such as an object in a film; NaN agrees with nothing.
    """
    # Scaled to entries of order one, as the network's own features are.
    return torch.cat(((frames * frames.shape[-1]**0.5).transpose(1, 2), agreement_of(frames, named)), dim=1)


def agreement_of(frames: Tensor, named: Tensor) -> Tensor:
    """The second half of `hints_of`: what of the frames agrees with the query, ``[B, E, N]``."""
    agreement = frames * (named[:, None] if named.dim() == 2 else named)
    return (agreement * frames.shape[-1]).nan_to_num(0.0).transpose(1, 2)
