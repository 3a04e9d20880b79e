"""What came out of a separation: files for every candidate, so that none of it stays in memory."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from peav.errors import UserError

if TYPE_CHECKING:
    from samaudio.result import Candidate, Result

    from .recording import Recording
    from .session import Session


@dataclass
class Take:
    """One way to separate. ``number`` counts from 1; 0 is the silence that stands for "not heard"."""

    number: int
    prompt: str
    present: bool
    presence: float
    similarity: float
    quality: dict[str, float | None]  # the Judge's, 1 to 5
    spans: list[tuple[float, ...]]  # start, end, confidence; seconds
    target: Path
    residual: Path
    picture: Path | None = None  # spectrograms
    film: Path | None = None  # with only the target
    film_without: Path | None = None
    film_problem: str = ""  # why there are no films

    def files(self) -> list[Path]:
        return [path for path in (self.target, self.residual, self.picture, self.film, self.film_without) if path]

    @property
    def label(self) -> str:
        """For a list to choose from."""
        if not self.number:
            return "nothing (it was not heard)"
        overall = self.quality.get("overall")
        said = [f"Judge {overall:.1f} of 5"] if overall is not None else []
        said += [f"similarity {self.similarity:.2f}"] if math.isfinite(self.similarity) else []
        return f"candidate {self.number}" + (f": {', '.join(said)}" if said else "")


def write_takes(result: Result, session: Session) -> tuple[list[Take], int]:
    """Write the target and the residual of every candidate; returns them and which one was chosen.

    Where the sound is not present, what was chosen is silence, and candidates can be listened to all the same.
    """
    mixture = result.target + result.residual
    made = []
    if not result.present:
        made.append(_write(dataclasses.replace(result), None, 0, session))
    for number, candidate in enumerate(result.candidates, 1):
        if candidate.target is None:
            continue
        one = dataclasses.replace(result, target=candidate.target, residual=mixture - candidate.target)
        made.append(_write(one, candidate, number, session))
    chosen = result.chosen if result.present else 0
    return made, min(chosen, len(made) - 1)


def _write(result: Result, candidate: Candidate | None, number: int, session: Session) -> Take:
    quality = result.scores.quality if candidate is None else candidate.quality
    folder = session.new("")
    target, residual = result.save(folder, track=f"candidate {number}" if number else "not heard")
    return Take(
        number,
        result.prompt,
        result.present,
        result.scores.presence,
        result.scores.similarity if candidate is None else candidate.similarity,
        quality.to_dict(),
        list(result.spans),
        target,
        residual,
    )


def complete(take: Take, recording: Recording, session: Session) -> None:
    """Draw the spectrograms and write the films of the one that is listened to."""
    from samaudio.plots import plot_separation
    from samaudio.remux import ending_for, remux

    if take.picture is None:
        picture = session.new("spectrograms.png")
        plot_separation(recording.sound, take.target, take.residual, picture, take.prompt, take.spans)
        take.picture = picture
    if recording.video is None or take.film is not None or take.film_problem:
        return
    name, ending = take.target.stem, ending_for(recording.path)
    only, without = session.new(f"only {name}{ending}"), session.new(f"without {name}{ending}")
    try:
        remux(recording.path, take.target, only)
        remux(recording.path, take.residual, without)
    except UserError as error:  # the sounds are there all the same
        take.film_problem = str(error)
        return
    take.film, take.film_without = only, without
