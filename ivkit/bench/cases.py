"""StoryBench's 105 cases: 7 sceneries x 5 pictures x 3 motion texts, each painted on and dragged.

They are fixed in `storybench.json`, and 105 more, which no default was tuned on, in
`storybench_second.json`; `python -m tests.bench cases` draws both files again, the same to the bit.
Lengths are shares of the picture's width, y pointing down, as in `storybook.world`.

The three motions of a picture:
    0  the text moves a thing, and a drag says where that same thing ends
    1  the text moves one thing, the drag another
    2  the text is of the scene ("the snow falls"), and two things are dragged
Half of the pictures are for tuning (which lam, reading, mechanism), half for reporting.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ..support.validate import File, Number, Seed, checked

FILE = Path(__file__).with_name("storybench.json")
SECOND = Path(__file__).with_name("storybench_second.json")
SUBSET = 10  # cases of --subset, spread over the sceneries
SPEED = 0.8  # of what the text moves: motion scale 1 of the storybook

Length = Annotated[float, Number(-1, 2)]  # what moves may leave the picture


@checked
@dataclass(frozen=True)
class Thing:
    """A thing of the world: its centre and its side; `colour` is None for its own."""

    name: str
    x: Length
    y: Length
    size: Annotated[float, Number(0, 1)]
    colour: str | None = None

    @property
    def noun(self) -> str:
        return f"{self.colour} {self.name}" if self.colour else self.name


@checked
@dataclass(frozen=True)
class Case:
    """One case. `things[0]` and `things[1]` are in the picture, `painted` comes by the brush.

    Attributes:
        half: "tuning" or "reporting".
        specks, hills, horizon, shore: of the background, see `storybook.world.Scenes`.
        move: what the text says of things[0], one of world.MOVES; "" where it speaks of the scene.
        event: what the text says of the scene, one of world.EVENTS, or "".
        strokes: (colour, width, points) of the painted edit.
        drags: things' index -> path, its first point the thing's own centre.
    """

    id: str
    picture: str
    half: str
    ground: str
    time: str
    horizon: float
    shore: float
    hills: tuple[float, ...]
    specks: tuple[float, ...]
    things: tuple[Thing, ...]
    painted: Thing
    strokes: tuple
    move: str
    event: str
    motion: str
    drags: dict[int, tuple]
    seed: Seed

    @property
    def caption(self) -> str:
        """Of the picture as it is."""
        return self._caption(self.things)

    @property
    def text(self) -> str:
        """y, of the picture with what is painted."""
        return self._caption((self.painted, *self.things))

    def _caption(self, things) -> str:
        from ..storybook.words import with_article

        names = " and ".join(with_article(thing.noun) for thing in things)
        return f"{names} on the {self.ground} at {self.time}"


@checked
def load(file: File = FILE) -> list[Case]:
    """The cases of a file that `save` wrote; ValueError naming it where it holds none."""
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
        return [_case(row) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{str(file)!r} holds no cases ({error})") from None


def _case(row: dict) -> Case:
    row = dict(row)
    row["things"] = tuple(Thing(**thing) for thing in row["things"])
    row["painted"] = Thing(**row["painted"])
    row["strokes"] = tuple(row["strokes"])
    row["drags"] = {int(k): path for k, path in row["drags"].items()}
    return Case(**row)


@checked
def subset(cases: list[Case]) -> tuple[Case, ...]:
    """Ten of them (or all, if fewer), spread evenly: every scenery, every kind of motion."""
    return cases[:: max(1, len(cases) // SUBSET)][:SUBSET]
