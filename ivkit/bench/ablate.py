"""Whose work is it? One job by Eq. 4 alone, then with each further part of the method."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image

from ..instructions import Change, Instructions, TrajectoryInstruction
from ..pipeline import Pipeline
from ..support.validate import checked
from ..trajectory import drag_still
from ..video import Run
from ..view import contact_sheet
from .scores import MEASURES, of_edits

SAID = ("drag_distance", "edit_kept", "flicker")


@dataclass(frozen=True)
class Ablation:
    """By part: its clip, uint8 (F, H, W, 3), and its measures by their names in `bench.scores`."""

    clips: dict[str, np.ndarray] = field(repr=False)
    measures: dict[str, dict[str, float]]

    def sheet(self, every: int = 5, height: int = 110) -> Image.Image:
        """The clips below each other, with what was measured of each; as of `contact_sheet`."""
        rows = {}
        for part, found in self.measures.items():
            said = [
                f"{m.heading} {found[name]:.{m.digits}{'%' if m.percent else 'f'}}"
                for name, m in MEASURES.items()
                if name in SAID and name in found
            ]
            rows[f"{part}: {', '.join(said)}"] = self.clips[part]
        return contact_sheet(rows, every=every, height=height)


@checked(options=lambda: [Pipeline.video])
def ablate(pipe: Pipeline, run: Run, **options) -> Ablation:
    """The job of `run` by Eq. 4 alone, + a condition for each frame, + dual-clock, + Eq. 5.

    By Eq. 4 alone a drag edits the still, as in the authors' code: x' is the picture with all at
    its target. Parts that a job or a model does not have are left out.

    options: those of `pipe.video`; fewer steps or frames save time.
    """
    asked, options = run.instructions, {"progress": False, **options}
    changes = tuple(_alone(run.picture, change) for change in asked.changes)
    edited = _at_target(run.picture, asked)
    alone = replace(asked, edited=edited, trajectory=None, changes=changes)
    last = pipe.run(alone, **options | {"align": False})
    clips = {"Eq. 4 alone": last.frames}
    if any(given.trajectory for given in (asked, *asked.changes)):
        per_frame = "per_frame" in pipe.model.capabilities
        parts = {"+ condition": "condition"} if per_frame else {}
        parts["+ dual-clock"] = "both" if per_frame else "dual-clock"
        for part, mechanism in parts.items():
            last = pipe.run(asked, **options | {"align": False, "mechanism": mechanism})
            clips[part] = last.frames
    if last.align is not None:
        clips["+ Eq. 5"] = pipe.run(asked, **options | {"align": True}).frames
    drags = run.trajectory.drags
    measures = {n: of_edits(clip, run.picture, run.still, drags) for n, clip in clips.items()}
    return Ablation(clips, measures)


def _at_target(picture: Image.Image, asked: Instructions | Change) -> Image.Image | None:
    """x' with what is dragged at its target."""
    if not asked.trajectory:
        return asked.edited
    return drag_still(asked.edited or picture, asked.trajectory)


def _alone(picture: Image.Image, change: Change) -> Change:
    edited = _at_target(picture, change)
    return replace(change, edited=edited, trajectory=TrajectoryInstruction())
