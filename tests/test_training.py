"""The storybook's training stages, a step or two each: they learn, resume and fit the loader."""

import json

import pytest
import torch

from ivkit.models import live, storybook_folder
from ivkit.models.lora import merge_folder
from ivkit.storybook import words
from ivkit.storybook.__main__ import main
from ivkit.storybook.networks import (
    Networks,
    affinity,
    make_text_encoder,
    scheduler,
    write_layout,
)
from ivkit.storybook.streams import plan
from ivkit.storybook.training.common import Ranks, Stage, Trainer
from ivkit.storybook.training.diffusion import voice
from ivkit.storybook.training.few_step import STEPS, Jump
from ivkit.storybook.training.live import Lora
from ivkit.storybook.world import World, on_picture


def test_trainer_moves_master_network_and_average_together():
    torch.manual_seed(0)
    layer = torch.nn.Linear(4, 1)
    unused = torch.nn.Linear(2, 2)
    before = unused.weight.detach().clone()
    trainer = Trainer([*layer.parameters(), *unused.parameters()], Ranks(), 0.05, weight_decay=0.0)
    x = torch.randn(64, 4)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5], [0.0]])
    losses = []
    for i in range(200):
        loss = (layer(x) - y).pow(2).mean()
        losses.append(float(loss.detach()))
        trainer.backward(loss)
        trainer.step(i / 200, warm_up=10)
    assert losses[-1] < 0.02 * losses[0]
    assert torch.equal(unused.weight, before)
    with trainer.averaged():
        assert torch.equal(layer.weight.reshape(-1), trainer.ema[:4])
    assert torch.equal(layer.weight.reshape(-1), trainer.master[:4])


def test_clock_stops_at_its_steps(tmp_path):
    clock = Stage(tmp_path, tmp_path, 100.0, max_steps=3).clock()
    assert [clock.tick() for _ in range(3)] == [True, True, False] and clock.share == 1


def test_jump_is_ddim_and_its_velocity_undoes_it():
    ddim, jump = scheduler(STEPS), Jump(torch.device("cpu"))
    torch.manual_seed(0)
    z, v = torch.randn(STEPS, 3, 4, 4), torch.randn(STEPS, 3, 4, 4)
    k = torch.arange(STEPS)
    ours = jump(z, v, k)
    for i, t in enumerate(ddim.timesteps):
        theirs = ddim.step(v[i : i + 1], t, z[i : i + 1]).prev_sample
        assert torch.allclose(ours[i : i + 1], theirs, atol=2e-4)
    assert torch.allclose(jump.velocity(z, ours, k), v, atol=1e-3)


def test_words_kept_free_are_as_loud_as_the_others_and_stay_themselves():
    text = make_text_encoder()
    before = text.get_input_embeddings().weight.detach().clone()
    voice(text)
    rows = text.get_input_embeddings().weight.detach()
    free = [words.encode(word)[1] for word in words.FREE]
    others = [i for i in range(len(rows)) if i not in free]
    assert torch.equal(rows[others], before[others])
    torch.testing.assert_close(rows[free].norm(dim=1), before.norm(dim=1).mean().expand(len(free)))
    assert torch.cosine_similarity(rows[free], before[free]).min() > 0.999


@pytest.mark.slow
def test_stages_train_resume_and_load(tmp_path, monkeypatch):
    """vae, diffusion (twice), few_step and align on a CPU; the result loads as both storybooks."""
    import ivkit as iv

    folder, out = tmp_path / "model", tmp_path / "out"

    def stage(name, steps, *options):
        argv = ["train", name, "--folder", str(folder), "--out", str(out), "--seconds", "1"]
        main([*argv, "--max-steps", str(steps), "--set", *options])
        return json.loads((out / f"{name}.json").read_text())

    assert stage("vae", 2, "batch=2", "held_out=2")["steps"] == 2
    tiny = ("pictures=2", "clips=1", "ring=2", "first_fill=2", "save_every=1000", "rows=0")
    stage("diffusion", 1, *tiny)
    first = Networks.load(folder).unet.conv_out.weight.clone()
    stage("diffusion", 2, *tiny)  # goes on from what is there
    assert not torch.equal(first, Networks.load(folder).unet.conv_out.weight)
    stage("few_step", 1, "pictures=1", "clips=1", "draw_pictures=1", "draw_clips=1", "rows=0")
    made = stage("align", 2, "clips=2", "held_out=1")
    assert made["residual"]["steps"] == 2
    monkeypatch.setenv("IVKIT_STORYBOOK", str(folder))
    for name in ("storybook", "storybook-fast"):
        pipe = iv.load(name)
        assert pipe.image("a red car", num_inference_steps=1).size == (256, 256)
    assert pipe.model.defaults["video"]["num_inference_steps"] == STEPS
    assert pipe.align is not None


