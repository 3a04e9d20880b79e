"""``412,230@1.5`` as typed on a command line."""

from __future__ import annotations

from peav.errors import UserError, shown

from ..prompts import Box, Click


def parse_click(text: str, positive: bool = True) -> Click:
    """``X,Y@SECONDS``: a point on the object, or with ``positive=False`` on what does not belong to it.

    >>> parse_click("412,230@1.5")
    Click(x=412.0, y=230.0, time=1.5, positive=True)

    Raises:
        UserError: it is not of that form.
    """
    x, y, time = _numbers(text, 2, "click", "X,Y@SECONDS, such as 412,230@1.5")
    return Click(x, y, time, positive)


def parse_box(text: str) -> Box:
    """``X0,Y0,X1,Y1@SECONDS``: a rectangle around the object.

    >>> parse_box("300,120,480,400@1.5")
    Box(x0=300.0, y0=120.0, x1=480.0, y1=400.0, time=1.5)

    Raises:
        UserError: it is not of that form.
    """
    return Box(*_numbers(text, 4, "box", "X0,Y0,X1,Y1@SECONDS, such as 300,120,480,400@1.5"))


def _numbers(text: str, pixels: int, kind: str, form: str) -> list[float]:
    """The pixels and then the time in seconds."""
    place, at, time = text.partition("@")
    try:
        values = [float(part) for part in place.split(",")]
        if not at or len(values) != pixels:
            raise ValueError
        return [*values, float(time)]
    except ValueError:
        raise UserError(f"{kind} {shown(text, 40)!r} is not understood; give {form}") from None
