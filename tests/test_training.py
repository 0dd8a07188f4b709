"""The storybook's training stages, a step or two each: they learn, resume and fit the loader."""

import json

import pytest
import torch

from ivkit.models import storybook_folder
from ivkit.storybook import words
from ivkit.storybook.__main__ import main
from ivkit.storybook.networks import Networks, make_text_encoder
from ivkit.storybook.training.common import Clock, Ranks, Trainer
from ivkit.storybook.training.diffusion import voice
from ivkit.storybook.training.few_step import STEPS, Jump


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


def test_clock_stops_at_its_steps():
    clock = Clock(Ranks(), 100.0, max_steps=3)
    assert [clock.tick() for _ in range(3)] == [True, True, False] and clock.share == 1


def test_jump_is_ddim_and_its_velocity_undoes_it():
    from diffusers import DDIMScheduler

    from ivkit.storybook.networks import SCHEDULE

    scheduler, jump = DDIMScheduler(**SCHEDULE), Jump(torch.device("cpu"))
    scheduler.set_timesteps(STEPS)
    torch.manual_seed(0)
    z, v = torch.randn(STEPS, 3, 4, 4), torch.randn(STEPS, 3, 4, 4)
    k = torch.arange(STEPS)
    ours = jump(z, v, k)
    for i, t in enumerate(scheduler.timesteps):
        theirs = scheduler.step(v[i : i + 1], t, z[i : i + 1]).prev_sample
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


def test_shipped_layout_is_what_training_writes(tmp_path):
    from ivkit.storybook.networks import write_layout

    write_layout(tmp_path)
    shipped = storybook_folder()
    for name in ("storybook.json", "model_index.json", "scheduler/scheduler_config.json"):
        assert (
            json.loads((tmp_path / name).read_text()).items()
            >= {
                k: v
                for k, v in json.loads((shipped / name).read_text()).items()
                if k != "_diffusers_version"
            }.items()
        ), name
    for name in ("vocab.json", "merges.txt"):
        assert (tmp_path / "tokenizer" / name).read_text() == (
            shipped / "tokenizer" / name
        ).read_text()
