"""LoRA files of every library, merged as diffusers merges them; what a bad one is answered with."""

import copy
import json

import pytest
import tiny
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file

from ivkit.models import lora
from ivkit.models.lora import add_lora
from ivkit.models.sd import BASE

QUERY = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
OUT = "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0"
CONV = "mid_block.resnets.0.conv1"
WORDS = "encoder.layers.1.self_attn.q_proj"
SAID = "encoder.layers.0.self_attn.out_proj"


def matrices(network, layer, r=2):
    """Random A and B for a layer of a network."""
    weight, g = network.get_submodule(layer).weight, torch.Generator().manual_seed(len(layer))
    b = torch.randn(len(weight), r, *[1] * (weight.ndim - 2), generator=g)
    return torch.randn(r, *weight.shape[1:], generator=g), b


def diffusers_names(layer, a, b):
    return {f"unet.{layer}.lora_A.weight": a, f"unet.{layer}.lora_B.weight": b}


def down_and_up(layer, a, b):
    return {f"unet.{layer}.lora.down.weight": a, f"unet.{layer}.lora.up.weight": b}


def of_2023(layer, a, b):
    """The attention processors' names, as of diffusers 0.15."""
    place, _, which = layer.removesuffix(".0").rpartition(".")
    name = f"unet.{place}.processor.{which}_lora"
    return {f"{name}.down.weight": a, f"{name}.up.weight": b}


def kohya(layer, a, b):
    text = layer.startswith("encoder")
    name = ("lora_te_text_model." if text else "lora_unet_") + layer
    name = name.replace(".", "_")
    return {
        f"{name}.lora_down.weight": a,
        f"{name}.lora_up.weight": b,
        f"{name}.alpha": torch.tensor(1.0),
    }


def text_encoder(layer, a, b):
    if not layer.startswith("encoder"):
        return down_and_up(layer, a, b)
    name = f"text_encoder.text_model.{layer}.lora_linear_layer"
    return {f"{name}.down.weight": a, f"{name}.up.weight": b}


def settings(**values):
    """The header that diffusers writes beside A and B."""
    return {"lora_adapter_metadata": json.dumps({f"unet.{k}": v for k, v in values.items()})}


SET = {"r": 2, "lora_alpha": 6, "target_modules": ["to_q", "to_out.0"]}


@pytest.mark.parametrize(
    "names, layers, header",
    [
        (diffusers_names, (QUERY, OUT, CONV), None),
        (diffusers_names, (QUERY, OUT), settings(**SET)),
        (diffusers_names, (QUERY, OUT), settings(**SET, alpha_pattern={"to_q": 1})),
        (diffusers_names, (QUERY, OUT), settings(**SET, use_rslora=True)),
        (down_and_up, (QUERY, CONV), None),
        (of_2023, (QUERY, OUT), None),
        (kohya, (QUERY, OUT, CONV, WORDS, SAID), None),
        (text_encoder, (QUERY, WORDS), None),
    ],
)
def test_every_librarys_file_is_merged_as_diffusers_merges_it(names, layers, header, tmp_path):
    parts, state = tiny.parts(), {}
    for layer in layers:
        network = parts["text_encoder" if layer.startswith("encoder") else "unet"]
        state |= names(layer, *matrices(network, layer))
    file = tmp_path / "lora.safetensors"
    save_file(state, file, header)
    theirs = copy.deepcopy({name: parts[name] for name in BASE})
    pipe = StableDiffusionPipeline(**theirs, safety_checker=None, feature_extractor=None)
    pipe.load_lora_weights(str(tmp_path), weight_name=file.name)
    pipe.fuse_lora(lora_scale=0.5)
    pipe.unload_lora_weights()
    plain = {k: v.clone() for k, v in parts["unet"].state_dict().items()}
    add_lora(parts, file, 0.5)
    for name in ("unet", "text_encoder"):
        mine, wanted = parts[name].state_dict(), theirs[name].state_dict()
        for key in wanted:
            torch.testing.assert_close(mine[key], wanted[key], msg=lambda m, k=key: f"{k}: {m}")
    changed = {key for key in plain if not torch.equal(plain[key], parts["unet"].state_dict()[key])}
    assert changed == {f"{layer}.weight" for layer in layers if not layer.startswith("encoder")}


