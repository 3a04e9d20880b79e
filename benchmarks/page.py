"""The separation benchmark's figures as a Markdown page."""

from __future__ import annotations

from collections.abc import Mapping

from .conditions import CONDITIONS, MAIN
from .tables import table

_HEADER = ("questions", "SI-SDRi, mean", "median", "worse", "SDRi, mean", "median", "worse", "other prompt",
           "absent prompt", "its level")
_EXPLAINED = """A question is a source of a mixture that is asked for. Improvements are over the unprocessed mixture,
in dB; "worse" is the share of questions where they are negative. "Other prompt" is the mean SI-SDRi of a source by the
outputs for the other sources, "absent prompt" that by the output for something that is not in the mixture, and "its
level" the median level of that output against the mixture; the presence gate is off in all of them. Mixtures last 4 s
and are made of recordings that were never trained on (`benchmarks/lists`), at equal energy; at -5 and +5 dB each source
of a pair is the target of a mixture of its own."""


def markdown(name: str, result: Mapping) -> str:
    """The page of a result: conditions first, then the main condition in detail."""
    sections = result["conditions"]
    parts = [f"# Separation benchmark: {name}\n",
             f"`python -m benchmarks.separation`, {result['rate']} Hz, {result['machine']}.\n",
             _EXPLAINED + "\n",
             table(("condition", *_HEADER), [(CONDITIONS[key].title, *_row(found)) for key, found in sections.items()])]
    parts += [_presence(sections), _loss(sections), _cost(result)]
    key = MAIN if MAIN in sections else next(iter(sections))
    parts += [f"## In detail: {CONDITIONS[key].title}\n", _groups("kind", sections[key]["scenes"]),
              _groups("label", sections[key]["labels"])]
    return "\n".join(part for part in parts if part)


def _row(found: Mapping) -> tuple[str, ...]:
    return (str(found["items"]), *_spread(found), f"{found['other_prompt_mean']:.2f}",
            f"{found['absent_prompt_mean']:.2f}", f"{found['absent_level_median']:.1f}")  # fmt: skip


def _spread(found: Mapping) -> tuple[str, ...]:
    return (f"{found['si_sdri_mean']:.2f}", f"{found['si_sdri_median']:.2f}", _percent(found["worse_than_mixture"]),
            f"{found['sdri_mean']:.2f}", f"{found['sdri_median']:.2f}", _percent(found["sdr_worse_than_mixture"]))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _groups(what: str, groups: Mapping[str, Mapping]) -> str:
    return table((what, *_HEADER[:7]), [(key, str(found["items"]), *_spread(found)) for key, found in groups.items()])


def _presence(sections: Mapping[str, Mapping]) -> str:
    """Nothing for a system that does not say whether a sound is there."""
    rows = [(CONDITIONS[key].title, f"{found['presence_auroc']:.3f}",
             *(_percent(found[k]) if k in found else "-" for k in ("false_alarms", "misses")))
            for key, found in sections.items() if "presence_auroc" in found]  # fmt: skip
    if not rows:
        return ""
    thresholds = {found["presence_threshold"] for found in sections.values() if "presence_threshold" in found}
    told = f"The threshold of presence is {thresholds.pop():.2f}.\n\n" if thresholds else ""
    return told + table(("condition", "presence, AUROC", "false alarms", "misses"), rows)


def _loss(sections: Mapping[str, Mapping]) -> str:
    lines = [f"Asked for by wordings that training never used (`benchmarks/lists/paraphrases.json`), the same "
             f"{found['loss']['items']} questions lose {found['loss']['mean']:.2f} dB SI-SDRi against the plain labels "
             f"in the mean, {found['loss']['median']:.2f} dB in the median.\n"
             for found in sections.values() if "loss" in found]  # fmt: skip
    return "\n".join(lines)


def _cost(result: Mapping) -> str:
    parts = []
    if "real_time_factor" in result:
        parts.append(f"Speed: {result['real_time_factor']:.1f} times real time per prompt.")
    if "peak_memory_mib" in result:
        parts.append(f"Peak memory of the process, its recordings included: {result['peak_memory_mib']:.0f} MiB.")
    return " ".join(parts) + "\n" if parts else ""
