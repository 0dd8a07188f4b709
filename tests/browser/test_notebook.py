"""The studio in Jupyter Notebook 7: draw, wheel, keys, Generate."""

import pytest

from ivkit.models import storybook_folder

from .test_studio import cells

STAGE = ".ivkit-stage:visible"


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.skipif(not storybook_folder().is_dir(), reason="no weights in this checkout")
def test_the_studio_in_notebook_7(notebook):
    with notebook.open("seven", cells(steps=3)) as book:
        book.run()
        book.wait("'studio' in globals()", 120)
        page, mouse = book.page, book.page.mouse
        page.wait_for_selector(f"{STAGE}[tabindex='0']")
        book.stroke([(200, 40), (260, 60)])
        book.wait("len(studio.paint.strokes) == 1")
        page.keyboard.press("l")
        book.wait("studio.paint.tool.value == 'lasso'")
        book.stroke([(60, 60), (120, 60), (120, 100), (60, 100)])
        book.wait("bool(studio.paint.mask.any())")
        page.keyboard.press("Control+z")
        book.wait("not studio.paint.mask.any()")
        page.keyboard.press("Control+s")
        path = notebook.root / "seven.ipynb"
        for _ in range(100):
            page.wait_for_timeout(100 * ('"output_type"' not in path.read_text()))
        assert '"output_type"' in path.read_text()

        page.set_viewport_size({"width": 1000, "height": 420})
        box = book.canvas()
        mouse.move(box["x"] + 100, box["y"] + 100)
        mouse.wheel(0, 90 if box["y"] > 160 else -90)
        page.wait_for_timeout(500)
        moved = page.locator(f"{STAGE} canvas").first.bounding_box()
        assert moved["y"] != box["y"] and moved["width"] == box["width"]
        book.canvas()
        page.keyboard.down("Control")
        mouse.wheel(0, -90)
        page.keyboard.up("Control")
        book.wait("studio.paint.page.zoom > 1")
        page.keyboard.press("0")
        book.wait("studio.paint.page.zoom == 1")

        book.press("Generate")
        book.wait("len(studio.results) == 1 and not studio.busy", 120)
        page.wait_for_selector(".jp-OutputArea video", state="visible")
        book.press("Drag")
        book.wait("studio.mode.value == 'Drag'")
        page.wait_for_timeout(800)
        book.stroke([(180, 240), (260, 260)])
        book.wait("len(studio.drag.trajectory.drags) == 1")
        assert book.kernel("[repr(error) for error in studio.errors]") == []
