"""Checkpoints from the hub or from a folder in diffusers' layout, part by part.

Downloads are safetensors alone, show their progress, and lie in the hub's own cache. One that is
cut off goes on where it was; one that is given up leaves whole files alone, and the next call
fetches the others. Whether all are there and whole is seen before anything is built from them.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from ..support.validate import RENAMED, renamed

NEEDS_NONE = "ivkit.load('storybook') needs no download"
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
TEXTS = ("*.json", "*.txt", "*.model")
NAMED = {"scheduler": "scheduler_config.json", "vae": "config.json"}  # these files name the class


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


def fetch(source: str, parts: tuple[str, ...], row=None, part: str = "base") -> Path:
    """The folder of a hub id (or of a folder) with the parts that are named, fetched if need be.

    parts: sub-folders, or "" for a checkpoint that has none. row: of the table, for what the error
    tells; part: which of the row's ids this is.
    Raises FileNotFoundError, in one sentence, where it cannot be had.
    """
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub import errors as hub

    variant = row.variant if row is not None and source == row.ids.get("base") else None
    weights = f"*.{variant}*.safetensors" if variant else "*.safetensors"
    patterns = [f"{p}/{kind}" if p else kind for p in parts for kind in (*TEXTS, weights)]
    others = [] if variant else ["*.fp16*.safetensors", "*.non_ema*.safetensors"]
    options = {"allow_patterns": ["model_index.json", *patterns], "ignore_patterns": others}
    size = f" ({row.download_gb:g} GB in all)" if row is not None else ""
    all_ids = [v for k, v in row.ids.items() if k != "taesd"] if row is not None else []
    ids = " and ".join(dict.fromkeys([source, *all_ids]))
    said = f"{row.name if row is not None else 'this model'} needs {ids}{size}"
    other = row.fallback.get(part) if row is not None else None
    instead = f"try {part}={other!r} instead, or " if other else ""
    silent = None
    try:
        with contextlib.suppress(OSError, ValueError):  # `snapshot_download` finds these out, too
            HfApi().model_info(source, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except hub.HTTPError as error:  # it would wait for ever
        silent = f"the hub does not answer: {type(error).__name__} {error}".rstrip()
    try:
        return Path(snapshot_download(source, local_files_only=bool(silent), **options))
    except hub.GatedRepoError:
        raise FileNotFoundError(
            f"{said}, whose licence must be accepted on its page first, then log in with `hf auth "
            f"login`; {NEEDS_NONE}"
        ) from None
    except (hub.RepositoryNotFoundError, hub.RevisionNotFoundError):
        raise FileNotFoundError(
            f"{said}, which is not on the hub any more; {instead}look for another id: {NEEDS_NONE}"
        ) from None
    except hub.HFValidationError:
        raise ValueError(
            f"{source!r} is neither a folder nor an id of the hub such as 'owner/name'"
        ) from None
    except (hub.HTTPError, OSError) as error:  # the transport's errors, and all of the hub's
        why = silent or _why(error)
        raise FileNotFoundError(
            f"{said} and cannot get it now ({why}); {instead}{NEEDS_NONE}"
        ) from None


def _why(error: Exception) -> str:
    """What the hub or the network said, in a line."""
    error = error.__cause__ or error  # the library's own says that the file is not in the cache
    answer = getattr(error, "response", None)
    if answer is not None:
        said = answer.headers.get("X-Error-Message")
        return f"the hub answers {answer.status_code}" + (f": {said}" if said else "")
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def read(
    folder: Path,
    classes: dict[str, str],
    dtype=torch.float32,
    *,
    mend: str,
    allow_pickle: bool = False,
    variant: str | None = None,
    float_parts: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Each part of `folder` in the class that `classes` names ("library.Class").

    A trailing "?" marks a part that may be missing (then None); a scheduler and an autoencoder come
    in the class that their own config names.
    """
    import diffusers

    names = {name: path.rstrip("?") for name, path in classes.items()}
    there = [n for n in names if not classes[n].endswith("?") or (folder / n).is_dir()]
    networks = tuple(n for n in there if not _has_no_weights(names[n]))
    check_folder(folder, networks, mend, allow_pickle)
    parts: dict[str, Any] = dict.fromkeys(names)
    with quietly():
        for name in there:
            library, cls = names[name].split(".")
            options = {}
            if name in NAMED:
                cls = json.loads((folder / name / NAMED[name]).read_text()).get("_class_name", cls)
            if name in networks:
                wanted = torch.float32 if name in float_parts else dtype
                options = {("torch_dtype" if library == "diffusers" else "dtype"): wanted}
                options["use_safetensors"] = None if allow_pickle else True
                options["variant"] = variant
            home = diffusers if library == "diffusers" else import_module(library)
            if not hasattr(home, cls):
                raise ValueError(f"{folder / name} holds a {cls}, which {library} does not know")
            parts[name] = getattr(home, cls).from_pretrained(folder / name, **options)
    return parts


