"""Weights on disk: whether all are there and whole, before anything is built from them."""

from __future__ import annotations

import json
from pathlib import Path

PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")


def check_folder(folder: Path, parts: tuple[str, ...], mend: str, allow_pickle=False) -> None:
    """Raise FileNotFoundError or ValueError, naming the file, unless all of `folder` is whole.

    parts: sub-folders that must hold a config and safetensors weights.
    mend: what the person can do about it, a clause.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"the weights' folder {folder} is not there; {mend}")
    for part in parts:
        place = folder / part
        if not (place / "config.json").is_file():
            raise FileNotFoundError(f"{place / 'config.json'} is missing; {mend}")
        files = sorted(place.glob("*.safetensors"))
        for index in place.glob("*.safetensors.index.json"):
            shards = set(json.loads(index.read_text())["weight_map"].values())
            files = sorted({*files, *(place / shard for shard in shards)})
        pickles = [f for f in place.glob("*") if f.suffix in PICKLES]
        if not files and not pickles:
            raise FileNotFoundError(f"{place} holds no safetensors weights; {mend}")
        for file in files or pickles:
            check_file(file, mend, allow_pickle)


def check_file(file: Path, mend: str, allow_pickle: bool = False) -> None:
    """Raise FileNotFoundError or ValueError unless `file` has the length that its header tells.

    Of a pickle nothing is looked at: it is refused, or taken as it is.
    """
    from safetensors import SafetensorError, safe_open

    if file.suffix in PICKLES:
        if allow_pickle:
            return
        raise ValueError(
            f"{file} is a pickle, which can run any code when it is read; take safetensors, or say "
            "allow_pickle=True if you trust where it comes from"
        )
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; {mend}")
    try:
        with safe_open(file, "pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} is damaged ({error}); {mend}") from None
