"""AnimateDiff: PIA's layout without a condition picture, the baseline of the paper's Table 1.

Text alone says what is seen. An edited picture cannot reach it; a drag can, by dual-clock.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .pia import Condition, PIAModel, from_base


@dataclass(repr=False)
class AnimateDiffModel(PIAModel):
    per_frame = False

    def condition(
        self,
        pixels: Tensor,
        text: str,
        *,
        num_frames: int,
        negative: str = "",
        guidance_scale: float | Tensor = 1.0,
        motion_scale: None = None,
        posterior: str = "mode",
        generator: torch.Generator | None = None,
    ) -> Condition:
        """The text; `pixels` are not looked at."""
        self.check_frames(num_frames)
        return Condition(
            self._text_rows(text, negative, guidance_scale), None, None, guidance_scale
        )


def load(row, folder=None, *, device, dtype, **options) -> AnimateDiffModel:
    """As `pia.from_base`."""
    options = {"base": folder, **options} if folder else options
    return from_base(row, device=device, dtype=dtype, cls=AnimateDiffModel, **options)
