"""Train a small Judge on collections of separations whose truth is known.

    python -m judge.scenes data/known PATH/manifest.jsonl --codec runs/codec/model            # true stems, spoiled
    python -m samaudio.judge_data data/ours PATH/manifest.jsonl --model runs/separator/model  # a separator's outputs
    python -m judge.train codec=runs/codec/model data.collections=[data/known,data/ours] folder=runs/judge
    python -m judge.train +debug=judge                  # a minute on a CPU, after +debug=codec
    torchrun --nproc-per-node 8 -m judge.train ...      # many GPUs

Running the same command again resumes. The result is ``<folder>/model``, for `judge.load`.

Loss: Huber on the four scores of every output for every prompt, the same on the scores per frame, a logistic loss on
pairs whose order is known (outputs of one prompt; prompts of one output) and cross-entropy for presence.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import hydra
import numpy as np
import torch
import torch.nn.functional as F_
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from peav.checkpoints import load as load_embedder
from peav.checkpoints import load_codec
from peav.codec import DACVAE, DACEncoder
from peav.errors import UserError, shown
from peav.toy import make_pool
from peav.training import Ema, Loop, Run, batches, descend, first_alone, to_device
from peav.transformer import TransformerConfig

from . import checkpoints
from .collection import Collection, Item, write
from .comparisons import Comparisons
from .estimate import Estimator
from .figures import figures, table
from .grid import Compared, Grid, Words, judge_compared, judge_grid
from .model import JudgeConfig, JudgeModel
from .order import order_loss
from .targets import at_frames

SHIFT = 0.5  # of the Judge's log features (`judge.features`) against those of the embedder (`peav.latents`)


class CollectionBatches:
    """Batch number to ``mixture [B, T]``, ``outputs [B, M, T]``, ``scores [B, Q, M, 4]``, ``frames [B, Q, M, N, 4]``,
    ``present [B, Q]``, ``phrases`` (B lists of Q), and where it all is: ``places [B, 2]``, the number of the collection
    and of the mixture in it, and ``kept [B, M]``, which of its outputs.

    A collection is drawn as often as it holds mixtures, each of its mixtures once per round, with ``outputs`` of its
    outputs: those of two kinds of collection differ in number.
    """

    def __init__(self, collections: list[Collection], batch_size: int, outputs: int, token_samples: int, seed: int):
        self.collections, self.batch_size, self.outputs, self.seed = collections, batch_size, outputs, seed
        self.token_samples = token_samples
        self.sizes = np.array([len(c) for c in collections])
        shapes = {(c.sample_rate, c.length, c.questions) for c in collections}
        if len(shapes) > 1:
            raise UserError(f"collections differ in rate, length or questions: {sorted(shapes)}; make them alike")
        fewest = min(c.outputs for c in collections)
        if fewest < outputs:
            raise UserError(f"data.outputs={outputs}, but a collection holds only {fewest}")

    def __call__(self, number: int) -> dict:
        total = int(self.sizes.sum())
        items = [self._item(*divmod(i, total)) for i in range(number * self.batch_size, (number + 1) * self.batch_size)]
        batch = {name: torch.stack([item[name] for item in items]) for name in items[0] if name != "phrases"}
        return batch | {"phrases": [item["phrases"] for item in items]}

    def _item(self, round_: int, at: int) -> dict:
        order = np.random.default_rng((self.seed, round_)).permutation(int(self.sizes.sum()))
        index = int(order[at])
        which = int(np.searchsorted(np.cumsum(self.sizes), index, side="right"))
        number = index - int(self.sizes[:which].sum())
        item: Item = self.collections[which][number]
        rng = np.random.default_rng((self.seed, round_, at))
        kept = torch.from_numpy(np.sort(rng.choice(self.collections[which].outputs, self.outputs, replace=False)))
        T, step = len(item.example.mixture), self.token_samples
        blocks = item.blocks[:, kept]
        rate = self.collections[which].sample_rate
        frames = at_frames(blocks.flatten(0, 1), -(-T // step), step / rate, rate).unflatten(0, blocks.shape[:2])
        return {"mixture": item.example.mixture, "outputs": item.example.outputs[kept], "scores": item.scores[:, kept],
                "frames": frames, "present": torch.tensor([q.present for q in item.example.questions]),
                "phrases": [q.phrase for q in item.example.questions],
                "places": torch.tensor([which, number]), "kept": kept}  # fmt: skip


def _heard(model: JudgeModel, batch: dict) -> Grid:
    """What the Judge says of a batch that it has to listen to."""
    mixture = model.latents(batch["mixture"][:, None])
    outputs = model.latents(batch["outputs"].flatten(0, 1)[:, None]).unflatten(0, batch["outputs"].shape[:2])
    return judge_grid(model, mixture, outputs, batch["text"])


def losses(grid: Grid, batch: dict, given_presence: bool = False) -> dict[str, Tensor]:
    """Named loss terms; weighted in ``weights`` of the config. NaN targets are left out.

    With ``given_presence``, overall is learned of sounds alone that are in their mixture: loud is good there and bad
    elsewhere, and a small head that has to do both does neither.
    """
    scores, frames, present = batch["scores"], batch["frames"], batch["present"]
    if given_presence:
        scores, frames = (_without_overall(x, ~present) for x in (scores, frames))
    terms = {"scores": _huber(grid.scores, scores), "frames": _huber(grid.frames, frames),
             "rank": order_loss(grid.scores, scores, 2),
             "prompts": order_loss(grid.scores[..., :1], scores[..., :1], 1)}
    if grid.presence is not None:
        wanted = present[..., None].expand_as(grid.presence).float()
        terms["presence"] = F_.binary_cross_entropy_with_logits(grid.presence, wanted)
    return terms


def _without_overall(scores: Tensor, where: Tensor) -> Tensor:
    """Scores ``[B, Q, ..., 4]`` with NaN for overall ``where [B, Q]``."""
    scores = scores.clone()
    scores[where, ..., 0] = torch.nan
    return scores


def _huber(told: Tensor, true: Tensor, turn: float = 0.5) -> Tensor:
    known = ~true.isnan()
    return F_.smooth_l1_loss(told[known], true[known], beta=turn)


@torch.inference_mode()
def validate(
    model: JudgeModel, held_out: list[Collection], most: int, known: Comparisons | None = None
) -> dict[str, float]:
    """Figures of each held-out collection, by its folder's name; by what is ``known`` of them already."""
    wanted = ("spearman_si_sdr", "spearman_recall", "spearman_precision", "spearman_faithfulness", "right_prompt",
              "gain_share", "presence_auroc")  # fmt: skip
    found: dict[str, float] = {}
    for number, collection in enumerate(held_out):
        values = figures(table(model, collection, most=most, known=None if known is None else (known, number)))
        name = f"valid/{collection.folder.name}"
        found |= {f"{name}/{key}": values[key] for key in wanted if values[key] == values[key]}
    return found


