"""LiveCanvas: a stream that plays on a canvas, to be pulled, painted and told while it plays."""

from __future__ import annotations

import queue
import threading
import time
from pathlib import Path

import ipywidgets as w
import numpy as np
from PIL import Image

from ..instructions import Stroke
from ..live import FPS
from ..models.live import NEW
from ..pictures import Picture
from ..pipeline import Pipeline
from ..support.disk import unused
from ..support.validate import File, Seed, Side, checked
from .board import LIVE, PICTURE
from .canvas import Brush, Canvas, Tool, colour_of_brush
from .cards import written
from .parts import Line, button, column, flow, held, row, slider, toggle, words

BACK = 2.0  # seconds that Rewind goes back
UNSEEN = 30.0  # seconds without a sign of the page after which the stream pauses


class Grab(Tool):
    """Takes the thing under the press, and carries it along while the stream plays."""

    def begin(self, canvas, point):
        canvas.grab(point)

    def live(self, canvas, points):
        canvas.carry(points[0], points[-1])

    def end(self, canvas, points):
        canvas.carry(points[0], points[-1])
        canvas.release()


class LiveCanvas(Canvas):
    """Steer a clip with the mouse while it plays.

    Pull: press on a thing and pull it. Brush: paint; with a sentence in Picture, P_img redraws the
    paint. A motion text acts when it is entered, for two seconds. Rewind goes back two seconds.
    The stream pauses when its page is closed.

    Args:
      pipe: `ivkit.load("storybook")`. picture: what the stream begins with.
      motion: the first text, or none. seed: of the stream's noise.
      width: how wide it is shown, in screen pixels. folder: where recordings go.

    Attributes:
      live: the `Live` behind it. panel: the panel's widgets by name.
      errors: exceptions of callbacks and of the stream, which were said below the canvas.
    """

    TOOLS = {
        "pull": Grab("Pull", "a", "Press on a thing and pull it while it plays"),
        "brush": Brush("Brush", "b", "Paint on the picture while it plays", ring=True, ink="brush"),
    }

    @checked
    def __init__(
        self,
        pipe: Pipeline,
        picture: Picture,
        motion: str = "",
        *,
        seed: Seed = 0,
        width: Side = 360,
        folder: File = Path("outputs"),
    ):
        self.live, self.folder = pipe.live(picture, motion, seed=seed), folder
        line, label = Line(min_height="24px"), "A stream to pull and paint on"
        super().__init__(self.live.picture, None, width, label, {}, None, line)
        guard = self.line.guard
        self._frame = np.asarray(self.live.picture)
        self._hand: tuple | None = None  # (handle, its cut-out as RGBA, its corner)
        self._thread: threading.Thread | None = None
        self._plays, self._seen = threading.Event(), None
        self.speed = 0.0  # frames a second, of late
        self.size.max, self.size.value = 120, 40
        pace = {"value": pipe.model.defaults["video"]["motion_scale"], "min": 0, "max": 2}
        text = "What the picture shows once the paint is drawn; empty leaves the paint as it is"
        p = self.panel = {
            "say": row(w.Text, "Motion", "What happens: press Enter", 340, value=motion),
            "motion_scale": row(w.IntSlider, "Pace", "How fast the next text moves things", **pace),
            "lam": slider("λ", "1 shows the unedited stream, 0 the edited one", 0, 0, 1, 0.05),
            "content": row(w.Text, "Picture", text, 340),
            "colour": colour_of_brush(),
            "size": self.size,
        }
        p["say"].on_submit(guard(lambda _: self._say()))
        self.on(p["lam"], lambda lam: setattr(self.live, "lam", lam))
        self.play = toggle("Play", "play", "Play or pause: Space")
        self.on(self.play, self._toggled)
        say = button("Say", "comment", guard(self._say), "Let it happen: Enter does too")
        back = button("Rewind", "backward", guard(self.rewind), "Two seconds back", "90px")
        record = button("Record", "save", guard(self.record), "Write what was shown", "90px")
        self.status = words("Press Play.")
        self.below.children = (self.status,)
        rows = (flow(p["say"], say), p["motion_scale"], p["lam"], p["content"])
        controls = column(360, *rows, flow(p["colour"], self.size))
        self.page.beats = True
        self.keymap[" "] = lambda: setattr(self.play, "value", not self.play.value)
        self._lay_out([], [controls], flow(self.play, back, record))

    # --------------------------------------------------------------------------------- playing

    def start(self) -> None:
        """Play, in a thread of its own: the kernel stays free."""
        self.play.value = True

    def pause(self) -> None:
        """Pause; what is under way is finished first."""
        self.play.value = False
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def close(self) -> None:
        if hasattr(self, "play"):  # not in one that was refused
            self.pause()
        super().close()

    def _toggled(self, plays: bool) -> None:
        look = ("Pause", "pause") if plays else ("Play", "play")
        self.play.description, self.play.icon = look
        if not plays:
            self._plays.clear()
            return
        if self._thread is not None:
            self._thread.join()
        self._plays.set()
        self._seen = None if self._seen is None else time.monotonic()
        waiting = queue.Queue(1)  # chunks that are made and not shown yet
        self._thread = threading.Thread(target=self._make, args=(waiting,), daemon=True)
        threading.Thread(target=self._show, args=(waiting,), daemon=True).start()
        self._thread.start()

    def _make(self, out: queue.Queue) -> None:
        """Chunks, one after the other, as long as it plays; at most one waits to be shown."""
        try:
            while self._plays.is_set():
                begun = time.monotonic()
                frames = next(self.live)
                out.put((frames, time.monotonic() - begun))
                if self._seen is not None and time.monotonic() - self._seen > UNSEEN:
                    self.line.say("Paused: the page was away. Press Play to go on.")
                    self.play.value = False
        except BaseException as error:
            self.play.value = False
            self.line.fail(error)
        finally:
            out.put(None)

    def _show(self, chunks: queue.Queue) -> None:
        """Frames at an even pace: eight a second, or as fast as they are made."""
        due = 0.0
        while (made := chunks.get()) is not None:
            frames, took = made
            pace = max(1 / FPS, took / NEW)
            self.speed = 1 / pace
            for frame in frames:
                due = max(due + pace, time.monotonic())
                self._show_frame(frame)
                time.sleep(max(due - time.monotonic(), 0))
            if self._hand is not None and self._hand[0] not in self.live.held:
                self._drop()  # it was released, and now the stream shows it there
            self.status.value = f"{self.speed:.1f} frames a second; a pull shows after {took:.1f} s"

    def _show_frame(self, frame: np.ndarray) -> None:
        self._frame, size = frame, (self.view.width, self.view.height)
        shown = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR))
        with held():
            self.view[PICTURE].put_image_data(shown, 0, 0)  # RGB goes as a JPEG

    def still(self) -> Image.Image:
        return Image.fromarray(self._frame)

    # ---------------------------------------------------------------------------------- acting

    def _say(self) -> None:
        self.live.say(self.panel["say"].value, self.panel["motion_scale"].value)
        self.line.say("" if self.play.value else "It happens once you press Play.")

    def rewind(self) -> None:
        """Two seconds back."""
        playing = self.play.value
        self.pause()
        self.live.rewind(BACK)
        self._drop()
        self._show_frame(np.asarray(self.live.frame))
        self.play.value = playing

    def record(self) -> Path:
        """Write what was shown into `folder`; returns the path of the new .mp4."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.live.record(unused(self.folder / "live.mp4"))
        written(self.line, path)
        return path

    def _pen(self, kind: str, point) -> None:
        """A pointer that has left the picture is at its nearest point."""
        inside = (min(max(v, 0), n - 1) for v, n in zip(point, self.picture.size, strict=True))
        super()._pen(kind, tuple(inside))

    def grab(self, point) -> None:
        self._drop()
        handle = self.live.grab(point)
        mask = self.live.region(handle)
        (top, left), (bottom, right) = (f(np.argwhere(mask), 0) for f in (np.min, np.max))
        part = slice(top, bottom + 1), slice(left, right + 1)
        cut = np.dstack([self._frame[part], 200 * mask[part].astype(np.uint8)])
        self._hand = handle, Image.fromarray(cut), (left, top)

    def carry(self, start, point) -> None:
        """The grabbed thing goes with the pointer at once; the stream follows."""
        if self._hand is None or self._hand[0] not in self.live.held:
            return
        handle, cut, corner = self._hand
        self.live.move(handle, point)
        fine = self.view.width / self.picture.width
        size = tuple(max(round(fine * n), 1) for n in cut.size)
        at = [fine * (c + p - s) for c, p, s in zip(corner, point, start, strict=True)]
        with held():
            self.view[LIVE].put_image_data(np.asarray(cut.resize(size)), *at)

    def release(self) -> None:
        if self._hand is not None and self._hand[0] in self.live.held:
            self.live.release(self._hand[0])

    def _drop(self) -> None:
        self._hand = None
        with held():
            self.view[LIVE].clear()

    def stroke(self, points, tool: str) -> Stroke:
        return Stroke(points, self.panel["colour"].value, self.size.value, tool=tool)

    def add(self, stroke: Stroke) -> None:
        self.live.paint([stroke], self.panel["content"].value.strip() or None)

    def _page_says(self, _, content, buffers) -> None:
        if content["event"] == "alive":
            self._seen = time.monotonic()
        else:
            super()._page_says(_, content, buffers)
