"""Show pictures and clips, with thin layers over mediapy, PIL and matplotlib.

Video is uint8 (F, H, W, 3), as everywhere in ivkit. Functions whose names start with `show` display
in a notebook. Most others return a PIL.Image, which a cell displays when it is its last line.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .pictures import Picture, check_area
from .support.disk import destination, whole
from .support.encode import checked_fps, encoded, even
from .support.encode import mediapy as _mediapy
from .support.progress import bar
from .support.validate import (
    MAX_STEPS,
    TEXT,
    VIDEO,
    Array,
    Choice,
    Count,
    Index,
    Integer,
    Kind,
    Listed,
    Number,
    Share,
    Side,
    Titled,
    Video,
    as_array,
    check_index,
    checked,
)

FPS = 8
SYMBOLS = {
    "z_t": r"$z_t$",
    "z_edit": r"$z'_t$",
    "eps": r"$\epsilon$",
    "eps_uncond": r"$\epsilon_{uncond}$",
    "eps_cond": r"$\epsilon_{cond}$",
    "eps_edit": r"$\epsilon'$",
    "eps_hat": r"$\hat\epsilon$",
    "v_edit": r"$v'$",
    "v_hat": r"$\hat v$",
    "x0": r"$\hat x_0$",
    "v": r"$v$",
    "lam": r"$\lambda$",
}


def _trace(value):
    from .trace import Trace

    if not isinstance(value, Trace):
        raise TypeError
    return value


MAP = Array("C h w", "F C h w", finite=False)
IMAGE = Array("H W", "H W 3", "H W 4", finite=False)
Fps = Annotated[float, Number(0.1, 240)]
VIDEOS = Titled(VIDEO, VIDEO)
Videos = Annotated[dict | np.ndarray, VIDEOS]
Images = Annotated[dict | tuple, Titled(IMAGE, Listed(IMAGE, "pictures", least=1))]
Map = Annotated[np.ndarray, MAP]
Trace = Annotated[Any, Kind("a Trace", _trace, TypeError)]
Maps = Annotated[tuple, Listed(MAP, "maps", least=1)]
Numbers = Annotated[np.ndarray, Array(finite=False)]
Field = Annotated[np.ndarray, Array("F H W 2", "H W 2")]
Distance = Annotated[float, Number(0)]
Names = Annotated[tuple[str, ...], Listed(TEXT, "names", least=1)]
Indices = Annotated[tuple[int, ...], Listed(Integer(-MAX_STEPS, MAX_STEPS), "steps", least=1)]


@checked
def show(
    clip: Any,
    fps: Fps = FPS,
    codec: Literal["h264", "gif"] = "h264",
    width: Side | None = None,
    height: Side | None = None,
    **options,
) -> str | None:
    """Play a clip in the notebook, in a loop; with `return_html=True`, return its HTML instead.

    Args:
        clip: a Run (its frames play beside the unedited ones), one video uint8 (F, H, W, 3), or a
            dict {title: video}.
        fps: frames per second, 0.1 to 240.
        codec: "h264", or "gif", which allows at most 50 frames per second.
        width, height: size on the page in pixels; if one is given, the other follows from it.
        options: further options of `mediapy.show_videos`, such as `columns`.
    """
    if hasattr(clip, "frames"):
        unedited = getattr(clip, "unedited", None)
        clip = ({} if unedited is None else {"unedited": unedited}) | {"edited": clip.frames}
    videos = VIDEOS("clip", clip)
    videos = videos if isinstance(videos, dict) else {None: videos}
    fps = checked_fps(fps, "gif" if codec == "gif" else "mp4")
    shown = [_shown_at(video, width, height) for video in videos.values()]
    options |= {"fps": fps, "codec": codec, "width": width, "height": height, "downsample": False}
    return _mediapy().show_videos(shown, list(videos), **options)


def _shown_at(video: np.ndarray, width: int | None, height: int | None) -> np.ndarray:
    """The clip at the size at which it is shown, with even sides, since browsers play no others."""
    _, h, w, _ = video.shape
    high = height or (round(h * width / w) if width else h)
    wide = width or (round(w * height / h) if height else w)
    if high < h or wide < w:
        video = _mediapy().resize_video(video, (max(high, 1), max(wide, 1)))
    return even(video)


@checked
def show_pictures(pictures: Images, **options) -> None:
    """Show pictures in a row: a dict {title: picture} or a list.

    A picture is a PIL.Image, uint8 (H, W, 3), or a mask or map (H, W). Further options are those
    of `mediapy.show_images`, such as `height` or `columns`.
    """
    named = pictures if isinstance(pictures, dict) else {i: p for i, p in enumerate(pictures)}
    titles = list(named) if isinstance(pictures, dict) else None
    images = [a.astype(float) if a.dtype.kind == "b" else a for a in named.values()]
    _mediapy().show_images(images, titles, **options)


@checked
def save_video(path: Any, frames: Video, fps: Fps = FPS, comment: Any = None) -> Path:
    """Write uint8 (F, H, W, 3) to `path`, an .mp4 (H.264, yuv420p) or a .gif; returns the path.

    In an .mp4, a side of odd length gets its last row or column a second time, since browsers play
    only even sides. An existing file is replaced only when the new one is complete.

    Args:
        fps: frames per second, 0.1 to 240, and at most 50 for a gif.
        comment: text for the file's metadata, such as how the clip was made.

    Raises:
        ValueError or TypeError if the path, clip, rate or text is not of these kinds; OSError if
        the disk is full or the folder cannot be written to.
    """
    path = destination("path", path, ".mp4", ".gif")
    content = encoded(frames, fps, path.suffix.lower()[1:], comment)
    with whole(path) as part:
        part.write_bytes(content)
    return path


@checked
def contact_sheet(
    frames: Videos, columns: Count = 8, every: Count = 1, height: Side | None = None
) -> Image.Image:
    """Frames of one video (F, H, W, 3), or rows {title: video}, laid out as one PIL.Image.

    Args:
        columns: pictures in each row; a dict has one row for each video instead.
        every: take only every n-th frame.
        height: height in pixels to which each frame is scaled.
    """
    if isinstance(frames, dict):
        rows = [(title, video[::every]) for title, video in frames.items()]
    else:
        kept = frames[::every]
        rows = [(None, kept[i : i + columns]) for i in range(0, len(kept), columns)]
    pictures = [[Image.fromarray(f) for f in video] for _, video in rows]
    h = height or pictures[0][0].height
    pictures = [[p.resize((round(p.width * h / p.height), h)) for p in row] for row in pictures]
    label = 18 if any(title is not None for title, _ in rows) else 0
    gap, w = 2, pictures[0][0].width
    wide = max(len(row) for row in pictures)
    size = (wide * (w + gap) - gap, len(rows) * (h + gap + label) - gap)
    check_area(*size, "the sheet of these frames, columns and height")
    sheet = Image.new("RGB", size, "white")
    for r, ((title, _), row) in enumerate(zip(rows, pictures, strict=True)):
        top = r * (h + gap + label)
        if title is not None:
            _write(sheet, (2, top), title, label)
        for c, picture in enumerate(row):
            sheet.paste(picture, (c * (w + gap), top + label))
    return sheet


@checked
def heat(eps: Map, eps_edit: Map, picture: Picture, alpha: Share = 0.65) -> Image.Image:
    """Where two predictions differ: |ε - ε'|, averaged over channels, drawn over a picture.

    Args:
        eps, eps_edit: (C, h, w), or (F, C, h, w), which is averaged over frames.
        picture: the picture underneath, PIL.Image or uint8 (H, W, 3).
        alpha: opacity where the difference is largest.
    """
    import matplotlib

    if eps.shape != eps_edit.shape:
        raise ValueError(f"eps_edit has shape {eps_edit.shape}, and eps has {eps.shape}")
    difference = np.abs(eps - eps_edit).mean(axis=tuple(range(eps.ndim - 2)))
    amount = Image.fromarray((difference / max(difference.max(), 1e-12)).astype(np.float32))
    amount = np.asarray(amount.resize(picture.size, Image.Resampling.BICUBIC)).clip(0, 1)
    colour = matplotlib.colormaps["inferno"](amount)[..., :3] * 255
    weight = alpha * amount[..., None] ** 0.5
    return Image.fromarray((np.asarray(picture) * (1 - weight) + colour * weight).astype(np.uint8))


@checked
def field_arrows(picture: Picture, field: Field, frame: Index = -1, step: Side = 16) -> Image.Image:
    """Draw a displacement field as arrows over the picture that it moves.

    Args:
        picture: PIL.Image or uint8 (H, W, 3).
        field: float (F, H, W, 2), or (H, W, 2): (dx, dy) in pixels of each source pixel.
        frame: which frame of the field.
        step: pixels between arrows; places that do not move get none.
    """
    if field.ndim == 4:
        check_index("frame", frame, len(field))
        field = field[frame]
    base = np.asarray(picture)
    if field.shape != (*base.shape[:2], 2):
        raise ValueError(
            f"field must be (F, {base.shape[0]}, {base.shape[1]}, 2) as the picture is, "
            f"not {field.shape}"
        )
    ys, xs = np.mgrid[step // 2 : base.shape[0] : step, step // 2 : base.shape[1] : step]
    dx, dy = field[ys, xs].transpose(2, 0, 1)
    moving = np.hypot(dx, dy) > 0.5
    figure, axes = _figure(1, 1, 4, 4 * base.shape[0] / base.shape[1])
    axis = axes[0, 0]
    figure.set_layout_engine("none")
    axis.set_position((0, 0, 1, 1))
    axis.imshow(base)
    arrows = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.006, "color": "#e5006d"}
    axis.quiver(xs[moving], ys[moving], dx[moving], dy[moving], **arrows)
    axis.set_xlim(-0.5, base.shape[1] - 0.5)
    axis.set_ylim(base.shape[0] - 0.5, -0.5)
    return _drawn(figure)


@checked
def trace_grid(
    trace: Trace,
    names: Names = ("z_t", "z_edit", "eps", "eps_edit", "eps_hat", "x0"),
    frame: Index = -1,
    steps: Indices | None = None,
    decode: Callable | None = None,
) -> Image.Image:
    """A table of pictures of a run: each row shows a tensor, each column a step.

    Latents have no colours of their own. Their first three principal components are shown as red,
    green and blue, and these are the same three for the whole table.

    Args:
        trace: a Trace; trace[i][name] is (F, C, h, w). Where a tensor is undefined (see
            `ivkit.trace`) or was not evaluated, the cell says so. A blend is marked as derived if
            the blending was done in another unit, because Eq. 4 does not hold for it.
        names: the tensors, by their names in the trace.
        frame: which frame of the clip.
        steps: the steps; by default up to eight, evenly spread.
        decode: if given, decodes x0 from latents (1, C, h, w) to pixels (1, 3, H, W) in [-1, 1],
            as `pipe.model.decode` does.
    """
    from .trace import NAMES

    count = len(trace)
    if not count:
        raise ValueError("trace has no steps yet: there is nothing to show")
    for name in names:
        Choice(*NAMES, "lam")("names", name)
    if steps is None:
        steps = np.unique(np.linspace(0, count - 1, min(count, 8)).round().astype(int)).tolist()
    for i in steps:
        check_index("steps", i, count)
    latents = {name: [_latent(trace[i], name, frame) for i in steps] for name in names}
    seen = {"x0"} if decode is not None else set()
    coloured = [z for name in latents.keys() - seen for z in latents[name]]
    coloured = [z for z in coloured if not isinstance(z, str)]
    paint = principal_colours(coloured) if coloured else None
    figure, axes = _figure(len(names), len(steps), 1.35, 1.35, margin=0.35)
    for r, name in enumerate(names):
        left = {"ha": "right", "va": "center", "transform": axes[r, 0].transAxes}
        axes[r, 0].text(-0.08, 0.5, SYMBOLS.get(name, name), fontsize=13, **left)
        if name in ("eps_hat", "v_hat") and any(name not in trace[i].terms for i in steps):
            axes[r, 0].text(-0.08, 0.3, "derived", fontsize=7, **left)
        for c, z in enumerate(bar(latents[name], name, name in seen)):
            if isinstance(z, str):
                where = {"transform": axes[r, c].transAxes, "ha": "center", "va": "center"}
                axes[r, c].text(0.5, 0.5, z, fontsize=7, **where)
            else:
                picture = _pixels(decode(z[None])) if name in seen else paint(z)
                axes[r, c].imshow(picture, interpolation="nearest")
    for c, i in enumerate(steps):
        axes[0, c].set_title(f"step {i}, t = {trace[i].t:.0f}", fontsize=8)
    return _drawn(figure)


@checked
def cmp(name: str, mine: Numbers, theirs: Numbers, tolerance: Distance = 1e-5) -> None:
    """Print whether two arrays agree exactly and approximately, and their largest difference."""
    a, b = mine, theirs
    if a.shape != b.shape:
        raise ValueError(f"{name}: theirs has shape {b.shape}, and mine has {a.shape}")
    difference = np.abs(a.astype(np.float64) - b.astype(np.float64)).max(initial=0.0)
    exact, close = bool((a == b).all()), bool(difference <= tolerance)
    agreement = f"exact: {exact!s:5s} | approximate: {close!s:5s}"
    print(f"{name:16s} | {agreement} | max difference: {difference:.3g}")


def _latent(record, name, frame):
    """The tensor (C, h, w) of one frame, or the reason why there is none."""
    record.check(name)
    return record.missing(name).replace(", ", ",\n") or record[name][frame]


def _pixels(decoded) -> np.ndarray:
    """(1, 3, H, W) in [-1, 1] -> (H, W, 3) in [0, 1]."""
    found = as_array(decoded)
    if found.ndim != 4:
        raise ValueError(f"decode must give pixels (1, 3, H, W), got shape {found.shape}")
    return (found[0].transpose(1, 2, 0) / 2 + 0.5).clip(0, 1)


@checked
def principal_colours(latents: Maps):
    """A function (C, h, w) -> (h, w, 3) in [0, 1]: the first three principal components as red,
    green and blue. latents: (C, h, w) or (F, C, h, w) each; only finite values count."""
    pixels = np.concatenate([np.moveaxis(z, -3, -1).reshape(-1, z.shape[-3]) for z in latents])
    pixels = pixels[np.isfinite(pixels).all(1)]
    pixels = pixels[:: max(1, len(pixels) // 100_000)]  # enough for the directions
    centre = pixels.mean(0)
    axes = np.linalg.svd(pixels - centre, full_matrices=False)[2][:3]
    low, high = np.percentile((pixels - centre) @ axes.T, [2, 98], axis=0)

    def paint(z):
        colours = (as_array(z).reshape(len(z), -1).T - centre) @ axes.T
        colours = ((colours - low) / np.maximum(high - low, 1e-9)).clip(0, 1)
        return colours.reshape(*z.shape[1:], -1)

    return paint


def _figure(rows, columns, width, height, margin=0.0):
    # Not pyplot: its figures would be displayed a second time by the notebook.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((columns * width + margin, rows * height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure, axes


def _drawn(figure):
    figure.canvas.draw()
    return Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())


def _write(sheet, at, text, size):
    ImageDraw.Draw(sheet).text(at, str(text), fill="black", font=_font(size - 6))


def _font(size: int):
    from matplotlib.font_manager import findfont  # its DejaVu Sans has Greek; PIL's own has not

    return ImageFont.truetype(findfont("DejaVu Sans"), size)
