"""Our loops against diffusers' own pipelines: the same seed, the same numbers."""

import copy

import numpy as np
import pytest
import tiny
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    PIAPipeline,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
)

from ivkit.pictures import to_pixels

SD = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
PROMPT, MOTION = "a red boat and a sun", "the boat moves right"


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def assert_same(mine, theirs, levels=1):
    """Pictures agree up to a rounding of the last step to uint8."""
    a, b = (np.asarray(x).astype(int) for x in (mine, theirs))
    assert a.shape == b.shape
    assert np.abs(a - b).max() <= levels
    assert a.std() > 5  # a flat picture would agree with anything


def stock_image(cls, kind):
    parts = tiny.parts(kind)
    parts.pop("motion_adapter")
    pipe = cls(**parts, **SD)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def with_scheduler(pipe, kind, scheduler):
    """The same pipeline over a copy of its model with another scheduler."""
    pipe.model = copy.copy(pipe.model)
    made = scheduler.from_config(pipe.model.schedulers[kind].config)
    pipe.model.schedulers = {**pipe.model.schedulers, kind: made}
    return pipe


@pytest.mark.parametrize(
    "kind, scheduler",
    [
        ("pia", DDIMScheduler),
        ("storybook", DDIMScheduler),
        ("pia", PNDMScheduler),
        ("pia", EulerDiscreteScheduler),
        ("pia", DPMSolverMultistepScheduler),
    ],
)
def test_text_to_image_is_stable_diffusion(kind, scheduler):
    pipe = with_scheduler(tiny.pipeline(kind), "image", scheduler)
    stock = stock_image(StableDiffusionPipeline, kind)
    stock.scheduler = copy.deepcopy(pipe.model.schedulers["image"])
    theirs = stock(PROMPT, num_inference_steps=4, guidance_scale=3.0, generator=seeded(5)).images[0]
    assert_same(pipe.image(PROMPT, seed=5), theirs)


def test_one_step_without_guidance_is_stable_diffusion():
    """As SD-Turbo is made to be used."""
    pipe = tiny.pipeline()
    made = EulerDiscreteScheduler.from_config(
        pipe.model.schedulers["image"].config, timestep_spacing="trailing"
    )
    pipe.model = copy.copy(pipe.model)
    pipe.model.schedulers = {**pipe.model.schedulers, "image": made}
    stock = stock_image(StableDiffusionPipeline, "pia")
    stock.scheduler = copy.deepcopy(made)
    options = {"num_inference_steps": 1, "guidance_scale": 0.0}
    theirs = stock(PROMPT, generator=seeded(5), **options).images[0]
    assert_same(pipe.image(PROMPT, seed=5, **options), theirs)


@pytest.mark.parametrize("kind", ["pia", "storybook"])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_image_to_image_is_stable_diffusion(kind, guidance):
    stock = stock_image(StableDiffusionImg2ImgPipeline, kind)
    options = {"num_inference_steps": 6, "guidance_scale": guidance, "strength": 0.6}
    theirs = stock(PROMPT, image=tiny.picture(), generator=seeded(5), **options).images[0]
    mine = tiny.pipeline(kind).image(PROMPT, tiny.picture(), seed=5, posterior="sample", **options)
    assert_same(mine, theirs)


@pytest.mark.parametrize(
    "scheduler", [DDIMScheduler, PNDMScheduler, EulerDiscreteScheduler, DPMSolverMultistepScheduler]
)
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_lam_one_is_pia(scheduler, guidance):
    pipe = with_scheduler(tiny.pipeline(), "video", scheduler)
    video = copy.deepcopy(pipe.model.schedulers["video"])
    stock = PIAPipeline(**{**tiny.parts(), "scheduler": video})
    stock.set_progress_bar_config(disable=True)
    options = {"num_frames": 4, "num_inference_steps": 4, "guidance_scale": guidance}
    theirs = stock(
        tiny.picture(),
        MOTION,
        generator=seeded(7),
        motion_scale=2,
        output_type="latent",
        **options,
    ).frames[0]
    for lam, picture, edited in ((1.0, 0, 1), (0.0, 1, 0)):  # also: lam = 0 is PIA on the edit
        run = pipe.video(
            tiny.picture(picture),
            MOTION,
            edited=tiny.picture(edited),
            lam=lam,
            seed=7,
            motion_scale=2,
            posterior="sample",
            progress=False,
            **options,
        )
        torch.testing.assert_close(run.state.z.transpose(0, 1), theirs, atol=2e-4, rtol=2e-4)


def test_affinity_is_pias():
    from diffusers.pipelines.deprecated.pia.pipeline_pia import prepare_mask_coef_by_statistics

    rows = [*range(6), 8, 7, 6]  # diffusers has PIA's rows of another style the other way round
    pixels = to_pixels(tiny.picture())
    for scale, theirs in enumerate(rows):
        for frames in (1, 4, 16):
            how = {"num_frames": frames, "motion_scale": scale}
            affinity = tiny.model().condition(pixels, "the boat", **how).affinity
            expected = prepare_mask_coef_by_statistics(frames, 0, theirs)
            assert affinity[:, 0, 0, 0].tolist() == pytest.approx(expected)
            assert (affinity == affinity[..., :1, :1]).all()


def test_two_networks_of_one_adapter_do_not_overwrite_each_other():
    from ivkit.models.pia import motion_unet

    parts = tiny.parts()
    before = parts["motion_adapter"].conv_in.weight.clone()
    first = motion_unet(parts["unet"], parts["motion_adapter"])
    weight = first.conv_in.weight.clone()
    motion_unet(copy.deepcopy(parts["unet"]), parts["motion_adapter"]).conv_in.weight.data.zero_()
    assert torch.equal(first.conv_in.weight, weight)
    assert torch.equal(parts["motion_adapter"].conv_in.weight, before)
    assert first.down_blocks[0].resnets is parts["unet"].down_blocks[0].resnets


def test_the_folder_is_a_stable_diffusion_pipeline(tmp_path):
    from ivkit.pipeline import load

    folder = tiny.save(tmp_path / "weights")
    stock = StableDiffusionPipeline.from_pretrained(folder)
    stock.set_progress_bar_config(disable=True)
    theirs = stock(PROMPT, num_inference_steps=4, guidance_scale=3.0, generator=seeded(1)).images[0]
    assert_same(load(folder, dtype="float32").image(PROMPT, seed=1), theirs)


def test_a_stochastic_scheduler_repeats_itself():
    pipe = with_scheduler(tiny.pipeline(), "video", EulerAncestralDiscreteScheduler)
    first, second, other = (
        pipe.video(tiny.picture(), MOTION, seed=seed, progress=False).frames for seed in (0, 0, 1)
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)
