"""The canvases, driven by the events that a page would send."""

import base64
import functools
import gc
import io
import json
import os
import re
import subprocess
import sys
import threading
import weakref

import hand
import nbclient
import nbformat
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ipycanvas.canvas import COMMANDS
from PIL import Image

from ivkit import Camera, Drag, DragCanvas, PaintCanvas, Stroke, TrajectoryInstruction
from ivkit.trajectory import warp
from ivkit.widgets import session
from ivkit.widgets.board import MARKS, MASK, PAINT, PICTURE, WIDEST
from ivkit.widgets.canvas import Tool
from ivkit.widgets.parts import Line, explain, held
from ivkit.widgets.session import Autosave, Sketch

SIDE = 64


def press(canvas, key, **more):
    """A key over the canvas, as the page sends it."""
    content = {"event": "key", "key": key, "shift": False, "command": False} | more
    canvas.page._handle_custom_msg(content, [])


def scene() -> Image.Image:
    """A red box on blue."""
    pixels = np.full((SIDE, SIDE, 3), (120, 180, 230), np.uint8)
    pixels[20:36, 10:26] = (200, 40, 40)
    return Image.fromarray(pixels)


@pytest.fixture
def paint():
    canvas = PaintCanvas(scene(), autosave=None)
    yield canvas
    assert canvas.errors == []


@pytest.fixture
def drag():
    canvas = DragCanvas(scene(), autosave=None, num_frames=4)
    yield canvas
    assert canvas.errors == []


# ---------------------------------------------------------------------------------------- paint


def test_a_stroke_is_kept_in_picture_pixels_with_what_the_panel_says(paint):
    paint.colour.value, paint.size.value, paint.opacity.value = "#00ff00", 8, 0.5
    hand.stroke(paint, (10, 10), (30, 12), (40, 50))
    (stroke,) = paint.strokes
    assert np.allclose(stroke.points, [(10, 10), (30, 12), (40, 50)])
    assert (stroke.colour, stroke.width, stroke.opacity, stroke.tool) == (
        "#00ff00",
        8,
        0.5,
        "brush",
    )
    assert paint.painted.getpixel((20, 11)) != paint.picture.getpixel((20, 11))


@pytest.mark.parametrize("width", [100, 64, 501])
def test_strokes_do_not_depend_on_how_large_the_picture_is_shown(width):
    canvas = PaintCanvas(scene(), width=width, autosave=None)
    hand.stroke(canvas, (10, 10), (50, 40))
    assert np.allclose(canvas.strokes[0].points, [(10, 10), (50, 40)])


def test_a_button_let_go_outside_ends_the_stroke(paint):
    hand.stroke(paint, (50, 30), (60, 30), (70, 31), end="mouse_out")
    hand.event(paint, "mouse_move", 5, 5)
    hand.event(paint, "mouse_up", 5, 5)
    (stroke,) = paint.strokes
    assert np.allclose(stroke.points[-1], (70, 31))
    hand.stroke(paint, (3, 3), (9, 9))
    assert np.allclose(paint.strokes[1].points, [(3, 3), (9, 9)])


def test_a_second_press_without_a_release_ends_the_first_stroke(paint):
    hand.event(paint, "mouse_down", 5, 5)
    hand.event(paint, "mouse_move", 9, 5)
    hand.stroke(paint, (30, 30), (40, 40))
    assert [len(s.points) for s in paint.strokes] == [2, 2]


def test_events_that_come_in_two_threads_make_one_stroke(paint, monkeypatch):
    commit, others = paint.commit, []

    def slow(*args):
        others.append(threading.Thread(target=hand.event, args=(paint, "mouse_out", 60, 60)))
        others[0].start()
        others[0].join(0.2)
        commit(*args)

    monkeypatch.setattr(paint, "commit", slow)
    hand.stroke(paint, (5, 5), (20, 5))
    others[0].join()
    assert len(others) == len(paint.strokes) == 1 and len(paint.strokes[0].points) == 2


def test_touch_draws_too(paint):
    for name, touches in (("start", [(8, 8)]), ("move", [(80, 80)]), ("end", [])):
        content = {"event": f"touch_{name}", "touches": [{"x": x, "y": y} for x, y in touches]}
        paint.view._handle_custom_msg(content, [])
    assert len(paint.strokes) == 1 and len(paint.strokes[0].points) == 2


def test_the_region_lies_apart_from_the_paint_and_tools_keep_what_is_drawn(paint):
    hand.stroke(paint, (5, 5), (20, 5))
    paint.tool.value = "mask"
    hand.stroke(paint, (40, 40), (50, 40))
    assert paint.mask[40, 45] and not paint.mask[5, 10]
    assert paint.painted.getpixel((45, 40)) == paint.picture.getpixel((45, 40))
    paint.tool.value = "eraser"
    hand.stroke(paint, (45, 30), (45, 50))
    assert not paint.mask[40, 45] and len(paint.strokes) == 3


def test_the_picker_takes_a_colour_from_what_is_seen(paint):
    paint.tool.value = "pick"
    hand.stroke(paint, (15, 25))
    assert paint.colour.value == "#c82828" and paint.tool.value == "brush"
    assert paint.strokes == ()


def test_keys_undo_and_redo(paint):
    hand.stroke(paint, (5, 5), (20, 5))

    def press(key, shift=False):
        content = {
            "event": "key_down",
            "key": key,
            "shift_key": shift,
            "ctrl_key": True,
            "meta_key": False,
        }
        paint.view._handle_custom_msg(content, [])

    press("z")
    assert paint.strokes == ()
    press("Z", shift=True)
    assert len(paint.strokes) == 1


