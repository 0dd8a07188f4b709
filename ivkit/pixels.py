"""Between pictures and tensors: PIL or uint8 (N, H, W, 3) outside, float (N, 3, H, W) inside."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .pictures import to_picture
from .support.validate import as_array


def fit(picture, size: tuple[int, int], marked: bool, name: str = "picture") -> Image.Image:
    """A picture of `size`, cropped and resized; ValueError where it must not be, since it is
    `marked`: strokes, masks or drags in its pixels would fit no more."""
    picture = to_picture(picture)
    if marked and picture.size != tuple(size):
        raise ValueError(
            f"{name} is {picture.width} x {picture.height} pixels where {size[0]} x {size[1]} are "
            f"needed for edits to fit it: use ivkit.to_picture({name}, size={tuple(size)}) first"
        )
    return to_picture(picture, size)


def to_pixels(frames: np.ndarray | Image.Image) -> Tensor:
    """uint8 (N, H, W, 3), or one picture, to float32 (N, 3, H, W) in [-1, 1]."""
    found = np.array(as_array(frames))
    found = found[None] if found.ndim == 3 else found
    return as_floats(torch.from_numpy(found))


def to_frames(pixels: Tensor) -> np.ndarray:
    """float (N, 3, H, W) in [-1, 1] to uint8 (N, H, W, 3)."""
    return as_bytes(pixels).cpu().numpy()


def as_floats(frames: Tensor) -> Tensor:
    """uint8 (N, H, W, 3) to float32 (N, 3, H, W) in [-1, 1], on the same device."""
    return frames.permute(0, 3, 1, 2).float() / 127.5 - 1


def as_bytes(pixels: Tensor) -> Tensor:
    """float (N, 3, H, W) in [-1, 1] to uint8 (N, H, W, 3), on the same device."""
    values = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return values.permute(0, 2, 3, 1)


def to_pictures(pixels: Tensor) -> list[Image.Image]:
    """float (N, 3, H, W) in [-1, 1] to PIL RGB."""
    return [Image.fromarray(frame) for frame in to_frames(pixels)]
