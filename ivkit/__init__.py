"""ivkit: interactive video diffusion, step by step.

    import ivkit as iv
    pipe = iv.load("storybook")
    picture = pipe.image("a boat on the blue sea at day", seed=5)

Every public name is imported when it is first used, so that `import ivkit` itself loads neither
torch nor diffusers nor OpenCV.
"""

import os
from importlib import import_module

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
    "paint": ("composite", "edit_mask", "latent_mask", "rasterise"),
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

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name):
    if name in _MODULES:
        return import_module(f"ivkit.{_MODULES[name]}")
    if name not in _HOME:
        raise AttributeError(f"module 'ivkit' has no attribute {name!r}")
    value = getattr(import_module(f"ivkit.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return __all__
