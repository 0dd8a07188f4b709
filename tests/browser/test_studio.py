"""The studio in a real page, with the embedded model: few steps and frames, all of the buttons."""

import pytest

from ivkit.models import storybook_folder

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not storybook_folder().is_dir(), reason="no weights in this checkout"),
]

CELLS = [
    "import ivkit as iv\npipe = iv.load('storybook')\n"
    "picture = pipe.image('a boat on the blue sea at day', seed=3, num_inference_steps=4)",
    "studio = iv.Studio(pipe, picture)",
    "studio.panel['steps'].value, studio.panel['frames'].value = {steps}, 4\nstudio",
]


def cells(steps: int) -> list[str]:
    return [cell.format(steps=steps) for cell in CELLS]


def test_generate_and_see_the_video(lab):
    with lab.open("generate", cells(steps=3)) as book:
        book.run()
        book.wait("'studio' in globals()", 120)
        book.page.wait_for_selector(".jp-OutputArea canvas:visible")
        assert book.page.locator("video").count() == 0
        book.press("Generate")
        book.wait("len(studio.results) == 1 and not studio.busy", 120)
        video = book.page.wait_for_selector(".jp-OutputArea video", state="visible")
        book.page.wait_for_function(
            "video => video.readyState >= 2 && video.videoWidth == 256", arg=video
        )
        assert book.kernel("studio.results[0].frames.shape") == [4, 256, 256, 3]
        assert book.kernel("[repr(error) for error in studio.errors]") == []


@pytest.mark.slow
def test_pause_paint_drag_resume_stop_and_find_it_again(lab):
    with lab.open("pause", cells(steps=8)) as book:
        book.run()
        book.wait("'studio' in globals()", 120)
        book.page.wait_for_selector(".jp-OutputArea canvas:visible")
        book.press("Generate")
        book.wait("studio.state == 'running'")
        book.press("Pause")
        book.wait("studio.state == 'paused'")
        book.stroke([(260, 60), (290, 70), (270, 80)])  # the canvas is alive meanwhile
        book.wait("len(studio.paint.strokes) == 1")
        book.press("Drag")
        book.wait("studio.mode.value == 'Drag'")
        book.page.wait_for_timeout(800)  # until the page shows the other canvas
        book.stroke([(180, 240), (260, 260)])
        book.wait("len(studio.drag.trajectory.drags) == 1")
        assert book.kernel("studio.state") == "paused"
        book.press("Resume")
        book.wait("len(studio.results) == 1 and not studio.busy", 180)
        assert book.kernel("len(studio.results[0].take.changes)") == 1
        assert book.kernel("studio.results[0].take.changes[0].step") >= 1
        assert book.kernel("len(studio.results[0].take.changes[0].trajectory.drags)") == 1

        book.press("Generate")
        book.wait("studio.state == 'running'")
        book.press("Stop")
        book.wait("not studio.busy", 60)
        assert book.kernel("[repr(error) for error in studio.errors]") == []

        book.kernel("studio.autosave.flush()")
        book.save()
        book.reload()
        book.page.wait_for_selector(".jp-OutputArea video", state="visible")
        assert book.kernel("len(studio.paint.strokes)") == 1
        book.kernel("__import__('ivkit').widgets.session._OWNERS.clear()")  # as in another kernel
        book.kernel("globals().__setitem__('again', iv.Studio(pipe))")
        assert book.kernel("len(again.offer.children)") == 3
        book.kernel("again.offer.children[1].click()")
        assert book.kernel("len(again.paint.strokes)") == 1
        assert book.kernel("len(again.drag.trajectory.drags)") == 1
        assert book.kernel("len(again.results)") >= 1