def test_what_is_no_weight_is_written_beside_the_weights_and_fits_the_code(tmp_path):
    write_layout(tmp_path)
    shipped = storybook_folder()
    names = ("storybook.json", "model_index.json", "scheduler/scheduler_config.json")
    for name in (*names, "tokenizer/vocab.json", "tokenizer/merges.txt"):
        assert (tmp_path / name).read_text() == (shipped / name).read_text(), name
    facts = json.loads((tmp_path / "storybook.json").read_text())
    forth = torch.linspace(0, 1, facts["num_frames"])
    times = [forth] * 3 + [1 - (2 * forth - 1).abs()] * 3  # motion scales 0 to 5
    speeds = torch.tensor([0.45, 0.8, 1.0] * 2)
    told = affinity(speeds, torch.stack(times))
    torch.testing.assert_close(told, torch.tensor(facts["affinity"]), atol=1e-4, rtol=0)
    for part in ("text_encoder", "clip"):
        config = json.loads((shipped / part / "config.json").read_text())
        config = config.get("text_config", config)
        assert {key: config[key] for key in words.TOKENS} == words.TOKENS


def test_chunk_gives_the_network_pias_input_and_takes_x0_from_v():
    asked = {}

    def network(x, t, text, return_dict):
        asked.update(x=x, t=t, text=text)
        return (x[:, :3] + 1,)

    torch.manual_seed(0)
    noise, context, condition = torch.randn(2, 8, 3, 4, 4), torch.randn(2, 4, 3, 4, 4), 7.0
    condition = torch.full((2, 3, 4, 4), condition)
    text, affinity = torch.randn(2, 5, 6), torch.tensor([0.3, 1.0])
    new = live.chunk(network, noise, context, condition, text, affinity)
    z, mask, seen = asked["x"].transpose(1, 2).split([3, 1, 3], 2)
    assert torch.equal(new, -(noise[:, 4:] + 1)) and asked["t"].tolist() == [999, 999]
    assert torch.equal(z, noise) and torch.equal(seen[:, :4], context)
    assert (seen[:, 4:] == 7).all() and (mask[:, :4] == 1).all()
    assert (mask[0, 4:] == affinity[0]).all() and (mask[1, 4:] == 1).all()
    assert torch.equal(asked["text"], text.repeat_interleave(8, 0))
    after = live.follow(context, new)
    assert torch.equal(after[:, 0], context[:, 0]) and torch.equal(after[:, 1:], new[:, 1:])


