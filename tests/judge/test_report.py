"""The report: what belongs together, and what is written about it."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import soundfile
import torch

from judge.report import find_items, write_report
from judge.score import Curve, Score
from peav import media
from peav.errors import UserError

RATE = 8_000
rng = np.random.default_rng(0)
TARGET, REST = (0.3 * rng.uniform(-1, 1, 2 * RATE) for _ in range(2))
EVIL = "</script><script>alert(1)</script><img src=x onerror='alert(2)' \"'>&"


class Fake:
    """Overall is the target's peak times ten, similarity the length of the prompt; silence is silent."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.asked: list[tuple] = []

    def score(self, mixture, target, prompt):
        self.asked.append((Path(mixture), Path(target), prompt))
        if prompt == "broken":
            raise UserError("this one cannot be judged; try another")
        peak, mixture_peak = (float(media.read(path)[0].abs().max()) for path in (target, mixture))
        values = torch.tensor([[1.0, 2.0, 3.0, 4.0]] * 3 + [[math.nan] * 4] + [[2.0, 3.0, 4.0, 7.0]])
        return Score(
            overall=10 * peak, recall=mixture_peak, similarity=len(prompt) / 100 if peak else math.nan,
            notes=("one note",), curve=Curve(values, 1.0),
        )  # fmt: skip


def save(path: Path, samples, rate: int = RATE, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **options)
    return path


def save_pair(folder: Path, name: str = "guitar", residual: str = "guitar.residual") -> None:
    save(folder / f"{name}.wav", TARGET, subtype="FLOAT")
    save(folder / f"{residual}.wav", REST, subtype="FLOAT")


def rows_of(report) -> list[dict]:
    return list(csv.DictReader(io.StringIO(report.csv.read_text(encoding="utf-8"))))


