"""Retrieval: the embeddings of a folder, kept in a folder of their own, and searched.

Modules
-------
settings     what all embeddings of one index have in common, and refusing to mix
disk, lock   writing so that a stop leaves a valid index; one writer at a time
shards       vectors and their files, written once
store        which shards count
scan         files below a folder
embedding    files to vectors, reading ahead of the model
workers      the same in local processes, or on a dask cluster
builder      bring an index up to date with its folder
search       the nearest rows, exactly (`approximate`: with faiss, among millions)
query        text, sound, pictures, or two of them as one vector
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .builder import Report, build
    from .search import Hit, Index

__all__ = ["Hit", "Index", "Report", "build"]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, which `--help` should not.
    if name in ("Report", "build"):
        from . import builder

        return getattr(builder, name)
    if name in ("Hit", "Index"):
        from . import search

        return getattr(search, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
