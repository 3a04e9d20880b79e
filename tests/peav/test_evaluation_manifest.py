"""Manifests, the public sets and the conversion of their own metadata, on tiny copies in their own formats."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from peav.errors import UserError
from peav.evaluation import converters, manifest, published, sets
from peav.evaluation.folder import Folder
from peav.evaluation.manifest import Event, Item

CONFIGS = Path(__file__).parents[2] / "configs" / "evaluation"
PUBLIC = {
    "activitynet", "audiocaps", "clotho", "desed", "kinetics400", "urbansed", "valor", "vctk", "vggsound",
}  # fmt: skip


def lines(path: Path, *rows: dict | str) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def put(folder: Path, **files: str) -> Folder:
    """A folder with these files; "/" in a name makes folders, names of media are empty files."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Folder(folder)


# -- the manifest -------------------------------------------------------------------------------------------------


def test_every_field_is_read(tmp_path):
    path = lines(
        tmp_path / "m.jsonl",
        {"path": "a.mp4", "caption": " a dog ", "label": "dog", "start": 1, "end": 3.5, "split": "test", "id": "x"},
        "",
        {"audio": "b.wav", "video": "c.mp4", "captions": ["one", "two", "one"], "labels": ["dog", "cat"],
         "events": [{"label": "dog", "start": 0, "end": 1.5}], "license": "CC0"},
    )  # fmt: skip
    first, second = manifest.read(path)
    film = tmp_path / "a.mp4"
    assert first == Item("x", film, film, ("a dog",), ("dog",), None, 1.0, 3.5, "test")
    assert second.audio == tmp_path / "b.wav" and second.video == tmp_path / "c.mp4" and second.id == "b.wav"
    assert second.captions == ("one", "two") and second.labels == ("dog", "cat") and second.start == 0
    assert second.events == (Event("dog", 0.0, 1.5),)


def test_a_sound_file_has_no_pictures_and_a_split_is_kept_apart(tmp_path):
    path = lines(tmp_path / "m.jsonl", {"path": "a.WAV", "split": "train"}, {"path": "b.MKV", "split": "valid"})
    assert [item.video for item in manifest.read(path)] == [None, tmp_path / "b.MKV"]
    assert [item.id for item in manifest.read(path, "valid")] == ["b.MKV"]
    with pytest.raises(UserError, match="no item of split 'test'; its splits are: train, valid"):
        manifest.read(path, "test")


def test_captions_may_be_of_sound_or_sight(tmp_path):
    captions = {"audio": ["a bark"], "video": ["a dog", "a big dog"], "audio_video": []}
    row = {"audio": "a.wav", "video": "a.mp4", "captions": captions, "start": 1, "seconds": 2}
    (item,) = manifest.read(lines(tmp_path / "m.jsonl", row))
    assert item.texts("audio") == ("a bark",) and len(item.texts("video")) == 2 and item.texts("audio_video") == ()
    assert (item.start, item.end) == (1.0, 3.0)
    manifest.write([item], tmp_path / "again.jsonl")
    assert manifest.read(tmp_path / "again.jsonl") == [item]
    assert Item("x", captions=("both",)).texts("audio") == Item("x", captions=("both",)).texts("video") == ("both",)
    with pytest.raises(UserError, match="has captions of 'music'; give those of audio, video, audio_video"):
        manifest.read(lines(tmp_path / "m.jsonl", {"audio": "a.wav", "captions": {"music": ["x"]}}))


def test_the_training_manifest_is_one_of_these(pool):
    items = manifest.read(pool, "valid")
    assert len(items) == 9 and items[0].labels == ("violin",) and items[0].captions == ("one violin", "a nice violin")
    assert manifest.present(items) == items


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", r"m.jsonl:1 is not JSON"),
        ("[]", "m.jsonl:1 is no object"),
        ({"label": "dog"}, "m.jsonl:1 names no file"),
        ({"path": 3}, "field 'path' is 3"),
        ({"path": "a.wav", "captions": "dog"}, "field 'captions' is 'dog'; give a list of texts"),
        ({"path": "a.wav", "label": " "}, "field 'label'"),
        ({"path": "a.wav", "start": "soon"}, "field 'start' is 'soon'; give seconds"),
        ({"path": "a.wav", "start": 3, "end": 2}, "ends at 2 s, before it starts at 3 s"),
        ({"path": "a.wav", "events": [{"label": "dog", "start": 2, "end": 1}]}, "give label, start and a later end"),
        ({"path": "a.wav", "events": {"dog": 1}}, "field 'events'"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path, row, message):
    with pytest.raises(UserError, match=message):
        manifest.read(lines(tmp_path / "m.jsonl", row))


