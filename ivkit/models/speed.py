"""What makes a pipeline faster without changing its numbers beyond rounding, behind one switch.

Approximate ways (`reuse`, `cache`) are off unless they are asked for.
"""

from __future__ import annotations

import contextlib
import functools
from statistics import median

import torch
from torch.nn.functional import scaled_dot_product_attention

from .common import Speed
from .motion import Network, Reuse
from .protocol import alone

# Inner blocks, compiled one by one: a whole motion UNet has crashed the compiler.
INNER = (
    "BasicTransformerBlock", "TemporalBasicTransformerBlock", "ResnetBlock2D",
    "SpatioTemporalResBlock", "WanTransformerBlock", "CogVideoXBlock", "LTXVideoTransformerBlock",
)  # fmt: skip


HOW = (None, False, True, "whole", "blocks")
COMPILER = {"triton.coalesce_tiling_analysis": False}  # it asserts at some shapes


@alone
def speed_up(
    model,
    compile: bool | str | None = None,
    reuse: int = 0,
    cache: float = 0.0,
    graphs: bool | None = None,
    *,
    on: bool = True,
) -> list[str]:
    """Switch on what there is for this model and device; returns what was done, a line each.

    Each call first undoes what an earlier one did. Nothing is switched that belongs to the process.

    compile: "whole" puts a UNet through torch.compile in as few parts as can be, "blocks" the inner
        blocks of any network one by one; the first step of each size then takes a minute or two.
        True takes "whole" where there is a UNet of Stable Diffusion, else "blocks" (SVD whole is
        faster still, and takes twice as long to compile). None is True on a CUDA device, else
        False.
    graphs: record a motion UNet's step as CUDA graphs; None does so on a CUDA device where it is
        compiled whole.
    reuse: deep features of a motion UNet across this many steps; approximate, see `models.motion`.
        On the embedded model's ten steps an edited clip comes within 38 dB of the exact one at 2,
        33 dB at 3 and 29 dB at 4, on 25 steps 51, 44 and 40 dB; at SD 1.5's size 3 takes half of
        the exact blend's time. 0 is off.
    cache: of a transformer, diffusers' first-block cache with this threshold; approximate. 0 is
        off.
    on: False leaves the model as it was before the first call.
    Raises ValueError where `reuse`, `cache` or `graphs` is asked of a model that has no such thing;
    then nothing is changed.
    """
    how = _check(model, compile, reuse, cache, graphs)
    model.speed.undo.close()
    model.speed = Speed()
    if not on:
        return []
    try:
        return _switch_on(model, how, reuse, cache, graphs)
    except BaseException:
        model.speed.undo.close()
        model.speed = Speed()
        raise


def _switch_on(model, how: str | None, reuse: int, cache: float, graphs: bool | None) -> list[str]:
    speed, on_gpu, networks = model.speed, model.device.type == "cuda", model.networks
    modules = list({id(m): m for n in networks.values() for m in n.modules()}.values())
    taesd = model.parts.get("taesd")
    done = []
    if how == "whole" or not on_gpu:
        done += _channels_last(speed, [*modules, *(taesd.modules() if taesd is not None else ())])
    if on_gpu:
        done += _attend_frames(model)
    speed.one_shape = how is not None  # one by one, a second edit's branch compiles nothing anew
    if how == "blocks":
        blocks = [m for m in modules if type(m).__name__ in INNER]
        for block in blocks:
            _compile(speed, block)
        done.append(f"{len(blocks)} inner blocks compiled at their first use")
    elif how == "whole":
        done.append(_compile_whole(model))
    if graphs if graphs is not None else on_gpu and how == "whole" and "video_unet" in networks:
        done.append(_record_graphs(model))
    if reuse > 1:
        speed.reuse = Reuse(speed.network or Network.of(networks["video_unet"]), reuse)
        speed.renew.append(speed.reuse.clear)
        done.append(f"approximate: deep features kept over {reuse} steps, for each branch its own")
    if cache:
        from diffusers import FirstBlockCacheConfig

        for network in networks.values():
            speed.undo.callback(network.disable_cache)
            network.enable_cache(FirstBlockCacheConfig(threshold=cache))
            speed.renew.append(network._reset_stateful_cache)
        speed.cached = True
        done.append(f"approximate: first-block cache at {cache:g}, for each branch its own")
    return done


