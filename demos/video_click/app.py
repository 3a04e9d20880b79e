"""The page: what stands where, and what happens when.

Gradio reads the annotations of handlers when they are defined, so this module does without their postponement.
"""

import logging
import math
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from peav.errors import UserError, shown

from . import pictures, widgets, words
from .session import Session, Sessions, Stopped
from .studio import ADD, EXCLUDE, REMOVE, Studio
from .work import Tell, watched

CSS = widgets.CSS
_MODES = [("it makes the sound", ADD), ("not part of it", EXCLUDE), ("remove the nearest point", REMOVE)]
_BLIND = ("The model that runs here does not see: points can be tried out, but to separate, name the sound or mark "
          "when it happens.")  # fmt: skip
_log = logging.getLogger(__name__)


def theme() -> Any:
    """The system's own letters: nothing is fetched from elsewhere."""
    import gradio as gr

    return gr.themes.Default(
        primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    ).set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        body_text_color_subdued="*neutral_500",  # of 4.5 to 1 at least
        input_placeholder_color="*neutral_500",
    )


def build(studio: Studio, sessions: Sessions, uploads: Path) -> Any:
    """The page as `gradio.Blocks`.

    Args:
        studio: what it can do.
        sessions: where each user's things are.
        uploads: the folder in which uploads arrive.
    """
    import gradio as gr

    class Page(gr.Blocks):
        """Takes no files but uploads.

        Gradio fetches any address that a request names as a file, and of a page that was mounted, not launched, also
        takes any file of this machine for an upload.
        """

        async def preprocess_data(self, block_fn: Any, inputs: list, *rest: Any, **options: Any) -> list:
            if not all(lies_in(uploads, name) for name in file_names(inputs)):
                raise gr.Error("the upload did not arrive; choose the file again", print_exception=False)
            return await super().preprocess_data(block_fn, inputs, *rest, **options)

    limits = studio.limits
    with Page(title="Video click", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown("# Click on what makes the sound\n"
                    f"Load a film or a recording (at most {limits}), say which sound, and hear it alone.")
        with gr.Row(equal_height=True):
            upload = gr.File(label="Film or recording", height=150, scale=3, elem_id="upload")
            with gr.Column(scale=2, min_width=220):
                examples = [gr.Button(f"Example: {e.title}", size="md") for e in studio.examples]
        status = gr.HTML(words.note("Nothing is loaded yet."), js_on_load=widgets.STATUS_JS, elem_id="status")

        with gr.Column(visible=False, elem_id="pointing") as pointing:
            gr.Markdown("## Point at it" + ("" if studio.sees else f"\n{_BLIND}"))
            picture = gr.HTML("", html_template=widgets.PICTURE_HTML, js_on_load=widgets.PICTURE_JS, elem_id="picture")
            time = gr.Slider(0, 1, 0, step=0.01, label="Time in the film, seconds", elem_id="time")
            mode = gr.Radio(_MODES, value=ADD, label="What a click says", elem_id="mode")
            with gr.Row():
                x = gr.Number(label="X, pixels from the left", precision=1, minimum=0, min_width=120, elem_id="x")
                y = gr.Number(label="Y, pixels from the top", precision=1, minimum=0, min_width=120, elem_id="y")
                typed = gr.Button("Set this point", min_width=120)
            points = gr.HTML(words.points([]), elem_id="points")
            with gr.Row():
                undo = gr.Button("Remove last point", min_width=140)
                clear = gr.Button("Clear points", min_width=140)
                follow = gr.Button("Follow it through the film", min_width=200)
            strip = gr.HTML("", elem_id="strip")

        with gr.Column(visible=False, elem_id="saying") as saying:
            gr.Markdown("## Name it, or say when")
            phrase = gr.Textbox(label="Name of the sound", placeholder="acoustic guitar", max_length=300,
                                elem_id="phrase")  # fmt: skip
            wave = gr.HTML("", html_template=widgets.WAVE_HTML, js_on_load=widgets.WAVE_JS, elem_id="wave")
            with gr.Row():
                start = gr.Number(label="From, seconds", value=None, minimum=0, min_width=120, elem_id="start")
                end = gr.Number(label="To, seconds", value=None, minimum=0, min_width=120, elem_id="end")
                no_span = gr.Button("Clear times", min_width=120)
            tries = gr.Slider(1, studio.hypotheses, studio.hypotheses, step=1, elem_id="tries",
                              label="Candidates to choose from")  # fmt: skip
            with gr.Row():
                separate = gr.Button("Separate", variant="primary", elem_id="separate")
                stop = gr.Button("Stop", visible=False, elem_id="stop")

        with gr.Column(visible=False, elem_id="results") as results:
            gr.Markdown("## What came out")
            player = gr.HTML("", html_template=widgets.PLAYER_HTML, js_on_load=widgets.PLAYER_JS, elem_id="player")
            candidate = gr.Radio([], label="Candidates", elem_id="candidates")
            verdict = gr.HTML("", elem_id="verdict")
            files = gr.HTML("", elem_id="files")
            spectrograms = gr.HTML("", elem_id="spectrograms")

    def see(session: Session, again: bool = True) -> dict:
        """Everything about the points; the film's strip only where it may have changed."""
        changed: dict = {points: words.points(session.points)}
        if session.recording is None or session.recording.video is None:
            return changed | {picture: "", strip: ""}
        path, said = studio.picture(session)
        alt = f"Picture of the film at {session.time:.2f} s, {len(session.points)} points; {said}"
        changed[picture] = widgets.picture_value(session.picture(path), alt, said[:1].upper() + said[1:])
        if again:
            found = [] if session.track is None else pictures.strip(session.recording, session.track, session.new)
            changed[strip] = words.strip(session, found)
        return changed

    def hear(session: Session) -> dict:
        """Everything about what came out."""
        if session.recording is None or not session.takes:
            return {results: gr.update(visible=False), player: ""}
        recording, take = session.recording, session.takes[session.chosen]
        sounds = [("target", "target", session.url(take.target)), ("residual", "residual", session.url(take.residual)),
                  ("original", "original", session.url(recording.sound))]  # fmt: skip
        film = session.url(recording.path) if recording.video is not None else None
        return {
            results: gr.update(visible=True),
            player: widgets.player_value(sounds, recording.seconds, film, recording.start, take.spans),
            candidate: gr.update(choices=[(t.label, i) for i, t in enumerate(session.takes)], value=session.chosen,
                                 visible=len(session.takes) > 1),
            verdict: words.verdict(take),
            files: words.files(session, take),
            spectrograms: words.spectrograms(session, take),
        }  # fmt: skip

    def begin(session: Session) -> dict:
        """Everything about a recording that was just loaded."""
        recording = session.recording
        assert recording is not None
        changed = {upload: None, phrase: "", start: None, end: None, x: None, y: None} | see(session) | hear(session)
        film = recording.video
        changed |= {
            saying: gr.update(visible=True),
            pointing: gr.update(visible=film is not None),
            wave: widgets.wave_value(recording.peaks, recording.seconds, None, None),
        }
        if film is not None:
            last = max(0.01, math.floor(100 * film.seconds) / 100)
            changed[time] = gr.update(maximum=last, value=session.time)
        return changed

    def act(request: Any, what: Callable[[Session], str], then: Callable[[Session], dict]) -> dict:
        """Do something short and show what changed; what cannot be done is said in one line."""
        try:
            session = sessions.of(request.session_hash)
            if not session.busy.acquire(blocking=False):
                raise UserError("still working; wait for the end, or press Stop")
            try:
                line = what(session)
                return {status: words.note(line)} | then(session)
            finally:
                session.busy.release()
        except Exception as error:
            return {status: words.problem(_said(error))}

    def working(request: Any, title: str, what: Callable[[Session, Tell], None], then: Callable[[Session], dict],
                line: str) -> Generator[dict, None, None]:  # fmt: skip
        """Do something long and show how far it is."""

        def at_work(now: bool) -> dict:
            free = gr.update(interactive=not now)
            return {separate: free, follow: free, stop: gr.update(visible=now)}

        idle, busy = at_work(False), at_work(True)
        try:
            session = sessions.of(request.session_hash)
            if not session.busy.acquire(blocking=False):
                raise UserError("still working; wait for the end, or press Stop")
        except UserError as error:
            yield {status: words.problem(str(error))}
            return
        try:
            session.stop.clear()

            def run(tell: Tell) -> dict:
                try:
                    what(session, tell)
                    return then(session)
                finally:  # not before the thread ends, which may be after the page has gone
                    session.busy.release()

            steps = watched(run, session.stop)
            shown_busy = False
            while True:
                try:
                    moment = next(steps)
                except StopIteration as finished:
                    yield {status: words.note(line)} | finished.value | idle
                    return
                doing = "Waiting for another user's work" if session.waiting else title
                yield {status: words.working(doing, moment)} | ({} if shown_busy else busy)
                shown_busy = True
        except Stopped as error:
            yield {status: words.note(_said(error))} | hear(session) | idle
        except Exception as error:
            yield {status: words.problem(_said(error))} | hear(session) | idle

    def on_upload(name: str, request: gr.Request):
        def load(session: Session) -> str:
            path = Path(name)
            try:
                studio.load(session, path, path.name, move=True)
            finally:
                path.unlink(missing_ok=True)
                with suppress(OSError):  # more may be in it
                    path.parent.rmdir()
            return _loaded(session)

        return {upload: None} | act(request, load, begin)

    def on_example(number: int, request: Any):
        def load(session: Session) -> str:
            studio.example(session, number)
            return _loaded(session)

        return act(request, load, begin)

    def on_point(how: str, request: gr.Request, event: gr.EventData):
        def add(session: Session) -> str:
            film = session.recording.video if session.recording is not None else None
            width, height = (film.width, film.height) if film is not None else (0, 0)
            studio.point(session, float(event.x) * width, float(event.y) * height, how)
            return _pointed(session)

        return act(request, add, see)

    def on_typed(across: float | None, down: float | None, how: str, request: gr.Request):
        def add(session: Session) -> str:
            if across is None or down is None:
                raise UserError("a point needs X and Y in pixels; type both")
            studio.point(session, float(across), float(down), how)
            return _pointed(session)

        return act(request, add, see)

    def on_time(seconds: float, request: gr.Request):
        def look(session: Session) -> str:
            studio.look(session, seconds)
            return f"Picture at {session.time:.2f} s."

        return act(request, look, lambda session: see(session, again=False))

    def on_undo(request: gr.Request):
        def undo_one(session: Session) -> str:
            studio.clear(session, only_last=True)
            return _pointed(session)

        return act(request, undo_one, see)

    def on_clear(request: gr.Request):
        def clear_all(session: Session) -> str:
            studio.clear(session)
            return _pointed(session)

        return act(request, clear_all, see)

    def on_follow(request: gr.Request):
        yield from working(request, "Following it", studio.follow, see, "Followed through the film.")

    def on_separate(words_said: str, a: float | None, b: float | None, n: int, request: gr.Request):
        def run(session: Session, tell: Tell) -> None:
            studio.separate(session, words_said, a, b, int(n), tell)

        def both(session: Session) -> dict:
            return see(session) | hear(session)

        yield from working(request, "Separating", run, both, "Done. Play it below.")

    def on_stop(request: gr.Request):
        sessions.of(request.session_hash).stop.set()

    def on_choose(number: int | None, request: gr.Request):
        def choose(session: Session) -> str:
            studio.choose(session, -1 if number is None else int(number))
            return f"Now playing {session.takes[session.chosen].label}."

        return act(request, choose, hear)

    def on_span(event: gr.EventData):
        return {start: event.start, end: event.end}

    def on_times(a: float | None, b: float | None, request: gr.Request):
        try:
            recording = sessions.of(request.session_hash).recording
        except UserError:
            recording = None
        return "" if recording is None else widgets.wave_value(recording.peaks, recording.seconds, a, b)

    def on_unload(request: gr.Request):
        sessions.leave(request.session_hash)

    seen = [status, points, picture, strip]
    heard = [results, player, candidate, verdict, files, spectrograms]
    loaded = [*seen, *heard, upload, phrase, start, end, x, y, pointing, saying, wave, time]
    buttons = [separate, follow, stop]
    quiet: dict = {"show_progress": "hidden", "api_visibility": "private"}

    def example_handler(number: int) -> Callable:
        def handler(request: gr.Request):
            return on_example(number, request)

        return handler

    with page:
        upload.upload(on_upload, upload, loaded, api_visibility="private")
        for number, button in enumerate(examples):
            button.click(example_handler(number), None, loaded, api_visibility="private")
        picture.point(on_point, mode, seen, **quiet)
        typed.click(on_typed, [x, y, mode], seen, **quiet)
        time.input(on_time, time, seen, trigger_mode="always_last", **quiet)
        undo.click(on_undo, None, seen, **quiet)
        clear.click(on_clear, None, seen, **quiet)
        follow.click(on_follow, None, [*seen, *heard, *buttons], **quiet)
        wave.span(on_span, None, [start, end], **quiet)
        gr.on([start.change, end.change], on_times, [start, end], wave, **quiet)
        no_span.click(lambda: (None, None), None, [start, end], **quiet)
        gr.on([separate.click, phrase.submit], on_separate, [phrase, start, end, tries], [*seen, *heard, *buttons],
              **quiet)  # fmt: skip
        stop.click(on_stop, None, None, queue=False, **quiet)
        candidate.input(on_choose, candidate, [status, *heard], **quiet)
        page.unload(on_unload)
    page.queue(default_concurrency_limit=8, max_size=100)
    return page


def file_names(sent: Any) -> Iterator[Any]:
    """The names of all files in what a page sent."""
    if isinstance(sent, dict):
        if "path" in sent:
            yield sent["path"]
        sent = list(sent.values())
    if isinstance(sent, list):
        for part in sent:
            yield from file_names(part)


def lies_in(uploads: Path, name: Any) -> bool:
    """Whether that is a file in a folder of its own in ``uploads``, where Gradio puts them."""
    try:
        path = Path(str(name)).resolve(strict=True)
        return path.is_file() and path.parent.parent == uploads.resolve() and path == Path(str(name)).absolute()
    except (OSError, ValueError):
        return False


def _loaded(session: Session) -> str:
    assert session.recording is not None
    return f"Loaded {session.recording.facts()}."


def _pointed(session: Session) -> str:
    number = len(session.points)
    return "No points." if not number else f"{number} point{'s' if number > 1 else ''}."


def _said(error: BaseException) -> str:
    """An error as one line. Mistakes of the program are logged, and not shown."""
    if isinstance(error, UserError):
        return shown(error, 300)
    _log.error("the demo failed", exc_info=error)
    return "something went wrong in the program; what it was is in its log. Try again, or load the file anew"
