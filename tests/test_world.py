"""The storybook world: what is drawn is what the renderer says is there."""

import numpy as np
import pytest
import torch

from ivkit.storybook import sprites, words
from ivkit.storybook.networks import Networks, affinity
from ivkit.storybook.world import BEACH, EVENTS, MOVES, NIGHT, SEA, SNOW, World, frame_times


@pytest.fixture(scope="module")
def world():
    return World()


def scenes(world, n, seed=0, objects=None):
    return world.sample(n, torch.Generator().manual_seed(seed), objects)


def test_cast_is_large_enough_and_coloured():
    tiles, labels = sprites.sprites()
    assert tiles.shape[1:] == (128, 128, 4) and len(tiles) == len(labels)
    assert len(sprites.CAST) >= 40 and len(sprites.TINTED) >= 8
    for name, (own, _) in sprites.TINTED.items():
        assert {c for n, c in labels if n == name} == {own, *sprites.COLOURS}


def test_tint_changes_the_hue_and_nothing_transparent():
    tiles, labels = sprites.sprites()
    red, blue = (tiles[labels.index(("car", c))].astype(int) for c in ("red", "blue"))
    body = (red[..., 0] > red[..., 2] + 80) & (red[..., 3] > 200)
    assert (blue[body][:, 2] > blue[body][:, 0]).mean() > 0.95
    assert np.array_equal(red[..., 3], blue[..., 3])


def test_same_seed_same_scenes(world):
    a, b, c = scenes(world, 8, 3), scenes(world, 8, 3), scenes(world, 8, 4)
    assert torch.equal(a.x, b.x) and torch.equal(a.sprite, b.sprite) and not torch.equal(a.x, c.x)


def test_scenes_are_lawful(world):
    s = scenes(world, 4000)
    count = s.present.sum(1)
    assert count.min() == 1 and count.max() == 3 and s.present[:, 0].all()
    assert len(torch.unique(s.event)) == len(EVENTS) and len(torch.unique(s.move)) == len(MOVES)
    assert (s.time[s.event == 1] != NIGHT).all() and (s.time[s.event == 2] == NIGHT).all()
    assert (s.ground[s.event == 4] == SNOW).all() and (s.ground[s.event == 5] == BEACH).all()
    assert ((s.ground == SEA) | (s.ground == BEACH))[s.event == 6].all()
    lights = s.present & (s.sprite == world.aurora)
    assert lights.any() and (s.time[lights.any(1)] == NIGHT).all()
    where = world.place(s, torch.ones(len(s), 1))
    for axis in ("x", "y"):
        assert where[axis].min() > 0.02 and where[axis].max() < 0.98


def test_nothing_moves_at_time_zero(world):
    s = scenes(world, 3)
    start = torch.zeros(3, 1)
    moving = world.render(s, start)
    still = world.render(s.with_(move=0, event=0), start)
    assert torch.equal(moving, still)
    assert moving.shape == (3, 1, 3, 256, 256) and moving.abs().max() <= 1


def test_a_crop_is_a_crop(world):
    s = scenes(world, 2)
    t = torch.full((2, 1), 0.5)
    whole = world.render(s, t)
    part = world.render(s, t, 128, torch.tensor([[0.25, 0.5]]).expand(2, 2))
    assert torch.allclose(part, whole[..., 128:, 64:192], atol=1e-4)


@pytest.mark.parametrize("move, axis, sign", [(1, 1, -1), (2, 1, 1), (3, 0, -1), (4, 0, 1)])
def test_objects_move_as_told(world, move, axis, sign):
    s = scenes(world, 2, 5, objects=1).with_(move=move, event=0, x=0.5, y=0.5, speed=0.8)
    alpha = world.masks(s, torch.tensor([[0.0, 1.0]]).expand(2, 2))[:, :, 0]
    grid = torch.arange(256.0)
    shape = (1, 1, -1, 1) if axis == 0 else (1, 1, 1, -1)
    centre = (alpha * grid.view(shape)).sum((2, 3)) / alpha.sum((2, 3))
    moved = (centre[:, 1] - centre[:, 0]) / 256
    expected = world.positions(s, torch.ones(2, 1))[:, 0, 0, 1 - axis] - 0.5
    assert (moved * sign > 0.15).all() and torch.allclose(moved, expected, atol=0.02)


