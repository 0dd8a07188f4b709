"""A LoRA of one's own: it learns, it is in pictures and clips, it comes off, it comes back."""

import json
import shutil

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import ivkit as iv
from ivkit.models import personal, storybook_folder
from ivkit.storybook import character
from ivkit.storybook.__main__ import main
from ivkit.storybook.world import World

TEXT = "a red boat"
KINDS = ("pia", "storybook")
HOW = {"batch": 2, "progress": False}


def fresh(kind="pia"):
    """A tiny pipeline of one's own: the other tests share theirs."""
    return iv.Pipeline(tiny.model.__wrapped__(kind))


def fitted(kind="storybook", steps=30, **options):
    """A tiny pipeline and its LoRA, trained on one picture."""
    pipe = fresh(kind)
    lora = personal.new(pipe, rank=4)
    personal.train(lora, [(tiny.picture(), TEXT)], steps=steps, lr=1e-2, **HOW, **options)
    return pipe, lora


def clip(pipe):
    return pipe.video(
        tiny.picture(), "the boat moves right", num_frames=3, num_inference_steps=2, progress=False
    ).state.z


def error(pipe):
    """The loss on the one picture, at the same noise each time."""
    model, g = pipe.model, torch.Generator().manual_seed(0)
    z, text = personal._encode(model, [(tiny.picture(), TEXT)] * 32)
    t = torch.randint(1000, (32,), generator=g)
    eps = torch.randn(z.shape, generator=g)
    with torch.no_grad():
        return float(personal.loss(model, z, text, t, eps))


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_lora_changes_nothing_and_training_lowers_the_loss(kind):
    pipe = fresh(kind)
    before, z = error(pipe), clip(pipe)
    lora = personal.new(pipe, rank=4)
    assert torch.equal(clip(pipe), z) and error(pipe) == pytest.approx(before)
    personal.train(lora, [(tiny.picture(), TEXT)], steps=30, lr=1e-2, **HOW)
    assert error(pipe) < 0.9 * before
    assert len(lora.losses) == 30 and lora.seconds > 0 and "30 steps" in repr(lora)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_in_pictures_and_clips_at_any_strength_and_comes_off(kind):
    plain = fresh(kind)
    picture, z = plain.image(TEXT), clip(plain)
    pipe, lora = fitted(kind)
    assert pipe.image(TEXT).tobytes() != picture.tobytes()
    full = clip(pipe)
    lora.set_strength(0.5)
    assert (full - z).abs().max() > (clip(pipe) - z).abs().max() > 1e-4
    lora.set_strength(0)
    torch.testing.assert_close(clip(pipe), z)
    lora.set_strength(1)
    assert torch.equal(clip(pipe), full)
    lora.remove()
    assert torch.equal(clip(pipe), z) and pipe.image(TEXT).tobytes() == picture.tobytes()
    assert lora.parameters == []
    personal.new(pipe)  # there is room for another


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_eq_2_and_what_the_network_predicts(kind):
    model = fresh(kind).model
    g = torch.Generator().manual_seed(0)
    z, eps = torch.randn(2, 3, model.channels, 8, 8, generator=g)
    text, t = model.encode_text(TEXT).expand(3, -1, -1), torch.tensor([10, 500, 900])
    bar = model.schedulers["image"].alphas_cumprod[t].view(-1, 1, 1, 1)
    with torch.no_grad():
        out = model.unet(bar.sqrt() * z + (1 - bar).sqrt() * eps, t, text).sample
        found = personal.loss(model, z, text, t, eps)
    v = bar.sqrt() * eps - (1 - bar).sqrt() * z
    wanted = eps if model.schedulers["image"].config.prediction_type == "epsilon" else v
    torch.testing.assert_close(found, (out - wanted).square().mean())


def test_what_is_saved_loads_merged_and_beside(tmp_path):
    folder = tiny.save(tmp_path / "model", "storybook")
    pipe = iv.load(folder, dtype="float32", device="cpu")
    z = clip(pipe)
    lora = personal.new(pipe, rank=4)
    personal.train(lora, [(tiny.picture(), TEXT)], steps=20, lr=1e-2, **HOW)
    trained = clip(pipe)
    file = lora.save(tmp_path / "deep" / "boat.safetensors")
    near = {"atol": 2e-2, "rtol": 0}  # it is saved in half precision
    merged = iv.load(folder, dtype="float32", device="cpu", lora=file)
    torch.testing.assert_close(clip(merged), trained, **near)
    assert (trained - z).abs().max() > 0.1
    none = iv.load(folder, dtype="float32", device="cpu", lora=file, lora_scale=0)
    torch.testing.assert_close(clip(none), z)
    other = iv.load(folder, dtype="float32", device="cpu")
    again = personal.attach(other, file)
    torch.testing.assert_close(clip(other), clip(merged), atol=1e-3, rtol=0)
    again.set_strength(0)
    torch.testing.assert_close(clip(other), z)
    before = error(other)
    personal.train(again, [(tiny.picture(), TEXT)], steps=20, lr=1e-2, **HOW)  # goes on
    assert error(other) < before


