"""Any picture that a person has as an RGB PIL image, and pictures to tensors and back.

Outside, pictures are PIL or uint8 (N, H, W, 3); inside, float (N, 3, H, W) in [-1, 1].
"""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from PIL import Image, ImageOps

from .support.validate import FILE, Clip, Kind, Region, Size, as_array, checked, warn

if TYPE_CHECKING:
    from torch import Tensor

MAX_PIXELS = 64_000_000
TOO_LARGE = f"has more than the accepted {MAX_PIXELS // 10**6} megapixels"
PROGRAMS = ("EPS", "PDF", "WMF")  # not pixels: other programs would run them, such as Ghostscript


@checked
def to_picture(picture: Any, size: Size | None = None) -> Image.Image:
    """Any picture as an RGB PIL image.

    Args:
      picture: a PIL image of any mode, a path, or an array of shape (H, W), (H, W, 3) or
        (H, W, 4), uint8 in [0, 255] or float in [0, 1]. EXIF rotation is applied, alpha is laid
        over white, greyscale becomes RGB.
      size: (W, H) to centre-crop and resize to; a warning says so when that changes the picture.

    Raises:
      ValueError: no pixels, more than 64 megapixels, no colours, an unreadable file.
      TypeError: something that is no picture.
    """
    picture = PICTURE("picture", picture)
    if size is None or picture.size == size:
        return picture
    check_area(*size, "size")
    warn(
        "the picture of {} x {} pixels was cropped about its centre and resized to {} x {}".format(
            *picture.size, *size
        )
    )
    return ImageOps.fit(picture, size, Image.Resampling.LANCZOS)


def _picture(value: Any) -> Image.Image:
    if isinstance(value, (str, os.PathLike)):
        picture = open_file(FILE("path", value))
    elif isinstance(value, Image.Image):
        picture = value
        if picture.format in PROGRAMS:
            raise ValueError(f"a picture of the format {picture.format} is not accepted; use PNG")
    elif isinstance(value, np.ndarray):
        picture = _from_array(as_array(value))
    else:
        raise TypeError(
            f"a picture must be a PIL image, a numpy array or a path, got {type(value).__name__}"
        )
    check_area(*picture.size)
    try:
        return _to_rgb(ImageOps.exif_transpose(picture))
    except (OSError, SyntaxError) as error:  # PIL reads files late: a cut-off one fails only here
        raise ValueError(f"the picture cannot be read to its end ({error})") from None


PICTURE = Kind("a PIL image, an array of pixels or a path", _picture, TypeError, speaks=True)
Picture = Annotated[Image.Image, PICTURE]


def open_file(path: Path) -> Image.Image:
    if not path.is_file():
        raise ValueError(f"there is no picture at {str(path)!r}")
    Image.init()  # else it knows the commonest formats alone
    try:
        return _opened(path, [name for name in Image.ID if name not in PROGRAMS])
    except Image.DecompressionBombError:
        raise ValueError(f"{path.name!r} {TOO_LARGE}") from None
    except (OSError, SyntaxError):
        raise ValueError(f"{path.name!r} is not a picture that PIL can read") from None


def open_png(content: bytes) -> Image.Image:
    """The picture in a PNG file's bytes; ValueError for any other format, and for a damaged one."""
    try:
        picture = _opened(io.BytesIO(content), ("PNG",))
        check_area(*picture.size)
        picture.load()
    except Image.UnidentifiedImageError:
        raise ValueError("this is no PNG") from None
    except Image.DecompressionBombError:
        raise ValueError(TOO_LARGE) from None
    except (OSError, SyntaxError, EOFError, IndexError, struct.error, zlib.error) as error:
        raise ValueError(f"this is no whole PNG ({error})") from None
    return picture


def _opened(file, formats) -> Image.Image:
    with warnings.catch_warnings():  # our own limit is the stricter one
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(file, formats=formats)


def _from_array(array: np.ndarray) -> Image.Image:
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ValueError(
            f"a picture array must have shape (H, W), (H, W, 3) or (H, W, 4), got {array.shape}"
        )
    check_area(array.shape[1], array.shape[0])
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise ValueError("a float picture array must hold finite values in [0, 1]")
        array = np.rint(array * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise ValueError(
            f"a picture array must be uint8 in [0, 255] or float in [0, 1], got {array.dtype}"
        )
    return Image.fromarray(array)


def check_area(width: int, height: int, name: str = "a picture") -> None:
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise ValueError(
            f"{name} must have between 1 pixel and {MAX_PIXELS // 10**6} megapixels, "
            f"got {width} x {height}"
        )


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):  # 16-bit grey: PIL's own conversion would clip it to white
        grey = np.clip(np.asarray(picture).astype(np.int64) // 257, 0, 255)
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        raise ValueError("a picture of float pixels (PIL mode 'F') is not accepted; use 'RGB'")
    if picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return picture.convert("RGB")


def png(picture: Image.Image, **options) -> bytes:
    """A picture as the bytes of a PNG file; options are those of PIL's writer."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", **options)
    return buffer.getvalue()


# ------------------------------------------------------------- between pictures and tensors


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
    import torch

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
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1)


@checked
def psnr(a: Clip, b: Clip, mask: Region | None = None) -> float:
    """Peak signal-to-noise ratio in dB, over all frames; `mask` (H, W) keeps where it is true."""
    error = ((a.astype(np.float32) - b) ** 2).mean(-1)
    if mask is not None:
        error = error[..., mask]
    return float(10 * np.log10(255**2 / max(float(error.mean()), 1e-10)))


def to_pictures(pixels: Tensor) -> list[Image.Image]:
    """float (N, 3, H, W) in [-1, 1] to PIL RGB."""
    return [Image.fromarray(frame) for frame in to_frames(pixels)]
