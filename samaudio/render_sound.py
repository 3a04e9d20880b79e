"""From a phrase or a text to samples, with fluidsynth, espeak-ng and flite run as programs."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from samaudio.render_score import Phrase, midi_bytes

SAMPLE_RATE = 48_000  # Hz
SOUNDFONT = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")  # where Debian's fluid-soundfont-gm puts it


class MissingProgram(RuntimeError):
    """A program or soundfont is not installed; the message names the Debian package."""


@dataclass(frozen=True)
class Speech:
    """What a voice says: `pitch` 0..99 and `speed` in words a minute are espeak-ng's, `stretch` flite's."""

    text: str
    pitch: int
    speed: int
    stretch: float


def require(programs: Iterable[str], soundfont: Path | None = None) -> None:
    """Raises `MissingProgram` unless the programs are on the path and the soundfont, if any, is a file."""
    for program in programs:
        if shutil.which(program) is None:
            raise MissingProgram(f"{program} is not installed; on Debian: apt-get install {program}")
    if soundfont is not None and not soundfont.is_file():
        raise MissingProgram(f"no soundfont at {soundfont}; on Debian: apt-get install fluid-soundfont-gm")


def render_phrase(
    phrase: Phrase,
    soundfont: Path = SOUNDFONT,
    sample_rate: int = SAMPLE_RATE,
    reverb: bool = True,
    chorus: bool = False,
) -> np.ndarray:
    """Plays a phrase with fluidsynth. Returns float64 `[T, 2]`, up to the end of the last note's decay."""
    with tempfile.TemporaryDirectory() as folder:
        midi, wav = Path(folder, "phrase.mid"), Path(folder, "phrase.wav")
        midi.write_bytes(midi_bytes(phrase))
        _call(
            [
                "fluidsynth",
                "-n",
                "-i",
                "-q",
                "-g",
                "0.4",
                "-r",
                str(sample_rate),
                "-R",
                str(int(reverb)),
                "-C",
                str(int(chorus)),
                "-o",
                "synth.dynamic-sample-loading=1",
                "-O",
                "float",
                "-F",
                str(wav),
                str(soundfont),
                str(midi),
            ]
        )
        return soundfile.read(wav, always_2d=True)[0]


def render_speech(speech: Speech, engine: str, voice: str, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Says a text with espeak-ng or flite. Returns float64 `[T]`."""
    with tempfile.TemporaryDirectory() as folder:
        text, wav = Path(folder, "text"), Path(folder, "speech.wav")
        text.write_text(speech.text, encoding="utf-8")
        if engine == "flite":
            _call(
                [
                    "flite",
                    "-voice",
                    voice,
                    "--setf",
                    f"duration_stretch={speech.stretch}",
                    str(text),
                    str(wav),
                ]
            )
        else:
            _call(
                [
                    "espeak-ng",
                    "-v",
                    voice,
                    "-p",
                    str(speech.pitch),
                    "-s",
                    str(speech.speed),
                    "-w",
                    str(wav),
                    "-f",
                    str(text),
                ]
            )
        wave, rate = soundfile.read(wav)
    return resample(wave, rate, sample_rate)


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed ({done.returncode}): {done.stderr.strip()[-300:]}")


def resample(wave: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """Band-limited resampling of a whole `[T]` clip, by lengthening or cutting its spectrum."""
    length = round(len(wave) * new_rate / rate)
    spectrum = np.fft.rfft(wave)
    bins = min(len(spectrum), length // 2 + 1)
    return np.fft.irfft(spectrum[:bins], length) * (length / len(wave))


def trim(
    wave: np.ndarray, seconds: float, sample_rate: int = SAMPLE_RATE, floor_db: float = -50.0
) -> np.ndarray:
    """Cuts silence off both ends of `[T]`, then everything after `seconds`.

    Silent are frames of 20 ms whose level is `floor_db` below the loudest frame's.
    """
    hop = sample_rate // 50
    frames = wave[: len(wave) // hop * hop].reshape(-1, hop)
    level = np.sqrt(np.mean(frames**2, axis=1))
    if level.max(initial=0.0) < 1e-5:
        raise RuntimeError("the rendered clip is silent")
    loud = np.flatnonzero(level > level.max() * 10 ** (floor_db / 20))
    wave = wave[loud[0] * hop : (loud[-1] + 1) * hop][: round(seconds * sample_rate)].copy()
    fade = np.linspace(0, 1, sample_rate // 50)
    wave[-len(fade) :] *= fade[::-1]
    return wave
