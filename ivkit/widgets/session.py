"""What a person made, as plain data: a sketch, a take, a session; replay, autosave, provenance."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
import threading
import weakref
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from ..instructions import Change, Instructions, Strokes, TrajectoryInstruction
from ..paint import on_picture
from ..pictures import Picture
from ..support.disk import whole
from ..support.saved import Saved
from ..support.validate import TEXT, Kind, Listed, Sentence, Steps, checked
from ..trajectory import check


@checked
@dataclass(frozen=True, eq=False)
class Sketch(Saved):
    """All that lies on a canvas: a picture, strokes on it, and where things are to go.

    Raises ValueError where strokes or drags do not fit the picture.
    """

    picture: Picture
    strokes: Strokes = ()
    trajectory: TrajectoryInstruction = field(default_factory=TrajectoryInstruction)

    def __post_init__(self) -> None:
        check(self.trajectory, self.picture.size[::-1])
        on_picture(self.strokes, self.picture.size)


@checked
@dataclass(frozen=True, eq=False)
class Take(Saved):
    """One try: the instructions, x' as P_img made it, what was changed on the way, and whether the
    person wants to keep it."""

    name: Sentence
    model: str
    instructions: Instructions
    edited: Picture | None = None
    changes: tuple[Change, ...] = ()
    stopped: Steps | None = None  # after so many steps; None is a clip made to its end
    kept: bool = False

    def __post_init__(self) -> None:
        i = self.instructions
        if not (i.image and i.image.picture and i.motion):
            raise ValueError("a take needs instructions with a picture and a motion text")

    def start(self, pipe) -> Iterator:
        """The steps of `pipe.denoise` for these instructions, changes on the way included."""
        i = self.instructions
        edits = {"edited": self.edited, "drags": i.trajectory, "changes": self.changes}
        return pipe.denoise(i.image.picture, i.motion.text, **i.options() | edits)

    def steps(self, pipe) -> Iterator:
        """The steps of the clip made again, as many as there were."""
        for step in self.start(pipe):
            yield step
            if step.index + 1 == self.stopped:
                return

    def replay(self, pipe):
        """Make the clip again: the Run, whose frames on the same device are those on show."""
        *_, last = self.steps(pipe)
        return last.run


def _pair(value: Any) -> tuple[str, Any]:
    name, held = value
    return TEXT("name", name), held


Panel = Annotated[tuple, Listed(Kind("a (name, value) pair", _pair), "(name, value) pairs")]


@checked
@dataclass(frozen=True, eq=False)
class Session(Saved):
    """What a studio holds: the sketch, the panel's values as (name, value) pairs, the takes."""

    sketch: Sketch
    panel: Panel = ()
    takes: tuple[Take, ...] = ()


def provenance(take: Take) -> str:
    """What an exported file says of itself: that it is generated, by what, and how (JSON)."""
    from .. import __version__

    i = take.instructions
    facts = {
        "generated": "This is a generated clip, not a recording.",
        "by": f"ivkit {__version__}, model {take.model}",
        "name": take.name,
        "content": i.content and i.content.text,
        "strokes": len(i.content.strokes) if i.content else 0,
        "motion": i.motion.text,
        "motion_scale": i.motion.motion_scale,
        "drags": len(i.trajectory.drags) if i.trajectory else 0,
        "lam": i.lam if isinstance(i.lam, float) else [float(i.lam.min()), float(i.lam.max())],
        "seed": i.seed,
        "num_frames": i.num_frames,
        "num_inference_steps": i.num_inference_steps,
        "guidance_scale": i.guidance_scale,
        "weak": i.weak,
        "changed_at_steps": [change.step for change in take.changes],
    }
    return json.dumps(facts)


_OWNERS: dict[Path, tuple] = {}  # (a reference to the Autosave, its cell, which run of the cell)


def _cell() -> tuple[Hashable, int]:
    """The notebook's cell that runs now, by its id or else its text, and which run it is."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is None or not hasattr(shell, "get_parent"):
        return None, 0
    known = shell.get_parent().get("metadata", {}).get("cellId")
    return known or shell.user_ns.get("In", [None])[-1], shell.execution_count


class Autosave:
    """Writes what a person makes a moment after each change, and keeps what was there before.

    name: of the file, outputs/autosave/NOTEBOOK-NAME.json under the working folder. A second canvas
    of the same name writes NOTEBOOK-NAME-2.json, and so on; a cell that is run again takes its file
    over. What an earlier kernel left there moves to ....previous.json with the first write:
    starting anew loses nothing.
    """

    DELAY = 0.3  # seconds; a change in between waits with it

    def __init__(self, name: str, folder: str | Path = "outputs/autosave"):
        notebook = Path(os.environ.get("JPY_SESSION_NAME", "")).stem  # set by Jupyter's server
        stem = f"{notebook}-{name}" if notebook else name
        self.path = self._claim(Path(folder).resolve(), stem)
        self.previous = self.path.with_suffix(".previous.json")
        self.failed: Exception | None = None
        self._latest: Saved | None = None
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()
        self._begun = False

    def _claim(self, folder: Path, stem: str) -> Path:
        """The first file that belongs to nobody else, or to an earlier run of the same cell."""
        cell, run = _cell()
        for n in itertools.count(1):
            path = folder / (f"{stem}.json" if n == 1 else f"{stem}-{n}.json")
            owner, *where = _OWNERS.get(path, (lambda: None,))
            if owner() is None or (cell is not None and where[0] == cell and where[1] != run):
                _OWNERS[path] = weakref.ref(self), cell, run
                return path

    def found(self, kind: type[Saved]):
        """What an earlier kernel left, or None. A damaged file counts as none, and stays."""
        try:
            return kind.load(self.path)
        except ValueError:
            return None

    def put(self, saved: Saved) -> None:
        with self._lock:
            self._latest = saved
            if self._timer is None:
                self._timer = threading.Timer(self.DELAY, self.flush)
                self._timer.start()  # no daemon: a process that ends now waits until it is written

    def flush(self) -> None:
        """Write now what waits to be written."""
        with self._lock:
            saved, self._latest, self._timer = self._latest, None, None
            if saved is None or _OWNERS[self.path][0]() is not self:
                return
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                if not self._begun and self.path.exists():
                    with whole(self.previous) as part:
                        shutil.copyfile(self.path, part)
                self._begun = True
                saved.save(self.path)
                self.failed = None
            except (OSError, ValueError) as error:  # must not stop the drawing; the board says it
                self.failed = error
