"""What every training script shares: run folder, schedule, moving average, batches in the background.

The loops themselves stay in the scripts, where they can be read from top to bottom. A run folder holds
``config.yaml``, ``metrics.jsonl``, ``metrics.png`` and ``state.pt``; running the same command again resumes from
the last state, and a finished run does nothing.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .errors import UserError


@dataclass
class Loop:
    """How long and how fast to train.

    The learning rate follows a cosine from ``lr`` to ``lr * final`` over the whole run, after ``warmup`` steps. The
    run ends after ``steps``, or after ``minutes`` of training time if that comes first (0 means no limit): the
    schedule follows whichever is nearer to its end, so a time-boxed run still cools down.
    """

    steps: int
    batch_size: int
    lr: float
    warmup: int = 100
    final: float = 0.02
    minutes: float = 0.0
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    threads: int = 0  # torch threads; 0 leaves torch's choice
    workers: int = 1  # processes that prepare batches; 0 prepares them in the loop
    precision: str = "fp32"  # or bf16: twice as fast where the processor has bf16 matrix instructions
    device: str = "auto"
    log_every: int = 20
    valid_every: int = 500
    save_minutes: float = 5.0

    def __post_init__(self) -> None:
        if self.precision not in ("fp32", "bf16"):
            raise UserError(f"precision {self.precision!r}; expected fp32 or bf16")
        if self.steps < 1 or self.batch_size < 1:
            raise UserError(f"steps {self.steps} and batch_size {self.batch_size} must be at least 1")


def pick_device(name: str) -> torch.device:
    """``auto`` takes CUDA, then Apple's MPS, then the CPU; anything else is taken at its word.

    Raises:
        UserError: the named device does not exist here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, ValueError):
        raise UserError(f"device {name!r} is not available here; use auto, cpu, cuda, cuda:N or mps") from None
    return device


def pick_dtype(dtype: torch.dtype | str | None) -> torch.dtype:
    """A floating-point type by its name in torch, such as ``bfloat16``; None is float32.

    Raises:
        UserError: it is no such type.
    """
    if dtype is None:
        return torch.float32
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise UserError(f"dtype {dtype!r} is no type of weights; use float32, bfloat16 or float16")
    return found


def distributed() -> tuple[int, int]:
    """``(rank, world size)`` of this process; joins the group that ``torchrun`` announces, once."""
    import torch.distributed as dist

    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def first_alone(run: Run, make: Callable[[], Any]) -> Any:
    """``make()`` in the first process, then in the others, which find what it left on disk."""
    import torch.distributed as dist

    if run.world == 1:
        return make()
    if run.rank:
        dist.barrier()
    made = make()
    if not run.rank:
        dist.barrier()
    return made


def average_gradients(parameters: list[nn.Parameter]) -> None:
    """Mean gradient over all processes; does nothing in a single one."""
    import torch.distributed as dist

    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)
        parameter.grad /= dist.get_world_size()


def descend(
    run: Run,
    backward: Callable[[], object],
    optimizer: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
    ema: Ema,
    module: nn.Module,
) -> Tensor:
    """One step down, the same in every process: gradients averaged and clipped, moving average updated.

    A gradient that is not finite changes nothing, so one broken batch does not end a run. Advances ``run.step``.

    Args:
        backward: fills the gradients, such as ``loss.backward``.

    Returns:
        Norm of the gradient before it was clipped.
    """
    for group in optimizer.param_groups:
        group["lr"] = run.learning_rate() * group.get("faster", 1.0)
    optimizer.zero_grad(set_to_none=True)
    backward()
    average_gradients(parameters)
    norm = torch.nn.utils.clip_grad_norm_(parameters, run.loop.clip)
    if bool(norm.isfinite()):
        optimizer.step()
        ema.update(module)
    run.step += 1
    return norm