def _check(model, compile, reuse: int, cache: float, graphs) -> str | None:
    """How to compile: "whole", "blocks" or None; ValueError for what this model has not."""
    has_motion = "video_unet" in model.networks
    if compile not in HOW:
        raise ValueError(f"compile must be True, False, 'whole' or 'blocks', got {compile!r}")
    if compile == "whole" and "unet" not in model.networks:
        raise ValueError(f"compile='whole' is for UNets; {model.name} has none")
    if reuse > 1 and not has_motion:
        raise ValueError(f"reuse is for motion UNets, which {model.name} has not; try cache=0.05")
    if graphs and (not has_motion or model.device.type != "cuda"):
        raise ValueError(f"graphs are for motion UNets on a CUDA device; {model.name} is not one")
    if cache and not all(hasattr(n, "enable_cache") for n in model.networks.values()):
        raise ValueError(f"cache is for transformers, which {model.name} has not; try reuse=3")
    if cache < 0 or reuse < 0:
        raise ValueError(f"reuse and cache must not be negative, got {reuse} and {cache}")
    if isinstance(compile, str) or compile is False:
        return compile or None
    wanted = compile or model.device.type == "cuda"
    return ("whole" if "image" in model.capabilities else "blocks") if wanted else None


def _channels_last(speed: Speed, modules) -> list[str]:
    """Faster convolutions; on a GPU only where the norms between them are compiled with them, else
    each norm copies (SVD on an H100: 1.69 of a stock clip's time became 1.87)."""
    convolutions = [m for m in modules if isinstance(m, torch.nn.Conv2d)]
    move = functools.partial(torch.nn.Module.to, memory_format=torch.channels_last)
    back = functools.partial(torch.nn.Module.to, memory_format=torch.contiguous_format)
    for convolution in convolutions:
        move(convolution)
        speed.undo.callback(back, convolution)
    return [f"channels_last in {len(convolutions)} convolutions"] if convolutions else []


# -------------------------------------------------------------------------- compiled, recorded


def _compile(speed: Speed, module: torch.nn.Module) -> None:
    module.compile(dynamic=False, options=COMPILER)
    module._compiled_call_impl = _many_shapes(module._compiled_call_impl)
    speed.undo.callback(setattr, module, "_compiled_call_impl", None)


def _many_shapes(call):
    """A compiled call with room for many shapes: one of one block is one compilation."""

    @functools.wraps(call)
    def roomy(*args, **options):
        limit = max(torch._dynamo.config.recompile_limit, 64)
        with torch._dynamo.config.patch(recompile_limit=limit):
            return call(*args, **options)

    return roomy


def _compile_whole(model) -> str:
    """The motion UNet in its two parts, the picture UNet, and the decoder a frame at a time."""
    speed, networks, taesd = model.speed, model.networks, model.parts.get("taesd")
    halves = [taesd.encoder, taesd.decoder] if taesd is not None else []
    for module in (model.vae.decoder, networks["unet"], *halves):
        _compile(speed, module)
    if "video_unet" in networks:
        speed.network = Network.of(networks["video_unet"], _compiled)
    speed.one_frame = "image" in model.capabilities
    return "the UNets and the decoder compiled whole at their first use, for one branch at a time"


@functools.cache
def _compiled(call):
    return _many_shapes(torch.compile(call, dynamic=False, options=COMPILER))


def _record_graphs(model) -> str:
    network = model.speed.network or Network.of(model.networks["video_unet"])
    parts = [Graphed(network.deep_features), Graphed(network.last_layer)]
    model.speed.network = Network(*parts)
    model.speed.renew += [part.clear for part in parts]
    return "the motion UNet recorded as CUDA graphs at its first use"


