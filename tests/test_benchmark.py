"""The benchmark: its list, its mixtures and its sums."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio, signal_noise_ratio
from torchmetrics.functional.classification import binary_auroc

from benchmarks import frame_level, reranking, separation
from benchmarks.conditions import CONDITIONS, PARAPHRASES, chosen, seen
from benchmarks.figures import Figures, Question, loss, peak_memory
from benchmarks.make_lists import lines_of
from benchmarks.mixtures import at_level
from benchmarks.separation import LIST, Answer, Item, auroc, measure, oracle, render, summary, unprocessed
from benchmarks.systems import folder, output_path
from peav.captions import overlap
from peav.clips import Clip, ClipStore
from peav.errors import UserError
from samaudio.metrics import sdr, si_sdr
from samaudio.result import Candidate, Quality, Result, Scores

RATE = 8_000
LINE = {
    "id": 3, "seconds": 1.0, "absent": "rain",
    "stems": [
        {"label": "flute", "events": [{"path": "low.wav", "from": 0.1, "at": 0.0, "length": 0.4, "gain": 1.0},
                                      {"path": "low.wav", "from": 0.0, "at": 0.5, "length": 0.3, "gain": 2.0}]},
        {"label": "dog barking", "events": [{"path": "high.wav", "from": 0.0, "at": 0.25, "length": 9.0, "gain": 5.0}]},
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    """A pool of two tones of one second; one is stored at another rate."""
    folder = tmp_path_factory.mktemp("tones")
    for name, frequency, rate in (("low", 200, RATE), ("high", 1_500, 2 * RATE)):
        wave = 0.2 * np.sin(2 * np.pi * frequency * np.arange(rate) / rate)
        soundfile.write(folder / f"{name}.wav", wave, rate)
    return folder


@pytest.fixture(scope="module")
def item(tones) -> Item:
    return render(LINE, tones, RATE, {})


def test_stems_have_equal_energy_and_the_mixture_half_the_full_scale(item):
    assert item.stems.shape == (2, RATE) and item.labels == ["flute", "dog barking"] and item.absent == "rain"
    first, second = item.stems.square().sum(1).tolist()
    assert first == pytest.approx(second, rel=1e-5)
    assert float(item.mixture.abs().max()) == pytest.approx(0.5)


def test_events_are_where_the_list_says(item):
    low, high = item.stems
    assert low[3_200:4_000].abs().max() == 0 and low[6_400:].abs().max() == 0
    assert high[:2_000].abs().max() == 0 and high[-100:].abs().max() > 0.01
    before, after = low[500:2_500].square().mean(), low[4_500:6_000].square().mean()
    assert float(after / before) == pytest.approx(4, rel=0.02)  # twice the gain
    spectrum = torch.fft.rfft(high).abs()
    assert int(spectrum.argmax()) == 1_500  # Hz, in one second


def test_each_file_is_read_once(tones):
    cache: dict = {}
    render(LINE, tones, RATE, cache)
    assert set(cache) == {"low.wav", "high.wav"}
    cache["low.wav"] = torch.ones(RATE)
    assert float(render(LINE, tones, RATE, cache).stems[0].min()) == 0


@pytest.mark.parametrize(
    ("positive", "negative", "wanted"),
    [([3, 4], [1, 2], 1.0), ([1, 2], [3, 4], 0.0), ([1, 1], [1, 1], 0.5), ([1, 3], [2, 2], 0.5),
     ([2, 3], [1, 2], 0.875), ([0.9], [0.1, 0.95, 0.5], 2 / 3)],
    ids=["apart", "swapped", "all_tied", "around", "one_tie", "uneven"],
)  # fmt: skip
def test_auroc_by_hand_and_by_torchmetrics(positive, negative, wanted):
    assert auroc(positive, negative) == pytest.approx(wanted)
    scores, truth = torch.tensor([*positive, *negative]), torch.tensor([1] * len(positive) + [0] * len(negative))
    assert float(binary_auroc(scores / 10, truth)) == pytest.approx(wanted)


def test_the_mixture_itself_gains_nothing_and_says_nothing_of_presence(item):
    result = summary(measure(unprocessed, [item, item], RATE), threshold=0.5)
    for name in ("si_sdri_mean", "si_sdri_median", "sdri_mean", "sdri_median", "other_prompt_mean",
                 "absent_prompt_mean", "absent_level_median"):  # fmt: skip
        assert result[name] == pytest.approx(0, abs=1e-5), name
    assert (result["mixtures"], result["items"]) == (2, 4)
    assert result["worse_than_mixture"] == result["sdr_worse_than_mixture"] == 0
    assert not {"presence_auroc", "false_alarms", "misses", "real_time_factor"} & set(result)


def test_the_ceiling_is_high_and_a_wrong_prompt_is_not(item):
    result = summary(measure(oracle, [item], RATE))
    assert result["si_sdri_mean"] > 20 and result["sdri_mean"] > 20 and result["other_prompt_mean"] < -10
    assert result["absent_level_median"] < -40
    assert {k: v["items"] for k, v in result["scenes"].items()} == {"everyday": 1, "music": 1}
    assert set(result["labels"]) == {"flute", "dog barking"}


def test_presence_and_speed_are_counted(item):
    def system(item, prompts, rate):
        return Answer([item.mixture] * 3, [0.9, 0.3, 0.7], seconds=0.5)

    result = summary(measure(system, [item], RATE), threshold=0.5)
    # There: 0.9 and 0.3; not there: 0.7.
    assert (result["misses"], result["false_alarms"], result["presence_auroc"]) == (0.5, 1.0, 0.5)
    assert result["real_time_factor"] == pytest.approx(3 * 1.0 / 0.5)
    result = summary(measure(system, [at_level(item, 1, 0.0)], RATE), threshold=0.5)
    assert (result["items"], result["misses"], result["presence_auroc"]) == (1, 1.0, 0.0)  # the flute is no target


def test_improvements_are_those_of_torchmetrics(item):
    noise = 0.02 * torch.randn(3, RATE, generator=torch.Generator().manual_seed(0))
    three = replace(item, labels=["flute", "dog barking", "person speaking"], targets=(),
                    stems=torch.cat((item.stems, 3 * noise[:1])))  # fmt: skip
    outputs = [three.stems[0] + 0.3 * three.stems[1] + noise[1], -0.5 * three.stems[1] + noise[2],
               noise[0] + noise[2]]  # fmt: skip

    found = measure(lambda *_: Answer([*outputs, noise[1]]), [three], RATE)
    mixture = three.mixture
    for question, output, stem in zip(found.questions, outputs, three.stems, strict=True):
        for name, metric in (("si_sdri", scale_invariant_signal_distortion_ratio), ("sdri", signal_noise_ratio)):
            wanted = float(metric(output, stem) - metric(mixture, stem))
            assert getattr(question, name) == pytest.approx(wanted, abs=1e-3), (name, question.label)
    assert len(found.other) == 6 and len(found.absent) == 3  # each source by two other prompts and by the absent one
    metric = scale_invariant_signal_distortion_ratio
    assert found.other[2] == pytest.approx(float(metric(outputs[0], three.stems[1]) - metric(mixture, three.stems[1])),
                                           abs=1e-3)  # fmt: skip


def test_means_medians_and_shares_by_hand():
    figures = Figures(1, [Question("0", i, label, gain, plain) for i, (label, gain, plain) in enumerate(
        [("flute", 1.0, 0.0), ("flute", 2.0, -1.0), ("rain", -6.0, -2.0), ("flute", 7.0, 3.0)])],
        other=[-3.0], absent=[-9.0], absent_level=[-20.0])  # fmt: skip
    result = summary(figures)
    assert (result["si_sdri_mean"], result["si_sdri_median"], result["worse_than_mixture"]) == (1.0, 1.5, 0.25)
    assert (result["sdri_mean"], result["sdri_median"], result["sdr_worse_than_mixture"]) == (0.0, -0.5, 0.5)
    assert result["labels"]["flute"]["si_sdri_median"] == 2.0 and result["labels"]["rain"]["worse_than_mixture"] == 1
    assert result["scenes"]["music"]["si_sdri_mean"] == pytest.approx(10 / 3)


def test_a_loss_is_counted_on_the_questions_that_both_were_asked():
    def asked(*gains):
        return Figures(questions=[Question(str(i // 2), i % 2, "flute", gain, 0.0) for i, gain in enumerate(gains)])

    assert loss(asked(1.0, 5.0, 2.0), asked(4.0, 4.0, 6.0, 99.0)) == {"items": 3, "mean": 2.0, "median": 3.0}
    assert loss(asked(1.0), Figures()) is None


def test_peak_memory_is_that_of_this_process():
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    assert peak_memory() == pytest.approx(int(status["VmHWM"].split()[0]) / 1024, rel=0.02)


# --- conditions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("db", [-5.0, 5.0])
@pytest.mark.parametrize("target", [0, 1])
def test_levels_are_those_of_the_target_against_the_rest(item, target, db):
    found = at_level(item, target, db)
    wanted, rest = found.stems[target], found.stems[1 - target]
    assert float(10 * (wanted.square().sum() / rest.square().sum()).log10()) == pytest.approx(db, abs=1e-4)
    assert float(found.mixture.abs().max()) == pytest.approx(0.5)
    assert list(found.targets) == [target] and found.name == f"3-{target + 1}"
    assert float(si_sdr(wanted, item.stems[target])) > 60  # the same sound
    assert found.prompts == ["flute", "dog barking", "rain"]


def test_one_of_three_equal_sources_is_three_decibels_below_the_others():
    stems = torch.eye(3).repeat_interleave(10, dim=1)  # never at once
    item = Item(0, ["flute", "rain", "gong"], "banjo", stems)
    assert float(sdr(item.mixture, stems[1])) == pytest.approx(-10 * math.log10(2), abs=1e-3)
    assert list(item.targets) == [0, 1, 2] and item.name == "0"


def test_conditions_are_chosen_by_name():
    assert [condition.name for condition in chosen(None, None)] == list(CONDITIONS)
    assert {name: condition.count for name, condition in CONDITIONS.items()} == {
        "two_sources_0db": 400, "two_sources_minus_5db": 100, "two_sources_plus_5db": 100, "three_sources": 200,
        "paraphrases": 200}  # fmt: skip
    one, other = chosen(["three_sources", "two_sources_0db", "three_sources"], 7)  # in the order of the table
    assert (one.name, one.count, other.name, other.count) == ("two_sources_0db", 7, "three_sources", 7)
    assert chosen(["three_sources"], 1_000)[0].count == 200
    with pytest.raises(UserError, match="'four' is unknown; choose among two_sources_0db"):
        chosen(["four"], None)
    with pytest.raises(UserError, match="--limit 0"):
        chosen(None, 0)


def test_every_label_has_a_wording_of_its_own_that_training_never_used():
    wordings = json.loads(PARAPHRASES.read_text())
    labels = {label for path in {condition.list for condition in CONDITIONS.values()}
              for line in map(json.loads, path.read_text().splitlines())
              for label in (line["absent"], *(stem["label"] for stem in line["stems"]))}  # fmt: skip
    assert labels == set(wordings) and len(set(wordings.values())) == len(wordings)
    assert seen(wordings.values()) == []


def test_wordings_of_training_are_recognised():
    clip = Clip(Path("a.wav"), "nose flute", ("Blown through the nose",), "a", "train", 1.0)
    known = ["someone talking", "The violin!", "a fiddle sound", "birdsong", "blown through the nose", "a nose flute"]
    assert seen([*known, "somebody chatting"], [clip]) == known
    assert seen(known[-2:]) == []


@pytest.mark.parametrize("condition", CONDITIONS.values(), ids=CONDITIONS)
def test_the_shipped_lists_are_sound(condition):
    lines = [json.loads(line) for line in condition.list.read_text().splitlines()]
    assert [line["id"] for line in lines] == list(range(len(lines))) and len(lines) >= condition.count
    sources = 3 if condition.name == "three_sources" else 2
    for line in lines:
        labels = [stem["label"] for stem in line["stems"]]
        assert len(labels) == sources
        assert not any(overlap(a, b) for a, b in itertools.combinations([*labels, line["absent"]], 2))
        for event in (event for stem in line["stems"] for event in stem["events"]):
            assert event["at"] >= 0 and event["at"] + event["length"] <= line["seconds"] + 1e-3
            assert event["from"] >= 0 and event["length"] > 0 and math.isfinite(event["gain"]) and event["gain"] > 0
            assert not event["path"].startswith(("/", ".."))


def test_published_figures_keep_their_list():
    digest = hashlib.sha256(LIST.read_bytes()).hexdigest()
    assert digest == "c610e24aeeb65abe71c8c7242e244856a51476450a4280488b85fbc317f6a968"


def test_a_list_is_fixed_by_its_seed(pool, tmp_path):
    store = ClipStore([pool], RATE, tmp_path, "valid", progress=False)
    lines = lines_of(store, pool.parent, 3, 6)
    assert lines == lines_of(store, pool.parent, 3, 8)[:6] and lines[0] != lines[1]
    for line in lines:
        assert len(line["stems"]) == 3 and all(re.fullmatch(r"[\w-]+-3\.wav", event["path"])  # validation alone
                                               for stem in line["stems"] for event in stem["events"])  # fmt: skip


# --- from end to end ------------------------------------------------------------------------------


@pytest.fixture
def toy(tones, tmp_path, monkeypatch) -> Path:
    """A manifest of the two tones and small lists that name them, in place of the shipped ones."""
    lines = [LINE | {"id": i} for i in (0, 1, 2)]
    (tmp_path / "two.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    third = {"label": "gong", "events": [{"path": "low.wav", "from": 0.0, "at": 0.2, "length": 0.1, "gain": 1.0}]}
    (tmp_path / "three.jsonl").write_text(json.dumps(LINE | {"stems": [*LINE["stems"], third]}) + "\n")
    for name, condition in CONDITIONS.items():
        path = tmp_path / ("three.jsonl" if name == "three_sources" else "two.jsonl")
        monkeypatch.setitem(CONDITIONS, name, replace(condition, list=path))
    clips = [{"path": f"{name}.wav", "label": name, "captions": [f"a {name} tone"], "group": name, "split": "valid",
              "seconds": 1.0} for name in ("low", "high")]  # fmt: skip
    (tones / "manifest.jsonl").write_text("".join(json.dumps(clip) + "\n" for clip in clips))
    return tones / "manifest.jsonl"


def benchmark(manifest: Path, *options: str | Path, rate: int = RATE) -> None:
    separation.main([str(manifest), "--rate", str(rate), *map(str, options)])


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_all_conditions_make_one_json_and_one_page(toy, tmp_path, capsys):
    benchmark(toy, "--system", "oracle", "--out", tmp_path / "out")
    benchmark(toy, "--system", "mixture", "--out", tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["mixture.json", "mixture.md", "oracle.json",
                                                                    "oracle.md"]  # fmt: skip
    best, floor = read(tmp_path / "out" / "oracle.json"), read(tmp_path / "out" / "mixture.json")
    assert list(best["conditions"]) == list(floor["conditions"]) == list(CONDITIONS)
    counts = {name: (found["mixtures"], found["items"]) for name, found in best["conditions"].items()}
    assert counts == {"two_sources_0db": (3, 6), "two_sources_minus_5db": (6, 6), "two_sources_plus_5db": (6, 6),
                      "three_sources": (1, 3), "paraphrases": (3, 6)}  # fmt: skip
    for name in CONDITIONS:
        assert floor["conditions"][name]["si_sdri_mean"] == pytest.approx(0, abs=1e-5), name
        assert best["conditions"][name]["si_sdri_mean"] > 15, name
    # The less there is of a sound, the more can be gained.
    gains = [best["conditions"][f"two_sources_{level}"]["si_sdri_mean"] for level in ("minus_5db", "0db", "plus_5db")]
    assert gains == sorted(gains, reverse=True)
    # The oracle understands any wording.
    assert best["conditions"]["paraphrases"]["loss"] == pytest.approx({"items": 6, "mean": 0.0, "median": 0.0})
    page = (tmp_path / "out" / "oracle.md").read_text()
    assert page in capsys.readouterr().out and "presence, AUROC" not in page and "Speed" not in page
    mean = best["conditions"]["three_sources"]["si_sdri_mean"]
    assert f"| three sources, equal energy | 3 | {mean:.2f} |" in page
    assert "the same 6 questions lose 0.00 dB" in page and "| dog barking | 3 |" in page and "| everyday | 3 |" in page


def test_paraphrases_alone_have_no_loss(toy, tmp_path):
    benchmark(toy, "--system", "oracle", "--condition", "paraphrases", "--limit", "1", "--out", tmp_path / "out")
    result = read(tmp_path / "out" / "oracle.json")["conditions"]
    assert list(result) == ["paraphrases"] and "loss" not in result["paraphrases"]
    assert result["paraphrases"]["items"] == 2


def test_a_wording_that_the_pool_uses_is_refused(toy, capsys):
    line = toy.read_text().splitlines()[0].replace("a low tone", "A hound barking.")
    toy.write_text(line + "\n")
    with pytest.raises(SystemExit) as left:
        benchmark(toy, "--system", "oracle")
    assert left.value.code == 2 and "'a hound barking' was used in training" in capsys.readouterr().err


def test_presence_speed_and_memory_are_on_the_page_of_a_separator(toy, tmp_path, monkeypatch):
    def half(item, prompts, rate):  # knows what is there, halves it
        targets = [0.5 * item.mixture for _ in prompts]
        return Answer(targets, [0.4 + 0.2 * (p in item.asked) for p in prompts], seconds=0.1)

    monkeypatch.setattr(separation, "ours", lambda model, device: (half, 0.3))
    benchmark(toy, "--limit", "1", "--out", tmp_path, "--name", "half")
    result = read(tmp_path / "half.json")
    main = result["conditions"]["two_sources_0db"]
    assert main["si_sdri_mean"] == pytest.approx(0, abs=1e-4)  # a gain changes nothing for the one,
    assert main["sdri_mean"] == pytest.approx(10 * math.log10(2), abs=0.05)  # |s/2|^2 + |r/2|^2 = |r|^2 / 2, the other
    assert main["absent_level_median"] == pytest.approx(-20 * math.log10(2), abs=1e-3)
    assert (main["presence_auroc"], main["false_alarms"], main["misses"]) == (1.0, 1.0, 0.0)
    assert result["real_time_factor"] == pytest.approx((3 + 2 * 6 + 4 + 3) / (7 * 0.1))
    assert result["peak_memory_mib"] == pytest.approx(peak_memory(), rel=0.1)
    page = (tmp_path / "half.md").read_text()
    assert "threshold of presence is 0.30" in page and "| two sources, 0 dB | 1.000 | 100.0 % | 0.0 % |" in page
    assert "times real time per prompt. Peak memory of the process" in page


def test_another_tool_is_measured_by_its_files(toy, tmp_path):
    mixtures, outputs = tmp_path / "mixtures", tmp_path / "outputs"
    benchmark(toy, "--write-mixtures", mixtures, "--limit", "2", rate=2 * RATE)
    lines = [json.loads(line) for line in (mixtures / "prompts.jsonl").read_text().splitlines()]
    assert len(lines) == 2 + 4 + 4 + 1 + 2
    assert lines[0] == {"condition": "two_sources_0db", "item": "0", "mixture": "two_sources_0db/0.wav",
                        "outputs": {p: f"two_sources_0db/0/{p}.wav" for p in ("flute", "dog barking", "rain")}}
    assert lines[3]["mixture"] == "two_sources_minus_5db/0-2.wav" and "a hound barking" in lines[-1]["outputs"]
    # The "tool" keeps what lies below or above 800 Hz, at another rate than it will be measured at, in stereo.
    for line in lines:
        samples, rate = soundfile.read(mixtures / line["mixture"])
        assert (len(samples), rate) == (2 * RATE, 2 * RATE)
        spectrum = np.fft.rfft(samples)
        low, high = spectrum.copy(), spectrum.copy()
        low[800:], high[:800] = 0, 0
        for prompt, path in line["outputs"].items():
            kept = np.fft.irfft(low if "flute" in prompt else high if "bark" in prompt else 0 * low)
            (outputs / path).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(outputs / path, np.stack((kept, kept), 1), rate, subtype="FLOAT")
    options = ("--system", "folder", "--outputs", outputs, "--name", "filter", "--out", tmp_path, "--limit", "2")
    benchmark(toy, *options, "--condition", "two_sources_0db", "--condition", "two_sources_plus_5db", "--condition",
              "paraphrases")  # fmt: skip
    result = read(tmp_path / "filter.json")
    for found in result["conditions"].values():
        assert found["si_sdri_mean"] > 10 and found["other_prompt_mean"] < -10 and "presence_auroc" not in found
        assert found["absent_level_median"] == -80.0  # silence
    assert result["conditions"]["paraphrases"]["loss"]["mean"] == pytest.approx(0, abs=1e-3)
    assert "peak_memory_mib" not in result and "real_time_factor" not in result


def test_finished_outputs_must_be_there_and_as_long(item, tmp_path):
    separate = folder(tmp_path, "main")
    place = tmp_path / "main" / "3"
    place.mkdir(parents=True)
    with pytest.raises(UserError, match="flute.wav"):
        separate(item, ["flute"], RATE)
    for seconds, fits in ((0.98, True), (1.02, True), (0.9, False), (1.1, False)):
        soundfile.write(place / "flute.wav", np.full(round(seconds * RATE), 0.25), RATE)
        if fits:
            assert separate(item, ["flute"], RATE).targets[0].shape == (RATE,)
        else:
            with pytest.raises(UserError, match=f"lasts {seconds:.2f} s and its mixture 1.00 s"):
                separate(item, ["flute"], RATE)
    assert str(output_path("main", item, "AC/DC: live?")) == "main/3/AC_DC_ live_.wav"


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--condition", "four"], "condition 'four' is unknown"), (["--limit", "0"], "--limit 0"),
     (["--system", "folder"], "--outputs FOLDER belong together"), (["--outputs", "."], "belong together"),
     (["--system", "folder", "--outputs", "nowhere"], "nowhere: no such folder")],
    ids=["condition", "limit", "no_outputs", "outputs_of_ours", "no_folder"],
)  # fmt: skip
def test_what_cannot_be_asked_is_said_in_one_line(toy, options, message, capsys):
    with pytest.raises(SystemExit) as left:
        benchmark(toy, *options)
    told = capsys.readouterr().err
    assert left.value.code == 2 and message in told and told.count("\n") == 1


def test_a_missing_pool_and_taken_places_are_refused(toy, tmp_path, capsys):
    def refused(*options):
        with pytest.raises(SystemExit) as left:
            benchmark(*options)
        assert left.value.code == 2
        return capsys.readouterr().err.splitlines()[-1]

    assert "none.jsonl does not exist" in refused(tmp_path / "none.jsonl", "--system", "oracle")
    benchmark(toy, "--write-mixtures", tmp_path / "m", "--limit", "1", "--condition", "three_sources")
    assert "prompts.jsonl: exists already" in refused(toy, "--write-mixtures", tmp_path / "m")


# --- choosing among candidates --------------------------------------------------------------------


def case(item: int, truth: list[float], **measures: list[float]) -> reranking.Case:
    known = {name: [0.0] * len(truth) for name in reranking.MEASURES} | measures
    return reranking.Case(item, truth, known)


def test_a_choice_is_worth_its_share_of_what_an_oracle_gains():
    cases = [case(0, [0.0, 4.0], overall=[1.0, 2.0]), case(1, [6.0, 0.0], overall=[1.0, 2.0]),
             case(2, [1.0, 3.0], overall=[3.0, 3.5])]  # fmt: skip
    found = reranking.choose(cases, {"overall": 1.0})
    assert found.gain == pytest.approx((2 - 3 + 1) / 3) and found.share == pytest.approx((2 - 3 + 1) / (2 + 3 + 1))
    turned = reranking.choose(cases, {"overall": -1.0})
    assert turned.gain == pytest.approx(-found.gain)


def test_the_search_finds_the_measure_that_tells():
    rng = np.random.default_rng(0)
    cases = []
    for item in range(40):
        truth = rng.normal(size=4)
        noise = rng.normal(size=4)
        cases.append(case(item, truth.tolist(), recall=(truth + 0.1 * noise).tolist(), confidence=noise.tolist()))
    found = reranking.summary(cases)
    assert found["searched_weights"]["recall"] > found["searched_weights"]["confidence"]
    shares = {name: choice["share"] for name, choice in found["choices"].items()}
    assert shares["oracle"] == pytest.approx(1.0) and shares["searched"] > 0.9
    assert shares["overall"] == shares["first"]  # says nothing, so the first of equals is taken
    assert "| oracle |" in reranking.markdown(found) and "100 %" in reranking.markdown(found)


def test_candidates_are_measured_against_their_stem(item):
    class Separator:
        model = type("Model", (), {"hypotheses": 2})

        def separate_many(self, mixture, prompts, *, sample_rate, candidates):
            assert candidates == 2 and prompts == item.labels
            return [Result(stem[None], mixture - stem, sample_rate, Scores(0.0, 1.0, 0.5), [], True, prompt,
                           [Candidate(0.0, 0.3, 0.5, Quality(3.0), target=mixture),
                            Candidate(0.0, 0.4, 0.5, Quality(4.0), target=stem[None] + 0.01 * mixture)], 0)
                    for prompt, stem in zip(prompts, item.stems, strict=True)]  # fmt: skip

    found = reranking.cases_of(Separator(), item, RATE)
    assert [len(c.si_sdr) for c in found] == [2, 2]
    for one in found:
        assert one.si_sdr[0] == pytest.approx(0.0, abs=1.0) and one.si_sdr[1] > 30
        assert one.measures["overall"] == [3.0, 4.0] and one.measures["similarity"] == [0.3, 0.4]


# --- when a sound is heard ------------------------------------------------------------------------


def heard(active: list[int], sure: float = 4.0, shift: int = 0) -> frame_level.Answer:
    """A model that is right, perhaps late by some frames; -1 where nothing can be said."""
    truth = np.array(active)
    return frame_level.Answer(np.roll(np.where(truth == 1, sure, -sure), shift), truth)


class Frames:
    frame_seconds = 0.04


def test_frames_that_are_right_score_full_marks_and_silence_has_no_spans():
    answers = [heard([0] * 20 + [1] * 30 + [0] * 10), heard([-1] * 5 + [1] * 25 + [0] * 30), heard([0] * 60)]
    found = frame_level.measure(Frames(), answers, answers)
    assert found["frame_auroc"] == found["span_f1"] == found["absent_without_a_span"] == 1.0
    assert found["starts_within_0.2_s"] == 1.0 and found["start_error_median_s"] < 0.2
    assert "| frame AUROC | 1.000 |" in frame_level.markdown(found)


def test_spans_that_come_late_are_counted_as_such():
    late = [heard([0] * 20 + [1] * 30 + [0] * 40, shift=10)]
    found = frame_level.measure(Frames(), late, late)
    assert found["span_f1"] == 0.0 and found["start_error_median_s"] == pytest.approx(0.4)
    assert 0.3 < found["frame_auroc"] < 0.95


def test_short_gaps_are_closed_in_truth_and_prediction():
    answer = heard([0] * 10 + [1] * 10 + [0] * 5 + [1] * 10 + [0] * 20 + [1] * 10 + [0] * 5)
    assert frame_level.true_spans(answer, 0.04) == frame_level.spans_of(answer, 0.5, 0.04)
    assert [round(end - start, 2) for start, end in frame_level.true_spans(answer, 0.04)] == [1.0, 0.4]
