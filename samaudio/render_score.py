"""Music composed by code: phrases for one instrument, and the MIDI bytes that say them.

Everything is drawn from a `random.Random`, so a seed names a phrase. Times are seconds throughout; only
`midi_bytes` knows of ticks.
"""

import struct
from dataclasses import dataclass, field
from random import Random

TICKS_PER_SECOND = 1000  # 500 to a quarter note at 120 a minute: one tick is one millisecond
DRUM_CHANNEL = 9  # General MIDI's percussion channel, counted from 0
MODULATION, PAN, REVERB_SEND, CHORUS_SEND = 1, 10, 91, 93  # controller numbers

SCALES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "harmonic minor": (0, 2, 3, 5, 7, 8, 11),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "pentatonic": (0, 2, 4, 7, 9),
    "blues": (0, 3, 5, 6, 7, 10),
}

# fmt: off
# One bar of four beats each, by pace.
RHYTHMS = {
    "slow": ((4,), (2, 2), (3, 1), (2, 1, 1)),
    "steady": ((1, 1, 1, 1), (1.5, 0.5, 1, 1), (1, 0.5, 0.5, 2), (1.5, 0.5, 2), (0.5, 0.5, 1, 0.5, 0.5, 1),
               (1, 1, 2), (0.75, 0.25, 1, 0.75, 0.25, 1)),
    "fast": ((0.5,) * 8, (0.25,) * 4 + (0.5, 0.5, 1, 1), (0.5, 0.25, 0.25) * 4, (0.25,) * 8 + (0.5,) * 4,
             (1 / 3,) * 6 + (0.5,) * 4),
}
ARTICULATIONS = {"staccato": 0.4, "": 0.85, "legato": 1.03}  # share of its time that a note sounds
PROGRESSIONS = ((0, 4, 5, 3), (0, 3, 4, 0), (0, 5, 3, 4), (1, 4, 0, 0), (0, 6, 5, 4),
                (5, 3, 0, 4), (0, 2, 3, 4))
STRUMS = ((0, 1, 1.5, 2.5, 3, 3.5), (0, 1, 2, 3), (0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5), (0, 1.5, 2.5, 3), (0, 2))
BASS_LINES = (((0, 0), (1, 0), (2, 0), (3, 0)), ((0, 0), (1.5, 0), (2, 7), (3, 7)), ((0, 0), (2, 7)),
              tuple((b / 2, 0) for b in range(8)), tuple((b / 2, 12 * (b % 2)) for b in range(8)),
              ((0, 0), (1, 4), (2, 7), (3, 9)), ((0, 0), (0.75, 0), (1.5, 7), (2.5, 10), (3, 12), (3.5, 7)))
# fmt: on


@dataclass(frozen=True)
class Note:
    """One note: `start` and `length` in seconds, MIDI `pitch` 0..127, `velocity` 1..127."""

    start: float
    length: float
    pitch: int
    velocity: int


@dataclass
class Phrase:
    """What one instrument plays."""

    notes: list[Note]
    program: int = 0
    channel: int = 0
    controls: list[tuple[float, int, int]] = field(default_factory=list)
    """(seconds, controller number, value 0..127)"""
    bends: list[tuple[float, int]] = field(default_factory=list)
    """(seconds, -8192..8191), where 8192 would be two semitones"""
    words: dict[str, str] = field(default_factory=dict)
    """How it is played, for captions: `manner` (adjectives, may be empty) and `what` ("melody", "chords")"""


