"""Painting: strokes become a picture and a mask of what an edit may change; then the composite.

This is the paper's regional edit (section 4.2). Pixels outside the edit mask do not change at all.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import cv2
import numpy as np
from PIL import Image, ImageColor, ImageDraw

from .instructions import Cells, Rim, Stroke, Strokes
from .pictures import Picture
from .support.validate import Map, Pixels, Side, Size, SoftMask, checked

MARKING = ("mask", "lasso")  # tools that mark a region and leave no paint
_SUPERSAMPLE = 4


@checked
def rasterise(picture: Picture, strokes: Strokes) -> tuple[Image.Image, np.ndarray]:
    """Draw strokes on a picture, antialiased and at the picture's own resolution.

    Later strokes lie over earlier ones. An eraser removes paint that was drawn before it, but never
    the picture. Strokes of "mask" and "lasso" leave no paint (see `region_mask`).

    Args:
      picture: anything `to_picture` takes, H x W pixels.
      strokes: `Stroke`s in the picture's pixels.

    Returns:
      The painted RGB picture, and how much paint lies on each pixel: float32 (H, W) in [0, 1].
      Where it is 0, the picture is unchanged.

    Raises:
      ValueError: a stroke that does not touch the picture.
    """
    painted, alpha = paint_over(np.asarray(picture), strokes)
    return Image.fromarray(painted), alpha


@checked
def paint_over(picture: Pixels, strokes: Strokes) -> tuple[np.ndarray, np.ndarray]:
    """`rasterise` of RGB pixels, uint8 (H, W, 3), to a copy of them."""
    painted, size = picture.copy(), picture.shape[1::-1]
    on_picture(strokes, size)
    alpha = np.zeros(painted.shape[:2], np.float32)
    covers = [(s, *_cover(s, size)) for s in strokes if s.tool not in MARKING]
    if not covers:
        return painted, alpha
    rows, columns = zip(*(box for _, box, _ in covers), strict=True)  # what strokes touch
    top, left = min(r.start for r in rows), min(c.start for c in columns)
    part = slice(top, max(r.stop for r in rows)), slice(left, max(c.stop for c in columns))
    paint = np.zeros((*alpha[part].shape, 4), np.float32)  # colour x alpha, then alpha
    for stroke, (r, c), cover in covers:
        here = paint[r.start - top : r.stop - top, c.start - left : c.stop - left]
        rgb = ImageColor.getrgb(stroke.colour)
        colour = (0, 0, 0, 0) if stroke.tool == "eraser" else (*rgb, 1)
        here += cover[..., None] * (np.array(colour, np.float32) - here)
    alpha[part] = np.clip(paint[..., 3], 0, 1)
    there = alpha[part] > 0
    mixed = painted[part][there] * (1 - alpha[part][there][:, None]) + paint[there][:, :3]
    painted[part][there] = np.clip(np.rint(mixed), 0, 255)
    return painted, alpha


@checked
def region_mask(strokes: Strokes, size: Size, before: SoftMask | None = None) -> np.ndarray:
    """The region that strokes of "mask" and "lasso" mark, less what erasers between them remove.

    Args:
      strokes: `Stroke`s; those of the brush are ignored.
      size: (W, H) of the picture.
      before: (H, W), the region marked before the first stroke; None if there is none.

    Returns:
      bool (H, W); all False when no stroke marks anything.
    """
    region = np.zeros(size[::-1], bool) if before is None else before.astype(bool)
    if region.shape != size[::-1]:
        raise ValueError(f"before must have shape {size[::-1]}, as size says, got {region.shape}")
    on_picture(strokes, size)
    for stroke in strokes:
        if stroke.tool != "brush":
            box, cover = _cover(stroke, size, opacity=1)
            region[box] = np.where(cover >= 0.5, stroke.tool in MARKING, region[box])
    return region


@checked
def edit_mask(
    alpha: Map, grow: Cells = 1.5, cell: Side = 16, feather: Rim | None = None
) -> np.ndarray:
    """Where a painted edit may change the picture: the region of the paint, grown, with a soft rim.

    The paint is grown because a mask as tight as a painted disc yields a sun without rays. The
    feather runs inwards from the rim, so outside the grown region the mask is exactly 0.

    Args:
      alpha: float (H, W) in [0, 1], as from `rasterise`; whatever is above 0 counts as paint.
      grow: by how many latent cells the paint is grown, 0 or more.
      cell: pixels of one latent cell (the autoencoder's factor).
      feather: pixels over which the mask falls from 1 to 0; half a cell when None.

    Returns:
      float32 (H, W) in [0, 1].

    Raises:
      ValueError: `alpha` is not (H, W) or holds no paint; a negative `grow` or `feather`.
    """
    import cv2

    feather = cell / 2 if feather is None else feather
    paint = (alpha > 0).astype(np.uint8)
    if not paint.any():
        raise ValueError("alpha is empty: no stroke leaves paint on the picture")
    if paint.all():
        return np.ones(alpha.shape, np.float32)
    outside = cv2.distanceTransform(1 - paint, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    inside = cv2.distanceTransform(paint, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # Distance to the grown rim, positive within; pixel centres lie half a pixel off the edge.
    depth = grow * cell - outside + inside - 0.5 * np.sign(inside - outside)
    ramp = np.clip(depth / max(feather, 1e-6), 0, 1)
    return (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)


@checked
def edit_region(
    strokes: Strokes, alpha: Map, grow: Cells = 1.5, cell: Side = 16, feather: Rim | None = None
) -> np.ndarray:
    """Where strokes let P_img change a picture: their paint, grown, and the regions that they mark.

    Args:
      strokes: `Stroke`s. alpha: their paint, as from `rasterise`.
      grow, cell, feather: see `edit_mask`; a marked region is not grown.

    Returns:
      float32 (H, W) in [0, 1].

    Raises:
      ValueError: the strokes leave no paint and mark no region.
    """
    marked = region_mask(strokes, alpha.shape[::-1])
    parts = [edit_mask(alpha, grow, cell, feather)] if alpha.any() else []
    parts += [edit_mask(marked, 0, cell, feather)] if marked.any() else []
    if not parts:
        raise ValueError("the strokes leave no paint in alpha and mark no region")
    return np.maximum.reduce(parts)


@checked
def latent_mask(mask: Map, cell: Side = 16, how: Literal["max", "mean"] = "max") -> np.ndarray:
    """Shrink a pixel mask (H, W) to latent cells, float32 (1, 1, H / cell, W / cell).

    Args:
      mask: bool or number (H, W); both sides are multiples of `cell`.
      cell: pixels of one latent cell.
      how: "max" selects every cell that the mask touches; "mean" takes the share it covers.

    Raises:
      ValueError: sides that are not multiples of `cell`, or an unknown `how`.
    """
    mask = mask.astype(np.float32)
    if mask.shape[0] % cell or mask.shape[1] % cell:
        raise ValueError(
            f"mask must have shape (H, W) with sides that are multiples of {cell}, got {mask.shape}"
        )
    h, w = mask.shape[0] // cell, mask.shape[1] // cell
    return getattr(mask.reshape(h, cell, w, cell), how)(axis=(1, 3))[None, None]


@checked
def composite(original: Picture, edited: Picture, mask: SoftMask) -> Image.Image:
    """`edited` where the mask is 1, exactly `original` where it is 0, and a mixture in between.

    Args:
      original, edited: pictures of one size, H x W.
      mask: float (H, W) in [0, 1].

    Raises:
      ValueError: sizes that differ, mask values outside [0, 1].
    """
    mask = mask.astype(np.float32)
    if original.size != edited.size or mask.shape != original.size[::-1]:
        raise ValueError(
            "original, edited and mask must have one size, got {} x {}, {} x {} and a mask of "
            "shape {}".format(*original.size, *edited.size, mask.shape)
        )
    a, b = (np.asarray(p, np.float32) for p in (original, edited))
    mixed = a + mask[..., None] * (b - a)
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


@checked
def painted_region(original: Picture, edited: Picture) -> np.ndarray:
    """Where something was painted, bool (H, W), without the faint rim of P_img's own work.

    original, edited: pictures of one size; ValueError where they are not.
    """
    if original.size != edited.size:
        raise ValueError(f"edited must be of original's size {original.size}, got {edited.size}")
    apart = np.abs(np.asarray(edited, np.int16) - np.asarray(original)).max(-1) > 24
    return cv2.morphologyEx(apart.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3))) > 0


def on_picture(strokes: Strokes, size: Size) -> None:
    for i, stroke in enumerate(strokes):
        if _bounds(stroke, size) is None:
            raise ValueError(
                f"strokes[{i}] lies outside the picture, whose size is {size[0]} x {size[1]}: "
                f"it begins at {stroke.points[0]}"
            )


def _bounds(stroke: Stroke, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom of the pixels a stroke may touch, or None."""
    points, reach = np.array(stroke.points), stroke.width / 2 + 1
    left, top = np.clip(np.floor(points.min(0) - reach), 0, size).astype(int)
    right, bottom = np.clip(np.ceil(points.max(0) + reach) + 1, 0, size).astype(int)
    return (left, top, right, bottom) if left < right and top < bottom else None


def _cover(
    stroke: Stroke, size: tuple[int, int], opacity: float | None = None
) -> tuple[tuple[slice, slice], np.ndarray]:
    """The part of the picture that a stroke may touch, and the share of each pixel it covers."""
    left, top, right, bottom = _bounds(stroke, size)
    width, height = right - left, bottom - top
    if stroke.tool == "lasso":
        area = Image.new("L", (width, height))
        corners = [(round(x) - left, round(y) - top) for x, y in stroke.points]
        ImageDraw.Draw(area).polygon([*corners, corners[0]], fill=1)
        return (slice(top, bottom), slice(left, right)), np.asarray(area, np.float32)
    n = _SUPERSAMPLE if width * height < 4_000_000 else 1
    # Round caps and joints: a disc at each point, thick lines between them. Pixel centres are
    # whole numbers, so the pixel's corner lies half a pixel up and left.
    points = [((x - left + 0.5) * n, (y - top + 0.5) * n) for x, y in stroke.points]
    r = stroke.width * n / 2
    canvas = Image.new("L", (width * n, height * n))
    draw = ImageDraw.Draw(canvas)
    for (x0, y0), (x1, y1) in pairwise(points):
        length = np.hypot(x1 - x0, y1 - y0)
        if length:
            a, b = (y1 - y0) / length * r, (x0 - x1) / length * r  # half the width, sideways
            corners = (x0 + a, y0 + b), (x1 + a, y1 + b), (x1 - a, y1 - b), (x0 - a, y0 - b)
            draw.polygon([(x - 0.5, y - 0.5) for x, y in corners], fill=255)
    for x, y in points:
        draw.ellipse((x - r, y - r, x + r - 1, y + r - 1), fill=255)
    cover = np.asarray(canvas.reduce(n) if n > 1 else canvas, np.float32) / 255
    cover = cover * (stroke.opacity if opacity is None else opacity)
    return (slice(top, bottom), slice(left, right)), cover
