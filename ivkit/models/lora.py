"""LoRA files: found, read, checked against a network, merged into its weights or laid beside them.

A LoRA (Hu et al., 2021) holds two thin matrices A and B for each layer that it changes, whose
weight becomes W + s B A. Merging needs no PEFT. Layers that are to be trained are PEFT's own, which
`beside` asks for by name: PEFT's search for the layer that fits ends in an ImportError where a
torchao is installed that is older than PEFT takes, as it is on Colab.
"""

from __future__ import annotations

import json
import math
import re
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..support.validate import FILE
from .hub import PICKLES, check_file, fetch

MEND = "fetch that file anew from where it came"
#: a LoRA for one network: by the layer's name its A (r, in, ...) and its B (out, r, ...)
Pairs = dict[str, tuple[Tensor, Tensor]]
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
FILES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")  # diffusers', PEFT's
#: what diffusers of 2023 and kohya call the same matrices
RENAMED = {
    r"^base_model\.model\.": "",
    r"^lora_unet_": "unet.",
    r"^lora_te1?_": "text_encoder.",
    r"\.processor\.": ".",
    r"self_attn\.to_(q|k|v)_lora\.": r"self_attn.\1_proj.lora.",
    r"self_attn\.to_out_lora\.": "self_attn.out_proj.lora.",
    r"\.to_out_lora\.": ".to_out.0.lora.",
    r"_lora\.(?=down|up)": ".lora.",
    r"\.lora(\.|_|_linear_layer\.)down\.weight$": ".lora_A.weight",
    r"\.lora(\.|_|_linear_layer\.)up\.weight$": ".lora_B.weight",
}
NAME = re.compile(r"(?:(unet|text_encoder)\.)?(.+)\.(lora_A|lora_B|alpha)(?:\.weight)?")


def find(lora, name: str = "lora") -> Path:
    """The file of a LoRA: a safetensors file, a folder with one in it, or an id of the hub.

    Only a text of the form "owner/name" that ends in no suffix of a file, and whose owner is no
    folder here, is looked for on the hub. Raises TypeError, ValueError or FileNotFoundError.
    """
    if not isinstance(lora, (str, Path)):
        raise TypeError(f"{name} must be a path or an id, got {type(lora).__name__}")
    if not str(lora).strip():
        raise ValueError(f"{name} must be a path or an id, got {lora!r}")
    place = FILE(name, lora)
    if place.suffix in PICKLES:
        raise ValueError(
            f"{place} is a pickle, which can run any code when it is read; LoRAs are read from "
            "safetensors alone"
        )
    asked = isinstance(lora, str) and HUB_ID.fullmatch(lora) and not place.parent.is_dir()
    if asked and place.suffix != ".safetensors" and not place.exists():
        place = fetch(lora, ("",))
    if place.is_dir():
        inside = sorted(place.glob("*.safetensors"))
        named = [file for file in inside if file.name in FILES] or inside
        if len(named) != 1:
            held = ", ".join(file.name for file in inside) or "no safetensors file"
            raise ValueError(f"{place} must hold one LoRA, and holds {held}: name the file")
        place = named[0]
    check_file(place, MEND)
    return place


def read(file: Path, networks: dict[str, nn.Module], into: str) -> dict[str, Pairs]:
    """A LoRA's matrices in float32 by network, alpha / r already in B.

    Args:
        file: safetensors, by diffusers', PEFT's or kohya's names.
        networks: "unet" and, where there is one, "text_encoder"; the first is meant where a name
            says neither.
        into: what an error calls them.

    Raises ValueError, in one sentence, where a name, a shape or a value does not fit.
    """
    from safetensors import safe_open

    pairs: dict[str, Pairs] = {name: {} for name in networks}
    try:
        with safe_open(file, "pt") as data:
            settings = _settings(file, data.metadata() or {})
            held = _by_layer(data, networks)
        for (network, layer), matrices in held.items():
            weight = networks[network].get_submodule(layer).weight
            alpha = partial(_alpha, settings, network, layer)
            pairs[network][layer] = _pair(layer, matrices, weight.shape, alpha)
    except ValueError as why:
        raise ValueError(f"the LoRA {file} does not fit {into}: {why}") from None
    return pairs


def _by_layer(data, networks: dict[str, nn.Module]) -> dict[tuple[str, str], dict[str, Tensor]]:
    """What a file holds, by network and layer: "lora_A", "lora_B" and perhaps "alpha"."""
    kinds, held = (nn.Linear, nn.Conv2d), {}
    known = {  # kohya puts _ in place of dots
        name: {n.replace(".", "_"): n for n, m in net.named_modules() if isinstance(m, kinds)}
        for name, net in networks.items()
    }
    for key in data.keys():  # noqa: SIM118 (a safetensors file is no dict)
        name = key
        for theirs, ours in RENAMED.items():
            name = re.sub(theirs, ours, name)
        parts = NAME.fullmatch(name)
        if parts is None:
            raise ValueError(f"{key!r} is no A, no B and no alpha of a layer")
        network, layer = parts[1] or next(iter(networks)), parts[2].replace(".", "_")
        layers = known.get(network, {})
        layer = layers.get(layer) or layers.get(layer.removeprefix("text_model_"))
        if layer is None:
            raise ValueError(f"its {network} has no layer for {key!r}")
        held.setdefault((network, layer), {})[parts[3]] = data.get_tensor(key).float()
    return held


