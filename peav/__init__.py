"""PE-AV: one embedding space for audio, video and text, and everything below it.

Modules
-------
errors          mistakes a user can make, as one clear line
console, cli    the `peav` command, and what the three commands share
media           audio in and out: the only place that touches files with sound in them
codec           DAC-VAE: waveform to latent and back (`lapped`: its stem; `watermark`, `codec_keys`, `codec_files`)
transformer     the temporal transformer that all towers share
text            frozen sentence encoder behind the small model's text heads
latents         what networks see of a latent
model           the small embedder: audio tower and heads
published       PE-AV and PE-A-Frame as published (`towers`, `vision`, `modernbert`, `published_*`), for their weights
losses          pairwise sigmoid contrastive loss
checkpoints     weights on disk: safetensors beside a config
clips, tracks   labelled clips, and what a sound does over time (`captions` its wordings, `augment` its changes)
training        what every training script shares (`train_codec`, `train_embedder`; `toy` data for trying them)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from .model import PEAV

__all__ = ["PEAV", "UserError", "load"]


def load(model: str | Path | None = None) -> PEAV:
    """The embedder in a folder; without one, that of the model inside the package.

    >>> peav.load().embed(text=["a dog barking"]).shape      # doctest: +SKIP
    torch.Size([1, 256])
    """
    from . import checkpoints

    return checkpoints.load_packaged() if model is None else checkpoints.load(model)


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, which `--help` should not.
    if name == "PEAV":
        from .model import PEAV

        return PEAV
    if name == "UserError":
        from .errors import UserError

        return UserError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
