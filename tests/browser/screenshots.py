"""`make screenshots`: pictures of canvas, drags, explorer and studio in media/, from a real page.

python -m tests.browser.screenshots [canvas] [drag] [explorer] [studio]
"""

import sys
import tempfile
from pathlib import Path

from .lab import Lab

MEDIA = Path(__file__).parents[2] / "media"
RECORDED = f"recorded = iv.Instructions.load({str(MEDIA / 'quickstart.json')!r})"
PICTURE = """
import ivkit as iv
pipe = iv.load("storybook")
picture = pipe.image("a boat on the blue sea at day", seed=3)
"""
BOAT = "drag = recorded.trajectory.drags[0]"


def canvas(book):
    book.run()
    book.wait("'shown' in globals()", 120)
    s = 512 / 256
    book.stroke([(170 * s, 60 * s), (172 * s, 30 * s), (190 * s, 52 * s), (200 * s, 30 * s)])
    book.press("Region")
    book.wait("shown.tool.value == 'mask'")
    book.stroke([(50 * s, 50 * s), (110 * s, 45 * s)])
    book.wait("len(shown.strokes) == 2")
    book.press("Brush")
    shoot(book, "canvas")


def drag(book):
    book.run()
    book.wait("'shown' in globals()", 120)
    book.page.wait_for_timeout(1500)
    shoot(book, "drag")


def explorer(book):
    book.run()
    book.wait("'shown' in globals()", 240)
    book.page.wait_for_timeout(1500)
    shoot(book, "explorer")


def studio(book):
    book.run()
    book.wait("'shown' in globals() and not shown.busy and len(shown.results) == 2", 400)
    book.page.wait_for_selector("video")
    book.page.wait_for_timeout(2500)
    shoot(book, "studio")


CELLS = {
    canvas: [PICTURE, "shown = iv.PaintCanvas(picture, autosave=None)\nshown"],
    drag: [
        PICTURE,
        f"{RECORDED}\n{BOAT}\nshown = iv.DragCanvas(picture, autosave=None)",
        "shown.trajectory = iv.TrajectoryInstruction([drag], pins=[(60, 60)])\nshown",
    ],
    explorer: [
        PICTURE,
        f"{RECORDED}\nrun = pipe.video(picture, 'the boat moves right', progress=False,\n"
        "    edited=pipe.image('a sun and a boat on the blue sea at day', picture,\n"
        "    strokes=recorded.content.strokes), drags=recorded.trajectory)",
        "shown = iv.TraceExplorer(run)\nshown.step.value = 4\nshown",
    ],
    studio: [
        PICTURE,
        f"{RECORDED}\nshown = iv.Studio(pipe, picture, autosave=None)\nshown",
        "shown.paint.strokes = recorded.content.strokes\n"
        "shown.panel['content'].value = recorded.content.text\n"
        "shown.drag.trajectory = recorded.trajectory\n"
        "shown.generate()\nshown.join()\n"
        "shown.panel['lam'].value = 0.0\nshown.generate()",
    ],
}


def shoot(book, name):
    """The widget alone, as a person sees it in a window of 1200 pixels."""
    book.page.mouse.move(2, 2)
    shown = book.page.locator(".jp-OutputArea-output:has(.widget-vbox), .jp-OutputArea-output"
                              ":has(.jupyter-widgets)").first  # fmt: skip
    shown.screenshot(path=MEDIA / f"{name}.png")
    print(MEDIA / f"{name}.png")


def main():
    wanted = sys.argv[1:] or [take.__name__ for take in CELLS]
    with tempfile.TemporaryDirectory() as folder, Lab(folder, height=1900) as lab:
        for take, cells in CELLS.items():
            if take.__name__ in wanted:
                with lab.open(take.__name__, cells) as book:
                    take(book)


if __name__ == "__main__":
    main()
