"""Mouse strokes in a real page, and what the kernel holds afterwards."""

import pytest

pytestmark = pytest.mark.browser

SETUP = """
import numpy as np
from PIL import Image
from ivkit import PaintCanvas, DragCanvas
picture = np.full((256, 256, 3), (120, 180, 230), np.uint8)
picture[100:140, 60:110] = (200, 40, 40)
picture[185:225, 195:235] = (40, 140, 60)
"""
INKED = """() => {
    const canvas = [...document.querySelectorAll('.jp-OutputArea canvas')]
        .filter(c => c.offsetParent)[0];
    const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    let yellow = 0;
    for (let i = 0; i < data.length; i += 4)
        if (data[i] > 230 && data[i + 1] > 180 && data[i + 2] < 90) yellow += 1;
    return yellow;
}"""


def test_draw_undo_clear_and_find_it_again_after_a_reload(lab):
    cells = [SETUP, "canvas = PaintCanvas(picture, width=384)", "canvas"]
    with lab.open("draw", cells) as book:
        book.run()
        book.page.wait_for_selector(".jp-OutputArea canvas:visible")
        book.stroke([(60, 60), (150, 90), (200, 60)])
        book.wait("len(canvas.strokes) == 1")
        first = book.kernel("canvas.strokes[0].points[0]")
        assert first == pytest.approx([60 / 1.5 - 0.5, 60 / 1.5 - 0.5], abs=1)

        book.stroke([(300, 200), (360, 210), (500, 215)])  # leaves with the button down
        book.wait("len(canvas.strokes) == 2")
        assert book.kernel("canvas.strokes[1].points[-1][0]") > 240
        book.stroke([(100, 300), (160, 300)])
        book.wait("len(canvas.strokes) == 3")
        assert len(book.kernel("canvas.strokes[2].points")) > 1  # begins where it was pressed
        assert book.kernel("canvas.strokes[2].points[0][1]") == pytest.approx(199.5, abs=1)

        book.press("Undo")
        book.wait("len(canvas.strokes) == 2")
        book.press("Redo")
        book.wait("len(canvas.strokes) == 3")
        book.press("Clear")
        book.wait("len(canvas.strokes) == 0")
        book.press("Undo")
        book.wait("len(canvas.strokes) == 3")

        book.press("Region")
        book.wait("canvas.tool.value == 'mask'")
        book.stroke([(200, 300), (300, 300)])
        book.wait("bool(canvas.mask.any())")
        assert book.kernel("len(canvas.strokes)") == 4

        book.page.wait_for_timeout(300)
        before = book.page.evaluate(INKED)
        assert before > 1000
        book.save()
        book.reload()
        book.page.wait_for_selector(".jp-OutputArea canvas:visible")
        book.page.wait_for_function(f"({INKED})() > {0.95 * before}", timeout=20_000)
        left = book.page.locator("img[class^='ivkit-still']")  # for a page without the widgets
        assert left.count() == 1 and not left.is_visible()
        left.evaluate("image => image.className = 'shown'")
        assert book.page.locator("img.shown").evaluate("image => image.naturalWidth") == 256
        book.press("Brush")
        book.wait("canvas.tool.value == 'brush'")
        book.stroke([(60, 340), (120, 345)])
        book.wait("len(canvas.strokes) == 5")
        assert book.kernel("[repr(error) for error in canvas.errors]") == []


@pytest.mark.slow
def test_two_drags_one_of_them_edited(lab):
    cells = [SETUP, "canvas = DragCanvas(picture, width=384)", "canvas"]
    with lab.open("drag", cells) as book:
        book.run()
        book.page.wait_for_selector(".jp-OutputArea canvas:visible")
        book.stroke([(128, 180), (200, 120), (260, 130)])
        book.wait("len(canvas.trajectory.drags) == 1")
        assert book.kernel("int(canvas.trajectory.drags[0].mask.sum())") == pytest.approx(
            2000, rel=0.2
        )
        book.press("Path")
        book.wait("canvas.tool.value == 'path'")
        book.stroke([(320, 310), (340, 200), (200, 300)])
        book.wait("len(canvas.trajectory.drags) == 2")
        assert len(book.kernel("canvas.trajectory.drags[1].path")) > 2
        book.press("Edit")
        book.wait("canvas.tool.value == 'edit'")
        book.stroke([(260, 130), (300, 60)])
        book.wait("canvas.trajectory.drags[0].path[-1][0] > 190")
        target = book.kernel("canvas.trajectory.drags[0].path[-1]")
        assert target == pytest.approx([300 / 1.5 - 0.5, 60 / 1.5 - 0.5], abs=1)
        if "anywidget" in book.kernel("list(__import__('sys').modules)"):
            box = book.canvas()
            book.page.mouse.dblclick(box["x"] + 214, box["y"] + 120)
            book.wait("len(canvas.trajectory.drags[0].path) == 3")
            book.page.keyboard.press("Delete")
            book.wait("len(canvas.trajectory.drags[0].path) == 2")
        assert book.kernel("bytes(canvas.preview.value[8:12]).decode()") == "WEBP"
        assert book.kernel("[repr(error) for error in canvas.errors]") == []
