"""How far a Judge can be trusted: figures, sweeps and a picture, written to a folder.

    python -m judge.evaluate --known data/known-valid --separations data/ours-valid --out docs/benchmarks
    python -m judge.evaluate --model runs/judge/model ...

``--known`` is a collection of `judge.scenes`, on whose true stems the sweeps are made; ``--separations`` one of
`samaudio.judge_data`, made by a separator that the Judge was not trained with. Both from recordings that it was not
trained with. Writes ``judge.json``, ``judge.md`` and ``judge.png``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from peav.checkpoints import write_json

from .collection import Collection
from .figures import Table, figures, table
from .model import SCORES, JudgeModel
from .sweeps import SWEEPS, Curve, run

GOALS = {"spearman_si_sdr": 0.75, "right_prompt": 0.95, "gain_share": 0.4}
_ROWS = (
    ("spearman_si_sdr", "Spearman: overall with true SI-SDR", 3),
    ("spearman_overall", "Spearman: overall with its target", 3),
    ("spearman_recall", "Spearman: recall with its target", 3),
    ("spearman_precision", "Spearman: precision with its target", 3),
    ("spearman_faithfulness", "Spearman: faithfulness with its target", 3),
    ("error_overall", "overall, mean distance from its target", 2),
    ("right_prompt", "right prompt above a wrong one", 3),
    ("right_prompt_other", "... the wrong one names another sound in the mixture", 3),
    ("right_prompt_absent", "... the wrong one names an absent sound", 3),
    ("right_prompt_cases", "... cases", 0),
    ("oracle_gain", "best of the candidates over their mean, dB", 2),
    ("gain", "the Judge's choice over their mean, dB", 2),
    ("gain_share", "... share of what the best would bring", 3),
    ("questions", "... questions", 0),
    ("presence_auroc", "presence, AUROC", 3),
)


@dataclass
class Report:
    """Figures by collection, curves of the sweeps, and the table of the separations for the picture."""

    figures: dict[str, dict[str, float]]
    curves: list[Curve]
    separations: Table


def evaluate(model: JudgeModel, known: Collection, separations: Collection, stems: int = 60) -> Report:
    """Judge both collections, and ``stems`` sweeps of each kind."""
    tables = {collection.folder.name: table(model, collection) for collection in (known, separations)}
    curves = [run(model, known, sweep, stems) for sweep in SWEEPS]
    return Report({name: figures(t) for name, t in tables.items()}, curves, tables[separations.folder.name])


def to_json(report: Report) -> dict[str, Any]:
    """Everything but the single scores; None for what a collection cannot tell."""
    return {
        "figures": {name: {k: round(v, 4) if v == v else None for k, v in values.items()}
                    for name, values in report.figures.items()},
        "sweeps": [{"name": c.sweep.name, "score": c.sweep.score, "unit": c.sweep.unit, "levels": list(c.sweep.levels),
                    "falls_at_every_step": c.falls, "single_steps_right": round(c.steps, 4),
                    "told": {n: _numbers(c.told[:, i]) for i, n in enumerate(SCORES)},
                    "true": {n: _numbers(c.true[:, i]) for i, n in enumerate(SCORES)}} for c in report.curves],
    }  # fmt: skip


def _numbers(values: np.ndarray) -> list[float | None]:
    return [round(float(v), 3) if v == v else None for v in values]


def markdown(report: Report, title: str, about: Sequence[str]) -> str:
    """The report as a page."""
    names = list(report.figures)
    lines = [f"# Benchmark of the Judge: {title}", "", *about, "", f"| figure | {' | '.join(names)} |",
             f"|---|{'---:|' * len(names)}"]  # fmt: skip
    for key, text, digits in _ROWS:
        cells = [f"{report.figures[n][key]:.{digits}f}" if report.figures[n][key] == report.figures[n][key] else "-"
                 for n in names]  # fmt: skip
        lines.append(f"| {text} | {' | '.join(cells)} |")
    lines += ["", "Sweeps: one fault added to true stems, mean over the stems.", "",
              "| fault | score | at the least | at the most | falls at every step | single steps right |",
              "|---|---|---:|---:|---|---:|"]
    for c in report.curves:
        own = c.told[:, SCORES.index(c.sweep.score)]
        falls = "yes" if c.falls else "no"
        lines.append(f"| {c.sweep.name} | {c.sweep.score} | {own[0]:.2f} | {own[-1]:.2f} | {falls} | "
                     f"{100 * c.steps:.0f} % |")  # fmt: skip
    return "\n".join([*lines, "", "![curves](judge.png)", ""])


def plot(report: Report, path: Path) -> None:
    """Overall against true SI-SDR, and the curves of the sweeps with what is true of them."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = 1 + len(report.curves)
    figure, axes = plt.subplots(2, -(-panels // 2), figsize=(3.4 * -(-panels // 2), 6), squeeze=False)
    first, *others = axes.flat
    t = report.separations
    asked = (t.of[:, None] == np.arange(t.present.shape[1])[None, :, None]) & t.present[..., None]
    first.scatter(t.si_sdr[asked].clip(-30, 30), t.told[..., 0][asked], s=4, alpha=0.4, linewidths=0)
    first.set_xlabel("true SI-SDR, dB")
    first.set_ylabel("overall")
    first.set_title("separations", fontsize=9)
    for axis, curve in zip(others, report.curves, strict=False):
        for i, name in enumerate(SCORES):
            own = name == curve.sweep.score
            axis.plot(curve.sweep.levels, curve.told[:, i], color=f"C{i}", linewidth=2 if own else 0.8, label=name)
            axis.plot(curve.sweep.levels, curve.true[:, i], color=f"C{i}", linewidth=1.5 if own else 0.6, linestyle=":")
        axis.set_ylim(0.8, 5.2)
        axis.set_title(curve.sweep.name, fontsize=9)
        axis.set_xlabel(curve.sweep.unit, fontsize=8)
    others[0].legend(fontsize=6)
    for axis in axes.flat[panels:]:
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="Judge folder; default: the one in the package")
    parser.add_argument("--known", type=Path, required=True)
    parser.add_argument("--separations", type=Path, required=True)
    parser.add_argument("--stems", type=int, default=60, help="stems per sweep")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args(arguments)

    from peav.training import pick_device

    from . import checkpoints

    model = checkpoints.load(args.model or checkpoints.PACKAGED).to(pick_device(args.device))
    known, separations = Collection(args.known), Collection(args.separations)
    report = evaluate(model, known, separations, args.stems)
    about = [_about(collection) for collection in (known, separations)]
    args.out.mkdir(parents=True, exist_ok=True)
    write_json(args.out / "judge.json", to_json(report) | {"collections": {c.folder.name: c.settings
                                                                           for c in (known, separations)}})  # fmt: skip
    (args.out / "judge.md").write_text(markdown(report, str(args.model or "mini"), about), encoding="utf-8")
    plot(report, args.out / "judge.png")
    for name, values in report.figures.items():
        for key, goal in GOALS.items():
            if values[key] == values[key]:
                print(f"{name}: {key} {values[key]:.3f} (goal {goal})")
    for curve in report.curves:
        print(f"{curve.sweep.name}: {curve.sweep.score} {'falls' if curve.falls else 'DOES NOT FALL'} at every step")


def _about(collection: Collection) -> str:
    made = collection.settings.get("separator")
    how = f"separated by {Path(made).name}" if made else "true stems spoiled in known ways"
    return (f"- `{collection.folder.name}`: {len(collection)} mixtures of {collection.settings['seconds']} s, split "
            f"{collection.settings['split']}, {how}.")  # fmt: skip


if __name__ == "__main__":
    main()
