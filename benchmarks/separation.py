"""Separation quality on fixed mixtures: SI-SDR and SDR improvement, wrong prompts, other words, presence, speed.

    python -m benchmarks.separation PATH/manifest.jsonl --out docs/benchmarks
    python -m benchmarks.separation PATH/manifest.jsonl --condition two_sources_0db --condition paraphrases --limit 50
    python -m benchmarks.separation PATH/manifest.jsonl --system oracle     # ideal ratio mask: the ceiling
    python -m benchmarks.separation PATH/manifest.jsonl --system mixture    # unprocessed: 0 dB by definition

Another tool is measured by its outputs:

    python -m benchmarks.separation PATH/manifest.jsonl --write-mixtures mixtures/
    ... for each line of mixtures/prompts.jsonl write outputs/<condition>/<item>/<prompt>.wav ...
    python -m benchmarks.separation PATH/manifest.jsonl --system folder --outputs outputs/ --name tool

Each source of a mixture is asked for by its plain label, or, among the paraphrases, by a wording that training never
used. "Other prompt" is the output for another source's label measured against this source; "absent prompt" the output
for a label that is not in the mixture. The presence gate is off for those figures, so that a silenced output cannot
hide a mistake, and is reported by itself. The lists hold paths, places and gains; the pool that they name is needed.
Mixtures that are written out are made of its recordings: keep them out of the repository.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from peav.errors import UserError, shown

from .conditions import CONDITIONS, LIST, Mixtures, chosen
from .figures import Figures, auroc, loss, measure, peak_memory, summary
from .mixtures import Item, render
from .page import markdown
from .systems import Answer, Separate, folder, oracle, ours, unprocessed, write_mixtures
from .tables import machine

__all__ = ["LIST", "Answer", "Item", "Separate", "auroc", "markdown", "measure", "oracle", "ours", "render",
           "summary", "unprocessed"]  # fmt: skip


def run(system: Callable[[str], Separate], sets: Sequence[Mixtures], rate: int, threshold: float | None) -> dict:
    """Measure a system in every condition; the result lacks only what is known of the process.

    Args:
        system: what separates the mixtures of a condition, by its name.
        threshold: the system's, of presence.
    """
    measured: dict[str, Figures] = {}
    sections: dict[str, dict] = {}
    for mixtures in sets:
        condition = mixtures.condition
        found = measured[condition.name] = measure(system(condition.name), mixtures, rate, condition.name)
        sections[condition.name] = summary(found, threshold)
        plain = measured.get(condition.against or "")
        if plain and (lost := loss(found, plain)):
            sections[condition.name]["loss"] = lost
    compute, audio = (sum(getattr(found, name) for found in measured.values()) for name in ("compute", "audio"))
    return ({"rate": rate} | ({"real_time_factor": audio / compute} if compute else {})
            | {"conditions": sections})  # fmt: skip


def benchmark(args: argparse.Namespace) -> None:
    """What the command line asks for.

    Raises:
        UserError: options do not fit together, or a file is missing or cannot be used.
    """
    if (args.system == "folder") != (args.outputs is not None):
        raise UserError("--system folder and --outputs FOLDER belong together; give both or neither")
    if args.outputs is not None and not args.outputs.is_dir():
        raise UserError(f"{shown(args.outputs)}: no such folder; name the one with the finished outputs")
    clips: dict[str, Tensor] = {}
    sets = [Mixtures(condition, args.manifest, args.rate, clips) for condition in chosen(args.condition, args.limit)]
    if args.write_mixtures is not None:
        write_mixtures(args.write_mixtures, sets, args.rate)
        return
    threshold = None
    if args.system == "ours":
        separate, threshold = ours(args.model, args.device)
    else:
        separate = oracle if args.system == "oracle" else unprocessed
    result = run((lambda name: folder(args.outputs, name)) if args.system == "folder" else lambda _: separate,
                 sets, args.rate, threshold)  # fmt: skip
    result = {"system": args.system, "machine": machine(torch.get_num_threads())} | result
    if args.system == "ours":  # others do their work elsewhere, or none
        result["peak_memory_mib"] = peak_memory()
    name = args.name or args.system
    text = markdown(name, result)
    print(text)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
        (args.out / f"{name}.md").write_text(text)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path, help="manifest of the pool that the lists name")
    parser.add_argument("--system", default="ours", choices=("ours", "folder", "oracle", "mixture"))
    parser.add_argument("--condition", action="append", metavar="NAME",
                        help=f"only this one; repeat for several: {', '.join(CONDITIONS)}")
    parser.add_argument("--model", help="model folder; without it the packaged model")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--outputs", type=Path, help="folder of finished outputs, for --system folder")
    parser.add_argument("--write-mixtures", type=Path, metavar="FOLDER",
                        help="write the mixtures and prompts.jsonl there, for another tool, and stop")
    parser.add_argument("--rate", type=int, default=24_000, help="Hz at which mixtures are made and measured")
    parser.add_argument("--limit", type=int, help="only the first N lines of each condition's list")
    parser.add_argument("--out", type=Path, help="folder for <name>.json and <name>.md")
    parser.add_argument("--name", help="name of the result files; the system's by default")
    try:
        benchmark(parser.parse_args(arguments))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