def test_there_has_to_be_a_manifest_and_something_in_it(tmp_path):
    with pytest.raises(UserError, match="no such manifest"):
        manifest.read(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="is empty"):
        manifest.read(lines(tmp_path / "m.jsonl", ""))
    (tmp_path / "m.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="cannot be read"):
        manifest.read(tmp_path / "m.jsonl")


def test_what_is_written_is_read_again(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    items = [
        Item("a", tmp_path / "a.mp4", tmp_path / "a.mp4", ("x",), ("y",), (), 1.0, 2.0, "test"),
        Item("b", tmp_path / "b.wav", tmp_path / "c.mp4", events=(Event("dog", 0.5, 1.0),)),
        Item("c", tmp_path / "a.mp4"),  # the sound of a film alone
        Item("d", tmp_path.parent / "far.wav"),
    ]
    manifest.write(items, tmp_path / "m.jsonl")
    assert manifest.read(tmp_path / "m.jsonl") == items
    text = (tmp_path / "m.jsonl").read_text()
    assert '"b.wav"' in text and str(tmp_path / "b.wav") not in text  # the folder may be moved


def test_missing_files_are_counted_and_may_be_left_out(tmp_path):
    (tmp_path / "a.wav").touch()
    items = [Item(name, tmp_path / f"{name}.wav") for name in "abc"]
    with pytest.raises(UserError, match="2 of 3 items have no file, such as .*b.wav; fetch them, or give --allow-miss"):
        manifest.present(items)
    assert manifest.present(items, allow_missing=True) == items[:1]
    with pytest.raises(UserError, match="2 of 2 items have no file.*check the folder"):
        manifest.present(items[1:], allow_missing=True)


def test_a_limit_takes_items_from_everywhere():
    items = [Item(str(i)) for i in range(10)]
    assert [item.id for item in manifest.thin(items, 4)] == ["0", "2", "5", "7"]
    assert manifest.thin(items, None) == manifest.thin(items, 99) == items
    with pytest.raises(UserError, match="give 1 or more"):
        manifest.thin(items, 0)


# -- the sets -----------------------------------------------------------------------------------------------------


def test_the_public_sets_are_known():
    assert set(sets.known_sets()) == PUBLIC == {path.stem for path in CONFIGS.glob("*.yaml")}
    with pytest.raises(UserError, match="no set called 'audiocap' is known; choose activitynet, audiocaps, "):
        sets.load_set("audiocap")


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_a_set_says_all_that_a_user_needs(name):
    what = sets.load_set(name)
    assert what.title and what.licence and what.where and what.split and what.tasks
    assert what.format in converters.FORMATS
    assert bool(what.directions) == ("retrieval" in what.tasks)
    head = (CONFIGS / f"{name}.yaml").read_text().splitlines()
    assert head[0].startswith("# ") and head[1] == f"# peav evaluate --set {name} --data FOLDER"


def test_every_published_figure_is_of_something_that_a_set_measures():
    for measured, figures in published.FIGURES.items():
        what = sets.load_set(measured.set)
        assert measured.task in what.tasks
        names = {"retrieval": what.directions, "classification": what.inputs, "frames": ("all classes",)}
        assert measured.name in names[measured.task]
        assert figures and all(0 < one.value < 1 and one.source for one in figures)
        assert len({one.model for one in figures}) == len(figures)
        assert all(published.variant_of(one.model) == one.model for one in figures)


def test_published_figures_are_those_of_their_tables():
    def value(*measured, model):
        (one,) = published.published(*measured, model)
        return one.value

    assert value("audiocaps", "retrieval", "text->audio", "R@1", model="pe-av-large") == 0.458
    assert value("valor", "retrieval", "text->video", "R@1", model="pe-av-base-16-frame") == 0.70
    assert value("vggsound", "retrieval", "video->audio", "R@1", model="pe-av-small") == 0.354
    assert value("desed", "frames", "all classes", "AUROC", model="pe-a-frame-base") == 0.98
    assert len(published.published("clotho", "retrieval", "text->audio", "R@1")) == 6
    assert published.published("clotho", "retrieval", "audio->text", "R@1") == []


@pytest.mark.parametrize(
    ("model", "variant"),
    [
        ("facebook/pe-av-small", "pe-av-small"),
        ("/models/pe-av-base-16-frame/", "pe-av-base-16-frame"),
        ("pe-a-frame-large", "pe-a-frame-large"),
        ("runs/pe-av-small-mine", None),
        ("facebook/pe-av-tiny", None),
        (None, None),
    ],
)
def test_a_published_model_is_known_by_its_name(model, variant):
    assert published.variant_of(model) == variant


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"titel": "x"}, "unknown fields"),
        ({"tasks": ["retreival"]}, "tasks .*unknown"),
        ({"directions": ["audio->audio"]}, "directions .*unknown"),
        ({"match": "class"}, "match 'class' unknown"),
        ({"templates": ["a dog"]}, "no single {}"),
    ],
)
def test_a_misspelt_set_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        sets.from_dict("mine", values)


