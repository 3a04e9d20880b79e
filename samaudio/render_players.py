"""Who plays and who speaks in `samaudio.renders`: General MIDI programs, drums and synthetic voices, with the
names people call them by."""

from dataclasses import dataclass

SUNG = ("melody", "melody", "melody", "notes")  # for what holds one note at a time
KEYS = ("chords", "arpeggios", "melody")
PLUCKED = ("strum", "strum", "arpeggios", "melody")
MALLETS = ("melody", "arpeggios", "rolls")


@dataclass(frozen=True)
class Instrument:
    """A General MIDI program (counted from 0) and the range, in MIDI pitches, where it sounds like itself."""

    label: str
    name: str
    """More exact than the label ("nylon-string guitar"), used in captions."""
    program: int
    low: int
    high: int
    styles: tuple[str, ...]
    bends: bool = False
    """Whether a player of it bends notes and plays vibrato."""
    rounds: int = 1
    """How often it comes for each once of the others."""


@dataclass(frozen=True)
class Drums:
    """A General MIDI kit (program of the percussion channel). Without `pitches` it plays a whole beat."""

    label: str
    name: str
    program: int = 0
    pitches: tuple[int, ...] = ()
    rounds: int = 1


@dataclass(frozen=True)
class Voice:
    """A synthetic voice. Voices of one `group` share their timbre, so they stay in one split."""

    label: str
    engine: str
    voice: str
    language: str
    group: str


