"""Which picture stands for which sound: labels to things, things to code points.

Picture fonts know few instruments, so a label is shown by its own picture where there is one and by that of a relative
where there is none (`RELATED`: a cello is drawn as a violin, a hi-hat as a drum). Labels that share a picture cannot be
told apart by looks; between two such objects only movement decides.
"""

from __future__ import annotations

from collections.abc import Iterable

# What pictures show: the word for captions, and code points as in the names of picture files.
THINGS: dict[str, tuple[str, ...]] = {
    "guitar": ("1f3b8",), "violin": ("1f3bb",), "banjo": ("1fa95",), "harp": ("1fa89",),
    "saxophone": ("1f3b7",), "trumpet": ("1f3ba",), "trombone": ("1fa8a",), "flute": ("1fa88",), "horn": ("1f4ef",),
    "keyboard": ("1f3b9",), "accordion": ("1fa97",), "mixing desk": ("1f39b", "1f39a"),
    "drum": ("1f941",), "hand drum": ("1fa98",), "maracas": ("1fa87",),
    "bell": ("1f514", "1f6ce"), "wind chime": ("1f390",), "microphone": ("1f3a4", "1f399"),
    "record": ("1f4bf", "1f4c0"),
    "speaking head": ("1f5e3",), "person": ("1f9d1", "1f9d3"), "man": ("1f468", "1f474", "1f9d4"),
    "woman": ("1f469", "1f475", "1f471"), "baby": ("1f476",), "sneezing face": ("1f927",), "sick face": ("1f922",),
    "whistling face": ("1f617",), "clapping hands": ("1f44f",), "snapping fingers": ("1faf0",), "ghost": ("1f47b",),
    "dog": ("1f436", "1f415", "1f429"), "rooster": ("1f413",), "bird": ("1f426",), "cat": ("1f431", "1f408"),
    "cow": ("1f42e", "1f404"), "sheep": ("1f411",), "pig": ("1f437", "1f416"), "horse": ("1f434", "1f40e"),
    "duck": ("1f986",), "frog": ("1f438",), "owl": ("1f989",), "bee": ("1f41d",), "lion": ("1f981",),
    "wolf": ("1f43a",),
    "rain cloud": ("1f327", "2614"), "thunder cloud": ("1f329", "26c8"), "wave": ("1f30a",), "fire": ("1f525",),
    "gust": ("1f4a8", "1f32c"), "explosion": ("1f4a5", "1f4a3"), "lightning": ("26a1",),
    "clock": ("1f570", "23f0"), "telephone": ("260e", "1f4de"), "pager": ("1f4df",), "printer": ("1f5a8",),
    "robot": ("1f916",), "alien": ("1f47e",), "saw": ("1fa9a",), "hammer": ("1f528",), "gear": ("2699",),
    "wood": ("1fab5",), "door": ("1f6aa",), "money": ("1f4b0",), "glass": ("1f377", "1f942"),
    "bottle": ("1f37e",), "balloon": ("1f388",), "teddy bear": ("1f9f8",),
    "helicopter": ("1f681",), "train": ("1f682",), "car": ("1f697",), "motorcycle": ("1f3cd",), "airplane": ("2708",),
    "ambulance": ("1f691",), "police car": ("1f693",),
}  # fmt: skip

# Labels whose own picture exists.
OWN: dict[str, tuple[str, ...]] = {
    "acoustic guitar": ("guitar",), "electric guitar": ("guitar",), "guitar": ("guitar",), "bass guitar": ("guitar",),
    "violin": ("violin",), "viola": ("violin",), "cello": ("violin",), "double bass": ("violin",),
    "banjo": ("banjo",), "harp": ("harp",), "saxophone": ("saxophone",), "trumpet": ("trumpet",),
    "trombone": ("trombone",), "flute": ("flute",), "piccolo": ("flute",), "recorder": ("flute",),
    "accordion": ("accordion",), "piano": ("keyboard",), "electric piano": ("keyboard",), "organ": ("keyboard",),
    "harpsichord": ("keyboard",), "clavinet": ("keyboard",), "synth bass": ("keyboard",), "synth lead": ("keyboard",),
    "synth pad": ("keyboard",), "synth strings": ("keyboard",), "synth brass": ("keyboard",),
    "drum machine": ("mixing desk",), "electronic beat": ("mixing desk",),
    "snare drum": ("drum",), "tom drum": ("drum",), "kick drum": ("drum",), "bass drum": ("drum",), "drums": ("drum",),
    "drum kit": ("drum",), "drum beat": ("drum",), "drum roll": ("drum",), "tenor drum": ("drum",),
    "djembe drum": ("hand drum",), "djundjun drum": ("hand drum",), "congas": ("hand drum",), "bongos": ("hand drum",),
    "tabla": ("hand drum",), "surdo drum": ("hand drum",), "maracas": ("maracas",),
    "bell": ("bell",), "wind chimes": ("wind chime",), "choir": ("microphone",),
    "person speaking": ("speaking head", "person", "man", "woman"), "man speaking": ("man",),
    "woman speaking": ("woman",), "baby crying": ("baby",), "person sneezing": ("sneezing face",),
    "hand claps": ("clapping hands",), "finger snap": ("snapping fingers",), "whistling": ("whistling face",),
    "dog barking": ("dog",), "rooster crowing": ("rooster",), "crow cawing": ("bird",), "cat meowing": ("cat",),
    "bird chirping": ("bird",), "cow mooing": ("cow",), "sheep bleating": ("sheep",), "pig grunting": ("pig",),
    "horse neighing": ("horse",), "duck quacking": ("duck",), "frog croaking": ("frog",), "owl hooting": ("owl",),
    "lion roaring": ("lion",), "wolf howling": ("wolf",), "rain": ("rain cloud",), "thunder": ("thunder cloud",),
    "wind blowing": ("gust",), "sea waves": ("wave",), "fire crackling": ("fire",), "clock ticking": ("clock",),
    "alarm clock": ("clock",), "telephone": ("telephone",), "3d printer": ("printer",), "robot sounds": ("robot",),
    "electronic beep": ("pager",), "door": ("door",), "glass humming": ("glass",), "glass rubbing": ("glass",),
    "pop": ("bottle", "balloon"), "whoosh": ("gust",), "explosion": ("explosion",), "cinematic boom": ("explosion",),
    "helicopter": ("helicopter",), "train whistle": ("train",), "train passing": ("train",), "car engine": ("car",),
    "car horn": ("car",), "motorcycle": ("motorcycle",), "airplane": ("airplane",), "ambulance": ("ambulance",),
    "police siren": ("police car",), "vinyl hiss": ("record",), "vinyl rewind": ("record",),
    "vinyl scratching": ("record",), "wood block": ("wood",),
}  # fmt: skip