class Ema:
    """Exponential moving average of a module's parameters; the average is what ships.

    The decay warms up as ``(1 + n) / (10 + n)`` so that a short run is not held back by its random start.
    """

    def __init__(self, module: nn.Module, decay: float):
        self.decay, self.updates = decay, 0
        self.shadow = {k: v.detach().clone().float() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in module.state_dict().items():
            if value.dtype.is_floating_point:
                self.shadow[name].lerp_(value.float(), 1 - decay)
            else:
                self.shadow[name].copy_(value)

    def swapped(self, module: nn.Module) -> _Swapped:
        """Context in which ``module`` holds the averaged weights."""
        return _Swapped(self, module)

    def state_dict(self) -> dict:
        return {"updates": self.updates, "shadow": self.shadow}

    def load_state_dict(self, state: dict) -> None:
        self.updates = state["updates"]
        for name, value in self.shadow.items():  # copied, so that it stays on the module's device
            value.copy_(state["shadow"][name])


class _Swapped:
    def __init__(self, ema: Ema, module: nn.Module):
        self.ema, self.module = ema, module

    def __enter__(self) -> nn.Module:
        self.kept = {k: v.detach().clone() for k, v in self.module.state_dict().items()}
        self.module.load_state_dict(self.ema.shadow)
        return self.module

    def __exit__(self, *_) -> None:
        self.module.load_state_dict(self.kept)


class Run:
    """Clock, folder, log and state of one training run."""

    def __init__(self, folder: str | Path, loop: Loop):
        self.folder, self.loop = Path(folder), loop
        self.folder.mkdir(parents=True, exist_ok=True)
        self.rank, self.world = distributed()
        if loop.threads:
            torch.set_num_threads(loop.threads)
        # The same seed in every process, so that all start from the same weights; they differ in their data.
        torch.manual_seed(loop.seed)
        random.seed(loop.seed)
        np.random.seed(loop.seed)
        self.device = pick_device(loop.device)
        if self.device.type == "cuda" and self.world > 1:
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(self.device)
        self.step, self.elapsed = 0, 0.0
        self._started = self._saved = time.monotonic()
        self._sums: dict[str, list[float]] = {}
        self._stopped = False
        self._agreed: float | None = None

    # -- clock ----------------------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """Training time so far, resumed time included."""
        return self.elapsed + time.monotonic() - self._started

    def start_clock(self) -> None:
        """Training begins now: what was prepared since the start or a resume does not count as training time."""
        self._started = self._saved = time.monotonic()

    @property
    def progress(self) -> float:
        """0 at the start, 1 at the end; with several processes, what they last agreed on in `done`."""
        if self._agreed is not None:
            return self._agreed
        by_time = self.seconds / (60 * self.loop.minutes) if self.loop.minutes else 0.0
        return min(1.0, max(self.step / self.loop.steps, by_time))

    @property
    def finished(self) -> bool:
        """Whether the schedule is through and the model written, so that there is nothing left to do."""
        through = self.progress >= 1.0 and (self.folder / "model").is_dir()
        if through:
            print(f"{self.folder} is finished; give another folder, or more steps or minutes", flush=True)
        return through

    def last_figures(self) -> dict[str, float]:
        """The last validation figures in the log."""
        lines = (self.folder / "metrics.jsonl").read_text().splitlines()
        rows = [row for row in map(json.loads, lines) if any(k.startswith("valid/") for k in row)]
        return {k: v for k, v in rows[-1].items() if k.startswith("valid/")} if rows else {}

    @property
    def done(self) -> bool:
        """Whether to leave the loop. With several processes the first one decides for all of them, by its clock and
        its signals, since one that left alone would leave the others waiting; every process must ask every step."""
        if self.world > 1:
            import torch.distributed as dist

            self._agreed = None
            told = torch.tensor([self.progress, float(self._stopped)], device=self.device)
            dist.broadcast(told, src=0)
            self._agreed, self._stopped = float(told[0]), bool(told[1])
        return self._stopped or self.progress >= 1.0

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Within it, the first Ctrl-C or SIGTERM makes the run `done`, so that it ends in order with its state saved.

        A second one has its usual effect.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def stop(number: int, _: object) -> None:
            print(f"stopping after step {self.step}; the same command goes on from there", flush=True)
            self._stopped = True
            signal.signal(number, kept[signal.Signals(number)])

        for number in kept:
            signal.signal(number, stop)
        try:
            yield
        finally:
            for number, handler in kept.items():
                signal.signal(number, handler)

    def learning_rate(self) -> float:
        warm = min(1.0, (self.step + 1) / max(self.loop.warmup, 1))
        cosine = 0.5 * (1 + math.cos(math.pi * self.progress))
        return self.loop.lr * warm * (self.loop.final + (1 - self.loop.final) * cosine)

    def autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.loop.precision == "bf16")

    # -- log ------------------------------------------------------------------------------------------------

    def track(self, values: Mapping[str, float | Tensor]) -> None:
        """Remember this step's numbers; their means are written every ``log_every`` steps."""
        for name, value in values.items():
            self._sums.setdefault(name, []).append(float(value.detach() if isinstance(value, Tensor) else value))
        if self.step % self.loop.log_every == 0:
            means = {k: sum(v) / len(v) for k, v in self._sums.items() if v}
            self._sums.clear()
            self.write({f"train/{k}": v for k, v in means.items()} | {"lr": self.learning_rate()})

    def write(self, values: Mapping[str, float]) -> None:
        """One line into ``metrics.jsonl`` and onto the terminal."""
        if self.rank:
            return
        row = {"step": self.step, "seconds": round(self.seconds, 1)} | dict(values)
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        remaining = self.seconds / max(self.progress, 1e-6) * (1 - self.progress)
        text = "  ".join(f"{k.removeprefix('train/')} {v:.4g}" for k, v in values.items())
        print(f"step {self.step:6d}  {100 * self.progress:5.1f} %  {remaining / 60:5.1f} min left  {text}", flush=True)

    def plot(self) -> None:
        """Draw every logged number over the steps into ``metrics.png``."""
        if self.rank or not (self.folder / "metrics.jsonl").exists():
            return
        import matplotlib
        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        rows = [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]
        names = sorted({k for row in rows for k in row} - {"step", "seconds", "lr"})
        if not names:
            return
        columns = min(4, len(names))
        lines = -(-len(names) // columns)
        figure, axes = plt.subplots(lines, columns, figsize=(4 * columns, 2.6 * lines), squeeze=False)
        for axis, name in zip(axes.flat, names, strict=False):
            points = [(row["step"], row[name]) for row in rows if name in row]
            axis.plot(*zip(*points, strict=True), linewidth=1, marker="." if len(points) < 30 else None)
            axis.set_title(name, fontsize=9)
            axis.grid(alpha=0.3)
        for axis in axes.flat[len(names):]:
            axis.axis("off")
        figure.tight_layout()
        figure.savefig(self.folder / "metrics.png", dpi=80)
        plt.close(figure)

    # -- state ----------------------------------------------------------------------------------------------

    def save(self, **parts) -> None:
        """Write everything that resuming needs; whole or not at all."""
        if self.rank:
            return
        state = {name: part.state_dict() for name, part in parts.items()}
        state["run"] = {"step": self.step, "elapsed": self.seconds, "rng": torch.get_rng_state()}
        partial = self.folder / "state.partial.pt"
        torch.save(state, partial)
        partial.replace(self.folder / "state.pt")
        self._saved = time.monotonic()
        self.plot()

    def save_due(self) -> bool:
        return time.monotonic() - self._saved > 60 * self.loop.save_minutes

    def resume(self, **parts) -> bool:
        """Restore the parts from ``state.pt`` if there is one; true when something was restored."""
        path = self.folder / "state.pt"
        if not path.exists():
            return False
        state = torch.load(path, map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        self.step, self.elapsed = state["run"]["step"], state["run"]["elapsed"]
        torch.set_rng_state(state["run"]["rng"])
        self._started = time.monotonic()
        print(f"resumed {self.folder} at step {self.step}", flush=True)
        return True


def as_dict(node: Any) -> dict[str, Any]:
    """A node of a Hydra configuration as plain Python values."""
    from omegaconf import OmegaConf

    return {str(k): v for k, v in OmegaConf.to_container(node, resolve=True).items()}  # type: ignore[union-attr]


class _Items(torch.utils.data.Dataset):
    """Batch numbers to batches: the same batch for the same number, whoever makes it."""

    def __init__(self, make: Callable[[int], dict], first: int, count: int, rank: int, world: int):
        self.make, self.first, self.count, self.rank, self.world = make, first, count, rank, world

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> dict:
        return self.make((self.first + i) * self.world + self.rank)


def _settle(_: int) -> None:
    """A worker uses one thread, and leaves Ctrl-C to the loop."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def batches(make: Callable[[int], dict], run: Run) -> Iterator[dict]:
    """``make(number)`` for the rest of the run, prepared in the background in order.

    ``make`` must depend on its number alone, so that a resumed run continues the stream where it stopped.
    """
    items = _Items(make, run.step, max(run.loop.steps - run.step, 0), run.rank, run.world)
    workers = run.loop.workers
    # Its own generator: drawing from torch's would make a resumed run differ from one that went through.
    loader = torch.utils.data.DataLoader(
        items, batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None,
        worker_init_fn=_settle if workers else None, generator=torch.Generator())
    with run.interruptible():
        yield from loader


def to_device(batch: dict, device: torch.device) -> dict:
    return {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()}