def test_class_names_become_texts():
    what = sets.from_dict("mine", {"labels": {"Dog": "dog barking"}, "templates": ["{}", "the sound of {}"]})
    assert what.prompts("Dog") == ["dog barking", "the sound of dog barking"]
    assert what.words("gun_shot") == "gun shot"


# -- their own metadata -------------------------------------------------------------------------------------------


def items_of(name: str, folder: Folder, split: str | None = None) -> dict[str, Item]:
    return {item.id: item for item in converters.items_of(sets.load_set(name), folder, split)}


def test_audiocaps(tmp_path):
    table = (
        "audiocap_id,youtube_id,start_time,caption\n103549,7fmOlUlwoNg,20,constant rattling\n"
        '103542,VjSEIRnLAh8,30,"food is frying, and a woman talks"\n103550,7fmOlUlwoNg,20,sharp vibrations\n'
    )
    folder = put(tmp_path, **{"dataset/test.csv": table, "a/7fmOlUlwoNg_20.wav": "", "v/Y7fmOlUlwoNg.mp4": ""})
    items = items_of("audiocaps", folder)
    first, second = items["7fmOlUlwoNg_20"], items["VjSEIRnLAh8_30"]
    assert first.captions == ("constant rattling", "sharp vibrations")
    assert first.audio == tmp_path / "a/7fmOlUlwoNg_20.wav" and first.video == tmp_path / "v/Y7fmOlUlwoNg.mp4"
    assert second.captions == ("food is frying, and a woman talks",) and second.video is None
    with pytest.raises(UserError, match="1 of 2 items have no file, such as .*VjSEIRnLAh8_30.wav"):
        manifest.present(list(items.values()))


def test_clotho(tmp_path):
    table = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\nSanta Motor.wav,a,b,c,d,e\nx.wav,a,b,c,d,\n"
    folder = put(tmp_path, **{"clotho_captions_evaluation.csv": table, "evaluation/Santa Motor.wav": ""})
    items = items_of("clotho", folder)
    assert items["Santa Motor.wav"].captions == ("a", "b", "c", "d", "e")
    assert items["Santa Motor.wav"].audio == tmp_path / "evaluation/Santa Motor.wav"
    assert items["x.wav"].captions == ("a", "b", "c", "d")


def test_valor(tmp_path):
    rows = [{"video_id": "x-2A_bohj8VY_30.000_40.000", "desc": "with the rumble of an engine, a car drives by"}]
    folder = put(tmp_path, **{"desc_test.json": json.dumps(rows), "videos/x-2A_bohj8VY_30.000_40.000.mp4": ""})
    (item,) = items_of("valor", folder).values()
    assert item.captions == (rows[0]["desc"],) and item.audio == item.video == folder.files[-1]


def test_vggsound(tmp_path):
    table = '---g-f_I2yQ,1,people marching,test\n--0PQM4-hqg,30,waterfall burbling,train\n-_x,7,"dog, howling",test\n'
    folder = put(tmp_path, **{"data/vggsound.csv": table, "---g-f_I2yQ_000001.mp4": ""})
    items = items_of("vggsound", folder)
    assert {name: item.labels for name, item in items.items()} == {
        "---g-f_I2yQ_1": ("people marching",),
        "-_x_7": ("dog, howling",),
    }
    assert items["---g-f_I2yQ_1"].video == tmp_path / "---g-f_I2yQ_000001.mp4"
    assert set(items_of("vggsound", folder, "train")) == {"--0PQM4-hqg_30"}
    with pytest.raises(UserError, match="nothing of split 'valid' of VGGSound"):
        items_of("vggsound", folder, "valid")


def test_vctk(tmp_path):
    wav, txt = "wav48_silence_trimmed", "txt"
    folder = put(tmp_path, **{
        f"{txt}/p225/p225_001.txt": "Please call Stella.\n", f"{wav}/p225/p225_001_mic1.flac": "",
        f"{wav}/p225/p225_001_mic2.flac": "", f"{wav}/p315/p315_001_mic1.flac": "",
        f"{txt}/p226/p226_002.txt": "Ask her.\n", f"{wav}/p226/p226_002.wav": "", "README.txt": "VCTK",
    })  # fmt: skip
    items = items_of("vctk", folder)
    assert {name: item.captions for name, item in items.items()} == {
        "p225_001_mic1": ("Please call Stella.",),
        "p226_002": ("Ask her.",),
    }


