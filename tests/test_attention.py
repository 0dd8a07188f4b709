"""Attention maps are what the network computes, and recording them changes nothing."""

import contextlib

import numpy as np
import pytest
import tiny
import torch

import ivkit as iv
import ivkit.models.attention as attention_module
from ivkit.models.attention import record

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


def test_chosen_tokens_are_reduced_as_they_are_recorded():
    pipe = tiny.pipeline()
    run = pipe.video(tiny.picture(), MOTION, progress=False)
    z, condition = run.trace[1]["z_edit"][None], run.state.edit.condition
    t, unet, frames = run.state.scheduler.timesteps[1], pipe.model.video_unet, run.state.z.shape[0]
    with record(unet) as every:
        pipe.model.predict(z, t, [condition])
    with record(unet, tokens=[2, 5], rows=frames) as some:
        pipe.model.predict(z, t, [condition])
    for token in (2, 5):
        for row in range(frames):
            expected = every.of_token(token, row=row - frames)
            torch.testing.assert_close(some.of_token(token, row=row), expected)
    for calls in some.layers.values():
        assert calls[0].shape[:2] == (frames, 1) and calls[0].shape[-1] == 2
    with pytest.raises(ValueError, match="token 3 was not kept, 2, 5 were"):
        some.of_token(3)


def kept(maps):
    return sum(
        {
            m.untyped_storage().data_ptr(): m.untyped_storage().nbytes()
            for calls in maps.layers.values()
            for m in calls
        }.values()
    )


def test_words_keep_no_more_than_is_shown():
    pipe = tiny.pipeline()
    explorer = iv.TraceExplorer(pipe.video(tiny.picture(), MOTION, progress=False))
    seen = []

    @contextlib.contextmanager
    def watched(*args, **options):
        with record(*args, **options) as maps:
            yield maps
        seen.append(maps)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_module, "record", watched)
        explorer.words.value = True
    with record(pipe.model.video_unet) as every:
        pipe.video(tiny.picture(), MOTION, num_inference_steps=1, progress=False)
    assert not explorer.errors and len(explorer.word_row.children) == 4
    assert kept(seen[0]) * 5 < kept(every)
