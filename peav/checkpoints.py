"""The embedder on disk: ``config.json`` and ``model.safetensors``, beside the codec it reads.

The codec's weights are not stored again inside ``model.safetensors``; they come from a codec folder, by
default ``codec/`` inside the embedder's folder or next to it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, ClassVar, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .codec import DACEncoder
from .config import PEAVConfig
from .errors import UserError, shown
from .inputs import Tokenizer
from .model import PEAV

CONFIG, WEIGHTS = "config.json", "model.safetensors"
ANY_WEIGHTS = "model*.safetensors"
PIECE_BYTES = 15 * 2**20  # of a weight file: small enough for any version control and upload form
FORMAT = "peav"
CODEC = "audio.codec."  # weights that lie in a folder of their own


def save(model: PEAV, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
    """Write the embedder without its codec; ``dtype`` is how floats are stored.

    Raises:
        ValueError: a weight is too large for ``dtype``.
    """
    own = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(CODEC)}
    write_part(folder, {"format": FORMAT, **model.config.to_dict()}, own, dtype)


def load(folder: str | Path, codec_folder: str | Path | None = None) -> PEAV:
    """The embedder in ``folder``, float32, on the CPU, ready to embed.

    Args:
        folder: as written by :func:`save`; also a separator's model folder, whose embedder is then loaded.
        codec_folder: where the codec is, if not in ``codec/`` inside ``folder`` or next to it.

    Raises:
        UserError: a file is missing or damaged, or weights are missing, left over or of another size.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file() and (folder / "embedder").is_dir():
        folder = folder / "embedder"
    settings, state = read_part(folder, FORMAT)
    model = PEAV(configured(PEAVConfig.from_dict, settings, folder))
    codec = load_codec(DACEncoder, codec_folder or _codec_of(folder))
    if codec.config != model.config.codec:
        raise UserError(
            f"the embedder in {shown(folder)} was trained on another codec; give the codec folder that belongs to it"
        )
    state |= {f"{CODEC}{name}": tensor for name, tensor in codec.state_dict().items()}
    fill(model, state, folder)
    if model.text_model is not None:
        model.tokenizer = Tokenizer(folder)
    return model.eval()


def is_ours(folder: str | Path) -> bool:
    """Whether a folder is laid out as :func:`save` writes it, or is a model folder with an embedder in it."""
    folder = Path(folder)
    if (folder / "embedder" / CONFIG).is_file():
        return True
    return (folder / CONFIG).is_file() and "format" in read_json(folder / CONFIG)


def load_packaged() -> PEAV:
    """The embedder inside the installed packages."""
    # One wheel installs all packages side by side, and the separator's model folder holds the embedder.
    here = Path(__file__).parent
    places = [here / "weights" / "mini", here.parent / "samaudio" / "weights" / "mini"]
    for place in places:
        if place.is_dir():
            return load(place)
    raise UserError(f"no model is installed in {shown(places[1])}; reinstall the package, or give a model folder")


def _codec_of(folder: Path) -> Path:
    for place in (folder / "codec", folder.parent / "codec"):
        if place.is_dir():
            return place
    raise UserError(f"no codec beside the embedder in {shown(folder)}; it needs codec/ inside it or next to it")


# What every stored part shares: also used for the separator.


def write_part(folder: str | Path, settings: dict[str, Any], state: dict[str, Tensor], dtype: torch.dtype) -> None:
    """Write ``config.json`` and ``model.safetensors``, each in one step; beyond 15 MiB ``model-2.safetensors`` and
    so on follow.

    Raises:
        ValueError: a weight is not finite as ``dtype``.
    """
    folder = Path(folder)
    pieces = _pieces({name: _stored(name, tensor, dtype) for name, tensor in state.items()})
    folder.mkdir(parents=True, exist_ok=True)
    for number, piece in enumerate(pieces, 1):
        path = folder / _piece_name(number)
        partial = path.with_name(f".{path.name}.partial")
        try:
            save_file(piece, partial)
            partial.chmod(0o644)  # safetensors writes for the owner alone, which a shared installation cannot read
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    write_json(folder / CONFIG, {**settings, "pieces": len(pieces)})
    # Last, so that an interrupted save never leaves less than it found.
    for old in set(folder.glob(ANY_WEIGHTS)) - {folder / _piece_name(n) for n in range(1, len(pieces) + 1)}:
        old.unlink()