def test_the_network_is_told_which_cells_a_hand_takes_and_held_things_look_as_in_the_condition():
    asked = {}

    def network(x, t, text, return_dict):
        asked.update(x=x)
        return (x[:, :3] + 1,)

    torch.manual_seed(0)
    masks = torch.zeros(1, 2, 1, 256, 256)
    masks[:, 1, :, 32:64, 32:64] = 1
    now, to = torch.zeros(1, 2, 2), torch.zeros(1, 2, 2)
    to[:, 1] = torch.tensor([0.5, 0.25])
    held = live.in_hand(masks, now, to, 16)
    ends = torch.zeros(16, 16)
    ends[6:8, 10:12] = 1
    assert torch.allclose(held[0, -1], ends, atol=1e-4)
    middle = (held[0, 1] > 0.5).nonzero().float().mean(0)
    assert torch.allclose(middle, torch.tensor([4.5, 6.5]), atol=0.1)
    noise, context = torch.randn(1, 8, 3, 16, 16), torch.randn(1, 4, 3, 16, 16)
    condition = torch.randn(1, 3, 16, 16)
    told = noise, context, condition, torch.randn(1, 5, 6), torch.tensor([0.4])
    free, new = live.chunk(network, *told), live.chunk(network, *told, held)
    mask = asked["x"][0, 3]
    assert torch.allclose(mask[-1], 0.4 + (live.HELD - 0.4) * ends, atol=1e-4)
    assert (mask[:4] == 1).all()
    assert torch.equal(free[:, :-1], new[:, :-1])
    apart = (new[:, -1] - free[:, -1]).abs().amax(1)[0] > 1e-3
    assert torch.equal(apart, ends > 0)
    # as in the condition, but as bright as the network says
    off = (new[0, -1] - condition[0])[:, ends > 0]
    assert torch.allclose(off, off.mean(1, keepdim=True).expand_as(off), atol=1e-3)
    there = free[0, -1][:, ends > 0].mean(1)
    assert torch.allclose(new[0, -1][:, ends > 0].mean(1), there, atol=1e-3)


def test_carry_moves_what_is_held_and_fills_where_it_was():
    plain = torch.full((1, 3, 64, 64), 0.25)
    shown = plain.clone()
    shown[:, :, 20:30, 20:30] = -1.0
    mask = torch.zeros(1, 2, 1, 64, 64)
    mask[:, 1, :, 20:30, 20:30] = 1
    cut = shown[:, None].expand(-1, 2, -1, -1, -1)
    here = torch.zeros(1, 2, 2)
    to = here.clone()
    to[:, 1] = torch.tensor([16 / 64, 8 / 64])
    moved = live.carry(shown, cut, mask, here, to)
    expected = plain.clone()
    expected[:, :, 29:37, 37:45] = -1.0  # but for the rim, which is soft
    assert torch.allclose(moved[:, :, 29:37, 37:45], expected[:, :, 29:37, 37:45], atol=1e-4)
    assert torch.allclose(moved[:, :, 18:27, 18:32], plain[:, :, 18:27, 18:32], atol=1e-4)
    back = live.carry(moved, cut, mask, to, here)
    assert torch.allclose(back[:, :, 21:29, 21:29], shown[:, :, 21:29, 21:29], atol=1e-4)
    assert torch.allclose(back[:, :, 40:, 34:], plain[:, :, 40:, 34:], atol=1e-3)
    nothing = live.carry(shown, cut, torch.zeros_like(mask), here, to)
    assert torch.allclose(nothing, shown, atol=1e-5)


def test_streams_rest_after_four_chunks_and_things_follow_the_pointer():
    world, rest = World(), torch.tensor(words.encode(live.REST))
    s = plan(world, 24, 8, torch.Generator().manual_seed(5), drag=0.5, gaps=(6, 6))
    again = plan(world, 24, 8, torch.Generator().manual_seed(5), drag=0.5, gaps=(6, 6))
    assert all(torch.equal(a, b) for a, b in zip(s.state, again.state, strict=True))
    x, y, size, tilt, past, zoom, pan = s.state
    assert x.shape == (24, 33, 3) and past.shape == (24, 33, 11)
    for i in range(24):
        resting = (s.ids[i] == rest).all(1)
        assert (s.speed[i][~resting] > 0).all() and (s.speed[i] == 0).sum() >= 2
        if s.press[i] == 8:
            for c in (s.speed[i] == 0).nonzero()[:, 0].tolist():  # what an event did stays
                for v in s.state:
                    assert (v[i, 4 * c : 4 * c + 5] == v[i, 4 * c]).all()
        for c in range(int(s.press[i]), min(int(s.release[i]), 8)):
            k = s.slots[i, 1]
            for v in (x, y):
                steps = v[i, 4 * c : 4 * c + 5, k].diff()
                torch.testing.assert_close(steps, steps[:1].expand(4), atol=1e-5, rtol=0)
            there = on_picture(x[i : i + 1], y[i : i + 1], zoom[i : i + 1], pan[i : i + 1])
            torch.testing.assert_close(s.at[i, c + 1, 1], there[0, 4 * c + 4, k])
    assert (s.press < 8).any() and (s.press == 8).any()


