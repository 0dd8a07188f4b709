"""Loading, and what bad input is answered with: one clear sentence, before any work."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

import ivkit as iv
from ivkit import models
from ivkit.models import pia


@pytest.fixture
def folder(tmp_path):
    return tiny.save(tmp_path / "weights")


def load(folder, **options):
    return iv.load(folder, dtype="float32", **options)


# ------------------------------------------------------------------------------- loading


def test_the_storybook_is_found_by_name(folder, monkeypatch):
    monkeypatch.setenv("IVKIT_STORYBOOK", str(folder))
    pipe = iv.load("storybook")
    assert (pipe.name, pipe.size, pipe.vae_scale_factor) == ("storybook", (tiny.SIZE,) * 2, 2)
    assert pipe.words == sorted(w for w in tiny.WORDS if w.isalpha())
    assert pipe.model.dtype == models.pick()[1]


def test_a_processor_held_to_older_instructions_computes_in_float32():
    asked = "from ivkit import models; print(models.cpu_has_bf16(), models.pick('cpu')[1])"
    held = {**os.environ, "ATEN_CPU_CAPABILITY": "avx2"}
    said = subprocess.run([sys.executable, "-c", asked], env=held, capture_output=True, text=True)
    assert said.stdout.split() == ["False", "torch.float32"]


def test_words_follow_from_the_tokenizer(folder):
    facts = json.loads((folder / "storybook.json").read_text())
    del facts["words"]
    (folder / "storybook.json").write_text(json.dumps(facts))
    known = load(folder).words
    assert {"boat", "sun"} <= set(known) and "ship" not in known


def test_loaded_and_built_draw_the_same(folder):
    mine = load(folder).video(tiny.picture(), "the boat moves right", progress=False)
    built = tiny.pipeline("storybook").video(tiny.picture(), "the boat moves right", progress=False)
    assert np.array_equal(mine.frames, built.frames)


def test_the_few_step_variant_is_a_lora_on_the_same_network(folder, monkeypatch):
    from peft import LoraConfig, get_peft_model

    monkeypatch.setenv("IVKIT_STORYBOOK", str(folder))
    with pytest.raises(FileNotFoundError, match="few_step"):
        iv.load("storybook-fast")
    unet = tiny.parts("storybook")
    lora = get_peft_model(
        pia.motion_unet(unet["unet"], unet["motion_adapter"]),
        LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False),
    )
    lora.save_pretrained(folder / "few_step")
    facts = json.loads((folder / "storybook.json").read_text())
    facts["few_step"] = {"video": {"num_inference_steps": 2, "guidance_scale": 1.0}}
    (folder / "storybook.json").write_text(json.dumps(facts))
    slow, fast = (iv.load(name, dtype="float32") for name in ("storybook", "storybook-fast"))
    options = {"num_inference_steps": 2, "guidance_scale": 1.0, "progress": False}
    run = fast.video(tiny.picture(), "the boat moves right", progress=False)
    assert len(run.trace) == 2 and "eps_uncond" not in run.trace[0]
    other = slow.video(tiny.picture(), "the boat moves right", **options)
    assert not np.array_equal(run.frames, other.frames)
    # the text-to-image network shares the spatial layers, so the LoRA is in it too
    options = {"num_inference_steps": 2, "guidance_scale": 1.0}
    a, b = (pipe.image("a boat", **options) for pipe in (slow, fast))
    assert a.tobytes() != b.tobytes()


def test_bfloat16_is_close_to_float32():
    half = iv.Pipeline(tiny.model("storybook", torch.bfloat16))
    options = {"edited": tiny.picture(1), "lam": 0.3, "progress": False}
    a = half.video(tiny.picture(), "the boat moves right", **options).frames
    b = tiny.pipeline("storybook").video(tiny.picture(), "the boat moves right", **options).frames
    assert 0 < np.abs(a.astype(int) - b).mean() < 3


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match="'sora' is not known; known are storybook, "):
        iv.load("sora")
    with pytest.raises(TypeError, match="name must be"):
        iv.load(3)


@pytest.mark.parametrize(
    "options, match",
    [
        ({"device": "abacus"}, "device must be .* got 'abacus'"),
        ({"dtype": "int8"}, "dtype must be"),
        ({"device": "cpu", "dtype": "float16"}, "does not run on a CPU"),
    ],
)
def test_bad_device_or_dtype(options, match):
    with pytest.raises(ValueError, match=match):
        iv.load("storybook", **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there():
    with pytest.raises(ValueError, match="not there on this machine; try device='cpu'"):
        iv.load("storybook", device="cuda")


def test_missing_weights_name_the_file(folder):
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"unet/diffusion_pytorch_model.safetensors is damaged"):
        load(folder)
    file.unlink()
    with pytest.raises(FileNotFoundError, match="unet holds no safetensors weights; install ivkit"):
        load(folder)
    (folder / "unet" / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"unet/config.json is missing"):
        load(folder)


def test_a_missing_shard_is_named(folder):
    unet = tiny.parts("storybook")["unet"]
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    unet.save_pretrained(folder / "unet", max_shard_size="20KB")
    assert load(folder).words
    shard = sorted((folder / "unet").glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=f"{shard.name} is missing"):
        load(folder)


def test_no_weights_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv("IVKIT_STORYBOOK", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="nowhere is not there"):
        iv.load("storybook")


def test_pickles_are_refused_unless_named(folder):
    unet = tiny.parts("storybook")["unet"]
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    unet.save_pretrained(folder / "unet", safe_serialization=False)
    with pytest.raises(ValueError, match="is a pickle.*allow_pickle=True"):
        load(folder)
    assert load(folder, allow_pickle=True).words


def test_an_adapter_without_a_condition_is_refused():
    from diffusers import MotionAdapter

    parts = tiny.parts()
    config = {**parts["motion_adapter"].config, "conv_in_channels": None}
    parts["motion_adapter"] = MotionAdapter.from_config(config)
    with pytest.raises(ValueError, match="takes None channels in, PIA's layout needs 9"):
        pia.build("x", parts, {}, device=torch.device("cpu"), dtype=torch.float32)


def test_hub_models_say_what_they_need(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match=r"PIA-condition-adapter.*needs no download"):
        iv.load("pia")


# ------------------------------------------------------------------------------ bad input


PICTURE, MOTION = tiny.picture(), "the boat moves right"
BOX = tiny.region()


@pytest.mark.parametrize(
    "options, match",
    [
        ({"lam": 1.5}, "lam must be in"),
        ({"lam": [0.5, 0.5]}, "lam as a flat sequence needs one number for each of the 4 steps"),
        ({"lam": np.zeros((2, 5, 5))}, "does not broadcast"),
        ({"motion": ""}, "motion is empty"),
        ({"motion": "the bote moves right"}, "'bote', which tiny does not know; near it are boat"),
        ({"motion": None}, "motion must be a text"),
        ({"motion": "the boat " * 9}, "motion is 18 tokens long; tiny reads 10"),
        ({"negative_prompt": "ugly"}, "negative_prompt has the word 'ugly'"),
        ({"num_inference_steps": 0}, "num_inference_steps must be"),
        ({"num_inference_steps": -3}, "num_inference_steps must be"),
        ({"num_frames": 17}, "num_frames is 17; tiny knows 16 at most"),
        ({"num_frames": 2.5}, "num_frames must be"),
        ({"guidance_scale": "high"}, "guidance_scale must be"),
        ({"guidance_scale": [1, 2]}, "one number for each of the 4 frames"),
        ({"motion_scale": 12}, "motion_scale must be"),
        ({"seed": "x"}, "seed must be"),
        ({"reading": "both"}, "reading must be one of paired, shared"),
        ({"mechanism": "magic"}, "mechanism must be one of both, condition, dual-clock"),
        ({"strong": 2}, "strong must be"),
        ({"posterior": "mean"}, "posterior must be"),
        ({"size": (15, 16)}, "size must be multiples of 4"),
        ({"size": 16}, r"size must be \(width, height\), each of 1 to"),
        ({"edited": tiny.picture().resize((20, 20))}, "edited is 20 x 20 pixels"),
        ({"edited": "no.png"}, "there is no picture"),
        ({"edited": 3}, "picture must be"),
        ({"picture": np.zeros((0, 4, 3), np.uint8)}, "at least|between 1 pixel"),
        ({"drags": [iv.Drag(path=[(40, 5), (6, 5)], mask=BOX)]}, "must lie in the picture"),
        ({"drags": [iv.Drag(path=[(5, 5), (6, 5)], mask=np.ones((4, 4)))]}, "mask of drags"),
        ({"drags": [3]}, "drags\\[0\\] must be a Drag"),
        ({"pins": [(99, 0)]}, "pins"),
        ({"camera": "zoom"}, "camera must be a Camera"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_bad_video_input_is_one_sentence_before_any_work(options, match, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("the network was called")

    monkeypatch.setattr(pia.PIAModel, "predict", never)
    call = {"picture": PICTURE, "motion": MOTION, "progress": False, **options}
    with pytest.raises((ValueError, TypeError), match=match) as caught:
        tiny.pipeline("storybook").video(**call)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options, match",
    [
        ({"prompt": "  "}, "prompt must be a sentence"),
        ({"prompt": "a boot"}, "'boot'.*boat"),
        ({"strength": 1.2}, "strength must be"),
        ({"num_inference_steps": -1}, "num_inference_steps must be"),
        ({"guidance_scale": -1}, "guidance_scale must be"),
        ({"size": (18, 16)}, "multiples of 4"),
        ({"picture": None, "strokes": [iv.Stroke(points=[(1, 1)])]}, "strokes and mask need"),
        ({"strokes": [iv.Stroke(points=[(500, 1)])]}, "outside the picture"),
        ({"strokes": [iv.Stroke(points=[(5, 5)], tool="eraser")]}, "leave no paint"),
        ({"mask": np.ones((3, 3))}, "mask must have"),
        ({"mask": np.zeros((tiny.SIZE,) * 2)}, "must not be empty"),
        ({"mask": np.full((tiny.SIZE,) * 2, 2.0)}, "mask must be finite numbers"),
        ({"picture": tiny.picture().resize((20, 16)), "mask": BOX}, "picture is 20 x 16 pixels"),
    ],
)
def test_bad_image_input_is_one_sentence_before_any_work(options, match, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("the network was called")

    monkeypatch.setattr(pia.PIAModel, "predict_image", never)
    call = {"prompt": "a boat", "picture": PICTURE, **options}
    with pytest.raises((ValueError, TypeError), match=match) as caught:
        tiny.pipeline("storybook").image(**call)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", ["RGBA", "L", "P"])
def test_any_picture_is_taken_and_fitted(mode):
    picture = Image.new("RGB", (40, 20), "red").convert(mode)
    with pytest.warns(UserWarning, match="cropped"):
        run = tiny.pipeline().video(picture, MOTION, progress=False)
    assert run.picture.size == (tiny.SIZE, tiny.SIZE) and run.picture.mode == "RGB"


def test_other_sizes_and_lengths_than_the_models_own():
    picture = tiny.picture().resize((24, 16))
    run = tiny.pipeline().video(
        picture, MOTION, edited=picture, size=(24, 16), num_frames=7, progress=False
    )
    assert run.frames.shape == (7, 16, 24, 3)
    assert run.trace["eps_hat"].shape == (4, 7, 4, 8, 12)


def test_a_foreign_picture_is_said_to_be_foreign(folder):
    facts = json.loads((folder / "storybook.json").read_text()) | {"round_trip_db": 99}
    (folder / "storybook.json").write_text(json.dumps(facts))
    pipe = load(folder)
    back, found = pipe.round_trip(tiny.picture())
    error = (np.asarray(back, float) - np.asarray(tiny.picture())) / 255
    assert found == pytest.approx(-10 * np.log10((error**2).mean()), abs=1e-3)
    with pytest.warns(UserWarning, match="foreign to weights"):
        pipe.video(tiny.picture(), MOTION, progress=False)


def test_latents_decode_to_pictures():
    pipe = tiny.pipeline()
    run = pipe.video(tiny.picture(), MOTION, progress=False)
    assert np.array_equal(pipe.decode(run.state.z), run.frames)


def test_old_names_are_understood_and_say_the_new_ones():
    pipe = tiny.pipeline()
    names = {"cell": "vae_scale_factor", "forget": "clear_cache", "foreign": "out_of_domain"}
    for owner, old in ((pipe, "cell"), (pipe, "forget"), (pipe, "foreign"), (pipe.model, "cell")):
        with pytest.warns(DeprecationWarning, match=f"{old} is called {names[old]} now"):
            assert getattr(owner, old) == getattr(owner, names[old])
    with pytest.warns(DeprecationWarning, match="decode_slice is called decode_chunk_size now"):
        model = iv.load("svd", small=True, device="cpu", decode_slice=3).model
    assert model.decode_chunk_size == 3


def test_what_a_model_can_do_is_asked_of_the_protocol_alone():
    asked = re.compile(r"(get|has)attr\((\w+\.)*(model|pictures)\b")
    room = Path(models.__file__).parent
    files = [path for path in room.parent.rglob("*.py") if room not in path.parents]
    assert len(files) > 30 and not [path for path in files if asked.search(path.read_text())]
    assert asked.search("getattr(self.pipe.model, 'x')")
