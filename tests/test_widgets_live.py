"""LiveCanvas without a page: the pen, the text, λ, rewinding, and a thread that plays."""

import gc
import time

import numpy as np
import pytest
from PIL import Image
from test_live import BOX, SIDE, Copier, pipe

import ivkit as iv
from ivkit.models import live as student_of
from ivkit.pipeline import Pipeline
from ivkit.widgets import live as module


@pytest.fixture
def canvas(monkeypatch, tmp_path):
    monkeypatch.setattr(student_of.Student, "load", classmethod(lambda *_: Copier()))
    monkeypatch.setattr(module, "FPS", 400)
    held = Pipeline.__new__(Pipeline)
    held.model, held._pictures = pipe().model, None
    held.model.size, held.model.vae_scale_factor, held.model.device = (SIDE, SIDE), CELL_OF, "cpu"
    held.model.name = "copier"
    picture = Image.fromarray(np.where(BOX[..., None], (200, 60, 20), 90).astype("u1"))
    made = iv.LiveCanvas(held, picture, width=SIDE, folder=tmp_path / "out")
    yield made
    made.close()


CELL_OF = 16


def until(true, seconds=20):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_pull_reaches_the_stream_while_it_plays(canvas):
    canvas.start()
    until(lambda: canvas.live.index > 2)
    canvas._mouse("down", 16, 32)
    canvas._mouse("move", 30, 32)
    canvas._mouse("move", 40, 33)
    until(lambda: any(h.now[0] > 38 for _, h in canvas.live.state.held))
    canvas._mouse("up", 40, 33)
    until(lambda: not canvas.live.state.held)
    until(lambda: canvas._hand is None)  # and the overlay goes once the stream shows it
    canvas.pause()
    red = np.nonzero(canvas._frame[..., 0].astype(int) - canvas._frame[..., 2] > 90)[1]
    assert abs(red.mean() - 39.5) < 2 and not canvas.errors
    assert canvas.speed > 0 and "frames a second" in canvas.status.value


def test_what_is_done_while_a_chunk_is_made_counts_for_the_next(canvas, monkeypatch):
    chunk = Copier.chunk
    said = []

    def slow(self, *given):
        if not said:
            said.append(canvas.live.say("it gets dark"))
        return chunk(self, *given)

    monkeypatch.setattr(Copier, "chunk", slow)
    canvas.live.say("the waves roll")
    next(canvas.live)
    assert canvas.live.state.in_force[0] == "the waves roll"
    next(canvas.live)
    assert canvas.live.state.in_force[0] == "it gets dark"


def test_a_stroke_stays_in_the_stream(canvas):
    canvas.tool.value = "brush"
    canvas.panel["colour"].value, canvas.panel["size"].value = "#00ff00", 12
    for kind, x in (("down", 44), ("move", 50), ("up", 54)):
        canvas._mouse(kind, x, 16)
    canvas.start()
    until(lambda: canvas.live.index > 3)
    canvas.pause()
    r, g, b = canvas._frame[16, 50].astype(int)
    assert g > 180 and max(r, b) < 120 and not canvas.errors


def test_text_lam_rewind_and_recording(canvas):
    canvas.panel["say"].value = "the waves roll"
    canvas._say()
    canvas.panel["lam"].value = 0.25
    for _ in range(6):
        next(canvas.live)
    assert canvas.live.lam == 0.25 and canvas.live.instructions.acts[0].text == "the waves roll"
    canvas.rewind()
    assert canvas.live.index == 2
    canvas.play.value = True
    until(lambda: canvas.live.index > 4)
    canvas.pause()
    first, second = canvas.record(), canvas.record()
    assert first.is_file() and second.is_file() and first != second


def test_what_is_refused_is_said_and_it_plays_on(canvas):
    canvas.start()
    canvas.panel["say"].value = "a zebra"
    canvas.line.guard(canvas._say)()
    assert "zebra" in canvas.line.value and len(canvas.errors) == 1
    at = canvas.live.index
    until(lambda: canvas.live.index > at + 2)


def test_it_pauses_when_the_page_is_gone(canvas, monkeypatch):
    monkeypatch.setattr(module, "UNSEEN", 0.2)
    canvas._page_says(None, {"event": "alive"}, [])
    canvas.start()
    until(lambda: not canvas.play.value and canvas.line.value)
    assert "away" in canvas.line.value
    canvas._thread.join()
    at = canvas.live.index
    canvas.start()
    until(lambda: canvas.live.index > at)


def test_one_that_was_refused_goes_without_a_word(canvas, monkeypatch):
    said = []
    monkeypatch.setattr("sys.unraisablehook", said.append)
    for given, wrong in ((None, {}), (canvas.live, {}), (None, {"width": "wide"})):
        with pytest.raises(TypeError):
            iv.LiveCanvas(given, canvas.live.picture, **wrong)
        gc.collect()
    assert not said


def test_an_error_of_the_stream_is_said(canvas, monkeypatch):
    def broken(self, *given):
        raise RuntimeError("no more")

    monkeypatch.setattr(Copier, "chunk", broken)
    canvas.live.say("the waves roll")
    canvas.start()
    until(lambda: canvas.errors)
    assert "no more" in canvas.line.value and not canvas.play.value