def test_students_factors_are_what_peft_merges(tmp_path):
    from peft import PeftModel

    def network():
        torch.manual_seed(1)
        parts = {"conv_in": torch.nn.Conv2d(3, 4, 3), "to_q": torch.nn.Linear(4, 5)}
        return torch.nn.ModuleDict(parts | {"other": torch.nn.Linear(4, 4)})

    ours, theirs, again = network(), network(), network()
    lora = Lora(ours)
    assert [name for group in lora.groups for name, _ in group] == ["conv_in", "to_q"]
    for b in lora.b:
        torch.nn.init.normal_(b)
    lora.write()
    lora.save(tmp_path)
    merged = PeftModel.from_pretrained(theirs, tmp_path).merge_and_unload()
    alone = network()
    merge_folder(alone, tmp_path)
    resumed = Lora(again)
    resumed.load(tmp_path)
    resumed.write()
    before = network()
    for name in ("conv_in", "to_q", "other"):
        w = ours[name].weight
        assert torch.equal(w, before[name].weight) == (name == "other")
        torch.testing.assert_close(merged[name].weight, w, atol=2e-2, rtol=2e-3)
        torch.testing.assert_close(again[name].weight, merged[name].weight)
        torch.testing.assert_close(alone[name].weight, merged[name].weight)
    x = torch.randn(2, 4)
    for w in lora.weights:
        w.requires_grad_(True)
    ours["to_q"](x).pow(2).sum().backward()
    ours["conv_in"].weight.grad = torch.zeros_like(ours["conv_in"].weight)
    lora.loss().backward()
    a, b = lora.a[1][0], lora.b[1][0]
    delta = (lora.base[1][0] + b @ a).detach().requires_grad_(True)
    torch.nn.functional.linear(x, delta, ours["to_q"].bias).pow(2).sum().backward()
    torch.testing.assert_close(lora.a[1].grad[0], b.detach().T @ delta.grad)
    torch.testing.assert_close(lora.b[1].grad[0], delta.grad @ a.detach().T)


def test_tiny_decoder_is_within_its_budget():
    from torch.utils.flop_counter import FlopCounterMode

    from ivkit.models.decoder import TinyDecoder

    decoder = TinyDecoder()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        assert decoder(torch.zeros(1, 16, 16, 16)).shape == (1, 3, 256, 256)
    assert counter.get_total_flops() <= 3.5e9
    assert 2 * sum(p.numel() for p in decoder.parameters()) <= 1.68e6


@pytest.mark.slow
def test_live_student_and_tiny_decoder_train_resume_and_are_measured(tmp_path):
    import shutil

    from ivkit.storybook.evaluate_live import evaluate

    folder, out = tmp_path / "model", tmp_path / "out"
    for part in ("unet", "motion_adapter", "text_encoder", "vae"):
        shutil.copytree(storybook_folder() / part, folder / part)
    shutil.copy(storybook_folder() / "classifier.safetensors", folder)

    def stage(name, steps, *options):
        argv = ["train", name, "--folder", str(folder), "--out", str(out), "--seconds", "1"]
        main([*argv, "--max-steps", str(steps), "--set", *options])
        return json.loads((out / f"{name}.json").read_text())

    tiny = ("batch=2", "blocks=1", "chunks=2", "ring=2", "first_fill=2", "draw=2", "pixels=2")
    assert stage("live", 2, *tiny, "rows=1")["steps"] == 2
    assert list(out.glob("live_*.jpg"))
    first = (folder / "live" / "adapter_model.safetensors").read_bytes()
    assert len(first) < 6e6
    stage("live", 1, *tiny, "rows=0", "total=10", "before=5", "wall=60")  # from what is there
    assert (folder / "live" / "adapter_model.safetensors").read_bytes() != first
    assert stage("tiny_decoder", 2, "batch=2", "held_out=2")["steps"] == 2
    found = evaluate(folder, out, 2, "cpu", chunks=2)
    assert found["dragged"]["still_dB_12"] > 0 and 0 <= found["minute"]["recognised"] <= 100
    assert {"decoder", "told", "direction", "changed_in_mid_stream", "unnamed"} <= set(found)
