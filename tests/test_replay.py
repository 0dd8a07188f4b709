"""What is saved replays: a clip's instructions, through JSON, make the same frames again."""

import dataclasses
import json
from pathlib import Path

import families
import numpy as np
import pytest
import tiny
import torch
from families import FAMILIES
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from test_interrupts import model

import ivkit as iv
from ivkit.align import ResidualAlign
from ivkit.instructions import READINGS, UNITS, Change, Instructions, Settings
from ivkit.pipeline import Pipeline
from ivkit.video import denoise
from ivkit.widgets.session import Session

SAVED = Path(__file__).parent / "saved"
MOTION = "the boat moves right"
pytestmark = pytest.mark.filterwarnings("ignore:tiny takes no text")

LENGTHS = {"pia": (1, 3, 4), "storybook": (2, 4), "svd": (2, 4), "i2vgenxl": (2, 4)}
SCALES = {"pia": (0, 1, 8), "storybook": (0, 3), "svd": (0, 9, 127, 255)}


def pipeline(name):
    """A fresh pipeline; its alignment (Eq. 5) is random, so that it is seen."""
    pipe = Pipeline(model(name))
    torch.manual_seed(0)
    pipe.align = ResidualAlign()
    torch.nn.init.normal_(pipe.align.conv.weight, std=0.1)
    return pipe


