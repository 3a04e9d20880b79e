"""A Judge of our own on disk: ``config.json`` and ``model.safetensors``, beside the codec it reads.

The codec's weights are not stored again; they come from a codec folder, by default ``codec/`` inside the Judge's
folder or next to it, else the codec inside the installed packages. The config remembers which codec it was.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import nn

import peav
from peav.checkpoints import configured, fill, load_codec, read_part, write_part
from peav.codec import DACEncoder
from peav.errors import UserError, shown

from .model import JudgeConfig, JudgeModel

FORMAT = "judge"
CODEC = "codec."  # weights that lie in a folder of their own
PACKAGED = Path(__file__).parent / "weights" / "mini"


def save(model: JudgeModel, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
    """Write the Judge without its codec; ``dtype`` is how floats are stored.

    Raises:
        ValueError: a weight is too large for ``dtype``.
    """
    own = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(CODEC)}
    settings = {"format": FORMAT, **model.config.to_dict(), "codec_identity": codec_identity(model.codec)}
    write_part(folder, settings, own, dtype)


def load(folder: str | Path, codec_folder: str | Path | None = None) -> JudgeModel:
    """The Judge in ``folder``, float32, on the CPU, ready to score.

    Args:
        folder: as written by :func:`save`.
        codec_folder: where the codec is, if in none of the places above.

    Raises:
        UserError: a file is missing or damaged, the codec is not the one that the Judge was trained on, or weights
            are missing, left over or of another size.
    """
    folder = Path(folder)
    settings, state = read_part(folder, FORMAT)
    identity = settings.pop("codec_identity", None)
    model = JudgeModel(configured(JudgeConfig.from_dict, settings, folder))
    codec = load_codec(DACEncoder, codec_folder or _codec_of(folder))
    if codec.config != model.config.codec or codec_identity(codec) != identity:
        raise UserError(
            f"the Judge in {shown(folder)} was trained on another codec; put the one that belongs to it into its "
            "folder as codec/"
        )
    state |= {f"{CODEC}{name}": tensor for name, tensor in codec.state_dict().items()}
    fill(model, state, folder)
    return model.requires_grad_(False).eval()


def codec_identity(codec: nn.Module) -> str:
    """Twelve hexadecimal digits over the encoder's weights as they are stored, in half precision."""
    digest = hashlib.sha256()
    for name, tensor in sorted(codec.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        # Adding zero makes one of the two zeros: an average of equal weights loses the sign.
        stored = tensor.detach().cpu().to(torch.float16) + 0.0
        digest.update(stored.contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def _codec_of(folder: Path) -> Path:
    # One wheel installs all packages side by side, and the separator's model folder holds the codec.
    packaged = Path(peav.__file__).parents[1] / "samaudio" / "weights" / "mini" / "codec"
    for place in (folder / "codec", folder.parent / "codec", packaged):
        if place.is_dir():
            return place
    raise UserError(f"no codec beside the Judge in {shown(folder)}; it needs codec/ inside it or next to it")
