"""What arguments must be, said once: in the annotation of each argument of a public function.

    @checked
    def latent_mask(mask: Map, cell: Cell = 16, how: Literal["max", "mean"] = "max"): ...

`checked` brings each value that is given into its one form before the function begins: a 0-d
tensor becomes a float, a path a `Path`, a list of pixels an array. What cannot be brought there is
answered by ValueError or TypeError with one sentence that names the argument, what is accepted and
what was given; so is an argument of an unknown name.

`bool`, `str`, `int`, `float`, classes, `Literal`, `X | Y`, `list[X]` and `tuple[X, ...]` are
understood as they are; ranges and shapes are a `Kind` in an `Annotated`, as below.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import numbers
import os
import reprlib
import sys
import types
import typing
import warnings
from collections.abc import Callable, Iterable, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

MAX_FRAMES = 1024
MAX_STEPS = 1000  # as many as there are training times
MAX_SIDE = 8192  # pixels
MAX_DRAWN = 2**24  # pixels of a picture or a frame that a model makes
MAX_CLIP = 2**29  # pixels of all frames
MAX_ITEMS = 100_000  # of a list
MAX_VALUES = 2**30  # of an array
MAX_TEXT = 100_000  # characters
MAX_SEED = 2**64 - 1  # of torch's and NumPy's generators
MAX_SENTENCE = 400  # characters

#: old names of arguments and fields, which are still understood
RENAMED = {"negative": "negative_prompt", "decode_slice": "decode_chunk_size"}

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 100


def shown(value: Any) -> str:
    """A value in one line, cut where it is long; its type where it cannot be printed."""
    try:
        line = " ".join(_REPR.repr(value).split())
    except Exception:
        line = f"a {type(value).__name__}"
    return line if len(line) <= 100 else f"{line[:97]}..."


def warn(message: str, kind: type[Warning] = UserWarning) -> None:
    """A warning that points at the line outside ivkit which all this was called from."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == "ivkit":
        frame, level = frame.f_back, level + 1
    warnings.warn(message, kind, stacklevel=level)


def renamed(old: str, new: str) -> None:
    """Say that a name is an old one."""
    warn(f"{old} is called {new} now; the old name goes with the next release", DeprecationWarning)


def once(old: str, new: str) -> property:
    """An attribute by its old name."""

    def get(self):
        renamed(old, new)
        return getattr(self, new)

    return property(get)


# ------------------------------------------------------------------------------------------ kinds


class Kind:
    """What an argument must be.

    what: in words, as in "lam must be {what}, got 7".
    take: brings a value into its one form; whatever it raises, or a value that lies raises in it,
        means that the value is wrong. speaks: its own sentences are kept.
    """

    def __init__(
        self, what: str, take: Callable, error: type[Exception] = ValueError, speaks=False
    ):
        self.what, self.take, self.error, self.speaks = what, take, error, speaks

    def __call__(self, name: str, value: Any) -> Any:
        try:
            return self.take(value)
        except Exception as error:
            kind, said = self.error, f"{name} must be {self.what}, got {shown(value)}"
            if self.speaks and type(error) in (ValueError, TypeError, FileNotFoundError):
                kind, said = type(error), " ".join(str(error).split())
                said = said if name in said.partition(" must ")[0] else f"{name}: {said}"
        raise kind(said[:MAX_SENTENCE]) from None

    def axes(self, value: Any) -> dict[str, int]:
        """Lengths of a value's axes by name; one name has one length in all arguments of a call."""
        return {}


class Listed(Kind):
    """A list of a kind, as a tuple. alone: classes of which one does for a list of one."""

    def __init__(self, kind: Kind, what: str, least: int = 0, alone: tuple[type, ...] = ()):
        super().__init__(f"a list of {what}", self.take, kind.error)
        self.kind, self.least, self.alone = kind, least, alone

    def __call__(self, name: str, value: Any) -> tuple:
        found = (value,) if isinstance(value, self.alone) else super().__call__(name, value)
        if len(found) < self.least:
            raise ValueError(f"{name} must have at least {self.least} item, got {len(found)}")
        return tuple(self.kind(f"{name}[{i}]", v) for i, v in enumerate(found))

    def take(self, value: Any) -> list:
        if isinstance(value, (str, bytes, dict)):
            raise TypeError
        found = list(islice(value, MAX_ITEMS + 1))
        if len(found) > MAX_ITEMS:
            raise ValueError
        return found