@pytest.mark.parametrize("weight", [0.0, 1.0, 3.0])
def test_the_prior_pulls_by_its_weight(monkeypatch, weight):
    """With (b - 1)^2 for the examples and (b + 1)^2 for the prior, b ends at (1 - w) / (1 + w)."""
    pipe = fresh("storybook")
    kept = personal.drawn(pipe, ["the sun"] * 2, seed=3, num_inference_steps=1)
    assert [caption for _, caption in kept] == ["the sun"] * 2
    assert kept[0][0].tobytes() != kept[1][0].tobytes()
    lora, sun = personal.new(pipe), pipe.model.encode_text("the sun")

    def loss(model, z, text, t, eps):
        b = torch.cat([p.flatten() for p in lora.parameters])
        return (b + (1 if torch.equal(text, sun.expand_as(text)) else -1)).square().mean()

    monkeypatch.setattr(personal, "loss", loss)
    pair = (tiny.picture(), TEXT)
    personal.train(lora, [pair], kept, prior_weight=weight, steps=150, lr=0.1, **HOW)
    for p in lora.parameters:
        torch.testing.assert_close(
            p.detach(), torch.full_like(p, (1 - weight) / (1 + weight)), atol=0.05, rtol=0
        )
    assert all(None not in pair for pair in lora.losses)


def test_an_interrupt_loses_nothing(monkeypatch, capsys):
    calls, loss = [], personal.loss

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return loss(*args)

    monkeypatch.setattr(personal, "loss", interrupted)
    pipe, lora = fitted(steps=40)
    assert len(lora.losses) == 5
    assert "stopped after 5 steps; what was learned is kept" in capsys.readouterr().out
    personal.train(lora, [(tiny.picture(), TEXT)], steps=3, **HOW)
    assert len(lora.losses) == 8
    assert any(p.abs().max() > 0 for p in lora.parameters[1::2])


def test_seconds_end_it_and_it_repeats_itself():
    pipe = fresh("storybook")
    lora = personal.new(pipe)
    personal.train(lora, [(tiny.picture(), TEXT)], steps=10**6, seconds=0.2, **HOW)
    assert 0 < len(lora.losses) < 1000
    a, b = (fitted(steps=5)[1].losses for _ in range(2))
    assert a == b


def foreign(folder):
    """A LoRA file for a network of twice the width."""
    file = personal.new(fresh("storybook")).save(folder / "foreign.safetensors")
    twice = {
        k: torch.cat([v, v], 1) if "lora_A" in k else torch.cat([v, v])
        for k, v in load_file(file).items()
    }
    save_file(twice, file)
    return file


def test_bad_input_is_one_sentence(tmp_path):
    pipe = fresh("storybook")
    lora = personal.new(pipe)
    pair = (tiny.picture(), TEXT)
    for work, match in [
        (lambda: personal.new(pipe), "has such a LoRA already"),
        (lambda: personal.new(fresh(), rank=0), "rank must be an integer of at least 1"),
        (lambda: personal.new(fresh(), rank=999), "rank must be .* at most 256, got 999"),
        (lambda: personal.train(lora, []), "examples must have at least 1"),
        (lambda: personal.train(lora, [TEXT]), r"examples\[0\] must be a \(picture, caption\)"),
        (lambda: personal.train(lora, [pair], [pair, 1]), r"prior\[1\] must be a \(picture"),
        (lambda: personal.train(lora, [(tiny.picture(), "a zebra")]), r"examples\[0\].*'zebra'"),
        (lambda: personal.train(lora, [pair], steps=0), "steps must be"),
        (lambda: personal.train(lora, [pair], seconds=0), "seconds must be a finite number"),
        (lambda: personal.train(lora, [pair], prior_weight=-1), "prior_weight must be"),
        (lambda: personal.train(lora, [pair], lr="fast"), "lr must be"),
        (lambda: lora.set_strength("much"), "strength must be"),
        (lambda: lora.save(tmp_path / "x.pt"), "must end in .safetensors"),
        (lambda: personal.attach(fresh(), tmp_path / "no.safetensors"), "is missing"),
    ]:
        with pytest.raises((ValueError, TypeError, FileNotFoundError), match=match) as caught:
            work()
        assert "\n" not in str(caught.value)
    lora.remove()
    with pytest.raises(ValueError, match="has been removed"):
        personal.train(lora, [pair])
    pipe = fresh("storybook")
    with pytest.raises(ValueError, match="does not fit tiny"):
        personal.attach(pipe, foreign(tmp_path))
    personal.new(pipe)  # and left nothing behind


def test_the_storybook_refuses_a_bad_lora_in_one_sentence(tmp_path):
    folder = tiny.save(tmp_path / "model", "storybook")
    file = foreign(tmp_path)
    own = personal.new(fresh("storybook")).save(tmp_path / "own.safetensors")
    for options, match in [
        ({"lora": tmp_path / "no.safetensors"}, "no.safetensors is missing"),
        ({"lora": file}, "does not fit this checkpoint"),
        ({"lora": own}, "changes nothing in this checkpoint's UNet"),
        ({"lora": own, "lora_scale": "all"}, "lora_scale must be a finite number"),
        ({"lora": 3}, "lora must be a path or an id, got int"),
        ({"colour": 1}, "'colour' is no option of model"),
    ]:
        with pytest.raises((ValueError, TypeError, FileNotFoundError), match=match) as caught:
            iv.load(folder, device="cpu", dtype="float32", **options)
        assert "\n" not in str(caught.value)


