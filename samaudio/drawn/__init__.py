"""The drawn world: films of pictures that move with the sounds they make, for training what hears and sees at once.

>>> pictures = open_pictures("pictures", "train")                       # doctest: +SKIP
>>> film = DrawnFilms(store, pictures, Recipe(), seed=0)[17]             # doctest: +SKIP
>>> film.frames.shape, film.masks.shape, film.stems.shape               # doctest: +SKIP
(torch.Size([24, 3, 112, 112]), torch.Size([2, 24, 112, 112]), torch.Size([2, 48000]))

Modules
-------
vocabulary   labels of sounds to what is drawn for them
collect      the command that makes small pictures out of picture fonts
styles       pictures by style; the style that only validation sees
sounds       mixtures of sounds that can be drawn, by looks that differ or not
scene        paths, and how objects answer to loudness
backgrounds  what is behind them
render       painting, masks, and a camera's faults
wording      captions
films        `DrawnFilms`, the stream of examples
items        the same films as `peav.films` trains on
files        films as files, with their truth beside them
preview      contact sheets
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .films import LOOK_ALIKES, DrawnFilm, DrawnFilms, Recipe
    from .styles import HELD_OUT, Pictures, open_pictures

_HOMES = {
    "LOOK_ALIKES": "films",
    "DrawnFilm": "films",
    "DrawnFilms": "films",
    "Recipe": "films",
    "HELD_OUT": "styles",
    "Pictures": "styles",
    "open_pictures": "styles",
}

__all__ = ["HELD_OUT", "LOOK_ALIKES", "DrawnFilm", "DrawnFilms", "Pictures", "Recipe", "open_pictures"]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, which the commands' `--help` should not.
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