def build(config: DictConfig, device: torch.device) -> JudgeModel:
    """The model to train: codec and estimator as given; a new Judge, perhaps with the embedder's ears, or the one of
    ``init``, whose estimator may have been another one."""
    if config.init:
        model, _ = checkpoints.read(config.init, config.codec)
    else:
        codec = load_codec(DACEncoder, config.codec)
        settings = JudgeConfig(codec=codec.config, transformer=TransformerConfig(**config.transformer),
                               finetune_transformer=TransformerConfig(**config.finetune_transformer), **config.judge)
        model = JudgeModel(settings)
        model.use_codec(codec)
        if config.embedder and settings.listen:
            _take_ears(model, config.embedder, config.codec)
    if model.config.estimate:
        if not config.model:
            raise UserError("judge.estimate needs a separator to compare with: give model=FOLDER, or judge.estimate=0")
        model.use_estimator(Estimator.load(config.model))
    return model.to(device)


def _take_ears(model: JudgeModel, folder: str, codec: str) -> None:
    """Start the first transformer as the embedder's audio tower, which has learned what sounds are called, and the
    comparison with the text as its frame head."""
    embedder = load_embedder(folder, codec)
    try:
        model.transformer.load_state_dict(embedder.audio.transformer.state_dict())
        model.data_proj.load_state_dict(embedder.audio.data_proj.state_dict())
        if model.match is not None and embedder.has_frames:
            model.match.audio_head.load_state_dict(embedder.get_submodule("frame_head").state_dict())
            model.match.text_head.load_state_dict(embedder.get_submodule("text_frame_head").state_dict())
    except RuntimeError as error:
        raise UserError(f"the embedder {shown(folder)} has another audio tower or width than this Judge; give "
                        "embedder=null or the same sizes") from error  # fmt: skip
    if model.config.log_input:
        with torch.no_grad():
            model.data_proj.bias.sub_(SHIFT * model.data_proj.weight.sum(1))


