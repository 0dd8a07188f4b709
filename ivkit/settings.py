"""How a picture and a clip are made: the options of P_img and of P_video, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from .instructions import Mechanism, Posterior, Reading, Source, Unit
from .models.protocol import VideoModel
from .paint import Cells, Rim
from .support.validate import (
    MAX_DRAWN,
    Frames,
    Guidance,
    Guidances,
    Index,
    Seed,
    Share,
    Size,
    Steps,
    check_clip,
    checked,
)


@checked
@dataclass
class PictureSettings:
    """How a picture is made; None takes the model's own.

    Attributes: those of `Settings` by the same names, and
        strength: in [0, 1], how far the result may depart from the painted picture.
        grow, feather: of the edit mask, see `edit_mask`.
    """

    strength: Share = 0.7
    seed: Seed = 0
    num_inference_steps: Steps | None = None
    guidance_scale: Guidance | None = None
    negative: str | None = None
    size: Size | None = None
    grow: Cells = 1.5
    feather: Rim | None = None
    posterior: Posterior = "mode"

    def resolve(self, model: VideoModel, size: tuple[int, int], multiple: int) -> PictureSettings:
        """Checked, with `size` and the model's own values where there was None."""
        return _resolved(self, model, {"size": size, **model.defaults["image"]}, multiple)


@checked
@dataclass
class Settings:
    """How a clip is made; None takes the model's own. All of it is plain data, and each field is
    one of `Instructions` too (`motion_scale` of its `MotionInstruction`).

    Attributes:
        seed: of the starting noise, and of a stochastic scheduler's.
        num_frames, num_inference_steps: whole numbers of at least 1.
        guidance_scale: a number, or one for each frame; 1 and below switch guidance off.
        motion_scale: how much moves, as the model counts it; PIA: 0 to 8.
        negative: text that guidance leads away from; "" for none. Wan, LTX-Video and I2VGen-XL have
            one of their own.
        reading: "paired" or "shared", the two readings of Eq. 4.
        mechanism: what carries a drag: "condition" (each frame has its own condition),
            "dual-clock" (the noised warped clip is put back at each step), or "both".
        source: what a drag edits: "still", the picture, so that all else stands still in the steps
            that hold the whole frame; or "clip", the clip as the text moves it without the drag, so
            that text and drag are both obeyed; where there is paint, this costs one more branch.
        weak, strong: shares of the steps in [0, 1]: dual-clock acts everywhere before `weak` (a
            text that moves the same thing elsewhere then leaves no second one behind), and where
            things move before `strong`; at 1 in the finished clip as well, so that a dragged thing
            looks as it did.
        blend_in: the unit in which Eq. 4 blends: "v", whatever the network predicts; "eps", the
            paper's letter; "x0"; or "native", what the network predicts. See `blend.blend_in`.
        skip_zero: do not evaluate a branch whose weight is zero everywhere, nor a step whose answer
            dual-clock overwrites before the next one.
        batch: both branches in one call of the network; None does so on a GPU, unless the network
            is compiled for one branch.
        eta: of a DDIM scheduler, in [0, 1]; 0 is deterministic.
        posterior: "mode", or "sample" as diffusers' own pipelines do.
        align: Eq. 5 after the denoising, where the model brings the module.
        size: (width, height) that pictures are fitted to.
    """

    seed: Seed = 0
    num_frames: Frames | None = None
    num_inference_steps: Steps | None = None
    guidance_scale: Guidances | None = None
    motion_scale: Index | None = None
    negative: str | None = None
    reading: Reading = "paired"
    mechanism: Mechanism = "both"
    source: Source = "still"
    blend_in: Unit = "v"
    weak: Share = 0.8
    strong: Share = 1.0
    skip_zero: bool = True
    batch: bool | None = None
    eta: Share = 0.0
    posterior: Posterior = "mode"
    align: bool = True
    size: Size | None = None

    def resolve(self, model: VideoModel) -> Settings:
        """Checked, with the model's own values where there was None."""
        batch = model.device.type != "cpu" and not model.speed.one_shape
        own = {"num_frames": model.num_frames, "size": model.size, "batch": batch}
        own |= model.defaults["video"]
        s = _resolved(self, model, own, model.multiple)
        scale = s.guidance_scale
        if isinstance(scale, list) and len(scale) != s.num_frames:
            raise ValueError(
                f"guidance_scale needs one number for each of the {s.num_frames} frames, "
                f"got {len(scale)}"
            )
        model.check_clip(s.num_frames, s.size)
        if s.mechanism == "condition" and not model.per_frame:
            raise ValueError(
                f"mechanism must be both or dual-clock for {model.name}, which has one condition "
                "picture for the whole clip"
            )
        check_clip(s.num_frames, s.size[::-1])
        return s


Kind = TypeVar("Kind", PictureSettings, Settings)


def _resolved(s: Kind, model: VideoModel, own: dict[str, Any], multiple: int) -> Kind:
    """The settings with `own` where there is None, and what both kinds share checked."""
    given = {name: value for name, value in vars(s).items() if value is not None}
    if given.get("negative") not in (None, "", own.get("negative")):
        model.check_text(given["negative"], "negative")
    s = type(s)(**{"negative": "", **own, **given})
    w, h = s.size
    if w % multiple or h % multiple:
        raise ValueError(
            f"size must be multiples of {multiple} pixels for {model.name}, got {w} x {h}"
        )
    if w * h > MAX_DRAWN:
        raise ValueError(f"size must hold at most {MAX_DRAWN} pixels, got {w} x {h}")
    return s
