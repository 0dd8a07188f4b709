"""The bar of whatever may take more than a moment."""

from __future__ import annotations

from collections.abc import Iterable

SOON = 1.0  # seconds: what is over before needs no bar


def bar(items: Iterable, what: str, shown: bool = True, **options):
    """The items one by one, with a bar from `SOON` on. options: those of `tqdm`, as `delay`."""
    from tqdm.auto import tqdm

    return tqdm(items, desc=what, disable=not shown, **{"delay": SOON} | options)
