"""What the page says: state, scores, spans, files, as HTML in which nothing of the user's is markup."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from peav.errors import shown

if TYPE_CHECKING:
    from samaudio.prompts import Click

    from .session import Session
    from .takes import Take
    from .work import Moment

_QUALITY = {
    "overall": "how good the separation is",
    "recall": "how much of the sound is in it",
    "precision": "how little else is in it",
    "faithfulness": "how undistorted it is",
}
_MOST_SPANS = 12


def note(line: str) -> str:
    """One line about how things are."""
    return f'<p class="vc-note">{escape(line)}</p>'


def problem(line: str) -> str:
    """One line that a screen reader says at once. A file's name at its start stays as it is."""
    if not re.match(r"[^:]*\.\w{1,8}: ", line):
        line = line[:1].upper() + line[1:]
    return f'<p class="vc-problem" role="alert">{escape(line)}</p>'


def working(what: str, moment: Moment) -> str:
    """A bar with the time that is left."""
    percent = round(100 * moment.share)
    left = "" if moment.left is None else f", about {clock(moment.left)} left"
    return (
        f'<div class="vc-note"><label>{escape(what)}: {percent} %{left} '
        f'<progress max="100" value="{percent}">{percent} %</progress></label></div>'
    )


def clock(seconds: float) -> str:
    """A length of time as people say it."""
    seconds = max(1, math.ceil(seconds))
    return f"{seconds} s" if seconds < 90 else f"{round(seconds / 60)} min"


def points(found: Sequence[Click]) -> str:
    """The points as a list."""
    if not found:
        return '<p class="vc-points">No points yet.</p>'
    rows = "".join(
        f"<li>{'on the source' if point.positive else 'not part of it'}: "
        f"{point.x:g}, {point.y:g} at {point.time:g} s</li>"
        for point in found
    )
    return f'<ol class="vc-points" aria-label="Points">{rows}</ol>'


def strip(session: Session, found: Sequence[tuple[float, bool, Path]]) -> str:
    """Pictures through the film, and in how much of it the object is seen."""
    if session.track is None or not found:
        return ""
    visible = session.track.visible
    figures = "".join(
        f'<figure><img src="{escape(session.url(path))}" alt="Picture at {time:.1f} s, '
        f'{"the marked object tinted" if there else "the object is not seen"}">'
        f"<figcaption>{time:.1f} s{'' if there else ', not seen'}</figcaption></figure>"
        for time, there, path in found
    )
    share = 100 * float(visible.float().mean())
    return (
        f'<div class="vc-strip" role="group" aria-label="The marked object through the film">{figures}</div>'
        f"<p>Seen in {share:.0f} % of the film; followed by {escape(session.track.segmenter)}.</p>"
    )


def verdict(take: Take) -> str:
    """Whether it was heard, when, and how good what came out is."""
    chance = f"{100 * take.presence:.0f} %"
    name = escape(shown(take.prompt, 60))
    if take.present:
        lines = [f"<p><strong>{name}</strong>: heard (probability {chance}), {_when(take)}.</p>"]
    else:
        lines = [f"<p><strong>{name}</strong>: not heard (probability {chance}), so the target is silent. "
                 "The candidates below are what it would have been.</p>"]  # fmt: skip
    rows = [
        f'<tr><th scope="row">{key}</th><td>{value:.1f} of 5</td><td>{meaning}</td></tr>'
        for key, meaning in _QUALITY.items()
        if (value := take.quality.get(key)) is not None
    ]
    if math.isfinite(take.similarity):
        rows.append(f'<tr><th scope="row">similarity</th><td>{take.similarity:.2f}</td>'
                    "<td>of what came out and what was asked for, -1 to 1</td></tr>")  # fmt: skip
    if rows:
        lines.append('<table class="vc-scores"><caption>Scores</caption><thead><tr><th scope="col">score</th>'
                     f'<th scope="col">value</th><th scope="col">says</th></tr></thead><tbody>{"".join(rows)}</tbody>'
                     "</table>")  # fmt: skip
    if not any(value is not None for value in take.quality.values()) and take.present:
        lines.append("<p>The Judge scores what was asked for in words; here it has no say.</p>")
    return "".join(lines)


def _when(take: Take) -> str:
    if not take.spans:
        return "at no clear time"
    spans = ", ".join(f"{start:.1f}-{end:.1f} s" for start, end, *_ in take.spans[:_MOST_SPANS])
    return f"at {spans}" + (f" and {len(take.spans) - _MOST_SPANS} more times" if len(take.spans) > _MOST_SPANS else "")


def spectrograms(session: Session, take: Take) -> str:
    """The picture of mixture, target and residual."""
    if take.picture is None:
        return ""
    alt = f"Spectrograms of original, target and residual. {shown(take.prompt, 60)}: heard {_when(take)}."
    return f'<img class="vc-spectrograms" src="{escape(session.url(take.picture))}" alt="{escape(alt)}">'


def files(session: Session, take: Take) -> str:
    """What can be kept."""
    links = [("Target (wav)", take.target), ("Residual: all the rest (wav)", take.residual),
             ("Film with only this sound", take.film), ("Film without this sound", take.film_without),
             ("Spectrograms (png)", take.picture)]  # fmt: skip
    rows = "".join(
        f'<li><a download="{escape(path.name)}" href="{escape(session.url(path))}">{escape(title)}</a> '
        f"{path.stat().st_size / 1e6:.1f} MB</li>"
        for title, path in links
        if path is not None
    )
    why = f"<p>No film: {escape(take.film_problem)}</p>" if take.film_problem else ""
    return f'<ul class="vc-files" aria-label="Downloads">{rows}</ul>{why}'
