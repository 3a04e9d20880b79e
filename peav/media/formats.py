"""The formats that `Writer` offers, and what each can hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from peav.errors import UserError, shown
from peav.media.info import MAX_CHANNELS, MAX_RATE, MIN_RATE


@dataclass(frozen=True)
class Format:
    """One way to write a file."""

    container: str  # libsndfile's name
    subtype: str
    suffixes: tuple[str, ...]
    subtypes: tuple[str, ...] = ()  # what `subtype` may choose instead
    rates: tuple[int, ...] | range = range(MIN_RATE, MAX_RATE + 1)  # Hz
    max_channels: int = MAX_CHANNELS
    quality: float | None = None  # libsndfile's compression level, 0 is best


_WAV = ("PCM_16", "PCM_24", "FLOAT")
_MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
FORMATS = {
    "wav": Format("WAV", "PCM_24", (".wav", ".wave"), _WAV),
    "wav24": Format("WAV", "PCM_24", (".wav", ".wave"), _WAV),
    "wav16": Format("WAV", "PCM_16", (".wav", ".wave"), _WAV),
    "wavf": Format("WAV", "FLOAT", (".wav", ".wave"), _WAV),
    "wav32f": Format("WAV", "FLOAT", (".wav", ".wave"), _WAV),
    "flac": Format("FLAC", "PCM_24", (".flac",), ("PCM_16", "PCM_24")),
    "mp3": Format("MP3", "MPEG_LAYER_III", (".mp3",), rates=_MP3_RATES, max_channels=2, quality=0.0),
    # libvorbis takes the whole process down at rates much above 192 kHz.
    "ogg": Format("OGG", "VORBIS", (".ogg", ".oga"), rates=range(8_000, 192_001), quality=0.2),
}


def format_of(path: Path) -> str:
    """The format that the extension names."""
    for name, format in FORMATS.items():
        if path.suffix.lower() in format.suffixes:
            return name
    raise UserError(
        f"{shown(path)}: no format for the ending '{shown(path.suffix, 20)}'; use .wav, .flac, .mp3 or .ogg"
    )


def choose_format(name: str, subtype: str | None, path: Path) -> tuple[Format, str]:
    """The format called `name` and the subtype to use in it."""
    format = FORMATS.get(name)
    if format is None:
        raise UserError(f"format '{shown(name, 40)}' is unknown; choose one of {', '.join(FORMATS)}")
    if path.suffix.lower() not in format.suffixes:
        raise UserError(
            f"{shown(path)}: the extension does not fit the format {name}; name it {shown(path.stem, 60)}"
            f"{format.suffixes[0]}"
        )
    if subtype is None or subtype == format.subtype:
        return format, format.subtype
    if subtype not in format.subtypes:
        choices = ", ".join(format.subtypes or (format.subtype,))
        raise UserError(f"subtype '{shown(subtype, 40)}' is not possible in {name}; choose one of {choices}")
    return format, subtype


def check_encodable(path: Path, name: str, format: Format, sample_rate: int, channels: int) -> None:
    """Refuse a rate (Hz) or number of channels that the format cannot hold."""
    if sample_rate not in format.rates:
        if isinstance(format.rates, range):
            allowed = f"{format.rates[0]} to {format.rates[-1]} Hz"
        else:
            allowed = ", ".join(str(rate) for rate in format.rates) + " Hz"
        instead = "; use wav or flac, or resample" if name in ("mp3", "ogg") else "; resample it"
        raise UserError(f"{shown(path)}: {name} cannot hold {sample_rate} Hz, only {allowed}{instead}")
    if not 1 <= channels <= format.max_channels:
        instead = "use wav or flac, or mix it down" if name == "mp3" else "mix it down"
        raise UserError(
            f"{shown(path)}: {name} cannot hold {channels} channels, only 1 to {format.max_channels}; "
            f"{instead}"
        )
