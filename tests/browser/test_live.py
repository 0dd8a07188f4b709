"""A thing pulled by mouse while the stream plays, in a real page."""

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CELLS = [
    "import numpy as np, ivkit as iv\npipe = iv.load('storybook')\n"
    "picture = pipe.image('a boat on the blue sea at day', seed=5, progress=False)",
    "canvas = iv.LiveCanvas(pipe, picture, width=360)",
    "canvas",
]


def test_a_boat_is_pulled_while_it_plays(lab):
    with lab.open("live", CELLS, width=1024) as book:
        book.run()
        book.page.wait_for_selector(".jp-OutputArea canvas:visible")
        book.press("Play")
        book.wait("canvas.live.index > 1")
        box = book.canvas()
        at = [
            (box["x"] + 360 / 256 * x, box["y"] + 360 / 256 * y)
            for x, y in ((85, 165), (120, 150), (170, 140))
        ]
        book.page.mouse.move(*at[0])
        book.page.mouse.down()
        book.wait("len(canvas.live.held) == 1")
        for point in at[1:]:
            book.page.mouse.move(*point, steps=6)
        begun = book.kernel("__import__('time').monotonic()")
        book.wait("any(h.now[0] > 165 for _, h in canvas.live.state.held)")
        print(
            "a pull is in the stream after", book.kernel("__import__('time').monotonic()") - begun
        )
        book.page.mouse.up()
        book.wait("not canvas.live.state.held and canvas._hand is None")
        book.press("Pause")
        book.wait("not canvas.play.value")
        mask = "iv.grow_mask(canvas.live.frame, (170, 140))"
        x, y = book.kernel(f"np.argwhere({mask}).mean(0)[::-1].tolist()")
        share = book.kernel(f"{mask}.mean()")
        assert abs(x - 168) < 20 and abs(y - 140) < 25 and 0.01 < share < 0.15
        assert book.kernel("[repr(error) for error in canvas.errors]") == []
        for name in ("Pause", "Play"):
            shown = book.page.locator(f".jp-OutputArea button:visible:has-text('{name}')")
            if shown.count():
                edge = shown.first.bounding_box()
                assert 0 <= edge["x"] and edge["x"] + edge["width"] <= 1024
        book.page.screenshot(path=lab.folder / "live.png")
