"""PE-AV: one embedding space for audio, video and text, and everything below it.

Modules
-------
errors          mistakes a user can make, as one clear line
console, cli    the `peav` command, and what the commands of all packages share
media           audio and video in and out: the only place that touches files with sound in them
codec           DAC-VAE: waveform to latent and back (`lapped`: its stem; `watermark`, `codec_keys`, `codec_files`)
transformer     the temporal transformer that all towers share
towers          audio, video and fusion towers, heads (`vision`: frame encoder; `modernbert`, `text`: text encoders)
config, model   PE-AV: one class from the small packaged model to the published ones (`latents`, `inputs`: its inputs)
frame           PE-A-Frame as published
checkpoints     our weights on disk: safetensors beside a config
published       the published files in both layouts (`published_config`, `published_keys`); `hub`: where they are
windows         files of any length as one embedding
localize        when a text is true of a recording (`spans`, `timeline`)
mask            the mask separator, here where both packages above can reach it (`latents`: what it sees)
index           folders of embeddings to search in; `evaluation`: how good embeddings are (`*_cli`: their commands)
losses, pairs   contrastive losses (`frame_losses`, `bestrq`; `gather`, `gradient_cache`: over processes and memory)
system, train   a PE-AV with all its towers in training (`films`: its batches)
clips, tracks   labelled clips, and what a sound does over time (`captions` its wordings, `augment` its changes)
training        what every training script shares (`train_codec`, `train_embedder`, `scenes`; `toy`: data to try them)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from .frame import PEAFrame
    from .model import PEAV

__all__ = ["PEAV", "PEAFrame", "UserError", "load"]


def load(
    model: str | Path | None = None,
    *,
    device: str | torch.device = "auto",
    dtype: torch.dtype | str | None = None,
    revision: str | None = None,
    text_after_norm: bool = False,
) -> PEAV | PEAFrame:
    """A PE-AV or PE-A-Frame, ready to embed.

    >>> peav.load().embed(text=["a dog barking"]).shape      # doctest: +SKIP
    torch.Size([1, 256])

    Args:
        model: None for the small model inside the package; a folder in this project's or either published layout;
            or a hub id: ``facebook/pe-av-{small,base,large}``, the same with ``-16-frame``,
            ``facebook/pe-a-frame-{small,base,large}``.
        device: auto, cpu, cuda, cuda:N or mps.
        dtype: of the weights; float32 by default, ``bfloat16`` halves the memory.
        revision: of a hub id; ``perception_models`` is the other published layout.
        text_after_norm: see `peav.published.load_published`.

    Raises:
        UserError: there is no such model, device or dtype, or its files are missing, damaged or do not fit.
    """
    from . import checkpoints, hub, published
    from .published_config import FIXED_FRAMES
    from .training import pick_device, pick_dtype

    where, dtype = pick_device(device) if isinstance(device, str) else device, pick_dtype(dtype)
    if model is None:
        return checkpoints.load_packaged().to(where, dtype)
    folder = hub.resolve(model, revision)
    if checkpoints.is_ours(folder):
        return checkpoints.load(folder).to(where, dtype)
    # In one of the layouts the number may stand in the model's name alone.
    frames = FIXED_FRAMES if str(model).rstrip("/").endswith("-16-frame") else None
    return published.load_published(
        folder, dtype=dtype, device=where, text_after_norm=text_after_norm, video_frames=frames
    )


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, which `--help` should not.
    if name == "PEAV":
        from .model import PEAV

        return PEAV
    if name == "PEAFrame":
        from .frame import PEAFrame

        return PEAFrame
    if name == "UserError":
        from .errors import UserError

        return UserError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