def _pair(layer: str, matrices: dict[str, Tensor], shape, alpha_of) -> tuple[Tensor, Tensor]:
    """A and B alpha / r of one layer, where they make a weight of this shape."""
    a, b = matrices.get("lora_A"), matrices.get("lora_B")
    if a is None or b is None:
        raise ValueError(f"the layer {layer!r} has {'no A' if a is None else 'no B'}")
    fits = a.ndim == b.ndim == len(shape) and b.shape[:1] + a.shape[1:] == shape
    if not fits or not len(a) or b.shape[1:] != (len(a), *[1] * (b.ndim - 2)):
        raise ValueError(
            f"A {tuple(a.shape)} and B {tuple(b.shape)} make no weight {tuple(shape)} of {layer!r}"
        )
    alpha = matrices["alpha"] if "alpha" in matrices else torch.tensor(alpha_of(len(a)))
    if alpha.numel() != 1 or not all(value.isfinite().all() for value in (a, b, alpha)):
        raise ValueError(f"the layer {layer!r} holds NaN, infinity or more than one alpha")
    return a, b * (alpha.item() / len(a))


def _settings(file: Path, metadata: dict[str, str]) -> Any:
    """PEFT's settings, from the file's header (diffusers) or from the file beside it (PEFT)."""
    config = file.with_name("adapter_config.json")
    if file.name != "adapter_model.safetensors":
        text = metadata.get("lora_adapter_metadata", "{}")
    elif config.is_file():
        text = config.read_text(encoding="utf-8")
    else:
        raise FileNotFoundError(f"{config} is missing; {MEND}")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("its settings are damaged") from None


def _alpha(settings: Any, network: str, layer: str, rank: int) -> float:
    """B A is multiplied by alpha / rank; alpha is the rank where nothing says so."""
    try:
        own = {key.removeprefix(f"{network}."): value for key, value in settings.items()}
        alpha = own.get("lora_alpha", rank)
        for pattern, value in (own.get("alpha_pattern") or {}).items():
            if re.fullmatch(rf"(.*\.)?({pattern})", layer):
                alpha = value
        return float(alpha) * (math.sqrt(rank) if own.get("use_rslora") else 1)
    except (AttributeError, TypeError, ValueError, OverflowError, re.error):
        raise ValueError("its settings are damaged") from None


@torch.no_grad()
def merge(network: nn.Module, pairs: Pairs, scale: float = 1.0) -> None:
    """W + scale B A in each layer that `pairs` names, in place."""
    for layer, (a, b) in pairs.items():
        weight = network.get_submodule(layer).weight
        product = b.to(weight.device).flatten(1) @ a.to(weight.device).flatten(1)
        weight += (scale * product).view_as(weight)


def merge_folder(network: nn.Module, folder: Path) -> None:
    """Merge the LoRA that lies in a folder into one network."""
    merge(network, read(find(folder), {"unet": network}, "its network")["unet"])


def beside(network, name: str, **settings) -> None:
    """Lay A and B, to be trained, beside layers of one of diffusers' networks.

    name: of PEFT's adapter. settings: of PEFT's LoraConfig.
    """
    from peft import LoraConfig
    from peft.tuners import lora

    config = LoraConfig(**settings)
    config._register_custom_module({nn.Linear: lora.Linear, nn.Conv2d: lora.Conv2d})
    network.add_adapter(config, name)


def add_lora(parts: dict[str, Any], lora, scale: float = 1.0) -> None:
    """Merge a LoRA into unet and text_encoder, in place; both networks of a model then have it.

    lora: a safetensors file (diffusers', PEFT's or kohya's names), a folder or a hub id.
    scale: a finite number; 0 is the checkpoint as it was.
    Raises TypeError for what is neither a path nor an id or no number, FileNotFoundError where the
    file is missing, ValueError where it is damaged or made for another network.
    """
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not math.isfinite(scale):
        raise TypeError(f"lora_scale must be a finite number, got {scale!r}")
    networks = {name: parts[name] for name in ("unet", "text_encoder")}
    found = read(find(lora), networks, "this checkpoint")
    if not any(a.any() and b.any() for a, b in found["unet"].values()):
        raise ValueError(f"the LoRA {lora} changes nothing in this checkpoint's UNet")
    for name, network in networks.items():
        merge(network, found[name], scale)
