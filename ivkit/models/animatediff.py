"""AnimateDiff: PIA's layout without a condition picture, the baseline of the paper's Table 1.

Text alone says what is seen. An edited picture cannot reach it; a drag can, by dual-clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .common import Branch
from .pia import PIAModel, from_base


@dataclass(repr=False)
class AnimateDiffModel(PIAModel):
    per_frame = False
    motion_scales = None

    def rows(self, branch: Branch) -> dict[str, Tensor]:
        """The text alone: `branch.pixels` are not looked at."""
        return {"text": self.text_rows(branch)}


def load(row, folder=None, *, device, dtype, **options) -> AnimateDiffModel:
    """As `pia.from_base`."""
    options = {"base": folder, **options} if folder else options
    return from_base(row, device=device, dtype=dtype, cls=AnimateDiffModel, **options)
