"""A stream that a person steers while it plays: four frames a pass, by the storybook's student.

    live = pipe.live(picture, "the boat moves right")
    for frames in live:            # uint8 (4, H, W, 3), for ever
        handle = live.grab((90, 150))
        live.move(handle, (170, 120))
        live.say("it gets dark")

What is done takes effect with the next chunk. Nothing of the pointer's future is known: a held
thing goes in equal steps from where it was last shown to where the pointer is now. While nothing is
held and no text acts, everything rests, and the network is not asked.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .blend import blend
from .instructions import MotionScale, Moves, Strokes
from .models import live
from .models.protocol import alone
from .paint import edit_region, latent_mask, rasterise
from .pictures import Picture, fit, to_frames, to_pictures, to_pixels
from .regions import grow, inside
from .support.saved import Saved
from .support.validate import (
    MASK,
    POINT,
    File,
    Instance,
    Integer,
    Listed,
    Number,
    Point,
    Region,
    Seed,
    Sentence,
    Share,
    checked,
)
from .trace import Record, Trace
from .trajectory import place, with_masks
from .view import FPS, save_video

KEPT = 600  # chunks that can be rewound to and recorded: five minutes
TRACED = 16  # chunks whose tensors are kept

Chunk = Annotated[int, Integer(0)]
Handle = Annotated[int, Integer(0)]


@checked
@dataclass(frozen=True, eq=False)
class Act(Saved):
    """Something that a person did, before chunk `chunk` of a stream was made.

    kind says which of the other fields it has: "say" text and motion_scale; "grab" handle, point
    and mask; "move" handle and point; "release" handle; "paint" strokes, text and strength;
    "replace" picture; "lam" lam. Points are (x, y) in pixels.
    """

    chunk: Chunk
    kind: Literal["say", "grab", "move", "release", "paint", "replace", "lam"]
    text: str | None = None
    motion_scale: MotionScale | None = None
    handle: Handle | None = None
    point: Point | None = None
    mask: Region | None = None
    strokes: Strokes = ()
    strength: Share = 0.0
    picture: Picture | None = None
    lam: Share | None = None


@checked
@dataclass(frozen=True, eq=False)
class LiveInstructions(Saved):
    """All that was asked of a stream: `pipe.live(instructions)` makes the same frames again."""

    picture: Picture
    seed: Seed = 0
    acts: Annotated[tuple[Act, ...], Listed(Instance(Act), "Act", alone=Act)] = ()


@dataclass(frozen=True)
class Held:
    """A thing in a person's hand: where the pointer took it and where it was last shown."""

    start: tuple[float, float]
    now: tuple[float, float]
    to: tuple[float, float]
    cut: Tensor  # (3, H, W), the frame in which it was grabbed
    mask: Tensor  # (1, H, W) in [0, 1]


@dataclass(frozen=True)
class State:
    """Everything that the next chunk depends on, beside the seed. Never changed, only replaced."""

    index: int
    context: Tensor  # (1, 4, C, h, w), see `models.live`
    apart: Tensor | None = None  # that of the unedited stream, once there was an edit
    missed: tuple[tuple[str, float], ...] = ()  # texts of chunks that it was not asked for yet
    text: str = live.REST
    affinity: float = 1.0
    since: int = live.ACTS  # chunks since the text was said
    held: tuple[tuple[int, Held], ...] = ()
    lam: float = 0.0

    @property
    def last(self) -> Tensor:
        """Latents (1, C, h, w) of the frame that is shown last."""
        return self.context[:, -1]

    @property
    def in_force(self) -> tuple[str, float]:
        """The text that the next chunk reads, and its affinity: a text acts for 16 frames."""
        return (self.text, self.affinity) if self.since < live.ACTS else (live.REST, 1.0)

    def edited(self, context: Tensor) -> State:
        """The edited stream goes on with another context; the unedited one goes on as it was."""
        apart = self.context if self.apart is None else self.apart
        return dataclasses.replace(self, context=context, apart=apart)


