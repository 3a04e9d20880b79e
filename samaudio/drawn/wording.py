"""Words for what is seen and heard in a film."""

from __future__ import annotations

from collections.abc import Sequence

_NUMBERS = {2: "two", 3: "three", 4: "four"}
_PLURALS = {"person": "people", "man": "men", "woman": "women", "baby": "babies", "wolf": "wolves", "sheep": "sheep",
            "box": "boxes", "glass": "glasses", "brass": "brasses"}  # fmt: skip
# Names that take no article: stuff, and what is plural already.
_STUFF = ("rain", "hiss", "whoosh", "thunder", "fire", "wind", "buzzing", "whistling", "humming", "rubbing",
          "scratching", "rewind", "lightning", "wood", "money", "percussion")  # fmt: skip
_DOERS = ("person", "man", "woman", "baby", "dog", "rooster", "crow", "cat", "bird", "cow", "sheep", "pig", "horse",
          "duck", "frog", "owl", "lion", "wolf", "clock", "train")  # fmt: skip


def listed(words: Sequence[str]) -> str:
    """Names as one phrase, those that occur twice counted.

    >>> listed(["dog barking", "dog barking", "old bell", "rain"])
    'two dogs barking, an old bell and rain'
    """
    counts: dict[str, int] = {}
    for word in words:
        counts[word] = counts.get(word, 0) + 1
    return joined([with_article(word) if count == 1 else counted(word, count) for word, count in counts.items()])


def joined(parts: Sequence[str]) -> str:
    """``a, b and c``."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def with_article(name: str) -> str:
    """``a dog barking``, ``an oboe``, ``rain``."""
    first, last = name.split()[0], name.split()[-1]
    bare = last in _STUFF or first in _STUFF or (last.endswith("s") and not last.endswith(("ss", "bass")))
    if not bare and last.endswith("ing") and first not in _DOERS:
        bare = True
    return name if bare else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def counted(name: str, count: int) -> str:
    """``two violins``, ``two men speaking``; of stuff ``two kinds of rain``."""
    number = _NUMBERS.get(count, str(count))
    head, _, rest = name.partition(" ")
    if name.endswith("ing") and head in _DOERS and rest:
        return f"{number} {_plural(head)} {rest}"
    if with_article(name) == name:
        return f"{number} kinds of {name}"
    before, _, last = name.rpartition(" ")
    return f"{number} {before + ' ' if before else ''}{_plural(last)}"


def _plural(word: str) -> str:
    return _PLURALS.get(word, word if word.endswith("s") else word + "s")
