"""The page in a real browser: load a film, click on its picture, separate, play, download, by mouse and by keyboard.

With SAMAUDIO_SCREENSHOTS=1 the pictures in docs/images are made anew.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from pathlib import Path

import demo_fakes as fakes
import numpy as np
import pytest
import soundfile

from demos.video_click.session import GRACE, Limits
from demos.video_click.studio import EXAMPLES, Example
from peav import media

sync_api = pytest.importorskip("playwright.sync_api", reason="the browser test needs it: pip install playwright")
for needed in ("gradio", "av", "cv2"):
    pytest.importorskip(needed, reason='the demo is not installed: pip install "samaudio[demo]"')
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="the browser test needs Chromium: apt-get install chromium"),
]
IMAGES = Path(__file__).parents[2] / "docs" / "images"
DRAWN = next(example.path for example in EXAMPLES if example.path.name == "drawn.mp4")
SIZES = {"desktop": (1200, 900), "phone": (390, 844)}
TIMES = "() => Object.fromEntries([...document.querySelectorAll('audio')].map(a => [a.dataset.key, a.currentTime]))"
HEARD = "() => [...document.querySelectorAll('audio')].filter(a => !a.muted && !a.paused).map(a => a.dataset.key)"


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    return fakes.make_film(tmp_path_factory.mktemp("film") / "two tones.mp4")


@pytest.fixture(scope="module")
def server(tmp_path_factory, film):
    folder = tmp_path_factory.mktemp("page")
    sound = fakes.make_sound(folder / "tones.wav")
    examples = [Example("Two tones", film), Example("Two tones (sound only)", sound)]
    separator = fakes.FakeSeparator(slowness=1.5)
    with fakes.running(separator, folder / "users", Limits(megabytes=2, minutes=0.5), examples) as (address, app):
        yield address, app, separator


@pytest.fixture
def user(browser, server):
    """A new user at the page, who fails the test when anything is fetched from elsewhere or a script fails."""
    context = browser.new_context(viewport={"width": 1200, "height": 900}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(30_000)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda sent: wrong.append(sent.url) if sent.url.startswith("http") and
            not sent.url.startswith(server[0]) else None)  # fmt: skip
    page.goto(server[0])
    page.get_by_text("Nothing is loaded yet.").wait_for()
    yield page
    context.close()
    assert not wrong


def load(page, path: Path) -> None:
    page.set_input_files("#upload input[type=file]", str(path))
    page.locator("#status", has_text="Loaded").wait_for()


def click_picture(page, x: float, y: float) -> None:
    """At shares of its width and height."""
    box = page.locator("#picture img").bounding_box()
    page.locator("#picture img").click(position={"x": x * box["width"], "y": y * box["height"]})


def separate(page, seconds: float = 60) -> None:
    page.get_by_role("button", name="Separate", exact=True).click()
    page.locator("#status", has_text="Done.").wait_for(timeout=1000 * seconds)


def download(page, title: str, folder: Path) -> Path:
    with page.expect_download() as started:
        page.get_by_role("link", name=title).click()
    path = folder / started.value.suggested_filename
    started.value.save_as(path)
    return path


def read(path: Path) -> np.ndarray:
    samples, _ = soundfile.read(path, always_2d=True)
    return samples.mean(1)


def pictures(film: Path) -> list[bytes]:
    """The encoded pictures."""
    import av

    with av.open(str(film)) as container:
        return [bytes(packet) for packet in container.demux(container.streams.video[0]) if packet.size]


def test_click_separate_play_download(user, film, tmp_path):
    load(user, film)
    click_picture(user, 0.75, 0.5)
    user.locator("#points li").wait_for()
    assert "on the source: 240" in user.inner_text("#points")
    user.locator(".vc-said", has_text="of the picture").wait_for()
    user.get_by_role("button", name="Separate", exact=True).click()
    user.locator("#status", has_text="left").wait_for()  # how long it takes is said while it works
    assert user.locator("#status progress").count() == 1
    assert user.evaluate("() => window.scrollY") > 300
    box = user.locator("#status progress").bounding_box()
    assert 0 <= box["y"] < 200  # and where it can be seen, however far down the page one is
    ground = user.evaluate("() => getComputedStyle(document.querySelector('#status')).backgroundColor")
    assert ground.startswith("rgb(")  # nothing shines through
    assert user.locator("#status [aria-live=polite][aria-busy=true]").count() == 1  # not every per cent is read aloud
    user.locator("#status", has_text="Done.").wait_for()
    assert user.locator("#status [aria-live=polite][aria-busy=false]").count() == 1

    assert "97 %" in user.inner_text("#verdict") and "4.5 of 5" in user.inner_text("#verdict")
    assert user.locator("#strip img").count() >= 6
    target = read(download(user, "Target", tmp_path))
    assert fakes.si_sdr(target, fakes.HIGH) > 30 > fakes.si_sdr(fakes.LOW + fakes.HIGH, fakes.HIGH)
    residual = read(download(user, "Residual", tmp_path))
    assert np.abs(target + residual - fakes.LOW - fakes.HIGH).max() < 1e-3

    only = download(user, "Film with only this sound", tmp_path)
    assert pictures(only) == pictures(film)
    sound = media.read(only)[0][0].numpy()[: len(fakes.HIGH)]
    assert fakes.si_sdr(sound, fakes.HIGH[: len(sound)]) > 15
    without = media.read(download(user, "Film without this sound", tmp_path))[0][0].numpy()[: len(fakes.LOW)]
    assert fakes.si_sdr(without, fakes.LOW[: len(without)]) > 15

    user.get_by_role("button", name="Play", exact=True).click()
    user.wait_for_function("() => document.querySelector('audio').currentTime > 0.8")
    times = user.evaluate(TIMES)
    assert set(times) == {"target", "residual", "original"} and max(times.values()) - min(times.values()) < 0.15
    assert abs(user.evaluate("() => document.querySelector('.vc-player video').currentTime") - times["target"]) < 0.4
    assert user.evaluate(HEARD) == ["target"]
    user.get_by_role("radio", name="residual").check()
    assert user.evaluate(HEARD) == ["residual"] and user.evaluate(TIMES)["residual"] > 0.8
    user.get_by_role("button", name="Pause").click()
    assert user.evaluate(HEARD) == []

    user.get_by_role("radio", name="candidate 3").check()
    user.locator("#status", has_text="Now playing candidate 3").wait_for()
    worse = read(download(user, "Target", tmp_path))
    assert fakes.si_sdr(worse, fakes.HIGH) < 10


def test_points_are_added_taken_away_and_cleared(user, film):
    load(user, film)
    click_picture(user, 0.25, 0.5)
    user.locator("#points li").wait_for()
    user.get_by_role("radio", name="not part of it").check()
    click_picture(user, 0.75, 0.5)
    user.locator("#points li >> nth=1").wait_for()
    assert "not part of it: 240" in user.inner_text("#points")
    user.get_by_role("radio", name="remove the nearest point").check()
    click_picture(user, 0.7, 0.5)
    user.locator("#status", has_text="1 point.").wait_for()
    assert "not part of it" not in user.inner_text("#points")
    user.get_by_role("button", name="Clear points").click()
    user.get_by_text("No points yet.").wait_for()


def test_by_keyboard_and_typing_alone(user, server, tmp_path):
    user.get_by_role("button", name="Example: Two tones", exact=True).focus()
    user.keyboard.press("Enter")
    user.locator("#status", has_text="Loaded").wait_for()
    user.locator(".vc-frame").focus()
    for _ in range(3):
        user.keyboard.press("Shift+ArrowLeft")  # from the middle, a tenth of the width each
    user.keyboard.press("ArrowRight")
    user.keyboard.press("Enter")
    user.locator("#points li").wait_for()
    assert "67.2, 90" in user.inner_text("#points")
    user.get_by_role("button", name="Remove last point").press("Enter")
    user.get_by_text("No points yet.").wait_for()
    user.get_by_label("X, pixels from the left").fill("240")
    user.get_by_label("Y, pixels from the top").fill("90")
    user.get_by_role("button", name="Set this point").press("Enter")
    user.locator("#points li", has_text="240, 90").wait_for()
    user.get_by_role("button", name="Separate", exact=True).press("Enter")
    user.locator("#status", has_text="Done.").wait_for()
    assert fakes.si_sdr(read(download(user, "Target", tmp_path)), fakes.HIGH) > 30


def test_a_phrase_and_a_span_on_the_waveform_of_a_recording_without_pictures(user, tmp_path):
    user.get_by_role("button", name="Example: Two tones (sound only)").click()
    user.locator("#status", has_text="no pictures").wait_for()
    assert not user.locator("#pointing").is_visible()
    user.get_by_label("Name of the sound").fill("low")
    box = user.locator("#wave svg").bounding_box()
    user.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 20)
    user.mouse.down()
    user.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 20, steps=4)
    user.mouse.up()
    user.wait_for_function("() => document.querySelector('#end input').value !== ''")
    assert abs(float(user.input_value("#start input")) - 1.0) < 0.05
    assert abs(float(user.input_value("#end input")) - 2.0) < 0.05
    separate(user)
    target = read(download(user, "Target", tmp_path))
    inside = slice(round(1.2 * fakes.RATE), round(1.8 * fakes.RATE))
    assert fakes.si_sdr(target[inside], fakes.LOW[inside]) > 20
    assert np.abs(target[round(2.5 * fakes.RATE) :]).max() < 1e-3


def test_a_film_from_a_phone_fits_into_the_window(user, tmp_path):
    load(user, fakes.make_film(tmp_path / "upright.mp4", turned=90))
    user.wait_for_function("() => document.querySelector('#picture img')?.naturalHeight > 0")
    box = user.locator("#picture img").bounding_box()
    assert box["height"] <= 0.76 * 900 and box["width"] / box["height"] == pytest.approx(9 / 16, abs=0.02)
    click_picture(user, 0.5, 0.25)
    user.locator("#points li").wait_for()
    found = re.search(r"source: ([\d.]+), ([\d.]+) at", user.inner_text("#points"))
    assert [float(part) for part in found.groups()] == pytest.approx([90, 80], abs=1)


def test_what_is_not_there_is_said(user, film):
    load(user, film)
    user.get_by_label("Name of the sound").fill("bagpipes")
    separate(user)
    assert "not heard (probability 2 %)" in user.inner_text("#verdict")
    assert user.get_by_role("radio", name="nothing (it was not heard)").is_checked()


def test_mistakes_are_said_in_one_line(user, film, tmp_path):
    nonsense = tmp_path / "nonsense.mp4"
    nonsense.write_bytes(b"<script>alert(1)</script>" * 100)
    user.set_input_files("#upload input[type=file]", str(nonsense))
    user.get_by_role("alert").filter(has_text="nonsense.mp4").wait_for()
    load(user, film)
    user.get_by_role("button", name="Separate", exact=True).click()
    user.get_by_role("alert").filter(has_text="Which sound? click on what makes it").wait_for()
    user.get_by_role("button", name="Set this point").click()
    user.get_by_role("alert").filter(has_text="type both").wait_for()
    user.get_by_label("Name of the sound").fill("low")
    user.set_input_files("#upload input[type=file]", str(nonsense))
    user.get_by_role("alert").filter(has_text="nonsense.mp4").wait_for()
    assert user.locator("#picture img").is_visible() and user.input_value("#phrase textarea") == "low"
    large = tmp_path / "large.wav"
    large.write_bytes(bytes(3_000_000))
    user.set_input_files("#upload input[type=file]", str(large))
    user.get_by_text("maximum").first.wait_for()


def test_work_can_be_stopped(user, film, server, monkeypatch):
    monkeypatch.setattr(server[2], "slowness", 20.0)
    load(user, film)
    user.get_by_label("Name of the sound").fill("low")
    user.get_by_role("button", name="Separate", exact=True).click()
    user.get_by_role("button", name="Stop").click()
    user.locator("#status", has_text="stopped").wait_for()
    assert user.get_by_role("button", name="Separate", exact=True).is_enabled()


def test_who_waits_for_another_user_is_told_so(user, browser, server, film, monkeypatch):
    monkeypatch.setattr(server[2], "slowness", 20.0)
    other = browser.new_page()
    other.goto(server[0])
    for page in (other, user):
        load(page, film)
        page.get_by_label("Name of the sound").fill("low")
        page.get_by_role("button", name="Separate", exact=True).click()
        page.locator("#status progress").wait_for()
    user.locator("#status", has_text="Waiting for another user").wait_for()
    other.get_by_role("button", name="Stop").click()
    user.locator("#status", has_text="Separating").wait_for()
    user.get_by_role("button", name="Stop").click()
    user.locator("#status", has_text="stopped").wait_for()
    other.close()


def test_two_users_do_not_see_each_others_files(user, browser, server, film):
    address, app, _ = server
    load(user, film)
    user.get_by_label("Name of the sound").fill("low")
    separate(user)
    links = user.eval_on_selector_all("#files a", "found => found.map(a => a.href)")
    other = browser.new_page()
    other.goto(address)
    other.get_by_text("Nothing is loaded yet.").wait_for()
    assert other.locator("a[href*='/media/']").count() == 0
    token, number = links[0].split("/media/")[1].split("/")[:2]
    assert other.request.get(links[0]).status == 200  # whoever was given the whole address may read it
    assert other.request.get(f"{address}/media/{token[:-1]}_/{number}/x.wav").status == 404
    session = next(session for session in app.state.sessions._all.values() if session.token == token)
    folder = session.folder
    inside = [path for path in folder.rglob("*") if path.is_file()]
    assert len(inside) > 5
    for path in inside:
        assert other.request.get(f"{address}/gradio_api/file={path}").status in (403, 404)
    other.close()

    assert folder.is_dir()
    user.close()
    for _ in range(100):  # the server has to notice
        if session.left is not None:
            break
        time.sleep(0.1)
    assert session.left is not None
    app.state.sessions.sweep(session.left + GRACE + 1)
    assert not folder.exists()


def test_every_control_has_a_name(user, film):
    load(user, film)
    user.get_by_label("Name of the sound").fill("low")
    separate(user)
    nameless = user.evaluate("""() => [...document.querySelectorAll('input, button, textarea, select, img, [role=img]')]
        .filter(e => e.checkVisibility() && e.type !== 'file')
        .filter(e => !(e.getAttribute('aria-label') || e.getAttribute('alt') || e.innerText?.trim() || e.title ||
                       [...(e.labels || [])].some(l => l.innerText.trim())))
        .map(e => e.outerHTML.slice(0, 200))""")
    assert nameless == []


def check_width(page) -> None:
    """Nothing sticks out sideways."""
    assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth + 1")


def test_a_phone_shows_everything_without_scrolling_sideways(user, film):
    user.set_viewport_size({"width": 390, "height": 844})
    load(user, film)
    click_picture(user, 0.25, 0.5)
    user.locator("#points li").wait_for()
    separate(user)
    check_width(user)


def shoot(page) -> None:
    """Make the pictures of the page that docs/video-click.md shows."""
    from PIL import Image

    IMAGES.mkdir(parents=True, exist_ok=True)
    for name, (width, height) in SIZES.items():
        page.set_viewport_size({"width": width, "height": height})
        page.locator("#spectrograms img").scroll_into_view_if_needed()
        page.wait_for_timeout(700)
        page.evaluate("() => { window.scrollTo(0, 0); document.activeElement.blur(); }")
        page.wait_for_timeout(300)
        path = IMAGES / f"video-click-{name}.png"
        page.screenshot(path=path, full_page=True)
        # A third of the size. Other methods than this one lose the green of points, which are small.
        Image.open(path).convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE).save(path, optimize=True)


@pytest.fixture(scope="module")
def drawn():
    """What is in the drawn film: objects with label, stem and click."""
    if not DRAWN.is_file():
        pytest.skip("examples/drawn.mp4 is not there; make it with python -m samaudio.drawn.example")
    return json.loads(DRAWN.with_suffix(".json").read_text())["objects"]


@pytest.fixture(scope="module")
def packaged(tmp_path_factory):
    """The page with the packaged model."""
    import samaudio

    separator = samaudio.load()
    if not separator.viewer.sees:
        pytest.skip("the packaged model does not see")
    with fakes.running(separator, tmp_path_factory.mktemp("packaged"), Limits(), EXAMPLES) as (address, _):
        yield address


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_the_packaged_model_on_the_drawn_film(browser, packaged, drawn, tmp_path, number):
    """Clicking on a drawn object gives its sound, at least 5 dB better than it was in the film."""
    context = browser.new_context(viewport={"width": 1200, "height": 900}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(packaged)
    page.get_by_text("Nothing is loaded yet.").wait_for()
    load(page, DRAWN)
    x, y, seconds = drawn[number]["click"]
    page.locator("#time input[type=number]").fill(str(seconds))
    page.locator("#status", has_text=f"Picture at {seconds:.2f} s.").wait_for()
    width, height = (page.evaluate(f"() => document.querySelector('#picture img').natural{side}")
                     for side in ("Width", "Height"))  # fmt: skip
    click_picture(page, (x + 0.5) / width, (y + 0.5) / height)
    page.locator("#points li").wait_for()
    separate(page, seconds=240)
    page.get_by_role("button", name="Play", exact=True).click()
    page.wait_for_function("() => document.querySelector('audio').currentTime > 0.8")
    page.get_by_role("button", name="Pause").click()
    stems = [read(DRAWN.with_name(one["stem"])) for one in drawn]
    target = read(download(page, "Target", tmp_path))
    T = min(len(target), *map(len, stems))
    before = fakes.si_sdr(sum(stem[:T] for stem in stems), stems[number][:T])
    after = fakes.si_sdr(target[:T], stems[number][:T])
    if number == 0 and os.environ.get("SAMAUDIO_SCREENSHOTS"):
        shoot(page)
    context.close()
    assert after >= before + 5.0, f"{drawn[number]['label']}: {before:.1f} dB before, {after:.1f} dB after"
