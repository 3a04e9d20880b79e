"""What the page can do, without the page: every function takes the user's session and changes it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peav.errors import UserError

from . import pictures, recording, takes
from .session import Limits, Session
from .work import Tell

if TYPE_CHECKING:
    from samaudio.prompts import Prompt

_FOLDER = Path(__file__).parents[2] / "examples"
NEAR = 1.5  # seconds from a point within which its mask is shown without being asked for
MOST_POINTS = 40
ADD, EXCLUDE, REMOVE = "add", "exclude", "remove"
_LOOKS = 8.0  # per second, where the object is followed for a model that does not see
_PEAK_SHARE = 0.93  # of a separation's progress; the rest is files and pictures


@dataclass(frozen=True)
class Example:
    """A file that comes with the project."""

    title: str
    path: Path


EXAMPLES = (
    Example("Drawn film", _FOLDER / "drawn.mp4"),
    Example("A band (sound only)", _FOLDER / "band.flac"),
    Example("A street (sound only)", _FOLDER / "street.flac"),
)


class Studio:
    """A separator, shared by all users.

    Args:
        separator: of `samaudio.load`.
        limits: of what may be loaded.
        examples: those whose file is missing are left out.
    """

    def __init__(self, separator: Any, limits: Limits, examples: Sequence[Example] = EXAMPLES) -> None:
        self.separator, self.limits = separator, limits
        self.examples = [example for example in examples if example.path.is_file()]
        self._model = threading.Lock()  # one piece of work at a time: two would only slow each other down

    @property
    def sees(self) -> bool:
        """Whether the model can use what is pointed at."""
        return bool(self.separator.viewer.sees)

    @property
    def hypotheses(self) -> int:
        return int(self.separator.model.hypotheses)

    def load(self, session: Session, path: Path, name: str, move: bool = False) -> None:
        """Load a file in place of what was there.

        Raises:
            UserError: see `recording.load`.
        """
        recording.load(path, name, session, self.limits, move)

    def example(self, session: Session, number: int) -> None:
        """Load one of the examples."""
        chosen = self.examples[number].path
        self.load(session, chosen, chosen.name)

    def look(self, session: Session, time: float) -> None:
        """Show the picture at another time."""
        film = _film(session)
        session.time = min(max(0.0, float(time)), film.seconds)

    def point(self, session: Session, x: float, y: float, mode: str) -> None:
        """Add a point at the time that is shown, or remove the nearest one to ``x``, ``y`` (pixels of the film).

        Raises:
            UserError: it lies outside of the picture, or there is no point to remove.
        """
        from samaudio.prompts import Click

        film = _film(session)
        if not (0 <= x < film.width and 0 <= y < film.height):
            raise UserError(f"{x:g},{y:g} is outside of the picture, which has {film.width} x {film.height} pixels")
        if mode == REMOVE:
            if not session.points:
                raise UserError("there is no point to remove; add one first")
            session.points.remove(min(session.points, key=lambda p: (p.x - x) ** 2 + (p.y - y) ** 2))
        elif len(session.points) >= MOST_POINTS:
            raise UserError(f"{MOST_POINTS} points are the most that can be followed; remove some first")
        else:
            session.points.append(Click(round(x, 1), round(y, 1), round(session.time, 3), mode == ADD))
        session.track = None

    def clear(self, session: Session, only_last: bool = False) -> None:
        """Remove all points, or the last one."""
        session.points = session.points[:-1] if only_last else []
        session.track = None

    @contextmanager
    def _turn(self, session: Session, tell: Tell) -> Iterator[None]:
        """Wait for the model; whoever waits is told so, and can still be stopped."""
        try:
            while not self._model.acquire(timeout=0.2):
                session.waiting = True
                tell(0.0)
        finally:
            session.waiting = False
        try:
            yield
        finally:
            self._model.release()

    def picture(self, session: Session) -> tuple[Path, str]:
        """The picture at the session's time, drawn over, and in words what is marked in it."""
        mask, said = self._mask(session)
        path = session.new("picture.jpg")
        assert session.recording is not None
        pictures.draw(session.recording, session.time, mask, session.points, path)
        return path, said

    def _mask(self, session: Session) -> tuple[Any, str]:
        from samaudio import visual

        _film(session)
        assert session.recording is not None
        if not session.points:
            return None, "nothing is marked yet"
        if session.track is not None:
            mask, used = pictures.mask_at(session.track, session.time), session.track.segmenter
        else:
            positive = [point for point in session.points if point.positive]
            if not positive:
                return None, "only points that do not belong to it; add one on what makes the sound"
            near = [point for point in session.points if abs(point.time - session.time) <= NEAR]
            if not any(point.positive for point in near):
                return None, "press “Follow it through the film” to see it here"
            # Not from those far away, which would be followed all the way to here.
            found = visual.track(session.recording.path, near, times=[session.time],
                                 segmenter=self.separator.viewer.segmenter)  # fmt: skip
            mask, used = found.masks[0], found.segmenter
        share = 100 * float(mask.float().mean())
        if not share:
            return None, "the object is not seen here"
        return mask, f"the marked object takes {share:.1f} % of the picture ({used})"

    def follow(self, session: Session, tell: Tell) -> None:
        """Find the object that was pointed at in all of the film.

        Raises:
            UserError: nothing was pointed at.
        """
        film = _film(session)
        assert session.recording is not None
        if not any(point.positive for point in session.points):
            raise UserError("nothing is marked; click on what makes the sound first")
        with self._turn(session, tell):
            session.track = self._followed(session, film.seconds, tell)

    def _followed(self, session: Session, seconds: float, tell: Tell) -> Any:
        from samaudio import visual

        assert session.recording is not None
        if self.sees:  # which keeps what it finds, so that separating afterwards is quick
            film = session.recording
            sight, _ = self.separator.viewer(film.path, list(session.points), film.start, tell)
            return sight.track
        times = [i / _LOOKS for i in range(max(1, int(seconds * _LOOKS)))]
        return visual.track(session.recording.path, session.points, times,
                            segmenter=self.separator.viewer.segmenter, progress=tell)  # fmt: skip

    def prompts(self, session: Session, phrase: str, start: float | None, end: float | None) -> list[Prompt]:
        """All that was said of the sound.

        Raises:
            UserError: nothing was said, or it cannot be used.
        """
        from samaudio.prompts import Span, Text

        found: list[Prompt] = [Text(phrase.strip())] if phrase and phrase.strip() else []
        if session.recording is None:
            raise UserError("nothing is loaded; choose a file or an example first")
        if session.points:
            if not self.sees:
                raise UserError("the model that runs here does not see; clear the points, and name the sound or say "
                                "when it happens")
            if not any(point.positive for point in session.points):
                raise UserError("all points say what does not belong to the sound; add one on what makes it")
            found += session.points
        if (start is None) != (end is None):
            raise UserError("a time span needs its start and its end; give both, or clear both")
        if start is not None and end is not None:
            found.append(Span(float(start), float(end)))
        if not found:
            where = "click on what makes it, " if session.recording.video is not None and self.sees else ""
            raise UserError(f"which sound? {where}name it, or mark when it happens")
        return found

    def separate(
        self, session: Session, phrase: str, start: float | None, end: float | None, candidates: int, tell: Tell
    ) -> None:
        """Take the sound out.

        Raises:
            UserError: the prompts cannot be used.
        """
        wanted = self.prompts(session, phrase, start, end)
        film = session.recording
        assert film is not None
        session.forget_takes()

        def progress(done: float, total: float | None) -> None:
            tell(_PEAK_SHARE * done / (total or film.seconds))

        with self._turn(session, tell):
            result = self.separator.separate(film.path, wanted, candidates=candidates, progress=progress)
            if session.points and session.track is None:
                session.track = self._followed(session, film.seconds, lambda share: None)
        made, chosen = takes.write_takes(result, session)
        tell((1 + _PEAK_SHARE) / 2)
        takes.complete(made[chosen], film, session)
        session.takes, session.chosen = made, chosen

    def choose(self, session: Session, number: int) -> None:
        """Listen to another candidate."""
        if session.recording is None or not 0 <= number < len(session.takes):
            raise UserError("there is nothing to choose from; separate a sound first")
        takes.complete(session.takes[number], session.recording, session)
        session.chosen = number


def _film(session: Session) -> Any:
    if session.recording is None:
        raise UserError("nothing is loaded; choose a film or an example first")
    if session.recording.video is None:
        raise UserError("this recording has no pictures to point at; name the sound or mark when it happens")
    return session.recording.video
