"""What the design choices are worth: separators trained from nothing, for the same time, on the same clips.

    python -m benchmarks.ablations PATH/manifest.jsonl --cache FOLDER --minutes 12 --out docs/benchmarks

``latent`` is the shipped design: a mask on the codec's latent, whose decoding says how the input's spectrogram is cut.
``stft`` is the same network with the magnitudes of that spectrogram in place of the latent, its mask cutting directly;
it saves the decoding, so it takes more steps in the same time. ``random`` is ``latent`` trained on mixtures of any
sounds, where the others' are plausible to six tenths: from one kind of scene. All of them hear what the shipped
embedder hears, have one hypothesis, and look once. Every arm is measured by the same unseen recordings: pairs of any
sounds, plausible pairs, and three sources.

Axes: ``M`` mixtures, ``Q`` questions, ``D`` rows of what is masked, ``F`` its frames.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import hydra
import torch
import torch.nn.functional as F_
from omegaconf import DictConfig
from torch import Tensor

from peav.train_codec import open_stores
from peav.training import Ema, Loop, Run, as_dict, batches, descend, pick_device, to_device
from samaudio.cut_loss import stem_error
from samaudio.mask import MaskOutput, MaskSeparator
from samaudio.metrics import improvement
from samaudio.mixtures import Recipe
from samaudio.model import MaskModel
from samaudio.project import istft, project, squared, stft, window_length
from samaudio.train import MixtureBatches, Queries, build, frames_of, hear, losses

from .tables import DOCS, machine, table

ARMS = ("latent", "stft", "random")
SETS = {"two of any kind": ((0.0, 1.0), 0.0), "two, plausible": ((0.0, 1.0), 1.0), "three": ((0.0, 0.0, 1.0), 0.0)}
PACKAGED = Path(__file__).resolve().parents[1] / "samaudio" / "weights" / "mini"


class LatentArm:
    """Masks the codec's latent, as `samaudio.model` does."""

    def __init__(self, model: MaskModel, window: Tensor):
        self.model, self.window, self.separator = model, window, model.separator
        self.hop = model.codec.hop_length

    def look(self, batch: dict, query, hints: Tensor | None) -> MaskOutput:
        """What the separator says of every question of a batch."""
        latent = self.model.codec.latents(batch["mixture"][:, None])
        each = len(batch["target"]) // len(latent)
        return self.separator(latent.repeat_interleave(each, 0), query.clip, batch["anchors"], hints)

    def losses(self, out: MaskOutput, batch: dict, mixture: Tensor) -> dict[str, Tensor]:
        """Named terms, to be added up, of what was said of mixtures ``[Q, T]``, one for each question."""
        return losses(self.model.codec, out, batch, mixture, self.window)

    def stems(self, out: MaskOutput, mixture: Tensor) -> Tensor:
        """The targets ``[Q, T]`` cut out of mixtures ``[Q, T]``."""
        decoded = self.model.codec.decode(out.target[:, 0], length=mixture.shape[-1])[:, 0]
        return project(mixture, decoded, mixture - decoded, self.window)


