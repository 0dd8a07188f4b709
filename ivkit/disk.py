"""Files of ours are written beside their place and renamed: what is there is whole at any time."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # two letters and more: C: is a drive


def destination(name: str, path: Any, *suffixes: str) -> Path:
    """A path that can be written to, checked before any work.

    suffixes: those that are accepted; none for any.
    Raises TypeError where it is no path, ValueError for an address ("https://...", "file:x"), a
    name that programs take for an option ("-x.mp4"), a folder or a device.
    """
    if not isinstance(path, (str, os.PathLike)) or isinstance(os.fspath(path), bytes):
        raise TypeError(f"{name} must be a path, got {type(path).__name__}")
    text, place = os.fspath(path), Path(path)
    if not place.name or text.startswith("-") or ADDRESS.match(text) or "\0" in text:
        raise ValueError(
            f"{name} must be the path of a file on this machine, without '-' in front, "
            f"got {text[:100]!r}"
        )
    if suffixes and place.suffix.lower() not in suffixes:
        raise ValueError(f"{name} must end in {' or '.join(suffixes)}, got {place.name[:100]!r}")
    try:
        taken = place.exists() and not place.is_file()
    except OSError as error:  # a name too long, a folder that cannot be looked into
        raise ValueError(f"{name} {text[:100]!r} cannot be written: {error.strerror}") from None
    if taken:
        raise ValueError(f"{name} must be a file, and {text!r} is a folder or a device")
    return place


@contextlib.contextmanager
def whole(path: str | os.PathLike) -> Iterator[Path]:
    """Where to write, so that `path` is the new file at once, or is as it was.

        with whole("clip.mp4") as part:
            part.write_bytes(content)

    Folders that are missing are made. Raises OSError, in one sentence that names the path, where
    the disk is full or the folder cannot be written to; nothing half-written is left.
    """
    from safetensors import SafetensorError

    path = destination("path", path)
    part = path.parent / f".{secrets.token_hex(4)}.part{path.suffix}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.replace(path)
    except (OSError, SafetensorError) as error:
        kind = type(error) if isinstance(error, OSError) else OSError
        why = getattr(error, "strerror", None) or error
        raise kind(f"{path} cannot be written: {why}") from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")


def write_tensors(path: str | os.PathLike, tensors: dict, metadata: dict[str, str]) -> None:
    """Tensors as safetensors, from whatever device they are on."""
    from safetensors.torch import save_file

    with whole(path) as part:
        save_file({n: t.detach().cpu().contiguous() for n, t in tensors.items()}, part, metadata)
