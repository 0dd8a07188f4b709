"""Chapter 10: what it writes out is what PEFT and the package compute."""

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from test_exercises import defined
from test_personal import HOW, TEXT, fresh

from ivkit.bench import metrics
from ivkit.models import personal
from ivkit.pictures import to_pixels


@pytest.fixture(scope="module")
def chapter():
    return defined("10_make_it_yours", metrics=metrics, to_pixels=to_pixels, tqdm=lambda x, desc: x)


def test_the_layer_written_out_is_pefts(chapter):
    lora = personal.new(fresh("storybook"), rank=3)
    layer = lora.unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn2.to_q")
    A, B = layer.lora_A["personal"].weight, layer.lora_B["personal"].weight
    x = torch.randn(5, A.shape[1])
    with torch.no_grad():
        B.normal_()
        for strength in (1.0, 0.25, 0):
            lora.set_strength(strength)
            mine = chapter["with_lora"](x, layer.base_layer.weight, A, B, strength)
            torch.testing.assert_close(mine, layer(x))


def test_a_step_written_out_is_the_trainings(chapter):
    found = []
    for way in ("mine", "theirs"):
        pipe = fresh("storybook")
        lora, model = personal.new(pipe, rank=4), pipe.pictures
        pairs = [(tiny.picture(), TEXT)], [(tiny.picture(1), "the sun")]
        if way == "theirs":
            personal.train(lora, *pairs, prior_weight=0.5, steps=1, lr=1e-2, **HOW)
        else:
            sets = [chapter["encoded"](model, p) for p in pairs]
            chapter["one_step"](lora, sets, (1.0, 0.5), batch=2, lr=1e-2)
        found.append(torch.cat([p.detach().flatten() for p in lora.parameters]))
    torch.testing.assert_close(*found)
    assert found[0].abs().max() > 1e-3


def test_one_word_learns_alone(chapter):
    """Textual inversion lowers the loss and leaves the model, and the table, as they were."""
    model, pairs = fresh("storybook").pictures, [(tiny.picture(), TEXT)]
    token, table = model.tokenizer("boat").input_ids[1], model.text_encoder.get_input_embeddings()
    before, layer = table.weight.clone(), model.unet.conv_out.weight.clone()
    e = chapter["invert"](model, token, pairs, steps=40, batch=2, lr=0.1)
    assert torch.equal(table.weight, before) and torch.equal(model.unet.conv_out.weight, layer)
    z, text = chapter["encoded"](model, pairs * 32)
    given = chapter["drawn"](model, z, 32, torch.Generator().manual_seed(1))[1:]
    with torch.no_grad():
        start = personal.loss(model, z, text, *given)
        table.weight[token] = e
        model._texts.clear()
        text = chapter["encoded"](model, pairs * 32)[1]
        assert personal.loss(model, z, text, *given) < start


def test_the_error_written_out_is_the_loss(chapter):
    model, g = fresh("storybook").model, torch.Generator().manual_seed(0)
    z, eps = torch.randn(2, 3, model.channels, 8, 8, generator=g)
    text, t = model.encode_text(TEXT).expand(3, -1, -1), torch.tensor([10, 500, 900])
    with torch.no_grad():
        mine = chapter["mean_error"](model, z, text, t, eps)
        torch.testing.assert_close(mine, personal.loss(model, z, text, t, eps))


def test_likeness_and_drift_are_the_measures(chapter):
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (96, 96, 3), np.uint8))
    thing = Image.fromarray(rng.integers(0, 256, (30, 30, 4), np.uint8))
    thing.putalpha(Image.fromarray((np.hypot(*np.mgrid[-15:15, -15:15]) < 12).astype("u1") * 255))
    picture.paste(thing, (20, 40), thing)
    found, laid = metrics.find(picture, thing, [24, 25, 26])
    mine = chapter["likeness"](picture, laid[..., :3], laid[..., 3] > 127)
    assert mine == pytest.approx(found, abs=1e-4) and found > 0.5
    alike, far = chapter["drift"]([picture] * 2, [picture] * 2, thing)
    assert far == 0 and alike == pytest.approx(metrics.find(picture, thing)[0])
