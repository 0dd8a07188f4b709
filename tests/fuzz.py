"""Wrong calls of every public function, and what each has to be answered by.

`targets()` finds the functions; `valid()` says how each is called rightly; `calls()` takes those
calls and puts one wrong value after another in the place of each argument. An answer is right where
it is a ValueError, TypeError or FileNotFoundError of one sentence that names the argument, before
any network is evaluated, or where the value may be meant (`meant`).

    python -m tests.fuzz 20000      counts by kind of answer, and what is answered wrongly
"""

import collections
import contextlib
import dataclasses
import inspect
import io
import itertools
import math
import os
import random
import sys
import tempfile
import time
import types
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import ivkit as iv
from ivkit import align, blend, paint, pictures, trajectory, view
from ivkit.bench import cases, charts, methods, metrics, scores, study, tables
from ivkit.instructions import (
    Camera,
    ContentInstruction,
    Drag,
    ImageInstruction,
    Instructions,
    MotionInstruction,
    Stroke,
    TrajectoryInstruction,
)
from ivkit.models import attention, personal, sampling
from ivkit.storybook import character, sprites, words, world

try:
    from . import tiny
except ImportError:
    import tiny

ANSWERS = (ValueError, TypeError, FileNotFoundError)
PLACES = (
    "path",
    "file",
    "name",
    "pictures",
    "folder",
    "clips",
    "answers",
    "results",
)  # the sentence names the place that was given
LONGEST = 450  # characters of a sentence
SLOWEST = 60.0  # seconds: it hangs


class Liar:
    """An object whose every method raises."""

    def _raise(self, *_):
        raise RuntimeError("a lie")

    __len__ = __iter__ = __array__ = __float__ = __int__ = __index__ = __bool__ = _raise
    __eq__ = __lt__ = __getitem__ = __contains__ = __fspath__ = __call__ = __add__ = _raise
    __repr__ = __str__ = _raise
    __hash__ = object.__hash__


class Endless:
    """An object that says it is short, and never ends."""

    def __len__(self):
        return 2

    def __iter__(self):
        return itertools.count()


class Boast:
    """An object that says it is larger than any memory."""

    shape, ndim, dtype = (10**6, 10**6, 3), 3, np.dtype("uint8")

    def __len__(self):
        return 2**62

    def __getitem__(self, i):
        return self

    def __array__(self, *_, **__):
        return np.broadcast_to(np.uint8(0), (10**6, 10**6, 3))


def deep(n: int = 3000) -> list:
    found = []
    for _ in range(n):
        found = [found]
    return found


#: name of a kind of wrong value: values of it
WRONG = {
    "type": [object(), "abc", b"abc", {}, {"a": 1}, set(), range(0), 1 + 2j, print, int, Ellipsis],
    "flag": [True, False, None],
    "not finite": [math.nan, math.inf, -math.inf, np.float32("nan"), torch.tensor(math.inf)],
    "number": [-1, 0, 0.5, -0.5, 1.5, 10**6, -(10**6), 2**31, 2**40, 2**70, 10**400, 1e300],
    "empty": ["", " ", [], (), np.zeros(0), np.zeros((0, 3)), torch.zeros(0)],
    "array": [
        np.zeros((2, 2)), np.zeros((3, 5, 7)), np.zeros((1, 2, 3, 4, 5, 6)), np.ones((4, 4), bool),
        np.full((16, 16), np.nan), np.full((16, 16, 3), np.nan), np.array(["a", "b"]),
        np.array([None]), np.zeros((4, 4), complex), np.zeros((2, 2, 3), np.uint8),
        np.broadcast_to(np.uint8(0), (10**6, 10**6, 3)), np.broadcast_to(0.0, (10**7, 10**7)),
    ],
    "tensor": [
        torch.zeros(2, 2), torch.ones(3), torch.zeros(2, 4, 3, 3), torch.zeros(1, dtype=torch.long),
        torch.zeros(16, 16, dtype=torch.bool), torch.zeros(2, 2, device="meta"),
        torch.zeros(1).expand(2**40), torch.tensor(True), torch.zeros(2, 2, dtype=torch.complex64),
    ],
    "list": [[1], [1, 2], [1, 2, 3], [[1, 2], [3]], [None], ["a"], [math.nan, 1], [10**400, 1],
             [[math.inf, 0], [1, 1]], (10**6, 10**6), (0, 0), (-1, 5), deep(), [deep()]],
    "hostile": [Liar(), Endless(), Boast(), [Liar()], {Liar(): Liar()}],
    "text": ["\ud800", "a\0b", "x" * 10**6, "ü" * 300, "nowhere/none.png", "/proc/none"],
    "generator": [(i for i in ()), torch.Generator(), itertools.count(), lambda *_: 1 / 0],
    "path": [Path("nowhere/none.png"), Path("/"), Path("\ud800"), Path("a\0b"), Path("")],
    "thing": [Image.new("RGB", (3, 5)), Image.new("F", (16, 16)), np.random, Camera(),
              types.SimpleNamespace(), Exception("x")],
}  # fmt: skip


