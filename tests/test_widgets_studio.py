"""Studio and TraceExplorer, driven without a browser, on a tiny random model."""

import base64
import copy
import dataclasses
import io
import json
import subprocess
import sys
import threading
import time
import types

import hand
import imageio_ffmpeg
import numpy as np
import pytest
import tiny
import torch
from PIL import Image

import ivkit as iv
from ivkit.pipeline import Pipeline
from ivkit.widgets import session
from ivkit.widgets.session import Change, Session, Take
from ivkit.widgets.studio import CONSTANT, RAMP, REGION

MOTION = "the boat moves right"


@pytest.fixture
def studio(tmp_path):
    made = make(tmp_path)
    yield made
    made.stop()
    made.join(30)


def make(folder, **options):
    options = {"autosave": None, "folder": folder / "out"} | options
    studio = iv.Studio(tiny.pipeline("storybook"), tiny.picture(), **options)
    for name, value in {"prompt": "the boat", "content": "a sun", "motion": MOTION}.items():
        studio.panel[name].value = value
    studio.paint.size.value = 4
    return studio


def generate(studio):
    studio.generate()
    studio.join(60)
    assert studio.errors == [] and not studio.busy
    return studio.results[-1]


def paused(studio):
    """Generate, and hold after the first step."""
    studio.generate()
    studio.pause()
    wait(lambda: studio.state == "paused")


