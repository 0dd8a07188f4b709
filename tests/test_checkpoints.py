"""Checkpoints: by id, from a folder or one file, LoRAs on top; what a bad one is answered with."""

import dataclasses
import json
import shutil

import numpy as np
import one_file
import pytest
import tiny
import torch
from diffusers import AnimateDiffPipeline, AutoencoderTiny, DDIMScheduler, MotionAdapter
from families import FAMILIES

import ivkit as iv
from ivkit import models
from ivkit.models import animatediff, hub, pia
from ivkit.models.table import TABLE

MOTION = "the boat moves right"
FLOAT = {"dtype": "float32", "device": "cpu"}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A Stable Diffusion checkpoint in diffusers' layout, without a motion adapter."""
    folder = tiny.save(tmp_path_factory.mktemp("sd") / "base", "pia")
    (folder / "storybook.json").unlink()
    (folder / "motion_adapter").rename(folder.parent / "adapter")
    return folder


@pytest.fixture
def rows(base, monkeypatch):
    """The table, with local folders in the place of hub ids."""
    ids = {"base": str(base), "motion_adapter": str(base.parent / "adapter")}
    for name in ("pia", "sd", "pia-lcm", "animatediff"):
        keep = {k: v for k, v in ids.items() if k in TABLE[name].ids}
        monkeypatch.setitem(TABLE, name, dataclasses.replace(TABLE[name], ids=keep))
    return TABLE


def lora(unet, folder, r=2, seed=1):
    """A LoRA file for a UNet's attention, in diffusers' names."""
    from diffusers import StableDiffusionPipeline
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    torch.manual_seed(seed)
    unet.add_adapter(LoraConfig(r=r, target_modules=["to_q", "to_v"], init_lora_weights=False))
    layers = get_peft_model_state_dict(unet)
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers)
    return folder / "pytorch_lora_weights.safetensors"


def clip(pipe, **options):
    options = {"num_inference_steps": 2, "num_frames": 4, "progress": False, **options}
    return pipe.video(tiny.picture(), MOTION, **options)


# --------------------------------------------------------------------------------- SD and PIA


def test_pia_from_ids_is_the_one_built_by_hand(rows, capsys):
    pipe = iv.load("pia", **FLOAT)
    assert "CreativeML" in capsys.readouterr().out
    built = iv.Pipeline(
        pia.build("x", tiny.parts(), {}, device=torch.device("cpu"), dtype=torch.float32)
    )
    assert torch.equal(clip(pipe).state.z, clip(built).state.z)
    # PIA's own steps for clips, the checkpoint's for pictures
    assert pipe.model.schedulers["video"].config.beta_schedule == "linear"
    assert pipe.model.schedulers["image"].config.beta_schedule == "scaled_linear"


def test_one_safetensors_file_is_the_same_checkpoint(rows, base, tmp_path):
    file = one_file.save(tiny.parts(), tmp_path / "dreambooth.safetensors")
    whole = iv.load("pia", **FLOAT)
    single = iv.load("pia", base=file, config=base, **FLOAT)
    assert single.name == "dreambooth"
    torch.testing.assert_close(clip(single).state.z, clip(whole).state.z)
    a, b = (np.asarray(p.image("a red boat", seed=1), int) for p in (whole, single))
    assert np.abs(a - b).max() <= 1
    pictures = iv.load(file, config=base, **FLOAT)
    assert np.abs(np.asarray(pictures.image("a red boat", seed=1), int) - a).max() <= 1


def test_a_lora_is_in_pictures_and_in_clips(rows, tmp_path):
    file = lora(tiny.parts()["unet"], tmp_path)
    plain = iv.load("pia", **FLOAT)
    half, full, none = (iv.load("pia", lora=file, lora_scale=s, **FLOAT) for s in (0.5, 1.0, 0.0))
    z = [clip(pipe).state.z for pipe in (plain, half, full, none)]
    assert torch.equal(z[0], z[3])
    assert (z[0] - z[2]).abs().max() > (z[0] - z[1]).abs().max() > 1e-3
    assert plain.image("a boat").tobytes() != full.image("a boat").tobytes()


