"""A hand without a browser: it sends what the page would send, to the same callbacks."""

import struct
import zlib
from datetime import datetime


def event(canvas, name: str, x: float, y: float) -> None:
    """One mouse event, in picture pixels."""
    (sx, sy), *_ = canvas.to_screen([(x, y)])
    canvas.view._handle_custom_msg({"event": name, "x": float(sx), "y": float(sy)}, [])


def stroke(canvas, *points, end="mouse_up") -> None:
    """Press at the first point, move through the others, end at the last."""
    event(canvas, "mouse_down", *points[0])
    for point in points[1:]:
        event(canvas, "mouse_move", *point)
    event(canvas, end, *points[-1])


def upload(canvas, name: str, content: bytes) -> None:
    """What FileUpload holds after a file was chosen: ipywidgets 7 has a dict, 8 a tuple."""
    row = {"name": name, "type": "", "size": len(content), "last_modified": datetime(2020, 1, 1)}
    if isinstance(canvas.upload.value, dict):
        canvas.upload.set_trait("value", {name: {"metadata": row, "content": content}})
    else:
        canvas.upload.value = ({**row, "content": memoryview(content)},)


def huge_png(width: int, height: int) -> bytes:
    """A png that claims to be that large; its pixels are missing."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
