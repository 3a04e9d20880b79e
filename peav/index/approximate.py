"""Search among millions: faiss proposes candidates, their exact scores decide.

The vectors are sorted into cells, of which only the nearest are looked at, and kept in eight bits a number; several
times as many candidates as are asked for are then compared exactly with the index's own vectors. So scores are exact,
and what may be missed is a row in a cell far away. The sorted copy is a file beside the shards, made at the first
search after a change; it may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from peav import media
from peav.errors import UserError

from . import disk

if TYPE_CHECKING:
    from .search import Index

CANDIDATES = 10  # for each result that is asked for
_LEAST_CANDIDATES = 200
_CELL_SHARE = 16  # one in so many cells is looked at
_LEAST_CELLS = 32
_TRAINING = 64  # vectors per cell that the cells are made from
_SMALL = 4_096  # rows; fewer than that need no cells
_open: dict[Path, Any] = {}  # the last one, because a session asks often


def installed() -> bool:
    """Whether faiss is there."""
    from importlib.util import find_spec

    return find_spec("faiss") is not None


def nearest(
    index: Index, query: np.ndarray, k: int, score: str, windows: bool | None
) -> tuple[np.ndarray, np.ndarray]:
    """As `peav.index.search.nearest_exactly`, but may miss some.

    Raises:
        UserError: faiss is not installed.
    """
    from .search import ranked, scores_of

    cells = _prepared(index, score, windows)
    wanted = min(cells.ntotal, max(_LEAST_CANDIDATES, CANDIDATES * k))
    if not wanted:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
    _, found = cells.search(query[None], wanted)
    rows = np.sort(found[0][found[0] >= 0])
    vectors = np.stack([index.vector(int(row)) for row in rows]) if len(rows) else np.empty((0, len(query)), np.float32)
    return ranked(rows, scores_of(vectors, query, score), k)


def _prepared(index: Index, score: str, windows: bool | None):
    faiss = _faiss()
    path = _path(index, score, windows)
    if path in _open:
        return _open[path]
    try:
        cells = faiss.read_index(str(path))
    except RuntimeError:  # there is none yet, or it was not written to its end
        cells = _made(index, score, windows)
        _keep(index, path, cells)
    if hasattr(cells, "nprobe"):
        cells.nprobe = min(cells.nlist, max(_LEAST_CELLS, cells.nlist // _CELL_SHARE))
    _open.clear()
    _open[path] = cells
    return cells


def _made(index: Index, score: str, windows: bool | None):
    faiss = _faiss()
    width = index.settings.output_dim
    total = sum(len(numbers) for numbers, _ in index.blocks(windows))
    if total < _SMALL:
        cells = faiss.IndexIDMap2(faiss.IndexFlatIP(width))
    else:
        count = max(1, min(round(4 * math.sqrt(total)), total // 39))  # faiss wants 39 vectors in a cell, or warns
        cells = faiss.index_factory(width, f"IVF{count},SQ8", faiss.METRIC_INNER_PRODUCT)
        share = min(1.0, _TRAINING * count / total)
        rng = np.random.default_rng(0)
        sample = [_scaled(vectors[rng.random(len(vectors)) < share], score) for _, vectors in index.blocks(windows)]
        cells.train(np.concatenate(sample))
    for numbers, vectors in index.blocks(windows):
        cells.add_with_ids(_scaled(vectors, score), numbers.astype(np.int64))
    return cells


def _scaled(vectors: np.ndarray, score: str) -> np.ndarray:
    """Contiguous; for cosine of length one, so that the inner product is it."""
    if score == "dot":
        return np.ascontiguousarray(vectors)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


def _path(index: Index, score: str, windows: bool | None) -> Path:
    """A name of its own for everything that the content depends on."""
    about = [[shard.info.to_dict() for shard in index.shards], index.settings.to_dict()]
    digest = hashlib.blake2s(json.dumps(about).encode(), digest_size=6).hexdigest()
    kind = "windows" if windows else "files"
    return index.folder / f"{kind}-{score}-{digest}.faiss"


def _keep(index: Index, path: Path, cells) -> None:
    """Write it for the next time, and remove those of earlier contents; a folder that is read-only does without."""
    faiss = _faiss()
    digest = path.stem.rsplit("-", 1)[1]
    temporary = media.temporary_sibling(path)
    try:
        faiss.write_index(cells, str(temporary))
        temporary.replace(path)
    except (RuntimeError, OSError):
        pass
    finally:
        disk.remove(temporary)
    for old in index.folder.glob("*.faiss"):
        if not old.stem.endswith(digest) and not old.name.startswith("."):
            disk.remove(old)


def _faiss():
    try:
        import faiss
    except ImportError as error:
        raise UserError('approximate search needs faiss: pip install "samaudio[index]", or use --exact') from error
    return faiss