@pytest.mark.parametrize("kind", ["rotated", "grey", "alpha", "large", "path"])
def test_pictures_of_all_kinds_come_in(paint, kind, tmp_path):
    picture, size = Image.new("RGB", (40, 20), "red"), (40, 20)
    if kind == "rotated":
        exif = Image.Exif()
        exif[0x0112] = 6
        file = io.BytesIO()
        picture.save(file, "JPEG", exif=exif)
        hand.upload(paint, "a.jpg", file.getvalue())
        size = (20, 40)
    elif kind == "path":
        picture.save(tmp_path / "a.png")
        paint.picture = tmp_path / "a.png"
    else:
        made = {
            "grey": Image.new("L", (40, 20), 9),
            "large": Image.new("RGB", (5000, 3000)),
            "alpha": Image.new("RGBA", (40, 20), (1, 2, 3, 0)),
        }[kind]
        file, size = io.BytesIO(), made.size
        made.save(file, "PNG")
        hand.upload(paint, "a.png", file.getvalue())
    assert paint.picture.size == size and paint.picture.mode == "RGB"
    assert max(paint.view.width, paint.view.height) <= 640
    hand.stroke(paint, (5, 5), (9, 9))
    assert np.allclose(paint.strokes[0].points, [(5, 5), (9, 9)])


def test_all_that_is_on_the_canvas_is_drawn_again_for_a_new_page(paint, monkeypatch):
    hand.stroke(paint, (5, 5), (20, 5))
    paint.tool.value = "mask"
    hand.stroke(paint, (40, 40), (50, 40))
    manager, sent = paint.view._canvas_manager, []
    monkeypatch.setattr(manager, "_send_custom", lambda command, buffers=(): sent.extend(command))
    paint.view._handle_custom_msg({"event": "client_ready"}, [])
    switches = [command for command in sent if command[0] == COMMANDS["switchCanvas"]]
    assert len(switches) >= 5  # every layer, although the last one was current before
    assert len(sent) > 10


def test_an_error_while_drawing_does_not_freeze_the_canvas(paint):
    manager = paint.view._canvas_manager
    with pytest.raises(ZeroDivisionError), held():
        1 / 0  # noqa: B018
    assert not manager._caching and manager._commands_cache == []


# ------------------------------------------------------------------------- messages and manners


def test_an_old_error_goes_when_something_succeeds(paint):
    line = Line()

    def work(value):
        return 1 / value

    guarded = line.guard(work)
    guarded(0)
    assert "⚠ <b>Error:</b>" in line.value and 'role="alert"' in line.value
    assert [type(error) for error in line.errors] == [ZeroDivisionError]
    assert guarded(2) == 0.5 and line.value == ""
    line.say("<Written>")
    guarded(2)  # what is no error stays
    assert "&lt;Written&gt;" in line.value and "Error" not in line.value


def test_a_missing_file_is_said_in_plain_words(paint, tmp_path):
    with pytest.raises(ValueError, match="cannot be loaded: No such file or directory$"):
        paint.load(tmp_path / "none.json")
    assert explain(FileNotFoundError(2, "No such file", "a.png")) == "'a.png': no such file"


def test_a_region_is_outlined_and_hatched_whatever_its_colour(paint, monkeypatch):
    sent = []
    monkeypatch.setattr(paint, "put", lambda layer, picture: sent.append(picture))
    paint.size.value, paint.tool.value = 20, "mask"
    hand.stroke(paint, (32, 32), (40, 32))
    pixels = np.asarray(sent[-1])
    scale = pixels.shape[0] / SIDE
    row = pixels[round(32.5 * scale)]
    inside = row[round(26 * scale) : round(44 * scale)]
    assert len(np.unique(inside[:, :3], axis=0)) >= 2  # the hatching
    assert {(255, 255, 255, 255), (17, 17, 17, 255)} <= set(map(tuple, row))  # the outline
    assert not row[: round(18 * scale)].any()
    assert [picture for picture in sent if not np.asarray(picture).any()] == []


def test_drags_have_numbers(drag, monkeypatch):
    written = []
    text = drag.text
    monkeypatch.setattr(drag, "text", lambda *a: (written.append(a[2]), text(*a)))
    hand.stroke(drag, (18, 28), (50, 45))
    (first,) = drag.trajectory.drags
    other = np.roll(first.mask, (24, 24), (0, 1))
    drag.trajectory = [first, Drag([(40, 40), (50, 50)], mask=other)]
    assert written[-2:] == ["1", "2"]


def test_keys_choose_tools_and_sizes(paint, drag):
    tools = {"e": "eraser", "r": "mask", "l": "lasso", "x": "box", "v": "edit", "p": "pick"}
    for key, tool in (tools | {"b": "brush"}).items():
        press(paint, key)
        assert paint.tool.value == tool and key in paint.page.takes
    size = paint.size.value
    press(paint, "]")
    assert paint.size.value > size
    for _ in range(50):
        press(paint, "[")
    assert paint.size.value == paint.size.min
    assert paint.page.brush == pytest.approx(paint.size.min / SIDE)
    press(paint, "p")
    assert paint.page.brush == 0
    hand.stroke(drag, (18, 28), (50, 45))
    press(drag, "z", command=True)
    assert drag.trajectory.drags == ()
    press(drag, "Z", command=True, shift=True)
    press(drag, "q")  # the page's
    assert len(drag.trajectory.drags) == 1 and "q" not in drag.page.takes


