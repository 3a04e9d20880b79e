"""Write a fixed benchmark list: which clips, from where, at what place. Run once; the lists are kept in the repository.

    python -m benchmarks.make_lists PATH/manifest.jsonl --cache data/cache --sources 3 --count 200 --out FILE.jsonl

Sources of different labels over 4 s, from the validation split only, clips unchanged. Labels are drawn with the square
root of their number of clips, so that neither cellos nor single castanets rule the mean. No list is ever written over:
published figures refer to it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from peav import captions
from peav.clips import ClipStore
from peav.errors import UserError, shown
from peav.tracks import TrackSampler

RATE, SECONDS, SEED = 24_000, 4.0, 20261123


def draw_labels(tracks: TrackSampler, count: int, rng: np.random.Generator) -> list[str]:
    """Labels none of which could be taken for another."""
    labels: list[str] = []
    while len(labels) < count:
        label = tracks.draw_label(rng)
        if not any(captions.overlap(label, other) for other in labels):
            labels.append(label)
    return labels


def lines_of(store: ClipStore, pool: Path, sources: int, count: int) -> list[dict]:
    """Lines of a list; paths are relative to the folder ``pool``."""
    tracks = TrackSampler(store, label_power=0.5, change=0.0)
    lines = []
    for i in range(count):
        # The published list of two sources came first, and its seed has no number of sources in it.
        rng = np.random.default_rng((SEED, i) if sources == 2 else (SEED, i, sources))
        *labels, absent = draw_labels(tracks, sources + 1, rng)
        stems = [tracks.track(label, round(SECONDS * RATE), rng) for label in labels]
        lines.append({"id": i, "seconds": SECONDS, "absent": absent, "stems": [
            {"label": stem.label, "events": [
                {"path": store.clips[e.clip].path.relative_to(pool).as_posix(),
                 "from": round(e.start / RATE, 6), "at": round(e.at / RATE, 6), "length": round(e.length / RATE, 6),
                 "gain": round(e.gain, 6)} for e in stem.events]} for stem in stems]})
    return lines


def make(args: argparse.Namespace) -> None:
    if args.out.exists():
        raise UserError(f"{shown(args.out)}: exists already; lists are never written over, give another name")
    if min(args.sources, args.count) < 1:
        raise UserError(f"--sources {args.sources} --count {args.count}: give at least one of each")
    store = ClipStore([args.manifest], RATE, args.cache, split="valid")
    lines = lines_of(store, args.manifest.parent, args.sources, args.count)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(f"{len(lines)} mixtures in {args.out}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--cache", default="data/cache", help="folder for the decoded clips")
    parser.add_argument("--sources", type=int, default=2)
    parser.add_argument("--count", type=int, default=400, help="mixtures")
    parser.add_argument("--out", type=Path, required=True, help="the list, a new file")
    try:
        make(parser.parse_args())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
