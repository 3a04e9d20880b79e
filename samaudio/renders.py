"""Training clips made by code: General MIDI instruments and synthetic voices, one sound to a clip.

    python -m samaudio.renders OUT_FOLDER --minutes 60 --seed 0
    python -m samaudio.renders --example examples/

needs four Debian packages: fluidsynth, fluid-soundfont-gm, espeak-ng, flite. Clips are mono FLAC, 48 kHz,
4 to 8 s (shorter where the last note dies away sooner), listed in OUT_FOLDER/manifest.jsonl: path, label,
captions, group, split, source, license, seconds. A group is a piece of music (one program, key and tempo)
or a synthetic voice, and no group is in both splits. Seed and minutes fix every clip. A second run keeps the
clips it finds, so take a fresh folder for another seed.
"""

import argparse
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import soundfile

from samaudio.render_examples import render_examples
from samaudio.render_players import DRUMS, INSTRUMENTS, VALID_VOICES, VOICES, Drums, Instrument, Voice
from samaudio.render_score import SCALES, Phrase, add_expression, compose, drum_beat, drum_solo
from samaudio.render_sentences import sentences
from samaudio.render_sound import (
    SAMPLE_RATE,
    SOUNDFONT,
    MissingProgram,
    Speech,
    render_phrase,
    render_speech,
    require,
    trim,
)

SECONDS = (4.3, 8.0)  # length of a clip; trimming silence takes some of it
MUSIC_SHARE = 0.75
TAKES = 2  # clips of one piece of music
VALID_EVERY = 12  # pieces: 8 % of them are for validation


@dataclass(frozen=True)
class Clip:
    """One clip to render. `seed` names its random stream; takes of a piece share `piece_seed`."""

    path: str
    player: Instrument | Drums | Voice
    group: str
    split: str
    seconds: float
    seed: str
    piece_seed: str


def plan(minutes: float, seed: int = 0, only: str | None = None) -> list[Clip]:
    """The clips that fill `minutes`, three quarters of it music unless `only` is "music" or "speech"."""
    if only not in (None, "music", "speech"):
        raise ValueError(f"only={only!r}; choose music or speech")
    music = {None: MUSIC_SHARE, "music": 1.0, "speech": 0.0}[only] * minutes * 60
    return _plan_music(music, seed) + _plan_speech(minutes * 60 - music, seed)


def _plan_music(seconds: float, seed: int) -> list[Clip]:
    rng, piece = Random(f"music/{seed}"), 0
    clips: list[Clip] = []
    deck: list[Instrument | Drums] = []
    while seconds > 0:
        if not deck:  # every player comes once, in random order, before any comes again
            deck = [player for player in INSTRUMENTS + DRUMS for _ in range(player.rounds)]
            rng.shuffle(deck)
        player = deck.pop()
        name = f"{player.label.replace(' ', '-')}-{piece:05d}"
        split = "valid" if piece % VALID_EVERY == VALID_EVERY // 2 else "train"
        for take in range(1, TAKES + 1):
            length = round(rng.uniform(*SECONDS), 2)
            clips.append(
                Clip(
                    f"music/{name}-{take}.flac",
                    player,
                    f"renders/music/{seed}/{name}",
                    split,
                    length,
                    f"{seed}/{name}/{take}",
                    f"{seed}/{name}",
                )
            )
            seconds -= length
        piece += 1
    return clips


def _plan_speech(seconds: float, seed: int) -> list[Clip]:
    rng = Random(f"speech/{seed}")
    clips: list[Clip] = []
    deck: list[Voice] = []
    while seconds > 0:
        if not deck:
            deck = rng.sample(VOICES, len(VOICES))
        voice = deck.pop()
        name = f"{voice.engine}-{voice.voice.replace('+', '-')}-{len(clips):05d}"
        length = round(rng.uniform(*SECONDS), 2)
        clips.append(
            Clip(
                f"speech/{name}.flac",
                voice,
                f"renders/{voice.group}",
                "valid" if voice.group in VALID_VOICES else "train",
                length,
                f"{seed}/{name}",
                f"{seed}/{name}",
            )
        )
        seconds -= length
    return clips


