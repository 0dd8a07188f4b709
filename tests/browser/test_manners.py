"""A canvas is a part of its page: it fits, it has a name, and it takes only what is its own."""

import pytest

from ivkit.models import storybook_folder

pytestmark = [pytest.mark.browser]
SETUP = """
import numpy as np
import ivkit as iv
picture = np.full((256, 256, 3), (120, 180, 230), np.uint8)
picture[100:140, 60:110] = (200, 40, 40)
"""
PAINT = [SETUP, "canvas = iv.PaintCanvas(picture, width=384, autosave=None)\ncanvas"]
STAGE = ".ivkit-stage:visible"


def paint(lab, name, **options):
    pytest.importorskip("anywidget")
    return lab.open(name, PAINT, **options)


def ready(book):
    book.run()
    book.page.wait_for_selector(f"{STAGE}[tabindex='0']")


def test_keys_wheel_and_buttons(lab):
    with paint(lab, "manners") as book:
        ready(book)
        page, mouse = book.page, book.page.mouse
        page.evaluate("seen = []; document.addEventListener('keydown', e => seen.push(e.key))")
        book.stroke([(60, 60), (150, 90)])
        book.wait("len(canvas.strokes) == 1")

        for key in ("q", "Escape", "Control+s", "Control+z", "Control+y", "e", "]"):
            page.keyboard.press(key)
        book.wait("canvas.tool.value == 'eraser' and canvas.size.value > 13")
        assert [key for key in page.evaluate("seen") if key != "Control"] == ["q", "Escape", "s"]
        path = lab.root / "manners.ipynb"
        for _ in range(100):
            page.wait_for_timeout(100 * ('"output_type"' not in path.read_text()))
        assert '"output_type"' in path.read_text()
        assert book.kernel("len(canvas.strokes)") == 1 and book.cells == 2
        page.keyboard.press("b")
        page.keyboard.press("Tab")
        assert page.evaluate("!document.activeElement.matches('.ivkit-stage, .ivkit-stage *')")

        box = book.canvas()
        x, y = box["x"], box["y"]
        for button in ("right", "middle"):
            mouse.move(x + 50, y + 200)
            mouse.down(button=button)
            mouse.move(x + 150, y + 200, steps=4)
            mouse.up(button=button)
        page.keyboard.press("Escape")
        mouse.move(x + 300, y + 200)  # leaves and returns with the button held
        mouse.down()
        for to in ((600, 220), (600, 320), (200, 320)):
            mouse.move(x + to[0], y + to[1], steps=4)
        mouse.up()
        mouse.move(x + 100, y + 100)
        book.wait("len(canvas.strokes) == 2")
        points = book.kernel("canvas.strokes[1].points")
        assert points[0][0] == pytest.approx(300 / 1.5 - 0.5, abs=1)
        assert points[-1] == pytest.approx([200 / 1.5 - 0.5, 320 / 1.5 - 0.5], abs=1)
        mouse.move(x + 300, y + 50)  # let go outside
        mouse.down()
        mouse.move(x + 600, y + 50, steps=4)
        mouse.up()
        book.wait("len(canvas.strokes) == 3")

        page.set_viewport_size({"width": 1000, "height": 420})
        box = book.canvas()
        mouse.move(box["x"] + 100, box["y"] + 100)
        mouse.wheel(0, 90 if box["y"] > 60 else -90)
        page.wait_for_timeout(500)
        moved = page.locator(f"{STAGE} canvas").bounding_box()
        assert moved["y"] != box["y"] and moved["width"] == box["width"]
        assert book.kernel("[repr(error) for error in canvas.errors]") == []


@pytest.mark.slow
def test_a_screen_of_twice_the_density_is_sharp_and_so_is_what_was_brought_nearer(lab):
    with paint(lab, "dense", device_scale_factor=2) as book:
        ready(book)
        book.wait("canvas.view.width == 768")
        assert book.canvas()["width"] == 384
        book.stroke([(60, 60), (150, 90)])
        book.wait("len(canvas.strokes) == 1")
        first = book.kernel("canvas.strokes[0].points[0]")
        assert first == pytest.approx([60 / 1.5 - 0.5, 60 / 1.5 - 0.5], abs=1)
        book.page.keyboard.press("+")
        book.wait("canvas.view.width == 1152")
        stage = book.page.locator(STAGE).bounding_box()
        assert stage["width"] == 384
        x, y = stage["x"] + 192, stage["y"] + 192  # the middle stays where it is
        book.page.mouse.move(x, y)
        book.page.mouse.down()
        book.page.mouse.move(x + 60, y, steps=4)
        book.page.mouse.up()
        book.wait("len(canvas.strokes) == 2")
        points = book.kernel("canvas.strokes[1].points")
        assert points[0] == pytest.approx([127.5, 127.5], abs=1)
        assert points[-1][0] - points[0][0] == pytest.approx(60 / 1.5 / 1.5, abs=1)

        ring = book.page.locator(f"{STAGE} .ivkit-page > div").bounding_box()
        assert ring["width"] == pytest.approx(book.kernel("canvas.size.value") * 1.5 * 1.5, abs=1)
        assert ring["x"] + ring["width"] / 2 == pytest.approx(x + 60, abs=1)
        at = book.page.locator(f"{STAGE} canvas")
        before = at.bounding_box()
        book.page.keyboard.down(" ")
        book.page.mouse.down()
        book.page.mouse.move(x + 20, y + 30, steps=4)
        book.page.mouse.up()
        book.page.keyboard.up(" ")
        after = at.bounding_box()
        assert (after["x"] - before["x"], after["y"] - before["y"]) == (-40, 30)
        book.page.keyboard.press("0")
        book.wait("canvas.page.zoom == 1 and len(canvas.strokes) == 2")