class Titled(Kind):
    """{title: value} of a kind, or what `other` takes."""

    def __init__(self, kind: Kind, other: Kind):
        super().__init__(f"{other.what}, or a dict of such by title", dict)
        self.kind, self.other = kind, other

    def __call__(self, name: str, value: Any) -> Any:
        if not isinstance(value, dict):
            return self.other(name, value)
        if not value:
            raise ValueError(f"{name} is an empty dict: it must hold at least one title")
        return {title: self.kind(f"{name}[{shown(title)}]", v) for title, v in value.items()}


class Array(Kind):
    """Pixels or numbers as an array: from an array, a tensor, a PIL image or lists.

    shapes: such as "H W 3"; letters are any length but 0, and the same in all arguments.
    of: "uint8", or the kinds of numbers that are accepted (see `numpy.dtype.kind`).
    least: how many the first axis has at least.
    """

    broadcasts, number = False, None  # see `TensorOf`

    def __init__(
        self, *shapes: str, of: str = "buif", low=-math.inf, high=math.inf, finite=True, least=1
    ):
        self.shapes = [shape.split() for shape in shapes]
        self.of, self.low, self.high, self.finite, self.least = of, low, high, finite, least
        numbers = of if of == "uint8" else "finite numbers" if finite else "numbers"
        numbers += "" if math.isinf(high) else f" in [{low:g}, {high:g}]"
        shapes = " or ".join(f"({', '.join(shape)})" for shape in self.shapes)
        what = f"{numbers} of shape {shapes}" if shapes else numbers
        what += f", {self.shapes[0][0]} at least {least}" if least > 1 else ""
        super().__init__(what, self.converted)

    def __call__(self, name: str, value: Any) -> np.ndarray:
        found = None
        try:
            found = self.converted(value)
            wrong = self._wrong(found)
        except Exception:
            wrong = shown(value)
        if wrong:
            raise ValueError(f"{name} must be {self.what}, got {wrong}")
        return found

    def converted(self, value: Any) -> np.ndarray:
        return as_array(value)

    def _wrong(self, array) -> str:
        """What is wrong with an array, in words; empty where nothing is."""
        kind = array.dtype.kind
        if not (array.dtype == np.uint8 if self.of == "uint8" else kind in self.of):
            return f"{array.dtype} of shape {array.shape}"
        if self.shapes and (self._shape(array) is None or len(array) < self.least):
            return f"shape {array.shape}"
        if not self.finite:
            return ""
        if kind == "f" and not np.isfinite(array).all():
            return "NaN or infinity"
        if kind != "b" and not (self.low <= array.min() and array.max() <= self.high):
            return f"values from {array.min():g} to {array.max():g}"
        return ""

    def _shape(self, array) -> list[str] | None:
        for shape in self.shapes:
            axes = shape[max(0, len(shape) - array.ndim) :] if self.number else shape
            if len(axes) == array.ndim and all(map(self._fits, axes, array.shape)):
                return axes
        return None

    def _fits(self, axis: str, length: int) -> bool:
        if not length or not axis.isdigit():
            return length > 0
        return length == int(axis) or (self.broadcasts and length == 1)

    def axes(self, value: np.ndarray) -> dict[str, int]:
        named = zip(self._shape(value) or (), value.shape, strict=False)
        return {axis: length for axis, length in named if not axis.isdigit()}


class TensorOf(Array):
    """A floating torch tensor, as it is, on its own device; an array of floats becomes one.

    broadcasts: axes of length 1 fit any other. number: the kind of a number that does as well;
        then axes may be left out in front.
    """

    def __init__(self, *shapes: str, broadcasts: bool = False, number: Kind | None = None):
        super().__init__(*shapes, of="f", finite=False)
        self.broadcasts, self.number = broadcasts, number
        self.what = f"a floating tensor{self.what.removeprefix('numbers')}"

    def __call__(self, name: str, value: Any) -> Any:
        if self.number and not isinstance(value, np.ndarray) and not _is_tensor(value):
            return self.number(name, value)
        return super().__call__(name, value)

    def axes(self, value: Any) -> dict[str, int]:
        found = super().axes(value) if hasattr(value, "shape") else {}
        return {k: v for k, v in found.items() if v > 1 or not self.broadcasts}

    def converted(self, value: Any):
        import torch

        return torch.as_tensor(value) if isinstance(value, np.ndarray) else value

    def _wrong(self, tensor) -> str:
        fits = not self.shapes or self._shape(tensor) is not None
        right = tensor.is_floating_point() and fits
        return "" if right else f"{tensor.dtype} of shape {tuple(tensor.shape)}"


