"""What the demo does without a browser."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import demo_fakes as fakes
import numpy as np
import pytest
import torch

from demos.video_click import pictures, widgets, words
from demos.video_click.server import remove_old
from demos.video_click.session import GRACE, IDLE, Limits, Sessions, Stopped
from demos.video_click.studio import ADD, EXCLUDE, REMOVE, Example, Studio
from demos.video_click.work import Moment, left, watched
from peav import media
from peav.errors import UserError

pytest.importorskip("av", reason='pip install "samaudio[demo]"')
pytest.importorskip("cv2", reason='pip install "samaudio[demo]"')
pytest.importorskip("PIL", reason='pip install "samaudio[demo]"')


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    return fakes.make_film(tmp_path_factory.mktemp("film") / "film.mp4")


@pytest.fixture
def sessions(tmp_path):
    return Sessions(tmp_path / "users")


@pytest.fixture
def session(sessions):
    return sessions.of("a page")


@pytest.fixture
def studio():
    return Studio(fakes.FakeSeparator(), Limits(megabytes=2, minutes=0.2), ())


def nothing(share: float) -> None:
    pass


# --- sessions ---


def test_each_page_has_its_own_folder_and_files(sessions):
    a, b = sessions.of("a"), sessions.of("b")
    assert a is sessions.of("a") and a.folder != b.folder and a.token != b.token
    path = a.new("target.wav")
    path.write_bytes(b"x")
    _, _, token, number, name = a.url(path).split("/")
    assert sessions.find(token, int(number)) == path and name == "target.wav"
    assert sessions.find(b.token, int(number)) is None and sessions.find("", int(number)) is None
    assert a.url(path) == a.url(path)


def test_only_what_was_offered_can_be_fetched(session, sessions):
    secret = session.new("secret.wav")
    secret.write_bytes(b"x")
    assert all(sessions.find(session.token, number) is None for number in range(50))


def test_files_go_after_the_page_is_closed_or_left_alone(sessions):
    closed, idle, there = (sessions.of(name) for name in ("closed", "idle", "there"))
    for one in (closed, idle, there):
        one.new("x.wav").write_bytes(b"x")
    sessions.leave("closed")
    now = time.monotonic()
    assert sessions.sweep(now) == 0  # it may only have lost the network
    idle.seen = now - IDLE - 1
    assert sessions.sweep(now + GRACE + 1) == 2
    assert not closed.folder.exists() and not idle.folder.exists() and there.folder.exists()
    with pytest.raises(UserError, match="closed"):
        closed.new("later.wav")  # work that was still under way leaves nothing behind
    assert not closed.folder.exists()


def test_a_page_that_comes_back_keeps_its_files(sessions):
    sessions.of("a").new("x.wav").write_bytes(b"x")
    sessions.leave("a")
    back = sessions.of("a")
    assert sessions.sweep(time.monotonic() + GRACE + 1) == 0 and back.folder.exists()


def test_a_request_without_a_page_is_refused(sessions):
    with pytest.raises(UserError):
        sessions.of(None)


# --- loading ---


def test_a_film_and_a_recording_are_loaded(studio, session, film, tmp_path):
    studio.load(session, film, "My <film>.mp4")
    assert session.recording.video.width == fakes.WIDTH and session.time == 2.0
    assert film.is_file() and session.recording.path != film
    assert abs(session.recording.seconds - fakes.SECONDS) < 0.1
    studio.point(session, 80, 90, ADD)
    sound = fakes.make_sound(tmp_path / "a.wav")
    before = session.recording.path
    studio.load(session, sound, "a.wav", move=True)
    assert not sound.exists() and not before.exists()
    assert session.recording.video is None and session.points == []
    low, high = session.recording.peaks[50]
    assert low < -0.05 and high > 0.05


@pytest.mark.parametrize("make, said", [
    (lambda path: path.write_bytes(bytes(2_100_000)), "at most 2 MB"),
    (lambda path: path.write_bytes(b"no film at all" * 9), "my.mp4.*(audio|film)"),
    (lambda path: media.write(path.with_suffix(".wav"), torch.zeros(1, 13 * 4000), 4000), "longer than 0.2 minutes"),
])  # fmt: skip
def test_what_cannot_be_loaded_leaves_nothing_behind(studio, session, tmp_path, make, said):
    path = tmp_path / "my.mp4"
    make(path)
    path = path if path.exists() else path.with_suffix(".wav")
    with pytest.raises(UserError, match=said) as error:
        studio.load(session, path, path.name)
    assert str(session.folder) not in str(error.value) and session.token not in str(error.value)
    assert session.recording is None and not session.folder.exists()


def test_what_cannot_be_loaded_leaves_what_was_there(studio, session, film, tmp_path):
    studio.load(session, film, "film.mp4")
    studio.point(session, 80, 90, ADD)
    before, files = session.recording, sorted(session.folder.rglob("*"))
    wrong = tmp_path / "wrong.mp4"
    wrong.write_bytes(b"no film at all" * 9)
    with pytest.raises(UserError, match="wrong.mp4: is no film or recording that can be read"):
        studio.load(session, wrong, "wrong.mp4")
    assert session.recording is before and len(session.points) == 1 and sorted(session.folder.rglob("*")) == files
    studio.load(session, film, "film.mp4")
    assert session.points == [] and not before.path.exists() and session.recording.sound.is_file()


def test_a_header_that_lies_about_its_length_does_not_help(studio, session, tmp_path, monkeypatch):
    path = tmp_path / "long.wav"
    media.write(path, torch.zeros(1, 20 * 4000), 4000)
    real = media.probe(path)
    monkeypatch.setattr(media, "probe", lambda _: SimpleNamespace(**{**vars(real), "seconds": 1.0}))
    with pytest.raises(UserError, match="longer than"):
        studio.load(session, path, "long.wav")


# --- pointing ---


def test_points(studio, session, film):
    studio.load(session, film, "film.mp4")
    studio.point(session, 80, 90, ADD)
    studio.look(session, 1.0)
    studio.point(session, 240, 90, EXCLUDE)
    assert [(p.x, p.time, p.positive) for p in session.points] == [(80, 2.0, True), (240, 1.0, False)]
    studio.point(session, 200, 80, REMOVE)
    assert [p.x for p in session.points] == [80]
    with pytest.raises(UserError, match="outside"):
        studio.point(session, 320, 90, ADD)
    studio.clear(session)
    with pytest.raises(UserError, match="no point"):
        studio.point(session, 1, 1, REMOVE)


def test_the_mask_is_drawn_where_the_object_is(studio, session, film):
    from PIL import Image

    studio.load(session, film, "film.mp4")
    plain = np.asarray(Image.open(studio.picture(session)[0])).astype(int)
    studio.point(session, 80, 90, ADD)
    path, said = studio.picture(session)
    changed = np.abs(np.asarray(Image.open(path)).astype(int) - plain).sum(-1) > 60
    assert "GrabCut" in said and plain.shape[:2] == (fakes.HEIGHT, fakes.WIDTH)
    assert changed[:, :160].sum() > 1500 and changed[:, 160:].sum() < 50


def test_a_preview_does_not_follow_from_points_far_away(studio, session, film, monkeypatch):
    from samaudio import visual

    studio.load(session, film, "film.mp4")
    for seconds in (0.0, 3.5):
        studio.look(session, seconds)
        studio.point(session, 80, 90, ADD)
    asked = []
    track = visual.track
    monkeypatch.setattr(visual, "track",
                        lambda film, points, **rest: asked.append(points) or track(film, points, **rest))
    assert "of the picture" in studio.picture(session)[1]
    assert [point.time for point in asked[0]] == [3.5]
    studio.look(session, 1.8)
    assert "Follow it" in studio.picture(session)[1] and len(asked) == 1


def test_an_object_is_followed_through_the_film(studio, session, film):
    studio.load(session, film, "film.mp4")
    with pytest.raises(UserError, match="nothing is marked"):
        studio.follow(session, nothing)
    studio.point(session, 80, 90, ADD)
    studio.follow(session, nothing)
    found = pictures.strip(session.recording, session.track, session.new)
    assert len(found) == pictures.STRIP and all(seen and path.is_file() for _, seen, path in found)
    html = words.strip(session, found)
    assert html.count("<img") == html.count('alt="Picture at') == pictures.STRIP
    studio.point(session, 82, 90, ADD)
    assert session.track is None  # it was that of other points


def test_a_recording_has_nothing_to_point_at(studio, session, tmp_path):
    studio.load(session, fakes.make_sound(tmp_path / "a.wav"), "a.wav")
    with pytest.raises(UserError, match="no pictures"):
        studio.point(session, 1, 1, ADD)


def test_the_mask_goes_over_a_picture_of_any_size():
    grey = np.full((40, 60, 3), 100, np.uint8)
    mask = torch.zeros(10, 15, dtype=torch.bool)
    mask[2:6, 3:9] = True
    drawn = pictures.tinted(grey, mask)
    assert (drawn[16, 24] != 100).any() and (drawn[30, 50] == 100).all()
    assert (pictures.tinted(grey, torch.zeros(4, 4, dtype=torch.bool)) == grey).all()


# --- separating ---


def test_clicks_words_and_times_are_one_prompt(studio, session, film):
    studio.load(session, film, "film.mp4")
    with pytest.raises(UserError, match="which sound"):
        studio.prompts(session, " ", None, None)
    with pytest.raises(UserError, match="start and its end"):
        studio.prompts(session, "low", 1.0, None)
    studio.point(session, 80, 90, EXCLUDE)
    with pytest.raises(UserError, match="add one on what makes it"):
        studio.prompts(session, "low", None, None)
    studio.point(session, 80, 90, ADD)
    assert [type(p).__name__ for p in studio.prompts(session, "low", 1, 2)] == ["Text", "Click", "Click", "Span"]


def test_a_model_that_does_not_see_says_so(session, film):
    studio = Studio(fakes.FakeSeparator(sees=False), Limits(), ())
    studio.load(session, film, "film.mp4")
    studio.point(session, 80, 90, ADD)
    with pytest.raises(UserError, match="does not see"):
        studio.prompts(session, "low", None, None)
    studio.follow(session, nothing)  # which can be looked at all the same
    assert bool(session.track.visible.all())


def test_candidates_are_files_and_can_be_changed(studio, session, film):
    studio.load(session, film, "film.mp4")
    studio.point(session, 80, 90, ADD)
    shares: list[float] = []
    studio.separate(session, "", None, None, 3, shares.append)
    assert shares == sorted(shares) and 0.8 < shares[-1] <= 1
    assert len(session.takes) == 3 and session.chosen == 1 and session.track is not None
    best = session.takes[1]
    target, _ = media.read(best.target)
    assert fakes.si_sdr(target[0].numpy(), fakes.LOW) > 30
    assert best.picture.is_file() and session.takes[2].picture is None  # drawn when it is listened to
    studio.choose(session, 2)
    assert session.takes[2].picture.is_file() and session.chosen == 2
    for take in session.takes:
        target, residual = (media.read(path)[0] for path in (take.target, take.residual))
        original, _ = media.read(session.recording.sound)
        assert float((target + residual - original).abs().max()) < 1e-5
    old = [path for take in session.takes for path in take.files()]
    studio.separate(session, "", None, None, 1, nothing)
    assert not any(path.exists() for path in old)
    with pytest.raises(UserError):
        studio.choose(session, 9)


def test_what_is_not_there_is_silent(studio, session, tmp_path):
    studio.load(session, fakes.make_sound(tmp_path / "a.wav"), "a.wav")
    studio.separate(session, "bagpipes", None, None, 2, nothing)
    first = session.takes[session.chosen]
    assert first.number == 0 and len(session.takes) == 3 and "not heard" in words.verdict(first)
    assert float(media.read(first.target)[0].abs().max()) == 0.0


def test_stopping_while_another_user_is_served(studio, session, tmp_path):
    studio.load(session, fakes.make_sound(tmp_path / "a.wav"), "a.wav")
    with studio._model:
        steps = watched(lambda tell: studio.separate(session, "low", None, None, 1, tell), session.stop, every=0.05)
        assert next(steps) == Moment(0.0, None)
        while not session.waiting:  # which the page says
            next(steps)
        session.stop.set()
        with pytest.raises(Stopped):
            list(steps)
        assert not session.waiting


# --- work ---


def test_work_says_how_far_it_is_and_gives_back():
    def work(tell):
        for i in range(5):
            tell(i / 4)
            time.sleep(0.03)
        return "result"

    steps, seen = watched(work, threading.Event(), every=0.02), []
    while True:
        try:
            seen.append(next(steps).share)
        except StopIteration as end:
            assert end.value == "result"
            break
    assert seen == sorted(seen) and seen[-1] > 0.5


def test_errors_of_the_work_are_raised_here():
    def work(tell):
        raise UserError("no")

    with pytest.raises(UserError, match="no"):
        list(watched(work, threading.Event()))


def test_work_ends_when_nobody_waits_for_it():
    ended, stop = threading.Event(), threading.Event()

    def work(tell):
        try:
            while True:
                tell(0.5)
                time.sleep(0.01)
        finally:
            ended.set()

    steps = watched(work, stop, every=0.02)
    next(steps)
    steps.close()
    assert ended.wait(2)


def test_time_left():
    assert left(0.5, 10.0) == 10.0 and left(0.0, 10.0) is None and left(0.5, 0.1) is None
    assert words.clock(12.2) == "13 s" and words.clock(0.0) == "1 s" and words.clock(150) == "2 min"


# --- what is said ---


def test_nothing_of_the_user_becomes_markup(studio, session, tmp_path):
    studio.load(session, fakes.make_sound(tmp_path / "a.wav"), "a.wav")
    studio.separate(session, "<script>alert(1)</script>", None, None, 1, nothing)
    take = session.takes[session.chosen]
    said = words.verdict(take) + words.files(session, take) + words.spectrograms(session, take)
    said += words.problem("<script>") + words.note("<script>")
    assert "<script>" not in said


@pytest.mark.parametrize("line, shown", [
    ("which sound? name it", "Which sound? name it"),
    ("my film.mp4: is empty", "my film.mp4: is empty"),
])  # fmt: skip
def test_problems_begin_with_a_capital_but_for_the_users_own_names(line, shown):
    assert f">{shown}<" in words.problem(line)


def test_widgets_get_json():
    wave = json.loads(widgets.wave_value([(-0.5, 0.25), (0.0, 0.0)], 2.0, 0.5, 1.0))
    assert wave["seconds"] == 2.0 and wave["path"].count("M") == 2 and "0.5 to 1 s" in wave["alt"]
    player = json.loads(widgets.player_value([("target", "target", "/t")], 2.0, None, 0.5, [(0.1, 0.2, 0.9)]))
    assert player["spans"] == [[0.1, 0.2]] and player["start"] == 0.5 and player["film"] is None


def test_scores_that_nobody_gave_are_not_shown(studio, session, tmp_path):
    studio.load(session, fakes.make_sound(tmp_path / "a.wav"), "a.wav")
    studio.separate(session, "low", None, None, 1, nothing)
    take = session.takes[0]
    take.quality, take.similarity = dict.fromkeys(take.quality), math.nan
    assert "<table" not in words.verdict(take) and "nan" not in words.verdict(take) + take.label


# --- the server and the command ---


def test_examples_whose_file_is_missing_are_left_out(tmp_path):
    there = Example("there", fakes.make_sound(tmp_path / "a.wav"))
    studio = Studio(fakes.FakeSeparator(), Limits(), [Example("gone", tmp_path / "gone.mp4"), there])
    assert studio.examples == [there]


def test_help_needs_no_heavy_imports():
    code = ("import sys; from demos.video_click.__main__ import app; from peav import console; "
            "console.run(app, 'x', ['--help']); "
            "sys.exit(bool({'torch', 'gradio', 'numpy'} & set(sys.modules)))")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
                          cwd=Path(__file__).parents[2])  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "127.0.0.1" in done.stdout and "--max-minutes" in done.stdout


def test_uploads_that_nobody_loaded_go(tmp_path):
    old, new = tmp_path / "a" / "old.wav", tmp_path / "b" / "new.wav"
    for path in (old, new):
        path.parent.mkdir()
        path.write_bytes(b"x")
    os.utime(old, (1, 1))
    remove_old(tmp_path)
    assert not old.parent.exists() and new.exists()


def test_only_what_was_uploaded_can_be_loaded(tmp_path):
    """A request that names another file of this machine is refused, and the file stays."""
    pytest.importorskip("gradio", reason='pip install "samaudio[demo]"')
    import httpx

    secret = fakes.make_sound(tmp_path / "secret.wav")
    with fakes.running(fakes.FakeSeparator(), tmp_path / "page", Limits()) as (address, app):
        def ask(path: object, number: int = 0, beside: list | None = None) -> str:
            file = {"path": str(path), "orig_name": "a.wav", "meta": {"_type": "gradio.FileData"}}
            sent = {"data": [file, *(beside or [])], "fn_index": number, "session_hash": "me", "event_data": None}
            assert httpx.post(f"{address}/gradio_api/queue/join", json=sent).status_code == 200
            with httpx.stream("GET", f"{address}/gradio_api/queue/data?session_hash=me", timeout=30) as answer:
                return next(line for line in answer.iter_lines() if "process_completed" in line)

        uploads = tmp_path / "page" / "uploads"
        (uploads / "x").mkdir()
        (uploads / "x" / "link.wav").symlink_to(secret)
        link = uploads / "x" / "link.wav"
        for name in (secret, link, f"{uploads}/x/../../../secret.wav", uploads, "", "\0", f"{address}/config"):
            assert "the upload did not arrive" in ask(name), name
        functions = httpx.get(f"{address}/config").json()["dependencies"]
        separate = next(i for i, found in enumerate(functions) if len(found["inputs"]) == 4)
        assert "the upload did not arrive" in ask(secret, separate, [None, None, 1])
        kept = [path for path in uploads.rglob("*") if path.is_file() and not path.is_symlink()]
        assert kept == [] and secret.is_file()
        with secret.open("rb") as file:
            uploaded = httpx.post(f"{address}/gradio_api/upload", files={"files": ("a.wav", file)}).json()[0]
        assert "Loaded a.wav" in ask(Path(uploaded))
        assert not Path(uploaded).exists() and not list(uploads.rglob("a.wav"))
        assert len(app.state.sessions) == 1


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_when_the_server_is_stopped(tmp_path, end):
    pytest.importorskip("gradio", reason='pip install "samaudio[demo]"')
    code = """