def phrase_of(clip: Clip) -> Phrase:
    """What the player of a music clip plays."""
    piece, rng, player = Random(clip.piece_seed), Random(clip.seed), clip.player
    beat, tonic, scale = 60 / piece.uniform(66, 168), piece.randrange(12), piece.choice(list(SCALES))
    if isinstance(player, Instrument):
        phrase = compose(
            rng, rng.choice(player.styles), player.low, player.high, clip.seconds, beat, tonic, scale
        )
        add_expression(rng, phrase, player.bends)
    elif isinstance(player, Voice):
        raise ValueError(f"{clip.path} is spoken, not played")
    elif player.pitches:
        phrase = drum_solo(rng, player.pitches, clip.seconds, beat)
    else:
        phrase = drum_beat(rng, clip.seconds, beat)
    phrase.program = player.program
    return phrase


def speech_of(clip: Clip) -> Speech:
    """What the voice of a speech clip says, a little more than its time holds."""
    if not isinstance(clip.player, Voice):
        raise ValueError(f"{clip.path} is played, not spoken")
    rng = Random(clip.seed)
    speed, stretch = rng.randint(125, 195), round(rng.uniform(0.85, 1.25), 2)
    words = round(clip.seconds * max(speed, 190 / stretch) / 60) + 3
    return Speech(sentences(rng, clip.player.language, words), rng.randint(25, 75), speed, stretch)


def captions_of(clip: Clip) -> list[str]:
    """Three to five wordings for a clip's sound, none of them its label."""
    rng, player = Random(clip.seed + "/captions"), clip.player
    if isinstance(player, Voice):
        who = player.label.split()[0]
        wordings = [
            f"a {who} speaking {player.language}",
            f"a {who} talking",
            f"{_a(who)} reading sentences aloud",
            f"{player.language} speech",
            "a synthetic voice speaking",
            "speech",
            f"{who} talking",
        ]
        wordings += {
            "man": ["male speech", "a male voice"],
            "woman": ["female speech", "a female voice"],
        }.get(who, [])
    else:
        words = phrase_of(clip).words
        manner, what, label, name = words["manner"], words["what"], player.label, player.name
        one = what in ("melody", "bass line", "note", "pattern", "beat")
        described = f"{manner} {what}".strip()
        described = _a(described) if one else described
        plural = label.endswith("s") and not label.endswith("ss")
        subject = label if plural or label == "whistling" else _a(label)
        act = "" if label == "whistling" else "playing "
        wordings = [
            f"{subject} {act}{described}",
            name,
            f"solo {label}",
            f"the sound of {subject}",
            f"{label} {'pattern' if isinstance(player, Drums) else 'music'}",
            f"{manner} {label}".strip(),
        ]
        if what not in ("melody", "pattern"):
            wordings.append(f"{label} {what}")
        if label in ("drum kit", "drums"):
            wordings += ["drums", "drum kit", "a drummer playing", "drum beat"]
    wordings = [w for w in dict.fromkeys(wordings) if w != player.label]
    return rng.sample(wordings, min(len(wordings), rng.randint(3, 5)))


def _a(words: str) -> str:
    return f"{'an' if words[0] in 'aeioAEIO' else 'a'} {words}"


def manifest_row(clip: Clip, seconds: float, soundfont: Path = SOUNDFONT) -> dict:
    """A clip's line in the manifest; `seconds` is the length of its file."""
    player = clip.player
    if isinstance(player, Voice):
        source = f"synthetic speech: {player.engine} voice {player.voice}, text by samaudio.renders"
        license = {
            "flite": "flite and its voices: BSD-like licence of Carnegie Mellon University",
            "espeak-ng": "espeak-ng is GPL-3.0-or-later, a licence of the program and not of what it says",
        }
        terms = license[player.engine]
    else:
        kind = "percussion kit" if isinstance(player, Drums) else "program"
        source = (
            f"composed by samaudio.renders, soundfont {soundfont.stem}, "
            f"{kind} {player.program} ({player.name})"
        )
        terms = (
            "FluidR3 GM soundfont by Frank Wen: MIT"
            if soundfont.stem == SOUNDFONT.stem
            else f"see the licence of the soundfont {soundfont.name}"
        )
    return {
        "path": clip.path,
        "label": player.label,
        "captions": captions_of(clip),
        "group": clip.group,
        "split": clip.split,
        "source": source,
        "license": terms,
        "seconds": round(seconds, 3),
    }