def test_lcm_takes_four_steps_and_no_guidance(rows, tmp_path, monkeypatch):
    file = lora(tiny.parts()["unet"], tmp_path)
    row = dataclasses.replace(TABLE["pia-lcm"], ids={**TABLE["pia"].ids, "few_step": str(file)})
    monkeypatch.setitem(TABLE, "pia-lcm", row)
    pipe = iv.load("pia-lcm", **FLOAT)
    run = pipe.video(
        tiny.picture(), MOTION, num_frames=4, progress=False, lam=0.5, edited=tiny.picture(1)
    )
    assert len(run.trace) == 4 and "eps_uncond" not in run.trace[0]
    assert type(run.state.scheduler).__name__ == "LCMScheduler"
    again = pipe.video(
        tiny.picture(), MOTION, num_frames=4, progress=False, lam=0.5, edited=tiny.picture(1)
    )
    assert torch.equal(run.state.z, again.state.z)


def test_pictures_alone(rows, base):
    pipe = iv.load("sd", **FLOAT)
    assert pipe.image("a boat").size == (tiny.SIZE, tiny.SIZE)
    assert iv.load(base, **FLOAT).image("a boat").tobytes() == pipe.image("a boat").tobytes()
    with pytest.raises(ValueError, match="sd makes pictures alone: load 'pia'"):
        clip(pipe)


def test_previews_through_the_tiny_autoencoder(rows, base, tmp_path, monkeypatch):
    taesd = AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
        latent_channels=4,
    )
    taesd.save_pretrained(tmp_path / "taesd")
    pipe = iv.load("pia", taesd=tmp_path / "taesd", **FLOAT)
    z = clip(pipe).state.z
    with torch.no_grad():
        expected = taesd.decode(z[1][None]).sample[0].clamp(-1, 1)
    torch.testing.assert_close(pipe.model.preview(z, 1), expected)
    assert not torch.allclose(pipe.model.preview(z, 1), pipe.model.decode(z[1][None])[0], atol=0.1)
    # of a checkpoint that the table does not name, it is the table's all the same
    monkeypatch.setattr(pia, "TAESD", str(tmp_path / "taesd"))
    assert "tiny_decoder" in iv.load(base, taesd=True, **FLOAT).model.capabilities


def test_the_checkpoints_safety_checker_hides_what_it_flags(rows, base):
    pipe = iv.load("sd", **FLOAT)
    assert pipe.model.safety is None  # this checkpoint brings none
    flags = [True]

    def checker(images, clip_input):
        assert clip_input.shape[1:] == (3, 224, 224)
        return images, flags

    from transformers import CLIPImageProcessor

    pipe.model.safety = checker, CLIPImageProcessor()
    with pytest.warns(UserWarning, match="safety checker hid a picture"):
        assert np.asarray(pipe.image("a boat")).max() == 0
    flags[0] = False
    assert np.asarray(pipe.image("a boat")).max() > 0


def test_a_checkpoints_own_safety_checker_is_on_unless_switched_off(base, tmp_path):
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPVisionConfig

    folder = tmp_path / "whole"
    shutil.copytree(base, folder)
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        projection_dim=16,
        image_size=224,
        patch_size=56,
    )
    config = CLIPConfig(vision_config=vision.to_dict(), projection_dim=16)
    StableDiffusionSafetyChecker(config).save_pretrained(folder / "safety_checker")
    CLIPImageProcessor().save_pretrained(folder / "feature_extractor")
    pipe = iv.load(folder, **FLOAT)
    assert isinstance(pipe.model.safety[0], StableDiffusionSafetyChecker)
    drawn = pipe.image("a boat", num_inference_steps=1)
    bare = iv.load(folder, safety_checker=False, **FLOAT)
    assert bare.model.safety is None
    assert drawn.size == bare.image("a boat", num_inference_steps=1).size


# ------------------------------------------------------------------------------- AnimateDiff


def animatediff_parts():
    parts = tiny.parts()
    config = {**parts["motion_adapter"].config, "conv_in_channels": None}
    torch.manual_seed(3)
    parts["motion_adapter"] = MotionAdapter.from_config(config).eval()
    return parts


