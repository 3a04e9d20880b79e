"""A file that was loaded: what it is, its sound as a wav that browsers play, and its waveform."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from peav.errors import UserError, shown

if TYPE_CHECKING:
    from peav.media.video import VideoInfo

    from .session import Limits, Session

COLUMNS = 600  # of a drawn waveform


@dataclass(frozen=True)
class Recording:
    """``path`` is the user's file, ``sound`` its sound, which begins ``start`` seconds into the film."""

    path: Path
    sound: Path
    name: str
    seconds: float  # of sound
    start: float
    sample_rate: int  # Hz
    channels: int
    video: VideoInfo | None
    peaks: list[tuple[float, float]]  # lowest and highest sample of each column

    def facts(self) -> str:
        """One line about it."""
        sound = f"{self.seconds:.1f} s of sound, {self.sample_rate / 1000:g} kHz, "
        sound += {1: "mono", 2: "stereo"}.get(self.channels, f"{self.channels} channels")
        if self.video is None:
            return f"{self.name}: {sound}; no pictures"
        return f"{self.name}: {self.video.width} x {self.video.height} pixels, {sound}"


def load(path: Path, name: str, session: Session, limits: Limits, move: bool) -> Recording:
    """Take a file into the session's folder, in place of what was there.

    Args:
        name: what the user calls the file; only its ending is used for files here.
        move: the file is not needed any more where it is.

    Raises:
        UserError: the file is too large or too long, or cannot be read. The session is then as it was.
    """
    ending = Path(name).suffix.lower()
    own = session.new("recording" + (ending if ending[1:].isalnum() and len(ending) < 8 else ""))
    sound = session.new("original.wav")
    try:
        if (size := path.stat().st_size) > limits.bytes:
            raise UserError(f"{shown(name)}: has {size / 1e6:.0f} MB; at most {limits.megabytes:g} MB can be loaded")
        (shutil.move if move else shutil.copyfile)(path, own)
        found = _read(own, name, sound, limits)
    except UserError as error:
        session.undo((own, sound))
        if "is not audio" in str(error):  # a film neither
            raise UserError(f"{shown(name)}: is no film or recording that can be read; convert it to mp4 or wav"
                            ) from error  # fmt: skip
        # Which folder it lies in here is nobody's business.
        raise UserError(str(error).replace(shown(own), shown(name))) from error
    except BaseException:
        session.undo((own, sound))
        raise
    session.empty(keep=(own, sound))
    session.recording = found
    if found.video is not None:
        session.time = round(found.video.seconds / 2, 2)
    return found


def _read(path: Path, name: str, sound: Path, limits: Limits) -> Recording:
    from peav import media

    info = media.probe(path)
    if info.seconds is not None and info.seconds > limits.seconds * 1.02:
        raise _too_long(name, limits)
    video = _pictures(path, limits, name)
    frames = 0
    with media.stream(path, block_frames=1 << 16) as blocks:
        with media.Writer(sound, info.sample_rate, info.channels) as out:
            for block in blocks:
                frames += block.shape[-1]
                if frames > limits.seconds * 1.02 * info.sample_rate:  # whatever its header promised
                    raise _too_long(name, limits)
                out.write(block)
    return Recording(
        path, sound, shown(Path(name).name, 60), frames / info.sample_rate, info.start_seconds, info.sample_rate,
        info.channels, video, peaks(sound),
    )  # fmt: skip


def _too_long(name: str, limits: Limits) -> UserError:
    return UserError(f"{shown(name)}: is longer than {limits.minutes:g} minutes; cut it, or start the demo with "
                     "another --max-minutes")


def _pictures(path: Path, limits: Limits, name: str) -> VideoInfo | None:
    """What the pictures are; None for a recording without any."""
    from peav.media.video import probe_video

    try:
        video = probe_video(path)
    except UserError as error:
        if "no pictures" in str(error) or "not a film" in str(error):
            return None
        raise
    if max(video.width, video.height) > limits.side:
        raise UserError(f"{shown(name)}: its picture is {video.width} x {video.height}; at most {limits.side} pixels "
                        "a side can be loaded, so scale it down")
    if video.seconds > limits.seconds * 1.02:
        raise _too_long(name, limits)
    return video


def peaks(sound: Path, columns: int = COLUMNS) -> list[tuple[float, float]]:
    """Lowest and highest sample, of all channels, in each of at most ``columns`` equal stretches of a file."""
    from peav import media

    frames = media.probe(sound).frames or 1
    step = max(1, -(-frames // columns))
    found = []
    with media.stream(sound, block_frames=step) as blocks:
        for block in blocks:
            found.append((float(block.min()), float(block.max())))
    return found