# fmt: off
INSTRUMENTS = [
    Instrument("piano", "grand piano", 0, 33, 96, KEYS, rounds=2),
    Instrument("piano", "bright piano", 1, 33, 96, KEYS),
    Instrument("piano", "honky-tonk piano", 3, 36, 96, KEYS),
    Instrument("electric piano", "electric grand piano", 2, 33, 96, KEYS),
    Instrument("electric piano", "soft electric piano", 4, 36, 91, KEYS),
    Instrument("electric piano", "FM electric piano", 5, 36, 91, KEYS),
    Instrument("harpsichord", "harpsichord", 6, 36, 88, KEYS),
    Instrument("clavinet", "clavinet", 7, 36, 84, KEYS),
    Instrument("celesta", "celesta", 8, 60, 103, KEYS),
    Instrument("glockenspiel", "glockenspiel", 9, 72, 103, MALLETS),
    Instrument("music box", "music box", 10, 60, 96, KEYS),
    Instrument("vibraphone", "vibraphone", 11, 53, 89, KEYS),
    Instrument("marimba", "marimba", 12, 45, 91, MALLETS),
    Instrument("xylophone", "xylophone", 13, 65, 103, MALLETS),
    Instrument("tubular bells", "tubular bells", 14, 60, 77, ("melody", "notes")),
    Instrument("dulcimer", "hammered dulcimer", 15, 48, 86, MALLETS),
    Instrument("organ", "drawbar organ", 16, 36, 91, KEYS),
    Instrument("organ", "percussive organ", 17, 36, 91, KEYS),
    Instrument("organ", "rock organ", 18, 36, 91, KEYS),
    Instrument("organ", "church pipe organ", 19, 36, 91, KEYS),
    Instrument("organ", "reed organ", 20, 36, 84, KEYS),
    Instrument("accordion", "accordion", 21, 48, 88, KEYS),
    Instrument("accordion", "bandoneon", 23, 48, 88, KEYS),
    Instrument("harmonica", "harmonica", 22, 60, 91, SUNG, bends=True),
    Instrument("acoustic guitar", "nylon-string guitar", 24, 40, 79, PLUCKED, rounds=2),
    Instrument("acoustic guitar", "steel-string guitar", 25, 40, 79, PLUCKED, rounds=2),
    Instrument("electric guitar", "jazz guitar", 26, 40, 81, PLUCKED, bends=True),
    Instrument("electric guitar", "clean electric guitar", 27, 40, 81, PLUCKED, bends=True),
    Instrument("electric guitar", "muted electric guitar", 28, 40, 76,
               ("arpeggios", "melody", "power chords")),
    Instrument("electric guitar", "overdriven guitar", 29, 40, 84, ("power chords", "melody"), bends=True),
    Instrument("electric guitar", "distorted guitar", 30, 40, 84, ("power chords", "melody"),
               bends=True, rounds=2),
    Instrument("double bass", "plucked double bass", 32, 28, 55, ("bass", "bass", "melody"), bends=True),
    Instrument("double bass", "bowed double bass", 43, 28, 55, SUNG, bends=True),
    Instrument("bass guitar", "fingered bass guitar", 33, 28, 55, ("bass", "bass", "melody")),
    Instrument("bass guitar", "picked bass guitar", 34, 28, 55, ("bass",)),
    Instrument("bass guitar", "fretless bass guitar", 35, 28, 55, ("bass", "melody"), bends=True),
    Instrument("bass guitar", "slap bass guitar", 36, 28, 55, ("bass",)),
    Instrument("bass guitar", "slapped bass guitar", 37, 28, 55, ("bass",)),
    Instrument("synth bass", "warm synth bass", 38, 28, 55, ("bass",)),
    Instrument("synth bass", "hard synth bass", 39, 28, 55, ("bass",)),
    Instrument("violin", "violin", 40, 55, 95, SUNG, bends=True, rounds=3),
    Instrument("violin", "fiddle", 110, 55, 91, SUNG, bends=True),
    Instrument("viola", "viola", 41, 48, 84, SUNG, bends=True, rounds=2),
    Instrument("cello", "cello", 42, 36, 74, SUNG, bends=True, rounds=2),
    Instrument("string ensemble", "string orchestra", 48, 40, 91, ("chords", "melody", "notes")),
    Instrument("string ensemble", "slow string section", 49, 40, 88, ("chords", "notes")),
    Instrument("string ensemble", "tremolo string section", 44, 40, 88, ("chords", "notes")),
    Instrument("string ensemble", "pizzicato string section", 45, 40, 88, ("melody", "arpeggios")),
    Instrument("harp", "concert harp", 46, 36, 96, ("arpeggios", "arpeggios", "melody")),
    Instrument("timpani", "kettledrum", 47, 40, 57, ("rolls", "melody")),
    Instrument("synth strings", "synthesizer strings", 50, 40, 88, ("chords", "melody")),
    Instrument("choir", "choir singing aah", 52, 48, 79, ("chords", "notes")),
    Instrument("choir", "voices singing ooh", 53, 48, 79, ("chords", "notes", "melody")),
    Instrument("trumpet", "trumpet", 56, 54, 86, SUNG, bends=True, rounds=3),
    Instrument("trumpet", "muted trumpet", 59, 54, 84, SUNG),
    Instrument("trombone", "trombone", 57, 40, 70, SUNG, bends=True),
    Instrument("tuba", "tuba", 58, 28, 58, SUNG, rounds=2),
    Instrument("french horn", "french horn", 60, 41, 77, SUNG),
    Instrument("brass section", "brass section", 61, 43, 82, ("chords", "melody")),
    Instrument("saxophone", "soprano saxophone", 64, 56, 87, SUNG, bends=True),
    Instrument("saxophone", "alto saxophone", 65, 49, 80, SUNG, bends=True),
    Instrument("saxophone", "tenor saxophone", 66, 44, 75, SUNG, bends=True),
    Instrument("saxophone", "baritone saxophone", 67, 37, 68, SUNG, bends=True),
    Instrument("oboe", "oboe", 68, 58, 91, SUNG),
    Instrument("english horn", "cor anglais", 69, 52, 81, SUNG),
    Instrument("bassoon", "bassoon", 70, 35, 72, SUNG),
    Instrument("clarinet", "clarinet", 71, 50, 89, SUNG),
    Instrument("piccolo", "piccolo flute", 72, 74, 105, SUNG),
    Instrument("flute", "concert flute", 73, 60, 94, SUNG, bends=True, rounds=2),
    Instrument("recorder", "recorder", 74, 60, 91, SUNG),
    Instrument("pan flute", "pan pipes", 75, 60, 91, SUNG),
    Instrument("whistling", "person whistling", 78, 67, 95, SUNG, bends=True),
    Instrument("ocarina", "ocarina", 79, 65, 91, SUNG),
    Instrument("synth lead", "square-wave synth", 80, 48, 91, SUNG, bends=True),
    Instrument("synth lead", "sawtooth synth", 81, 48, 91, SUNG, bends=True),
    Instrument("synth lead", "fat lead synthesizer", 87, 40, 84, SUNG),
    Instrument("synth pad", "new-age synthesizer pad", 88, 43, 84, ("chords", "notes")),
    Instrument("synth pad", "warm synthesizer pad", 89, 43, 84, ("chords", "notes")),
    Instrument("synth pad", "sweeping synthesizer pad", 95, 43, 84, ("chords", "notes")),
    Instrument("sitar", "Indian sitar", 104, 48, 79, ("melody",), bends=True),
    Instrument("banjo", "five-string banjo", 105, 48, 84, ("arpeggios", "arpeggios", "melody"), rounds=2),
    Instrument("koto", "Japanese koto", 107, 50, 86, ("melody", "arpeggios")),
    Instrument("kalimba", "thumb piano", 108, 60, 91, ("melody", "arpeggios")),
    Instrument("bagpipe", "bagpipes", 109, 58, 77, ("melody",)),
    Instrument("steel drums", "steel pan", 114, 52, 84, MALLETS),
]