def animatediff_pipe():
    return iv.Pipeline(
        pia.build(
            "tiny",
            animatediff_parts(),
            {},
            device=torch.device("cpu"),
            dtype=torch.float32,
            cls=animatediff.AnimateDiffModel,
        )
    )


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_lam_one_is_animatediff(guidance):
    parts = animatediff_parts()
    parts["scheduler"] = DDIMScheduler(
        beta_schedule="linear",
        beta_start=0.00085,
        beta_end=0.012,
        steps_offset=1,
        clip_sample=False,
    )
    stock = AnimateDiffPipeline(**parts)
    stock.set_progress_bar_config(disable=True)
    theirs = stock(
        MOTION,
        num_frames=4,
        num_inference_steps=3,
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(7),
        output_type="latent",
    ).frames[0]
    for lam in (1.0, 0.0):
        run = clip(
            animatediff_pipe(),
            num_inference_steps=3,
            guidance_scale=guidance,
            seed=7,
            lam=lam,
            edited=tiny.picture(1),
        )
        torch.testing.assert_close(run.state.z.transpose(0, 1), theirs, atol=1e-4, rtol=1e-4)


def test_a_drag_reaches_animatediff_by_dual_clock():
    drags = [iv.Drag(path=[(5, 7), (10, 7)], mask=tiny.region())]
    plain, moved, undone = (
        clip(animatediff_pipe(), drags=d, lam=lam)
        for d, lam in (((), 0.0), (drags, 0.0), (drags, 1.0))
    )
    assert (moved.state.z - plain.state.z).abs().max() > 0.05
    torch.testing.assert_close(undone.state.z, plain.state.z)
    with pytest.raises(ValueError, match="mechanism must be"):
        clip(animatediff_pipe(), drags=drags, mechanism="condition")


# ----------------------------------------------------------------- folders of further families


def save(name, folder):
    family = FAMILIES[name]
    parts = family.parts()
    index = {"_class_name": family.pipeline}
    for part, value in parts.items():
        if value is not None:
            value.save_pretrained(folder / part)
            index[part] = ["diffusers", type(value).__name__]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize("name", ["svd", "wan-2.1", "wan-ti2v", "cogvideox", "i2vgenxl"])
def test_a_folder_tells_its_family(name, tmp_path):
    family = FAMILIES[name]
    options = {"size": family.size, "num_frames": family.num_frames}
    pipe = iv.load(save(name, tmp_path / name), **FLOAT, **options)
    assert isinstance(pipe.model, family.cls) and pipe.name == name
    run, built = (
        p.video(family.picture(), MOTION, num_inference_steps=2, progress=False)
        for p in (pipe, iv.Pipeline(family.model()))
    )
    # Weights read from a file lie elsewhere in memory, so sums may run in another order.
    torch.testing.assert_close(run.state.z, built.state.z, rtol=0, atol=1e-3)
    with pytest.raises(TypeError, match="'colour' is no option of this model; "):
        iv.load(tmp_path / name, colour=1, **FLOAT)


