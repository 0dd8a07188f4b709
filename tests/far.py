"""A device that is not there, for tests on a CPU: its tensors and the CPU's do not mix.

    with far.Device():
        model = ...build(device=far.DEVICE)
        model.decode(torch.zeros(...))     # raises where a CPU's tensor meets a weight

It computes on the CPU, and refuses what a GPU refuses: an operation on tensors of two devices
(apart from single numbers of the CPU's, and copies), and `numpy()` of what lies on it.
"""

import functools
import types

import torch
from torch.utils import backend_registration as registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("privateuseone", 0)
ACROSS = ("_to_copy", "copy_", "_copy_from", "set_")
INDEXING = ("index", "index_put_", "index_put", "_index_put_impl_")


def possible() -> bool:
    return hasattr(registration, "_DummyDeviceGuard")


@functools.cache
def guard() -> None:
    """Once in a process: torch asks for one wherever tensors of a device are made."""
    torch._C._acc.register_python_privateuseone_device_guard(registration._DummyDeviceGuard())
    module = types.SimpleNamespace(
        get_amp_supported_dtype=lambda: [torch.bfloat16],
        manual_seed_all=lambda seed: None,
        _is_in_bad_fork=lambda: False,
    )
    torch._register_device_module(DEVICE.type, module)


class Far(torch.Tensor):
    """A tensor that says it is on DEVICE; `raw` is where it really is."""

    @staticmethod
    def __new__(cls, raw):
        facts = {"strides": raw.stride(), "storage_offset": raw.storage_offset()}
        facts |= {"dtype": raw.dtype, "device": DEVICE}
        return torch.Tensor._make_wrapper_subclass(cls, raw.size(), **facts)

    def __init__(self, raw):
        self.raw = raw

    def tolist(self):
        return self.raw.tolist()

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, operation, kinds, args=(), options=None):
        return compute(operation, args, options or {})


class Device(TorchDispatchMode):
    """Within it DEVICE can be computed on."""

    def __enter__(self):
        guard()
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=) comes through here
        return super().__enter__()

    def __exit__(self, *error):
        torch._C._set_only_lift_cpu_tensors(False)
        torch.__future__.set_overwrite_module_params_on_conversion(False)
        return super().__exit__(*error)

    def __torch_dispatch__(self, operation, kinds, args=(), options=None):
        return compute(operation, args, options or {})


def compute(operation, args, options):
    tensors = [x for x in tree_flatten((args, options))[0] if isinstance(x, torch.Tensor)]
    name = operation.overloadpacket.__name__
    wanted = options.get("device")
    there = any(isinstance(x, Far) for x in tensors)
    if there and name not in ACROSS:
        own = tensors[:1] if name in INDEXING else tensors  # a CPU's indices are taken
        if any(not isinstance(x, Far) and x.ndim for x in own):
            raise RuntimeError(f"expected one device for all tensors of {name}")
    if wanted is not None:
        there = torch.device(wanted).type == DEVICE.type
        options = options | {"device": "cpu"}
    elif name in ACROSS and name != "_to_copy":
        there = isinstance(args[0], Far)
    known = {id(x.raw): x for x in tensors if isinstance(x, Far)}
    args, options = tree_map(lambda x: x.raw if isinstance(x, Far) else x, (args, options))
    found = operation(*args, **options)
    if not there:
        return found

    def wrapped(x):
        if not isinstance(x, torch.Tensor):
            return x
        return known.get(id(x)) if id(x) in known else Far(x)

    return tree_map(wrapped, found)