def scalar(value: Any) -> numbers.Real:
    """A Python number from a number, a 0-d array or a 0-d tensor; TypeError for anything else."""
    if (isinstance(value, (np.ndarray, np.generic)) or _is_tensor(value)) and not value.ndim:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError
    return value


def as_array(value: Any) -> np.ndarray:
    """Lists, a PIL image, or a tensor on whatever device as an array; of a bounded size."""
    if _is_tensor(value):
        if value.numel() > MAX_VALUES:
            raise ValueError
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() else value
        return value.numpy()
    array = np.asarray(value)
    if array.size > MAX_VALUES:
        raise ValueError
    return array


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def Number(low: float = -math.inf, high: float = math.inf, above: bool = False) -> Kind:
    """A finite float in [low, high]; above low where `above`."""

    def take(value):
        found = float(scalar(value))
        if not (low <= found <= high and math.isfinite(found)) or (above and found == low):
            raise ValueError
        return found

    if math.isinf(high):
        of = "" if math.isinf(low) else f" {'above' if above else 'of at least'} {low:g}"
        return Kind(f"a finite number{of}", take)
    return Kind(f"a number in {'(' if above else '['}{low:g}, {high:g}]", take)


def Integer(low: int = -(2**63), high: int = 2**63 - 1) -> Kind:
    def take(value):
        found = scalar(value)
        if not isinstance(found, numbers.Integral) or not low <= found <= high:
            raise ValueError
        return int(found)

    least = f" of at least {low}" if low > -(2**63) else ""
    most = f" and at most {high}" if high < 2**63 - 1 or high > 2**63 else ""
    return Kind(f"an integer{least}{most}", take)


def Choice(*known: str) -> Kind:
    def take(value):
        if not isinstance(value, str) or value not in known:
            raise ValueError
        return value

    return Kind(f"one of {', '.join(known)}", take)


def Instance(*types: type) -> Kind:
    def take(value):
        if not isinstance(value, types):
            raise TypeError
        return value

    return Kind(" or ".join(f"a {t.__name__}" for t in types), take, TypeError)