def wait(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_drag_is_previewed_on_the_clip_that_was_made(studio):
    generate(studio)
    studio.mode.value = "Drag"
    studio.drag.trajectory = iv.Drag([(5, 7), (9, 7)], mask=tiny.region())
    seen = studio.drag.warped()
    run = studio.pipe.last_run
    expected = iv.warp(run.picture, studio.drag.trajectory, len(run.frames), clip=run.unedited)
    np.testing.assert_array_equal(seen.frames, expected.frames)
    hand.stroke(studio.paint, (3, 3), (6, 4))  # another picture: nothing is known of it
    studio.mode.value = "Paint"
    studio.mode.value = "Drag"
    still = iv.warp(studio.drag.picture, studio.drag.trajectory, len(run.frames))
    np.testing.assert_array_equal(studio.drag.warped().frames, still.frames)
    run = generate(studio) and studio.pipe.last_run
    studio.mode.value = "Paint"
    studio.mode.value = "Drag"  # which shows x' now
    painted = iv.warp(run.still, studio.drag.trajectory, len(run.frames), clip=run.undragged)
    np.testing.assert_array_equal(studio.drag.warped().frames, painted.frames)


def test_a_clip_is_what_the_pipeline_makes_of_the_same_instructions(studio):
    hand.stroke(studio.paint, (3, 3), (6, 4))
    studio.mode.value = "Drag"
    studio.drag.trajectory = iv.Drag([(5, 7), (9, 7)], mask=tiny.region())
    studio.panel["lam"].value = 0.2
    result = generate(studio)
    run = tiny.pipeline("storybook").run(result.take.instructions)
    assert (result.frames == run.frames).all()
    assert (studio.unedited == run.unedited).all()
    assert "λ 0.2 · seed 3 · 4 steps" in result.card.children[2].value


def test_pause_paint_resume_takes_effect_from_that_step_on(studio):
    plain = generate(studio)
    paused(studio)
    hand.stroke(studio.paint, (3, 3), (6, 4))
    studio.resume()
    studio.join(60)
    edited = studio.results[-1]
    (change,) = edited.take.changes
    assert change.step == 1 and edited.take.edited is None and change.edited is not None
    assert not (edited.frames == plain.frames).all()

    pipe = tiny.pipeline("storybook")
    for step in pipe.denoise(studio.paint.picture, MOTION, lam=0.3, seed=3, motion_scale=1):
        if step.index == 0:
            step.change(edited=change.edited)
    assert (pipe.last_run.frames == edited.frames).all()


def test_a_pause_without_a_change_changes_nothing(studio):
    plain = generate(studio)
    paused(studio)
    studio.resume()
    studio.join(60)
    assert studio.results[-1].take.changes == ()
    assert (studio.results[-1].frames == plain.frames).all()


def test_bad_input_while_paused_is_said_and_it_stays_paused(studio):
    paused(studio)
    studio.panel["motion"].value = "the zeppelin moves right"
    studio.pause_button.click()
    assert "zeppelin" in studio.line.value and studio.state == "paused" and studio.busy
    studio.panel["motion"].value = "the sun moves right"
    studio.pause_button.click()
    studio.join(60)
    assert studio.results[-1].take.changes[0].motion == "the sun moves right"
    assert len(studio.errors) == 1


def test_stop_keeps_what_was_foreseen(studio):
    paused(studio)
    studio.stop_button.click()
    studio.join(60)
    (result,) = studio.results
    assert result.take.stopped == 1 and result.frames.shape == (4, 16, 16, 3)
    run = result.take.replay(tiny.pipeline("storybook"))
    assert (run.frames == result.frames).all()


def held(monkeypatch, studio, name):
    """A method of the pipeline that waits, once it was called, until `go` is set."""
    called, go, method = threading.Event(), threading.Event(), getattr(studio.pipe, name)

    def slow(*args, **options):
        called.set()
        assert go.wait(60)
        return method(*args, **options)

    monkeypatch.setattr(studio.pipe, name, slow)
    return called, go


def test_stop_while_a_change_is_being_drawn_leaves_the_change_out(studio, monkeypatch):
    hand.stroke(studio.paint, (3, 3), (6, 4))
    paused(studio)
    hand.stroke(studio.paint, (10, 10), (12, 12))
    called, go = held(monkeypatch, studio, "denoise_image")
    studio.resume()
    assert called.wait(60)
    studio.stop()
    go.set()
    studio.join(60)
    take = studio.results[-1].take
    assert take.changes == () and take.stopped == 1
    again = take.replay(tiny.pipeline("storybook"))
    assert (again.frames == studio.results[-1].frames).all()


def test_stop_is_heard_while_a_bad_change_is_refused(studio, monkeypatch):
    paused(studio)
    studio.panel["lam"].value = 0.9

    def refuse(*args, **options):
        studio.stop()
        raise ValueError("no such change")

    monkeypatch.setattr("ivkit.video.Step.change", refuse)
    studio.resume()
    studio.join(5)
    assert not studio.busy and studio.results[-1].take.stopped == 1


def test_a_change_made_before_the_pause_began_is_not_lost(studio, monkeypatch):
    called, go = held(monkeypatch, studio, "denoise")
    studio.generate()
    assert called.wait(60)
    studio.pause()
    studio.panel["lam"].value = 0.9
    studio.resume()
    go.set()
    studio.join(60)
    (change,) = studio.results[-1].take.changes
    assert change.lam == 0.9


def test_the_picture_to_drag_on_shows_the_paint_of_now(studio, monkeypatch):
    hand.stroke(studio.paint, (3, 3), (6, 4))
    called, go = held(monkeypatch, studio, "denoise_image")
    studio.generate()
    assert called.wait(60)
    hand.stroke(studio.paint, (10, 10), (12, 12))  # while the first stroke is being drawn
    go.set()
    studio.join(60)
    studio.mode.value = "Drag"
    assert studio.drag.picture == studio.paint.painted
    studio.paint.undo()
    studio.mode.value = "Paint"
    studio.mode.value = "Drag"
    assert studio.drag.picture == studio.results[-1].take.edited


def test_the_unedited_clip_on_show_belongs_to_the_newest_one(studio):
    hand.stroke(studio.paint, (3, 3), (6, 4))
    generate(studio)
    assert studio.unedited is not None
    studio.paint.undo()
    studio.panel["seed"].value = 9
    generate(studio)
    assert studio.unedited is None


def test_a_model_that_draws_may_be_another_one(tmp_path):
    clips = copy.copy(tiny.model("storybook"))
    clips.defaults = {"video": clips.defaults["video"]}
    studio = iv.Studio(Pipeline(clips, tiny.model("pia")), tiny.picture(), autosave=None)
    studio.panel["motion"].value = MOTION
    studio.panel["content"].value = "a sun"
    hand.stroke(studio.paint, (3, 3), (6, 4))
    assert generate(studio).take.edited is not None
    pictures = copy.copy(clips)
    pictures.defaults = {"image": tiny.model().defaults["image"]}
    with pytest.raises(ValueError, match="makes pictures alone"):
        iv.Studio(Pipeline(pictures), autosave=None)


def test_a_second_generate_is_refused_in_one_sentence(studio):
    paused(studio)
    studio.generate_button.click()
    assert "one thing at a time" in studio.line.value
    studio.stop()
    studio.join(60)
    assert len(studio.results) == 1


def test_what_goes_wrong_in_the_worker_is_said_in_the_panel(studio, monkeypatch):
    def broken(*args, **options):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(studio.pipe.model, "predict", broken)
    studio.generate()
    studio.join(60)
    assert "out of memory" in studio.line.value and studio.state == "idle"
    assert [str(error) for error in studio.errors] == ["out of memory"]
    monkeypatch.undo()
    studio.errors.clear()
    generate(studio)


def test_how_long_a_drag_holds_the_frame_is_asked_for_and_kept(studio):
    studio.drag.trajectory = iv.TrajectoryInstruction(
        [iv.Drag([(5, 7), (10, 7)], mask=tiny.region())]
    )
    took = {}
    for hold in (0.8, 0.25):
        studio.panel["weak"].value = hold
        result = generate(studio)
        assert result.take.instructions.weak == hold
        took[hold] = result.frames
    assert (took[0.8] != took[0.25]).any()
    again = Session.from_json(json.dumps(studio.session.to_json()))
    assert again.takes[-1].instructions.weak == 0.25 and ("weak", 0.25) in again.panel
    older = [("hold", 0.6) if name == "weak" else (name, value) for name, value in again.panel]
    studio.session = dataclasses.replace(again, panel=older)  # as it was called before
    assert studio.panel["weak"].value == 0.6


@pytest.mark.parametrize("mode", [CONSTANT, RAMP, REGION])
def test_lam_is_a_number_a_ramp_or_a_region(studio, mode):
    hand.stroke(studio.paint, (3, 3), (6, 4))
    studio.panel["lam_mode"].value = mode
    studio.panel["lam"].value, studio.panel["lam_end"].value = 0.0, 1.0
    lam = generate(studio).take.instructions.lam
    if mode == CONSTANT:
        assert lam == 0.0
    elif mode == RAMP:
        assert lam.shape == (4, 1, 1, 1, 1) and (np.diff(lam[:, 0, 0, 0, 0]) > 0).all()
    else:
        assert lam.shape == (1, 1, 8, 8) and lam[0, 0, 1, 2] < 0.2 and lam[0, 0, 7, 7] == 1


def test_lam_by_region_without_paint_is_refused_before_any_work(studio):
    studio.panel["lam_mode"].value = REGION
    studio.generate_button.click()
    assert "needs paint" in studio.line.value and not studio.busy


def test_a_word_that_the_model_does_not_know_is_said(studio):
    studio.panel["motion"].value = "the zeppelin moves"
    studio.generate_button.click()
    studio.panel["prompt"].value = "a zeppelin"
    studio.draw_button.click()
    assert [("zeppelin" in str(e)) for e in studio.errors] == [True, True] and not studio.busy


def test_draw_puts_a_picture_under_the_strokes_and_undo_brings_the_old_one_back(studio):
    hand.stroke(studio.paint, (3, 3), (6, 4))
    before = studio.paint.picture
    studio.draw()
    studio.join(60)
    pipe = tiny.pipeline("storybook")
    assert studio.paint.picture.tobytes() == pipe.image("the boat", seed=3).tobytes()
    assert studio.paint.strokes == () and "Undo brings back" in studio.line.value
    studio.paint.undo()
    assert studio.paint.picture is before and len(studio.paint.strokes) == 1


def test_a_foreign_photograph_gets_its_round_trip_and_the_cut_and_drag_clip(studio, monkeypatch):
    monkeypatch.setattr(studio.pipe.model, "round_trip_db", 60.0)
    studio.drag.trajectory = iv.Drag([(5, 7), (9, 7)], mask=tiny.region())
    studio.generate()
    studio.join(60)
    assert "was not made for this picture" in studio.line.value
    assert studio.results == [] and studio.errors == []
    kinds = [type(card.children[0]).__name__ for card in studio._cards.children]
    assert kinds == ["Image", "Image", "Video"]


def test_pictures_of_another_size_are_fitted_and_that_is_said(studio):
    file = io.BytesIO()
    Image.new("RGB", (400, 300), "red").save(file, "PNG")
    hand.upload(studio.paint, "photo.png", file.getvalue())
    assert studio.paint.picture.size == (16, 16)
    assert "400 x 300" in studio.paint.line.value


# -------------------------------------------------------------------------------------- results


def test_a_session_replays_to_the_same_frames_changes_on_the_way_included(studio, tmp_path):
    hand.stroke(studio.paint, (3, 3), (6, 4))
    paused(studio)
    hand.stroke(studio.paint, (10, 10), (12, 12))
    studio.panel["lam"].value = 0.6
    studio.resume()
    studio.join(60)
    studio.save(str(tmp_path / "session.json"))
    other = make(tmp_path)
    other.load(tmp_path / "session.json")
    assert other.paint.strokes == studio.paint.strokes and other.panel["lam"].value == 0.6
    (result,) = other.results
    assert result.frames is None and result.take == studio.results[0].take
    other.replay(result)
    other.join(60)
    assert other.errors == [] and (result.frames == studio.results[0].frames).all()


def test_stop_ends_a_clip_that_is_made_again(studio, monkeypatch):
    take = generate(studio).take
    again = dataclasses.replace(take, name="again")
    studio.session = Session(studio.paint.sketch, takes=(again,))
    result = studio.results[-1]
    called, go = held(monkeypatch, studio, "denoise")
    studio.replay(result)
    assert called.wait(60) and studio.pause_button.disabled
    studio.stop_button.click()
    go.set()
    studio.join(60)
    assert result.frames is None and "Stopped" in studio.line.value
    studio.replay(result)
    studio.join(60)
    assert (result.frames == studio.results[0].frames).all()


@pytest.mark.parametrize("kind", ["mp4", "gif", "png"])
def test_what_is_exported_says_that_it_is_generated_and_how(studio, kind):
    result = generate(studio)
    result.card.children[1].value = "my first clip!"
    path = studio.export(result, kind)
    assert path.name == f"my-first-clip.{kind}"
    if kind == "mp4":
        ask = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", path, "-f", "ffmetadata", "-"]
        told = subprocess.run(ask, capture_output=True, text=True, check=True).stdout
        comment = told.split("comment=")[1].splitlines()[0].replace("\\", "")
    else:
        with Image.open(path) as file:
            comment = file.info["comment"].decode() if kind == "gif" else file.info["Comment"]
            assert kind == "png" or file.n_frames == 4
    facts = json.loads(comment)
    assert facts["generated"].startswith("This is a generated clip")
    assert "model tiny" in facts["by"] and facts["name"] == "my first clip!"
    assert (facts["seed"], facts["lam"], facts["motion"]) == (3, 0.3, MOTION)


def test_what_a_card_is_asked_is_answered_on_the_card(studio, monkeypatch):
    result = generate(studio)
    assert "Done" in studio.line.value
    *_, kinds, line = result.card.children
    kinds.children[0].click()
    assert "Written: " in line.value and "Written" not in studio.line.value

    def full(*args, **options):
        raise OSError(28, "No space left on device", "clip.gif")

    monkeypatch.setattr("ivkit.widgets.studio.save_video", full)
    kinds.children[1].click()
    assert "'clip.gif': no space left on device" in line.value and "Errno" not in line.value
    assert len(studio.errors) == 1 and "space" not in studio.line.value


def test_messages_and_buttons_of_the_work_lie_below_the_canvas(studio):
    for canvas in (studio.paint, studio.drag):
        *_, stage, line, bar, below = canvas.column.children
        assert (stage, line, bar) == (canvas.stage, studio.line, canvas.bar)
        assert studio.generate_button in below.children[0].children[0].children
    assert studio.paint.line is studio.drag.line


def test_what_is_watched_stands_beside_the_canvas_and_once_only(studio):
    assert studio._empty in studio._newest.children
    paused(studio)
    card = studio._live_card
    assert card in studio._newest.children and card.layout.display == ""
    studio.stop()
    studio.join(60)
    assert card.layout.display == "none"
    assert studio._newest.children[1] is studio.results[-1].card
    studio.mode.value = "Drag"
    assert studio.drag.preview_box in studio._newest.children
    assert studio.drag.preview_box not in studio.drag.row.children
    assert studio.results[-1].card not in studio._cards.children


def test_old_tries_make_room_but_what_is_kept_stays(studio):
    for _ in range(10):
        result = generate(studio)
        if result.take.name == "try 1":
            result.card.children[3].children[0].value = True  # keep
            with pytest.raises(ValueError, match="is kept"):
                studio.remove(result)
    names = [r.take.name for r in studio.results]
    assert names[0] == "try 1" and names[-1] == "try 10" and len(names) == 9
    (gone,) = studio.gone
    says, back = studio._gone_row.children
    assert "8 besides those kept" in says.value and back.description == gone.take.name == "try 2"
    back.click()
    assert gone in studio.results and gone.take.kept and studio._gone_row.children == ()
    studio.remove(studio.results[-1])
    assert generate(studio).take.name == "try 11"  # no number is used twice


def test_compare_shows_clips_side_by_side(studio):
    studio.panel["lam"].value = 0.3
    with pytest.raises(ValueError, match="nothing to compare"):
        studio.compare()
    generate(studio)
    generate(studio)
    studio.compare()
    names, clip = studio._compared.children
    assert "try 1" in names.value and "try 2" in names.value and len(clip.value) > 500


def test_all_is_offered_again_after_a_restart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = make(tmp_path, autosave="studio")
    hand.stroke(first.paint, (3, 3), (6, 4))
    result = generate(first)
    first.autosave.flush()
    monkeypatch.setattr(session, "_OWNERS", {})  # another kernel
    again = iv.Studio(tiny.pipeline("storybook"), autosave="studio")
    again.offer.children[1].click()
    assert again.paint.strokes == first.paint.strokes
    assert again.panel["motion"].value == MOTION
    assert [r.take for r in again.results] == [result.take] and again.errors == []


def test_keep_and_numbers_outlast_a_restart(studio, tmp_path):
    generate(studio).card.children[3].children[0].value = True
    generate(studio)
    studio.save(tmp_path / "session.json")
    other = make(tmp_path)
    other.load(tmp_path / "session.json")
    assert [r.take.kept for r in other.results] == [True, False]
    assert generate(other).take.name == "try 3"


def test_a_session_opened_into_a_running_one_keeps_names_apart(studio, tmp_path):
    other = make(tmp_path)
    other.panel["seed"].value = 9
    generate(other)
    other.save(tmp_path / "other.json")
    generate(studio)
    studio.load(tmp_path / "other.json")
    studio.load(tmp_path / "other.json")
    names = [(r.take.name, r.take.instructions.seed) for r in studio.results]
    assert names[:2] == [("try 1", 3), ("try 2", 9)]
    studio.save(tmp_path / "own.json")
    studio.load(tmp_path / "own.json")  # what is there already does not come twice
    assert [(r.take.name, r.take.instructions.seed) for r in studio.results] == names


def test_what_is_deleted_comes_back(studio):
    result = generate(studio)
    studio.remove(result)
    assert studio.results == []
    studio._gone_row.children[1].click()
    assert studio.results == [result] and result.take.kept and studio.errors == []


@pytest.mark.parametrize("kind", ["mp4", "gif", "png"])
def test_an_export_overwrites_nothing_and_is_offered_as_a_download(studio, kind):
    result = generate(studio)
    first = studio.export(result, kind)
    before = first.read_bytes()
    second = studio.export(result, kind)
    assert first.name == f"try-1.{kind}" and second.name == f"try-1-2.{kind}"
    assert first.read_bytes() == before
    data = result.line.value.split("base64,")[1].split('"')[0]
    assert f'download="{second.name}"' in result.line.value
    assert base64.b64decode(data) == second.read_bytes()


def test_on_colab_an_export_is_downloaded_by_the_browser(studio, monkeypatch):
    called, colab = [], types.ModuleType("google.colab")
    colab.files = types.SimpleNamespace(download=called.append)
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    path = studio.export(generate(studio), "gif")
    assert called == [str(path)]


def test_another_picture_has_no_drags_yet_and_undo_brings_the_old_ones_back(studio):
    hand.stroke(studio.paint, (3, 3), (6, 4))
    drag = iv.Drag([(5, 7), (9, 7)], mask=tiny.region())
    studio.drag.trajectory = drag
    generate(studio)
    assert studio._edited.layout.display == ""
    studio.paint.picture = tiny.picture(1)
    assert studio.paint.strokes == () and studio.drag.trajectory.drags == ()
    assert studio._edited.layout.display == "none"  # x' of the picture before
    studio.paint.undo()
    assert studio.drag.trajectory.drags == (drag,) and len(studio.paint.strokes) == 1
    assert studio._edited.layout.display == ""
    studio.paint.redo()
    assert studio.drag.trajectory.drags == ()
    studio.drag.undo()
    assert studio.drag.trajectory.drags == (drag,)
    other = Session(session.Sketch(tiny.picture(2)))
    studio.session = other
    assert studio.drag.trajectory.drags == () and studio._edited.layout.display == "none"


@pytest.mark.parametrize("colour", [None, "white"])
def test_an_empty_picture_is_not_generated_from(tmp_path, colour):
    picture = colour and Image.new("RGB", (16, 16), colour)
    studio = iv.Studio(tiny.pipeline("storybook"), picture, autosave=None)
    assert "press draw" in studio.line.value.lower()
    studio.generate_button.click()
    assert "no picture yet" in studio.line.value and not studio.busy


def test_a_picture_of_another_text_is_asked_about_once(studio):
    studio.draw()
    studio.join(60)
    studio.panel["prompt"].value = "the sun"
    studio.generate()
    assert not studio.busy and "another text" in studio.line.value and studio.results == []
    generate(studio)
    assert len(studio.results) == 1
    studio.draw()
    studio.join(60)
    generate(studio)


def test_while_a_clip_is_made_what_cannot_act_is_disabled(studio):
    paused(studio)
    fixed = [studio.panel[n] for n in ("weak", "seed", "steps", "frames", "motion_scale")]
    assert studio.generate_button.disabled and all(widget.disabled for widget in fixed)
    assert not studio.panel["lam"].disabled and not studio.panel["motion"].disabled
    studio.stop()
    studio.join(60)
    assert not studio.generate_button.disabled and not any(widget.disabled for widget in fixed)


def test_a_stroke_that_is_not_seen_in_the_edited_picture_is_named(studio, monkeypatch):
    hand.stroke(studio.paint, (3, 3), (6, 4))
    hand.stroke(studio.paint, (10, 12), (13, 12))
    first = dataclasses.replace(studio.paint.sketch, strokes=studio.paint.strokes[:1])
    seen = iv.rasterise(first.picture, first.strokes)[0]
    monkeypatch.setattr(studio, "_image", lambda *args, **options: seen)
    generate(studio)
    assert "Stroke 2 can hardly be seen" in studio.edited_text.value


def test_an_edited_picture_of_other_weights_is_made_anew(studio):
    hand.stroke(studio.paint, (3, 3), (6, 4))
    edited = generate(studio).take.edited
    studio.mode.value = "Drag"
    assert studio.drag.picture == edited
    studio.pipe.pictures.weights_changed()
    studio.mode.value = "Paint"
    studio.mode.value = "Drag"
    assert studio.drag.picture == studio.paint.painted
    made = []
    keep, studio._image = studio._image, lambda *a, **o: made.append(a) or keep(*a, **o)
    generate(studio)
    assert len(made) == 1


def test_the_preview_moves_and_stop_and_keep_keeps_what_it_shows(studio, monkeypatch):
    monkeypatch.setattr("ivkit.widgets.studio.PREVIEW", 1e6)  # time for all frames
    paused(studio)
    studio.resume()
    wait(lambda: studio.state != "paused")
    studio.pause()
    wait(lambda: studio.state in ("paused", "idle"))
    with Image.open(io.BytesIO(bytes(studio.live.value))) as shown:
        assert shown.format == "WEBP" and shown.n_frames == 4
    assert studio.state == "paused"
    studio._live_card.children[-1].click()
    studio.join(60)
    (result,) = studio.results
    assert result.take.kept and result.take.stopped and studio.errors == []


def test_after_three_tries_two_more_are_offered_by_rules_that_are_shown(studio):
    studio.drag.trajectory = iv.Drag([(5, 7), (7, 7)], mask=tiny.region())
    for lam in (0.2, 0.9, 0.6):
        assert studio._next_row.children == ()
        studio.panel["lam"].value = lam
        generate(studio)
    for result in studio.results[:2]:
        result.card.children[3].children[0].value = True
    offers = [row.children[1].value for row in studio._next_row.children]
    assert "λ = 0.55" in offers[0] and "between those of try 1 and try 2" in offers[0]
    assert "1.4 times as far" in offers[1]
    studio.paint.picture = tiny.picture(1)  # the offer brings its own picture along
    studio._next_row.children[1].children[0].click()
    studio.join(60)
    made = studio.results[-1].take.instructions
    assert np.allclose(made.trajectory.drags[0].path, [(5, 7), (7.8, 7)]) and made.lam == 0.9
    assert made.image == studio.results[0].take.instructions.image and studio.errors == []


def test_a_drag_without_a_mask_grows_it_on_the_picture_that_is_shown(studio):
    assert studio.drag.picture == studio.paint.picture
    studio.drag.trajectory = iv.Drag([(5, 7), (9, 7)])
    assert studio.errors == []


def test_the_run_of_another_cell_is_not_taken_for_the_studios_own(studio):
    paused(studio)
    other = studio.pipe.video(tiny.picture(2), MOTION, progress=False)
    studio.resume()
    studio.join(60)
    result = studio.results[-1]
    run = tiny.pipeline("storybook").run(result.take.instructions)
    assert (result.frames == run.frames).all() and not (result.frames == other.frames).all()
    assert result.take.stopped is None and studio.errors == []


def session_json(studio) -> str:
    hand.stroke(studio.paint, (3, 3), (6, 4))
    generate(studio)
    return json.dumps(studio.session.to_json())


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda t: t[: len(t) // 2], "cannot be loaded"),
        (lambda t: t.replace('"version": 1', '"version": 7', 1), "version"),
        (lambda t: t.replace('"lam": 0.3', '"lam": 1.5', 1), "lam"),
        (lambda t: t.replace('["lam", 0.3]', '["lam", 1.5]', 1), "lam"),
        (lambda t: t.replace('["seed", 3]', '["seed", "x"]', 1), "seed"),
        (lambda t: t.replace('["lam_mode", "the', '["lam_mode", "no', 1), "lam_mode"),
        (lambda t: t.replace("MotionInstruction", "Motion", 1), "Motion"),
        (lambda t: "", "cannot be loaded"),
    ],
)
def test_a_damaged_session_is_refused_and_everything_stays(studio, tmp_path, change, says):
    text = session_json(studio)
    assert Session.from_json(text) == studio.session
    bad, kept = change(text), studio.session
    assert bad != text
    (tmp_path / "bad.json").write_text(bad)
    studio.file.value = str(tmp_path / "bad.json")
    with pytest.raises(ValueError, match=says):
        studio.load(tmp_path / "bad.json")
    assert studio.session == kept


