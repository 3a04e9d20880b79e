"""The wav header, up to and beyond 4 GiB.

A length in a wav header is 32 bits. RF64 (EBU Tech 3306) is the same file with 64-bit lengths in a chunk at
its start. Every file here begins with a `JUNK` chunk of that size, so the decision is made when the length is
known, by rewriting the header in place. libsndfile's own wav writer decides before the first sample, and
stamps the time of day into float files, so that the same samples would never give the same bytes twice.
"""

from __future__ import annotations

import struct

_PCM, _IEEE_FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_SUBTYPE_TAIL = bytes.fromhex("000000001000800000aa00389b71")  # the fixed part of a format GUID
_LONGEST = 0xFFFF_FFFF  # bytes; what 32 bits can say
_DS64_BYTES = 28


def wav_header(sample_rate: int, channels: int, sample_bytes: int, is_float: bool, frames: int) -> bytes:
    """Everything before the samples; the same length for every `frames`.

    Args:
        sample_bytes: bytes of one sample of one channel.
        frames: samples per channel.
    """
    frame_bytes = channels * sample_bytes
    data_bytes = frames * frame_bytes
    chunks = _chunk(b"fmt ", _format(sample_rate, channels, sample_bytes, is_float))
    if is_float:
        chunks += _chunk(b"fact", struct.pack("<I", min(frames, _LONGEST)))
    riff_bytes = 4 + 8 + _DS64_BYTES + len(chunks) + 8 + data_bytes + data_bytes % 2
    if needs_rf64(riff_bytes):
        sizes = struct.pack("<QQQI", riff_bytes, data_bytes, frames, 0)
        start = b"RF64" + struct.pack("<I", _LONGEST) + b"WAVE" + _chunk(b"ds64", sizes)
        return start + chunks + b"data" + struct.pack("<I", _LONGEST)
    start = b"RIFF" + struct.pack("<I", riff_bytes) + b"WAVE" + _chunk(b"JUNK", bytes(_DS64_BYTES))
    return start + chunks + b"data" + struct.pack("<I", data_bytes)


def needs_rf64(riff_bytes: int) -> bool:
    """Whether a file with so many bytes after its first eight is too long for a plain wav header."""
    return riff_bytes >= _LONGEST


def _format(sample_rate: int, channels: int, sample_bytes: int, is_float: bool) -> bytes:
    tag = _IEEE_FLOAT if is_float else _PCM
    frame_bytes = channels * sample_bytes
    numbers = (channels, sample_rate, sample_rate * frame_bytes, frame_bytes, 8 * sample_bytes)
    if channels <= 2:
        return struct.pack("<HHIIHH", tag, *numbers) + (b"\0\0" if is_float else b"")
    # More than two channels need the extensible form; a mask of 0 says "in order, no loudspeaker named".
    guid = struct.pack("<H", tag) + _SUBTYPE_TAIL
    return struct.pack("<HHIIHHHHI", _EXTENSIBLE, *numbers, 22, 8 * sample_bytes, 0) + guid


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content