@pytest.fixture
def old_torchao(tmp_path, monkeypatch):
    """A torchao older than PEFT takes, as Colab has it: PEFT then refuses to add any layer."""
    from peft import import_utils

    (tmp_path / "torchao").mkdir()
    (tmp_path / "torchao" / "__init__.py").write_text("")
    info = tmp_path / "torchao-0.10.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torchao\nVersion: 0.10.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    import_utils.is_torchao_available.cache_clear()
    with pytest.raises(ImportError, match="torchao"):
        import_utils.is_torchao_available()
    yield
    import_utils.is_torchao_available.cache_clear()


def test_loras_do_without_a_torchao_that_peft_refuses(old_torchao, tmp_path):
    """Failed before: every LoRA raised ImportError on Colab, storybook-fast first."""
    from peft import import_utils

    fast = iv.load("storybook-fast", device="cpu")
    assert fast.model.defaults["video"]["guidance_scale"] == 1.0
    folder = tiny.save(tmp_path / "model", "storybook")
    pipe = iv.load(folder, dtype="float32", device="cpu")
    lora = personal.new(pipe, rank=4)
    personal.train(lora, [(tiny.picture(), TEXT)], steps=2, lr=1e-2, **HOW)
    file = lora.save(tmp_path / "boat.safetensors")
    merged = iv.load(folder, dtype="float32", device="cpu", lora=file)
    other = iv.load(folder, dtype="float32", device="cpu")
    personal.attach(other, file)
    torch.testing.assert_close(clip(other), clip(merged), atol=1e-3, rtol=0)
    with pytest.raises(ImportError, match="torchao"):  # and PEFT is left as it is
        import_utils.is_torchao_available()


# ------------------------------------------------------------------------------ the character


def test_portraits_show_the_character_where_the_caption_says_so():
    world = World()
    sheet = world.sheet.clone()
    robot = character.draw_robot()
    assert robot.mode == "RGBA" and robot.getpixel((0, 0))[3] == 0
    index = character.cast(world, robot)
    assert world.labels[index] == (character.NAME, None)
    assert torch.equal(world.sheet[:, :index], sheet)
    pairs = character.portraits(world, index, 6, seed=3)
    violet = np.array([138, 63, 252]) / 255
    for picture, caption in pairs:
        assert caption.count("sks robot") == 1 and picture.size == (256, 256)
        colours = np.asarray(picture).reshape(-1, 3) / 255
        hue = colours / np.maximum(np.linalg.norm(colours, axis=1, keepdims=True), 1e-6)
        assert (hue @ (violet / np.linalg.norm(violet)) > 0.97).sum() > 200
    again = character.portraits(world, index, 6, seed=3)
    assert [c for _, c in again] == [c for _, c in pairs]
    assert again[5][0].tobytes() == pairs[5][0].tobytes()
    others = character.portraits(world, None, 40, seed=3)
    assert not any("sks" in caption for _, caption in others)


def test_a_character_needs_a_transparent_background_and_known_words(tmp_path):
    world = World()
    square = Image.new("RGB", (8, 8), "red")
    square.save(tmp_path / "square.png")
    for work, match in [
        (lambda: character.read(tmp_path / "none.png"), "there is no picture at"),
        (lambda: character.read(tmp_path / "square.png"), "has no transparent background"),
        (lambda: character.read(Image.new("RGBA", (8, 8))), "is wholly transparent"),
        (lambda: character.cast(world, character.draw_robot(), "sks zebra"), "word 'zebra'"),
    ]:
        with pytest.raises(ValueError, match=match):
            work()


def test_the_stage_writes_a_lora_that_the_storybook_takes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = {path: path.stat().st_mtime_ns for path in storybook_folder().rglob("*")}
    folder = shutil.copytree(storybook_folder(), tmp_path / "weights")
    argv = ["train", "character", "--max-steps", "1", "--folder", str(folder), "--out", "out"]
    given = ["shots=2", "batch=1", "strengths=[1]", "image_steps=1", "prior=false"]
    main([*argv, "--set", *given])
    assert {path: path.stat().st_mtime_ns for path in storybook_folder().rglob("*")} == shipped
    assert json.loads((tmp_path / "out" / "character.json").read_text())["steps"] == 1
    media = tmp_path / "media" / "character"
    assert {f.name for f in media.iterdir()} == {"robot.png", "robot_no_prior.safetensors"}
    assert (tmp_path / "out" / "robot_no_prior.jpg").is_file()
    pipe = iv.load("storybook", lora=media / "robot_no_prior.safetensors", lora_scale=0.5)
    assert pipe.model.folder == storybook_folder()
    fast = iv.load("storybook-fast", lora=media / "robot_no_prior.safetensors")
    assert fast.image("a sks robot", num_inference_steps=1).size == (256, 256)
