"""What makes a pipeline faster without changing its numbers beyond rounding, behind one switch.

Approximate ways (`reuse`, `cache`) are off unless they are asked for.
"""

from __future__ import annotations

import torch

# Inner blocks, compiled one by one: a whole motion UNet has crashed the compiler.
INNER = (
    "BasicTransformerBlock", "TemporalBasicTransformerBlock", "ResnetBlock2D",
    "SpatioTemporalResBlock", "WanTransformerBlock", "CogVideoXBlock", "LTXVideoTransformerBlock",
)  # fmt: skip


def speed_up(model, compile: bool | None = None, reuse: int = 0, cache: float = 0.0) -> list[str]:
    """Switch on what there is for this model and device; returns what was done, a line each.

    compile: inner blocks through torch.compile; the first step of each size then takes a minute.
        None does so on a CUDA device.
    reuse: deep features of a motion UNet across this many steps; approximate, see `models.reuse`.
        On the embedded model a clip with a drag comes within 44 dB of the exact one at 3, 37 dB at
        4 and 30 dB at 5; at SD 1.5's size 3 takes 38 % of the operations and 4 takes 31 %.
    cache: of a transformer, diffusers' first-block cache with this threshold; approximate.
    Raises ValueError where `reuse` or `cache` is asked of a model that has no such thing.
    """
    done = []
    networks = networks_of(model)
    _check(model, networks, reuse, cache)
    modules = list({id(m): m for n in networks for m in n.modules()}.values())
    convolutions = [m for m in modules if isinstance(m, torch.nn.Conv2d)]
    for convolution in convolutions:
        torch.nn.Module.to(convolution, memory_format=torch.channels_last)
    if convolutions:
        done.append(f"channels_last in {len(convolutions)} convolutions")
    fused = [n for n in networks if _fuse(n)]
    if fused:
        done.append(f"query, key and value in one product in {len(fused)} networks")
    if compile or (compile is None and model.device.type == "cuda"):
        torch._dynamo.config.cache_size_limit = max(torch._dynamo.config.cache_size_limit, 64)
        blocks = [m for m in modules if type(m).__name__ in INNER]
        for block in blocks:
            block.compile(dynamic=False)
        done.append(f"{len(blocks)} inner blocks compiled at their first use")
    if model.device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        done.append("convolutions tuned for each size")
    if hasattr(model, "reuse"):
        model.reuse = None
    if reuse > 1:
        from .models.reuse import Reuse

        model.reuse = Reuse(reuse)
        done.append(f"approximate: deep features kept over {reuse} steps, for each branch its own")
    if cache:
        from diffusers import FirstBlockCacheConfig

        for network in networks:
            network.enable_cache(FirstBlockCacheConfig(threshold=cache))
        model.cached = True
        done.append(f"approximate: first-block cache at {cache:g}, for each branch its own")
    return done


def networks_of(model) -> list[torch.nn.Module]:
    """The networks that are evaluated at each step."""
    if hasattr(model, "parts"):
        names = ("unet", "transformer", "transformer_2")
        return [model.parts[n] for n in names if model.parts.get(n) is not None]
    return [n for n in (model.unet, model.video_unet) if n is not None]


def _check(model, networks, reuse: int, cache: float) -> None:
    if reuse > 1 and getattr(model, "video_unet", None) is None:
        raise ValueError(f"reuse is for motion UNets, which {model.name} has not; try cache=0.05")
    if cache and not all(hasattr(n, "enable_cache") for n in networks):
        raise ValueError(f"cache is for transformers, which {model.name} has not; try reuse=3")
    if cache < 0 or reuse < 0:
        raise ValueError(f"reuse and cache must not be negative, got {reuse} and {cache}")


def _fuse(network) -> bool:
    if not hasattr(network, "fuse_qkv_projections"):
        return False
    try:
        network.fuse_qkv_projections()
    except (ValueError, AttributeError, NotImplementedError):  # such as with added projections
        return False
    return True
