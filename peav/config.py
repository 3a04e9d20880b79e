"""Sizes and habits of a PE-AV: one class from the small packaged model to the published large ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from .codec import CodecConfig
from .modernbert import ModernBertConfig
from .transformer import TransformerConfig
from .vision import VisionConfig


@dataclass(frozen=True)
class PEAVConfig:
    """What a PE-AV is made of. Published models are all defaults; the small one differs where it says so.

    Towers:
        ``codec``, ``audio``: always there. ``text``: None for the frozen sentence encoder of `peav.text`, which is
        not stored with the weights. ``vision``, ``video``, ``audio_video``: all or none of them.
        ``frames``: a PE-A-Frame head beside the clip-level ones, on the same audio tower. ``wording``: hidden width of
        what helps the text heads with unusual wordings (`peav.wording`); 0 for none.

    Inputs:
        ``token_frames``: latent frames per token of the audio tower. ``log_input``: feed it log magnitudes, which a
        lapped latent needs, instead of the latent itself. ``video_frames``: images per clip where the model takes a
        fixed number of them.

    Outputs:
        ``normalise``: unit embeddings; published ones keep their length.
    """

    codec: CodecConfig
    audio: TransformerConfig
    output_dim: int
    text: ModernBertConfig | None = None
    vision: VisionConfig | None = None
    video: TransformerConfig | None = None
    audio_video: TransformerConfig | None = None
    video_frames: int | None = None
    token_frames: int = 1
    log_input: bool = False
    normalise: bool = False
    frames: bool = False
    wording: int = 0

    def __post_init__(self) -> None:
        seeing = (self.vision, self.video, self.audio_video)
        if any(seeing) and not all(seeing):
            raise ValueError("a model sees with vision, video and audio_video together, or has none of them")
        if self.output_dim < 1 or self.token_frames < 1:
            raise ValueError(f"output_dim={self.output_dim} and token_frames={self.token_frames} must be at least 1")

    @property
    def sees(self) -> bool:
        """Whether there are towers for video."""
        return self.vision is not None

    @property
    def frame_seconds(self) -> float:
        """Length of a token of the audio tower in seconds."""
        return self.token_frames * self.codec.hop_length / self.codec.sample_rate

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self) | {"codec": self.codec.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PEAVConfig:
        """From `to_dict`, or what JSON made of it.

        Raises:
            KeyError, TypeError, ValueError: fields are missing, unknown or contradict each other.
        """
        parts: dict[str, Callable[[dict], Any]] = {
            "codec": CodecConfig.from_dict,
            "audio": lambda v: TransformerConfig(**v),
            "video": lambda v: TransformerConfig(**v),
            "audio_video": lambda v: TransformerConfig(**v),
            "text": lambda v: ModernBertConfig(**_tuples(v)),
            "vision": VisionConfig.from_dict,
        }
        known = {field.name for field in fields(cls)}
        if set(values) - known:
            raise TypeError(f"unknown settings {sorted(set(values) - known)}")
        return cls(**{name: parts[name](value) if name in parts and value is not None else value
                      for name, value in values.items()})


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON knows no tuples, which frozen configurations hold."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
