"""The two mixtures shipped in `examples/`, each with the true stem of one of its sounds.

`band.flac` is a guitar, a flute and drums in stereo; `street.flac` is a woman speaking in the rain. A stem is
written in 16 bits before it is added, so that mixture minus stem is the rest of the mixture to the last bit.
"""

from pathlib import Path
from random import Random

import numpy as np
import soundfile

from samaudio.render_score import DRUM_CHANNEL, PAN, REVERB_SEND, Note, Phrase
from samaudio.render_sound import SOUNDFONT, Speech, render_phrase, render_speech, require

SAMPLE_RATE = 44_100  # Hz
PEAK = 0.7  # of the mixture
BEAT = 0.6  # seconds: 100 beats a minute
BAND_SECONDS, STREET_SECONDS = 11.5, 8.0

# G major: four bars of G, E minor, C and D, then a last G.
GUITAR_CHORDS = (
    (43, 47, 50, 55, 59, 67),
    (40, 47, 52, 55, 59, 64),
    (48, 52, 55, 60, 64),
    (50, 57, 62, 66),
    (43, 47, 50, 55, 59, 67),
)
PICKED = {4: (0, 1, 2, 3, 2, 1, 3, 2), 5: (0, 2, 3, 4, 3, 2, 4, 3), 6: (0, 2, 3, 4, 3, 2, 4, 3)}  # strings, by eighths
FLUTE_TUNE = (  # (beats, pitch), 0 is a rest
    (1, 0),
    (1, 74),
    (1, 79),
    (1, 83),
    (1.5, 83),
    (0.5, 81),
    (1, 79),
    (1, 76),
    (1, 79),
    (0.5, 76),
    (0.5, 74),
    (1, 72),
    (1, 76),
    (1.5, 74),
    (0.5, 76),
    (1, 78),
    (1, 81),
    (3, 79),
)
SENTENCE = "Good evening. I have been waiting at the corner since seven. Shall we walk home together?"


