"""Mistakes a user can make, as one clear line.

A command prints the line and exits with status 2; everything else that goes wrong is our bug and keeps its
traceback. A message names the value and the way out:

    raise UserError(f"{shown(path)}: no such file; check the name and the folder")
"""

_LONGEST = 300  # characters of a whole message
_ELLIPSIS = "..."


class UserError(ValueError):
    """What the user asked for cannot be done. `str(error)` is one line of at most 300 characters."""

    def __init__(self, message: str) -> None:
        # The value stands at the start of a message and the way out at its end, so the middle is what can go.
        super().__init__(_shorten(message, _LONGEST))


def shown(value: object, limit: int = 90) -> str:
    """The value as it should stand in a message: one printable line of at most `limit` characters.

    >>> shown("a" * 200, limit=11)
    'aaaa...aaaa'
    """
    return _shorten(str(value), limit)


def _shorten(text: str, limit: int) -> str:
    # Line breaks, terminal escapes and the undecodable bytes of foreign file names would each break the line.
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    text = " ".join(text.split())
    if len(text) <= limit:
        return text
    kept = limit - len(_ELLIPSIS)
    head = kept - kept // 2
    return text[:head] + _ELLIPSIS + text[len(text) - kept // 2 :]