class Live:
    """An endless stream from `pipe.live`. Iterate it; act on it between two chunks, or from another
    thread while it plays. By its seed and what was done it is deterministic.

    Both streams share their past until the first edit. Then the unedited one, which hears the same
    texts, predicts v, the edited one v', and the edited one steps on lam v + (1 - lam) v' (Eq. 4):
    with lam = 0, as it begins, only the edit counts, with lam = 1 nothing does. Where lam is 0 the
    unedited stream is not computed; it catches up, a pass a chunk, when it is asked for.

    Raises ValueError where the pipeline's model has no live student.
    """

    def __init__(self, pipe: Any, instructions: LiveInstructions):
        folder = pipe.model.folder
        if folder is None or not (folder / live.FOLDER).is_dir():
            raise ValueError(f"{pipe.name} has no live student; ivkit.load('storybook') has one")
        self.pipe, self.student = pipe, live.Student.load(folder, pipe.device, pipe.model.dtype)
        self.picture = fit(instructions.picture, pipe.size, bool(instructions.acts))
        self.seed, self._acts = instructions.seed, list(instructions.acts)
        self._lock, self._making = Lock(), False  # a chunk: what is done meanwhile is for the next
        first = self.student.encode(to_pixels(self.picture))
        self._states = deque([State(0, live.begin(first))], maxlen=KEPT)
        self._latents: deque[Tensor] = deque(maxlen=KEPT)
        self._records: deque[Record] = deque(maxlen=TRACED)

    def __repr__(self) -> str:
        return f"Live(chunk {self.index}, {self.state.in_force[0]!r}, lam {self.lam:g})"

    # ------------------------------------------------------------------------------- what plays

    def __iter__(self) -> Live:
        return self

    @alone
    def __next__(self) -> np.ndarray:
        """The next four frames, uint8 (4, H, W, 3). An interrupt leaves the stream as it was."""
        state = self.state
        with self._lock:
            self._making = True
            acts = [act for act in self._acts if act.chunk == state.index]
        try:
            for act in acts:
                state = self._after(state, act)
            new, following, record = self._advance(state)
            frames = to_frames(self.student.decode(new))
            with self._lock:  # from here on what is done is for the chunk after
                self._latents.append(new)
                self._records.append(record)
                self._states.append(following)
                self._making = False
            return frames
        finally:
            self._making = False

    def _advance(self, s: State) -> tuple[Tensor, State, Record]:
        """Latents (4, C, h, w) of the next chunk, the state after it, and its record."""
        plain = edit = None
        apart, missed = s.apart, s.missed
        if apart is not None:
            missed = (*missed, s.in_force)
            while missed and s.lam > 0:
                plain = self._x0(s.index + 1 - len(missed), apart, missed[0], apart[:, -1])
                apart, missed = live.follow(apart, plain), missed[1:]
        if plain is None or s.lam < 1:
            edit = self._x0(s.index, s.context, s.in_force, *self._pulled(s))
        if plain is None or edit is None:
            new = edit if plain is None else plain
        else:  # Eq. 4; from pure noise v is -x0
            new = -blend(-plain[0], -edit[0], s.lam)[None]
        following = dataclasses.replace(
            s,
            index=s.index + 1,
            context=live.follow(s.context, new),
            apart=apart,
            missed=missed,
            since=s.since + 1,
            held=tuple((k, dataclasses.replace(h, now=h.to)) for k, h in s.held),
        )
        z = self._noise(s.index)[0, -live.NEW :].cpu()
        tensors = {"z_edit": z, "out_hat": -new[0].cpu()}
        if plain is not None:
            tensors |= {"z_t": z, "out_cond": -plain[0].cpu()}
        if edit is not None:
            tensors["out_edit_cond"] = -edit[0].cpu()
        lam = torch.full((1, 1, 1, 1), s.lam)
        return new[0], following, Record(s.index, 999.0, 0.0, 1.0, "v_prediction", lam, tensors)

    def _x0(self, index: int, context: Tensor, said: tuple[str, float], condition, held=None):
        """Latents (1, 4, C, h, w); what is told to rest, and in no hand, is as it was."""
        if said[0] == live.REST and held is None:
            return context[:, -1:].expand(-1, live.NEW, -1, -1, -1)
        text = self.pipe.model.encode_text(said[0])
        affinity = torch.tensor([said[1]], device=context.device)
        return self.student.chunk(self._noise(index), context, condition, text, affinity, held)

    def _noise(self, index: int) -> Tensor:
        """(1, 8, C, h, w), of a chunk by the seed: a rewound stream goes on as it did."""
        generator = torch.Generator().manual_seed((self.seed + 0x9E3779B9 * index) % 2**63)
        shape = self.state.last.shape[1:]
        count = live.PAST + 1 + live.NEW
        return torch.randn(1, count, *shape, generator=generator).to(self.pipe.device)

    def _pulled(self, s: State) -> tuple[Tensor, Tensor | None]:
        """The condition of the edited stream: its last frame, with what is held laid elsewhere; and
        where that is, see `live.in_hand`."""
        if not s.held:
            return s.last, None
        held = [h for _, h in s.held]
        cut, mask = (torch.stack([getattr(h, n) for h in held])[None] for n in ("cut", "mask"))
        at = torch.tensor([[h.start, h.now, h.to] for h in held], dtype=torch.float32)
        at = (at / torch.tensor(self.picture.size)).to(cut.device)[None].unbind(2)
        grabbed_now = torch.zeros(1, dtype=torch.bool, device=cut.device)  # `_grab` cut it out
        coders = self.student.encode, self.student.decode
        return live.pull(*coders, s.last, cut, grabbed_now, mask, *at)[:2]

    # -------------------------------------------------------------------------- what one can see

    @property
    def state(self) -> State:
        return self._states[-1]

    @property
    def index(self) -> int:
        """How many chunks there are."""
        return self.state.index

    @property
    def frame(self) -> Image.Image:
        """The frame that is shown last, PIL RGB."""
        return to_pictures(self.student.decode(self.state.last))[0]

    @property
    def condition(self) -> Image.Image:
        """The picture that the next four frames lead to if nothing else moves, PIL RGB: the frame
        shown last, with what is held where its pointer is now."""
        state = self.state
        for act in self._pending():
            if act.kind in ("grab", "move", "release"):
                state = self._after(state, act)
        return to_pictures(self.student.decode(self._pulled(state)[0]))[0]

    @property
    def held(self) -> dict[int, tuple[float, float]]:
        """Where each held thing's pointer is, by its handle."""
        found = {k: h.to for k, h in self.state.held}
        for act in self._pending():
            if act.kind in ("grab", "move"):
                found[act.handle] = act.point
            elif act.kind == "release":
                del found[act.handle]
        return found

    @property
    def trace(self) -> Trace:
        """The last chunks' tensors by name, a step a chunk, as those of a clip."""
        return Trace([dataclasses.replace(r, index=i) for i, r in enumerate(self._records)])

    @property
    def instructions(self) -> LiveInstructions:
        """All that was done so far; `pipe.live(live.instructions)` makes the same frames."""
        return LiveInstructions(self.picture, self.seed, tuple(self._acts))

    @checked
    def record(self, path: File) -> Path:
        """Write what was shown, five minutes at the most, as an .mp4 or .gif; returns the path."""
        if not self._latents:
            raise ValueError("nothing was shown yet: take a chunk with next(live) first")
        frames = [to_frames(self.student.decode(z)) for z in self._latents]
        return save_video(path, np.concatenate(frames), fps=FPS)

    # -------------------------------------------------------------------------- what one can do

    def _pending(self) -> list[Act]:
        """What was done and is not in `state` yet."""
        return [act for act in self._acts if act.chunk >= self.index]

    def _do(self, kind: str, **what) -> None:
        with self._lock:
            act = Act(self.index + self._making, kind, **what)
            if kind == "move":  # the last one before a chunk counts
                same = act.chunk, kind, act.handle
                self._acts = [a for a in self._acts if (a.chunk, a.kind, a.handle) != same]
            self._acts.append(act)

    @checked
    def say(self, text: Sentence, motion_scale: MotionScale | None = None) -> None:
        """A motion text, in place of the one before. It acts for 16 frames, then all rests until
        the next one; what an event did stays (it stays dark).

        motion_scale: how fast, as for a clip; None takes the model's own.
        Raises ValueError for an empty text and for words that the model does not know.
        """
        model = self.pipe.model
        model.check_text(text, "text")
        if motion_scale is None:
            motion_scale = model.defaults["video"]["motion_scale"]
        self._affinity(motion_scale)
        self._do("say", text=text, motion_scale=motion_scale)

    @checked
    def grab(self, what: Any) -> int:
        """Take hold of a thing of the frame shown last; returns its handle.

        what: a point (x, y) on it, from which its region is grown as for a drag; or its mask, bool
            (H, W), which is then held at its middle.
        Raises ValueError where there is nothing, where it is held already, or both hands are full.
        """
        shape = self.picture.size[::-1]
        if isinstance(what, np.ndarray) and what.ndim == 2:
            if what.shape != shape:
                raise ValueError(f"what is a mask of {what.shape}; the frames are {shape}")
            mask = MASK("what", what)
            point = tuple(float(v.mean()) for v in np.nonzero(mask)[::-1])
        else:
            point = self._point("what", what)
            mask, _ = grow(self.frame, point)
        held = self.held
        if len(held) >= live.HANDS:
            raise ValueError(f"{live.HANDS} things are held: release one of {sorted(held)} first")
        for handle, region in self._regions().items():
            if (region & mask).sum() > 0.5 * min(region.sum(), mask.sum()):
                raise ValueError(f"what is held already, by handle {handle}")
        handle = next(k for k in range(live.HANDS) if k not in held)
        self._do("grab", handle=handle, point=point, mask=mask)
        return handle

    @checked
    def move(self, handle: Handle, point: Point) -> None:
        """Where the pointer of a held thing is now, (x, y) in pixels; the last one before a chunk
        counts. ValueError for a handle that holds nothing and for a point outside the picture."""
        self._check_handle(handle)
        self._do("move", handle=handle, point=self._point("point", point))

    @checked
    def release(self, handle: Handle) -> None:
        """Let go of a thing: it stays where it is shown."""
        self._check_handle(handle)
        self._do("release", handle=handle)

    @checked
    def paint(
        self, strokes: Strokes, text: Sentence | None = None, strength: Share | None = None
    ) -> None:
        """Paint on the frame shown last. With a text of what the picture then shows, P_img redraws
        what was painted; without, it stays as it is.

        strength: in [0, 1], how far P_img may depart from the paint; None takes .5 with a text.
        """
        if not strokes:
            raise ValueError("strokes must hold at least one Stroke")
        if text is None and strength:
            raise ValueError("strength needs a text: P_img has to know what the picture shows")
        if text is not None:
            self.pipe.pictures.check_text(text, "text")
        strength = strength if strength is not None else 0.0 if text is None else 0.5
        self._do("paint", strokes=strokes, text=text, strength=strength)

    @checked
    def replace(self, picture: Picture) -> None:
        """Go on from another picture of the same size, such as the last frame after an edit."""
        self._do("replace", picture=fit(picture, self.picture.size, True))

    @property
    def lam(self) -> float:
        """Eq. 4's weight of the unedited stream, in [0, 1]; it can be set at any time."""
        said = [act.lam for act in self._pending() if act.kind == "lam"]
        return said[-1] if said else self.state.lam

    @lam.setter
    def lam(self, value: float) -> None:
        self._do("lam", lam=Number(0, 1)("lam", value))

    @alone
    @checked
    def rewind(self, seconds: Annotated[float, Number(0)]) -> None:
        """Go back, five minutes at the most; what was done since then is undone, and nothing is
        held. The stream then goes on from there."""
        back = min(round(seconds * FPS / live.NEW), len(self._states) - 1)
        for kept in (self._states, self._latents, self._records):
            for _ in range(min(back, len(kept))):
                kept.pop()
        self._acts = [act for act in self._acts if act.chunk < self.index]
        for handle in self.held:
            self._do("release", handle=handle)

    # -------------------------------------------------------------------- what it does to a state

    def _after(self, s: State, act: Act) -> State:
        return getattr(self, f"_{act.kind}")(s, act)

    def _say(self, s: State, act: Act) -> State:
        affinity = self._affinity(act.motion_scale)
        return dataclasses.replace(s, text=act.text, affinity=affinity, since=0)

    def _affinity(self, motion_scale: int) -> float:
        model = self.pipe.model
        model.check_motion_scale(motion_scale)
        return min(model.affinity[motion_scale])

    def _grab(self, s: State, act: Act) -> State:
        device = self.pipe.device
        mask = torch.tensor(act.mask, dtype=torch.float32, device=device)[None]
        held = Held(act.point, act.point, act.point, self.student.decode(s.last)[0], mask)
        return dataclasses.replace(s.edited(s.context), held=(*s.held, (act.handle, held)))

    def _move(self, s: State, act: Act) -> State:
        held = dict(s.held)
        held[act.handle] = dataclasses.replace(held[act.handle], to=act.point)
        return dataclasses.replace(s, held=tuple(held.items()))

    def _release(self, s: State, act: Act) -> State:
        held = tuple((k, h) for k, h in s.held if k != act.handle)
        # the sink, too, is the picture as it is after the edit, not as it once was
        context = torch.cat([s.last[:, None], s.context[:, 1:]], 1)
        return dataclasses.replace(s, held=held, context=context)

    def _paint(self, s: State, act: Act) -> State:
        shown = to_pictures(self.student.decode(s.last))[0]
        painted, alpha = rasterise(shown, act.strokes)
        if act.text is not None:
            options = {"strength": act.strength, "seed": self.seed, "progress": False}
            painted = self.pipe.image(act.text, shown, strokes=act.strokes, **options)
        cell = self.pipe.vae_scale_factor
        region = edit_region(act.strokes, alpha, cell=cell)
        touched = torch.from_numpy(latent_mask(region, cell)).to(s.last.device)
        z = self.student.encode(to_pixels(painted))  # where nothing was painted nothing is encoded
        return s.edited(live.begin(touched * z + (1 - touched) * s.last))

    def _replace(self, s: State, act: Act) -> State:
        return s.edited(live.begin(self.student.encode(to_pixels(act.picture))))

    def _lam(self, s: State, act: Act) -> State:
        return dataclasses.replace(s, lam=act.lam)

    # --------------------------------------------------------------------------------- checks

    def _check_handle(self, handle: int) -> None:
        held = self.held
        if handle not in held:
            known = f"held are {sorted(held)}" if held else "nothing is held"
            raise ValueError(f"handle {handle} holds nothing; {known}")

    def _point(self, name: str, point: Any) -> tuple[float, float]:
        point = POINT(name, point)
        inside(name, point, self.picture.size[::-1])
        return point

    @checked
    def region(self, handle: Handle) -> np.ndarray:
        """The region of a held thing as it is shown, bool (H, W)."""
        self._check_handle(handle)
        return self._regions()[handle]

    def _regions(self) -> dict[int, np.ndarray]:
        found = {}
        for k, h in self.state.held:
            size = torch.tensor(self.picture.size, dtype=torch.float32)
            by = ((torch.tensor(h.now) - torch.tensor(h.start)) / size)[None]
            found[k] = live.shifted(h.mask[None].cpu(), by)[0, 0].numpy() > 0.5
        found |= {act.handle: act.mask for act in self._pending() if act.kind == "grab"}
        return {k: v for k, v in found.items() if k in self.held}