class Graphed:
    """A call of tensors, recorded as a CUDA graph once for each set of shapes and then replayed:
    what it takes is the work, not its launching. The call must not look at the tensors' values."""

    def __init__(self, call):
        self.call, self._kept = call, {}

    def clear(self) -> None:
        """Record anew at the next call, as when layers were changed."""
        self._kept.clear()

    @alone
    @torch.no_grad()
    def __call__(self, *tensors: torch.Tensor) -> torch.Tensor:
        if _plain:
            return self.call(*tensors)
        key = tuple((t.shape, t.dtype) for t in tensors)
        if key not in self._kept:
            self._kept[key] = self._record([t.clone() for t in tensors])
        graph, inputs, out = self._kept[key]
        for mine, given in zip(inputs, tensors, strict=True):
            mine.copy_(given)
        graph.replay()
        return out.clone()

    def _record(self, inputs: list[torch.Tensor]):
        graph, out = recorded(functools.partial(self.call, *inputs))
        return graph, inputs, out


def recorded(call, **how) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
    """A call without arguments as a CUDA graph, and the tensor that its replay writes.

    how: options of `torch.cuda.graph`.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # whatever is compiled or tuned at its first use
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, **how):  # which waits for the GPU, and frees what is cached, first
        out = call()
    return graph, out


_plain: list[bool] = []  # one for each open `plain`
_eager = contextlib.ExitStack()  # the compiler's stance for as long as there is one


@contextlib.contextmanager
def plain():
    """Within it nothing compiled or recorded is used, so that hooks on the layers are called.

    By no thread: the compiler has one stance. It is taken back when the last such block ends.
    """
    with alone:
        if not _plain:
            _eager.enter_context(torch.compiler.set_stance("force_eager"))
        _plain.append(True)
    try:
        yield
    finally:
        with alone:
            _plain.pop()
            if not _plain:
                _eager.close()


# ---------------------------------------------------------------------------------- attention


def _attend_frames(model) -> list[str]:
    """A kernel of our own for attention over frames, where it is right and faster."""
    unet, device = model.networks.get("video_unet"), model.device
    named = unet.named_modules() if unet is not None else ()
    layers = [m for name, m in named if "motion_modules" in name and hasattr(m, "set_processor")]
    if not layers:
        return []
    try:
        from .frames import MOST_FRAMES, FramesAttention, attend_frames

        heads, wide = layers[0].heads, layers[0].to_q.out_features
        drawn = torch.Generator(device).manual_seed(0)  # torch's own stays as it is
        kind = {"generator": drawn, "device": device, "dtype": unet.dtype}
        qkv = torch.randn(3, 4096, model.num_frames, wide, **kind).unbind()

        def theirs():
            split = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in qkv)
            return scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)

        off = float((attend_frames(*qkv, heads) - theirs()).abs().max())
        mine, stock = milliseconds(lambda: attend_frames(*qkv, heads)), milliseconds(theirs)
    except Exception as error:  # no Triton, or one that does not know this device: not needed
        return [f"attention over frames by torch: {type(error).__name__} in the kernel for it"]
    said = f"{mine:.2f} ms against torch's {stock:.2f} ms, {off:.1g} apart"
    longest = unet.config.motion_max_seq_length
    if mine >= stock or off > 0.02 or longest > MOST_FRAMES:
        return [f"attention over frames by torch: the kernel for it takes {said}"]
    for layer in layers:
        model.speed.undo.callback(layer.set_processor, layer.processor)
        layer.set_processor(FramesAttention())
    return [f"attention over frames by a kernel of its own: {said}"]


def milliseconds(call, times: int = 10) -> float:
    """Of a call on a CUDA device, the median after two that are not counted."""
    found = []
    for _ in range(times + 2):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        found.append(begin.elapsed_time(end))
    return median(found[2:])
