"""Files of ours are written beside their place and renamed: what is there is whole at any time."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # two letters and more: C: is a drive


def destination(name: str, path: Any, *suffixes: str) -> Path:
    """A path that can be written to, checked before any work.

    suffixes: those that are accepted; none for any.
    Raises TypeError where it is no path, ValueError for an address (of the web, or "file:x"), a
    name that programs take for an option ("-x.mp4"), a folder or a device.
    """
    place = _place(name, path)
    text = str(place)
    if suffixes and place.suffix.lower() not in suffixes:
        raise ValueError(f"{name} must end in {' or '.join(suffixes)}, got {place.name[:100]!r}")
    try:
        taken = place.exists() and not place.is_file() or place.absolute().parent == Path("/dev")
    except OSError as error:  # a name too long, a folder that cannot be looked into
        raise ValueError(f"{name} {text[:100]!r} cannot be written: {error.strerror}") from None
    if taken:
        raise ValueError(f"{name} must be a file, and {text!r} is a folder or a device")
    return place


def _place(name: str, path: Any) -> Path:
    try:
        text = os.fspath(path)
        os.fsencode(text)
        place = Path(text)
    except Exception:  # its own __fspath__ may raise anything
        raise TypeError(f"{name} must be a path, got {type(path).__name__}") from None
    if not text or text.startswith("-") or ADDRESS.match(text) or "\0" in text:
        raise ValueError(
            f"{name} must be a path on this machine, without '-' in front, got {text[:100]!r}"
        )
    return place


def new_folder(name: str, path: Any) -> Path:
    """A folder that is new or empty, checked as `destination` checks a file."""
    place = _place(name, path)
    try:
        if not place.exists() or (place.is_dir() and not any(place.iterdir())):
            return place
    except OSError as error:
        raise ValueError(f"{name} {str(path)[:100]!r} cannot be used: {error.strerror}") from None
    raise ValueError(f"{name} must be new or empty, and {place} is not")


def unused(path: Path) -> Path:
    """The path, or with a number where it is taken: no file is ever overwritten."""
    names = (path.with_stem(f"{path.stem}-{n}") for n in itertools.count(2))
    return path if not path.exists() else next(name for name in names if not name.exists())


@contextlib.contextmanager
def whole(path: str | os.PathLike) -> Iterator[Path]:
    """Where to write, so that `path` is the new file at once, or is as it was.

        with whole("clip.mp4") as part:
            part.write_bytes(content)

    Folders that are missing are made. Raises OSError, in one sentence that names the path, where
    the disk is full or the folder cannot be written to; nothing half-written is left.
    """
    path = destination("path", path)
    real = path.resolve() if path.is_symlink() else path  # a link stays one
    with _beside(real) as part:
        yield part
        part.replace(real)


@contextlib.contextmanager
def whole_folder(path: str | os.PathLike, new: bool = True) -> Iterator[Path]:
    """The same for a folder that is new or empty. new=False: or for some files of a folder, which
    take their places once all of them are written."""
    path = new_folder("path", path) if new else _place("path", path)
    with _beside(path) as part:
        part.mkdir()
        yield part
        if path.is_dir():  # it may be the one that a shell is in
            for child in part.iterdir():
                child.replace(path / child.name)
        else:
            part.replace(path)


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    from safetensors import SafetensorError

    part = path.parent / f".{secrets.token_hex(4)}.part{path.suffix}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
    except Exception as error:
        if not isinstance(error, (OSError, SafetensorError)) and "os error" not in str(error):
            raise  # a tokenizer's own is an Exception that says (os error 28)
        kind = type(error) if isinstance(error, OSError) else OSError
        if isinstance(error, shutil.Error):  # copytree's list of (from, to, why)
            error = error.args[0][0][-1]
        why = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise kind(f"{path} cannot be written: {why[:200]}") from None
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(part) if part.is_dir() else part.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")


def append(path: str | os.PathLike, lines: bytes) -> None:
    """Adds lines to a file's end, all or none of them, and has them on the disk when it returns."""
    before = Path(path).read_bytes() if Path(path).is_file() else b""
    if before and not before.endswith(b"\n"):  # an earlier version wrote half a line
        before += b"\n"
    with whole(path) as part, part.open("wb") as file:
        file.write(before + lines)
        file.flush()
        os.fsync(file.fileno())


def write_tensors(
    path: str | os.PathLike, tensors: dict, metadata: dict[str, str] | None = None
) -> None:
    """Tensors as safetensors, from whatever device they are on."""
    from safetensors.torch import save_file

    with whole(path) as part:
        save_file({n: t.detach().cpu().contiguous() for n, t in tensors.items()}, part, metadata)


def write_picture(path: str | os.PathLike, picture, **options) -> None:
    """A PIL picture in the format of the path's suffix; options are those of PIL's writer."""
    with whole(path) as part:
        picture.save(part, **options)
