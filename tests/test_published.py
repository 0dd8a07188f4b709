"""What the makers of the checkpoints publish (published.json), against what is built with them.

The file has one fact a line, [value, source]; the value is null where there is none ("none: ...")
or where it was not found in public code and documentation ("not found"). "like" names the
checkpoint whose other facts hold as well.
"""

import json
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import diffusers
import pytest
import torch
from diffusers.configuration_utils import FrozenDict

import ivkit as iv
from ivkit.instructions import Settings
from ivkit.models import pia
from ivkit.models.table import TABLE

FLOAT = {"dtype": "float32", "device": "cpu"}
FILE = json.loads((Path(__file__).parent / "published.json").read_text())
NAMES = [name for name, row in TABLE.items() if row.ids]
CLIPS = [name for name in NAMES if TABLE[name].what.find("pictures alone") < 0]
FAMILIES = [name for name in CLIPS if TABLE[name].family not in ("pia", "animatediff")]
FACTS = """repository licence files variant scheduler picture_scheduler networks size multiple
    frames frame_rule most_frames fps steps guidance flow_shift negative text_tokens
    image_normalisation affinity motion_bucket""".split()


def facts(name):
    """Every fact of a checkpoint by its name, as [value, source]."""
    own = dict(FILE[name])
    like = own.pop("like", None)
    return {**(facts(like) if like else {}), **own}


def published(name):
    return SimpleNamespace(**{fact: value for fact, (value, _) in facts(name).items()})


class Config(torch.nn.Module):
    """A network's published configuration in the place of the network."""

    def __init__(self, config):
        super().__init__()
        self.config = config


def real(name):
    """The model of a row with the published configurations in place of its networks."""
    row, told = TABLE[name], published(name)
    parts = {}
    for part, config in told.networks.items():
        cls = getattr(diffusers, network_class(row.family, part))
        with torch.device("meta"):  # what is not published is as the class has it
            parts[part] = Config(FrozenDict({**cls().config, **config}))
    if row.family in ("pia", "animatediff"):
        if hasattr(told, "adapter"):
            parts["video_unet"] = Config(SimpleNamespace(**told.adapter))
        parts["tokenizer"] = SimpleNamespace(model_max_length=told.text_tokens)
        parts["scheduler"] = None
        own = {"num_inference_steps": told.steps, "guidance_scale": told.guidance}
        return pia.PIAModel(row.name, parts, defaults={"video": own})
    if row.family == "ltx":
        vae = parts["vae"].config
        blocks = 2 ** sum(vae.spatio_temporal_scaling)
        parts["vae"].spatial_compression_ratio = vae.patch_size * blocks
        parts["vae"].temporal_compression_ratio = vae.patch_size_t * blocks
    parts["scheduler"] = scheduler_of(told.scheduler)
    parts["tokenizer"] = SimpleNamespace(model_max_length=told.text_tokens)
    module = import_module(f"ivkit.models.{row.family}")
    return module.FAMILY(row.name, parts, **row.settings)


def network_class(family, part):
    module = import_module(f"ivkit.models.{family}")
    parts = getattr(module, "PARTS", None) or import_module("ivkit.models.sd").BASE
    return parts[part].rstrip("?").split(".")[1]


def scheduler_of(told, **others):
    config = {key: value for key, value in told.items() if key != "class"} | others
    return getattr(diffusers, told["class"])(**config)


def assert_scheduler(found, told):
    assert type(found).__name__ == told["class"]
    differs = {
        k: (found.config[k], v) for k, v in told.items() if k != "class" and found.config[k] != v
    }
    assert not differs


@pytest.fixture(scope="module")
def small():
    kept = {}

    def load(name):
        if name not in kept:
            kept[name] = iv.load(name, small=True, **FLOAT).model
        return kept[name]

    return load


def test_every_fact_of_every_checkpoint_has_a_source():
    assert set(FILE) == set(NAMES)
    for name in NAMES:
        assert set(FACTS) <= set(facts(name))
        for fact, (value, source) in facts(name).items():
            assert source, (name, fact)
            assert value is not None or source.startswith(("none", "not found")), (name, fact)


@pytest.mark.parametrize("name", NAMES)
def test_the_row_names_what_is_published(name):
    row, told = TABLE[name], published(name)
    assert told.repository in row.ids.values()
    assert told.licence in row.licence
    assert row.variant == told.variant
    assert [round(side) for side in real(name).size] == told.size
    if "frames" in row.what:
        w, h = told.size
        assert f"{told.frames} frames, {w} x {h}" in row.what or "same" in row.what


@pytest.mark.parametrize("name", ["pia", "pia-lcm", "animatediff"])
def test_clips_are_denoised_with_the_schedule_that_pia_and_animatediff_were_trained_with(
    name, small
):
    """Where sampling starts, the square root of alpha-bar is .0397; a wrong one moves it."""
    scheduler = small(name).schedulers["video"]
    assert_scheduler(scheduler, published(name).scheduler)
    assert float(scheduler.alphas_cumprod[-1] ** 0.5) == pytest.approx(0.0397, abs=5e-5)


@pytest.mark.parametrize("name", [n for n in NAMES if published(n).picture_scheduler])
def test_pictures_are_drawn_with_the_checkpoints_own_schedule(name, small):
    assert_scheduler(small(name).schedulers["image"], published(name).picture_scheduler)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_familys_scheduler_is_the_published_one(name, small):
    assert_scheduler(small(name).parts["scheduler"], published(name).scheduler)