def test_a_take_without_a_picture_is_refused():
    with pytest.raises(ValueError, match="picture"):
        Take("a", "tiny", iv.Instructions(motion=iv.MotionInstruction("x")))


@pytest.mark.parametrize(
    "bad", [{"step": -1}, {"trajectory": 0}, {"lam": 1.5}, {"motion": None}, {"edited": "no.png"}]
)
def test_a_damaged_change_is_refused_when_it_is_opened(bad):
    good = {
        "step": 1,
        "edited": None,
        "trajectory": iv.TrajectoryInstruction(),
        "lam": 0.3,
        "motion": MOTION,
    }
    Change(**good)
    with pytest.raises((TypeError, ValueError)):
        Change(**good | bad)


def test_the_worker_leaves_the_main_thread_free(studio):
    paused(studio)
    assert threading.current_thread() is threading.main_thread()
    hand.stroke(studio.paint, (3, 3), (6, 4))
    assert len(studio.paint.strokes) == 1 and studio.busy


# ------------------------------------------------------------------------------------- explorer


@pytest.fixture(params=["storybook", "pia"])
def run(request):
    return tiny.pipeline(request.param).video(
        tiny.picture(),
        MOTION,
        edited=tiny.picture(1),
        drags=iv.Drag([(5, 7), (9, 7)], mask=tiny.region()),
        progress=False,
    )


