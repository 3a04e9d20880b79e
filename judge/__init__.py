"""How well did a separation go? Scores and rankings of separated sounds.

    import judge
    judge.load().score("mix.wav", "guitar.wav", "guitar").similarity

What is measured today is PE-AV similarity: how near the target lies to the words. The network that hears
mixture and target together and fills `overall`, `recall`, `precision` and `faithfulness` is not part of this
version; these fields are None.

Modules
-------
score  `load`, `Judge` and `Score`
cli    the ``judge`` command
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from judge.score import Judge, Score, load

__all__ = ["Judge", "Score", "load"]


def __getattr__(name: str) -> Any:
    # Imported when asked for: `judge --help` should not wait for torch.
    if name in __all__:
        from judge import score

        return getattr(score, name)
    raise AttributeError(f"module 'judge' has no attribute {name!r}")
