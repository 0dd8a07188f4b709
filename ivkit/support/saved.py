"""Plain data that survives a round trip through JSON, pictures and masks included."""

from __future__ import annotations

import base64
import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from PIL import Image

from ..pictures import open_png, png, to_picture
from .disk import write_text
from .validate import File, Instance, checked

Json = Annotated[dict | str | bytes, Instance(dict, str, bytes)]
VERSION = 1  # of the JSON form; another version is refused, never guessed at


class Saved:
    """to_json / from_json / save / load and equality, the same for every instruction."""

    def to_json(self) -> dict:
        """A dict of plain JSON values, with the version of the format."""
        return {"version": VERSION, **_encode(self)}

    @classmethod
    @checked
    def from_json(cls, data: Json):
        """The instruction that `to_json` described, from the dict or its text.

        Raises ValueError for another version, another kind of instruction, or damaged data.
        """
        name = cls.__name__
        if isinstance(data, (str, bytes)):
            try:
                data = json.loads(data)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"data is no complete {name} in JSON: {error}") from None
        if not isinstance(data, dict):
            raise ValueError(f"a saved {name} must be a JSON object, got {type(data).__name__}")
        if data.get("version") != VERSION:
            raise ValueError(
                f"data must be a saved {name} of version {VERSION}, got {data.get('version')!r}"
            )
        try:
            found = _decode({k: v for k, v in data.items() if k != "version"})
        except RecursionError:
            raise ValueError(f"this {name} is damaged: it is nested too deeply") from None
        if type(found) is not cls:
            raise ValueError(f"expected a saved {name}, got {data.get('type')!r}")
        return found

    @checked
    def save(self, path: File) -> None:
        """Write as JSON. The old file stays whole until the new one is."""
        write_text(path, json.dumps(self.to_json()))

    @classmethod
    @checked
    def load(cls, path: File):
        """Read what `save` wrote; raises ValueError naming the file when it cannot be."""
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error  # without the "[Errno 2]"
            raise ValueError(f"{str(path)!r} cannot be loaded: {reason}") from None

    @classmethod
    def _opened(cls, fields: dict[str, Any]):
        """The object that a file describes, which may be of an earlier version of the class."""
        return cls(**fields)

    def _set(self, **values: Any) -> None:
        """How a frozen dataclass puts its own fields into one form."""
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:  # by value, arrays and pictures included
        return type(other) is type(self) and _encode(self, False) == _encode(other, False)

    __hash__ = None


def _png(picture: Image.Image) -> str:
    return base64.b64encode(png(picture)).decode("ascii")


def _encode(value: Any, saving: bool = True) -> Any:
    """The value as plain JSON; where it is only to be compared, functions stay as they are."""
    if isinstance(value, Saved):
        held = [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)]
        for name in [name for name, v in held if saving and callable(v)]:
            raise ValueError(
                f"{name} is a function, which no file can hold: put it into ivkit.{name}.RULES and "
                "give its name there instead"
            )
        fields = {name: _encode(v, saving) for name, v in held}
        return {"type": type(value).__name__, **fields}
    if isinstance(value, Image.Image):
        return {"type": "picture", "png": _png(value)}
    if isinstance(value, np.ndarray) and value.dtype == bool:
        return {"type": "mask", "png": _png(Image.fromarray(value))}
    if isinstance(value, np.ndarray):
        return {"type": "array", "values": value.tolist()}
    if isinstance(value, tuple):
        return [_encode(v, saving) for v in value]
    return value


def _decode(value: Any, where: str = "") -> Any:
    """The object that `_encode` described; `where` is its field, for an error."""
    if isinstance(value, list):
        return [_decode(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if not isinstance(value, dict):
        return value
    value = dict(value)
    kind = value.pop("type", None)
    fields = {k: _decode(v, f"{where}.{k}".lstrip(".")) for k, v in value.items()}
    known = {c.__name__: c for c in Saved.__subclasses__()}
    try:
        if kind in ("picture", "mask"):
            image = open_png(base64.b64decode(fields["png"], validate=True))
            return to_picture(image) if kind == "picture" else np.asarray(image.convert("L")) > 0
        if kind == "array":
            return np.asarray(fields["values"], np.float64)
        return known[kind]._opened(fields)
    except KeyError:
        raise ValueError(f"damaged data: {kind!r} with {sorted(fields)} is not known") from None
    except (TypeError, OverflowError) as error:  # a field too many or too few, a number too large
        raise ValueError(f"damaged data in a saved {kind}: {error}") from None
    except ValueError as error:
        if kind not in ("picture", "mask", "array"):
            raise  # it names the field
        raise ValueError(f"damaged {kind} in the saved {where or 'data'}: {error}") from None