def _pieces(state: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """The state in order, cut before a piece would grow past `PIECE_BYTES`; a larger tensor stands alone."""
    pieces: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in state.items():
        if pieces[-1] and size + tensor.nbytes > PIECE_BYTES:
            pieces.append({})
            size = 0
        pieces[-1][name] = tensor
        size += tensor.nbytes
    return pieces


def _piece_name(number: int) -> str:
    return WEIGHTS if number == 1 else f"model-{number}.safetensors"


def _stored(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        peak = float(tensor.abs().max()) if tensor.numel() else 0.0
        tensor = tensor.to(dtype)
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"{name} reaches {peak:.3g}, which {dtype} cannot hold; save in a wider type")
    return tensor.contiguous().clone()


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write ``values`` in one step."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; UserError if there is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{shown(path)}: no such file; the model folder is incomplete, fetch it again") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{shown(path)}: cannot be read ({shown(error, 60)}); fetch the model again") from None
    if not isinstance(values, dict):
        raise UserError(f"{shown(path)}: holds no settings; fetch the model again")
    return values


def read_part(folder: str | Path, format: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings and weights of a part written by :func:`write_part`, weights as float32.

    Raises:
        UserError: a file is missing, damaged or of another kind of model. Only safetensors are ever opened.
    """
    folder = Path(folder)
    _require(folder, [CONFIG, WEIGHTS])
    settings = read_json(folder / CONFIG)
    if settings.pop("format", None) != format:
        raise UserError(f"{shown(folder)}: is not a {format} model; check the folder")
    names = [_piece_name(number) for number in range(1, int(settings.pop("pieces", 1)) + 1)]
    _require(folder, names)
    state: dict[str, Tensor] = {}
    for name in names:
        try:
            state |= load_file(folder / name)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{shown(folder / name)}: is damaged ({shown(error, 60)}); fetch the model again") from None
    return settings, {k: v.float() if v.is_floating_point() else v for k, v in state.items()}


def _require(folder: Path, names: list[str]) -> None:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{shown(folder)}: {' and '.join(missing)} missing; the model folder is incomplete or "
            "holds another kind of model"
        )


def configured(make, settings: dict[str, Any], folder: Path):
    """``make(settings)``, with impossible or unknown settings as a UserError."""
    try:
        return make(settings)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{shown(folder / CONFIG)}: does not fit this version ({shown(error, 120)})") from None


def fill(model: nn.Module, state: dict[str, Tensor], folder: Path) -> None:
    """Put ``state`` into ``model``; any difference in names or sizes is a UserError that lists it."""
    own = model.state_dict()
    found = {
        "missing": sorted(own.keys() - state.keys()),
        "left over": sorted(state.keys() - own.keys()),
        "of another size": [
            f"{name} {list(state[name].shape)} for {list(own[name].shape)}"
            for name in sorted(own.keys() & state.keys())
            if own[name].shape != state[name].shape
        ],
    }
    told = "; ".join(f"{len(names)} {what}: {_listed(names)}" for what, names in found.items() if names)
    if told:
        raise UserError(f"{shown(folder)}: the weights do not fit: {told}")
    model.load_state_dict(state)


class Part(nn.Module):
    """A network that lies in a folder of its own: what it is made of is a dataclass, its ``config``.

    A subclass says its ``format`` and the class of its config, ``sizes``, and is made of one of those alone.
    """

    format: ClassVar[str]
    sizes: ClassVar[type]
    config: Any

    def save(self, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
        """Write ``config.json`` and the weights, floats stored as ``dtype``.

        Raises:
            ValueError: a weight is not finite as ``dtype``.
        """
        write_part(folder, {"format": self.format, **asdict(self.config)}, self.state_dict(), dtype)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The one in ``folder``, float32, on the CPU, for use.

        Raises:
            UserError: a file is missing or damaged, or weights do not fit.
        """
        settings, state = read_part(folder, cls.format)
        part = cls(configured(lambda values: cls.sizes(**values), settings, Path(folder)))
        fill(part, state, Path(folder))
        return part.eval()


def _listed(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def load_codec(kind: type[DACEncoder], folder: str | Path):
    """A codec, or its encoder half, from a folder; problems as a UserError."""
    try:
        return kind.from_pretrained(folder)
    except UserError:
        raise
    except (ValueError, TypeError, KeyError, OSError, RuntimeError, SafetensorError, UnpicklingError) as error:
        raise UserError(f"the codec cannot be loaded: {shown(error, 200)}") from None


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
