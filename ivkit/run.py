"""A clip, from what a person asked for to its frames, and what may be changed on the way."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from . import validate
from .align import align_frames, blended_target
from .blend import lam_schedule
from .instructions import Camera, Moves, TrajectoryInstruction
from .models.common import to_cells
from .pictures import Picture
from .pixels import fit, to_frames, to_pixels
from .settings import Settings
from .state import Denoising, Edit
from .trajectory import Warped, check, moving_region, warp
from .validate import Path2D, Weights

DRAGGED = ("drags", "pins", "camera")


def edits(
    *,
    edited: Picture | None,
    drags: Moves,
    pins: Path2D,
    camera: Camera | None,
    lam: Weights,
    motion: str,
) -> None:
    """What may be changed while a clip is made."""


@dataclass
class Run:
    """A clip and everything that happened on the way to it.

    Attributes:
        picture, edited: x and x', PIL RGB; the same where nothing is painted.
        motion: y'.
        trajectory: r.
        warped: the cut-and-drag clip and its masks, where there is a drag.
        settings: see `Settings`.
        seconds: of "prepare", "denoise" and "decode".
    """

    pipeline: Any  # the Pipeline it was made by
    picture: Image.Image
    motion: str
    settings: Settings
    edited: Image.Image | None = None
    trajectory: TrajectoryInstruction = field(default_factory=TrajectoryInstruction)
    warped: Warped | None = None
    lam: Any = 1.0
    seconds: dict[str, float] = field(default_factory=dict)
    state: Denoising | None = field(default=None, repr=False)
    drawn: Tensor | None = field(default=None, repr=False)  # the generator's state after the noise
    _decoded: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        s, w = self.state, self.settings
        took = sum(self.seconds.values())
        return f"Run({w.num_frames} frames, {s.index} of {s.num_steps} steps, {took:.1f} s)"

    @property
    def trace(self):
        """The Trace: `run.trace[4]["eps_hat"]` is (F, C, h, w)."""
        return self.state.trace

    @property
    def finished(self) -> bool:
        return self.state.finished

    # ------------------------------------------------------------------------------- its frames

    @property
    def frames(self) -> np.ndarray:
        """The clip, uint8 (F, H, W, 3); of a run that was stopped, as its last step foresaw it."""
        if "frames" in self._decoded:
            return self._decoded["frames"]
        z = self.state.z
        if not self.finished and self.state.last is not None:
            z = self.state.last["x0"]
        edited = to_pixels(self.still if self.warped is None else self.warped.frames)
        frames = self._decode(z, blended_target(to_pixels(self.picture), edited, self.state.lam))
        if self.finished:
            self._decoded["frames"] = frames
        return frames

    @property
    def unedited(self) -> np.ndarray:
        """The clip without the edits, uint8 (F, H, W, 3): computed if it has to be, then kept."""
        if "unedited" not in self._decoded:
            z = self.state.reference.end
            self._decoded["unedited"] = self._decode(z, to_pixels(self.picture))
        return self._decoded["unedited"]

    def _decode(self, z: Tensor, target: Tensor) -> np.ndarray:
        pixels = self.pipeline.model.decode(z)
        if self.settings.align and self.pipeline.align is not None:
            pixels = align_frames(self.pipeline.align, pixels, target)
        return to_frames(pixels)

    # ------------------------------------------------------------------------- what is asked for

    @property
    def still(self) -> Image.Image:
        """x', or x where nothing is painted."""
        return self.picture if self.edited is None else self.edited

    def checked(self, changes: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
        """The changes as fields of a Run, or an error; shape: (steps, F, h, w)."""
        new = {name: changes[name] for name in ("lam", "motion") if name in changes}
        if "lam" in new:
            lam_schedule(new["lam"], shape[0], shape[1:], self.pipeline.cell)
        if "motion" in new:
            self.pipeline.model.check_text(new["motion"], "motion")
        if "edited" in changes:
            edited, size = changes["edited"], self.picture.size
            new["edited"] = None if edited is None else fit(edited, size, True, "edited")
        if changes.keys() & {*DRAGGED}:
            before = self.trajectory
            r = TrajectoryInstruction.of(changes.get("drags", before.drags))
            pins = r.pins or changes.get("pins", before.pins)
            camera = r.camera or changes.get("camera", before.camera)
            r = TrajectoryInstruction(r.drags, pins, camera)
            new["trajectory"] = check(r, self.picture.size[::-1])
        return new

    @validate.checked(options=lambda: [edits])
    def change(self, **changes) -> None:
        """What `Step.change` does: check changes and put them in force from the next step on."""
        state = self.state
        self.apply(self.checked(changes, (state.num_steps, len(state.z), *state.z.shape[-2:])))

    def apply(self, fields: dict[str, Any]) -> None:
        """Put checked fields in force. All is made before any of it is set, so that an error
        leaves the run as it was."""
        state, reference = self.state, self.state.reference
        new = dataclasses.replace(self, **fields)
        if fields.keys() & {"edited", "trajectory"}:
            frames, r = new.settings.num_frames, new.trajectory
            new.warped = warp(new.still, r, frames) if r else None
        if new.motion != self.motion:
            reference = reference.fork(state.index, new.condition(to_pixels(new.picture)))
        edit = new._edit(reference.condition(state.index))
        lam = lam_schedule(new.lam, state.num_steps, (len(state.z), *state.z.shape[-2:]),
                           self.pipeline.cell)  # fmt: skip
        for name in ("edited", "trajectory", "warped", "lam", "motion"):
            setattr(self, name, getattr(new, name))
        if reference is not state.reference:
            self._decoded.pop("unedited", None)
        state.reference, state.edit, state.lam = reference, edit, lam

    def _edit(self, condition) -> Edit:
        """What tells the edited branch from the reference, whose condition this is."""
        s, pixels = self.settings, None if self.warped is None else to_pixels(self.warped.frames)
        if pixels is not None and s.mechanism != "dual-clock":
            condition = self.condition(pixels)
        elif self.edited is not None:
            condition = self.condition(to_pixels(self.edited))
        if pixels is None or s.mechanism == "condition":
            return Edit(condition)
        drag = self.pipeline.model.encode(pixels)
        region = torch.from_numpy(moving_region(self.warped)).float()
        mask = to_cells(region, (len(drag), *drag.shape[-2:]))[0][:, None]
        steps = self.state.num_steps
        weak, strong = round(s.weak * steps), round(max(s.weak, s.strong) * steps)
        strong += s.strong == 1  # the finished clip, too
        return Edit(condition, drag, mask.to(drag.device), weak, strong)

    def condition(self, pixels: Tensor):
        """One branch's condition. Both draw from the generator as the noise has left it."""
        s, model, generator = self.settings, self.pipeline.model, torch.Generator()
        generator.set_state(self.drawn)
        scale = s.guidance_scale
        if isinstance(scale, list):
            scale = torch.tensor(scale, device=model.device).view(-1, 1, 1, 1)
        return model.condition(
            pixels,
            self.motion,
            num_frames=s.num_frames,
            negative=s.negative,
            guidance_scale=scale,
            motion_scale=s.motion_scale,
            posterior=s.posterior,
            generator=generator,
        )
