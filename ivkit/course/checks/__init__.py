"""Checks for the notebooks' exercises: each takes the reader's answer and says what is missing.

A check prints and returns True or False; it never raises, so that a notebook whose exercises are
not done yet still runs from top to bottom. A check of a function compares it with the right one on
random arguments of several shapes, dtypes and seeds, as tensors and as arrays (see `compare`).
"""

from . import blending, live, measuring, models, motion, nothing, pictures, studio

#: every check by its name; `checks.NAME` is the same
CHECKS = {
    name: check
    for part in (pictures, motion, blending, studio, measuring, models, live, nothing)
    for name, check in vars(part).items()
    if hasattr(check, "__wrapped__") and check.__module__.startswith(__name__)
}
for name, check in CHECKS.items():
    check.__name__ = name
globals().update(CHECKS)