def _attention(device: torch.device) -> AbstractContextManager[None]:
    """On a CPU the plain matrix products are a third faster, forward and backward, than the fused kernel in bf16."""
    return sdpa_kernel([SDPBackend.MATH]) if device.type == "cpu" else nullcontext()


def open_collections(config: DictConfig, run: Run) -> tuple[list[Collection], list[Collection]]:
    """Those to train on and those to validate on; small ones of synthesised sounds when ``data.toy`` is set."""
    if config.data.toy:
        codec = load_codec(DACVAE, config.codec)
        folders: list[Path] = first_alone(run, lambda: _toy(Path(config.data.cache), codec.config.sample_rate))
        return [Collection(folders[0])], [Collection(folders[1])]
    if not len(config.data.collections):
        raise UserError("data.collections is empty; make collections with python -m judge.scenes and name them")
    return [Collection(f) for f in config.data.collections], [Collection(f) for f in config.data.valid]


def _toy(cache: Path, rate: int) -> list[Path]:
    from peav.clips import ClipStore

    from .scenes import Recipe, Scenes, settings_of

    pool = make_pool(cache / f"toy-{rate}", sample_rate=rate)
    folders: list[Path] = []
    for split, count in (("train", 32), ("valid", 8)):
        recipe = Recipe(seconds=1.0, sources=(0.0, 1.0), outputs=4)
        scenes = Scenes(ClipStore([pool], rate, cache, split, progress=False), recipe, seed=len(folders))
        folders.append(cache / f"toy-judge-{rate}-{split}")
        write(folders[-1], settings_of(scenes), scenes.__getitem__, count)
    return folders


def fit(config: DictConfig) -> dict[str, float]:
    """Train to the end of the schedule; returns the last validation figures."""
    loop = Loop(**config.loop)
    run = Run(config.folder, loop)
    OmegaConf.save(config, run.folder / "config.yaml")
    model = build(config, run.device).train()
    train, held_out = open_collections(config, run)
    print(f"{sum(map(len, train))} training mixtures, {sum(map(len, held_out))} for validation", flush=True)
    rates = {c.sample_rate for c in (*train, *held_out)}
    if rates != {model.sample_rate}:
        raise UserError(f"collections at {sorted(rates)} Hz, but the codec listens at {model.sample_rate} Hz")
    words = Words(model)
    parameters = [p for name, p in model.named_parameters() if not name.startswith(checkpoints.ELSEWHERE)]
    optimizer = torch.optim.AdamW(parameters, lr=loop.lr, betas=(0.9, 0.98), weight_decay=loop.weight_decay)
    ema = Ema(model, loop.ema)
    if run.resume(model=model, optimizer=optimizer, ema=ema) and run.finished:
        return run.last_figures()
    known = seen = None
    if not model.config.listen:
        known = Comparisons(model.eval(), train)
        seen = Comparisons(model, held_out, config.data.valid_mixtures)
        model.train()
        run.start_clock()
    make = CollectionBatches(train, loop.batch_size, config.data.outputs, model.config.token_samples, loop.seed)
    for batch in batches(make, run):
        if run.done:
            break
        if known is None:
            text = torch.stack([words(phrases) for phrases in batch["phrases"]])
            batch = to_device(batch | {"text": text}, run.device)
        else:
            compared = known.batch(batch["places"], batch["kept"])
            batch = to_device(batch, run.device)
        with run.autocast(), _attention(run.device):
            if known is None:
                grid = _heard(model, batch)
            else:
                grid = judge_compared(model, Compared(**to_device(vars(compared), run.device)))
        terms = losses(grid, batch, given_presence=model.config.estimate > 0)
        loss = sum(config.weights[name] * value for name, value in terms.items())
        norm = descend(run, loss.backward, optimizer, parameters, ema, model)
        run.track(terms | {"loss": loss, "gradient": norm})
        if run.step % loop.valid_every == 0:
            with ema.swapped(model):
                run.write(validate(model.eval(), held_out, config.data.valid_mixtures, seen))
            model.train()
        if run.save_due():
            run.save(model=model, optimizer=optimizer, ema=ema)
    run.save(model=model, optimizer=optimizer, ema=ema)
    with ema.swapped(model):
        found = validate(model.eval(), held_out, config.data.valid_mixtures, seen)
        if run.rank == 0:
            checkpoints.save(model, run.folder / "model")
    run.write(found)
    run.plot()
    return found


@hydra.main(version_base="1.3", config_path="pkg://configs", config_name="judge")
def main(config: DictConfig) -> None:
    OmegaConf.resolve(config)
    fit(config)


if __name__ == "__main__":
    main()
