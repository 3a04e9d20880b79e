"""Training: the parts all scripts share, and the three scripts one after the other on synthesised sounds."""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import DictConfig
from torch import nn

import samaudio
from benchmarks import ablations
from peav import checkpoints, train_codec, train_embedder
from peav.codec import DACVAE, CodecConfig, lapped_init_
from peav.errors import UserError
from peav.training import Ema, Loop, Run, average_gradients, batches, pick_device
from samaudio import train as train_separator
from samaudio.mask import INSIDE, OUTSIDE, MaskOutput
from samaudio.metrics import improvement
from samaudio.project import window_length

ROOT = Path(__file__).parent.parent


def composed(task: str, *overrides: str) -> DictConfig:
    with initialize_config_module("configs", version_base="1.3"):
        return compose(task, overrides=[f"+debug={task}", "loop.device=cpu", *overrides])


def logged(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def series(folder: Path, name: str) -> list[float]:
    return [row[name] for row in logged(folder) if name in row]


# --- the three scripts ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which the three debug runs were made with the shipped overlays, and their last figures."""
    folder = tmp_path_factory.mktemp("training")
    with contextlib.chdir(folder), torch.random.fork_rng():
        figures = train_codec.fit(composed("codec"))
        figures |= train_embedder.fit(composed("embedder"))
        figures |= train_separator.fit(composed("separator"))
    return folder, figures


@pytest.mark.parametrize("task", ["codec", "embedder", "separator"])
def test_a_run_leaves_its_config_its_curves_and_a_model(trained, task):
    folder = trained[0] / "runs" / f"debug-{task}"
    assert {"config.yaml", "metrics.jsonl", "metrics.png", "state.pt", "model"} == {p.name for p in folder.iterdir()}
    assert (folder / "metrics.png").read_bytes().startswith(b"\x89PNG")
    steps = [row["step"] for row in logged(folder)]
    assert steps == sorted(steps) and steps[-1] == composed(task).loop.steps


def test_the_codec_reconstructs_and_adds_up(trained):
    # It starts as an exact transform; training must not lose that.
    assert trained[1]["valid/snr_db"] > 40 and trained[1]["valid/additive_snr_db"] > 40
    codec = DACVAE.from_pretrained(trained[0] / "runs/debug-codec/model")
    x = 0.1 * torch.randn(1, 1, 4_001, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        error = codec.decode(codec.latents(x), length=4_001) - x
    assert 10 * math.log10(float(x.square().sum() / error.square().sum())) > 30


def test_the_embedder_names_sounds_it_never_heard(trained):
    folder = trained[0] / "runs/debug-embedder"
    losses = series(folder, "train/loss")
    assert losses[-1] < 0.6 * losses[0]
    assert trained[1]["valid/top1"] > 0.5  # of four labels, 24 tracks: chance is 0.25 +- 0.09
    model = checkpoints.load(folder / "model", trained[0] / "runs/debug-codec/model")
    t = torch.arange(8_000) / 8_000
    audio = model.embed(audio=[0.2 * torch.randn(8_000, generator=torch.Generator().manual_seed(0)),
                               0.2 * torch.sin(2 * math.pi * 150 * t)])  # fmt: skip
    scores = audio @ model.embed(text=["noise", "low tone"]).T
    assert scores.argmax(1).tolist() == [0, 1]


def test_the_separator_improves_and_listens_to_the_prompt(trained):
    folder, figures = trained
    losses = series(folder / "runs/debug-separator", "train/loss")
    assert losses[-1] < losses[0] - 3  # dB, mostly
    # An untrained mask is one half everywhere: the mixture itself, 0 dB.
    assert figures["valid/si_sdri"] > 2
    assert figures["valid/wrong"] < figures["valid/si_sdri"] - 5
    gains = series(folder / "runs/debug-separator", "valid/si_sdri")
    assert gains[-1] > gains[0]


@pytest.mark.parametrize("arm", ["latent", "stft"])
def test_what_is_compared_in_ablations_learns_either_way(trained, tmp_path, arm):
    with contextlib.chdir(trained[0]), torch.random.fork_rng():
        config = composed("separator")
        config.folder = str(tmp_path)
        found = ablations.train(arm, config, questions=16)
    assert found["steps"] == config.loop.steps and set(found["figures"]) == set(ablations.SETS)
    assert found["figures"]["two of any kind"]["si_sdri"] > 2
    text = ablations.page({arm: found}, "On toys.")
    assert f"| {arm} | {config.loop.steps} |" in text and "two, plausible" in text


def test_the_result_separates(trained):
    separator = samaudio.load(trained[0] / "runs/debug-separator/model", device="cpu")
    t = torch.arange(8_000) / 8_000
    low = 0.2 * sum(torch.sin(2 * math.pi * 150 * k * t) / k for k in (1, 2, 3))
    high = 0.2 * torch.sin(2 * math.pi * 2_500 * t)
    result = separator.separate((low + high)[None], "low tone", sample_rate=8_000)
    assert (result.target + result.residual - (low + high)[None]).abs().max() < 1e-5
    assert float(improvement(result.target[0], low, low + high)) > 3


def test_a_finished_run_trains_no_further(trained):
    folder = trained[0] / "runs/debug-codec"
    before = torch.load(folder / "state.pt", weights_only=True)
    weights = (folder / "model/model.safetensors").read_bytes()
    with contextlib.chdir(trained[0]), torch.random.fork_rng():
        again = train_codec.fit(composed("codec"))
    after = torch.load(folder / "state.pt", weights_only=True)
    assert after["run"]["step"] == before["run"]["step"] == composed("codec").loop.steps
    assert all(torch.equal(after["model"][k], v) for k, v in before["model"].items())
    assert (folder / "model/model.safetensors").read_bytes() == weights
    assert again["valid/snr_db"] == pytest.approx(trained[1]["valid/snr_db"], abs=1e-3)


def test_the_command_of_the_readme_trains(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "peav.train_codec", "+debug=codec", "loop.steps=1", "loop.device=cpu"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "36 training clips, 12 validation clips, 4 labels" in done.stdout
    assert (tmp_path / "runs/debug-codec/model/model.safetensors").is_file()


# --- stopping and going on ------------------------------------------------------------------------


@pytest.fixture
def codec_run(trained, tmp_path):
    """A codec from random weights at a constant rate; the schedule would depend on the number of steps."""
    def run(name: str, steps: int) -> Path:
        config = composed(
            "codec", "init=null", f"folder={tmp_path / name}", f"data.cache={trained[0] / 'data/cache'}",
            f"loop.steps={steps}", "loop.final=1", "loop.warmup=1", "loop.lr=3e-3", "loop.log_every=1",
            "loop.valid_every=100")  # fmt: skip
        with torch.random.fork_rng():
            train_codec.fit(config)
        return tmp_path / name

    return run


def test_a_run_in_two_parts_equals_a_run_in_one(codec_run, monkeypatch):
    numbers: list[int] = []
    make = train_codec.CodecBatches.__call__

    def remember(self, number):
        numbers.append(number)
        return make(self, number)

    monkeypatch.setattr(train_codec.CodecBatches, "__call__", remember)
    whole = codec_run("whole", 8)
    assert numbers == [0, *range(8)]  # the first is the held-out batch
    losses = series(whole, "train/loss")
    assert np.mean(losses[-2:]) < np.mean(losses[:2])

    parts = codec_run("parts", 4)
    numbers.clear()
    codec_run("parts", 8)
    assert numbers == [0, *range(4, 8)]
    assert [row["step"] for row in logged(parts) if "train/loss" in row] == list(range(1, 9))
    assert series(parts, "train/loss") == pytest.approx(losses, rel=1e-4)
    one, two = (torch.load(folder / "state.pt", weights_only=True) for folder in (whole, parts))
    for key in one["model"]:
        torch.testing.assert_close(two["model"][key], one["model"][key], rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(two["ema"]["shadow"][key], one["ema"]["shadow"][key], rtol=1e-3, atol=1e-5)
    assert two["run"]["step"] == 8 and two["ema"]["updates"] == 8

    numbers.clear()
    codec_run("parts", 6)  # fewer steps than were made: nothing is left to do
    assert numbers == [] and torch.load(parts / "state.pt", weights_only=True)["run"]["step"] == 8


# --- batches --------------------------------------------------------------------------------------


def number_of(number: int) -> dict:
    return {"number": torch.tensor(number)}


@pytest.mark.parametrize("workers", [0, 2], ids=["in_the_loop", "two_workers"])
@pytest.mark.parametrize(
    ("step", "rank", "world", "wanted"),
    [(0, 0, 1, [0, 1, 2, 3, 4, 5]), (4, 0, 1, [4, 5]), (3, 1, 2, [7, 9, 11]), (6, 0, 1, [])],
    ids=["start", "resumed", "second_of_two", "finished"],
)
def test_batches_come_in_order_from_where_the_run_is(tmp_path, workers, step, rank, world, wanted):
    run = Run(tmp_path, Loop(6, 1, 1e-3, workers=workers, device="cpu"))
    run.step, run.rank, run.world = step, rank, world
    assert [int(batch["number"]) for batch in batches(number_of, run)] == wanted


def test_batches_draw_nothing_from_the_shared_generator(tmp_path):
    run = Run(tmp_path, Loop(2, 1, 1e-3, workers=0, device="cpu"))
    before = torch.get_rng_state()
    list(batches(number_of, run))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_mixture_batch_depends_on_its_number_alone(store):
    config = composed("separator", "recipe.seconds=0.4", "data.questions=2")
    recipe = train_separator.Recipe(seconds=0.4, sources=(0, 1))
    one, other = (train_separator.MixtureBatches(store, config, 160, 0, recipe) for _ in range(2))
    first, again, next_one = one(3), other(3), one(4)
    assert first["phrases"] == again["phrases"]
    tensors = [name for name, value in first.items() if isinstance(value, torch.Tensor)]
    assert all(torch.equal(first[name], again[name]) for name in tensors)
    assert not torch.equal(first["mixture"], next_one["mixture"])
    assert first["mixture"].shape == (4, 3_200) and first["target"].shape == (8, 3_200)
    assert first["activity"].shape == first["anchors"].shape == (8, 20)


def test_marks_are_spans_around_what_sounds():
    active = np.zeros(100, dtype=bool)
    active[20:30] = active[35:45] = active[75:90] = True  # the first gap is short, the second is not
    marks = train_separator._marks(active, np.random.default_rng(0))
    inside = np.flatnonzero(marks == INSIDE)
    assert set(marks) == {INSIDE, OUTSIDE}
    assert set(range(26, 40)) <= set(inside) and set(range(80, 85)) <= set(inside)
    assert not set(inside) & (set(range(15)) | set(range(51, 70)) | set(range(96, 100)))


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_hiding_silences_one_stretch_of_each_axis(chance):
    torch.manual_seed(0)
    hidden = train_embedder.hide(torch.ones(6, 40, 50), chance) == 0
    assert bool(hidden.any()) == bool(chance)
    for item in hidden if chance else ():
        rows, columns = item.all(1), item.all(0)
        assert 1 <= int(rows.sum()) < 8 and 1 <= int(columns.sum()) < 10
        assert torch.equal(item, rows[:, None] | columns)
        for found in (rows, columns):
            assert int(found.int().diff().abs().sum()) <= 2  # contiguous


# --- the separator's loss -------------------------------------------------------------------------


def loss_terms(estimate: torch.Tensor, target: torch.Tensor, mixture: torch.Tensor) -> dict[str, float]:
    """Terms for one question whose mask cut `estimate` out of `mixture`, all ``[T]``."""
    sizes = CodecConfig(
        sample_rate=8_000, stem_kernel=160, stem_stride=80, encoder_dim=80, encoder_rates=(), latent_dim=80,
        codebook_dim=80, decoder_dim=80, decoder_rates=(), final_tanh=False)  # fmt: skip
    codec = lapped_init_(DACVAE(sizes)).eval()
    with torch.no_grad():
        latent = codec.latents(estimate.view(1, 1, -1))
        frames = latent.shape[-1]
        out = MaskOutput(latent[:, None], codec.latents(mixture.view(1, 1, -1))[:, None] - latent[:, None],
                         torch.zeros(1, frames), torch.zeros(1), torch.zeros(1, 1))  # fmt: skip
        batch = {"mixture": mixture[None], "target": target[None], "activity": torch.zeros(1, frames)}
        window = torch.hann_window(window_length(8_000))
        terms = train_separator.losses(codec, out, batch, mixture[None], window)
    return {name: float(value) for name, value in terms.items()}


@pytest.mark.parametrize("term", ["stem", "decoded"])
def test_the_truth_costs_least_and_silence_is_no_bargain(term):
    t = torch.arange(8_000) / 8_000
    target, other = 0.2 * torch.sin(2 * math.pi * 300 * t), 0.2 * torch.sin(2 * math.pi * 1_700 * t)
    mixture = target + other
    cost = {name: loss_terms(estimate, target, mixture)[term] for name, estimate in
            {"truth": target, "mixture": mixture, "silence": 1e-4 * mixture, "other": other}.items()}  # fmt: skip
    assert cost["truth"] < cost["mixture"] - 3 and cost["truth"] < cost["silence"] - 3
    assert cost["other"] > cost["mixture"]
    if term == "stem":
        assert cost["silence"] >= cost["mixture"] - 0.1


def test_silence_costs_least_where_nothing_is_to_be_heard():
    mixture = 0.1 * torch.randn(8_000, generator=torch.Generator().manual_seed(0))
    nothing, half, all_of_it = (loss_terms(g * mixture, 0 * mixture, mixture)["stem"] for g in (1e-4, 0.5, 1.0))
    assert nothing < half < all_of_it


# --- schedule, average, log -----------------------------------------------------------------------


@pytest.fixture
def run(tmp_path) -> Run:
    return Run(tmp_path / "run", Loop(100, 1, lr=2.0, warmup=10, final=0.1, log_every=2, device="cpu"))


@pytest.mark.parametrize(
    ("step", "wanted"),
    [(0, 0.2), (50, 2 * (0.1 + 0.9 * 0.5)), (100, 0.2), (120, 0.2)], ids=["first", "half", "last", "beyond"])
def test_the_learning_rate_warms_up_and_follows_a_cosine(run, step, wanted):
    run.step = step
    assert run.learning_rate() == pytest.approx(wanted, rel=1e-3)
    assert run.done == (step >= 100)


def test_a_time_boxed_run_cools_down_with_the_clock(tmp_path):
    run = Run(tmp_path, Loop(1_000, 1, lr=1.0, warmup=1, final=0.1, minutes=10, device="cpu"))
    run.elapsed = 300.0
    assert run.learning_rate() == pytest.approx(0.55, abs=0.01) and not run.done
    run.elapsed = 601.0
    assert run.learning_rate() == pytest.approx(0.1) and run.done


@pytest.mark.parametrize("decay", [0.999, 0.1], ids=["still_warming_up", "at_its_decay"])
def test_the_moving_average_of_a_known_sequence(decay):
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    ema, wanted = Ema(module, decay), 0.0
    for n, value in enumerate((1.0, 3.0, -2.0), 1):
        nn.init.constant_(module.weight, value)
        ema.update(module)
        used = min(decay, (1 + n) / (10 + n))
        wanted = used * wanted + (1 - used) * value
    assert float(ema.shadow["weight"]) == pytest.approx(wanted)
    with pytest.raises(KeyError, match="oops"):
        with ema.swapped(module):
            assert float(module.weight.detach()) == pytest.approx(wanted)
            raise KeyError("oops")
    assert float(module.weight.detach()) == -2.0


def test_a_restored_average_is_a_copy():
    module = nn.BatchNorm1d(2)  # counts in whole numbers, which are taken over as they are
    ema, other = Ema(module, 0.5), Ema(module, 0.5)
    module.num_batches_tracked.fill_(7)
    ema.update(module)
    other.load_state_dict(ema.state_dict())
    assert other.updates == 1 and int(other.shadow["num_batches_tracked"]) == 7
    other.shadow["weight"].fill_(5)
    assert float(ema.shadow["weight"].max()) == 1


def test_numbers_are_logged_as_means(run):
    for step, value in enumerate((1.0, 3.0, 10.0, 20.0, 99.0), 1):
        run.step = step
        run.track({"loss": value, "norm": torch.tensor(value)})
    run.write({"valid/x": 1.5})
    rows = logged(run.folder)
    assert [(r["step"], r.get("train/loss"), r.get("train/norm")) for r in rows] == [
        (2, 2.0, 2.0), (4, 15.0, 15.0), (5, None, None)]  # fmt: skip
    assert rows[2]["valid/x"] == 1.5 and rows[0]["lr"] > 0
    run.plot()
    assert (run.folder / "metrics.png").read_bytes().startswith(b"\x89PNG")


def test_state_comes_back_with_the_random_numbers(run, tmp_path):
    module = nn.Linear(2, 2)
    assert not run.resume(module=module)  # nothing there yet
    run.step, run.elapsed = 7, 100.0
    run.save(module=module)
    drawn = torch.rand(3)
    other, again = nn.Linear(2, 2), Run(run.folder, run.loop)
    assert again.resume(module=other) and again.step == 7 and 100 <= again.seconds < 110
    assert torch.equal(other.weight, module.weight) and torch.equal(torch.rand(3), drawn)
    assert not list(run.folder.glob("*partial*"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"precision": "fp16"}, "precision 'fp16'; expected fp32 or bf16"), ({"steps": 0}, "steps 0 and batch_size 1"),
     ({"batch_size": 0}, "steps 9 and batch_size 0")],
    ids=["precision", "steps", "batch_size"],
)  # fmt: skip
def test_impossible_loops_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        Loop(**{"steps": 9, "batch_size": 1, "lr": 1e-3} | changes)


@pytest.mark.parametrize("name", ["abacus", "cuda:99"])
def test_a_device_that_is_not_there_is_named(name):
    with pytest.raises(UserError, match=f"device '{name}' is not available"):
        pick_device(name)


# --- several processes ----------------------------------------------------------------------------


def _one_of_two(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    both, one = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))
    both.grad = torch.tensor([1.0, 10.0]) * (rank + 1)
    if rank == 0:  # a part of the model that the other process's batch did not use
        one.grad = torch.tensor([4.0])
    average_gradients([both, one])
    Path(folder, f"{rank}.json").write_text(json.dumps([both.grad.tolist(), one.grad.tolist()]))
    torch.distributed.destroy_process_group()


def test_gradients_are_averaged_over_processes(tmp_path):
    torch.multiprocessing.spawn(_one_of_two, (str(tmp_path),), nprocs=2)
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == [[1.5, 15.0], [2.0]]


def test_a_single_process_keeps_its_gradients():
    parameter = nn.Parameter(torch.zeros(1))
    parameter.grad = torch.tensor([3.0])
    average_gradients([parameter])
    assert float(parameter.grad) == 3


def _told_to_stop(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/stop", rank=rank, world_size=2)
    run = Run(Path(folder) / "run", Loop(steps=100, batch_size=1, lr=1.0, minutes=1.0, device="cpu"))
    asked = [run.done]
    run._stopped = rank == 0  # only the first process got the signal
    run.elapsed = 30.0 * (1 + rank)  # and their clocks differ
    asked.append(run.done)
    Path(folder, f"stop-{rank}.json").write_text(json.dumps([asked, round(run.progress, 1), run.learning_rate()]))
    torch.distributed.destroy_process_group()


def test_processes_leave_the_loop_together_and_share_one_clock(tmp_path):
    torch.multiprocessing.spawn(_told_to_stop, (str(tmp_path),), nprocs=2)
    first, second = (json.loads((tmp_path / f"stop-{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert first[0] == [False, True] and first[1] == 0.5
