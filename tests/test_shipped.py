"""The weights that the package ships: their layout, and the method working on them.

Scenes are rendered, so where things are, and the background behind them, is known exactly.
"""

import numpy as np
import pytest
import torch
from PIL import Image

import ivkit as iv
from ivkit.bench import metrics
from ivkit.models import storybook_folder
from ivkit.storybook import words
from ivkit.storybook.world import World

FOLDER = storybook_folder()
MIB = 2**20
CAST = ["boat", "car", "penguin", "tractor", "fish", "rocket", "balloon", "star"]


@pytest.fixture(scope="module")
def pipe():
    return iv.load("storybook")


@pytest.fixture(scope="module")
def world():
    return World()


def picture(tensor) -> Image.Image:
    return Image.fromarray(((tensor.permute(1, 2, 0) + 1) * 127.5).round().byte().numpy())


def scene(world, seed, names, x, y=None):
    """One scene with the named things at x (shares of the width): picture, background, masks."""
    g = torch.Generator().manual_seed(seed)
    s = world.sample(1, g, objects=len(names))
    ids = [world.labels.index((n, _own(n))) for n in names]
    s.sprite[0, : len(ids)] = torch.tensor(ids)
    s.present[0] = torch.arange(3) < len(ids)
    s.x[0, : len(ids)] = torch.tensor(x)
    s = s.with_(size=0.34, event=0, move=0, time=0)
    if y is not None:
        s.y[0, : len(ids)] = torch.tensor(y)
    t = torch.zeros(1, 1)
    alpha = world.masks(s, t)[0, 0]
    return (
        picture(world.render(s, t)[0, 0]),
        np.asarray(picture(world.render(s, t, objects=False)[0, 0])),
        [(a > 0.15).numpy() for a in alpha[: len(ids)]],
    )


def _own(name):
    from ivkit.storybook.sprites import TINTED

    return TINTED[name][0] if name in TINTED else None


# ---- layout ----


