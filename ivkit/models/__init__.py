"""Models behind one protocol: see `protocol.py`. `load` finds a checkpoint by name or by folder."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Annotated

from ..support.validate import Kind, checked
from .table import TABLE


def _device(value):
    import torch

    if value is not None and not isinstance(value, (str, torch.device)):
        raise TypeError
    return None if value is None else torch.device(value)


def _dtype(value):
    import torch

    known = {str(d).partition(".")[2]: d for d in (torch.float32, torch.bfloat16, torch.float16)}
    if value is None or isinstance(value, torch.dtype) and value in known.values():
        return value
    return known[value]


def _name(value):
    if not isinstance(value, (str, Path)):
        raise TypeError
    Path(value).exists()  # raises where no file could be called so
    return value


NAME = Kind("the name of a model, its id on the hub, a folder or a file", _name, TypeError)
Name = Annotated[str | Path, NAME]
DEVICE = Kind("'cpu', 'cuda' or 'mps'", _device)
DTYPE = Kind("float32, bfloat16 or float16", _dtype)


@checked
def load(name: Name = "storybook", device=None, dtype=None, small: bool = False, **options):
    """A model by its name in the table, by hub id, or from a folder in diffusers' layout.

    device: "cpu", "cuda", "mps" or a torch.device; None takes the best there is.
    dtype: torch.float32, torch.bfloat16 or torch.float16; None takes what the device is fast in.
    small: networks of the checkpoint's own classes with a few random weights: no download, and
        its layout on any machine, to try code on. The storybook is small as it is.
    options: passed on to the family, such as `allow_pickle=True`, or `base=` (another checkpoint in
        the place of the table's: an id, a folder, a safetensors file), `lora=`, `taesd=True`: see
        `pia.from_base`; for further families the fields of their class, such as `fps`.
    Raises ValueError for an unknown name, FileNotFoundError where weights are missing.
    """
    row, folder = TABLE.get(str(name)), None
    if row is None and not Path(name).exists() and str(name).count("/") != 1:
        raise ValueError(f"model {str(name)!r} is not known; {_known()}, or a folder")
    if small and row is None:
        raise ValueError(f"small is for models of the table, not for {str(name)!r}; {_known()}")
    small = small and bool(row.ids)
    device, dtype = pick(device, dtype, small)
    if small:
        from .small import load as load_small

        return load_small(row, device=device, dtype=dtype, **options)
    known = row or next((r for r in TABLE.values() if r.ids.get("base") == str(name)), None)
    if known is not None and known.notice:
        print(f"{known.name}: {known.licence}; {known.notice}")
    if row is not None:
        family = row.family
    else:
        folder, family = _place(str(name))
        if folder.is_file():
            folder, options = None, {"base": folder, **options}
    module = import_module(f".{family}", __package__)
    options = {"device": device, "dtype": dtype, **options}
    if hasattr(module, "FAMILY"):
        from .hub import load_family

        return load_family(module, row, folder, **options)
    return module.load(row, folder, **options)


def _known() -> str:
    return f"known are {', '.join(TABLE)}"


def _place(name: str) -> tuple[Path, str]:
    """The folder of a hub id, a folder or a file, and the family that reads its layout."""
    from .hub import fetch, pipeline_of

    place = Path(name) if Path(name).exists() else fetch(name, ())
    found = None if place.is_file() else pipeline_of(place)
    families = {pipeline: row.family for row in TABLE.values() for pipeline in row.pipelines}
    if found is None:
        return place, "pia"
    if found not in families:
        known = ", ".join(sorted(families))
        raise ValueError(f"{name} holds a {found}; the layouts that are read are {known}")
    family = families[found]
    if not Path(name).exists():
        module = import_module(f".{family}", __package__)
        from .sd import BASE

        place = fetch(name, tuple(getattr(module, "PARTS", BASE)))
    return place, "pia" if found.startswith("StableDiffusion") else family


def pick(device=None, dtype=None, exact: bool = False):
    """The device and dtype to compute with, as torch.device and torch.dtype; checked.

    exact: float32 on a CPU, unless `dtype` says otherwise.
    """
    import torch

    device, dtype = DEVICE("device", device), DTYPE("dtype", dtype)
    if device is None:
        mps = torch.backends.mps.is_available()
        device = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    device = torch.device(device)
    there = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    if not there.get(device.type, lambda: True)():
        raise ValueError(f"device {str(device)!r} is not there on this machine; try device='cpu'")
    if dtype is None:
        if device.type == "cuda":
            dtype = torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float16
        else:
            fast = device.type == "cpu" and not exact and cpu_has_bf16()
            dtype = torch.bfloat16 if fast else torch.float32
    if device.type == "cpu" and dtype == torch.float16:
        raise ValueError("dtype float16 does not run on a CPU; take bfloat16 or float32")
    return device, dtype


def cpu_has_bf16() -> bool:
    """Whether this processor multiplies bfloat16 itself (AVX-512 BF16 or AMX), and may: with
    ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 it does as an older one would."""
    import torch

    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in names)


def storybook_folder() -> Path:
    """Where the embedded model's weights are: IVKIT_STORYBOOK, else inside the package."""
    inside = Path(__file__).parent.parent / "storybook" / "weights"
    return Path(os.environ.get("IVKIT_STORYBOOK") or inside)