GIVE = """async kind => {
    const canvas = Object.assign(document.createElement('canvas'), {width: 40, height: 30});
    const blob = await new Promise(done => canvas.toBlob(done, 'image/png'));
    const data = new DataTransfer();
    data.items.add(new File([blob], kind + '.png', {type: 'image/png'}));
    const stage = document.querySelector('.ivkit-stage');
    stage.focus();
    const more = {bubbles: true, cancelable: true};
    stage.dispatchEvent(kind == 'drop' ? new DragEvent('drop', {dataTransfer: data, ...more})
        : new ClipboardEvent('paste', {clipboardData: data, ...more}));
}"""


@pytest.mark.slow
def test_a_picture_is_dropped_and_pasted(lab):
    with paint(lab, "given") as book:
        ready(book)
        for kind in ("drop", "paste"):
            book.page.evaluate(GIVE, kind)
            book.wait("canvas.picture.size == (40, 30)")
            book.page.keyboard.press("Control+z")
            book.wait("canvas.picture.size == (256, 256)")
        assert book.kernel("[repr(error) for error in canvas.errors]") == []


STUDIO = [
    SETUP + "pipe = iv.load('storybook')\n"
    "run = pipe.video(picture, 'the boat moves right', edited=picture, num_inference_steps=3,\n"
    "                 num_frames=4, progress=False)",
    "studio = iv.Studio(pipe, autosave=None)\nstudio",
    "explorer = iv.TraceExplorer(run)\nexplorer",
]
AT_HAND = ("Generate", "Pause", "Stop", "Undo", "Redo", "Clear")
FAULTS = """root => [...root.querySelectorAll('*')].filter(node =>
    node.title === 'null' ||
    node.matches('button') && !(node.title || node.ariaLabel || node.innerText.trim()))
    .map(node => node.outerHTML)"""


@pytest.mark.slow
@pytest.mark.skipif(not storybook_folder().is_dir(), reason="no weights in this checkout")
def test_all_of_it_fits_the_window_and_has_names_and_contrast(lab):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    pytest.importorskip("anywidget")
    with lab.open("wide", STUDIO, width=1400, sidebar=True) as book:
        book.run()
        book.wait("'explorer' in globals()", 240)
        page = book.page
        page.wait_for_selector(f"{STAGE}[tabindex='0']")
        book.kernel("studio.line.say('A message.')")
        output = page.locator(".jp-OutputArea-output")
        for width in (1400, 1024, 800):
            page.set_viewport_size({"width": width, "height": 768})
            page.wait_for_timeout(800)
            panel = page.locator(".jp-Notebook").bounding_box()
            for mode in ("Paint", "Drag"):
                book.press(mode)
                book.wait(f"studio.mode.value == {mode!r}")
                page.wait_for_timeout(500)
                parts = [page.locator(f"button:visible:has-text('{name}')") for name in AT_HAND]
                parts += [
                    page.locator(".widget-label:visible", has_text="λ"),
                    page.locator("[role=status]:visible"),
                ]
                parts += [page.locator(".noUi-target:visible"), page.locator(STAGE)]
                for part in parts:
                    box = part.first.bounding_box()
                    assert box["x"] >= panel["x"], (width, mode, str(part))
                    assert box["x"] + box["width"] <= panel["x"] + panel["width"], (width, mode)
                below = [page.locator(STAGE), parts[-3], *parts[3:6], *parts[:3]]
                ends = [part.first.bounding_box() for part in below]
                assert ends[-1]["y"] + 30 - ends[0]["y"] - ends[0]["height"] < 160
                assert sorted(ends, key=lambda box: box["y"]) == ends
                assert output.nth(0).evaluate("node => node.scrollWidth <= node.clientWidth")
            assert output.nth(1).evaluate("node => node.scrollWidth <= node.clientWidth")
            step = page.locator(".widget-hslider:has-text('Step'):visible").last.bounding_box()
            assert step["width"] > 300
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            book.press("Paint" if scheme == "dark" else "Drag")
            page.wait_for_timeout(1500)
            found = axe.run(page, context=".jp-OutputArea-output").response["violations"]
            serious = [fault for fault in found if fault["impact"] in ("serious", "critical")]
            assert [(f["id"], [n["html"] for n in f["nodes"]]) for f in serious] == [], scheme
        assert output.nth(0).evaluate(FAULTS) == [] and output.nth(1).evaluate(FAULTS) == []
        assert page.locator(f"{STAGE} canvas").get_attribute("aria-label")