def test_small_enough_and_no_pickles():
    files = [f for f in FOLDER.rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) <= 52 * MIB
    assert max(f.stat().st_size for f in files) <= 15 * MIB
    assert not [f for f in files if f.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl")]


def test_stock_pipeline_draws_the_same_picture():
    from diffusers import StableDiffusionPipeline

    ours = iv.load("storybook", device="cpu", dtype=torch.float32)
    steps, scale = 4, 3.0
    mine = ours.image(
        "a red car on the grey street at day",
        seed=5,
        num_inference_steps=steps,
        guidance_scale=scale,
    )
    stock = StableDiffusionPipeline.from_pretrained(FOLDER, torch_dtype=torch.float32)
    stock.set_progress_bar_config(disable=True)
    theirs = stock(
        "a red car on the grey street at day",
        height=256,
        width=256,
        num_inference_steps=steps,
        guidance_scale=scale,
        generator=torch.Generator().manual_seed(5),
    ).images[0]
    assert np.abs(np.asarray(mine, int) - np.asarray(theirs, int)).max() <= 2


def test_captions_that_differ_in_a_word_embed_differently(pipe):
    encoder, tokenizer = pipe.model.text_encoder, pipe.model.tokenizer
    base = "a red car and a tree on the green meadow at day".split()
    others = {1: "blue", 2: "boat", 5: "house", 8: "blue", 9: "sea", 11: "night"}
    texts = [" ".join(base)] + [" ".join([*base[:i], w, *base[i + 1 :]]) for i, w in others.items()]
    ids = tokenizer(texts, padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        pooled = encoder(ids).pooler_output
    apart = torch.cdist(pooled, pooled) + 1e3 * torch.eye(len(texts))
    assert apart.min() > 1e-2


def test_clip_finds_the_caption_of_a_render(world):
    from transformers import CLIPModel, CLIPProcessor

    clip = CLIPModel.from_pretrained(FOLDER / "clip", dtype=torch.float32).eval()
    processor = CLIPProcessor.from_pretrained(FOLDER / "clip")
    s = world.sample(24, torch.Generator().manual_seed(77)).with_(event=0)
    captions, _ = words.texts(s, world.labels, None, vary=False)
    frames = [picture(f) for f in world.render(s, torch.zeros(24, 1))[:, 0]]
    inputs = processor(text=captions, images=frames, return_tensors="pt", padding="max_length")
    with torch.no_grad():
        best = clip(**inputs).logits_per_image.argmax(1)
    assert (best == torch.arange(24)).float().mean() > 0.8


def test_classifier_names_what_is_rendered(world):
    from ivkit.storybook.training.classifier import load, truth

    s = world.sample(24, torch.Generator().manual_seed(78)).with_(event=0)
    what, ground, time = load(FOLDER)(world.render(s, torch.zeros(24, 1))[:, 0])
    seen, want = what > 0, truth(s, what.shape[1]) > 0.5
    assert (seen & want).sum() / want.sum() > 0.9
    assert (ground.argmax(1) == s.ground).float().mean() > 0.9
    assert (time.argmax(1) == s.time).float().mean() > 0.9


# ---- the method on them ----


@pytest.mark.slow
def test_lam_says_how_much_of_a_painted_thing_is_there(pipe, world):
    """The painted edit is in the last frame at lam 0, absent at 1, and falls in between."""
    levels = {0.0: [], 0.5: [], 1.0: []}
    for seed, name in enumerate(CAST[:3]):
        x, _, _ = scene(world, 20 + seed, [name], [0.3], [0.7])
        sun = iv.Stroke([(190, 45), (191, 45)], "#ffc81e", 52)
        text = f"a sun and a {name}"
        edited = pipe.image(text, x, strokes=[sun], strength=0.7, seed=seed)
        changed = np.abs(np.asarray(edited, int) - np.asarray(x, int)).sum(-1) > 60
        for lam in levels:
            run = pipe.video(
                x,
                f"the {name} stays still",
                edited=edited,
                lam=lam,
                seed=seed,
                num_inference_steps=8,
                progress=False,
            )
            levels[lam].append(metrics.presence(run.frames, run.unedited, changed)[-1])
    none, half, full = (np.mean(levels[lam]) for lam in (1.0, 0.5, 0.0))
    assert none < 3
    assert full > 40
    assert none < half < full


@pytest.mark.slow
def test_a_dragged_thing_arrives_and_the_rest_stays(pipe, world):
    distances, losses = [], []
    for seed, name in enumerate(CAST[:6]):
        left = seed % 2 == 0
        x, background, (mask,) = scene(world, 40 + seed, [name], [0.35 if left else 0.65], [0.55])
        start = np.argwhere(mask).mean(0)[::-1]
        target = start + np.array([60 if left else -60, (-30, 0, 25, -40, 20, 0)[seed]])
        drag = iv.Drag(path=[tuple(start), tuple(target)], mask=mask)
        motion = f"the {name} moves {'right' if left else 'left'}"
        moved = pipe.video(x, motion, drags=[drag], lam=0.0, seed=seed, progress=False)
        distances.append(metrics.drag_distance(moved.frames, background, start, target))
        away = ~(np.abs(moved.warped.frames.astype(int) - background).max((0, -1)) > 8)
        still = pipe.video(x, "everything stays still", seed=seed, lam=1.0, progress=False)
        plain = np.broadcast_to(background, moved.frames.shape)
        losses.append(
            metrics.psnr(still.frames, plain, away) - metrics.psnr(moved.frames, plain, away)
        )
    assert np.mean(distances) < 0.05
    assert np.mean(losses) < 3


@pytest.mark.slow
def test_two_things_dragged_at_once_both_arrive(pipe, world):
    x, background, masks = scene(world, 60, ["boat", "balloon"], [0.25, 0.7], [0.72, 0.3])
    starts = [np.argwhere(m).mean(0)[::-1] for m in masks]
    targets = [starts[0] + (50, 0), starts[1] + (-40, 25)]
    drags = [
        iv.Drag(path=[tuple(a), tuple(b)], mask=m)
        for a, b, m in zip(starts, targets, masks, strict=True)
    ]
    run = pipe.video(
        x, "the boat moves right and the balloon moves left", drags=drags, lam=0.0, progress=False
    )
    boat = metrics.drag_distance(run.frames[:, 140:], background[140:], starts[0], targets[0])
    balloon = metrics.drag_distance(run.frames[:, :140], background[:140], starts[1], targets[1])
    assert max(boat, balloon) < 0.1