class Page(HTMLParser):
    """Elements with their attributes, and all text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.text = ""
        self.scripts: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.lasttag == "script" and data.strip():
            self.scripts.append(data)
        self.text += data

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_what_separate_writes_needs_nothing_else(tmp_path):
    save_pair(tmp_path / "band")
    save(tmp_path / "band" / "lead_vocals.wav", TARGET)
    save(tmp_path / "band" / ".hidden.wav", TARGET)
    guitar, vocals = find_items(tmp_path)
    assert (guitar.recording, guitar.prompt, guitar.mixture) == ("band", "guitar", None)
    assert guitar.residual == tmp_path / "band" / "guitar.residual.wav"
    assert (vocals.prompt, vocals.residual) == ("lead vocals", None)
    assert vocals.halves == guitar.halves == (guitar.target, guitar.residual)


def test_what_demucs_writes_with_words_for_its_stems(tmp_path):
    for stem in ("drums", "bass", "other", "vocals"):
        save(tmp_path / "out" / "htdemucs" / "A song" / f"{stem}.wav", TARGET)
    save_pair(tmp_path / "out" / "two" / "A song", "vocals", "no_vocals")
    song = save(tmp_path / "songs" / "a-song.flac", TARGET + REST)
    save(tmp_path / "songs" / "another.flac", TARGET)
    items = find_items(tmp_path / "out", [tmp_path / "songs"], {"vocals": "singing voice"})
    found = [(item.system, item.recording, item.prompt, item.mixture) for item in items]
    prompts = ("bass", "drums", "other", "singing voice")
    assert found == [
        *(("htdemucs", "A song", prompt, song) for prompt in prompts), ("two", "A song", "singing voice", song),
    ]  # fmt: skip
    assert items[-1].residual.name == "no_vocals.wav"


def test_a_mixture_beside_the_targets_or_the_only_one_there_is(tmp_path):
    save(tmp_path / "one" / "x" / "guitar.wav", TARGET)
    beside = save(tmp_path / "one" / "x" / "mixture.wav", TARGET)
    (item,) = find_items(tmp_path / "one")
    assert item.mixture == beside
    save(tmp_path / "two" / "guitar.wav", TARGET)
    elsewhere = save(tmp_path / "song.wav", TARGET)
    (item,) = find_items(tmp_path / "two", [elsewhere])
    assert (item.mixture, item.recording) == (elsewhere, "two")
    inside = save(tmp_path / "two" / "take 1.wav", TARGET)  # a given mixture is no target
    assert [item.target.name for item in find_items(tmp_path / "two", [inside])] == ["guitar.wav"]


def test_a_manifest_says_everything(tmp_path):
    lines = [
        {"mixture": "m.wav", "target": "out/a.wav", "prompt": " a dog barking ", "system": "ours"},
        {"mixture": "/abs/m.wav", "target": "b.wav", "prompt": "rain", "residual": "r.wav", "recording": "street"},
    ]
    (tmp_path / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    first, second = find_items(tmp_path)
    assert (first.recording, first.prompt, first.system) == ("m", "a dog barking", "ours")
    assert (first.mixture, first.target, first.residual) == (tmp_path / "m.wav", tmp_path / "out/a.wav", None)
    assert (second.recording, second.mixture, second.residual) == ("street", Path("/abs/m.wav"), tmp_path / "r.wav")


GOOD_LINE = '{"mixture": "m", "target": "t", "prompt": "p"}\n'
MANIFESTS = {
    "no json": (GOOD_LINE + "mixture,target", "line 2: is no JSON object"),
    "a list": ("[1]", "line 1: is no JSON object"),
    "missing": ('{"mixture": "m", "target": "t"}', "line 1: 'prompt' is None"),
    "empty prompt": ('{"mixture": "m", "target": "t", "prompt": " "}', "'prompt' is"),
    "a number": ('{"mixture": "m", "target": 3, "prompt": "p"}', "'target' is 3"),
    "deep": ("[" * 50_000, "is no JSON object"),
    "nothing": ("\n", "holds no rows"),
    "bytes": (b"\xff\xfe", "is not UTF-8"),
}


@pytest.mark.parametrize("kind", MANIFESTS)
def test_manifests_that_say_something_else(tmp_path, kind):
    content, says = MANIFESTS[kind]
    (tmp_path / "manifest.jsonl").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=re.escape(says)):
        find_items(tmp_path)


def test_folders_that_say_too_little(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        find_items(tmp_path / "none")
    with pytest.raises(UserError, match="holds no separated sounds"):
        find_items(tmp_path)
    save(tmp_path / "song" / "vocals.wav", TARGET)
    with pytest.raises(UserError, match="not known what it was cut from; give --mixture"):
        find_items(tmp_path)
    with pytest.raises(UserError, match="no such file"):
        find_items(tmp_path, [tmp_path / "none.wav"])
    mixture = save(tmp_path.parent / "m.wav", TARGET)
    with pytest.raises(UserError, match="no target is called 'drums'"):
        find_items(tmp_path, [mixture], {"drums": "x"})


def test_table_and_page_say_what_the_judge_says(tmp_path):
    save_pair(tmp_path / "band")
    save(tmp_path / "band" / "silence.wav", np.zeros(2 * RATE))
    judge = Fake()
    report = write_report(judge, find_items(tmp_path), tmp_path / "report")
    guitar, silence = rows_of(report)
    assert guitar["target"] == str(Path("band/guitar.wav")) and guitar["mixture"] == "target + residual"
    assert float(guitar["overall"]) == pytest.approx(10 * np.abs(TARGET).max(), abs=1e-3)
    # The mixture was put together from the two halves.
    assert float(guitar["recall"]) == pytest.approx(np.abs(TARGET + REST).max(), abs=1e-4)
    assert (guitar["similarity"], guitar["presence"], silence["similarity"]) == ("0.0600", "", "")
    assert guitar["notes"] == "one note" and guitar["error"] == ""
    page = Page(report.html)
    assert "2 separations of 1 recording" in page.text and "silent" in page.text
    assert f"{10 * np.abs(TARGET).max():.2f}" in page.text
    assert [label for a in page.all("audio") if (label := a["aria-label"])] == [
        "mixture", "target, guitar", "residual, guitar", "target, silence",
    ]  # fmt: skip
    assert {attributes["id"] for attributes in page.all("article")} == {"item-1", "item-2"}
    assert all(attributes.get("alt") for attributes in page.all("img"))


def test_the_page_needs_no_other_file_and_plays_what_was_separated(tmp_path):
    save_pair(tmp_path / "band")
    report = write_report(Fake(), find_items(tmp_path), tmp_path / "report")
    page = Page(report.html)
    sources = [attributes["src"] for tag in ("audio", "img", "script") for attributes in page.all(tag)
               if "src" in attributes]  # fmt: skip
    assert len(sources) == 6 and all(source.startswith("data:") for source in sources)
    assert not page.all("link") and not re.search(r"https?://|@import|url\(", page.source)
    target = page.all("audio")[1]["src"]
    assert target.startswith("data:audio/flac;base64,")
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(target.partition(",")[2])))
    assert rate == RATE and np.abs(samples - TARGET).max() < 1 / 32_768
    mixture = page.all("audio")[0]["src"]
    samples, _ = soundfile.read(io.BytesIO(base64.b64decode(mixture.partition(",")[2])))
    assert np.abs(samples - TARGET - REST).max() < 1 / 32_768


def test_names_and_prompts_are_text_and_no_script_runs_but_the_pages_own(tmp_path):
    mixture, target = save(tmp_path / "m.wav", TARGET), save(tmp_path / "<b onload=x>&'.wav", TARGET)
    row = {"mixture": mixture.name, "target": target.name, "prompt": EVIL, "system": EVIL, "recording": EVIL}
    (tmp_path / "manifest.jsonl").write_text(json.dumps(row) + "\n" + json.dumps({**row, "system": "=1+1"}))
    report = write_report(Fake(), find_items(tmp_path), tmp_path / "report", title=EVIL)
    page = Page(report.html)
    assert page.text.count(EVIL) >= 6  # as text, whole
    assert len(page.scripts) == 1 and "alert" not in page.scripts[0]
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert {tag for tag, _ in page.elements}.isdisjoint({"b", "iframe", "object", "base"})
    assert len(page.all("img")) == 3
    policy = page.all("meta")[1]["content"]
    digest = base64.b64encode(hashlib.sha256(page.scripts[0].encode()).digest()).decode()
    assert policy.startswith("default-src 'none';") and f"script-src 'sha256-{digest}'" in policy
    assert rows_of(report)[1]["system"] == "'=1+1"  # no formula for a spreadsheet


def test_names_that_are_no_text_can_be_written(tmp_path):
    target = tmp_path / "x" / "caf\udce9.wav"
    try:
        save(tmp_path / "x" / "plain.wav", TARGET).rename(target)
    except (OSError, UnicodeError):
        pytest.skip("this file system has no such names")
    mixture = save(tmp_path / "m.wav", TARGET)
    report = write_report(Fake(), find_items(tmp_path, [mixture]), tmp_path / "report", link=True)
    assert rows_of(report)[0]["prompt"].startswith("caf") and "caf%E9.wav" in Page(report.html).source


def test_what_does_not_fit_is_named_and_said(tmp_path):
    save_pair(tmp_path / "band")
    size = write_report(Fake(), find_items(tmp_path), tmp_path / "whole").html.stat().st_size
    report = write_report(Fake(), find_items(tmp_path), tmp_path / "report", embedded=50_000)
    assert report.html.stat().st_size < size - 60_000
    page = Page(report.html)
    assert len(page.all("audio")) == 1 and page.text.count("make it with --link") == 2
    assert len(page.all("img")) == 3


def test_small_formats_go_in_as_they_are(tmp_path):
    mixture = save(tmp_path / "song.mp3", TARGET, format="MP3")
    save(tmp_path / "out" / "song" / "vocals.flac", TARGET)
    report = write_report(Fake(), find_items(tmp_path / "out", [mixture]), tmp_path / "report")
    sources = [attributes["src"].split(",") for attributes in Page(report.html).all("audio")]
    assert [kind for kind, _ in sources] == ["data:audio/mpeg;base64", "data:audio/flac;base64"]
    assert base64.b64decode(sources[0][1]) == mixture.read_bytes()


def test_links_are_relative_and_lead_to_the_files(tmp_path):
    save_pair(tmp_path / "sep" / "a b#c?%41", "javascript:x", "javascript:x.residual")
    (tmp_path / "pages").mkdir()
    report = write_report(Fake(), find_items(tmp_path / "sep"), tmp_path / "pages" / "report", link=True)
    page = Page(report.html)
    sources = [attributes["src"] for attributes in page.all("audio")]
    assert len(sources) == 2 and all(":" not in source for source in sources)
    assert all((report.html.parent / unquote(source)).is_file() for source in sources)
    assert "there is no file to point at" in page.text


def test_what_is_wrong_with_one_stands_in_its_row(tmp_path):
    save_pair(tmp_path / "band")
    save(tmp_path / "band" / "broken.wav", TARGET)
    (tmp_path / "band" / "text.wav").write_text("no sound")
    report = write_report(Fake(), find_items(tmp_path), tmp_path / "report")
    errors = {row["prompt"]: row["error"] for row in rows_of(report)}
    assert errors["guitar"] == "" and errors["broken"].startswith("this one cannot be judged")
    assert "not audio" in Page(report.html).text


def test_halves_of_different_sounds_do_not_add_up(tmp_path):
    save(tmp_path / "band" / "guitar.wav", TARGET)
    save(tmp_path / "band" / "guitar.residual.wav", REST[:RATE])
    report = write_report(Fake(), find_items(tmp_path), tmp_path / "report")
    assert "different lengths" in rows_of(report)[0]["error"]
    save(tmp_path / "band" / "guitar.residual.wav", np.stack([REST, REST], 1))
    report = write_report(Fake(), find_items(tmp_path), tmp_path / "report", force=True)
    assert "different rates or channels" in rows_of(report)[0]["error"]


def test_two_systems_are_compared_by_their_means(tmp_path):
    for system, level in {"ours": 1.0, "theirs": 0.5}.items():
        for song in ("one", "two"):
            save(tmp_path / "sep" / system / song / "guitar.wav", level * TARGET)
    mixtures = [save(tmp_path / f"{song}.wav", TARGET + REST) for song in ("one", "two")]
    report = write_report(Fake(), find_items(tmp_path / "sep", mixtures), tmp_path / "report")
    page = Page(report.html)
    assert "Means by system" in page.text
    peak = 10 * np.abs(TARGET).max()
    assert re.search(rf"ours.*{peak:.2f}.*theirs.*{peak / 2:.2f}", page.text, re.DOTALL)
    # One mixture, one player, however many were cut from it.
    assert [attributes["aria-label"] for attributes in page.all("audio")].count("mixture") == 2


def test_nothing_is_replaced_unasked_and_nothing_half_written(tmp_path, monkeypatch):
    save_pair(tmp_path / "band")
    items = find_items(tmp_path)
    old = tmp_path / "report.html"
    old.write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        write_report(Fake(), items, tmp_path / "report")
    assert old.read_text() == "mine" and not (tmp_path / "report.csv").exists()

    def full(self, *args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match="No space left"):
        write_report(Fake(), items, tmp_path / "report", force=True)
    assert old.read_text() == "mine" and {path.name for path in tmp_path.iterdir()} == {"band", "report.html"}
    with pytest.raises(UserError, match="there is no folder"):
        write_report(Fake(), items, tmp_path / "none" / "report")


def test_curves_have_gaps_where_nothing_is_known_and_stay_in_the_drawing(tmp_path):
    save_pair(tmp_path / "band")
    page = Page(write_report(Fake(), find_items(tmp_path), tmp_path / "report").html)
    lines = [attributes for attributes in page.all("polyline") if attributes["class"] == "faithfulness"]
    assert [line["points"] for line in lines] == ["0.5,25 1.5,25 2.5,25", "4.1,0 4.9,0"]  # 4 of 1..5, gap, 7 is 5
    drawing = page.all("svg")[0]
    assert drawing["viewbox"] == "0 0 5 100" and drawing["aria-label"] == "Scores over time, guitar in band"
    assert "4.0" in page.text and "–" in page.text


def test_long_curves_are_thinned():
    from judge.report.curve import sampled

    values = sampled(Curve(torch.rand(25 * 3_600, 4), 0.04))
    assert values["step"] == 9.0 and len(values["overall"]) == 400


def test_a_tone_is_bright_where_it_sounds(tmp_path):
    from PIL import Image

    from judge.report.picture import BANDS, loudest, png_uri
    from peav.spectrogram import LOWEST, mel, spectrogram

    hz, time = 1_000.0, np.arange(2 * RATE) / RATE
    tone = 0.5 * np.sin(2 * np.pi * hz * time) * (time >= 1)
    panel = spectrogram(save(tmp_path / "a.wav", tone, subtype="FLOAT"), 600, BANDS)
    uri = png_uri(panel, loudest(panel))
    picture = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    level = np.array(picture)  # indices into the palette
    assert picture.size == (panel.power.shape[1], BANDS) and level.max() == 255
    row = BANDS - 1 - int(BANDS * (mel(hz) - mel(LOWEST)) / (mel(RATE / 2) - mel(LOWEST)))  # low is at the bottom
    column = 3 * picture.width // 4
    assert abs(int(level[:, column].argmax()) - row) <= 1
    assert level[:, : picture.width // 3].max() == 0
