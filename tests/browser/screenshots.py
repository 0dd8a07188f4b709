"""`make screenshots`: canvas, drags, explorer and studio in a real page.

In both themes and at three widths, into outputs/screenshots/; what README shows goes to media/ too.

python -m tests.browser.screenshots [canvas] [drag] [explorer] [studio]
"""

import io
import itertools
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops

from .lab import Lab, chromium

MEDIA = Path(__file__).parents[2] / "media"
ALL = MEDIA.parent / "outputs/screenshots"
THEMES, WIDTHS, HEIGHT = ("light", "dark"), (1400, 1024, 800), 2400
SHOWN = "light", 1400  # in README
PICTURE = f"""
import ivkit as iv
pipe = iv.load("storybook")
recorded = iv.Instructions.load({str(MEDIA / "quickstart.json")!r})
picture = pipe.image("a boat on the blue sea at day", seed=recorded.seed)
"""
BOAT = "drag = recorded.trajectory.drags[0]"


def canvas(book):
    book.run()
    book.wait("'shown' in globals()", 120)
    turns = [(r, a) for r in (24, 12) for a in np.linspace(0, 2 * np.pi, 24)]
    book.stroke([(400 + r * np.cos(a), 90 + r * np.sin(a)) for r, a in turns])
    book.press("Region")
    book.wait("shown.tool.value == 'mask'")
    book.stroke([(90, 110), (220, 95)])
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
    book.wait("'shown' in globals()", 240)
    for n, lam in enumerate((0.3, 0.0, 0.6), 1):
        book.kernel(f"shown.panel['lam'].set_trait('value', {lam})")
        book.press("Generate")
        book.wait(f"len(shown.results) == {n} and not shown.busy", 400)
    book.page.wait_for_selector("video")
    book.page.wait_for_timeout(2500)
    shoot(book, "studio")


CELLS = {
    canvas: [PICTURE, "shown = iv.PaintCanvas(picture, autosave=None)\nshown"],
    drag: [
        PICTURE,
        f"{BOAT}\nshown = iv.DragCanvas(picture, autosave=None)",
        "shown.trajectory = iv.TrajectoryInstruction([drag], pins=[(60, 60)])\nshown",
    ],
    explorer: [
        PICTURE,
        "run = pipe.video(picture, 'the boat moves right', progress=False,\n"
        "    edited=pipe.image('a sun and a boat on the blue sea at day', picture,\n"
        "    strokes=recorded.content.strokes), drags=recorded.trajectory)",
        "shown = iv.TraceExplorer(run)\nshown.step.value = 4\nshown.words.value = True\nshown",
    ],
    studio: [
        PICTURE,
        "shown = iv.Studio(pipe, picture, autosave=None)\n"
        "shown.panel['seed'].value = recorded.seed\nshown",
        "shown.paint.strokes = recorded.content.strokes\n"
        "shown.panel['content'].value = recorded.content.text\n"
        "shown.drag.trajectory = recorded.trajectory",
    ],
}


def shoot(book, name):
    """The widget alone, in both themes and at three widths of the window."""
    for theme, width in itertools.product(THEMES, WIDTHS):
        book.page.emulate_media(color_scheme=theme)
        book.page.set_viewport_size({"width": width, "height": HEIGHT})
        book.page.mouse.move(2, 2)
        book.page.wait_for_timeout(2000)
        shown = book.page.locator(".jp-OutputArea-output:has(.ivkit-page)").first
        picture = Image.open(io.BytesIO(shown.screenshot())).convert("RGB")
        empty = Image.new("RGB", picture.size, picture.getpixel((picture.width - 1, 0)))
        _, _, right, low = ImageChops.difference(picture, empty).getbbox()
        picture = picture.crop((0, 0, min(right + 8, picture.width), min(low + 8, picture.height)))
        path = ALL / f"{name}-{theme}-{width}.png"
        picture.save(path)
        if (theme, width) == SHOWN:
            picture.save(MEDIA / f"{name}.png", optimize=True)
        print(path)


def main():
    wanted = sys.argv[1:] or [take.__name__ for take in CELLS]
    ALL.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        chromium() as browser,
        Lab(folder, browser, height=HEIGHT) as lab,
    ):
        for take, cells in CELLS.items():
            if take.__name__ in wanted:
                with lab.open(take.__name__, cells, width=WIDTHS[0]) as book:
                    take(book)


if __name__ == "__main__":
    main()
