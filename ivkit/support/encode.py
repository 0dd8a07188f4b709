"""Clips as the bytes of an mp4 or a gif that every browser plays."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from . import validate

RATES = {"mp4": 240, "gif": 50}  # frames a second at most; browsers slow a faster gif down to 10
MAX_COMMENT = 100_000  # bytes; a command's argument holds 128 KiB


def checked_fps(fps, kind: str = "mp4") -> float:
    name = "fps" if kind == "mp4" else f"fps of a {kind}"
    return validate.Number(0.1, RATES[kind])(name, fps)


def _comment(value) -> str:
    content = str.encode(value, "utf-8", "replace")
    if b"\0" in content or len(content) > MAX_COMMENT:
        raise ValueError
    return content.decode()


#: what a file's metadata can hold
COMMENT = validate.Kind(f"a text of at most {MAX_COMMENT} bytes without a zero byte", _comment)


def even(video: np.ndarray) -> np.ndarray:
    """(F, H, W, 3) with even sides: its last row or column once more. yuv420p needs that."""
    _, height, width, _ = video.shape
    return np.pad(video, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def encoded(video: np.ndarray, fps: float, kind: str = "mp4", comment: str | None = None) -> bytes:
    """uint8 (F, H, W, 3) as the bytes of a file: H.264 in yuv420p, or a gif.

    Raises OSError, in one sentence, where ffmpeg cannot write.
    """
    fps = checked_fps(fps, kind)
    comment = None if comment is None else COMMENT("comment", comment)
    if kind == "gif" and comment:  # ffmpeg writes no comment into a gif
        first, *more = [Image.fromarray(frame) for frame in video]
        buffer = io.BytesIO()
        how = {"save_all": True, "append_images": more, "duration": 1000 / fps, "loop": 0}
        first.save(buffer, "GIF", comment=comment.encode(), **how)
        return buffer.getvalue()
    codec = {"mp4": "h264", "gif": "gif"}[kind]
    told = ["-metadata", f"comment={comment}"] if comment else []
    video = even(video) if kind == "mp4" else video
    try:
        return mediapy().compress_video(video, fps=fps, codec=codec, ffmpeg_args=told)
    except (OSError, RuntimeError) as error:
        why = [line for line in str(error).splitlines() if line.strip()][-1:]
        raise OSError(f"the clip cannot be encoded: {' '.join(why)[:200]}") from None


def mediapy():
    """The package, with an ffmpeg that is there."""
    import mediapy

    if not mediapy.video_is_available():
        import imageio_ffmpeg

        mediapy.set_ffmpeg(imageio_ffmpeg.get_ffmpeg_exe())
    return mediapy