def render_examples(folder: Path, soundfont: Path = SOUNDFONT) -> list[Path]:
    """Renders both mixtures and their stems into `folder`, and returns the paths written."""
    require(["fluidsynth", "flite"], soundfont)
    folder.mkdir(parents=True, exist_ok=True)
    guitar, flute, drums = (
        fit(render_phrase(phrase, soundfont, SAMPLE_RATE), BAND_SECONDS)
        for phrase in (guitar_part(), flute_part(), drum_part())
    )
    band = _write_mixture(
        folder, "band", {"guitar": guitar}, _at(flute, guitar, -1.0) + _at(drums, guitar, -9.0)
    )
    voice = fit(
        np.pad(
            render_speech(Speech(SENTENCE, 50, 160, 1.05), "flite", "slt", SAMPLE_RATE), (SAMPLE_RATE // 2, 0)
        ),
        STREET_SECONDS,
    )
    street = _write_mixture(folder, "street", {"speech": voice}, _at(rain(STREET_SECONDS), voice, -4.0))
    return band + street


def guitar_part() -> Phrase:
    """Nylon-string guitar, picked string by string, on the left."""
    rng, notes = Random("guitar"), []
    for bar, chord in enumerate(GUITAR_CHORDS):
        for eighth, string in enumerate(PICKED[len(chord)] if bar < 4 else (0, 1, 2, 3)):
            start = (4 * bar + (eighth if bar < 4 else 0) / 2) * BEAT + rng.uniform(0, 0.006)
            velocity = (92 if eighth == 0 else 78) + rng.randint(-5, 5)
            notes.append(Note(start, 0.5 if bar < 4 else 2.0, chord[string], velocity))
    return Phrase(notes, program=24, controls=[(0.0, PAN, 34), (0.0, REVERB_SEND, 30)])


def flute_part() -> Phrase:
    """A flute's melody over the same bars, on the right."""
    notes, beats = [], 0.0
    for length, pitch in FLUTE_TUNE:
        if pitch:
            notes.append(Note(beats * BEAT, 0.94 * length * BEAT, pitch, 92 if beats % 4 == 0 else 84))
        beats += length
    return Phrase(notes, program=73, controls=[(0.0, PAN, 94), (0.0, REVERB_SEND, 60)])


def drum_part() -> Phrase:
    """Light drums in the middle: kick, side stick and hi-hat, and a ride cymbal to end with."""
    rng, notes = Random("drums"), []
    for bar in range(4):
        for eighth in range(8):
            notes.append(
                Note((4 * bar + eighth / 2) * BEAT, 0.1, 42, (74, 52)[eighth % 2] + rng.randint(-6, 6))
            )
        for beat, pitch, velocity in ((0, 36, 92), (1, 37, 84), (2, 36, 84), (2.5, 36, 66), (3, 37, 86)):
            notes.append(Note((4 * bar + beat) * BEAT, 0.1, pitch, velocity))
    notes += [Note(16 * BEAT, 0.1, 36, 90), Note(16 * BEAT, 1.0, 51, 80)]
    return Phrase(notes, channel=DRUM_CHANNEL, controls=[(0.0, REVERB_SEND, 30)])


def rain(seconds: float, sample_rate: int = SAMPLE_RATE, seed: int = 0) -> np.ndarray:
    """Noise like rain, `[T]`: a steady hiss, and drops that land nearer, 250 a second."""
    rng = np.random.default_rng(seed)
    length = round(seconds * sample_rate)
    spectrum = np.fft.rfft(rng.standard_normal(length))
    hertz = np.fft.rfftfreq(length, 1 / sample_rate)
    # Falls 3 dB an octave above 400 Hz and fades below, as rain on a pavement does.
    spectrum *= hertz / (hertz + 400) / np.sqrt(1 + hertz / 400)
    hiss = np.fft.irfft(spectrum, length)
    drops, drop_length = np.zeros(length + sample_rate), sample_rate // 50
    time = np.arange(drop_length) / sample_rate
    for start in rng.integers(0, length, round(250 * seconds)):
        decay = np.exp(-time / rng.uniform(0.0004, 0.003))
        drop = decay * np.sin(2 * np.pi * rng.uniform(1500, 9000) * time + rng.uniform(0, 2 * np.pi))
        drops[start : start + drop_length] += rng.exponential() * drop
    return hiss / hiss.std() + 0.5 * drops[:length] / drops[:length].std()


def fit(wave: np.ndarray, seconds: float) -> np.ndarray:
    """A sound ``[T]`` or ``[T, C]`` at `SAMPLE_RATE`, exactly so long, with a fade of a quarter second at its end."""
    length, fade = round(seconds * SAMPLE_RATE), SAMPLE_RATE // 4
    wave = np.pad(wave, [(0, max(0, length - len(wave)))] + [(0, 0)] * (wave.ndim - 1))[:length].copy()
    wave[-fade:] *= np.linspace(1, 0, fade).reshape(-1, *[1] * (wave.ndim - 1))
    return wave


def _at(wave: np.ndarray, reference: np.ndarray, decibels: float) -> np.ndarray:
    # `wave` at a level of so many decibels over that of `reference`.
    return wave * np.sqrt(np.mean(reference**2) / np.mean(wave**2)) * 10 ** (decibels / 20)


def _write_mixture(folder: Path, name: str, stem: dict[str, np.ndarray], rest: np.ndarray) -> list[Path]:
    [(stem_name, target)] = stem.items()
    scale = PEAK * 2**15 / np.abs(target + rest).max()
    target, rest = (np.round(wave * scale).astype(np.int16) for wave in (target, rest))
    paths = [folder / f"{name}.flac", folder / f"{name}.{stem_name}.flac"]
    for path, wave in zip(paths, (target + rest, target), strict=True):
        soundfile.write(path, wave, SAMPLE_RATE, subtype="PCM_16")
    return paths