def test_activitynet(tmp_path):
    row = {"duration": 55.15, "timestamps": [[0.28, 55.15], [13.79, 54.32]], "sentences": [" One.", "Two. "]}
    rows = {"v_uqiMw7tQ1Cc": row}
    folder = put(tmp_path, **{"val_1.json": json.dumps(rows), "v_uqiMw7tQ1Cc.mkv": ""})
    (item,) = items_of("activitynet", folder).values()
    assert item.captions == ("One. Two.",) and item.video == tmp_path / "v_uqiMw7tQ1Cc.mkv"


def test_kinetics(tmp_path):
    rows = ("label,youtube_id,time_start,time_end,split,is_cc", "abseiling,-3B32lodo2M,59,69,val,0",
            '"air drumming",_dbcJ,0,10,val,0')  # fmt: skip
    table = "\n".join(rows)
    folder = put(tmp_path, **{"annotations/val.csv": table, "val/-3B32lodo2M_000059_000069.mp4": ""})
    items = items_of("kinetics400", folder)
    assert [item.labels for item in items.values()] == [("abseiling",), ("air drumming",)]
    assert items["-3B32lodo2M_59"].video == tmp_path / "val/-3B32lodo2M_000059_000069.mp4"


def test_desed(tmp_path):
    table = (
        "filename\tonset\toffset\tevent_label\nY0c_30.000_40.000.wav\t1.710\t6.005\tCat\n"
        "Y0e_350.000_360.000.wav\t0.467\t0.717\tAlarm_bell_ringing\nY0e_350.000_360.000.wav\t5.418\t5.863\tSpeech\n"
        "Yquiet_0.000_10.000.wav\t\t\t\n"
    )
    folder = put(tmp_path, **{"metadata/validation/validation.tsv": table, "audio/Y0c_30.000_40.000.wav": ""})
    items = items_of("desed", folder)
    assert items["Y0c_30.000_40.000.wav"].audio == tmp_path / "audio/Y0c_30.000_40.000.wav"
    assert items["Y0e_350.000_360.000.wav"].events == (
        Event("Alarm_bell_ringing", 0.467, 0.717),
        Event("Speech", 5.418, 5.863),
    )
    assert items["Yquiet_0.000_10.000.wav"].events == ()


def test_urbansed(tmp_path):
    folder = put(tmp_path, **{
        "annotations/test/soundscape_test_bimodal0.txt": "0.87\t1.43\tcar_horn\n2.0\t5.5\tsiren\n",
        "annotations/train/soundscape_train_bimodal0.txt": "0\t1\tsiren\n",
        "annotations/test/soundscape_test_bimodal0.jams": "{}", "audio/test/soundscape_test_bimodal0.wav": "",
    })  # fmt: skip
    (item,) = items_of("urbansed", folder).values()
    assert item.events == (Event("car_horn", 0.87, 1.43), Event("siren", 2.0, 5.5))
    assert item.audio == tmp_path / "audio/test/soundscape_test_bimodal0.wav"


@pytest.mark.parametrize(
    ("name", "file", "text", "message"),
    [
        ("audiocaps", "test.csv", "id,caption\n1,x\n", "expected the columns .*; there is no youtube_id"),
        ("audiocaps", "test.csv", "youtube_id,start_time,caption\nx,soon,y\n", "test.csv:2.*numbers, not 'soon'"),
        ("valor", "desc_test.json", "{}", "expected a list of objects"),
        ("valor", "desc_test.json", "[", "cannot be read"),
        ("vggsound", "vggsound.csv", "x,1,dog\n", "vggsound.csv:1.*youtube id, start, label and split"),
        ("activitynet", "val_1.json", '{"v": {}}', "videos with a list of sentences"),
        ("desed", "validation.tsv", "filename\tonset\toffset\tevent_label\na\t3\t2\tCat\n", "starts before it ends"),
        ("urbansed", "annotations/test/a.txt", "0 1 siren\n", "a.txt:1.*with tabs between"),
        ("clotho", "captions.csv", "", "holds no clotho_captions_evaluation.csv"),
        ("vctk", "a.wav", "", "nothing of split 'all' of VCTK"),
    ],
)
def test_other_metadata_are_refused(tmp_path, name, file, text, message):
    with pytest.raises(UserError, match=message):
        items_of(name, put(tmp_path, **{file: text}))


def test_a_folder_has_to_be_one(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        Folder(tmp_path / "none")
