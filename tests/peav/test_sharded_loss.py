"""A batch spread over two processes gives the loss and the gradients of the same batch in one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from peav.frame_losses import frame_contrastive
from peav.gather import gather_rows
from peav.gradient_cache import cached_backward
from peav.losses import match_keys, sharded_sigmoid_contrastive, sigmoid_contrastive
from peav.pairs import FINE_TUNING, PairLosses
from peav.training import average_gradients

B, E = 6, 5
CAPTIONS = ["rain", "a dog", "Rain", "wind", "a  dog", "bells"]  # two duplicates, one of them across the processes
NAMES = ("audio", "video", "audio_video", "text_audio", "text_video", "text_audio_video", "audio_plus_text",
         "video_plus_text")  # fmt: skip


class Towers(nn.Module):
    """Inputs ``[b, 4]`` to embeddings: one linear map each, and a shared one, as a text tower is."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.shared = nn.Linear(4, 4)
        self.heads = nn.ModuleDict({name: nn.Linear(4, E) for name in NAMES})
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.dropout(self.shared(x).tanh())
        return {name: nn.functional.normalize(head(h), dim=-1) for name, head in self.heads.items()}


def made() -> tuple[Towers, PairLosses, Tensor]:
    torch.manual_seed(0)
    # A start at which negatives are felt; SigLIP's own hardly does.
    pairs = PairLosses(FINE_TUNING, scale=3.0, bias=-1.0, chunk_size=2)
    return Towers().double(), pairs.double(), torch.randn(B, 4, dtype=torch.float64)


def own_keys(rows: slice) -> dict[str, Tensor]:
    return {"text_audio": match_keys(CAPTIONS[rows])}


def gradients_of(*modules: nn.Module) -> list[list[float]]:
    return [p.grad.flatten().tolist() for module in modules for p in module.parameters()]


def single() -> dict:
    """What a single process finds, for every case."""
    towers, pairs, x = made()
    out = pairs(towers(x), own_keys(slice(None)))
    out.total.backward()
    results = {"pairs": [float(out.total.detach()), gradients_of(towers, pairs)]}
    towers, pairs, x = made()
    found = towers(x)
    scale, bias = pairs.log_scale["audio_video"].exp(), pairs.bias["audio_video"]
    loss = sigmoid_contrastive(found["audio"], found["text_audio"], scale, bias, keys=match_keys(CAPTIONS))
    loss.backward()
    results["one"] = [float(loss.detach()), gradients_of(towers.shared)]
    towers, pairs, x = made()
    loss = frame_loss(towers, pairs, x, slice(None))
    loss.backward()
    results["frames"] = [float(loss.detach()), gradients_of(towers.shared)]
    return results


def frame_loss(towers: Towers, pairs: PairLosses, x: Tensor, rows: slice) -> Tensor:
    """Four frames and two texts of each clip; clips are of different length."""
    torch.manual_seed(1)
    clips = torch.randn(B, 4, 4, dtype=torch.float64)
    targets = torch.rand(B, 2, 4) < 0.4
    mask = torch.arange(4) < torch.tensor([4, 2, 3, 4, 1, 2])[:, None]
    keys = match_keys(CAPTIONS * 2).view(2, B).T
    frames = towers(clips[rows])["audio"]
    text = torch.stack((towers(x[rows])["text_audio"], towers(x[rows] + 1)["text_audio"]), 1)
    return frame_contrastive(frames, text, targets[rows], pairs.log_scale["audio_video"].exp(),
                             pairs.bias["audio_video"], frame_mask=mask[rows], keys=keys[rows], negatives="global",
                             chunk_size=2)  # fmt: skip