@st.composite
def clips(draw, name):
    """The arguments of `video` for a family: each setting there is, given or left to the model."""
    family = FAMILIES.get(name, tiny)
    w, h = getattr(family, "size", (tiny.SIZE, tiny.SIZE))
    frames = draw(st.sampled_from(LENGTHS.get(name, (1, 9))))
    steps = draw(st.integers(2 if name == "ltx" else 1, 3))
    share = st.sampled_from([0.0, 0.25, 0.6, 1.0])
    guidance = st.sampled_from([0.5, 1.0, 3.5])
    if name in LENGTHS:
        guidance |= st.lists(st.sampled_from([0.5, 2.0]), min_size=frames, max_size=frames)
    per_frame = model(name).per_frame
    given = {
        "seed": st.integers(0, 9),
        "guidance_scale": guidance,
        "motion_scale": st.sampled_from(SCALES.get(name, (None,))),
        "negative_prompt": st.sampled_from(["", "red"]),
        "reading": st.sampled_from(READINGS),
        "mechanism": st.sampled_from(["both", "dual-clock", *["condition"] * per_frame]),
        "source": st.sampled_from(["still", "clip"]),
        "blend_in": st.sampled_from(UNITS),
        "weak": share,
        "strong": share,
        "skip_zero": st.booleans(),
        "batch": st.booleans(),
        "eta": share,
        "posterior": st.sampled_from(["mode", "sample"]),
        "align": st.booleans(),
        "size": st.sampled_from([(w, h), (w if name == "cogvideox" else 2 * w, h)]),
    }
    options = {n: draw(v) for n, v in given.items() if draw(st.booleans())}
    w, h = options.get("size", (w, h))
    lam = share | st.sampled_from(
        [
            list(np.linspace(1, 0.2, steps)),
            np.linspace(0, 1, h * w).reshape(h, w),
        ]
    )
    if draw(st.booleans()):
        options["num_frames"] = frames
    elif isinstance(options.get("guidance_scale"), list):
        del options["guidance_scale"]
    mask = np.zeros((h, w), bool)
    mask[h // 4 : h // 2, : w // 4] = True
    drags = [iv.Drag(path=[(w / 8, h / 3), (w / 2, h / 3)], mask=mask)]
    edits = {
        "edited": st.just(family.picture(1).resize((w, h))),
        "drags": st.just(drags),
        "pins": st.just([(w - 2, h - 2)]),
        "camera": st.just(iv.Camera(pan=(2, 0))),
        "lam": lam,
    }
    options |= {n: draw(v) for n, v in edits.items() if draw(st.booleans())}
    changes = {
        "edited": st.none() | st.just(family.picture(2).resize((w, h))),
        "drags": st.just(iv.TrajectoryInstruction()) | st.just(drags),
        "lam": lam,
        "motion": st.just("the sun moves left"),
    }
    change = {n: draw(v) for n, v in changes.items() if draw(st.booleans())}
    picture = family.picture(0).resize((w, h))
    options |= {"picture": picture, "motion": MOTION, "num_inference_steps": steps}
    return options, change, draw(st.integers(0, steps - 1))


@pytest.mark.parametrize("name", ["pia", "pia-lcm", "storybook", *FAMILIES])
@settings(max_examples=8, phases=[Phase.explicit, Phase.generate])
@given(data=st.data())
def test_a_clips_own_instructions_make_it_again(name, data):
    """With whatever settings it was made, and with what was changed on the way."""
    options, change, at = data.draw(clips(name.removesuffix("-lcm")))
    pipe = pipeline(name)
    pipe.denoise(**options)
    run = pipe.last_run
    if at == 0 and change:
        run.change(**change)
    for step in denoise(run):
        if step.index + 1 == at and change and not run.finished:
            step.change(**change)
    text = json.dumps(run.instructions.to_json())
    saved = Instructions.from_json(text)
    again = pipeline(name).run(saved, progress=False)
    assert again.instructions == run.instructions == saved
    for setting, value in vars(again.settings).items():
        assert value == getattr(run.settings, setting), setting
    assert torch.equal(again.lam, run.lam) and torch.equal(again.z, run.z)
    assert np.array_equal(again.frames, run.frames)


def test_every_setting_is_one_of_the_instructions():
    of_clip = {field.name for field in dataclasses.fields(Settings)}
    assert of_clip <= {field.name for field in dataclasses.fields(Instructions)}
    given = Instructions(motion=iv.MotionInstruction(MOTION))
    assert Settings(**{n: v for n, v in given.options().items() if n in of_clip}) == Settings()


def test_how_much_moves_is_said_in_one_place():
    said = Instructions(motion=iv.MotionInstruction(MOTION), motion_scale=3)
    assert said.motion.motion_scale == said.motion_scale == said.options()["motion_scale"] == 3
    said = dataclasses.replace(said, motion=iv.MotionInstruction(MOTION, 2))
    assert said.motion.motion_scale == said.motion_scale == 2


def test_an_old_name_is_understood_and_says_the_new_one():
    with pytest.warns(DeprecationWarning, match="negative is called negative_prompt now"):
        assert Settings(negative="red") == Settings(negative_prompt="red")
        assert Settings(negative_prompt="red").negative == "red"
    data = Instructions(negative_prompt="red").to_json()
    data["negative"] = data.pop("negative_prompt")
    assert Instructions.from_json(data).negative_prompt == "red"


@pytest.mark.parametrize("name", ["pia", *FAMILIES])
def test_instructions_that_say_nothing_more_take_the_models_own(name):
    """`pipe.run` then makes what `pipe.video` does."""
    family, pipe = FAMILIES.get(name, tiny), Pipeline(model(name))
    short = {"num_inference_steps": 2, "progress": False}
    said = Instructions(iv.ImageInstruction(family.picture()), motion=iv.MotionInstruction(MOTION))
    run, other = pipe.run(said, **short), pipe.video(family.picture(), MOTION, **short)
    assert vars(run.settings) == vars(other.settings) and torch.equal(run.z, other.z)
    own = pipe.model.defaults["video"].get("motion_scale")
    assert run.settings.motion_scale == own == run.instructions.motion.motion_scale


def test_a_model_that_reads_no_text_replays_without_one():
    run = Pipeline(model("svd")).video(
        families.FAMILIES["svd"].picture(), "", progress=False, num_inference_steps=1
    )
    saved = Instructions.from_json(json.dumps(run.instructions.to_json()))
    assert torch.equal(Pipeline(model("svd")).run(saved, progress=False).z, run.z)
    with pytest.raises(ValueError, match="motion is empty"):
        Pipeline(model("pia")).run(saved, progress=False)


def test_an_interrupted_replay_makes_the_changes_that_are_still_to_come():
    pipe, options = tiny.pipeline(), {"num_inference_steps": 4, "progress": False}
    changes = (
        Change(1, tiny.picture(1), iv.TrajectoryInstruction(), 0.2, MOTION),
        Change(3, None, iv.TrajectoryInstruction(), 0.9, "the sun moves left"),
    )
    whole = pipe.video(tiny.picture(), MOTION, changes=changes, **options)
    options.pop("progress")
    steps = tiny.pipeline().denoise(tiny.picture(), MOTION, changes=changes, **options)
    run = next(steps).run
    steps.close()
    run = pipe.resume(run, progress=False)
    assert torch.equal(run.z, whole.z) and run.made == 2
    assert [edit.motion for _, edit in run.edits] == [MOTION, MOTION, "the sun moves left"]
    with pytest.raises(ValueError, match=r"changes\[1\] is at step 3; the clip has 2"):
        pipe.video(tiny.picture(), MOTION, changes=changes, num_inference_steps=2)


def test_instructions_of_before_open_and_say_what_they_said():
    """Saved when only some of the settings were part of them, Eq. 4 blended what the network
    predicts, and a drag edited the still."""
    saved = Instructions.load(SAVED / "instructions-1.json")
    assert saved.blend_in == "native" and Instructions().blend_in == "v"
    assert saved.source == "still" and Instructions().source == "clip"
    drag = iv.Drag(path=[(5, 7), (10, 7)], mask=tiny.region())
    stroke = iv.Stroke(points=[(8, 8)], width=4)
    r = iv.TrajectoryInstruction([drag], [(14, 14)], iv.Camera(pan=(1, 0)))
    assert saved.trajectory == r and saved.image.picture == tiny.picture()
    assert saved.content == iv.ContentInstruction("a red sun", [stroke], 0.5)
    pipe = tiny.pipeline()
    edited = pipe.image("a red sun", tiny.picture(), strokes=[stroke], strength=0.5, seed=3)
    options = {
        "seed": 3,
        "num_frames": 4,
        "num_inference_steps": 4,
        "guidance_scale": 2.5,
        "weak": 0.25,
        "motion_scale": 1,
        "blend_in": "native",
        "source": "still",
    }
    run = pipe.video(
        tiny.picture(),
        MOTION,
        edited=edited,
        drags=r,
        lam=np.linspace(1, 0.25, 4),
        progress=False,
        **options,
    )
    assert torch.equal(tiny.pipeline().run(saved, progress=False).z, run.z)


def test_a_session_of_before_opens_and_its_take_is_made_again():
    (take,) = Session.load(SAVED / "session-1.json").takes
    for step in tiny.pipeline().denoise(
        tiny.picture(),
        MOTION,
        num_frames=4,
        lam=0.3,
        num_inference_steps=4,
        motion_scale=1,
        blend_in="native",
    ):
        if step.index == 1:
            step.change(edited=tiny.picture(1), lam=0.2, motion="the sun stays still")
    assert torch.equal(take.replay(tiny.pipeline()).z, step.run.z)