def test_another_layout_is_named(tmp_path, base):
    svd = save("svd", tmp_path / "svd")
    with pytest.raises(ValueError, match="holds a StableVideoDiffusionPipeline; pia needs"):
        iv.load("pia", base=svd, **FLOAT)
    with pytest.raises(ValueError, match="holds a StableDiffusionPipeline; wan-2.1-i2v needs"):
        iv.load("wan-2.1-i2v", base=base, **FLOAT)
    (svd / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(ValueError, match="holds a FluxPipeline; the layouts that are read are"):
        iv.load(svd, **FLOAT)


def test_text_to_video_checkpoints_are_refused(tmp_path):
    from ivkit.models import small

    config = small.layout("wan-2.1")["parts"]["transformer"]
    net = small.made({**config, "in_channels": 16})
    parts = {**small.parts("wan-2.1"), "transformer": net}
    with pytest.raises(ValueError, match="takes 16 channels: this Wan makes clips from text alone"):
        FAMILIES["wan-2.1"].cls("tiny", parts)


# ---------------------------------------------------------------------------------- bad input


def test_bad_files_are_one_sentence(rows, base, tmp_path):
    file = one_file.save(tiny.parts(), tmp_path / "whole.safetensors")
    (tmp_path / "half.safetensors").write_bytes(file.read_bytes()[:5000])
    (tmp_path / "model.ckpt").write_bytes(b"x")
    other = tmp_path / "other"
    other.mkdir()
    wrong = lora(tiny.parts("storybook")["unet"], tmp_path)
    wider = tiny.parts()["unet"].__class__.from_config(
        {**tiny.parts()["unet"].config, "block_out_channels": (16, 32)}
    )
    for options, match in [
        ({"base": tmp_path / "half.safetensors"}, "half.safetensors is damaged"),
        ({"base": tmp_path / "model.ckpt"}, "is a pickle.*allow_pickle=True"),
        ({"base": wrong, "config": base}, "no Stable Diffusion checkpoint of the wanted layout"),
        ({"lora": lora(wider, other)}, "does not fit this checkpoint"),
        ({"lora": file}, "does not fit|changes nothing"),
        ({"lora": tmp_path / "model.ckpt"}, "is a pickle"),
        ({"base": "not an id"}, "'not an id' is neither a folder nor an id"),
        ({"colour": 1}, "colour"),
    ]:
        with pytest.raises((ValueError, TypeError), match=match) as caught:
            iv.load("pia", **options, **FLOAT)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [n for n, row in TABLE.items() if row.ids])
def test_offline_says_which_id_and_size_and_what_needs_none(name, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError) as caught:
        iv.load(name, **FLOAT)
    said, row = str(caught.value), TABLE[name]
    assert row.ids["base"] in said and f"{row.download_gb:g} GB" in said
    assert "ivkit.load('storybook') needs no download" in said and "\n" not in said


@pytest.mark.parametrize("by", ["name", "id"])
def test_what_a_licence_forbids_is_printed_by_name_and_by_id(by, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    row = TABLE["sd-turbo"]
    with pytest.raises(FileNotFoundError):
        iv.load(row.name if by == "name" else row.ids["base"], **FLOAT)
    assert f"sd-turbo: {row.licence}; {row.notice}" in capsys.readouterr().out


def test_what_has_gone_names_the_fallback(monkeypatch):
    import httpx
    import huggingface_hub
    from huggingface_hub import errors

    def gone(*args, **options):
        answer = httpx.Response(404, request=httpx.Request("GET", "http://localhost"))
        raise error("gone", response=answer)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", gone)
    error = errors.RepositoryNotFoundError
    with pytest.raises(FileNotFoundError, match="not on the hub any more; try base='Lykon/dream"):
        iv.load("pia", **FLOAT)
    error = errors.GatedRepoError
    with pytest.raises(FileNotFoundError, match="licence must be accepted"):
        iv.load("svd", **FLOAT)


def test_only_safetensors_and_one_variant_are_fetched(monkeypatch, tmp_path):
    import huggingface_hub

    asked = {}
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda source, **o: asked.update(o) or str(tmp_path)
    )
    hub.fetch(TABLE["svd"].ids["base"], ("unet", "vae"), TABLE["svd"])
    assert "unet/*.fp16*.safetensors" in asked["allow_patterns"]
    hub.fetch("some/one", ("unet",))
    assert "unet/*.safetensors" in asked["allow_patterns"]
    assert "*.fp16*.safetensors" in asked["ignore_patterns"]
    assert not [p for p in asked["allow_patterns"] if p.endswith((".bin", ".ckpt", "*"))]


def test_the_table_is_whole():
    for name, row in TABLE.items():
        assert name == row.name and row.licence and row.what and row.image
        module = __import__(f"ivkit.models.{row.family}", fromlist=["x"])
        assert hasattr(module, "FAMILY") or hasattr(module, "load")
        if hasattr(module, "FAMILY"):
            assert set(row.settings) <= set(module.FAMILY.__dataclass_fields__)
        assert (not row.ids) == (row.download_gb == 0)
    assert models.TABLE is TABLE


def test_the_table_can_be_read(capsys):
    from ivkit.__main__ import main

    assert main(["models"]) == 0
    printed = capsys.readouterr().out
    assert all(f"{name:16s}" in printed and row.licence in printed for name, row in TABLE.items())
