"""The ``peav`` command, with an embedder whose answers are known."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn

import peav
from peav import cli, console
from peav.errors import UserError
from peav.windows import embed_file

RATE = 16_000


class Ears(nn.Module):
    """Embeds a clip as its amounts below and above 1 kHz, and the words "low" and "high" as the two axes."""

    sample_rate = 8_000

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.lengths: list[int] = []

    def embed(self, *, text=None, audio=None) -> Tensor:
        if text is not None:
            return torch.stack([torch.eye(3)[{"low": 0, "high": 1}.get(words.lower(), 2)] for words in text])
        self.lengths += [len(clip) for clip in audio]
        return torch.stack([nn.functional.normalize(self._bands(clip), dim=0) for clip in audio])

    def _bands(self, clip: Tensor) -> Tensor:
        power = torch.fft.rfft(clip).abs().square()
        edge = round(1_000 * len(clip) / self.sample_rate)
        return torch.stack([power[:edge].sum(), power[edge:].sum(), torch.tensor(0.0)]).sqrt()

    device = torch.device("cpu")

    def logits(self, name: str, rows: Tensor, columns: Tensor) -> Tensor:
        assert name == "text_audio"
        return rows @ columns.T * 10 - 5


@pytest.fixture
def ears(monkeypatch, tmp_path) -> Ears:
    embedder = Ears()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(peav, "load", lambda model=None, device="auto": embedder)
    return embedder


def tone(hz: float, seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def save(name: str, samples: np.ndarray, rate: int = RATE) -> str:
    soundfile.write(name, samples, rate)
    return name


def refused(arguments: list[str], capfd, expected: str) -> None:
    before = set(Path().rglob("*"))
    assert cli.main(arguments) == 2
    out, err = capfd.readouterr()
    assert "Traceback" not in err and len(err.splitlines()) == 1, err
    assert re.search(expected, err), err
    assert out == "" and set(Path().rglob("*")) == before


def test_classify_ranks_the_labels(ears, capfd):
    save("a.wav", tone(3_000))
    assert cli.main(["classify", "a.wav", "--labels", "low, High,other,low", "--json"]) == 0
    rows = json.loads(capfd.readouterr().out)
    assert rows[0]["label"] == "High" and {row["label"] for row in rows[1:]} == {"low", "other"}
    assert rows[0]["cosine"] == pytest.approx(1.0, abs=1e-2)
    assert sum(row["probability"] for row in rows) == pytest.approx(1.0, abs=1e-5)


def test_classify_prints_a_table(ears, capfd):
    save("a.wav", tone(200))
    assert cli.main(["classify", "a.wav", "-l", "high,low"]) == 0
    title, header, first, second = capfd.readouterr().out.splitlines()
    assert title == "a.wav, on cpu"
    assert first.split()[0] == "low" and second.split()[0] == "high"


def test_embed_writes_files_then_texts(ears, capfd):
    save("a.wav", tone(200))
    arguments = ["embed", "a.wav", "--text", "High", "--out", "e.npy"]
    assert cli.main(arguments) == 0
    assert "e.npy: 2 embeddings of 3 numbers, on cpu" in capfd.readouterr().out
    np.testing.assert_allclose(np.load("e.npy"), [[1, 0, 0], [0, 1, 0]], atol=1e-2)
    refused(arguments, capfd, "exists already; give --force")
    assert cli.main([*arguments, "--force"]) == 0


def test_embed_as_json(ears, capfd):
    save("a.wav", tone(200))
    assert cli.main(["embed", "a.wav", "-t", "low", "--json"]) == 0
    file, text = json.loads(capfd.readouterr().out)
    assert (file["file"], text["text"], len(file["embedding"])) == ("a.wav", "low", 3)


def test_embed_names_each_on_a_line(ears, capfd):
    assert cli.main(["embed", "-t", "low", "-t", "high"]) == 0
    assert [line.split(":")[0] for line in capfd.readouterr().out.splitlines()] == ["low", "high"]


def test_long_files_are_windows_averaged_by_length(ears):
    # 10 s low, then 5 s high at another rate; silence between them counts for nothing.
    parts = [tone(200, 10.0, 24_000), np.zeros(10 * 24_000, dtype=np.float32), tone(3_100, 5.0, 24_000)]
    vector = embed_file(ears, save("a.wav", np.concatenate(parts), 24_000))
    assert ears.lengths[0] == 80_000 and ears.lengths[-1] == 40_000
    assert (vector[0] / vector[1]).item() == pytest.approx(2.0, rel=0.05)
    assert vector.norm().item() == pytest.approx(1.0, abs=1e-5)


def test_a_rest_shorter_than_a_second_is_left_out_unless_alone(ears):
    embed_file(ears, save("a.wav", tone(200, 10.5)))
    embed_file(ears, save("b.wav", tone(200, 0.25)))
    assert ears.lengths == [80_000, 2_000]


def test_silence_cannot_be_embedded(ears):
    with pytest.raises(UserError, match="is silent"):
        embed_file(ears, save("a.wav", np.zeros(RATE, dtype=np.float32)))


MISTAKES = {
    "nothing": (["embed"], "nothing to embed"),
    "empty text": (["embed", "-t", " "], "text is empty"),
    "missing file": (["embed", "none.wav"], "none.wav: no such file"),
    "not npy": (["embed", "-t", "a", "-o", "e.txt"], "written as .npy"),
    "no folder": (["embed", "-t", "a", "-o", "x/e.npy"], "there is no folder x"),
    "device": (["embed", "-t", "a", "--device", "meta"], "device 'meta' is unknown"),
    "no labels": (["classify", "none.wav", "--labels", " , "], "--labels is empty"),
    "no option": (["classify", "none.wav"], "--labels"),
    "no command": ([], "Missing command"),
    "unknown command": (["sing"], "No such command 'sing'"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_mistakes_are_one_line_and_two(ears, capfd, kind):
    arguments, expected = MISTAKES[kind]
    refused(arguments, capfd, expected)


def test_without_a_model_the_line_says_so(monkeypatch, tmp_path, capfd):
    monkeypatch.chdir(tmp_path)
    refused(["embed", "-t", "a", "--model", "nowhere"], capfd, "nowhere")


def test_help_does_not_import_torch():
    code = "import sys; from peav.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(cli.__file__).parents[1], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_json_of_numbers_that_json_lacks(capfd):
    console.print_json({"a": float("nan"), "b": [Path("x"), float("inf"), 1]})
    assert json.loads(capfd.readouterr().out) == {"a": None, "b": ["x", None, 1]}


def test_progress_is_silent_where_nobody_looks(capfd):
    with console.progress("a") as advance:
        advance(1.0, None)
    assert capfd.readouterr() == ("", "")


def test_progress_draws_on_stderr_of_a_terminal(monkeypatch, capfd):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with console.progress("mix [bold].wav") as advance:
        advance(1.0, 2.0)
        advance(2.0, 2.0)
    out, err = capfd.readouterr()
    assert out == "" and "mix [bold].wav" in err