def render_clip(clip: Clip, folder: Path, soundfont: Path = SOUNDFONT) -> dict:
    """Renders a clip into `folder`, unless it is there, and returns its manifest line."""
    path = folder / clip.path
    if not path.exists():
        rng = Random(clip.seed + "/sound")
        if isinstance(clip.player, Voice):
            wave = render_speech(speech_of(clip), clip.player.engine, clip.player.voice)
        else:
            stereo = render_phrase(
                phrase_of(clip), soundfont, reverb=rng.random() < 0.6, chorus=rng.random() < 0.3
            )
            wave = stereo @ np.array(rng.choice(([0.5, 0.5], [0.5, 0.5], [1.0, 0.0], [0.0, 1.0])))
        wave = trim(wave, clip.seconds)
        wave *= 10 ** (rng.uniform(-9, -1) / 20) / np.abs(wave).max()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(
            ".part"
        )  # written whole or not at all: an interrupted run leaves no half clip
        soundfile.write(part, wave, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
        part.replace(path)
    info = soundfile.info(path)
    return manifest_row(clip, info.frames / info.samplerate, soundfont)


def render_all(
    folder: Path,
    minutes: float = 60,
    seed: int = 0,
    soundfont: Path = SOUNDFONT,
    only: str | None = None,
    jobs: int = 1,
) -> list[dict]:
    """Renders `plan(minutes, seed, only)` into `folder`, writes its manifest and returns its lines."""
    from rich.progress import track

    clips = plan(minutes, seed, only)
    voices = {clip.player.engine for clip in clips if isinstance(clip.player, Voice)}
    music = any(not isinstance(clip.player, Voice) for clip in clips)
    require((["fluidsynth"] if music else []) + sorted(voices), soundfont if music else None)
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(jobs) as pool:
        done = pool.map(lambda clip: render_clip(clip, folder, soundfont), clips)
        rows = list(track(done, description="rendering", total=len(clips)))
    part = folder / "manifest.jsonl.part"
    part.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    part.replace(folder / "manifest.jsonl")
    return rows


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m samaudio.renders",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "folder", type=Path, nargs="?", metavar="OUT_FOLDER", help="where clips and manifest go"
    )
    parser.add_argument("--minutes", type=float, default=60, help="audio to render in all (60)")
    parser.add_argument(
        "--seed", type=int, default=0, help="another seed is other music and other sentences (0)"
    )
    parser.add_argument(
        "--soundfont", type=Path, default=SOUNDFONT, help=f"a General MIDI soundfont ({SOUNDFONT})"
    )
    parser.add_argument("--only", choices=("music", "speech"), help="the one or the other (both)")
    parser.add_argument("--jobs", type=int, default=1, help="clips rendered at a time (1)")
    parser.add_argument(
        "--example", type=Path, metavar="FOLDER", help="render the two example mixtures instead"
    )
    options = parser.parse_args(arguments)
    if (options.folder is None) == (options.example is None):
        parser.error("give either OUT_FOLDER or --example FOLDER")
    try:
        if options.example:
            for path in render_examples(options.example, options.soundfont):
                print(path)
        else:
            rows = render_all(
                options.folder, options.minutes, options.seed, options.soundfont, options.only, options.jobs
            )
            minutes = sum(row["seconds"] for row in rows) / 60
            print(f"{len(rows)} clips, {minutes:.1f} minutes: {options.folder / 'manifest.jsonl'}")
    except MissingProgram as problem:
        print(problem, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