# Labels without one, and the relative that is drawn instead.
RELATED: dict[str, tuple[str, ...]] = {
    "mandolin": ("guitar",), "sitar": ("guitar",), "twang": ("guitar",), "koto": ("harp",), "dulcimer": ("harp",),
    "string ensemble": ("violin",), "clarinet": ("flute",), "bass clarinet": ("flute",), "oboe": ("flute",),
    "english horn": ("flute",), "bassoon": ("flute",), "contrabassoon": ("flute",), "pan flute": ("flute",),
    "slide whistle": ("flute",), "ocarina": ("flute",), "bagpipe": ("horn",), "xylophone": ("keyboard",),
    "marimba": ("keyboard",), "vibraphone": ("keyboard",), "kalimba": ("keyboard",), "music box": ("keyboard",),
    "trombone": ("trumpet",), "french horn": ("horn", "trumpet"), "tuba": ("trumpet",),
    "brass section": ("trumpet",), "bulb horn": ("horn",), "harmonica": ("accordion",), "celesta": ("keyboard",),
    "drone": ("keyboard",), "percussion loop": ("mixing desk",), "electronic blip": ("pager",),
    "glitch percussion": ("alien",), "timpani": ("drum",), "steel drums": ("drum",), "rimshot": ("drum",),
    "side stick": ("drum",), "hi-hat": ("drum",), "closed hi-hat": ("drum",), "open hi-hat": ("drum",),
    "hi-hat pedal": ("drum",), "cymbal": ("drum",), "crash cymbal": ("drum",), "ride cymbal": ("drum",),
    "china cymbal": ("drum",), "clash cymbals": ("drum",), "hand cymbals": ("drum",), "sizzle cymbal": ("drum",),
    "splash cymbal": ("drum",), "suspended cymbal": ("drum",), "gong": ("drum",), "tambourine": ("hand drum",),
    "shaker": ("maracas",), "cabasa": ("maracas",), "guiro": ("maracas",), "hoof rattle": ("maracas",),
    "castanets": ("maracas",), "vibraslap": ("maracas",), "ratchet": ("gear",), "cowbell": ("bell",),
    "agogo bells": ("bell",), "triangle": ("bell",), "tubular bells": ("bell",), "sleigh bells": ("bell",),
    "chime": ("wind chime", "bell"), "bell tree": ("wind chime",), "glockenspiel": ("bell",),
    "eerie humming": ("ghost",), "burp": ("sick face",), "chainsaw": ("saw",), "impact": ("hammer", "explosion"),
    "buzzing": ("bee", "lightning"), "squeaker": ("teddy bear",), "cash register": ("money",),
}  # fmt: skip

# What makes no sound in any film: other objects, and clutter behind them.
_SILENT = """
    1f34e 1f34c 1f347 1f353 1f351 1f34d 1f955 1f33d 1f344 1f35e 1f9c0 1f354 1f355 1f366 1f370 1f36d 1f333 1f334
    1f335 1f337 1f33b 1f339 1f340 1f341 1f30d 1f319 2b50 1f308 2601 1f3e0 1f3f0 1f5fc 26fa 1f6b2 1f6f4 26f5 1f680
    2693 1f511 1f513 1f392 1f455 1f456 1f457 1f45f 1f451 1f3a9 1f576 1f4d5 1f4d6 1f58d 1f4cc 1f4ce 1f381 1f4a1 1f50d
    1f9f2 1f9ea 1f9e9 1f3b2 1f3af 26bd 1f3c0 1f3be 1f3c6 1f422 1f40c 1f41f 1f419 1f98b 1f41e 1f577 1f988 1f992 1f998
    1f994 1f95a 1f964 1f9e6 1f9f5 1fa91 1f6cb 1f5bc 1f48e 1f9ed 1f5fa 1f9f1 1f9fd 1f9f4
"""
SILENT: tuple[str, ...] = tuple(_SILENT.split())


def all_codes() -> list[str]:
    """Every code point that a drawn world can use."""
    return sorted({code for codes in THINGS.values() for code in codes} | set(SILENT))


def things_of(label: str, available: Iterable[str] | None = None) -> dict[str, tuple[str, ...]]:
    """Things that may stand for a label and their code points, of those `available`; its own before its relatives.

    >>> things_of("cello")
    {'violin': ('1f3bb',)}
    """
    there = None if available is None else set(available)
    for table in (OWN, RELATED):
        found = {thing: tuple(code for code in THINGS[thing] if there is None or code in there)
                 for thing in table.get(label, ())}  # fmt: skip
        found = {thing: codes for thing, codes in found.items() if codes}
        if found:
            return found
    return {}