class Stamp(Tool):
    """A toy: a dot wherever the mouse is let go, and another one by a key."""

    def keys(self, canvas):
        return {"d": lambda: self.end(canvas, [(5, 5)])}

    def end(self, canvas, points):
        canvas.add(Stroke(points[-1:], width=10, tool=self.ink))


@pytest.mark.parametrize("kind, ink", [(PaintCanvas, "brush"), (DragCanvas, "mask")])
def test_a_tool_of_ones_own_is_a_class_and_an_entry(monkeypatch, kind, ink):
    stamp = Stamp("Stamp", "s", "Set a dot", on=(PAINT, MASK), ink=ink)
    monkeypatch.setattr(kind, "TOOLS", kind.TOOLS | {"stamp": stamp})
    canvas = kind(scene(), autosave=None)
    hand.stroke(canvas, (18, 28), (50, 45))
    press(canvas, "s")
    assert canvas.tool.value == "stamp" and ("Stamp", "stamp") in canvas.tool.options
    assert canvas.tool.tooltips[-1] == "Set a dot: S"
    hand.stroke(canvas, (40, 50), (50, 55))
    press(canvas, "d")
    if kind is PaintCanvas:
        assert [stroke.points[-1] for stroke in canvas.strokes[1:]] == [(50, 55), (5, 5)]
    else:
        mask = canvas.trajectory.drags[0].mask
        assert mask[55, 50] and mask[5, 5] and not mask[50, 40]
    assert canvas.errors == []


@pytest.mark.parametrize("density, zoom", [(2, 1), (1, 3), (2.5, 1.6), (3, 8)])
def test_a_dense_screen_and_a_near_view_change_no_stroke(paint, density, zoom):
    wide = paint.view.width
    paint.page.density, paint.page.zoom = density, zoom
    assert paint.view.width == min(round(wide * density * zoom), WIDEST)
    assert paint.magnification == pytest.approx(wide * zoom / SIDE)
    hand.stroke(paint, (10, 10), (30, 12))
    assert np.allclose(paint.strokes[0].points, [(10, 10), (30, 12)], atol=0.01)


def test_without_anywidget_the_canvas_works_as_before():
    code = (
        "import sys; sys.modules['anywidget'] = None; import hand; from ivkit import PaintCanvas\n"
        "canvas = PaintCanvas(autosave=None); hand.stroke(canvas, (5, 5), (20, 5))\n"
        "press = {'event': 'key_down', 'shift_key': False, 'meta_key': False, 'ctrl_key': True}\n"
        "canvas.view._handle_custom_msg(press | {'key': 'z'}, [])\n"
        "canvas.redo(); print(len(canvas.strokes), canvas.errors)"
    )
    asked = [sys.executable, "-c", code]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(asked, capture_output=True, text=True, env=env, check=False)
    assert done.stdout.strip() == "1 []", done.stderr


# ----------------------------------------------------------------------------------------- drag


def test_a_pull_is_a_drag_with_the_thing_under_it(drag):
    hand.stroke(drag, (18, 28), (30, 40), (50, 45))
    (made,) = drag.trajectory.drags
    assert np.allclose(made.path, [(18, 28), (50, 45)])
    assert made.mask[21:35, 11:25].all() and made.mask.sum() < 400
    assert bytes(drag.preview.value[8:12]) == b"WEBP"
    frames = drag.warped().frames
    assert (frames[0] == np.asarray(drag.picture)).all() and frames[-1][44, 50, 0] > 150


