"""A folder of separations as one table and one page to listen to.

    from judge import load, report
    items = report.find_items(Path("separated"), mixtures=[Path("mix.wav")])
    report.write_report(load(), items, Path("separated/report"))

Modules
-------
collect  which files belong together: mixture, target, residual, prompt
make     scores everything and writes both files: `write_report`
table    the CSV
page     the HTML: one file that needs no other, `style` is what it looks like and does
curve    scores over time as inline SVG
picture  spectrograms as PNG
embed    sounds as data URIs, within a limit, or as links
"""

from __future__ import annotations

from judge.report.collect import Item, find_items
from judge.report.make import Report, Row, write_report

__all__ = ["Item", "Report", "Row", "find_items", "write_report"]
