"""What belongs to one user: a folder that nobody else is told of, what was loaded, pointed at and taken out."""

from __future__ import annotations

import secrets
import shutil
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING
from urllib.parse import quote

from peav.errors import UserError

if TYPE_CHECKING:
    from samaudio.prompts import Click
    from samaudio.visual import ObjectTrack

    from .recording import Recording
    from .takes import Take

GRACE = 120.0  # seconds that a closed page's files are kept: a phone may have lost its network for a moment
IDLE = 2 * 3600.0  # seconds without a sign of life
MOST = 50  # sessions with files at one time


@dataclass(frozen=True)
class Limits:
    """Of what users may load."""

    megabytes: float = 200.0
    minutes: float = 5.0
    side: int = 4096  # pixels, of a picture's longer side

    @property
    def bytes(self) -> int:
        return max(1, round(self.megabytes * 1_000_000))

    @property
    def seconds(self) -> float:
        return 60.0 * self.minutes

    def __str__(self) -> str:
        return f"{self.megabytes:g} MB and {self.minutes:g} minute{'' if self.minutes == 1 else 's'}"


class Stopped(UserError):
    """The user asked for an end of the work."""

    def __init__(self) -> None:
        super().__init__("stopped; nothing was kept of it")


@dataclass
class Session:
    """One user's page. ``points`` are all about one object; ``track`` and ``takes`` belong to the present ones."""

    folder: Path
    token: str
    recording: Recording | None = None
    points: list[Click] = field(default_factory=list)
    time: float = 0.0  # seconds, of the picture that is shown
    track: ObjectTrack | None = None
    takes: list[Take] = field(default_factory=list)
    chosen: int = 0
    waiting: bool = False  # for another user's work
    stop: threading.Event = field(default_factory=threading.Event)
    busy: threading.Lock = field(default_factory=threading.Lock)
    seen: float = field(default_factory=monotonic)
    left: float | None = None  # when the page was closed
    closed: bool = False
    _offered: dict[int, Path] = field(default_factory=dict)
    _pictures: list[Path] = field(default_factory=list)
    _next: int = 0

    def new(self, name: str) -> Path:
        """A free path in the user's folder, which is made if need be."""
        if self.closed:
            raise UserError("this page was closed; load it again")
        self._next += 1
        folder = self.folder / str(self._next)
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name

    def url(self, path: Path) -> str:
        """Where the page finds a file of this session."""
        number = next((number for number, known in self._offered.items() if known == path), None)
        if number is None:
            self._next += 1
            number = self._next
            self._offered[number] = path
        return f"/media/{self.token}/{number}/{quote(path.name)}"

    def offered(self, number: int) -> Path | None:
        return self._offered.get(number)

    def picture(self, path: Path) -> str:
        """As :meth:`url`, for a picture that is soon replaced: only the last few are kept."""
        self._pictures.append(path)
        while len(self._pictures) > 6:
            self.drop(self._pictures.pop(0))
        return self.url(path)

    def drop(self, path: Path) -> None:
        """Forget and remove a file."""
        self._offered = {number: known for number, known in self._offered.items() if known != path}
        path.unlink(missing_ok=True)

    def forget_takes(self) -> None:
        """Remove what was taken out."""
        for take in self.takes:
            for path in take.files():
                self.drop(path)
        self.takes, self.chosen = [], 0

    def empty(self, keep: Sequence[Path] = ()) -> None:
        """As at the beginning; all files are removed, but those of ``keep``."""
        self._offered, self._pictures = {}, []
        self.recording, self.points, self.track, self.takes, self.chosen, self.time = None, [], None, [], 0, 0.0
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        kept = {path.parent for path in keep}
        for folder in self.folder.iterdir():
            if folder not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def undo(self, paths: Sequence[Path]) -> None:
        """Remove new paths with their folders."""
        for path in paths:
            shutil.rmtree(path.parent, ignore_errors=True)
        with suppress(OSError):  # not when there is more
            self.folder.rmdir()


class Sessions:
    """All users' sessions, by the name that the browser page has for itself."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._all: dict[str, Session] = {}
        self._lock = threading.Lock()

    def of(self, key: str | None) -> Session:
        """The session of a page, new or known.

        Raises:
            UserError: the page has no name, or there are too many users.
        """
        if not key:
            raise UserError("this request belongs to no page; open the page in a browser")
        with self._lock:
            found = self._all.get(key)
            if found is None:
                if len(self._all) >= MOST:
                    raise UserError("too many people are here at the moment; try again in some minutes")
                token = secrets.token_urlsafe(24)
                found = self._all[key] = Session(self._root / token, token)
            found.seen, found.left = monotonic(), None
            return found

    def find(self, token: str, number: int) -> Path | None:
        """A file that was offered to the user who knows the token."""
        with self._lock:
            for session in self._all.values():
                if secrets.compare_digest(session.token.encode(), token.encode()):
                    session.seen = monotonic()
                    return session.offered(number)
        return None

    def leave(self, key: str | None) -> None:
        """The page was closed; its work ends, its files go soon."""
        with self._lock:
            session = self._all.get(key or "")
            if session is not None:
                session.left = monotonic()
                session.stop.set()

    def sweep(self, now: float | None = None) -> int:
        """Remove the sessions that are over; returns how many."""
        now = monotonic() if now is None else now
        with self._lock:
            over = [
                key for key, session in self._all.items()
                if (session.left is not None and now - session.left > GRACE)
                or (now - session.seen > IDLE and not session.busy.locked())
            ]  # fmt: skip
            gone = [self._all.pop(key) for key in over]
        for session in gone:
            _end(session)
        return len(gone)

    def close(self) -> None:
        """Remove all of them."""
        with self._lock:
            gone, self._all = list(self._all.values()), {}
        for session in gone:
            _end(session)

    def __len__(self) -> int:
        return len(self._all)


def _end(session: Session) -> None:
    session.closed = True
    session.stop.set()
    session.empty()
