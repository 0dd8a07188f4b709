"""ivkit: interactive video diffusion, step by step.

    import ivkit as iv
    pipe = iv.load("storybook")
    picture = pipe.image("a boat on the blue sea at day", seed=5)

Every public name is imported when it is first used, so that `import ivkit` itself loads neither
torch nor diffusers nor OpenCV. It changes one thing of the process: OMP_WAIT_POLICY is set to
PASSIVE, where it is not set, so that idle threads of torch sleep.
"""

import os
import sys
import warnings
from importlib import import_module
from importlib.util import spec_from_loader

__version__ = "0.1.0"

# Before torch loads OpenMP: threads that wait shall sleep, not spin. Where another program wants
# the same cores, spinning made a picture take 57 s that takes 0.8 s so (2 cores, both busy).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_WHERE = {
    "bench.ablate": ("ablate",),
    "instructions": (
        "Camera",
        "ContentInstruction",
        "Drag",
        "ImageInstruction",
        "Instructions",
        "MotionInstruction",
        "Stroke",
        "TrajectoryInstruction",
    ),
    "pictures": ("to_picture",),
    "live": ("Act", "Live", "LiveInstructions"),
    "paint": ("composite", "edit_mask", "latent_mask", "painted_region", "rasterise"),
    "pipeline": ("Pipeline", "load"),
    "trace": ("Trace", "TraceOptions"),
    "trajectory": ("displacement", "drag_still", "grow_mask", "moving_region", "warp"),
    "view": (
        "cmp",
        "contact_sheet",
        "field_arrows",
        "heat",
        "save_video",
        "show",
        "show_pictures",
        "trace_grid",
    ),
    "support.machine": ("setup", "versions"),
    "widgets.canvas": ("PaintCanvas",),
    "widgets.drag": ("DragCanvas",),
    "widgets.explorer": ("TraceExplorer",),
    "widgets.live": ("LiveCanvas",),
    "widgets.studio": ("Studio",),
}
_HOME = {name: module for module, names in _WHERE.items() for name in names}

# Modules that a notebook imports by a short name: `from ivkit import checks`.
_MODULES = {
    "attention": "models.attention",
    "checks": "course.checks",
    "memory": "models.memory",
    "metrics": "bench.metrics",
    "personal": "models.personal",
}

# Where the modules of an earlier version went; their old names work for one release.
_MOVED = {
    "brush": "image",
    "demo": "course.demo",
    "follow": "regions",
    "picture": "image",
    "pixels": "pictures",
    "run": "video",
    "sampling": "models.sampling",
    "saved": "support.saved",
    "settings": "instructions",
    "speed": "models.speed",
    "validate": "support.validate",
}


class _Moved:
    """Imports a module by its old name, with a warning that says the new one."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        package, _, old = name.partition(".")
        if package == "ivkit" and old in _MOVED | _MODULES:
            return spec_from_loader(name, _Moved)

    @staticmethod
    def create_module(spec):
        return None

    @staticmethod
    def exec_module(module):
        old = module.__name__.partition(".")[2]
        new = f"ivkit.{(_MOVED | _MODULES)[old]}"
        message = f"ivkit.{old} is {new} now; the old name goes with the next release"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        sys.modules[module.__name__] = import_module(new)


sys.meta_path.append(_Moved)  # after all others: it is asked where there is no such module

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name):
    if name in _MODULES:
        return import_module(f"ivkit.{_MODULES[name]}")
    if name in _MOVED:
        return import_module(f"ivkit.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'ivkit' has no attribute {name!r}")
    value = getattr(import_module(f"ivkit.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return __all__