# --------------------------------------------------------------------------- what may be meant


def _real(low=-math.inf, high=math.inf, whole=False):
    def meant(value):
        if isinstance(value, (np.ndarray, np.generic, torch.Tensor)) and value.ndim == 0:
            value = value.item()
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        return low <= value <= high and (not whole or value == int(value))

    return meant


def _is(*kinds):
    return lambda value: isinstance(value, kinds)


def _text(value):
    return isinstance(value, str) and "\0" not in value and value.isprintable()


def _pixels(value):
    """An array, a tensor, an image or lists of finite numbers; which shape is the function's."""
    if isinstance(value, torch.Tensor):
        return value.numel() and value.device.type == "cpu" and not value.is_complex()
    try:
        array = np.asarray(value)
    except Exception:
        return False
    return bool(0 < array.size < 10**8 and array.dtype.kind in "buif")


_flag, _share = _is(bool, np.bool_), _real(0, 1)
_seed, _steps, _side = (_real(*r, whole=True) for r in ((0, 2**64 - 1), (1, 1000), (1, 8192)))
_any = _is(object)
_list = _is(torch.Tensor, list, tuple, range, set, types.GeneratorType, itertools.count, np.ndarray)

#: argument: what may be given besides what its default is. None is meant where it is the default.
MEANT = {
    "progress skip_zero align batch graphs on taesd small": _flag,
    "compile": lambda v: _flag(v) or callable(v),
    "strength lam weak strong eta alpha cache opacity": lambda v: _share(v) or _pixels(v),
    "seed": _seed,
    "num_frames": _real(1, 1024, whole=True),
    "num_inference_steps": _steps,
    "guidance_scale": lambda v: _real(0, 100)(v) or _list(v),
    "autosave": lambda v: v is None or _text(v),
    "key": lambda v: _text(v) or _real(-4, 3, whole=True)(v),
    "i": _real(-4, 3, whole=True),
    "prompt motion negative_prompt text name targets caption model": _text,
    "path file folder": lambda v: isinstance(v, (str, Path)) or _list(v),
    "fps": _real(0.1, 240),
    "cell height width step": _real(0, 10_000),
    "columns every batch_ groups": _real(1, 100_000, whole=True),
    "grow": _real(0, 1000),
    "feather": _real(0, 10_000),
    "reuse": _real(0, 100, whole=True),
    "frame token call row index count": _real(-100_000, 100_000, whole=True),
    "rank slice_ steps": lambda v: _real(1, 10**7, whole=True)(v) or _list(v),
    "threshold tolerance seconds lr prior_weight t noise signal": _real(),
    "zoom scale": _real(0.05, 20),
    "tokens": _list,
    "roll rotate": _real(-3600, 3600),
    "drags": lambda v: v is None or isinstance(v, (Camera, dict)) or _list(v),
    "strokes changes examples prior captions sides handles path_ points pins records acts": _list,
    "latent_shape": _list,
    "before what": lambda v: _pixels(v) or _list(v),
    "machines rows gains cases claims heads labels label lines values groups methods": _list,
    "means table found people": _is(dict),
    "participant noun commit method id group ground time move event half negative": _text,
    "say_colour vary objects": _flag,
    "generator": _is(torch.Generator),
    "answers clips": lambda v: isinstance(v, (str, Path)),
    "s t corner": lambda v: _pixels(v) or _real()(v),
    "sprite n": lambda v: v is None or _real(-60, 100_000, whole=True)(v),
    "things hills specks": _list,
    "horizon shore x y": _real(),
    "judge": callable,
    "chunk handle": _real(0, 2**63 - 1, whole=True),
    "trajectory": lambda v: _list(v) or isinstance(v, Camera) or v is None,
    "camera": _is(Camera),
    "colour": lambda v: _text(v) or _list(v) or _pixels(v),
    "latents eps eps_edit mine theirs out z v x x_edit pixels tensors frames clip videos field "
    "picture edited original unedited mask region a b alpha_ background painted image start target "
    "pan point size shape times": lambda v: _pixels(v) or _list(v) or isinstance(v, (str, Path)),
    "pictures": lambda v: _list(v) or isinstance(v, dict) or _pixels(v),
    "width_": _real(0, 10_000),
    "comment": lambda v: v is None or isinstance(v, str),
    "motion_scale": lambda v: v is None or _real(0, 255, whole=True)(v),
    "decode": callable,
    "blend": lambda v: _text(v) or callable(v),  # a name that another session knows
    "names": lambda v: callable(v) or isinstance(v, (bool, str)) or _list(v),
    "device": lambda v: v is None or _text(v),
    "fields_ data": _is(dict, str, bytes),
}
MEANT = {name: meant for names, meant in MEANT.items() for name in names.split()}