class StftArm:
    """Masks the magnitudes of the spectrogram that the stems are cut from; otherwise as `LatentArm`. Its highest row
    follows the one below."""

    def __init__(self, model: MaskModel, window: Tensor):
        old = model.separator.config
        torch.manual_seed(0)
        self.separator = MaskSeparator(replace(old, latent_dim=len(window) // 2, rest=0))
        # Magnitudes are masked as they are, not as learned sums of each other.
        for layer in (self.separator.lift, self.separator.drop):
            layer.requires_grad_(False)
        self.window, self.hop = window, len(window) // 4

    def look(self, batch: dict, query, hints: Tensor | None) -> MaskOutput:
        magnitudes = squared(stft(batch["mixture"], self.window)).sqrt()[:, :-1] / len(self.window) ** 0.5
        each = len(batch["target"]) // len(magnitudes)
        self.magnitudes = magnitudes.repeat_interleave(each, 0)
        return self.separator(self.magnitudes, query.clip, batch["anchors"], hints)

    def masks(self, out: MaskOutput) -> Tensor:
        """``[Q, bins, frames]``."""
        mask = out.target[:, 0].float() / self.magnitudes.clamp_min(1e-8)
        return torch.cat((mask, mask[:, -1:]), dim=1)

    def losses(self, out: MaskOutput, batch: dict, mixture: Tensor) -> dict[str, Tensor]:
        X, S = stft(mixture, self.window), stft(batch["target"], self.window)
        mask, power = self.masks(out), squared(X)
        sums = (mask.square() * power, mask * (X * S.conj()).real, power, squared(S))
        sounds = (batch["target"].abs().amax(1) > 0).float()
        return {"stem": stem_error(*(x.sum((1, 2)) for x in sums)).mean(),
                "activity": F_.binary_cross_entropy_with_logits(out.activity, batch["activity"].float()),
                "presence": F_.binary_cross_entropy_with_logits(out.presence, sounds)}

    def stems(self, out: MaskOutput, mixture: Tensor) -> Tensor:
        return istft(stft(mixture, self.window) * self.masks(out), self.window, mixture.shape[-1])


class CpuRun(Run):
    """A run whose clock counts what this process computes, so that nothing else on the machine makes a difference."""

    @property
    def seconds(self) -> float:
        return time.process_time() - self.began

    def __init__(self, folder: str, loop: Loop):
        self.began = time.process_time()
        super().__init__(folder, loop)


@torch.inference_mode()
def measure(arm: LatentArm | StftArm, model: MaskModel, queries: Queries, held_out: list[dict]) -> dict[str, float]:
    """Mean SI-SDRi in dB, and the share of questions that got worse."""
    gains = []
    for batch in held_out:
        query = queries(batch)
        latent = model.codec.latents(batch["mixture"][:, None])
        hints = hear(frames_of(model, latent, query), query)
        mixture = batch["mixture"].repeat_interleave(len(batch["target"]) // len(latent), 0)
        gains.append(improvement(arm.stems(arm.look(batch, query, hints), mixture), batch["target"], mixture))
    found = torch.cat(gains)
    return {"si_sdri": float(found.mean()), "worse": float((found < 0).float().mean())}


def held_out(store, config: DictConfig, hop: int, questions: int) -> dict[str, list[dict]]:
    """Fixed mixtures of unchanged clips at equal level, asked for by their labels."""
    found = {}
    for name, (sources, plausible) in SETS.items():
        recipe = Recipe(seconds=config.recipe.seconds, sources=sources, snr_db=(0, 0), absent=0, plausible=plausible,
                        augment=0)  # fmt: skip
        plain = config.copy()
        plain.merge_with({"data": {"questions": 2, "span": 0, "example": 0, "span_only": 0}})
        make = MixtureBatches(store, plain, hop, 2**31 - 1, recipe)
        found[name] = [make(i) for i in range(-(-questions // config.loop.batch_size))]
        for batch in found[name]:
            batch["phrases"] = batch["labels"]
    return found


def train(name: str, config: DictConfig, questions: int) -> dict:
    """One arm from nothing to the end of its time; what it reached."""
    loop = Loop(**config.loop)
    run = (CpuRun if pick_device(loop.device).type == "cpu" else Run)(config.folder, loop)
    model = build(config, run.device)
    train_store, valid_store = open_stores(config, run, model.sample_rate)
    window = torch.hann_window(window_length(model.sample_rate), device=run.device)
    arm = StftArm(model, window) if name == "stft" else LatentArm(model, window)
    separator, queries = arm.separator, Queries(model.embedder, None, run.device)
    parameters = [p for p in separator.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=loop.lr, betas=(0.9, 0.98), weight_decay=loop.weight_decay)
    ema = Ema(separator, loop.ema)
    tests = held_out(valid_store, config, arm.hop, questions)
    make = MixtureBatches(train_store, config, arm.hop, loop.seed, Recipe(**as_dict(config.recipe)))
    started = run.seconds
    for batch in batches(make, run):
        if run.done:
            break
        batch = to_device(batch, run.device)
        query = queries(batch)
        with torch.no_grad():
            latent = model.codec.latents(batch["mixture"][:, None])
            hints = hear(frames_of(model, latent, query), query, config.data.hide_hints)
        mixture = batch["mixture"].repeat_interleave(config.data.questions, 0)
        with run.autocast():
            terms = arm.losses(arm.look(batch, query, hints), batch, mixture)
        loss = sum(config.weights[key] * value for key, value in terms.items())
        descend(run, loss.backward, optimizer, parameters, ema, separator)
        run.track(terms | {"loss": loss})
    seconds = run.seconds - started
    model.eval()
    separator.eval()
    with ema.swapped(separator):
        figures = {key: measure(arm, model, queries, mixtures) for key, mixtures in tests.items()}
    return {"steps": run.step, "minutes": seconds / 60, "parameters": sum(p.numel() for p in parameters),
            "figures": figures}


def page(found: dict[str, dict], about: str) -> str:
    rows = [[name, str(arm["steps"]), f"{arm['parameters'] / 1e6:.1f} M",
             *(f"{arm['figures'][key]['si_sdri']:.2f} dB, {100 * arm['figures'][key]['worse']:.0f} %" for key in SETS)]
            for name, arm in found.items()]
    return "\n".join((
        "# What the design choices are worth", "",
        "Separators trained from nothing for the same time; mean SI-SDRi on recordings that were never trained on, and "
        f"the share of questions that got worse. {about} `python -m benchmarks.ablations` says what the arms are.", "",
        table(["arm", "steps", "weights", *SETS], rows)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("manifest", nargs="+", help="manifests of clips")
    parser.add_argument("--cache", required=True, help="where decoded clips are kept")
    parser.add_argument("--model", default=str(PACKAGED), help="whose codec and embedder are used")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--minutes", type=float, default=12.0, help="of training, for each arm; on a CPU with "
                        "one thread, of processor time")
    parser.add_argument("--questions", type=int, default=256, help="of each kind")
    parser.add_argument("--out", type=Path, default=DOCS, help="folder for ablations.json and ablations.md")
    parser.add_argument("--set", nargs="*", default=[], help="other settings of configs/separator.yaml, for all arms")
    args = parser.parse_args()
    result = args.out / "ablations.json"
    found = json.loads(result.read_text()) if result.is_file() else {}
    for name in args.arms:
        with tempfile.TemporaryDirectory() as folder, hydra.initialize_config_module("configs", version_base="1.3"):
            settings = [f"codec={args.model}/codec", f"embedder={args.model}/embedder", f"folder={folder}",
                        f"data.cache={args.cache}", f"data.manifests=[{','.join(args.manifest)}]",
                        f"loop.minutes={args.minutes}", "data.example=0",
                        f"recipe.plausible={0.0 if name == 'random' else 0.6}"]
            config = hydra.compose("separator", [*settings, *args.set])
            found[name] = train(name, config, args.questions)
        found[name]["machine"] = machine(config.loop.threads or torch.get_num_threads())
        args.out.mkdir(parents=True, exist_ok=True)
        result.write_text(json.dumps(found, indent=1) + "\n")
        about = "; ".join(sorted({f"{arm['minutes']:.0f} min on {arm['machine']}" for arm in found.values()})) + "."
        (args.out / "ablations.md").write_text(page(found, about))
        print(page(found, about), flush=True)


if __name__ == "__main__":
    main()
