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
from ..support.validate import File, Seed, Side, checked
from .board import LIVE, PICTURE, TIP, Board, Line, button, column, flow, held, row, slider, words
from .panel import Panel

BACK = 2.0  # seconds that Rewind goes back
UNSEEN = 30.0  # seconds without a sign of the page after which the stream pauses


class LiveCanvas(Panel):
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
        ("Pull", "pull"): ("a", "Press on a thing and pull it while it plays"),
        ("Brush", "brush"): ("b", "Paint on the picture while it plays"),
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
        self.line = Line(min_height="24px")
        self.errors = self.line.errors
        board = self.board = Board(
            self.live.picture,
            width,
            {},
            self._pen,
            {},
            None,
            self.line,
            "A stream to pull and paint on",
        )
        guard = self.line.guard
        self._frame = np.asarray(self.live.picture)
        self._hand: tuple | None = None  # (handle, its cut-out as RGBA, corner, where pressed)
        self._stroke: list = []
        self._shown: queue.Queue = queue.Queue(1)  # chunks that are made and not shown yet
        self._thread: threading.Thread | None = None
        self._plays, self._seen = threading.Event(), None
        self.speed = 0.0  # frames a second, of late
        says = [does for _, does in self.TOOLS.values()]
        self.tool = w.ToggleButtons(options=list(self.TOOLS), tooltips=says, **{TIP: "Tool"})
        self.tool.style.button_width = "84px"
        look = {"value": "#ffc81e", "concise": True, "description": "Colour"}
        text = "What the picture shows once the paint is drawn; empty leaves the paint as it is"
        model = pipe.model
        pace = model.defaults["video"]["motion_scale"]
        self.panel = {
            "say": w.Text(motion, description="Motion", continuous_update=False,
                          **row("What happens: press Enter", 340)),
            "motion_scale": w.IntSlider(pace, min=0, max=2, description="Pace",
                                        **row("How fast the next text moves things", 200)),
            "lam": slider("λ", "1 shows the unedited stream, 0 the edited one", 0, 0, 1, 0.05),
            "content": w.Text("", description="Picture", **row(text, 340)),
            "colour": w.ColorPicker(**look, **row("Colour of the brush", 112)),
            "size": slider("Size", "Width of the brush", 40, 2, 120, 1),
        }  # fmt: skip
        self.panel["say"].on_submit(guard(lambda _: self._say()))
        self.panel["lam"].observe(guard(lambda c: setattr(self.live, "lam", c["new"])), "value")
        self.panel["size"].observe(lambda _: self._cursor(), "value")
        self.tool.observe(lambda _: self._cursor(), "value")
        self.play = w.ToggleButton(
            description="Play",
            icon="play",
            tooltip="Play or pause: Space",
            layout=w.Layout(width="80px"),
        )
        self.play.observe(guard(self._toggled), "value")
        say = button("Say", "comment", guard(self._say), "Let it happen: Enter does too")
        back = button("Rewind", "backward", guard(self.rewind), "Two seconds back", "90px")
        record = button("Record", "save", guard(self.record), "Write what was shown", "90px")
        self.status = words("Press Play.")
        keys = {
            key: lambda v=v: setattr(self.tool, "value", v)
            for (_, v), (key, _) in self.TOOLS.items()
        }
        board.take_keys(keys | {" ": lambda: setattr(self.play, "value", not self.play.value)})
        board.page.beats = True
        board.page.on_msg(self._page_says)
        p = self.panel
        controls = column(
            360,
            flow(p["say"], say),
            p["motion_scale"],
            p["lam"],
            p["content"],
            flow(p["colour"], p["size"]),
        )
        bar = flow(self.play, back, record)
        stage = column(max(width, 360), self.tool, board.stage, self.line, bar, self.status)
        super().__init__([flow(stage, controls)])
        board.redraw()

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
        self.pause()
        super().close()

    def _toggled(self, change) -> None:
        self.play.description, self.play.icon = (
            ("Pause", "pause") if change["new"] else ("Play", "play")
        )
        if not change["new"]:
            self._plays.clear()
            return
        if self._thread is not None:
            self._thread.join()
        self._plays.set()
        self._seen = None if self._seen is None else time.monotonic()
        self._shown = queue.Queue(1)
        self._thread = threading.Thread(target=self._make, args=(self._shown,), daemon=True)
        threading.Thread(target=self._show, args=(self._shown,), daemon=True).start()
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
                self._put(frame)
                time.sleep(max(due - time.monotonic(), 0))
            if self._hand is not None and self._hand[0] not in self.live.held:
                self._let_go()  # it was released, and now the stream shows it there
            self.status.value = f"{self.speed:.1f} frames a second; a pull shows after {took:.1f} s"

    def _put(self, frame: np.ndarray) -> None:
        self._frame = frame
        size = (self.board.view.width, self.board.view.height)
        shown = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR))
        with held():
            self.board.view[PICTURE].put_image_data(shown, 0, 0)  # RGB goes as a JPEG

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
        self._let_go()
        self._put(np.asarray(self.live.frame))
        self.play.value = playing

    def record(self) -> Path:
        """Write what was shown into `folder`; returns the path of the new .mp4."""
        self.folder.mkdir(parents=True, exist_ok=True)
        taken = (self.folder / f"live-{k}.mp4" for k in range(1, 10_000))
        path = self.live.record(next(path for path in taken if not path.exists()))
        self.line.say(f"Written: {path}")
        return path

    def _cursor(self) -> None:
        wide = self.panel["size"].value / self.live.picture.width
        self.board.page.brush = wide * (self.tool.value == "brush")

    def _inside(self, point) -> tuple[float, float]:
        """The point of the picture that is nearest to a pointer that has left it."""
        return tuple(
            min(max(v, 0), n - 1) for v, n in zip(point, self.live.picture.size, strict=True)
        )

    def _pen(self, kind: str, point) -> None:
        point = self._inside(point)
        if self.tool.value == "brush" or self._stroke:
            self._brush(kind, point)
        elif kind == "down":
            self._let_go()
            handle = self.live.grab(point)
            mask = self.live.region(handle)
            (top, left), (bottom, right) = (f(np.argwhere(mask), 0) for f in (np.min, np.max))
            part = slice(top, bottom + 1), slice(left, right + 1)
            cut = np.dstack([self._frame[part], 200 * mask[part].astype(np.uint8)])
            self._hand = handle, Image.fromarray(cut), (left, top), point
            self._overlay(point)
        elif self._hand is not None and self._hand[0] in self.live.held:
            self.live.move(self._hand[0], point)
            self._overlay(point)
            if kind == "up":
                self.live.release(self._hand[0])

    def _overlay(self, point) -> None:
        """The grabbed thing goes with the pointer at once; the stream follows."""
        _, cut, corner, start = self._hand
        fine = self.board.view.width / self.live.picture.width
        size = tuple(max(round(fine * n), 1) for n in cut.size)
        at = [fine * (c + p - s) for c, p, s in zip(corner, point, start, strict=True)]
        with held():
            self.board.view[LIVE].clear()
            self.board.view[LIVE].put_image_data(np.asarray(cut.resize(size)), *at)

    def _let_go(self) -> None:
        self._hand = None
        with held():
            self.board.view[LIVE].clear()

    def _brush(self, kind: str, point) -> None:
        self._stroke = [point] if kind == "down" else [*self._stroke, point]
        colour, size = self.panel["colour"].value, self.panel["size"].value
        with held():
            self.board.path(LIVE, self._stroke[-2:], colour, size * self.board.scale)
        if kind == "up":
            stroke, self._stroke = Stroke(self._stroke, colour, size), []
            try:
                self.live.paint([stroke], self.panel["content"].value.strip() or None)
            finally:
                self._let_go()

    def _page_says(self, _, content, buffers) -> None:
        if content.get("event") == "alive":
            self._seen = time.monotonic()
