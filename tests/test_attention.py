"""Attention maps are what the network computes, and recording them changes nothing."""

import numpy as np
import pytest
import tiny
import torch

from ivkit.attention import record

PROMPT, MOTION = "a red boat and a sun", "the boat moves right"


def test_recording_changes_nothing_and_ends_with_the_block():
    pipe = tiny.pipeline()
    before = np.asarray(pipe.image(PROMPT, seed=1))
    processors = dict(pipe.model.unet.attn_processors)
    with record(pipe.model.unet) as maps:
        during = np.asarray(pipe.image(PROMPT, seed=1))
    assert (before == during).all()
    assert dict(pipe.model.unet.attn_processors) == processors
    calls = {len(layer) for layer in maps.layers.values()}
    pipe.image(PROMPT, seed=1)
    assert calls == {len(layer) for layer in maps.layers.values()} == {4}


def test_maps_are_distributions_over_tokens():
    pipe = tiny.pipeline()
    with record(pipe.model.unet) as maps:
        pipe.image(PROMPT)
    tokens = pipe.model.tokenizer.model_max_length
    for layer in maps.layers.values():
        assert layer[0].shape[::3] == (2, tokens)  # uncond and cond
        torch.testing.assert_close(layer[0].sum(-1), torch.ones(layer[0].shape[:-1]))
    every = torch.stack([maps.of_token(k) for k in range(tokens)])
    assert every.shape == (tokens, 8, 8)
    torch.testing.assert_close(every.sum(0), torch.ones(8, 8))
    one = torch.stack([maps.of_token(3, call=k) for k in range(4)]).mean(0)
    torch.testing.assert_close(one, maps.of_token(3))


def test_a_map_gives_the_layers_own_output():
    layer = next(m for n, m in tiny.parts()["unet"].named_modules() if n.endswith("attn2"))
    holder = torch.nn.ModuleDict({"attn2": layer})
    holder.forward = lambda cells, words: layer(cells, encoder_hidden_states=words)
    cells, words = torch.randn(1, 64, layer.to_q.in_features), torch.randn(1, 12, 16)
    with record(holder) as maps, torch.no_grad():
        theirs = holder(cells, words)
        values = layer.to_v(words).unflatten(-1, (layer.heads, -1)).transpose(1, 2)
        mixed = (maps.layers["attn2"][0] @ values).transpose(1, 2).flatten(2)
        torch.testing.assert_close(layer.to_out[0](mixed), theirs)


def test_time_maps_are_over_frames():
    pipe = tiny.pipeline("storybook")
    with record(pipe.model.video_unet, "time") as maps:
        pipe.video(tiny.picture(), MOTION, progress=False)
    for layer in maps.layers.values():
        assert layer[0].shape[-2:] == (4, 4)
    assert maps.layers


def test_bad_requests_are_refused():
    unet = tiny.parts()["unet"]
    with pytest.raises(ValueError, match="text, space, time"):
        record(unet, "words").__enter__()
    with pytest.raises(ValueError, match="no attention of kind 'time'"):
        record(unet, "time").__enter__()
    with record(unet) as maps, pytest.raises(ValueError, match="empty"):
        maps.of_token(0)