@pytest.mark.parametrize("name", [n for n in CLIPS if published(n).flow_shift])
def test_the_makers_shift_holds_whatever_the_conversion_wrote(name):
    """The checkpoint of Wan 2.2 I2V A14B says 3, Wan's own code 5."""
    told, made = published(name), real(name)
    assert made.parts["scheduler"].config.flow_shift == told.flow_shift
    if name == "wan-2.2-i2v":
        parts = {**made.parts, "scheduler": scheduler_of(told.scheduler, flow_shift=3.0)}
        again = type(made)(name, parts, **TABLE[name].settings)
        assert again.parts["scheduler"].config.flow_shift == 5.0
        assert again.scheduler(4).config.flow_shift == 5.0


@pytest.mark.parametrize("name", CLIPS)
def test_defaults_of_a_clip_are_the_published_ones(name, small):
    told, model = published(name), small(name)
    video = model.defaults["video"]
    assert video["num_inference_steps"] == told.steps
    assert video["guidance_scale"] == told.guidance
    assert Settings().resolve(model).negative_prompt == (told.negative or "")
    assert Settings(negative_prompt="").resolve(model).negative_prompt == ""
    if told.motion_bucket:
        assert video["motion_scale"] == told.motion_bucket
        assert model.noise_aug_strength == told.noise_aug_strength
    if hasattr(model, "fps"):
        assert model.fps == told.fps
    if hasattr(told, "boundary") and told.boundary:
        assert model.boundary == told.boundary
    if told.affinity:
        assert [list(row) for row in model.affinity] == told.affinity
    assert real(name).num_frames == told.frames


@pytest.mark.parametrize("name", ["sd", "sd-turbo"])
def test_defaults_of_a_picture_are_the_published_ones(name, small):
    told, image = published(name), small(name).defaults["image"]
    assert image["guidance_scale"] == told.guidance
    assert image["num_inference_steps"] == (told.steps if name == "sd-turbo" else 25)


@pytest.mark.parametrize("name", [n for n in NAMES if published(n).text_tokens])
def test_a_text_is_as_long_as_published(name, small):
    model, told = small(name), published(name)
    assert model.max_tokens == real(name).max_tokens == told.text_tokens


@pytest.mark.parametrize("name", [n for n in NAMES if published(n).image_normalisation])
def test_the_picture_that_clip_reads_is_normalised_as_published(name, small):
    parts, told = small(name).parts, published(name).image_normalisation
    look = parts.get("feature_extractor") or parts["image_processor"]
    assert list(look.image_mean) == told["mean"] and list(look.image_std) == told["std"]


def answer(model, **asked):
    """None where a clip is accepted, else the sentence that refuses it."""
    try:
        Settings(**asked).resolve(model)
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("name", CLIPS)
def test_small_networks_refuse_and_accept_what_the_published_ones_do(name, small):
    told, tiny, whole = published(name), small(name), real(name)
    assert (tiny.vae_scale_factor, tiny.multiple) == (whole.vae_scale_factor, whole.multiple)
    assert getattr(tiny, "stride", 1) == getattr(whole, "stride", 1)
    assert whole.multiple % told.multiple == 0
    fixed = name == "cogvideox"  # it has learned the places of one size
    for model in (tiny, whole):
        (w, h), frames = model.size, model.num_frames
        if not fixed or model is whole:
            (w, h), frames = told.size, told.frames
        assert answer(model, size=(w, h), num_frames=frames) is None
        wrong = w, h + model.multiple // 2
        assert answer(model, size=wrong).startswith(f"size must be multiples of {model.multiple} ")
        wider = answer(model, size=(w + model.multiple, h))
        assert wider.startswith(f"size must be {w} x {h} ") if fixed else wider is None
        step, rest = told.frame_rule
        assert answer(model, num_frames=step + rest) is None
        if step > 1:
            refused = f"num_frames must be a multiple of {step} and one more"
            assert answer(model, num_frames=step + rest + 1).startswith(refused)
        if name in ("pia", "pia-lcm", "animatediff"):
            assert answer(model, num_frames=told.most_frames) is None
            assert "knows 32 at most" in answer(model, num_frames=told.most_frames + 1)
    if fixed:
        assert "knows 49 at most" in answer(whole, num_frames=told.most_frames + 8)
    if name == "wan-2.2-ti2v":
        for model in (tiny, whole):
            assert "multiples of 32 pixels" in answer(model, size=(1280, 720))


@pytest.mark.parametrize("name", FAMILIES)
def test_small_networks_compute_at_the_published_size(name, small):
    """A clip of one latent frame, once through the network: nothing in it is too short for that."""
    model, told = small(name), published(name)
    w, h = model.size if name == "cogvideox" else told.size
    frames = told.frame_rule[1] or 1
    rng = torch.Generator().manual_seed(0)
    pixels = torch.rand(1, 3, h, w, generator=rng) * 2 - 1
    options = {"num_frames": frames, "generator": rng}
    condition = model.condition(pixels, "a boat", **options)
    scheduler = model.scheduler(2)
    z = model.noise(frames, (w, h), rng)
    with torch.no_grad():
        out = model.predict(z[None], scheduler.timesteps[0], [condition])[0].guided
    assert out.shape == z.shape and out.isfinite().all()
