"""The HTML page: one file that needs no other.

Everything that comes from file names, manifests or prompts is escaped, and a content policy allows no script but the
page's own, by its hash, and nothing from any network.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterator, Sequence
from html import escape
from statistics import fmean
from typing import TYPE_CHECKING

from judge.report.curve import curve_html
from judge.report.style import CSS, JS
from judge.report.table import SCORES, format_number, printable

if TYPE_CHECKING:
    from judge.report.make import Player, Recording, Report, Row

_MEANINGS = {
    "overall": "how good the separation is, 1 (poor) to 5 (excellent)",
    "recall": "all of the wanted sound is there, 1 to 5",
    "precision": "nothing else is there, 1 to 5",
    "faithfulness": "it sounds as it does in the mixture, 1 to 5",
    "similarity": "how near the target lies to the prompt, -1 to 1",
    "presence": "probability that the mixture holds the wanted sound, 0 to 1",
}
_OF_FIVE = ("overall", "recall", "precision", "faithfulness")


def page_html(report: Report) -> str:
    """The whole page."""
    script = base64.b64encode(hashlib.sha256(JS.encode()).digest()).decode()
    media = "data: file: 'self'" if report.is_linked else "data:"
    policy = (
        f"default-src 'none'; img-src data:; media-src {media}; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{script}'; base-uri 'none'; form-action 'none'"
    )
    title = e(report.title)
    return "".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title><style>{CSS}</style></head><body>",
            '<header><a class="skip" href="#items">To the separations</a>',
            f"<h1>{title}</h1><p>{e(_summary(report))}</p>{_legend(report)}</header><main>",
            _systems(report.rows),
            _table(report.rows),
            '<div id="items">',
            *_recordings(report.recordings),
            f"</div></main><script>{JS}</script></body></html>\n",
        ]
    )


def e(text: object) -> str:
    """Text as text, also inside of quotes."""
    return escape(printable(text), quote=True)


def _summary(report: Report) -> str:
    recordings = len({(recording.name, recording.rows[0].item.mixture) for recording in report.recordings})
    targets = f"{len(report.rows)} separation{'s' if len(report.rows) != 1 else ''}"
    text = f"{targets} of {recordings} recording{'s' if recordings != 1 else ''}, judged on {report.device}."
    failed = sum(row.error is not None for row in report.rows)
    return text + (f" {failed} could not be judged." if failed else "")


def _measured(rows: Sequence[Row]) -> list[str]:
    """Scores that any row has."""
    return [name for name in SCORES if any(row.value(name) is not None for row in rows)] or ["overall"]


def _legend(report: Report) -> str:
    rows = "".join(f"<dt>{name}</dt><dd class='quiet'>{_MEANINGS[name]}</dd>" for name in _measured(report.rows))
    return f"<details><summary>What the scores mean</summary><dl>{rows}</dl></details>"


def _systems(rows: Sequence[Row]) -> str:
    """Means by system, where several are compared."""
    systems = list(dict.fromkeys(row.item.system for row in rows))
    if len(systems) < 2:
        return ""
    names = _measured(rows)
    lines = []
    for system in systems:
        own = [row for row in rows if row.item.system == system]
        lines.append(f'<tr><th scope="row">{e(system or "(none)")}</th>{_means(own, names)}<td>{len(own)}</td></tr>')
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    return (
        '<h2>Means by system</h2><p class="quiet">Over what could be judged.</p>'
        + _wide("Means by system")
        + f'<table><thead><tr><th scope="col" class="text">system</th>{head}<th scope="col">targets</th></tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _table(rows: Sequence[Row]) -> str:
    names = _measured(rows)
    with_systems = any(row.item.system for row in rows)
    texts = ["recording", "prompt", *(["system"] if with_systems else [])]
    head = "".join(f'<th scope="col" class="text"><button type="button">{name}</button></th>' for name in texts)
    head += "".join(f'<th scope="col" data-number><button type="button">{name}</button></th>' for name in names)
    body = []
    for number, row in enumerate(rows, 1):
        item = row.item
        system = f'<td class="text">{e(item.system)}</td>' if with_systems else ""
        cells = "".join(_cell(row, name) for name in names)
        body.append(
            f'<tr><th scope="row"><a href="#item-{number}">{e(item.recording)}</a></th>'
            f'<td class="text">{e(item.prompt)}</td>{system}{cells}</tr>'
        )
    foot = f'<tr><th scope="row" colspan="{len(texts)}">mean</th>{_means(rows, names)}</tr>' if len(rows) > 1 else ""
    return (
        '<h2>Scores</h2><p class="quiet">The names in the first row sort the table.</p>'
        + _wide("Scores")
        + f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody><tfoot>{foot}</tfoot></table></div>"
    )


def _wide(label: str) -> str:
    """A table that is wider than the screen scrolls by itself, with the keyboard too."""
    return f'<div class="wide" tabindex="0" role="region" aria-label="{label}">'


def _cell(row: Row, name: str) -> str:
    if row.error is not None:
        return '<td data-value="" class="error">error</td>'
    value = row.value(name)
    if value is not None and math.isnan(value):
        return '<td data-value="">silent</td>'
    return f'<td data-value="{format_number(value, 6)}">{_short(value)}</td>'


def _short(value: float | None) -> str:
    return format_number(value, 2) or "–"


def _means(rows: Sequence[Row], names: Sequence[str]) -> str:
    cells = []
    for name in names:
        known = [value for row in rows if (value := row.value(name)) is not None and math.isfinite(value)]
        cells.append(f"<td>{_short(fmean(known) if known else None)}</td>")
    return "".join(cells)


def _recordings(recordings: Sequence[Recording]) -> Iterator[str]:
    number = 0
    for recording in recordings:
        yield f'<section><h2>{e(recording.name)}</h2><p class="quiet">{e(recording.mixture)}</p><div class="sounds">'
        yield "" if recording.player is None else _player(recording.player, "")
        yield "</div>"
        for row in recording.rows:
            number += 1
            yield from _item(row, number)
        yield "</section>"


def _item(row: Row, number: int) -> Iterator[str]:
    item = row.item
    system = f" by {e(item.system)}" if item.system else ""
    yield f'<article id="item-{number}" aria-labelledby="title-{number}">'
    yield f'<h3 id="title-{number}">“{e(item.prompt)}”{system}</h3><p class="quiet">{e(row.target)}</p>'
    if row.error is not None:
        yield f'<p class="error">Could not be judged: {e(row.error)}</p>'
    else:
        yield f"<dl>{''.join(_score(name, row.value(name)) for name in _measured([row]))}</dl>"
    yield '<div class="sounds">' + "".join(_player(player, item.prompt) for player in row.players) + "</div>"
    if row.curve is not None:
        yield curve_html(row.curve, printable(f"{item.prompt} in {item.recording}"))
    if row.notes:
        yield f'<p class="quiet">{"; ".join(e(note) for note in row.notes)}</p>'
    yield "</article>"


def _score(name: str, value: float | None) -> str:
    meter = ""
    if name in _OF_FIVE and value is not None:
        meter = f'<meter min="1" max="5" value="{value:.2f}" aria-hidden="true"></meter>'
    shown = "silent" if value is not None and math.isnan(value) else _short(value)
    return f"<div><dt>{name}</dt><dd>{shown}{meter}</dd></div>"


def _player(player: Player, prompt: str) -> str:
    words = e(f"{player.role}, {prompt}" if prompt else player.role)
    parts = [f"<figure><figcaption><strong>{player.role}</strong> {e(player.name)}</figcaption>"]
    if player.picture is not None:
        parts.append(f'<div class="picture"><img alt="Spectrogram of the {words}" src="{player.picture}"><i></i></div>')
        ends = ("0 s", f"up to {player.top_hz / 1000:g} kHz", f"{player.seconds:.1f} s")
        parts.append(f'<div class="time">{"".join(f"<span>{end}</span>" for end in ends)}</div>')
    if player.source is not None:
        parts.append(f'<audio controls preload="metadata" aria-label="{words}" src="{e(player.source)}"></audio>')
    elif player.why_silent:
        parts.append(f'<p class="quiet">{e(player.why_silent)}</p>')
    return "".join([*parts, "</figure>"])
