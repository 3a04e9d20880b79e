"""Published PE-AV and PE-A-Frame checkpoints, from the files their authors put up.

>>> model = peav.load("facebook/pe-av-small")                  # doctest: +SKIP
>>> model.embed(text=["a dog barking"]) @ model.embed(audio=[clip]).T      # doctest: +SKIP
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from .checkpoints import configured, read_json
from .config import PEAVConfig
from .errors import UserError, shown
from .frame import PEAFrame
from .inputs import Tokenizer
from .model import PEAV
from .published_config import from_published
from .published_keys import LOGITS, PERCEPTION_MODELS, Kind, kind_of, to_ours

# Where a published folder may say how many images a video has.
_PROCESSORS = ("processor_config.json", "video_preprocessor_config.json", "preprocessor_config.json")


def load_published(
    folder: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    text_after_norm: bool = False,
    video_frames: int | None = None,
) -> PEAV | PEAFrame:
    """A published PE-AV or PE-A-Frame, ready to embed; which of them, and its layout, is seen from the weights.

    Args:
        folder: ``config.json``, the weights and the tokenizer, as downloaded.
        dtype: of the weights.
        device: where to put them.
        text_after_norm: take the text vector after the text tower's final norm, as transformers does from 5.1.0
            on. The checkpoints were made for the state before it.
        video_frames: images per clip of a model that sees, where its files do not say.

    Raises:
        UserError: a file is missing or damaged, or weights are missing, left over or of another size.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{shown(folder)}: no such folder; download the model first")
    settings = read_json(folder / "config.json")
    state = read_weights(folder)
    kind = kind_of(state)
    if text_after_norm and kind.layout == PERCEPTION_MODELS:
        raise UserError("text_after_norm is a habit of transformers; files of perception_models name a layer instead")
    state, origin = to_ours(state, kind)
    processor = next((p for name in _PROCESSORS if (p := folder / name).is_file()), None)
    config = configured(
        lambda values: from_published(
            values,
            state,
            kind,
            processor=None if processor is None else read_json(processor),
            text_after_norm=text_after_norm,
            video_frames=video_frames,
        ),
        settings,
        folder,
    )
    with torch.device("meta"):
        model = PEAFrame(config) if kind.frame_level else PEAV(config)
    fill_empty(model, _needed(state, config, kind), origin, folder, dtype)
    model.tokenizer = Tokenizer(folder)
    return model.to(device).eval()


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Tensors of the folder: safetensors, whole or in shards, else a plain ``.pt`` or ``.bin``."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        files = [folder / "model.safetensors"]
    elif index.is_file():
        files = [folder / name for name in sorted(set(read_json(index).get("weight_map", {}).values()))]
    else:
        names = ("checkpoint.pt", "model.pt", "pytorch_model.bin")
        files = [folder / name for name in names if (folder / name).is_file()][:1]
    if not files:
        raise UserError(f"{shown(folder)}: model.safetensors missing; the folder is incomplete, fetch it again")
    state: dict[str, Tensor] = {}
    for file in files:
        if not file.is_file():
            raise UserError(f"{shown(file)}: no such file; the folder is incomplete, fetch it again")
        try:
            if file.suffix == ".safetensors":
                state |= load_file(file)
            else:
                content = torch.load(file, map_location="cpu", weights_only=True)
                state |= {name: t for name, t in content.items() if isinstance(t, Tensor)}
        except (SafetensorError, OSError, RuntimeError, AttributeError, EOFError, pickle.UnpicklingError) as error:
            raise UserError(f"{shown(file)}: is damaged ({shown(error, 60)}); fetch it again") from None
    return state


def _needed(state: Mapping[str, Tensor], config: PEAVConfig, kind: Kind) -> dict[str, Tensor]:
    """Drop text layers past the one that is read, and give logits without scales the dot product."""
    kept = {}
    for name, tensor in state.items():
        parts = name.split(".")
        if parts[0] == "text_model" and config.text is not None:
            if parts[1] == "layers" and parts[2].isdigit() and int(parts[2]) >= config.text.num_layers:
                continue
            if parts[1] == "final_norm" and not config.text.final_norm:
                continue
        kept[name] = tensor
    if kind == Kind(PERCEPTION_MODELS, frame_level=False):
        kept |= {f"{name}_logit_scale": torch.ones(1) for name in LOGITS}
        kept |= {f"{name}_logit_bias": torch.zeros(1) for name in LOGITS}
    return kept


def fill_empty(
    model: nn.Module, state: Mapping[str, Tensor], origin: Mapping[str, str], folder: Path, dtype: torch.dtype
) -> None:
    """Give `model`, built without memory, its weights; any difference in names or sizes is a UserError."""
    own = model.state_dict()
    found = {
        "missing": sorted(own.keys() - state.keys()),
        "left over": sorted(origin.get(name, name) for name in state.keys() - own.keys()),
        "of another size": [
            f"{origin.get(name, name)} {list(state[name].shape)} for {list(own[name].shape)}"
            for name in sorted(own.keys() & state.keys())
            if own[name].shape != state[name].shape
        ],
    }
    told = [f"{len(names)} {what}: {', '.join(names[:2])}" for what, names in found.items() if names]
    if told:
        raise UserError(f"{shown(folder, 60)}: the weights do not fit: {'; '.join(told)}")
    model.load_state_dict({name: t.to(dtype).contiguous() for name, t in state.items()}, assign=True)