def test_the_explorer_shows_every_step_and_frame(run):
    explorer = iv.TraceExplorer(run)
    for step in range(4):
        explorer.step.value = step
        explorer.frame.value = step
        assert f"run.trace[{step}]" in explorer.text.value and "0.30" in explorer.text.value
        for tile in explorer.tiles.values():
            assert bytes(tile.value[:4]) == b"\x89PNG"
    assert explorer.errors == []


def test_the_explorer_opens_in_the_middle_where_all_is_defined(run):
    explorer = iv.TraceExplorer(run)
    assert explorer.step.value == 2
    undefined = explorer.run.trace[2].undefined
    assert not any(undefined(name) for name in ("eps", "x0"))


def test_what_if_lam_were_what_it_was_is_what_was_blended(run):
    explorer = iv.TraceExplorer(run)
    explorer.step.value, explorer.what_if.value = 2, 0.3
    record = explorer.recomputed(0.3)
    assert (record["out_hat"] == run.trace[2]["out_hat"]).all()
    assert explorer.tiles["if_x0"].value == explorer.tiles["x0"].value
    explorer.what_if.value = 1.0
    x, _, x_hat = record.terms
    torch.testing.assert_close(explorer.recomputed(1.0)[x_hat], run.trace[2][x])
    assert explorer.tiles["if_x0"].value != explorer.tiles["x0"].value


