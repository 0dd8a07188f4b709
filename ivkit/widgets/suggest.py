"""What to try next, from what was tried, by a few rules; each suggestion shows its rule."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from ..instructions import Instructions, TrajectoryInstruction
from .session import Take

NEEDED, OFFERED = 3, 2  # tries before the first suggestion; suggestions at a time
FURTHER = 1.4  # times as far


@dataclass(frozen=True)
class Suggestion:
    """says: what to try. why: the rule. instructions: all of the next try."""

    says: str
    why: str
    instructions: Instructions


def suggestions(takes: Sequence[Take]) -> list[Suggestion]:
    """At most two next tries, from three tries on. Clips that are kept count as liked; where fewer
    than two are kept, the newest others stand in for them."""
    if len(takes) < NEEDED:
        return []
    liked = sorted(takes, key=lambda take: take.kept)[-2:]
    return list(islice(_rules(*liked, takes), OFFERED))


def _rules(other: Take, best: Take, takes: Sequence[Take]) -> Iterator[Suggestion]:
    i, lams = best.instructions, [take.instructions.lam for take in takes]
    a, b = other.instructions.lam, i.lam
    if isinstance(a, float) and isinstance(b, float):
        lam = round((a + b) / 2, 2)
        if lam not in [lam for lam in lams if isinstance(lam, float)]:
            why = f"It lies between those of {other.name} and {best.name}."
            yield Suggestion(f"λ = {lam:g}.", why, dataclasses.replace(i, lam=lam))
    if further := _further(i):
        why = f"{best.name} has a drag, which can go on."
        says = f"The drag goes {FURTHER:g} times as far."
        yield Suggestion(says, why, dataclasses.replace(i, trajectory=further))
    seed = max(take.instructions.seed for take in takes) + 1
    why = f"No try has it yet; all else is as in {best.name}."
    yield Suggestion(f"Seed {seed}.", why, dataclasses.replace(i, seed=seed))


def _further(instructions: Instructions) -> TrajectoryInstruction | None:
    """The same drags, each path stretched from its handle; None where one leaves the picture."""
    r, (width, height) = instructions.trajectory, instructions.image.picture.size
    if not r or not r.drags or not all(drag.path for drag in r.drags):
        return None
    drags = []
    for drag in r.drags:
        x, y = drag.path[0]
        path = [(x + FURTHER * (px - x), y + FURTHER * (py - y)) for px, py in drag.path]
        if not all(0 <= px < width and 0 <= py < height for px, py in path):
            return None
        drags.append(dataclasses.replace(drag, path=path))
    return dataclasses.replace(r, drags=drags)