def _one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    rows = slice(rank * B // 2, (rank + 1) * B // 2)
    results = {}

    towers, pairs, x = made()
    out = pairs(towers(x[rows]), own_keys(rows))
    out.total.backward()
    results["unaveraged"] = gradients_of(towers)
    average_gradients([*towers.parameters(), *pairs.parameters()])
    results["pairs"] = [mean(out.total), gradients_of(towers, pairs)]

    towers, pairs, x = made()
    total, _ = cached_backward(
        towers, x[rows].split(2), lambda found: ((out := pairs(found, own_keys(rows))).total, out.terms))
    average_gradients([*towers.parameters(), *pairs.parameters()])
    results["cached"] = [mean(total), gradients_of(towers, pairs)]

    towers, pairs, x = made()
    found = towers(x[rows])
    scale, bias = pairs.log_scale["audio_video"].exp(), pairs.bias["audio_video"]
    loss = sharded_sigmoid_contrastive(found["audio"], found["text_audio"], scale, bias,
                                       keys=match_keys(CAPTIONS[rows]), chunk_size=2)  # fmt: skip
    loss.backward()
    average_gradients(list(towers.shared.parameters()))
    results["one"] = [mean(loss), gradients_of(towers.shared)]

    towers, pairs, x = made()
    loss = frame_loss(towers, pairs, x, rows)
    loss.backward()
    average_gradients(list(towers.shared.parameters()))
    results["frames"] = [mean(loss), gradients_of(towers.shared)]

    for name, call in {
        "uneven": lambda: pairs(towers(x[: 3 - rank])),
        "different": lambda: pairs({n: e for n, e in towers(x[:2]).items() if n != "video" or rank}),
        "uneven_one": lambda: sharded_sigmoid_contrastive(*[torch.zeros(2 + rank, E)] * 2, scale, bias),
        "uneven_frames": lambda: frame_contrastive(
            torch.zeros(2, 3, E), torch.zeros(2, 1 + rank, E), torch.zeros(2, 1 + rank, 3), scale, bias,
            negatives="global"),
    }.items():  # fmt: skip
        try:
            call()
        except ValueError as error:
            results[name] = str(error)
    leaf = torch.full((1, 2), float(rank), requires_grad=True)
    gathered = gather_rows(leaf)
    (gathered * torch.tensor([[1.0], [10.0]]) * (rank + 1)).sum().backward()
    results["gather"] = [gathered.tolist(), leaf.grad.tolist()]
    Path(folder, f"{rank}.json").write_text(json.dumps(results))
    torch.distributed.destroy_process_group()


def mean(x: Tensor) -> float:
    x = x.detach().clone()
    torch.distributed.all_reduce(x)
    return float(x) / 2


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("sharded")
    torch.multiprocessing.spawn(_one_of_two, (str(folder),), nprocs=2)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize(
    ("case", "like"), [("pairs", "pairs"), ("cached", "pairs"), ("one", "one"), ("frames", "frames")],
    ids=["ten_pairs", "ten_pairs_cached", "one_pair", "frames"])  # fmt: skip
def test_two_processes_give_the_loss_and_the_gradients_of_one(both, case, like):
    loss, gradients = single()[like]
    for found in both:
        assert found[case][0] == pytest.approx(loss, rel=1e-12)
        for mine, wanted in zip(found[case][1], gradients, strict=True):
            assert mine == pytest.approx(wanted, rel=1e-9, abs=1e-12)
    assert max(abs(g) for row in gradients for g in row) > 1e-2  # there is something to agree on


def test_a_process_alone_has_not_the_whole_gradient(both):
    # What the average is for: each process knows what its own clips contribute.
    wanted = single()["pairs"][1][0]
    assert both[0]["unaveraged"][0] != pytest.approx(wanted, rel=1e-3)
    both_halves = [(a + b) / 2 for a, b in zip(both[0]["unaveraged"][0], both[1]["unaveraged"][0], strict=True)]
    assert both_halves == pytest.approx(wanted, rel=1e-9)


def test_negatives_of_the_other_process_count():
    towers, pairs, x = made()
    alone = [float(pairs(towers(x[rows])).total.detach()) for rows in (slice(0, 3), slice(3, 6))]
    assert single()["pairs"][0] > 1.2 * sum(alone) / 2


def test_duplicates_in_the_other_process_are_found():
    towers, pairs, x = made()
    plain = float(pairs(towers(x)).terms["text_audio"].detach())
    masked = float(pairs(towers(x), own_keys(slice(None))).terms["text_audio"].detach())
    assert masked < plain  # and the two processes agreed with `masked` above


@pytest.mark.parametrize(
    ("case", "message"),
    [("uneven", "different batch: 3, 2"), ("uneven_one", "different batch: 2, 3"),
     ("different", "different kinds of inputs: "), ("uneven_frames", "different texts: 1, 2")])  # fmt: skip
def test_uneven_batches_are_an_error_in_every_process(both, case, message):
    for found in both:
        assert message in found[case] and "each must bring the same" in found[case]


def test_gathered_rows_are_in_order_and_their_gradients_add_up(both):
    for rank, found in enumerate(both):
        assert found["gather"] == [[[0.0, 0.0], [1.0, 1.0]], [[3.0 * 10**rank] * 2]]