def _has_no_weights(path: str) -> bool:
    return path.endswith(("Scheduler", "Tokenizer", "ImageProcessor"))


def load_family(module, row, folder, *, device, dtype, base=None, allow_pickle=False, **options):
    """A model of a family whose module has PARTS and FAMILY; `options` are the class's fields.

    base: another id or folder in place of the table's.
    """
    source = base or folder or row.ids["base"]
    folder = fetch(str(source), tuple(module.PARTS), row)
    check_layout(folder, row)
    inside = torch.float32 if device.type == "cpu" else dtype
    variant = row.variant if row is not None and base is None else None
    mend = "fetch that file anew from where it came"
    parts = read(
        folder,
        module.PARTS,
        inside,
        mend=mend,
        allow_pickle=allow_pickle,
        variant=variant,
        float_parts=module.FAMILY.float_parts,
    )
    given = {**(row.settings if row is not None else {}), **options}
    name = row.name if row is not None else folder.name
    return make(module.FAMILY, name, parts, given, device=device, dtype=dtype)


def make(family, name: str, parts: dict[str, Any], given: dict[str, Any], **where):
    """A model of a family's class, whose fields `given` names; TypeError for one it has not."""
    known = {f.name for f in fields(family) if f.init} - {"parts", "name"}
    for old in given.keys() & RENAMED.keys():
        renamed(old, RENAMED[old])
        given[RENAMED[old]] = given.pop(old)
    for option in given:
        if option not in known:
            said = ", ".join(sorted(known))
            raise TypeError(f"{option!r} is no option of this model; {said} are")
    return family(name=name, parts=parts, **where, **given)


def pipeline_of(folder: Path) -> str | None:
    """The class that a folder's model_index.json names; None where there is no such file."""
    index = Path(folder) / "model_index.json"
    return json.loads(index.read_text()).get("_class_name") if index.is_file() else None


def check_layout(folder: Path, row) -> None:
    """ValueError where the folder holds another layout than the row of the table asks for."""
    found = pipeline_of(folder)
    if row is not None and found is not None and row.pipelines and found not in row.pipelines:
        raise ValueError(
            f"{folder} holds a {found}; {row.name} needs the layout of {row.pipelines[0]}"
        )


@contextlib.contextmanager
def quietly():
    """No progress bars for parts that load in a moment, no remarks on the libraries' configs."""
    from diffusers.utils import logging as theirs
    from transformers.utils import logging as others

    levels = [(lib, lib.get_verbosity()) for lib in (theirs, others)]
    for lib, _ in levels:
        lib.set_verbosity_error()
    shown = [lib for lib in (theirs, others) if lib.is_progress_bar_enabled()]
    for lib in shown:
        lib.disable_progress_bar()
    try:
        yield
    finally:
        for lib, level in levels:
            lib.set_verbosity(level)
        for lib in shown:
            lib.enable_progress_bar()
