"""How the command lines answer: a bad value or path is one sentence and exit code 2."""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .disk import destination


class Failed(RuntimeError):
    """What was asked for rightly and could not be done; the message is one sentence."""


def answered(name: str, work: Callable[[], Any]) -> int:
    """Run a command and return its exit code: 0, 1 for a notebook that failed, 2 for what was
    asked wrongly or cannot be written, 130 for an interrupt. What it prints comes through on a
    stdout of any encoding."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # not one of a terminal or a file
            stream.reconfigure(errors="backslashreplace")
    try:
        work()
    except (Failed, ValueError, TypeError, OSError) as error:
        print(f"{name}: {' '.join(str(error).split())[:400]}", file=sys.stderr)
        return 1 if isinstance(error, Failed) and not isinstance(error, ValueError) else 2
    except SystemExit as end:
        if not isinstance(end.code, str):
            raise
        print(f"{name}: {end.code}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{name}: stopped", file=sys.stderr)
        return 130
    return 0


def _argument(check: Callable[[str], Any]) -> Callable[[str], Any]:
    """A check as argparse's `type`, which names the option."""

    def convert(text: str) -> Any:
        try:
            return check(text)
        except (ValueError, OSError) as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


@_argument
def new_file(text: str) -> Path:
    """A file to write, in a folder that is there and takes files."""
    path = destination("the file", text)
    if not path.absolute().parent.is_dir():
        raise ValueError(f"there is no folder {path.absolute().parent}")
    _try(path.absolute().parent)
    return path


@_argument
def deep_file(text: str) -> Path:
    """A file to write, whose folder may be new."""
    path = destination("the file", text)
    _try_nearest(path.parent)
    return path


@_argument
def folder(text: str) -> Path:
    """A folder to write to, new or not."""
    _try_nearest(Path(text))
    return Path(text)


def _try_nearest(path: Path) -> None:
    there = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
    if not there.is_dir():
        raise ValueError(f"{there} is no folder")
    _try(there)


def _try(place: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"x")
    except OSError as error:
        raise ValueError(f"{place} cannot be written to: {error.strerror}") from None


@_argument
def file(text: str) -> Path:
    """A file to read."""
    if not Path(text).is_file():
        raise ValueError(f"there is no file {text[:100]!r}")
    return Path(text)


@_argument
def count(text: str) -> int:
    """At least 1."""
    if not (number := int(text) if text.lstrip("-").isdecimal() else 0) >= 1:
        raise ValueError(f"must be an integer of at least 1, not {text}")
    return number


@_argument
def seconds(text: str) -> float:
    """At least 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise ValueError(f"must be a number of at least 0, not {text}")
    return number


@_argument
def setting(text: str) -> tuple[str, Any]:
    """NAME=VALUE, the value in JSON."""
    import json

    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError(f"must be NAME=VALUE with a value in JSON, not {text[:100]!r}") from None