def test_where_a_clip_of_the_picture_is_known_the_preview_drags_that(drag):
    frames = np.stack([np.asarray(drag.picture) // k for k in (1, 2, 3, 4)])
    hand.stroke(drag, (18, 28), (50, 45))
    still = drag.warped().frames
    drag.on_clip(drag.picture, frames)
    shown = drag.warped().frames
    np.testing.assert_array_equal(shown, warp(drag.picture, drag.trajectory, 4, clip=frames).frames)
    assert shown[-1].mean() < 0.5 * still[-1].mean()
    assert (drag.warped(3).frames == warp(drag.picture, drag.trajectory, 3).frames).all()
    drag.picture = Image.new("RGB", drag.picture.size, "white")
    hand.stroke(drag, (18, 28), (50, 45))
    assert drag.warped().frames[-1].mean() > 200
    with pytest.raises(ValueError, match="frames"):
        drag.on_clip(drag.picture, frames[0])


def test_a_freehand_path_becomes_few_points(drag):
    drag.tool.value = "path"
    hand.stroke(drag, *[(18 + i, 28 - 15 * np.sin(i / 10)) for i in range(35)])
    path = drag.trajectory.drags[0].path
    assert 3 <= len(path) <= 12 and np.allclose(path[0], (18, 28))


def test_points_move_go_and_get_other_times(drag):
    drag.trajectory = Drag([(18, 28), (30, 40), (50, 45)], mask=np.asarray(scene())[..., 0] > 150)
    drag.tool.value = "edit"
    hand.stroke(drag, (30, 40), (35, 10))
    assert np.allclose(drag.trajectory.drags[0].path[1], (35, 10))
    drag.time.value = 0.9
    assert drag.trajectory.drags[0].times == (0, 0.9, 1)
    drag.time.value = 1.0  # not past the next point
    assert 0.9 < drag.trajectory.drags[0].times[1] < 1
    drag.delete_point.click()
    assert np.allclose(drag.trajectory.drags[0].path, [(18, 28), (50, 45)])
    drag.delete_drag.click()
    assert drag.trajectory.drags == ()


def test_the_region_is_corrected_with_a_brush(drag):
    hand.stroke(drag, (18, 28), (50, 45))
    before = drag.trajectory.drags[0].mask.copy()
    drag.size.value, drag.tool.value = 6, "add"
    hand.stroke(drag, (40, 10), (50, 10))
    assert drag.trajectory.drags[0].mask[10, 45] and not before[10, 45]
    drag.tool.value = "cut"
    hand.stroke(drag, (30, 10), (60, 10))
    assert not drag.trajectory.drags[0].mask[10].any()
    assert (drag.trajectory.drags[0].mask[20:] == before[20:]).all()


def test_a_second_pull_of_one_thing_is_its_new_path(drag):
    hand.stroke(drag, (18, 28), (50, 45))
    hand.stroke(drag, (18, 28), (50, 10))
    (made,) = drag.trajectory.drags
    assert np.allclose(made.path[-1], (50, 10))
    drag.undo()
    assert np.allclose(drag.trajectory.drags[0].path[-1], (50, 45))


@pytest.mark.parametrize("tool", ["lasso", "box"])
def test_a_region_to_paint_in_is_drawn_round_by_lasso_and_box(paint, tool):
    paint.tool.value = tool
    ends = [(8, 18), (28, 38)]
    hand.stroke(paint, *(ends if tool == "box" else [ends[0], (28, 18), ends[1], (8, 38)]))
    assert paint.mask[18:39, 8:29].all() and paint.mask.sum() == 21 * 21
    assert (np.asarray(paint.painted) == np.asarray(paint.picture)).all()
    paint.tool.value, paint.size.value = "eraser", 4
    hand.stroke(paint, (18, 28))
    assert not paint.mask[28, 18] and paint.mask[20, 10]


def test_edit_moves_strokes_and_regions_and_delete_takes_them_away(paint):
    paint.size.value = 6
    hand.stroke(paint, (10, 10), (20, 10))
    paint.tool.value = "box"
    hand.stroke(paint, (30, 30), (50, 50))
    before = paint.strokes
    paint.tool.value = "edit"
    hand.stroke(paint, (40, 40), (38, 41), (36, 42))
    assert paint.mask[32:53, 26:47].all() and paint.mask.sum() == 21 * 21
    press(paint, "ArrowLeft")
    press(paint, "ArrowUp")
    assert paint.mask[31:52, 25:46].all()
    paint.undo()
    paint.undo()
    assert paint.strokes == before
    hand.stroke(paint, (15, 12), (15, 22))
    assert np.allclose(paint.strokes[0].points, [(10, 20), (20, 20)])
    press(paint, "ArrowRight")
    assert np.allclose(paint.strokes[0].points, [(11, 20), (21, 20)])
    press(paint, "Delete")
    assert paint.strokes == before[1:] and paint.held is None
    press(paint, "Delete")
    assert "first take a stroke" in paint.line.value
    press(paint, "ArrowUp")
    assert [type(error) for error in paint.errors] == [ValueError, ValueError]
    paint.errors.clear()


@pytest.mark.parametrize("tool", ["lasso", "box"])
def test_the_region_is_drawn_round_by_lasso_and_box(drag, tool):
    hand.stroke(drag, (18, 28), (50, 45))
    drag.tool.value = tool
    ends = [(8, 18), (28, 38)]
    hand.stroke(drag, *(ends if tool == "box" else [ends[0], (28, 18), ends[1], (8, 38)]))
    mask = drag.trajectory.drags[0].mask
    assert mask[18:39, 8:29].all() and mask.sum() == 21 * 21


def test_edit_pulls_a_region_with_its_path(drag):
    hand.stroke(drag, (18, 28), (50, 45))
    before = drag.trajectory.drags[0]
    drag.tool.value = "edit"
    hand.stroke(drag, (13, 23), (20, 21), (23, 20))
    now = drag.trajectory.drags[0]
    assert (now.mask == np.roll(before.mask, (-3, 10), (0, 1))).all()
    assert np.allclose(now.path, np.add(before.path, (10, -3)))
    drag.undo()
    assert drag.trajectory.drags[0] == before


def test_double_click_delete_and_arrow_keys(drag):
    key = functools.partial(press, drag)

    def double(x, y):
        (at,) = drag.to_screen([(x, y)])
        drag.page._handle_custom_msg({"event": "double", "x": at[0], "y": at[1]}, [])

    hand.stroke(drag, (18, 28), (50, 44))
    double(34, 36)
    path = drag.trajectory.drags[0].path
    assert len(path) == 3 and np.allclose(path[1], (34, 36))
    double(60, 5)  # far from any path
    assert len(drag.trajectory.drags[0].path) == 3
    for name in ("ArrowRight", "ArrowRight", "ArrowUp"):
        key(name)
    assert np.allclose(drag.trajectory.drags[0].path[1], (36, 35))
    drag.undo()
    assert np.allclose(drag.trajectory.drags[0].path[1], (34, 36))  # one step for all of them
    key("Delete")
    assert len(drag.trajectory.drags[0].path) == 2
    drag.tool.value = "pin"
    hand.stroke(drag, (60, 60))
    drag.tool.value = "edit"
    hand.stroke(drag, (60, 60))
    key("ArrowLeft")
    assert np.allclose(drag.trajectory.pins, [(59, 60)])
    key("Delete")
    assert drag.trajectory.pins == () and len(drag.trajectory.drags) == 1
    key("Delete")
    assert drag.trajectory.drags == ()


def test_a_point_added_to_a_timed_path_gets_a_time_between(drag):
    mask = np.asarray(scene())[..., 0] > 150
    drag.trajectory = Drag([(18, 28), (30, 28), (50, 28)], mask=mask, times=(0, 0.2, 1))
    drag.double((40, 28))
    assert drag.trajectory.drags[0].times == pytest.approx((0, 0.2, 0.6, 1))


@pytest.mark.parametrize(
    "kind, names",
    [
        (PaintCanvas, {PAINT: "Paint", MASK: "Region"}),
        (DragCanvas, {MASK: "Region", MARKS: "Arrows"}),
    ],
)
def test_paint_region_and_arrows_are_hidden_each_alone(kind, names, monkeypatch):
    canvas, drawn = kind(scene(), autosave=None), []
    hand.stroke(canvas, (18, 28), (50, 45))
    if kind is PaintCanvas:
        canvas.tool.value = "mask"
        hand.stroke(canvas, (40, 40), (50, 40))
    for name in ("put", "path"):
        work = functools.partial(
            lambda work, n, *a: (drawn.append(n), work(n, *a)), getattr(canvas, name)
        )
        monkeypatch.setattr(canvas, name, work)
    assert {layer: eye.description for layer, eye in canvas.eyes.items()} == names
    for layer, eye in canvas.eyes.items():
        drawn.clear()
        eye.value = False
        assert set(drawn) == {PICTURE, *names} - {layer} and eye.icon == "eye-slash"
        drawn.clear()
        eye.value = True
        assert set(drawn) == {PICTURE, *names}
    press(canvas, "h")
    assert not any(eye.value for eye in canvas.eyes.values())
    press(canvas, "h")
    assert all(eye.value for eye in canvas.eyes.values()) and canvas.errors == []


def test_what_is_hidden_is_shown_again_where_something_is_drawn_on_it(paint):
    paint.show(PAINT, MASK, on=False)
    hand.stroke(paint, (5, 5), (20, 5))
    assert paint.eyes[PAINT].value and not paint.eyes[MASK].value
    paint.undo()
    assert paint.eyes[MASK].value


def test_one_frame_of_the_preview_is_looked_at(drag):
    hand.stroke(drag, (18, 28), (50, 45))
    drag.shown_frame.value = 4
    with Image.open(io.BytesIO(drag.preview.value)) as file:
        assert getattr(file, "n_frames", 1) == 1
    drag.shown_frame.value = 0
    with Image.open(io.BytesIO(drag.preview.value)) as file:
        assert file.n_frames == 4


@pytest.mark.parametrize("fit, corner", [("crop", (255, 0, 0)), ("pad", (255, 255, 255))])
def test_a_dropped_picture_is_cropped_or_padded(fit, corner):
    canvas, file = PaintCanvas(autosave=None, size=(32, 32)), io.BytesIO()
    Image.new("RGB", (60, 30), "red").save(file, "PNG")
    canvas.fit.value = fit
    canvas.page._handle_custom_msg({"event": "file", "name": "a.png"}, [file.getvalue()])
    assert canvas.picture.size == (32, 32) and canvas.picture.getpixel((0, 0)) == corner
    assert canvas.picture.getpixel((16, 16)) == (255, 0, 0) and canvas.errors == []


def test_rotate_scale_easing_pins_and_camera(drag):
    hand.stroke(drag, (18, 28), (40, 40))
    drag.rotate.value, drag.scale.value, drag.easing.value = 30, 1.5, "ease"
    made = drag.trajectory.drags[0]
    assert (made.rotate, made.scale, made.easing) == (30, 1.5, "ease")
    drag.tool.value = "pin"
    hand.stroke(drag, (60, 60))
    assert np.allclose(drag.trajectory.pins, [(60, 60)])
    hand.stroke(drag, (60, 60))
    assert drag.trajectory.pins == ()
    drag.pan_x.value, drag.zoom.value = 8, 1.2
    assert drag.trajectory.camera == Camera((8, 0), 1.2)
    drag.pan_x.value, drag.zoom.value = 0, 1
    assert drag.trajectory.camera is None


def test_a_camera_slider_changes_its_own_value_alone(drag):
    drag.trajectory = Camera((3 * SIDE, 0), easing="ease")  # further than the slider reaches
    drag.zoom.value = 1.2
    assert drag.trajectory.camera == Camera((3 * SIDE, 0), 1.2, easing="ease")


@pytest.mark.parametrize("point, time", [(0, 1.0), (1, 0.0), (1, 1.0), (2, 0.0)])
def test_points_that_are_reached_at_nearly_the_same_time_stay_in_order(drag, point, time):
    path, times = [(18, 28), (18.1, 28), (50, 45)], (0, 0.004, 0.008)
    drag.trajectory = Drag(path, mask=np.asarray(scene())[..., 0] > 150, times=times)
    drag.tool.value = "edit"
    drag._point = point
    drag.time.value = time
    now = drag.trajectory.drags[0].times
    assert now != times and now[0] < now[1] < now[2]


def test_a_slider_that_is_pulled_along_is_one_step_of_undo(drag):
    hand.stroke(drag, (18, 28), (40, 40))
    for angle in (5, 10, 15):
        drag.rotate.value = angle
    drag.undo()
    assert drag.trajectory.drags[0].rotate == 0 and drag.rotate.value == 0


def test_a_path_may_lead_out_of_the_picture(drag):
    hand.stroke(drag, (18, 28), (50, 28), (70, 28), end="mouse_out")
    assert drag.trajectory.drags[0].path[-1][0] > SIDE


@pytest.mark.parametrize("tool", ["edit", "add", "arrow"])
def test_undo_in_the_middle_of_a_press_ends_it(drag, tool):
    hand.stroke(drag, (18, 28), (50, 45))
    drag.tool.value = tool
    hand.event(drag, "mouse_down", 50, 45)
    drag.view._handle_custom_msg(
        {"event": "key_down", "key": "z", "shift_key": False, "ctrl_key": True, "meta_key": False},
        [],
    )
    assert drag.trajectory == TrajectoryInstruction()
    hand.event(drag, "mouse_move", 40, 40)
    hand.event(drag, "mouse_up", 40, 40)
    assert drag.trajectory == TrajectoryInstruction()


# -------------------------------------------------------------------------------- undo and redo

POINT = st.tuples(st.integers(1, SIDE - 2), st.integers(1, SIDE - 2))
PAINTING = st.one_of(
    st.tuples(st.sampled_from(list(PaintCanvas.TOOLS)), st.lists(POINT, min_size=1, max_size=4)),
    st.sampled_from([("clear", None), ("undo", None), ("redo", None), ("picture", None)]),
)
DRAGGING = st.one_of(
    st.tuples(st.sampled_from(list(DragCanvas.TOOLS)), st.lists(POINT, min_size=1, max_size=4)),
    st.sampled_from([("clear", None), ("undo", None), ("redo", None)]),
    st.tuples(st.sampled_from(["rotate", "scale", "time", "pan_x", "zoom"]), st.floats(0.5, 1.5)),
)


def act(canvas, operation, value):
    if operation in ("clear", "undo", "redo"):
        getattr(canvas, operation)()
    elif operation == "picture":
        canvas.picture = Image.new("RGB", (SIDE, SIDE), "green")
    elif isinstance(value, float):
        getattr(canvas, operation).value = value
    else:
        canvas.tool.value = operation
        hand.stroke(canvas, *value)


@pytest.mark.parametrize("kind, operations", [(PaintCanvas, PAINTING), (DragCanvas, DRAGGING)])
def test_undo_all_gives_the_start_and_redo_all_the_end(kind, operations):
    options = {"num_frames": 2} if kind is DragCanvas else {}

    @settings(max_examples=20)
    @given(st.lists(operations, max_size=8))
    def check(steps):
        canvas = kind(scene(), width=SIDE, autosave=None, **options)
        start = canvas.sketch
        for step in steps:
            act(canvas, *step)
        while canvas.redo():
            pass
        end, count = canvas.sketch, 0
        while canvas.undo():
            count += 1
        assert canvas.sketch == start
        assert canvas.undo_button.disabled
        for _ in range(count):
            assert canvas.redo()
        assert canvas.sketch == end and not canvas.redo()
        # What a person does wrongly is said; nothing else may go wrong.
        assert all(type(error) is ValueError for error in canvas.errors)

    check()


@settings(max_examples=20)
@given(st.lists(PAINTING, max_size=6), st.lists(DRAGGING, max_size=4))
def test_what_is_saved_loads_the_same(tmp_path_factory, painting, dragging):
    path = tmp_path_factory.mktemp("saved") / "a.json"
    for canvas, steps in (
        (PaintCanvas(scene(), width=SIDE, autosave=None), painting),
        (DragCanvas(scene(), width=SIDE, autosave=None), dragging),
    ):
        for step in steps:
            act(canvas, *step)
        kept = canvas.sketch
        canvas.save(path)
        canvas.clear()
        canvas.load(path)
        assert canvas.sketch == kept


# ------------------------------------------------------------------------------------- autosave


def test_what_a_canvas_begins_with_takes_no_drawings_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dot, way = Stroke([(9, 9)], width=4), Drag([(12, 30), (40, 30)])
    first = PaintCanvas(scene(), strokes=[dot])
    first.strokes = [dot, dot]
    first.autosave.flush()
    monkeypatch.setattr(session, "_OWNERS", {})  # another kernel
    canvas, drags = PaintCanvas(scene(), strokes=[dot]), DragCanvas(scene(), drags=way)
    assert canvas.strokes == (dot,) and drags.trajectory.drags == (way,)
    assert not canvas.undo() and not drags.undo()
    canvas.offer.children[1].click()  # bring it back
    assert canvas.strokes == (dot, dot) and canvas.undo() and canvas.strokes == (dot,)
    canvas.autosave.flush()
    assert canvas.errors == drags.errors == []
    with pytest.raises(ValueError, match="stroke"):
        PaintCanvas(scene(), strokes=[Stroke([(900, 900)], width=4)], autosave=None)


def test_what_was_drawn_is_offered_after_a_restart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = PaintCanvas(scene())
    assert first.offer.children == ()
    hand.stroke(first, (5, 5), (20, 5))
    first.autosave.flush()
    monkeypatch.setattr(session, "_OWNERS", {})  # another kernel
    again = PaintCanvas(scene())
    text, yes, no = again.offer.children
    assert again.strokes == ()
    yes.click()
    assert again.strokes == first.strokes and again.offer.children == ()
    again.undo()
    assert again.strokes == ()


def test_starting_anew_keeps_what_was_there_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = Autosave("a")
    monkeypatch.setattr(session, "_OWNERS", {})
    second = Autosave("a")
    old, new = Sketch(scene()), Sketch(Image.new("RGB", (9, 9)))
    old.save(first.path)
    second.put(new)
    second.flush()
    assert Sketch.load(second.path) == new and Sketch.load(second.previous) == old


def test_two_canvases_of_one_name_have_a_file_each(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    canvases = [PaintCanvas(scene()), PaintCanvas(scene())]
    for x, canvas in enumerate(canvases):
        hand.stroke(canvas, (5 + x, 5), (20 + x, 5))
        canvas.autosave.flush()
    monkeypatch.setattr(session, "_OWNERS", {})  # another kernel, and the same order
    again = [PaintCanvas(scene()) for _ in canvases]
    for before, now in zip(canvases, again, strict=True):
        now.offer.children[1].click()
        assert now.strokes == before.strokes


def test_a_cell_that_is_run_again_takes_its_file_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = []
    for cell, run in (("a", 1), ("a", 1), ("b", 2), ("a", 3)):
        monkeypatch.setattr(session, "_cell", lambda here=(cell, run): here)
        made.append(Autosave("paint"))
    names = ["paint.json", "paint-2.json", "paint-3.json", "paint.json"]
    assert [autosave.path.name for autosave in made] == names
    made[0].put(Sketch(scene()))  # its canvas is no longer in the notebook
    made[0].flush()
    assert not made[0].path.exists()


def test_a_process_that_ends_at_once_still_writes_and_canvases_leave_no_handler(tmp_path):
    code = """
import atexit
from PIL import Image
from ivkit.widgets.session import Autosave, Sketch
Autosave("first")
before = atexit._ncallbacks()
for name in "abc":
    Autosave(name).put(Sketch(Image.new("RGB", (9, 9), name == "a" and "red" or "blue")))
assert atexit._ncallbacks() == before, "handlers were left"
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env=environment)
    found = [Sketch.load(tmp_path / f"outputs/autosave/{name}.json") for name in "abc"]
    colours = [sketch.picture.getpixel((4, 4)) for sketch in found]
    assert colours == [(255, 0, 0), (0, 0, 255), (0, 0, 255)]


def test_a_canvas_that_is_let_go_is_free(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    autosave = Autosave("a")
    autosave.put(Sketch(scene()))
    autosave.flush()
    gone = weakref.ref(autosave)
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join()
    del autosave, thread
    gc.collect()
    assert gone() is None and Sketch.load(tmp_path / "outputs/autosave/a.json")


def test_a_damaged_autosave_is_no_offer_and_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "outputs/autosave/paint.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"version": 1, "type": "Ske')
    canvas = PaintCanvas(scene())
    assert canvas.offer.children == ()
    hand.stroke(canvas, (5, 5), (20, 5))
    canvas.autosave.flush()
    assert path.with_name("paint.previous.json").read_text().endswith("Ske")


def test_a_folder_that_cannot_be_written_is_said_and_drawing_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").write_text("a file, no folder")
    canvas = PaintCanvas(scene())
    hand.stroke(canvas, (5, 5), (20, 5))
    canvas.autosave.flush()
    hand.stroke(canvas, (5, 9), (20, 9))
    assert len(canvas.strokes) == 2 and "not being saved" in canvas.line.value
    pulled = DragCanvas(scene(), num_frames=2)
    hand.stroke(pulled, (18, 28), (50, 45))
    pulled.autosave.flush()
    pulled.undo()
    assert "not being saved" in pulled.line.value


# ------------------------------------------------------------------------------------ bad input


@functools.cache
def full_json() -> str:
    moves = TrajectoryInstruction([Drag([(18, 28), (40, 40)])])
    return json.dumps(Sketch(scene(), [Stroke([(5, 5), (9, 9)])], moves).to_json())


BAD_PICTURES = st.one_of(
    st.sampled_from([(0, 5, 3), (5, 0, 3), (4, 4, 2), (4,), (2, 2, 2, 2)]).map(
        lambda shape: np.zeros(shape, np.uint8)
    ),
    st.sampled_from([np.int32, np.complex64, np.uint16, bool]).map(lambda t: np.ones((4, 4), t)),
    st.sampled_from([np.nan, np.inf, -0.5, 1.5]).map(lambda v: np.full((4, 4), v, np.float32)),
    st.one_of(
        st.integers(),
        st.none(),
        st.binary(max_size=4),
        st.text(max_size=8).map(lambda t: f"no such file {t}".replace("\0", "")),
    ),
)
AWAY = st.floats(200, 1e6)
BAD_STROKES = st.one_of(
    st.tuples(AWAY, AWAY).map(lambda p: lambda: Stroke([p], width=2)),
    st.sampled_from([0, -3, np.nan, np.inf, "wide", None]).map(
        lambda v: lambda: Stroke([(5, 5)], width=v)
    ),
    st.floats(1.01, 99).map(lambda v: lambda: Stroke([(5, 5)], opacity=v)),
    st.text(max_size=5)
    .filter(lambda t: t not in ("", "red", "tan"))
    .map(lambda t: lambda: Stroke([(5, 5)], colour="no colour " + t)),
    st.just(lambda: Stroke([])),
)
BAD_DRAGS = st.one_of(
    st.tuples(AWAY, AWAY).map(lambda p: lambda: Drag([p, (5, 5)])),
    st.tuples(AWAY, AWAY).map(lambda p: lambda: Drag([(5, 5), p])),
    st.integers(1, 40).map(lambda n: lambda: Drag([(5, 5), (9, 9)], mask=np.ones((n, n)))),
    st.just(lambda: Drag([(5, 5)])),
    st.floats(21, 1e9).map(lambda v: lambda: Drag([(5, 5), (9, 9)], scale=v)),
)


def load_text(canvas, path, text):
    path.write_text(text)
    canvas.load(path)


CUT = st.integers(0, len(full_json()) - 1).map(lambda n: full_json()[:n])
BAD = st.one_of(
    BAD_PICTURES.map(lambda p: lambda c, d, path: setattr(c, "picture", p)),
    BAD_STROKES.map(lambda s: lambda c, d, path: setattr(c, "strokes", [s()])),
    BAD_DRAGS.map(lambda r: lambda c, d, path: setattr(d, "trajectory", r())),
    CUT.map(lambda text: lambda c, d, path: load_text(c, path, text)),
    CUT.map(lambda text: lambda c, d, path: load_text(d, path, text)),
    st.one_of(st.integers().filter(lambda v: v != 1), st.none(), st.text(max_size=3)).map(
        lambda v: (
            lambda c, d, path: load_text(
                c, path, full_json().replace('"version": 1', f'"version": {json.dumps(v)}', 1)
            )
        )
    ),
    st.sampled_from(
        [
            "[]",
            "3",
            "null",
            '{"version": 1}',
            '{"version": 1, "type": "Drag"}',
            '{"version": 1, "type": "Sketch", "colour": 2}',
        ]
    ).map(lambda text: lambda c, d, path: load_text(c, path, text)),
)


def test_200_bad_inputs_each_get_one_sentence_and_the_drawing_stays(tmp_path):
    canvas = PaintCanvas(scene(), width=SIDE, autosave=None)
    pulled = DragCanvas(scene(), width=SIDE, autosave=None, num_frames=2)
    hand.stroke(canvas, (5, 5), (9, 9))
    hand.stroke(pulled, (18, 28), (40, 40))
    kept, counted = (canvas.sketch, pulled.sketch), []

    @settings(max_examples=200)
    @given(BAD)
    def check(bad):
        with pytest.raises((ValueError, TypeError)) as told:
            bad(canvas, pulled, tmp_path / "a.json")
        says = str(told.value)
        assert 10 < len(says) < 500 and "\n" not in says, says
        assert (canvas.sketch, pulled.sketch) == kept
        counted.append(says)

    check()
    assert len(counted) >= 200
    assert canvas.sketch is kept[0] and pulled.sketch is kept[1]


@pytest.mark.parametrize(
    "name, content, says",
    [
        ("notes.txt", b"no picture at all", "notes.txt"),
        ("cut.png", hand.huge_png(40, 40)[:50], "cut"),
        ("huge.png", hand.huge_png(20_000, 20_000), "64 megapixels"),
        ("large.png", hand.huge_png(10_000, 9_000), "64 megapixels"),
        ("empty.jpg", b"", "empty.jpg"),
    ],
)
def test_a_bad_file_is_answered_below_the_canvas(name, content, says):
    canvas = PaintCanvas(scene(), autosave=None)
    hand.stroke(canvas, (5, 5), (20, 5))
    hand.upload(canvas, name, content)
    assert says in canvas.line.value and "Traceback" not in canvas.line.value
    assert len(canvas.strokes) == 1 and canvas.picture.size == (SIDE, SIDE)
    assert [type(error) for error in canvas.errors] == [ValueError]


def test_clicks_that_mean_nothing_are_answered():
    canvas = DragCanvas(scene(), autosave=None, num_frames=2)
    for tool, point in (("arrow", (18, 28)), ("add", (5, 5)), ("cut", (5, 5))):
        canvas.tool.value = tool
        hand.stroke(canvas, point)
        assert "⚠ <b>Error:</b>" in canvas.line.value
    hand.stroke(canvas, (50, 5), (55, 60))
    assert canvas.trajectory == TrajectoryInstruction()


# -------------------------------------------------------------------------- without the widgets


def test_a_notebook_without_its_widgets_shows_a_picture_of_what_was_drawn(tmp_path):
    nbconvert = pytest.importorskip("nbconvert")
    source = """
import hand, numpy as np
from ivkit import DragCanvas, PaintCanvas
canvas = PaintCanvas(np.full((32, 32, 3), 40, np.uint8), autosave=None)
canvas
---
hand.stroke(canvas, (5, 16), (28, 16))
---
DragCanvas(np.full((32, 32, 3), 90, np.uint8), autosave=None)
"""
    cells = [nbformat.v4.new_code_cell(cell.strip()) for cell in source.split("---")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    kernel = nbclient.NotebookClient(notebook, timeout=60, store_widget_state=False)
    kernel.execute(env=environment, cwd=str(tmp_path))
    page = nbconvert.HTMLExporter().from_notebook_node(notebook)[0]
    data = re.findall(r'class="ivkit-still-\w+"[^>]*src="data:image/jpeg;base64,([^"]+)"', page)
    painted, pulled = (Image.open(io.BytesIO(base64.b64decode(d))) for d in data)
    assert painted.size == (32, 32) and pulled.getpixel((16, 16))[0] in range(85, 96)
    assert painted.getpixel((16, 16))[0] > 200 and painted.getpixel((16, 3))[0] < 60
    views = [
        o
        for cell in cells
        for o in cell.outputs
        if "application/vnd.jupyter.widget-view+json" in o.get("data", {})
    ]
    assert len(views) == 2


def test_the_picture_that_is_left_is_hidden_while_the_widgets_are_there(monkeypatch):
    shown = []
    monkeypatch.setattr("ivkit.widgets.panel.display", lambda *a, **o: shown.append(a[0]))
    canvas = PaintCanvas(scene(), autosave=None)
    canvas._ipython_display_()
    name = re.search(r'class="([^"]+)"', shown[-1].data)[1]
    assert f".{name} {{display: none !important}}" in canvas.children[-1].value