def meant(name: str, value, default) -> bool:
    """Whether a value that was taken without a word may be meant."""
    if value is default:
        return True
    with contextlib.suppress(Exception):
        return bool(MEANT.get(name, lambda _: False)(value))
    return False


# ------------------------------------------------------------------------------- right calls


class World:
    """What right calls are made of: small models with random weights, a run, a trace."""

    def __init__(self):
        self.pipe, self.picture = tiny.pipeline(), tiny.picture()
        self.folder = str(tiny.save("tiny").resolve())
        self.drag = Drag([(5, 7), (9, 7)], mask=tiny.region())
        self.stroke = Stroke([(4, 4), (9, 9)], width=4)
        self.run = self.pipe.video(
            self.picture, "the boat moves right", drags=[self.drag], progress=False
        )
        self.frames, self.trace = self.run.frames, self.run.trace
        self.pixels = np.asarray(self.picture)
        self.record, self.warped = self.trace[1], self.run.warped
        *_, self.image_step = self.pipe.denoise_image("a boat", seed=1)
        self.brush = self.pipe.brush("a sun", self.picture)
        self.still, self.tensor = torch.zeros(1, 3, 16, 16), self.record["eps"]
        self.character = Image.new("RGBA", (8, 8))
        self.character.paste((255, 0, 0, 255), (2, 2, 6, 6))
        personal.new(self.pipe).save("lora.safetensors")
        personal.Lora(self.pipe).remove()
        self.storybook = iv.load("storybook", device="cpu")
        self.live = self.storybook.live(self.picture)
        next(self.live)
        self.live.grab((30, 30))
        self.steps = self.pipe.denoise(self.picture, "the boat moves right")
        self.step = next(self.steps)
        self.other = self.storybook.live(self.picture)  # of what takes away what others need
        next(self.other)
        self.other.grab((30, 30))
        self.stroke.save("stroke.json")
        self.trace.save("trace.safetensors")
        self.pupil = tiny.pipeline("storybook")
        self.quick, self.lora = tiny.pipeline(), personal.new(self.pupil)
        self.bench()
        self.calls = 0
        for part in self.networks():
            part.register_forward_pre_hook(self._count)
        with attention.record(self.pipe.model.unet) as self.maps:
            self.pipe.image("a boat", num_inference_steps=1)
        self.calls = 0

    def bench(self):
        """What the benchmarks and the storybook's world are called with."""
        self.world, self.clip = world.World(), scores.Clip()
        self.scenes = self.world.sample(2, torch.Generator().manual_seed(0))
        self.times = world.frame_times(2, 2)
        self.cases = cases.load()[:2]
        self.job = methods.Job("case", "group", self.picture, "a boat", "it moves")
        for name in ("both", "i2v"):
            study.keep("clips", self.job, self.picture, name, self.frames)
        self.study = study.Study("clips", "answers.csv", pairs=1)
        self.study.answer("left", "left", "yes", "no")
        self.study = study.Study("clips", "more.csv", pairs=1)

    def networks(self):
        model, own = self.pipe.model, self.pupil.model
        parts = [model.unet, model.video_unet, model.vae.encoder, model.vae.decoder]
        return [*parts, model.text_encoder, own.unet, own.vae.encoder, own.text_encoder]

    def _count(self, *_):
        self.calls += 1


