"""A multipart body onto the disk.

The body is parsed as it arrives and every byte is counted before it is kept, so a body that is too large is
refused at its first byte too many, whatever length it declared. Names of uploaded files are never used as names
of files here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from judge.server.refusals import Refusal, malformed, too_large, unavailable, unusable
from judge.server.settings import MIB, Settings
from peav.errors import shown

Receive = Callable[[], Awaitable[Any]]

_PARTS_BEYOND = 4  # parts that are refused by name before the body is called malformed


class Disconnected(Exception):
    """The client went away."""


@dataclass
class Form:
    """What came: texts by field, files by field in their order, and the names that the client gave them."""

    texts: dict[str, str] = field(default_factory=dict)
    files: dict[str, list[Path]] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)


async def receive_form(
    receive: Receive,
    headers: Mapping[str, str],
    folder: Path,
    files: Mapping[str, int],
    settings: Settings,
    optional: Sequence[str] = (),
) -> Form:
    """Read a body with the field ``prompt`` and the given files.

    Args:
        receive: the ASGI channel.
        folder: an empty one of the caller's; files appear in it, whatever happens.
        files: how many of each file field there may be; at least one has to be there.
        optional: text fields that may be there.

    Raises:
        Refusal: 400, 408, 413, 415, 422, or 503 where the disk is full.
        Disconnected: nobody is waiting for an answer.
    """
    boundary = _boundary(headers.get("content-type", ""))
    declared = headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > settings.upload_bytes:
        raise _over(settings)
    parts = _Parts(folder, files, ("prompt", *optional), 4 * settings.prompt_characters)
    try:
        async with asyncio.timeout(settings.upload_timeout):
            await _feed(receive, parts, boundary, settings)
    except TimeoutError:
        line = f"the upload took longer than {settings.upload_timeout:g} s; send less, or over a faster line"
        raise Refusal(408, "slow_upload", line) from None
    except OSError as error:
        raise unavailable("the server has no room for the upload right now") from error
    finally:
        parts.close()
    return _checked(parts.form, files, settings)


def _over(settings: Settings) -> Refusal:
    size = settings.upload_bytes
    limit = f"{size / MIB:g} MiB" if size >= MIB else f"{size} bytes"
    return too_large(f"the upload is larger than {limit}; send shorter sounds, or flac")


def _boundary(content_type: str) -> bytes:
    from python_multipart.multipart import parse_options_header

    kind, options = parse_options_header(content_type.encode("latin-1", "replace"))
    if kind != b"multipart/form-data":
        raise Refusal(415, "not_multipart", "send the sounds and the prompt as multipart/form-data")
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 70:  # RFC 2046, 5.1.1
        raise malformed("the Content-Type names no boundary between the parts, or one of more than 70 characters")
    return boundary


async def _feed(receive: Receive, parts: _Parts, boundary: bytes, settings: Settings) -> None:
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser

    parser = MultipartParser(boundary, parts.callbacks())
    parser.logger.disabled = True  # it reports every odd byte of a client's body
    got, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        data, more = message.get("body", b""), message.get("more_body", False)
        got += len(data)
        if got > settings.upload_bytes:
            raise _over(settings)
        try:
            # Straight to the file: a block of 64 KiB into the page cache takes microseconds, a hop to a thread more.
            parser.write(data)
        except FormParserError:
            raise malformed("the body is no multipart/form-data with the boundary of its Content-Type") from None
    if not parts.ended:
        raise malformed("the body ends before its last boundary")


class _Parts:
    """What the parser calls, in the order of the body."""

    def __init__(self, folder: Path, files: Mapping[str, int], texts: Sequence[str], text_bytes: int) -> None:
        self.form = Form()
        self.ended = False
        self._folder, self._files, self._texts, self._text_bytes = folder, files, texts, text_bytes
        self._most = sum(files.values()) + len(texts) + _PARTS_BEYOND
        self._parts = 0
        self._header, self._value = b"", b""
        self._disposition = b""
        self._name = ""
        self._text: bytearray | None = None
        self._file: BinaryIO | None = None

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_header,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._open,
            "on_part_data": self._on_data,
            "on_part_end": self._finish,
            "on_end": self._on_end,
        }

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > self._most:
            raise unusable(f"the body has more than {self._most} parts")
        self._disposition = self._header = self._value = b""

    def _on_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _open(self) -> None:
        from python_multipart.multipart import parse_options_header

        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise malformed("a part of the body has no name")
        self._name = name = options[b"name"].decode("utf-8", "replace")
        if name in self._files:
            there = self.form.files.setdefault(name, [])
            if len(there) >= self._files[name]:
                raise unusable(f"'{name}' was sent more than {_times(self._files[name])}")
            path = self._folder / f"{name}-{len(there):04d}"  # no name is the beginning of another one
            there.append(path)
            self.form.names.setdefault(name, []).append(options.get(b"filename", b"").decode("utf-8", "replace"))
            self._file = path.open("xb")
        elif name not in self._texts:
            wanted = ", ".join([*self._files, *self._texts])
            raise unusable(f"the field '{shown(name, 40)}' is unknown; send {wanted}")
        elif name in self.form.texts:
            raise unusable(f"'{name}' was sent more than once")
        else:
            self._text = bytearray()

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data[start:end])
        elif self._text is not None:
            self._text += data[start:end]
            if len(self._text) > self._text_bytes:
                raise unusable(f"'{self._name}' is too long; a few words name a sound")

    def _finish(self) -> None:
        self.close()
        if self._text is not None:
            try:
                self.form.texts[self._name] = self._text.decode("utf-8")
            except UnicodeDecodeError:
                raise unusable(f"'{self._name}' is not UTF-8 text") from None
            self._text = None

    def _on_end(self) -> None:
        self.ended = True


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _checked(form: Form, files: Mapping[str, int], settings: Settings) -> Form:
    for name in (*files, "prompt"):
        if name not in form.files and name not in form.texts:
            raise unusable(f"'{name}' is missing; send {', '.join([*files, 'prompt'])}")
    prompt = form.texts["prompt"]
    if not prompt.strip():
        raise unusable('the prompt is empty; name the sound, for example "guitar"')
    if len(prompt) > settings.prompt_characters:
        raise unusable(f"the prompt has {len(prompt)} characters; at most {settings.prompt_characters} are read")
    return form