@checked
def preview(
    pipe: Any,
    picture: Picture,
    motion: Sentence,
    *,
    edited: Picture | None = None,
    drags: Moves = (),
    motion_scale: MotionScale | None = None,
    seed: Seed = 0,
) -> np.ndarray:
    """What `pipe.video` is about to make, by the live student in four passes: uint8 (16, H, W, 3).

    A guess, without the things that a stream cannot do: lam is 0, pins, camera, turning and
    scaling are left out, and of the drags the first two are shown.
    """
    stream = Live(pipe, LiveInstructions(picture, seed))
    stream.say(motion, motion_scale)
    if edited is not None:
        stream.replace(edited)
    shown = stream.picture if edited is None else fit(edited, stream.picture.size, True)
    drags = [d for d in with_masks(drags, shown).drags if d.path][: live.HANDS]
    handles = [stream.grab(drag.mask) for drag in drags]
    starts = dict(stream.held)
    frames = []
    for chunk in range(live.ACTS):
        for handle, drag in zip(handles, drags, strict=True):
            way = place(drag, (live.NEW * (chunk + 1) - 1) / (live.NEW * live.ACTS - 1))
            to = np.add(starts[handle], np.subtract(way, drag.path[0]))
            stream.move(handle, np.clip(to, 0, np.subtract(shown.size, 1)))
        frames.append(next(stream))
    return np.concatenate(frames)
