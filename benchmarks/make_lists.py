"""Write the fixed benchmark list: which clips, from where, at what place. Run once; the list is kept in the repository.

    python -m benchmarks.make_lists PATH/manifest.jsonl --cache data/cache

Two sources of different labels at 0 dB over 4 s, from the validation split only, clips unchanged. Labels are drawn with
the square root of their number of clips, so that neither cellos nor single castanets rule the mean.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from peav import captions
from peav.clips import ClipStore
from peav.tracks import TrackSampler

RATE, SECONDS, SEED = 24_000, 4.0, 20261123


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--cache", default="data/cache")
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "lists" / "two_sources_0db.jsonl")
    args = parser.parse_args()
    store = ClipStore([args.manifest], RATE, args.cache, split="valid")
    tracks = TrackSampler(store, label_power=0.5, change=0.0)
    lines = []
    for i in range(args.count):
        rng = np.random.default_rng((SEED, i))
        first = tracks.draw_label(rng)
        second = first
        while captions.overlap(first, second):
            second = tracks.draw_label(rng)
        absent = first
        while captions.overlap(absent, first) or captions.overlap(absent, second):
            absent = tracks.draw_label(rng)
        stems = [tracks.track(label, round(SECONDS * RATE), rng) for label in (first, second)]
        lines.append({"id": i, "seconds": SECONDS, "absent": absent, "stems": [
            {"label": stem.label, "events": [
                {"path": store.clips[e.clip].path.relative_to(args.manifest.parent).as_posix(),
                 "from": round(e.start / RATE, 6), "at": round(e.at / RATE, 6), "length": round(e.length / RATE, 6),
                 "gain": round(e.gain, 6)} for e in stem.events]} for stem in stems]})
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(f"{len(lines)} mixtures in {args.out}")


if __name__ == "__main__":
    main()