DRUMS = [
    Drums("drum kit", "acoustic drum kit", 0, rounds=3),
    Drums("drums", "drum set", 8, rounds=2),
    Drums("drums", "rock drum kit", 16, rounds=2),
    Drums("drum kit", "jazz drum kit", 32, rounds=2),
    Drums("drum kit", "drum kit played with brushes", 40),
    Drums("drum machine", "electronic drum kit", 24),
    Drums("drum machine", "TR-808 drum machine", 25),
    Drums("kick drum", "bass drum of a kit", 0, (36,)),
    Drums("kick drum", "electronic kick drum", 25, (36,)),
    Drums("snare drum", "snare", 0, (38,)),
    Drums("snare drum", "electric snare", 16, (38, 40)),
    Drums("closed hi-hat", "tight hi-hat", 0, (42,)),
    Drums("hi-hat", "hi-hat, open and closed", 0, (42, 42, 46), rounds=2),
    Drums("ride cymbal", "ride", 0, (51, 51, 53)),
    Drums("crash cymbal", "crash", 0, (49, 57)),
    Drums("tom drum", "tom-toms", 0, (41, 45, 48)),
    Drums("tambourine", "jingling tambourine", 0, (54,)),
    Drums("cowbell", "cowbell", 0, (56,)),
    Drums("hand claps", "clapping", 0, (39,)),
    Drums("bongos", "bongo drums", 0, (60, 61)),
    Drums("congas", "conga drums", 0, (62, 63, 64)),
    Drums("maracas", "maracas", 0, (70,)),
    Drums("agogo bells", "agogo", 0, (67, 68)),
    Drums("wood block", "temple block", 0, (76, 77)),
    Drums("triangle", "orchestral triangle", 0, (81,)),
]

# fmt: on

LANGUAGES = {
    "en-us": "English",
    "en-gb": "English",
    "en-gb-scotland": "English",
    "en-gb-x-rp": "English",
    "de": "German",
    "fr-fr": "French",
    "es": "Spanish",
    "it": "Italian",
    "pt-br": "Portuguese",
}


VALID_VARIANTS = ("m7", "f5")  # heard in five languages only, to keep validation at about 8 %


def _voices() -> list[Voice]:
    voices = [
        Voice("man speaking", "flite", "rms", "English", "flite/rms"),
        Voice("woman speaking", "flite", "slt", "English", "flite/slt"),
        Voice("man speaking", "flite", "awb", "English", "flite/awb"),
        Voice("man speaking", "flite", "kal16", "English", "flite/kal16"),
    ] * 6
    variants = [f"m{i}" for i in range(1, 8)] + [f"f{i}" for i in range(1, 6)] + [""]
    for i, (code, language) in enumerate(LANGUAGES.items()):
        for variant in variants:
            if variant in VALID_VARIANTS and i % 2:
                continue
            label = {"m": "man speaking", "f": "woman speaking"}.get(variant[:1], "person speaking")
            voices.append(
                Voice(
                    label,
                    "espeak-ng",
                    f"{code}+{variant}" if variant else code,
                    language,
                    f"espeak-ng/{variant or 'plain'}",
                )
            )
    return voices


VOICES = _voices()
VALID_VOICES = {f"espeak-ng/{variant}" for variant in VALID_VARIANTS}  # groups; train has no clip of these
