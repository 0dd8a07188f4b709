"""What is compared: each method makes a clip from the same job, and most need no line of their own.

t2v         from text alone: AnimateDiff's role in the paper
i2v         the picture and the motion text, no edit reaches it (lam = 1): PIA's role
swap        the edited picture in the place of the picture, the drag applied to the still alone:
            what the authors' code does (lam = 0)
paired      Eq. 4, reading `paired`, each frame with its own condition
shared      Eq. 4, reading `shared`, the same
align       `paired`, then Eq. 5
dual-clock  `paired`, the drag carried by dual-clock denoising alone
both        both mechanisms and Eq. 5: what the package does by itself
still       the same with source="still": the drag edits the picture, so that all else is held still
warp        cut and drag, no model: the edited picture's regions moved along their paths
frozen      the edited picture, standing still
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from PIL import Image

from ..instructions import Drag, Mechanism, Reading, Source, Stroke, Unit
from ..support.validate import Seed, Share, checked


@checked
@dataclass
class Job:
    """One case as the runner sees it, whatever benchmark it comes from.

    Attributes:
        group: cases of one picture are no independent draws; intervals resample whole groups.
        picture: x, of the size that the clips will have.
        text, motion, negative: y, y', and what guidance leads away from.
        strokes, drags: what a person did to the picture; may be empty.
        judge: what this benchmark alone can say of uint8 frames (F, H, W, 3).
    """

    id: str
    group: str
    picture: Image.Image
    text: str
    motion: str
    strokes: tuple[Stroke, ...] = ()
    drags: tuple[Drag, ...] = ()
    strength: Share = 0.7
    seed: Seed = 0
    half: str = ""
    negative: str = ""
    judge: Callable[[np.ndarray, np.ndarray | None], dict] | None = field(default=None, repr=False)

    @property
    def interactive(self) -> bool:
        return bool(self.strokes or self.drags)


@checked
@dataclass(frozen=True)
class Method:
    """A way to make a clip; `kind` says which, the rest is for the blends."""

    name: str
    kind: Literal["t2v", "i2v", "swap", "blend", "warp", "frozen"] = "blend"
    lam: Share | None = None
    reading: Reading = "paired"
    mechanism: Mechanism = "condition"
    align: bool = False
    weak: Share | None = None
    source: Source = "clip"
    blend_in: Unit = "v"

    @property
    def interactive(self) -> bool:
        """Without an edit it would repeat another method."""
        return self.kind in ("swap", "blend", "warp")


_ALL = (
    *(Method(kind, kind) for kind in ("t2v", "i2v", "swap")),
    Method("paired"),
    Method("shared", reading="shared"),
    Method("align", align=True),
    Method("dual-clock", mechanism="dual-clock"),
    Method("both", mechanism="both", align=True),
    Method("still", mechanism="both", align=True, source="still"),
    *(Method(kind, kind) for kind in ("warp", "frozen")),
)
METHODS = {method.name: method for method in _ALL}
OWN = "lam 0.3, paired, both"  # of the sweep: what `pipe.video` does when nothing else is said
SWEEP = tuple(
    Method(f"lam {lam:g}, {reading}, {mechanism}", "blend", lam, reading, mechanism)
    for mechanism in ("condition", "dual-clock", "both")
    for reading in ("paired", "shared")
    for lam in (0.0, 0.15, 0.3, 0.5, 0.7)
)

UNITS = tuple(  # in which Eq. 4 blends; in `shared` all are one
    replace(METHODS["both"], name=f"{unit}, {reading}", reading=reading, blend_in=unit)
    for unit, reading in (("v", "paired"), ("eps", "paired"), ("x0", "paired"), ("v", "shared"))
)


class Maker:
    """Clips of one job, method by method, over one pipeline. lam: of blends that name none."""

    def __init__(self, pipe, lam: float = 0.3, t2v=None, **options: Any):
        self.pipe, self.lam = pipe, lam
        # Branches go one by one, so that no number depends on which method ran before.
        self.options = {"batch": False, "progress": False, **options}
        self.t2v = t2v or text_only(pipe)
        self.job: Job | None = None

    def begin(self, job: Job) -> Image.Image:
        """Paint x' of a job; nothing kept from the job before remains."""
        self.pipe.clear_cache()
        self.job, self.edited = job, job.picture
        if job.strokes:
            how = {"strokes": job.strokes, "strength": job.strength, "seed": job.seed}
            how["negative_prompt"] = job.negative
            self.edited = self.pipe.image(job.text, job.picture, size=job.picture.size, **how)
        return self.edited

    def can(self, method: Method) -> bool:
        """False where the method repeats another on this job, or the model cannot do it."""
        if method.kind == "t2v":
            return self.t2v is not None
        return self.job is None or self.job.interactive or not method.interactive

    def frames(self, method: Method) -> np.ndarray:
        """uint8 (F, H, W, 3)."""
        from ..trajectory import drag_still, warp

        job, edited = self.job, self.edited
        count = self.options.get("num_frames") or self.pipe.model.num_frames
        if method.kind == "warp" and job.drags:
            return warp(edited, job.drags, count).frames
        if method.kind in ("frozen", "warp"):
            return np.repeat(np.asarray(edited)[None], count, 0)
        pipe, picture, text, lam = self.pipe, job.picture, job.motion, 1.0
        options = {**self.options, "seed": job.seed, "size": picture.size, "align": method.align}
        options["negative_prompt"] = job.negative
        if method.kind == "t2v":
            pipe, text = self.t2v, text if text == job.text else f"{job.text} , {text}"
        elif method.kind == "swap":
            picture = drag_still(edited, job.drags) if job.drags else edited
        elif method.kind == "blend":
            lam = self.lam if method.lam is None else method.lam
            told = ("reading", "mechanism", "source", "blend_in", "weak")
            told = {name: getattr(method, name) for name in told}
            options |= {name: value for name, value in told.items() if value is not None}
            options |= {"edited": edited, "drags": job.drags}
        return pipe.video(picture, text, lam=lam, **options).frames


def text_only(pipe):
    """The same network without its picture, where it was trained for that; else None.

    The storybook saw 8% of its clips so: condition and affinity mask zero, caption and motion text.
    """
    from ..pipeline import Pipeline

    if "text_only" not in pipe.model.capabilities:
        return None
    return Pipeline(_TextOnly(pipe.model))


class _TextOnly:
    """A model whose condition holds the text alone."""

    def __init__(self, model):
        self._model = model

    def __getattr__(self, name: str):
        return getattr(self._model, name)

    def condition(self, *args, **options):
        full = self._model.condition(*args, **options)
        nothing = {name: full.rows[name] * 0 for name in ("latents", "affinity")}
        return replace(full, rows={**full.rows, **nothing})
