"""A PE-AV with everything that is needed to train it, from a batch to what its losses take.

Axes: ``B`` batch, ``D`` width of text vectors, ``E`` embedding width.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F_
from torch import Tensor, nn

from . import checkpoints
from .bestrq import BestRQ, BestRQConfig
from .errors import UserError, shown
from .films import as_images
from .losses import match_keys
from .model import PEAV
from .pairs import CAPTION_OF, PAIRS, PairLosses
from .training import Loop

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_TEXTS, _IMAGES = 64, 64  # that run through a frozen tower, or the frame encoder, at once


class System(nn.Module):
    """The model and what is needed to train it: temperatures and biases of the pairs, and BEST-RQ's guesses.

    Args:
        config: as ``configs/peav_pretrain.yaml``.

    Raises:
        UserError: pairs are unknown, or settings make no sense.
    """

    def __init__(self, model: PEAV, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.model = model
        self.pairs = PairLosses(
            config["pairs"], config["pair_weights"], config["scale"], config["bias"], config["loss_chunk"])
        if config["init"]:
            self.pairs.import_from(model)
        settings = dict(config["bestrq"])
        self.bestrq_weight = settings.pop("weight")
        self.bestrq: BestRQ | None = None
        if self.bestrq_weight:
            features, width = model.audio.data_proj.in_features, model.config.audio.hidden_size
            try:
                self.bestrq = BestRQ(features, width, BestRQConfig(**settings))
            except (TypeError, ValueError) as error:
                raise UserError(f"bestrq: {shown(error, 200)}") from None
        # The names of all embeddings that some pair needs and the model has.
        ends = {end for name in self.pairs.names for end in PAIRS[name].ends}
        self.heads = frozenset(end for end in ends if hasattr(model, f"{end}_head"))
        trained = config["train"]
        parts = {"vision": None if model.video is None else model.video.vision, "text": model.text_model}
        self.frozen = [part for name, part in parts.items() if part is not None and not trained[name]]
        self._freeze()

    def _freeze(self) -> None:
        """Leave alone what no loss reaches: with several processes it would be pulled to zero by weight decay."""
        for part in self.frozen:
            part.requires_grad_(False)
        for name, head in self.model.named_children():
            if name.endswith("_head") and name.removesuffix("_head") not in self.heads:
                head.requires_grad_(False)
        for name, parameter in self.model.named_parameters():
            if "_logit_" in name:  # learned as logarithms in `pairs`, see `export`
                parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> System:
        super().train(mode)
        self.model.codec.eval()
        for part in self.frozen:
            part.eval()
        return self

    def groups(self, loop: Loop) -> list[dict]:
        """Parameters of the optimiser: only matrices are pulled to zero."""
        named = [p for p in self.parameters() if p.requires_grad]
        return [{"params": [p for p in named if p.dim() > 1], "weight_decay": loop.weight_decay},
                {"params": [p for p in named if p.dim() <= 1], "weight_decay": 0.0}]

    # -- from a batch to embeddings ---------------------------------------------------------------------------

    @torch.no_grad()
    def prepare(self, batch: Mapping[str, Any], sentences: Callable[[list[str]], Tensor]) -> dict[str, Any]:
        """A batch of `peav.films` with everything done that is not trained, once per step and not in every pass.

        Args:
            sentences: texts to vectors ``[B, 384]``, for a model without a text tower of its own.
        """
        model = self.model
        ready: dict[str, Any] = {"clip": batch["clip"]}
        if "waveform" in batch:
            # In full precision: what the codec hears is the target of BEST-RQ and the ground of everything else.
            with torch.autocast(model.device.type, enabled=False):
                ready["latents"], mask = model.audio.latents(batch["waveform"], batch["waveform_mask"])
            if mask is not None and not bool(mask.all()):  # attention without a mask is faster
                ready["latent_mask"] = mask
        if "video" in batch and model.video is not None:
            mask = batch["video_mask"]
            if not bool(mask.all()):
                ready["video_mask"] = mask
            if model.video.vision in self.frozen:
                ready["vision"] = self._look(batch["video"], mask)
            else:
                ready["video"] = batch["video"]
        for name in (name for name in batch if name.startswith("caption_")):
            if model.text_model is None:
                ready[name] = sentences(batch[name]).to(model.device)
            elif model.text_model in self.frozen:
                texts = [batch[name][i : i + _TEXTS] for i in range(0, len(batch[name]), _TEXTS)]
                ready[name] = torch.cat([model.text_vectors(part) for part in texts])
            else:
                ready[name] = batch[name]
        return ready

    def embed(self, chunk: Mapping[str, Any]) -> dict[str, Tensor]:
        """Embeddings ``[B, E]`` by name, of what :meth:`prepare` made."""
        model, pooled = self.model, {}
        audio = video = None
        if "latents" in chunk:
            audio = model.audio(chunk["latents"], chunk.get("latent_mask"))
            pooled["audio"] = audio.pooled
        if model.video is not None and ("video" in chunk or "vision" in chunk):
            mask = chunk.get("video_mask")
            video = model.video(self._look(chunk["video"], mask) if "video" in chunk else chunk["vision"], mask)
            pooled["video"] = video.pooled
        if audio is not None and video is not None and "audio_video" in self.heads:
            assert model.audio_video is not None
            pooled["audio_video"] = model.audio_video(audio, video).pooled
        texts = self._texts(chunk)
        for name, kind in CAPTION_OF.items():
            if kind not in texts or name not in self.heads:
                continue
            joined_with = name.removesuffix("_plus_text")
            if name.startswith("text_"):
                pooled[name] = texts[kind]
            elif joined_with in pooled:
                pooled[name] = torch.cat((pooled[joined_with], texts[kind]), dim=-1)
        return {name: model.head(name, x).float() for name, x in pooled.items() if name in self.heads}

    def _look(self, video: Tensor, mask: Tensor | None) -> Tensor:
        """What `peav.towers.VideoTower.features` makes of bytes ``[B, N, 3, height, width]``: unit vectors, zero in the
        padding. Images become numbers a few at a time, which a long film as a whole has no memory for."""
        assert self.model.video is not None
        keep = torch.ones(video.shape[:2], dtype=torch.bool, device=video.device) if mask is None else mask
        vision = self.model.video.vision
        found = torch.cat([F_.normalize(vision(as_images(part)), dim=-1) for part in video[keep].split(_IMAGES)])
        features = found.new_zeros(*keep.shape, found.shape[-1])
        features[keep] = found
        return features

    def _texts(self, chunk: Mapping[str, Any]) -> dict[str, Tensor]:
        """Text vectors ``[B, D]`` by kind of caption; those that are trained run through the tower together."""
        found = {name.removeprefix("caption_"): value for name, value in chunk.items() if name.startswith("caption_")}
        open_ones = [kind for kind, value in found.items() if not isinstance(value, Tensor)]
        if open_ones:
            vectors = self.model.text_vectors([text for kind in open_ones for text in found[kind]])
            found |= dict(zip(open_ones, vectors.chunk(len(open_ones)), strict=True))
        return found

    def guess(self, chunk: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """BEST-RQ's loss on the audio tower's tokens, weighted, and as it is for the log."""
        if self.bestrq is None or "latents" not in chunk:
            zero = torch.zeros((), device=self.model.device)
            return zero, {}
        audio = self.model.audio
        tokens, mask = audio.tokens(chunk["latents"], chunk.get("latent_mask"))
        loss = self.bestrq(tokens, lambda x, m: audio.transformer(audio.data_proj(x), m).frames, mask)
        return self.bestrq_weight * loss, {"bestrq": loss}

    def save(self, folder: Path, dtype: torch.dtype, tokenizer: Path | None) -> None:
        """The model as `peav.load` wants it: with temperatures and biases, its codec, and its tokenizer's files."""
        self.pairs.export_to(self.model)
        checkpoints.save(self.model, folder, dtype)
        self.model.codec.save_pretrained(folder / "codec", torch.float16 if dtype == torch.float16 else None)
        for name in TOKENIZER_FILES if tokenizer else ():
            if tokenizer and (tokenizer / name).is_file():
                shutil.copyfile(tokenizer / name, folder / name)


def keys_of(batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """Which clips of a batch are no negatives of each other, by embedding: the same film, or the same caption."""
    keys = dict.fromkeys(("audio", "video", "audio_video", "audio_plus_text", "video_plus_text"), batch["clip"])
    for name, kind in CAPTION_OF.items():
        if name.startswith("text_") and f"caption_{kind}" in batch:
            keys[name] = match_keys(batch[f"caption_{kind}"], f"caption of {kind}").to(batch["clip"].device)
    return keys
