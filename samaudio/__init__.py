"""Audio separation by words, looks, times or examples: say what you mean, get that sound and the rest.

>>> separator = samaudio.load()                            # doctest: +SKIP
>>> separator.separate("mix.wav", "guitar").save("out")    # doctest: +SKIP

Modules
-------
prompts      what the user can say about a sound
visual       from what the user points at to an object's mask through time
sight        what the model makes of that object (`viewer`: each one once)
mask         the separator network: latent and query in, masks out
model        codec, embedder and separator as one thing that answers queries
project      masks on the recording's own STFT
bands        the mask above the model's frequency range
chunks       long recordings in overlapping chunks, and back
spans        activity to spans of time, and the user's spans to a gate
cut          one chunk: ask the model, cut the answer out of the chunk
rank         which candidate is best
listen       a recording going by once
filejob      a file of any length into stems on disk
files        names of stems, and writing both files of a sound or none
result       what a separation gives back
pipeline     `Separator` and `load`
checkpoints  models on disk
cli, plots   the ``separate`` command and its pictures
mixtures     training mixtures
metrics      how good a separation is
train        training of the separator (`calibrate`: when a sound counts as there)
drawn        films of drawn objects that sound; `train_vision`, `train_video`, `train_pointing`: learning to see in them
renders      sounds rendered from code; ``render_*`` are its parts
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .pipeline import Separator, load
    from .prompts import Box, Click, Example, Mask, Span, Text, Video
    from .result import FileResult, Result

_HOMES = {
    "load": "pipeline",
    "Separator": "pipeline",
    "Result": "result",
    "FileResult": "result",
    "Text": "prompts",
    "Span": "prompts",
    "Example": "prompts",
    "Click": "prompts",
    "Box": "prompts",
    "Mask": "prompts",
    "Video": "prompts",
}

__all__ = [
    "Box",
    "Click",
    "Example",
    "FileResult",
    "Mask",
    "Result",
    "Separator",
    "Span",
    "Text",
    "Video",
    "load",
]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, which `--help` should not.
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