def right(w: World) -> dict:
    """{argument: a right value}, and {function.argument: one for that function alone}."""
    return {
        "picture": w.picture,
        "original": w.picture,
        "edited": w.picture,
        "prompt": "a boat",
        "motion": "the boat moves right",
        "instructions": Instructions(
            image=ImageInstruction(w.picture), motion=MotionInstruction("the boat moves right")
        ),
        "run": w.run,
        "frames": w.frames,
        "clip": w.frames,
        "pictures": [w.picture],
        "trajectory": w.drag,
        "strokes": [w.stroke],
        "alpha": w.drag.mask,
        "mask": w.drag.mask,
        "region": w.drag.mask,
        "a": w.frames,
        "b": w.frames,
        "unedited": w.frames,
        "background": w.pixels,
        "frame": w.pixels,
        "start": (3, 3),
        "target": (5, 5),
        "character": w.character,
        "eps": w.tensor,
        "eps_edit": w.tensor,
        "field": w.warped.field,
        "trace": w.trace,
        "name": "x",
        "mine": [1.0],
        "theirs": [1.0],
        "latents": [w.tensor],
        "index": 0,
        "path": "out.mp4",
        "file": "lora.safetensors",
        "point": (6, 6),
        "shape": (16, 16),
        "warped": w.warped,
        "lam": 0.3,
        "num_inference_steps": 4,
        "latent_shape": (4, 8, 8),
        "size": (16, 16),
        "painted": w.pixels.copy(),
        "z": torch.zeros(1, 4, 8, 8),
        "v": w.still,
        "x": w.still,
        "x_edit": w.still,
        "module": align.ResidualAlign(),
        "pixels": w.still,
        "scheduler": w.pipe.model.scheduler(4),
        "z0": w.tensor,
        "t": torch.tensor(500),
        "network": w.pipe.model.unet,
        "pipe": w.pipe,
        "captions": ["a boat"],
        "model": w.pipe.model,
        "token": 1,
        "points": [(1, 1), (2, 2)],
        "text": "a boat",
        "key": "eps",
        "image": w.picture,
        "data": Camera().to_json(),
        "out": w.tensor,
        "signal": 0.5,
        "noise": 0.5,
        "kind": "epsilon",
        "to": "v",
        "pipeline": w.pipe,
        # functions whose argument of that name is another thing
        "field_arrows.frame": -1,
        "Step.preview.frame": -1,
        "trace_grid.frame": -1,
        "blended_target.lam": torch.ones(4, 1, 1, 1, 1),
        "record.kind": "text",
        "load.name": w.folder,
        "Drag.path": [(5, 7), (9, 7)],
        "save.path": "out.json",
        "load.path": "out.json",
        "MotionInstruction.text": "it moves",
        "levels.i": 1,
        "chunk": 0,
        "handle": 0,
        "Act.kind": "say",
        "Live.move.point": (30, 30),
        "what": (90, 90),
        "seconds": 1,
        "LiveCanvas.pipe": w.storybook,
        "lora": w.lora,
        "cut_out.picture": w.character,
        "Trace.load.path": "trace.safetensors",
        "Record.missing.name": "eps",
        "Record[].name": "eps",
        "Stroke.from_json.data": w.stroke.to_json(),
        "Stroke.load.path": "stroke.json",
        "Live.replace.picture": w.picture.resize((256, 256)),
        "examples": [(w.picture, "a boat")],
    } | of_bench(w)


