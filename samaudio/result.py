"""What a separation gives back: in memory, or as files."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from .spans import Times


@dataclass(frozen=True)
class Quality:
    """What the Judge says of a target, 1 to 5 each (docs/judge.md); NaN where it was not asked or has no say."""

    overall: float = math.nan
    recall: float = math.nan
    precision: float = math.nan
    faithfulness: float = math.nan

    def to_dict(self) -> dict[str, float | None]:
        return {name: _number(value) for name, value in vars(self).items()}


UNJUDGED = Quality()


@dataclass(frozen=True)
class Scores:
    """``similarity``: cosine of the prompt and what came out, NaN without words or sound.

    ``presence``: probability that the sound is in the recording. ``confidence``: probability of the chosen
    candidate being the best. ``quality``: of the target.
    """

    similarity: float
    presence: float
    confidence: float
    quality: Quality = UNJUDGED

    def to_dict(self) -> dict[str, float | None]:
        names = ("similarity", "presence", "confidence")
        return {name: _number(getattr(self, name)) for name in names} | self.quality.to_dict()


@dataclass
class Candidate:
    """One of the ways to separate; the highest ``score`` among them was chosen.

    ``target [C, T]`` is kept for separations in memory only.
    """

    score: float
    similarity: float
    confidence: float
    quality: Quality = UNJUDGED
    target: Tensor | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, float | None]:
        names = ("score", "similarity", "confidence")
        return {name: _number(getattr(self, name)) for name in names} | self.quality.to_dict()


@dataclass
class Result:
    """One sound taken out of a recording.

    ``target`` and ``residual`` are float32 ``[C, T]`` at the recording's own rate and add up to it. ``spans``
    are (start, end, confidence), seconds. When the sound is not ``present``, the target is silent. ``followed_by`` says
    what followed the object that was pointed at in a film, None where nothing was.
    """

    target: Tensor = field(repr=False)
    residual: Tensor = field(repr=False)
    sample_rate: int  # Hz
    scores: Scores
    spans: list[Times]
    present: bool
    prompt: str
    candidates: list[Candidate]
    chosen: int
    followed_by: str | None = None

    def save(self, folder: str | Path, track: str = "mix", format: str = "wav", force: bool = False) -> list[Path]:
        """Write ``folder/<track>/<prompt>.<ext>`` and ``<prompt>.residual.<ext>``, both or none.

        Raises:
            UserError: they exist and ``force`` is not given, or the format cannot hold this recording.
        """
        from . import files

        paths = files.stem_paths(Path(folder) / files.safe_name(track), [self.prompt], format)[0]
        files.check_stems(paths, self.sample_rate, len(self.target), format, force)
        with (
            files.folder_for(paths),
            files.stem_files(paths, self.sample_rate, len(self.target), format, force) as out,
        ):
            out.write(self.target + self.residual, self.target)
        return [paths.target, paths.residual]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the samples, ready for JSON; NaN becomes None."""
        return _facts(self) | {
            "channels": len(self.target),
            "seconds": self.target.shape[-1] / self.sample_rate,
        }


@dataclass
class FileResult:
    """One sound taken out of a file, as two files.

    ``warnings`` are lines for the user, such as how many samples were clipped. ``skipped``: both files were
    there already and nothing was computed; scores are then NaN and there are no spans.
    """

    target: Path
    residual: Path
    prompt: str
    present: bool
    scores: Scores
    spans: list[Times]
    seconds: float
    sample_rate: int  # Hz
    channels: int
    warnings: list[str] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    chosen: int = 0
    skipped: bool = False
    followed_by: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON; NaN becomes None."""
        return _facts(self) | {
            "target": str(self.target),
            "residual": str(self.residual),
            "channels": self.channels,
            "seconds": self.seconds,
            "warnings": list(self.warnings),
            "skipped": self.skipped,
        }


def _facts(result: Result | FileResult) -> dict[str, Any]:
    return {
        "prompt": result.prompt,
        "present": result.present,
        "sample_rate": result.sample_rate,
        "scores": result.scores.to_dict(),
        "spans": [
            {"start": round(start, 3), "end": round(end, 3), "confidence": round(confidence, 4)}
            for start, end, confidence in result.spans
        ],
        "candidates": [candidate.to_dict() for candidate in result.candidates],
        "chosen": result.chosen,
    } | ({} if result.followed_by is None else {"followed_by": result.followed_by})


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return round(value, 4) if math.isfinite(value) else None