class Either(Kind):
    """The first of some kinds that takes the value; None where it is among them."""

    def __init__(self, *kinds: Kind):
        self.none, self.kinds = NONE in kinds, [kind for kind in kinds if kind is not NONE]
        what = " or ".join(kind.what for kind in self.kinds)
        super().__init__(what, self.take, self.kinds[-1].error)

    def __call__(self, name: str, value: Any) -> Any:
        if value is None and self.none:
            return None
        return (self.kinds[0] if len(self.kinds) == 1 else super().__call__)(name, value)

    def take(self, value: Any) -> Any:
        for kind in self.kinds:
            try:
                return kind("it", value)
            except (ValueError, TypeError, OSError):
                continue
        raise ValueError

    def axes(self, value: Any) -> dict[str, int]:
        return {} if value is None or len(self.kinds) > 1 else self.kinds[0].axes(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError
    return bool(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value or len(value) > MAX_TEXT:
        raise TypeError
    value.encode()  # lone surrogates can be neither read nor written
    return value


def _sentence(value: Any) -> str:
    if not _text(value).strip():
        raise ValueError
    return value


def _name(value: Any) -> str:
    if len(_sentence(value).encode()) > 200 or not value.isprintable() or set(value) & set("/\\"):
        raise ValueError
    return value


def _file(value: Any) -> Path:
    path = os.fspath(value)
    if not isinstance(path, str) or not path or b"\0" in os.fsencode(path):
        raise TypeError
    if any(len(os.fsencode(part)) > 255 for part in Path(path).parts):
        raise ValueError
    return Path(path)


def _point(value: Any) -> tuple[float, float]:
    x, y = (float(scalar(v)) for v in islice(value, 3))
    if not (math.isfinite(x) and math.isfinite(y)):
        raise ValueError
    return x, y


def _size(value: Any) -> tuple[int, int]:
    width, height = (SIDE("size", side) for side in islice(value, 3))
    return width, height


class Mask(Array):
    """A region as a read-only bool (H, W) array: any value but zero is inside."""

    def __init__(self):
        super().__init__("H W")

    def __call__(self, name: str, value: Any) -> np.ndarray:
        array = super().__call__(name, value) != 0
        if not array.any():
            raise ValueError(f"{name} is empty: it must have at least one pixel inside the region")
        array.flags.writeable = False
        return array


def _guidances(value: Any) -> float | list[float]:
    one = Number(0, 100)
    if np.ndim(value) == 0:
        return one("guidance_scale", value)
    return list(Listed(one, "numbers", least=1)("guidance_scale", value))


def _times(value: Any) -> tuple[float, ...]:
    found = tuple(float(Number(0)("times", v)) for v in Listed(NONE, "times").take(value))
    if any(b <= a for a, b in pairwise(found)):
        raise ValueError
    return found


def _weights(value: Any) -> float | np.ndarray:
    array = as_array(value)
    if array.dtype.kind not in "uif" or not array.size or array.ndim > 5:
        raise ValueError
    if not ((array >= 0) & (array <= 1)).all():
        raise ValueError
    if not array.ndim:
        return float(array)
    array = array.astype(np.float64)
    array.flags.writeable = False
    return array


# ------------------------------------------------------------------- what many arguments have to be

FLAG, TEXT = Kind("True or False", _flag, TypeError), Kind("a text", _text, TypeError)
SENTENCE, FILE = Kind("a sentence", _sentence), Kind("a path", _file, TypeError)
NONE, POINT = Instance(type(None)), Kind("a point (x, y) of two finite numbers", _point)
SIDE, MASK, VIDEO = Integer(1, MAX_SIDE), Mask(), Array("F H W 3", of="uint8")

_WEIGHTS = "in [0, 1] and broadcast to (steps, F, 1, h, w)"

Share = Annotated[float, Number(0, 1)]
Angle = Annotated[float, Number(-3600, 3600)]
Zoom = Annotated[float, Number(0.05, 20)]
Guidance = Annotated[float, Number(0, 100)]
Guidances = Annotated[
    float | list[float],
    Kind("a number in [0, 100], or a list of one for each frame", _guidances),
]
Count = Annotated[int, Integer(1, MAX_ITEMS)]
Index = Annotated[int, Integer(-MAX_ITEMS, MAX_ITEMS)]
Frames = Annotated[int, Integer(1, MAX_FRAMES)]
Steps = Annotated[int, Integer(1, MAX_STEPS)]
Side = Annotated[int, SIDE]
Seed = Annotated[int, Integer(0, MAX_SEED)]
Sentence = Annotated[str, SENTENCE]
File = Annotated[Path, FILE]
Name = Annotated[str, Kind("a name for a file, without a folder", _name)]
Point = Annotated[tuple[float, float], POINT]
Path2D = Annotated[tuple[Point, ...], Listed(POINT, "points (x, y)")]
Line = Annotated[tuple[Point, ...], Listed(POINT, "points (x, y)", least=1)]
Size = Annotated[tuple[int, int], Kind(f"(width, height), each of 1 to {MAX_SIDE} pixels", _size)]
Shape = Annotated[tuple[int, int], Kind(f"(H, W), each of 1 to {MAX_SIDE} pixels", _size)]
Times = Annotated[tuple[float, ...], Kind("increasing times of at least 0", _times)]
Weights = Annotated[float | np.ndarray, Kind(_WEIGHTS, _weights)]
Region = Annotated[np.ndarray, MASK]
Map = Annotated[np.ndarray, Array("H W")]
SoftMask = Annotated[np.ndarray, Array("H W", low=0, high=1)]
Pixels = Annotated[np.ndarray, Array("H W 3", of="uint8")]
Video = Annotated[np.ndarray, VIDEO]
Latents = Annotated[Any, TensorOf("N C h w")]
Clip = Annotated[np.ndarray, Array("H W 3", "F H W 3", of="uint8")]

_PLAIN = {bool: FLAG, str: TEXT, int: Integer(), float: Number(), type(None): NONE, Path: FILE}


def kind_of(hint: Any) -> Kind | None:
    """The kind that an annotation says; None where anything may be given."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return next((k for k in inside[1:] if isinstance(k, Kind)), kind_of(inside[0]))
    if origin is Literal:
        return Choice(*inside)
    if origin in (typing.Union, types.UnionType):
        kinds = [kind_of(part) for part in inside]
        return None if None in kinds else Either(*kinds)
    if origin in (list, tuple, Sequence, Iterable):
        kind = kind_of(inside[0])
        return kind and Listed(kind, kind.what.removeprefix("a "))
    if hint in _PLAIN:
        return _PLAIN[hint]
    if hint is Any:
        return None
    return Instance(origin or hint) if isinstance(origin or hint, type) else None


class Arguments:
    """The arguments of a function: their names, and the kinds of those that have one."""

    def __init__(self, work: Callable, passed_on: Iterable[Callable] = ()):
        hints = typing.get_type_hints(work, include_extras=True)
        parameters = inspect.signature(work).parameters.values()
        self.name = work.__qualname__.removesuffix(".__init__").rpartition(".")[2]
        self.placed = [p.name for p in parameters if p.kind <= p.POSITIONAL_OR_KEYWORD]
        by_name = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        self.needed = [p.name for p in by_name if p.default is p.empty]
        self.kinds = {p.name: kind_of(hints.get(p.name, Any)) for p in by_name}
        self.several = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        self.open = any(p.kind is p.VAR_KEYWORD for p in parameters) and not passed_on
        for more in map(arguments_of, passed_on):
            self.kinds, self.open = more.kinds | self.kinds, self.open or more.open

    def checked(self, args: tuple, named: dict[str, Any]) -> tuple[list, dict[str, Any]]:
        """The values as they are meant; ValueError or TypeError with one sentence."""
        if len(args) > len(self.placed) and not self.several:
            raise TypeError(f"{self.name} takes {len(self.placed)} arguments, got {len(args)}")
        given = dict(zip(self.placed, args, strict=False))
        for old in named.keys() - self.kinds.keys() & RENAMED.keys():
            if (new := RENAMED[old]) in self.kinds and new not in named:
                renamed(old, new)
                named[new] = named.pop(old)
        for name in named:
            if name in given:
                raise TypeError(f"{self.name} got {name} twice: by its place and by its name")
            if name not in self.kinds and not self.open:
                raise TypeError(self._unknown(name))
        given |= named
        for name in self.needed:
            if name not in given:
                raise TypeError(f"{self.name} needs {name}, which is not given")
        for name, value in given.items():
            if kind := self.kinds.get(name):
                given[name] = kind(name, value)
        self._same_lengths(given)
        placed = [given.pop(name) for name, _ in zip(self.placed, args, strict=False)]
        return [*placed, *args[len(placed) :]], given

    def _unknown(self, name: str) -> str:
        known = [known for known in self.kinds if known not in ("self", "cls")]
        near = difflib.get_close_matches(name, known, 1, 0.5)
        hint = f"; did you mean {near[0]}?" if near else f"; it has {', '.join(known)}"
        if name == "generator" and "seed" in known:
            hint = ": its place is taken by seed, an integer that the noise is drawn from"
        return f"{self.name} has no argument {shown(name)}{hint}"

    def _same_lengths(self, given: dict[str, Any]) -> None:
        first: dict[str, tuple[int, str]] = {}
        for name, value in given.items():
            kind = self.kinds.get(name)
            for axis, length in kind.axes(value).items() if kind else ():
                other, before = first.setdefault(axis, (name, length))
                if length != before:
                    raise ValueError(
                        f"{name} of shape {tuple(value.shape)} does not fit {other} of shape "
                        f"{tuple(given[other].shape)}: they differ in {axis}"
                    )


@functools.cache
def arguments_of(work: Callable) -> Arguments:
    work = work.__init__ if isinstance(work, type) else work
    return Arguments(inspect.unwrap(work), getattr(work, "passed_on", tuple)())


def checked(work=None, *, options: Callable[[], Iterable[Callable]] = tuple):
    """A function, or a class, whose arguments are checked by their annotations when it is called.

    options: returns the functions and classes that `**options` are passed on to: what they know
        is known, and anything else is refused.
    """
    if work is None:
        return functools.partial(checked, options=options)
    if isinstance(work, type):
        work.__init__ = checked(work.__init__, options=options)
        return work

    @functools.wraps(work)
    def call(*args, **named):
        args, named = arguments_of(call).checked(args, named)
        return work(*args, **named)

    call.passed_on = options
    return call


# --------------------------------------------------------------------- one value, where it is asked


def check_index(name: str, value: int, count: int) -> None:
    if not -count <= value < count:
        raise ValueError(f"{name} must be an index in [{-count}, {count - 1}], got {value}")


def check_clip(num_frames: int, shape: tuple[int, int]) -> None:
    """ValueError where a clip of frames of `shape` (H, W) would fill the memory."""
    height, width = shape
    if num_frames * height * width > MAX_CLIP:
        raise ValueError(
            f"num_frames must be at most {MAX_CLIP // (height * width)} at {width} x {height} "
            f"pixels, got {num_frames}"
        )