def of_bench(w: World) -> dict:
    """The same for `ivkit.bench` and for the storybook's world."""
    row = dict.fromkeys(("image", "text", "motion", "flicker", "answers"), (0.5, 0.4, 0.6))
    means = {"lam 0.3, paired, both": row}
    measured = {"method": "both", "case": "a", "group": "b", "image": 0.5}
    gain = {"method": "both", "than": "i2v", "measure": "text", "verdict": "better"}
    seconds = dict.fromkeys((*tables.PAPER_2, "whole_job"), 1.0)
    machine = {f"{name}_seconds": value for name, value in seconds.items()}
    answer = dict(zip(study.COLUMNS, ("now", "p1", "a", "both", "i2v"), strict=False))
    answer |= {"image": "left", "text": "same", "satisfied_left": "yes", "satisfied_right": "no"}
    return {
        "means": means,
        "table": means,
        "found": means,
        "gains": [gain | {"gain": 1.0, "low": 0.5, "high": 1.5}],
        "machines": [machine | {"model": "x", "machine": "y", "peak_memory_mb": 1.0}],
        "measures.size": 256,
        "rows": [measured],
        "markdown.rows": [["a"]],
        "heads": ["a"],
        "results": RESULTS,
        "table_1.clip": "storybook",
        "values": [1.0, 2.0],
        "job": w.job,
        "measure.clip": w.clip,
        "of_edits.drags": [w.drag],
        "folder": "clips",
        "method": "both",
        "participant": "p1",
        "study.read.file": "answers.csv",
        "columns.rows": [answer],
        "clips": "clips",
        "Study.answer.image": "left",
        "Study.answer.text": "left",
        "satisfied_left": "yes",
        "satisfied_right": "no",
        "cases": w.cases,
        "noun": "car",
        "scenes": w.scenes,
        "labels": w.world.labels,
        "label": ("car", "blue"),
        "say_colour": True,
        "lines": ["a car"],
        "world": w.world,
        "cast.picture": w.character,
        "tile.picture": w.character,
        "sprite": 0,
        "n": 2,
        "s": w.scenes,
        "World.t": w.times,
        "cases.Thing": w.cases[0].things[0],
        **{f"World.{name}.t": w.times for name in WORLD},
        "World.stills.t": 0.5,
        **{f"Thing.{name}": value for name, value in vars(w.cases[0].painted).items()},
        **{f"Case.{name}": value for name, value in vars(w.cases[0]).items()},
        **{f"Job.{name}": value for name, value in vars(w.job).items()},
        "Method.name": "both",
    }


def also(w: World) -> dict:
    """What a right call needs besides its required arguments."""
    canvases = dict.fromkeys(("PaintCanvas", "DragCanvas", "Studio"), {"autosave": None})
    given = {"Drag": {"path": [(5, 7), (9, 7)]}, **canvases, "words.texts": {"vary": False}}
    return given | {"train": {"steps": 1, "batch": 1, "seconds": 0.01}}


WORLD = ("place", "camera", "progress", "state", "positions", "render", "masks")
RESULTS = str(Path(__file__).parents[1] / "media" / "results")
#: modules whose public functions are tried, as those of BENCH are by their modules' names
BENCH = (cases, charts, scores, study, tables, character, sprites, words, world)
MODULES = (align, attention, blend, metrics, paint, personal, pictures, trajectory, view)
CLASSES = (
    Stroke,
    Drag,
    Camera,
    ImageInstruction,
    ContentInstruction,
    MotionInstruction,
    TrajectoryInstruction,
    Instructions,
)
#: not tried: what is given a function or a module of the reader's own
LEFT = {
    "Pipeline": "takes a model, which models.load makes",
    "of_words": "inside of the explorer",
    "words_of": "inside of the explorer",
    "edit_at": "inside of preview",
    "Live": "is made by pipe.live",
    "loss": "is the inside of a training step",
    "add_arguments": "of a command",
    "main": "of a command",
    "cell": "inside of tables",
    "votes": "inside of tables",
    "has": "inside of tables",
    "Rows": "inside of tables",
    "write": "the end of the runner",
    "tables.known": "inside of tables",
    "words.known": "inside of encode",
    "fingerprint": "of the runner",
    "write_tokenizer": "makes the weights",
    "draw_sheet": "makes the sprites",
    "tint": "inside of sprites",
    "inward": "inside of sample",
    "add_sprite": "inside of cast",
    "check_area": "takes a size that PIL has read",
    "check": "is the inside of warp",
    "on_picture": "is the inside of rasterise",
    "fit": "inside",
    "as_bytes": "inside",
    "as_floats": "inside",
    "looks": "inside of record",
    "png": "inside",
    "open_png": "inside",
    "placed": "inside",
    "finely": "inside",
    "open_file": "inside",
    "undefined": "looks up by name, as a dict does",
    "to_frames": "inside",
    "to_pixels": "inside",
    "to_pictures": "inside",
    "noised": "Eq. 2",
    "blend_in": "inside of the loop",
    "to_native": "inside of blend_in",
    "rule": "inside of the loop",
    "place": "inside of warp",
    "check_rule": "the check itself: see test_rule.py",
    "follow": "inside of warp",
    "likeness": "inside of follow",
    "settle": "inside of the loop",
    "foreseen": "inside of the loop",
    "chain": "inside of video",
    "load_align": "inside of load",
    "begin": "inside of video",
    "fields_of": "inside of change",
    "condition": "inside of change",
    "append": "inside of the loop",
    "finish": "inside of picture",
    "draw": "the graph of a brush",
}


