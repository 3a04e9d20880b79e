"""Whether an upload is sound, and how much of it, found out in bounded memory before the model sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from judge.server.observe import log
from judge.server.refusals import Refusal, too_large, unavailable, unusable
from judge.server.settings import MIB, Settings
from peav.errors import UserError, shown

_BLOCK = 65_536  # samples per channel


class Abandoned(Exception):
    """Nobody waits for the answer any more."""


def check_sound(path: Path, role: str, settings: Settings, abandoned: Callable[[], bool]) -> float:
    """Decode a file once, block by block, and keep nothing of it.

    What the header says is checked before the first sample, what it does not say as soon as it shows: a file
    of a few kilobytes may unpack to hours of silence.

    Args:
        role: what to call the file in messages.
        abandoned: asked between blocks.

    Returns:
        Its length in seconds.

    Raises:
        Refusal: 413 for more than the limits, 422 for what is no sound.
    """
    from peav import media

    frames = 0
    try:
        with media.stream(path, _BLOCK) as blocks:
            info = blocks.info
            _check_size(info.frames or 0, info.seconds or 0.0, info.sample_rate, info.channels, role, settings)
            for block in blocks:
                if abandoned():
                    raise Abandoned
                frames += block.shape[-1]
                seconds = frames / info.sample_rate
                _check_size(frames, seconds, info.sample_rate, info.channels, role, settings)
            return frames / info.sample_rate
    except (Refusal, Abandoned):
        raise
    except UserError as error:
        raise unusable(anonymous(str(error), {path: role})) from error
    except MemoryError:
        raise unavailable("the server is out of memory right now") from None
    except Exception as error:
        # The only input here is the client's file. What its decoder stumbles over is worth a look, but no 500.
        log.warning("an upload made its decoder fail", exc_info=error)
        raise unusable(f"{role}: cannot be decoded; convert it to wav or flac") from error


def _check_size(frames: int, seconds: float, rate: int, channels: int, role: str, settings: Settings) -> None:
    if seconds > settings.seconds:
        raise too_large(f"{role}: lasts longer than {settings.seconds:g} s; send a part of it")
    if 4 * channels * max(frames, int(seconds * rate)) > settings.decoded_bytes:
        limit = settings.decoded_bytes / MIB
        raise too_large(f"{role}: unpacks to more than {limit:g} MiB of samples; send a part of it, or fewer channels")


def anonymous(message: str, roles: Mapping[Path, str]) -> str:
    """A message that speaks of the client's files by their roles, not by where they lie on this machine."""
    for path, role in roles.items():
        for limit in (10_000, 90, 60):  # how messages shorten a path
            message = message.replace(shown(path, limit), role)
    folders = {name for path in roles for name in (str(path.parent), path.parent.name, path.parent.parent.name) if name}
    if any(folder in message for folder in folders):
        return "a sound cannot be used as it is; convert it to wav or flac"
    return message
