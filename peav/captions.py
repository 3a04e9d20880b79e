"""Wordings of a label: templates around its names, and which labels cannot be told apart by name."""

from __future__ import annotations

import random
from collections.abc import Sequence

from .vocabulary import ABSENT, SYNONYMS
from .wording import phrasings

TEMPLATES = (
    "{}", "{}", "{}", "{} sound", "the sound of {}", "the sound of a {}", "a {}", "{} playing", "the {}",
    "a recording of {}", "someone playing the {}", "solo {}", "{} in the background", "loud {}", "soft {}",
    "only the {}", "I can hear {}", "isolate the {}", "{} track", "a close recording of {}", "distant {}",
)
# "someone playing the rain" would teach nothing: these only fit things that are played.
PLAYED = ("playing", "solo")

# A prompt for one of these may rightly extract the other, so they never serve as each other's negative.
OVERLAPPING: tuple[frozenset[str], ...] = tuple(map(frozenset, (
    {"hi-hat", "closed hi-hat", "open hi-hat", "hi-hat pedal"},
    {"kick drum", "bass drum", "surdo drum", "cinematic boom"},
    {"snare drum", "rimshot", "side stick", "drum roll"},
    {"crash cymbal", "ride cymbal", "cymbal", "splash cymbal", "clash cymbals", "hand cymbals", "china cymbal",
     "suspended cymbal", "sizzle cymbal"},
    {"guitar", "acoustic guitar", "electric guitar"},
    {"person speaking", "man speaking", "woman speaking"},
    {"choir", "eerie humming"},
    {"bell", "chime", "triangle", "wind chimes", "bell tree", "glockenspiel", "celesta", "music box", "tubular bells"},
    {"synth bass", "bass guitar", "drone"},
    {"wood block", "castanets", "ratchet", "guiro", "hoof rattle", "cabasa"},
    {"piano", "electric piano"},
    {"bass guitar", "double bass", "synth bass"},
    {"strings", "string ensemble", "violin", "viola", "cello", "double bass"},
    {"brass section", "trumpet", "trombone", "french horn", "tuba"},
    {"synth lead", "synth pad", "synthesizer", "synth strings", "synth brass", "synth", "synth bass"},
    {"flute", "piccolo", "recorder", "pan flute"},
    {"glitch percussion", "electronic blip", "electronic beep", "robot sounds", "telephone"},
    {"vinyl hiss", "rain", "buzzing"},
)))
_DRUM_WORDS = ("drum", "hi-hat", "cymbal", "rimshot", "side stick", "percussion loop", "beat")
_WHOLE_KIT = {"drum kit", "drums", "drum beat", "electronic beat", "percussion loop", "drum loop", "percussion"}


def overlap(a: str, b: str) -> bool:
    """Whether a prompt for label ``a`` may rightly extract a sound labelled ``b``."""
    if a == b or any(a in family and b in family for family in OVERLAPPING):
        return True
    for kit, part in ((a, b), (b, a)):
        if kit in _WHOLE_KIT and (part in _WHOLE_KIT or any(word in part for word in _DRUM_WORDS)):
            return True
    return False


def wordings(label: str, captions: Sequence[str] = (), played: bool = True) -> list[str]:
    """Every phrase training may use for a clip: label and synonyms through the templates, captions, other phrasings."""
    short = [label, *SYNONYMS.get(label, ())]
    templates = [t for t in dict.fromkeys(TEMPLATES) if played or not any(word in t for word in PLAYED)]
    return list(dict.fromkeys([t.format(s) for s in short for t in templates] + list(captions)
                              + list(phrasings()[0].get(label, ()))))


def draw(rng: random.Random, label: str, captions: Sequence[str], played: bool = True) -> str:
    """One wording: the plain label most often, then a caption, then a synonym or template, then another phrasing."""
    choice = rng.random()
    if choice < 0.35:
        return label
    if choice < 0.65 and captions:
        return rng.choice(captions)
    if choice > 0.9 and (others := phrasings()[0].get(label)):
        return rng.choice(others)
    short = rng.choice((label, *SYNONYMS.get(label, ())))
    templates = TEMPLATES if played else [t for t in TEMPLATES if not any(word in t for word in PLAYED)]
    return rng.choice(templates).format(short)


def draw_absent(rng: random.Random) -> str:
    """A phrase for a sound that no clip of the pool is."""
    templates = [t for t in TEMPLATES if not any(word in t for word in PLAYED)]
    choice = rng.random()
    if choice < 0.25:
        return rng.choice(phrasings()[1])
    return rng.choice(templates).format(rng.choice(ABSENT)) if choice < 0.6 else rng.choice(ABSENT)