def options_of(name: str) -> list[str]:
    """The names that a function takes by **options."""
    from ivkit.instructions import PictureSettings, Settings

    picture = ["strokes", "mask", *(f.name for f in dataclasses.fields(PictureSettings))]
    video = ["edited", "drags", "pins", "camera", "lam"]
    video += [f.name for f in dataclasses.fields(Settings)]
    of = {
        "image": picture,
        "denoise_image": picture,
        "video": video,
        "denoise": video,
        "run": video,
        "change": ["edited", "drags", "pins", "camera", "lam", "motion"],
        "drawn": picture,
        "load": ["small", "taesd"],
    }
    return of.get(name.removeprefix("Pipeline.").removeprefix("Step."), [])


def targets(w: World) -> dict:
    """{name: function}: public functions of `MODULES` and of `ivkit`, classes and their methods."""
    found = {}
    for module in (*MODULES, *BENCH):
        for name, value in vars(module).items():
            here = getattr(value, "__module__", None) == module.__name__
            if not name.startswith("_") and here and inspect.isfunction(value):
                last = module.__name__.split(".")[-1]
                found[f"{last}.{name}" if module in BENCH else name] = value
    for name in iv.__all__:
        value = getattr(iv, name)
        if callable(value):
            found[name] = value
    found |= {kind.__name__: kind for kind in CLASSES}
    things = (w.pipe, w.step, w.image_step, w.trace, w.record, w.maps, w.run, w.stroke, w.brush)
    things += (w.live, w.clip, w.study, w.world)
    for thing in things:
        for name, method in inspect.getmembers(thing, inspect.ismethod):
            if not name.startswith("_") and method.__func__.__module__.startswith("ivkit"):
                found[f"{type(thing).__name__}.{name}"] = method
    found |= {"Brush": w.brush, "levels": sampling.levels}
    found |= {"Trace[]": w.trace.__getitem__, "Record[]": w.record.__getitem__}
    found |= {kind.__name__: kind for kind in (cases.Thing, cases.Case, methods.Job)}
    found |= {"Method": methods.Method, "Study": study.Study, "World": world.World}
    found |= {"scores.Clip": scores.Clip, "Live.rewind": w.other.rewind}
    found |= {"Live.release": w.other.release, "Pipeline.speed_up": w.quick.speed_up}
    found.pop("Run.change")  # the run is finished; that of a step is the same
    found["Pipeline.live"] = w.storybook.live
    return {n: f for n, f in found.items() if not {n, n.split(".")[-1]} & LEFT.keys()}


def calls(w: World):
    """Every wrong call: (name, function, right arguments, argument, kind, value, default)."""
    values = right(w)
    for name, function in targets(w).items():
        if inspect.isclass(function) and issubclass(function, BaseException):
            continue
        parameters = inspect.signature(function).parameters
        given, tried = dict(also(w).get(name, {})), {}
        for p in parameters.values():
            if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
                continue
            tried[p.name] = p.default
            last = name.split(".")[-1]
            known = [k for k in (f"{name}.{p.name}", f"{last}.{p.name}", p.name) if k in values]
            if p.default is p.empty and not known:
                raise LookupError(f"right() has no value for {name}({p.name}=...)")
            if p.default is p.empty:
                given[p.name] = values[known[0]]
        tried |= dict.fromkeys(options_of(name))
        if "progress" in tried:
            given["progress"] = False
        for argument, default in tried.items():
            for kind, wrong in WRONG.items():
                for i in range(len(wrong)):
                    yield name, function, given, argument, kind, i, default
        if options_of(name) or not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            for unknown in ("generator", "sede", "num_step", "pictur"):
                if unknown not in tried:
                    yield name, function, given, unknown, "unknown", None, None