def test_one_branch_alone_is_said_not_drawn():
    run = tiny.pipeline("storybook").video(
        tiny.picture(), MOTION, edited=tiny.picture(1), lam=0.0, progress=False
    )
    explorer = iv.TraceExplorer(run)
    assert explorer.errors == []
    with pytest.raises(ValueError, match="no prediction without the edits: .* weight 0 .skip"):
        explorer.recomputed(0.5)


def test_each_word_has_a_map_for_each_frame(run):
    explorer = iv.TraceExplorer(run)
    explorer.words.value = True
    assert explorer.errors == [] and len(explorer.word_row.children) == 4
    maps = explorer._attention(0)
    assert list(maps) == MOTION.split()
    whole = sum(maps[word] for word in maps)
    for places in maps.values():
        assert places.shape == (4, 8, 8) and (places >= 0).all()
    assert (whole <= 1 + 1e-5).all()  # the rest of the attention goes to the marks and padding


def test_words_are_shown_in_half_precision_too():
    pipe = Pipeline(tiny.model("storybook", torch.bfloat16))
    run = pipe.video(tiny.picture(), MOTION, edited=tiny.picture(1), progress=False)
    explorer = iv.TraceExplorer(run)
    explorer.words.value = True
    assert explorer.errors == [] and len(explorer.word_row.children) == 4


def test_words_say_where_the_network_looks():
    """A word's map is the softmax over tokens: with all keys equal it is even."""
    run = tiny.pipeline("pia").video(tiny.picture(), MOTION, lam=1.0, progress=False)
    model = run.model
    layers = [m for m in model.video_unet.modules() if getattr(m, "is_cross_attention", False)]
    kept = [layer.to_k.weight.clone() for layer in layers]
    try:
        for layer in layers:
            layer.to_k.weight.zero_()
        maps = iv.TraceExplorer(run)._attention(1)
    finally:
        for layer, weight in zip(layers, kept, strict=True):
            layer.to_k.weight.copy_(weight)
    tokens = model.tokenizer.model_max_length
    assert layers and np.allclose(maps["boat"], 1 / tokens, atol=1e-5)


def test_a_run_without_steps_is_refused():
    pipe = tiny.pipeline()
    pipe.denoise(tiny.picture(), MOTION)
    with pytest.raises(ValueError, match="no steps"):
        iv.TraceExplorer(pipe.last_run)