import sys
sys.path[:0] = sys.argv[1:3]
import demo_fakes, urllib.request, threading
from demos.video_click.server import listen, serve
from demos.video_click.session import Limits
with listen("127.0.0.1", 0) as socket:
    def knock():
        address = f"http://127.0.0.1:{socket.getsockname()[1]}/"
        print(urllib.request.urlopen(address, timeout=60).status, flush=True)
    socket.listen()  # before anybody knocks, or the knock is refused
    threading.Thread(target=knock, daemon=True).start()
    serve(demo_fakes.FakeSeparator(), socket, Limits())
"""
    here = Path(__file__).parent
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", code, str(here), str(here.parents[1])], env=env, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:  # fmt: skip
        try:
            assert server.stdout.readline().strip() == "200"
            assert list(tmp_path.glob("video-click-*"))
            server.send_signal(end)
            server.wait(timeout=30)
        finally:
            server.kill()
    assert not list(tmp_path.glob("video-click-*"))


@pytest.mark.parametrize("arguments, said", [
    (["--max-megabytes", "0"], "--max-megabytes is 0"),
    (["--max-minutes", "-1"], "--max-minutes is -1"),
    (["--device", "toaster"], "toaster"),
    (["--host", "no such host.invalid"], "cannot listen"),
])  # fmt: skip
def test_wrong_options_are_one_line(capsys, arguments, said):
    pytest.importorskip("gradio", reason='pip install "samaudio[demo]"')
    from demos.video_click.__main__ import app
    from peav import console

    assert console.run(app, "video_click", arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and said in lines[0]