# -------------------------------------------------------------------------------- their answers


def answer(w: World, name, function, given, argument, kind, i, default) -> tuple[str, str]:
    """(kind of answer, what was answered); "right", "meant", or what is wrong with it."""
    value = 3 if kind == "unknown" else WRONG[kind][i]
    if inspect.isgenerator(value):
        value = (v for v in ())
    w.calls, begun, said = 0, time.perf_counter(), ""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            found = function(**{**given, argument: value})
            if inspect.isgenerator(found):
                next(found)
            if isinstance(found, personal.Lora) and found is not w.lora:
                found.remove()
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        verdict = _judged(error, name, argument, value)
        verdict = "late" if verdict == "right" and w.calls else verdict
    else:
        verdict = "meant" if meant(argument, value, default) and kind != "unknown" else "taken"
    if time.perf_counter() - begun > SLOWEST:
        verdict = "slow"
    return verdict, said


def _judged(error: Exception, name: str, argument: str, value) -> str:
    said = str(error)
    if argument in ("decode", "compile") and callable(value):
        return "meant"  # what the reader's own function raises is the reader's
    if isinstance(error, LookupError) and name.endswith("[]"):
        if isinstance(error, KeyError):
            return "right" if isinstance(value, str) else "KeyError"
    elif isinstance(error, OSError) and argument in PLACES:
        return "right" if _repeats(said, value) or _repeats(repr(error), value) else "not named"
    elif not isinstance(error, ANSWERS):
        return type(error).__name__
    if len(said) > LONGEST or "\n" in said or not said.isprintable():
        return "no sentence"
    if argument in PLACES and isinstance(value, (str, Path)) and _repeats(said, value):
        return "right"
    if argument == "shape" and "must lie in the picture of" in said:
        return "right"  # such a shape there is: it is the drag that does not fit it
    return "right" if argument in said and not isinstance(error, UnicodeError) else "not named"


def _repeats(said: str, value) -> bool:
    """Whether a sentence repeats the path that was given, or how a long one begins."""
    path = str(value)
    return path[:20] in said or repr(path)[1:20] in said


def refused(w: World) -> list[str]:
    """What the right calls of BENCH's functions are answered by, where they fail."""
    found, rooms = [], {module.__name__.split(".")[-1] for module in BENCH} | {"World", "train"}
    for name, function, given in {c[0]: c[:3] for c in calls(w)}.values():
        try:
            _ = name.split(".")[0] in rooms and function(**given)
        except Exception as error:
            found.append(f"{name}: {type(error).__name__}: {error}")
    return found


def fuzz(count: int, seed: int = 0, w: World | None = None):
    """Some `count` of all wrong calls: how many functions and calls there are, a Counter of
    verdicts, and what is wrong."""
    w = w or World()
    every = list(calls(w))
    chosen = random.Random(seed).sample(every, min(count, len(every)))
    counts, wrong = collections.Counter(), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for call in chosen:
            verdict, said = answer(w, *call)
            counts[verdict] += 1
            if verdict not in ("right", "meant"):
                name, _, _, argument, kind, i, _ = call
                wrong.append(f"{name}({argument}={kind}[{i}]): {verdict}: {said[:200]!r}")
    return len({call[0] for call in every}), len(every), counts, wrong


def main() -> None:
    begun = time.perf_counter()
    folder = tempfile.TemporaryDirectory()
    os.chdir(folder.name)  # some calls write
    functions, possible, counts, wrong = fuzz(int(sys.argv[1]) if len(sys.argv) > 1 else 5000)
    print(*wrong, sep="\n")
    took = time.perf_counter() - begun
    tried = sum(counts.values())
    print(f"{functions} functions, {tried} of {possible} calls, {took:.0f} s", counts)


if __name__ == "__main__":
    main()
