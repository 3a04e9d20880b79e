"""How well did a separation go? Scores and rankings of what any separator made of a recording.

    import judge
    judge.load().score("mix.wav", "guitar.wav", "guitar").overall

A network hears mixture and target together and says from 1 to 5 how good the separation is, how complete, how clean and
how true to the sound; an embedder says how near the target lies to the prompt. No true stem is needed.

Modules
-------
score       `Judge` and `Score`; `loading`: `load`
prompts     what a target should answer to: words, `Example`, `Video`
audio       mixture and target side by side: files or samples of any rate, in windows
verdict     scores of a whole recording from those of its windows; their `Curve` over time
rank        which candidate is best: `RankWeights`
model       the network (`features`: what it sees of a latent; `estimate`: what it compares an output with)
checkpoints our weights on disk; `published`: the published files
cli         the ``judge`` command (`plots`: its pictures; `serve_cli`, `report_cli`: more of it)
server      the judge over HTTP; `report`: a folder of separations as one page
targets     what a separation deserves, from the true stem; `degrade`, `scenes`, `collection`: data made of that
train       how the small network was trained (`grid`, `comparisons`, `order`; `refit`: one head anew), and
            how good it is (`evaluate`, `figures`, `sweeps`)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from judge.loading import load
    from judge.score import Curve, Example, Judge, RankWeights, Score, Video

__all__ = ["Curve", "Example", "Judge", "RankWeights", "Score", "Video", "load"]


def __getattr__(name: str) -> Any:
    # Imported when asked for: `judge --help` should not wait for torch.
    if name == "load":
        from judge.loading import load

        return load
    if name in __all__:
        from judge import score

        return getattr(score, name)
    raise AttributeError(f"module 'judge' has no attribute {name!r}")