def test_a_folder_a_file_and_a_hub_id(tmp_path, monkeypatch):
    """What is written like a file is never asked for on the hub; failed before for some."""
    asked = []
    monkeypatch.setattr(lora, "fetch", lambda source, parts: asked.append(source) or tmp_path)
    monkeypatch.chdir(tmp_path)
    unet = tiny.parts()["unet"]
    save_file(diffusers_names(QUERY, *matrices(unet, QUERY)), tmp_path / "style.safetensors")
    (tmp_path / "styles").mkdir()
    for written in (tmp_path, "style.safetensors", tmp_path / "style.safetensors"):
        assert lora.find(written).name == "style.safetensors"
    for missing in (
        "no.safetensors",
        "owner/no.safetensors",
        "styles/no",
        "no",
        "./owner/no",
        str(tmp_path / "no"),
        tmp_path / "owner" / "no",
        "a/b/c",
        "",
    ):
        with pytest.raises((FileNotFoundError, ValueError)) as caught:
            lora.find(missing)
        assert "\n" not in str(caught.value)
    assert asked == []
    assert lora.find("owner/style-1.5").name == "style.safetensors" and asked == ["owner/style-1.5"]
    save_file({}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="must hold one LoRA, and holds other.*name the file"):
        lora.find(tmp_path)


def bad_files(unet):
    a, b = matrices(unet, QUERY)
    good = diffusers_names(QUERY, a, b)
    A, B = good
    return [
        ({"unet.x.lora_A.weight": a}, None, "its unet has no layer for 'unet.x.lora_A.weight'"),
        ({A: a}, None, "has no B"),
        ({B: b}, None, "has no A"),
        (good | {"unet.x": a}, None, "'unet.x' is no A, no B"),
        ({"": a}, None, "'' is no A, no B"),
        ({"lora_A.weight": a}, None, "'lora_A.weight' is no A, no B"),
        (good | {f"unet.{QUERY}.lora_magnitude_vector": a[0]}, None, "lora_magnitude_vector"),
        ({A: a.repeat(1, 2), B: b}, None, r"make no weight \(8, 8\)"),
        ({A: a[:1], B: b}, None, "make no weight"),
        ({A: a[:0], B: b[:, :0]}, None, "make no weight"),
        ({A: a[0], B: b}, None, "make no weight"),
        ({A: a * torch.nan, B: b}, None, "holds NaN, infinity or more than one alpha"),
        (good | {f"unet.{QUERY}.alpha": torch.ones(2)}, None, "more than one alpha"),
        (kohya("no_such.layer", a, b), None, "has no layer for 'lora_unet_no_such_layer"),
        ({"lora_te2_x.lora_down.weight": a}, None, "lora_te2_x"),
        ({}, None, "changes nothing in this checkpoint's UNet"),
        *[
            (good, {"lora_adapter_metadata": text}, "its settings are damaged")
            for text in (
                "5",
                "null",
                "[1]",
                "{",
                "[" * 100_000,
                '{"unet.lora_alpha": "much"}',
                '{"unet.alpha_pattern": 5}',
                '{"unet.alpha_pattern": {"(": 1}}',
            )
        ],
    ]


def test_a_bad_file_is_one_sentence(tmp_path):
    """Failed before: IndexError for the first, and PEFT's page for another network."""
    parts = tiny.parts()
    before = {k: v.clone() for k, v in parts["unet"].state_dict().items()}
    for state, header, match in bad_files(parts["unet"]):
        save_file({k: v.clone() for k, v in state.items()}, tmp_path / "bad.safetensors", header)
        with pytest.raises(ValueError, match=match) as caught:
            add_lora(parts, tmp_path / "bad.safetensors")
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert all(torch.equal(v, before[k]) for k, v in parts["unet"].state_dict().items())