def test_masks_say_what_is_seen(world):
    s = scenes(world, 4, 7, objects=2).with_(event=0)
    t = torch.zeros(4, 1)
    alpha = world.masks(s, t)
    assert alpha.min() >= 0 and alpha.sum(2).max() <= 1 + 1e-5
    picture, empty = world.render(s, t), world.render(s, t, objects=False)
    outside = (alpha.sum(2, keepdim=True) == 0).expand_as(picture)
    assert torch.equal(picture[outside], empty[outside])


def test_events_change_the_last_frame_and_only_then(world):
    s = scenes(world, 400, 9)
    for event in range(1, len(EVENTS)):
        rows = (s.event == event).nonzero()[:2, 0]
        one = s[rows].with_(move=0)
        ends = world.render(one, frame_times(len(rows), 2))
        assert (ends[:, 0] - ends[:, 1]).abs().mean() > 0.004, EVENTS[event]
    calm = s[(s.event == 0).nonzero()[:2, 0]].with_(move=0)
    ends = world.render(calm, frame_times(2, 2))
    assert torch.equal(ends[:, 0], ends[:, 1])


def test_affinity_falls_with_speed():
    mask = affinity(torch.tensor([0.4, 1.0]), frame_times(2))
    assert (mask[:, 0] == 1).all() and (mask.diff(dim=1) < 0).all() and mask[1, -1] < mask[0, -1]


# ---- words ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    from transformers import CLIPTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    words.write_tokenizer(folder)
    return CLIPTokenizer.from_pretrained(folder)


def test_every_word_is_one_token(tokenizer):
    for i, word in enumerate(words.WORDS):
        assert tokenizer(word).input_ids[1:-1] == [i], word


def test_tokenizer_is_the_one_that_trained(world, tokenizer):
    s = scenes(world, 300, 11)
    captions, motions = words.texts(s, world.labels, np.random.default_rng(0))
    for text in [*captions, *motions, "", "the boat moves up and left, it gets dark"]:
        ids = tokenizer(text, padding="max_length", max_length=words.MAX_TOKENS).input_ids
        assert ids == words.encode(text), text


def test_texts_name_what_happens(world):
    s = scenes(world, 200, 12)
    captions, motions = words.texts(s, world.labels, None, vary=False)
    for i, (caption, motion) in enumerate(zip(captions, motions, strict=True)):
        for k in range(3):
            name = world.labels[s.sprite[i, k]][0]
            if s.present[i, k]:
                assert name in caption
                if s.move[i, k] > 0:  # what stays is left unnamed
                    assert f"{name} " in motion
        assert EVENTS[s.event[i]] in motion


def test_longest_text_fits(world):
    s = scenes(world, 3000, 13)
    captions, motions = words.texts(s, world.labels, np.random.default_rng(1))
    longest = max(len(f"{c} , {m}".split()) for c, m in zip(captions, motions, strict=True))
    assert longest <= words.MAX_TOKENS - 2


# ---- networks ------------------------------------------------------------------------------------


def test_one_network_draws_and_films(tmp_path):
    nets = Networks.new()
    shared = {id(p) for p in nets.unet.parameters()} & {id(p) for p in nets.motion.parameters()}
    assert len(shared) >= len(list(nets.unet.parameters())) - 2  # conv_in is widened
    nets.save(tmp_path)
    again = Networks.load(tmp_path)
    x, t = torch.randn(1, 33, 16, 16, 16), torch.tensor([500])
    with torch.no_grad():
        h = nets.text(torch.tensor([words.encode("a red car")])).last_hidden_state
        a = nets.motion(x, t, h.repeat_interleave(16, 0)).sample
        b = again.motion(x, t, h.repeat_interleave(16, 0)).sample
    assert torch.allclose(a, b, atol=0.02 * float(a.abs().max()))  # saved in half precision
