"""Give a Judge another estimator to compare with, and learn overall anew from what that says of whole clips.

    python -m judge.refit judge/weights/mini runs/judge --model runs/separator/model \\
        --collections data/judge/one data/judge/other --valid data/judge/held-out

Half of a Judge's overall is a small network on the numbers of `judge.estimate` (docs/judge-training.md). Those do not
depend on what is learned, so they are computed once for every output and prompt of the collections, and learning takes
seconds. Recall, precision, faithfulness and presence stay as they were trained.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F_
from torch import Tensor

from peav.errors import UserError

from . import checkpoints
from .collection import Collection
from .comparisons import Comparisons
from .estimate import CLIP, Estimator
from .figures import spearman
from .model import JudgeModel
from .order import order_loss
from .targets import NAMES

OVERALL = NAMES.index("overall")


@dataclass
class Numbers:
    """What is known of every output by every prompt whose sound is in the mixture: ``clip [n, C]`` of an `Estimate`,
    the true overall ``[n]`` (1 to 5), SI-SDR ``[n]`` in dB, and whether the prompt is the output's own ``[n]``."""

    clip: Tensor
    overall: Tensor
    si_sdr: Tensor
    own: Tensor


def numbers(known: Comparisons) -> Numbers:
    """Of everything that was compared."""
    rows = []
    for c, collection in enumerate(known.collections):
        for i in range(known.count(c)):
            item, clip = collection[i], known.of(c, i).clip.float()
            present = torch.tensor([q.present for q in item.example.questions])
            Q, M = clip.shape[:2]
            own = torch.tensor(item.example.of)[None] == torch.arange(Q)[:, None]
            there = present[:, None].expand(Q, M) & ~item.scores[..., OVERALL].isnan()
            rows.append((clip[there], item.scores[..., OVERALL][there], item.si_sdr[there], own[there]))
    return Numbers(*(torch.cat(column) for column in zip(*rows, strict=True)))


def learn(model: JudgeModel, known: Numbers, steps: int = 3000, batch: int = 512, lr: float = 2e-3, seed: int = 0
          ) -> None:  # fmt: skip
    """Train the head for overall: Huber loss on the score and a logistic loss on the order of pairs."""
    assert model.overall_head is not None
    generator = torch.Generator().manual_seed(seed)
    head = model.overall_head.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(head.parameters(), lr=lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    # Silence is at the end of every scale; of SI-SDR what lies beyond it tells no more.
    wanted = known.overall
    for _ in range(steps):
        rows = torch.randint(len(wanted), (batch,), generator=generator)
        told = model.overall_of(known.clip[rows] + 0.02 * torch.randn(batch, known.clip.shape[1], generator=generator))
        told = told[:, 0] * model.std[OVERALL] + model.mean[OVERALL]
        truth = wanted[rows]
        loss = F_.smooth_l1_loss(told, truth, beta=0.5) + order_loss(told, truth, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    head.requires_grad_(False).eval()


@torch.inference_mode()
def quality(model: JudgeModel, known: Numbers) -> dict[str, float]:
    """Rank correlation of overall with the true SI-SDR of outputs by their own prompts, and its mean distance from the
    true score."""
    assert model.clip_head is not None
    both = model.joint_overall(known.clip, model.clip_head(known.clip[:, : len(CLIP)])[:, OVERALL, None])[:, 0]
    told = (both * model.std[OVERALL] + model.mean[OVERALL])[known.own]
    truth = known.si_sdr[known.own].clamp_min(-30)
    return {"spearman_si_sdr": spearman(told.numpy(), truth.numpy()),
            "error": float((told - known.overall[known.own]).abs().mean()), "outputs": float(len(told))}


def refit(folder: str | Path, model_folder: str | Path, overall: int = 64) -> JudgeModel:
    """The Judge in ``folder`` with the embedder and separator of a whole model to compare with and a fresh head for
    overall, ``overall`` wide.

    Raises:
        UserError: one of the folders holds no such model, or the Judge compares with nothing.
    """
    model_folder = Path(model_folder)
    old, _ = checkpoints.read(folder, model_folder / "codec")
    if not old.config.estimate:
        raise UserError(f"{folder}: this Judge compares with no separator; train one with judge.estimate")
    torch.manual_seed(0)
    model = JudgeModel(replace(old.config, overall=overall))
    missing = model.load_state_dict(old.state_dict(), strict=False).missing_keys
    assert all(name.startswith("overall_head.") for name in missing), missing
    model.use_estimator(Estimator.load(model_folder))
    return model.requires_grad_(False).eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("judge", type=Path, help="a Judge of ours")
    parser.add_argument("out", type=Path, help="where the new one goes")
    parser.add_argument("--model", type=Path, required=True, help="a whole model to compare with")
    parser.add_argument("--collections", type=Path, nargs="+", required=True)
    parser.add_argument("--valid", type=Path, nargs="*", default=[], help="collections to report figures of")
    parser.add_argument("--steps", type=int, default=3000)
    args = parser.parse_args()
    model = refit(args.judge, args.model)
    known = numbers(Comparisons(model, [Collection(folder) for folder in args.collections]))
    learn(model, known, args.steps)
    print(f"{len(known.overall)} comparisons; on what it learned from: {quality(model, known)}")
    for folder in args.valid:
        print(f"{folder.name}: {quality(model, numbers(Comparisons(model, [Collection(folder)])))}")
    checkpoints.save(model, args.out)


if __name__ == "__main__":
    main()