def midi_bytes(phrase: Phrase) -> bytes:
    """A one-track MIDI file (format 0) of the phrase."""
    channel = phrase.channel
    # At one time: settings first, then ends of notes, then beginnings, or a repeated pitch would end itself.
    events = [(0, 0, bytes([0xC0 | channel, phrase.program]))]
    for seconds, number, value in phrase.controls:
        events.append((_ticks(seconds), 1, bytes([0xB0 | channel, number, value])))
    for seconds, bend in phrase.bends:
        bend += 8192
        events.append((_ticks(seconds), 1, bytes([0xE0 | channel, bend & 0x7F, bend >> 7])))
    for note in phrase.notes:
        events.append((_ticks(note.start), 3, bytes([0x90 | channel, note.pitch, note.velocity])))
        end = max(_ticks(note.start) + 1, _ticks(note.start + note.length))
        events.append((end, 2, bytes([0x80 | channel, note.pitch, 0])))
    track, now = bytearray(), 0
    for tick, _, message in sorted(events):
        track += _variable_length(tick - now) + message
        now = tick
    track += b"\x00\xff\x2f\x00"  # end of track
    return (
        b"MThd"
        + struct.pack(">IHHH", 6, 0, 1, TICKS_PER_SECOND // 2)
        + b"MTrk"
        + struct.pack(">I", len(track))
        + bytes(track)
    )


def _ticks(seconds: float) -> int:
    return max(0, round(seconds * TICKS_PER_SECOND))


def _variable_length(value: int) -> bytes:
    # Seven bits a byte, most significant first, all but the last with the top bit set.
    out = [value & 0x7F]
    while value := value >> 7:
        out.append(0x80 | value & 0x7F)
    return bytes(reversed(out))


def compose(
    rng: Random, style: str, low: int, high: int, seconds: float, beat: float, tonic: int, scale: str
) -> Phrase:
    """A phrase that fills `seconds`.

    Args:
        style: one of `STYLES`.
        low, high: the instrument's range, MIDI pitches; no note is outside it.
        beat: seconds a beat.
        tonic: pitch class of the key, 0 (C) to 11 (B).
        scale: a name in `SCALES`; chords take a scale of seven notes near it.
    """
    if style not in STYLES:
        raise ValueError(f"unknown style {style!r}; choose from {', '.join(STYLES)}")
    phrase = STYLES[style](rng, low, high, seconds, beat, tonic, scale)
    kept = [n for n in phrase.notes if n.start < seconds - 0.05]
    phrase.notes = [_humanised(rng, n) for n in kept]
    return phrase


def _humanised(rng: Random, note: Note) -> Note:
    start = max(0.0, note.start + rng.uniform(-0.008, 0.008))
    velocity = min(127, max(1, note.velocity + rng.randint(-8, 8)))
    return Note(start, note.length, note.pitch, velocity)


def pitches_in(low: int, high: int, tonic: int, scale: str) -> list[int]:
    """All pitches of the scale from `low` to `high`."""
    steps = SCALES[scale]
    return [p for p in range(low, high + 1) if (p - tonic) % 12 in steps]


def _melody(rng, low, high, seconds, beat, tonic, scale, pace=None) -> Phrase:
    pace = pace or rng.choice(("slow", "steady", "steady", "fast"))
    articulation = rng.choice(("staccato", "", "", "legato"))
    # A phrase keeps to about an octave and a half somewhere in the range, as a player would.
    span = min(high - low, rng.randint(12, 19))
    bottom = rng.randint(low, high - span)
    steps = pitches_in(bottom, bottom + span, tonic, scale)
    bars = [rng.choice(RHYTHMS[pace]) for _ in range(2)]  # two bars, repeated: a motif one can recognise
    place, start, bar = rng.randrange(len(steps)), 0.0, 0
    notes: list[Note] = []
    loudness = rng.randint(55, 112)
    while start < seconds:
        for i, beats in enumerate(bars[bar % 2]):
            place += rng.choice((-2, -1, -1, -1, 0, 1, 1, 1, 2, rng.choice((-4, 4))))
            place = abs(place) if place < len(steps) else 2 * (len(steps) - 1) - place  # turn back
            place = min(max(place, 0), len(steps) - 1)
            if notes and rng.random() < 0.07:  # a rest
                start += beats * beat
                continue
            velocity = loudness + (10 if i == 0 else 0)
            notes.append(Note(start, beats * beat * ARTICULATIONS[articulation], steps[place], velocity))
            start += beats * beat
        bar += 1
    centre = sum(n.pitch for n in notes) / len(notes)
    third = (high - low) / 3
    register = "low" if centre < low + third else "high" if centre > high - third else ""
    manner = " ".join(word for word in (pace if pace != "steady" else "", articulation, register) if word)
    return Phrase(notes, words={"manner": manner, "what": "notes" if pace == "slow" else "melody"})


def _long_notes(rng, low, high, seconds, beat, tonic, scale) -> Phrase:
    steps = pitches_in(low, high, tonic, scale)
    count = rng.randint(1, 3)
    length = seconds / count
    place, notes = rng.randrange(len(steps)), []
    for i in range(count):
        notes.append(Note(i * length, length * 0.95, steps[place], rng.randint(60, 110)))
        place = min(max(place + rng.randint(-4, 4), 0), len(steps) - 1)
    return Phrase(notes, words={"manner": "sustained", "what": "notes" if count > 1 else "note"})


def _roll(rng, low, high, seconds, beat, tonic, scale) -> Phrase:
    steps = pitches_in(low, high, tonic, scale)
    rate = rng.uniform(0.055, 0.1)  # seconds between strokes
    notes, start = [], 0.0
    while start < seconds:
        pitch, end = rng.choice(steps), min(seconds, start + rng.choice((2, 4)) * beat)
        swell = rng.choice((0, 40, -30))
        first = start
        while start < end:
            velocity = round(75 + swell * (start - first) / (end - first))
            notes.append(Note(start, rate * 0.9, pitch, velocity))
            start += rate
    return Phrase(notes, words={"manner": "", "what": "rolls"})


def _harmony(rng: Random, low: int, high: int, tonic: int, scale: str) -> list[list[int]]:
    # Triads, or sevenths, on the degrees of a progression: for each, all its pitches in the range.
    steps, stack = SCALES[_seven_notes(scale)], rng.choice((3, 3, 4))
    harmony = []
    for degree in rng.choice(PROGRESSIONS):
        classes = {(tonic + steps[(degree + 2 * i) % 7]) % 12 for i in range(stack)}
        root = (tonic + steps[degree % 7]) % 12
        tones = [p for p in range(low, high + 1) if p % 12 in classes]
        lowest = next((i for i, p in enumerate(tones) if p % 12 == root), 0)
        harmony.append(tones[lowest:] if len(tones) - lowest >= 3 else tones)
    return harmony


def _roots(rng: Random, low: int, tonic: int, scale: str) -> list[int]:
    # The roots of a progression, each in the octave above `low`.
    steps = SCALES[_seven_notes(scale)]
    return [low + (tonic + steps[degree] - low) % 12 for degree in rng.choice(PROGRESSIONS)]


def _seven_notes(scale: str) -> str:
    # Chords are stacked thirds, which needs a scale of seven notes.
    return {"blues": "minor", "pentatonic": "major"}.get(scale, scale)


def _chords(rng, low, high, seconds, beat, tonic, scale) -> Phrase:
    pace = rng.choice((4, 2, 1))  # beats between strokes
    loudness, held, notes, start, i = rng.randint(55, 105), rng.choice((0.5, 0.95)), [], 0.0, 0
    harmony = _harmony(rng, rng.randint(low, max(low, high - 24)), high, tonic, scale)
    while start < seconds:
        tones = harmony[int(start / (4 * beat) + 1e-6) % 4]
        for pitch in tones[: rng.choice((3, 4))]:
            notes.append(Note(start, pace * beat * held, pitch, loudness + (8 if i % 4 == 0 else 0)))
        i, start = i + 1, start + pace * beat
    return Phrase(
        notes, words={"manner": "slow" if pace == 4 else "short" if held == 0.5 else "", "what": "chords"}
    )


def _arpeggio(rng, low, high, seconds, beat, tonic, scale) -> Phrase:
    step = beat * rng.choice((0.5, 0.5, 0.25, 1 / 3))
    order = rng.choice(((0, 1, 2, 3, 4, 3, 2, 1), (0, 2, 1, 2, 3, 2, 1, 2), (0, 1, 2, 3), (4, 3, 2, 1)))
    harmony = _harmony(rng, rng.randint(low, max(low, high - 24)), high, tonic, scale)
    loudness, ring = rng.randint(55, 105), rng.uniform(1, 4)
    count = int(seconds / step) + 1
    notes = []
    for i in range(count):
        tones = harmony[int(i * step / (4 * beat) + 1e-6) % 4]
        pitch = tones[min(order[i % len(order)], len(tones) - 1)]
        notes.append(Note(i * step, step * ring, pitch, loudness + (10 if i % len(order) == 0 else 0)))
    return Phrase(notes, words={"manner": "fast" if step < 0.16 else "", "what": "arpeggios"})


def _strum(rng, low, high, seconds, beat, tonic, scale) -> Phrase:
    hits, strings = rng.choice(STRUMS), rng.randint(4, 6)
    spread, loudness = rng.uniform(0.008, 0.03), rng.randint(60, 105)  # seconds between strings
    harmony = _harmony(rng, low, min(high, low + 31), tonic, scale)
    notes = []
    for bar in range(int(seconds / (4 * beat)) + 1):
        tones = harmony[bar % 4][:strings]
        for i, hit in enumerate(hits):
            start = (bar * 4 + hit) * beat
            length = ((hits + (4,))[i + 1] - hit) * beat * 0.98
            down = hit == int(hit)
            for k, pitch in enumerate(tones if down else reversed(tones)):
                notes.append(Note(start + k * spread, length, pitch, loudness - (0 if down else 14)))
    return Phrase(notes, words={"manner": "strummed", "what": "chords"})


def _power_chords(rng, low, high, seconds, beat, tonic, scale) -> Phrase:
    step, held = beat * rng.choice((0.5, 1, 2)), rng.choice((0.45, 0.95))
    roots = _roots(rng, low, tonic, scale)
    notes = []
    for i in range(int(seconds / step) + 1):
        root = roots[int(i * step / (4 * beat) + 1e-6) % 4]
        for pitch in (root, root + 7, root + 12):
            notes.append(Note(i * step, step * held, min(pitch, high), 105 if i % 4 == 0 else 92))
    return Phrase(notes, words={"manner": "", "what": "power chords"})


def _bass(rng, low, high, seconds, beat, tonic, scale) -> Phrase:
    line, held = rng.choice(BASS_LINES), rng.choice((0.5, 0.9))
    roots = _roots(rng, low, tonic, scale)
    loudness, notes = rng.randint(70, 112), []
    for bar in range(int(seconds / (4 * beat)) + 1):
        for i, (place, interval) in enumerate(line):
            length = (line[i + 1][0] if i + 1 < len(line) else 4) - place
            pitch = roots[bar % 4] + interval
            notes.append(
                Note(
                    (bar * 4 + place) * beat,
                    length * beat * held,
                    pitch if pitch <= high else pitch - 12,
                    loudness + (8 if i == 0 else 0),
                )
            )
    return Phrase(notes, words={"manner": "slow" if len(line) == 2 else "", "what": "bass line"})


STYLES = {
    "melody": _melody,
    "notes": _long_notes,
    "rolls": _roll,
    "chords": _chords,
    "arpeggios": _arpeggio,
    "strum": _strum,
    "power chords": _power_chords,
    "bass": _bass,
}


def add_expression(rng: Random, phrase: Phrase, bends: bool) -> None:
    """Gives a phrase, in place, its own tuning (up to 10 cents off), reverb and chorus, and if
    `bends`, vibrato on long notes and scoops into some of them."""
    tuning = rng.randint(-400, 400)
    phrase.bends.append((0.0, tuning))
    phrase.controls += [
        (0.0, PAN, rng.randint(34, 94)),
        (0.0, REVERB_SEND, rng.choice((0, 20, 50, 90))),
        (0.0, CHORUS_SEND, rng.choice((0, 0, 30, 60))),
    ]
    if not bends:
        return
    vibrato, scoop = rng.choice((0, 20, 45, 80)), rng.choice((0, 0, 0.15, 0.3))
    for note in phrase.notes:
        if vibrato and note.length > 0.6:
            phrase.controls += [(note.start, MODULATION, 0), (note.start + 0.3, MODULATION, vibrato)]
        if rng.random() < scoop:
            depth = rng.randint(1200, 3600)
            phrase.bends += [(note.start + 0.02 * i, tuning - round(depth * (1 - i / 5))) for i in range(6)]


# Drum patterns, a bar long: General MIDI note -> steps, "X" accented, "x" played, "o" barely, "." not.
KICK, STICK, SNARE, CLAP, CLOSED, PEDAL, OPEN, CRASH, RIDE = 36, 37, 38, 39, 42, 44, 46, 49, 51
LOW_TOM, MID_TOM, HIGH_TOM = 41, 45, 48
# fmt: off
BEATS = {
    "rock": {KICK: "X.......X.x.....", SNARE: "....X.......X...", CLOSED: "X.x.X.x.X.x.X.x."},
    "disco": {KICK: "X...X...X...X...", SNARE: "....X.......X...", OPEN: "..X...X...X...X.",
              CLOSED: "x...x...x...x..."},
    "funk": {KICK: "X..x..x...x..x..", SNARE: "....X..o.o..X..o", CLOSED: "XxxxXxxxXxxxXxxx"},
    "half-time": {KICK: "X.....x....x....", SNARE: "........X.......", CLOSED: "X.x.X.x.X.x.X.x."},
    "bossa nova": {KICK: "X..xX..xX..xX..x", STICK: "X..X..X...X..X..", CLOSED: "xoxoxoxoxoxoxoxo"},
    "shuffle": {KICK: "X.....X....x", SNARE: "...X.....X..", CLOSED: "X.xX.xX.xX.x"},
    "metal": {KICK: "xxxxxxxxxxxxxxxx", SNARE: "....X.......X...", RIDE: "X...X...X...X..."},
    "hip hop": {KICK: "X..x...x..X.....", SNARE: "....X.......X..o", CLOSED: "x.x.x.x.x.x.x.xx"},
    "ballad": {KICK: "X.......x.......", STICK: "....X.......X...", RIDE: "x...x...x...x..."},
    "jazz": {KICK: "o.....o.....", SNARE: "......o....o", RIDE: "X..x.xX..x.x", PEDAL: "...X.....X.."},
    "breakbeat": {KICK: "X.X.......XX....", SNARE: "....X..o.o..X..o", CLOSED: "X.X.X.X.X.X.X.X."},
    "tom-tom": {KICK: "X...X...X...X...", LOW_TOM: "X.x..x.xX.x..x.x", MID_TOM: "...x..x....x..x."},
}
# fmt: on
LOUDNESS = {"X": 112, "x": 84, "o": 46}


def drum_beat(rng: Random, seconds: float, beat: float) -> Phrase:
    """A beat in one of the styles of `BEATS`, with a fill every fourth bar and some crash cymbals."""
    style = rng.choice(list(BEATS))
    scale, bar_length, fills = rng.uniform(0.7, 1.1), 4 * beat, rng.random() < 0.7
    notes = []
    for bar in range(int(seconds / bar_length) + 1):
        fill = fills and bar % 4 == rng.choice((1, 3))
        for pitch, steps in BEATS[style].items():
            for i, mark in enumerate(steps):
                if mark != "." and not (fill and i >= len(steps) * 3 // 4 and pitch != KICK):
                    start = (bar + i / len(steps)) * bar_length
                    notes.append(Note(start, 0.1, pitch, min(127, round(LOUDNESS[mark] * scale))))
        if fill:
            for i, pitch in enumerate((SNARE, HIGH_TOM, MID_TOM, LOW_TOM)):
                notes.append(Note((bar + 0.75 + i / 16) * bar_length, 0.1, pitch, round(100 * scale)))
        if bar % 4 == 0 and rng.random() < 0.4:
            notes.append(Note(bar * bar_length, 0.5, CRASH, round(95 * scale)))
    return _drummed(rng, notes, seconds, {"manner": style, "what": "beat"})


def drum_solo(rng: Random, pitches: tuple[int, ...], seconds: float, beat: float) -> Phrase:
    """A pattern for one part of the kit; with several `pitches` (high and low bongo), it mixes them."""
    step = beat * rng.choice((0.25, 0.5, 0.5, 1 / 3, 1))
    density, length = rng.uniform(0.45, 1.0), rng.choice((4, 8, 8, 6))
    pattern = [
        (i == 0 or rng.random() < density, rng.choice(pitches), rng.randint(60, 112)) for i in range(length)
    ]
    notes = [
        Note(i * step, 0.15, pattern[i % length][1], pattern[i % length][2])
        for i in range(int(seconds / step) + 1)
        if pattern[i % length][0]
    ]
    return _drummed(rng, notes, seconds, {"manner": "fast" if step < 0.16 else "", "what": "pattern"})


def _drummed(rng: Random, notes: list[Note], seconds: float, words: dict[str, str]) -> Phrase:
    notes = [_humanised(rng, n) for n in notes if n.start < seconds - 0.05]
    return Phrase(
        notes, channel=DRUM_CHANNEL, words=words, controls=[(0.0, REVERB_SEND, rng.choice((0, 15, 40, 70)))]
    )
