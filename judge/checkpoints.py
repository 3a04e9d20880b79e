"""A Judge of our own on disk: ``config.json`` and ``model.safetensors``, beside what it listens with.

The weights of the codec are not stored again, nor are those of the embedder that a Judge with an estimator listens
with (`judge.estimate`). They come from the folder of a whole model, the one that the Judge's folder lies in or is, else
from the model inside the installed packages. The config remembers which ones they were. The estimator's separator lies
in the Judge's own ``separator/``: a model whose separator is trained on keeps its Judge.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

import peav
from peav.checkpoints import configured, fill, load_codec, read_part, write_part
from peav.codec import DACEncoder
from peav.errors import UserError, shown

from .estimate import Estimator
from .model import JudgeConfig, JudgeModel

FORMAT = "judge"
ELSEWHERE = ("codec.", "estimator.")  # weights that lie in folders of their own
# Not "wording.": it leads other words to what the heads made of plain ones before.
HEARING = ("audio.", "audio_head.", "frame_head.", "text_audio_head.", "text_frame_head.", "text_audio_logit",
           "text_frame_logit")  # fmt: skip
PACKAGED = Path(__file__).parent / "weights" / "mini"


def save(model: JudgeModel, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
    """Write the Judge and its estimator's separator, without codec and embedder; ``dtype`` is how floats are stored.

    Raises:
        ValueError: a weight is too large for ``dtype``.
    """
    own = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(ELSEWHERE)}
    settings = {"format": FORMAT, **model.config.to_dict(), "codec_identity": identity(model.codec)}
    if model.estimator is not None:
        settings["estimator_identity"] = estimator_identity(model.estimator)
        model.estimator.separator.save(Path(folder) / "separator", dtype)
    write_part(folder, settings, own, dtype)


def read(folder: str | Path, codec_folder: str | Path | None = None) -> tuple[JudgeModel, str | None]:
    """As :func:`load`, but without an estimator yet, and the `estimator_identity` that the Judge was trained with."""
    folder = Path(folder)
    settings, state = read_part(folder, FORMAT)
    wanted, heard = settings.pop("codec_identity", None), settings.pop("estimator_identity", None)
    model = JudgeModel(configured(JudgeConfig.from_dict, settings, folder))
    codec = load_codec(DACEncoder, codec_folder or _place(folder, "codec"))
    if codec.config != model.config.codec or identity(codec) != wanted:
        raise UserError(
            f"the Judge in {shown(folder)} was trained on another codec; put the one that belongs to it into its "
            "folder as codec/"
        )
    state |= {f"codec.{name}": tensor for name, tensor in codec.state_dict().items()}
    fill(model, state, folder)
    return model, heard


def load(
    folder: str | Path, codec_folder: str | Path | None = None, model_folder: str | Path | None = None
) -> JudgeModel:
    """The Judge in ``folder``, float32, on the CPU, ready to score.

    Args:
        folder: as written by :func:`save`.
        codec_folder: where the codec is, if in none of the places above.
        model_folder: the whole model whose embedder the Judge listens with, if in none of them, and whose separator it
            compares with, if it has none of its own.

    Raises:
        UserError: a file is missing or damaged; codec, embedder or separator are not those that the Judge was trained
            with; or weights are missing, left over or of another size.
    """
    folder = Path(folder)
    model, heard = read(folder, codec_folder)
    if model.config.estimate:
        own = folder / "separator"
        if not own.is_dir():
            own = Path(model_folder) / "separator" if model_folder else _place(folder, "separator")
        estimator = Estimator.load(model_folder or _place(folder, "embedder").parent, own)
        if estimator_identity(estimator) != heard:
            raise UserError(
                f"the Judge in {shown(folder)} was trained with another embedder or separator; put it as judge/ into "
                "the folder of the model that it belongs to"
            )
        model.use_estimator(estimator)
    return model.requires_grad_(False).eval()


def identity(part: nn.Module) -> str:
    """Twelve hexadecimal digits over the weights of a part as they are stored, in half precision."""
    return _digest(part.state_dict())


def _digest(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        # Adding zero makes one of the two zeros: an average of equal weights loses the sign.
        stored = tensor.detach().cpu().to(torch.float16) + 0.0
        digest.update(stored.contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def estimator_identity(estimator: Estimator) -> str:
    """As `identity`, of what the embedder hears and reads with and of the separator; eyes make no difference."""
    hearing = {name: part for name, part in estimator.embedder.state_dict().items() if name.startswith(HEARING)}
    return f"{_digest(hearing)}-{identity(estimator.separator)}"


def _place(folder: Path, part: str) -> Path:
    # One wheel installs all packages side by side, and the separator's model folder holds all parts.
    packaged = Path(peav.__file__).parents[1] / "samaudio" / "weights" / "mini" / part
    for place in (folder / part, folder.parent / part, packaged):
        if place.is_dir():
            return place
    raise UserError(f"no {part} beside the Judge in {shown(folder)}; it needs {part}/ inside it or next to it")
