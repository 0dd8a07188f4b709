"""StoryBench on a tiny model with random weights: what is asked, measured, kept and taken up."""

import contextlib
import csv
import inspect
import json
import os
import socket
import subprocess
import sys
import time
from argparse import Namespace
from dataclasses import replace
from types import SimpleNamespace

import mediapy
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel

import ivkit as iv
from ivkit.bench import __main__ as bench
from ivkit.bench import animatebench, cases, metrics, scores, storybench, study, tables
from ivkit.bench.methods import METHODS, OWN, SWEEP, Job, Maker, Method
from ivkit.bench.runner import INTERRUPTED, TIME_IS_UP, Store, Work
from ivkit.storybook import words
from ivkit.storybook.world import MOVES
from ivkit.support.commands import answered
from tests import tiny
from tests.bench import __main__ as maintain
from tests.bench import cases as lot
from tests.bench import full, scaling


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The tiny model, with the storybook's language."""
    folder = tiny.save(tmp_path_factory.mktemp("tiny"))
    words.write_tokenizer(folder / "tokenizer")
    bos, eos = len(words.WORDS), len(words.WORDS) + 1
    torch.manual_seed(1)
    CLIPTextModel(
        CLIPTextConfig(
            vocab_size=eos + 1,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=words.MAX_TOKENS,
            bos_token_id=bos,
            eos_token_id=eos,
            pad_token_id=eos,
        )
    ).save_pretrained(folder / "text_encoder")
    facts = {k: v for k, v in tiny.FACTS.items() if k != "words"}
    (folder / "storybook.json").write_text(json.dumps(facts))
    return folder


@pytest.fixture(scope="module")
def world():
    return storybench.World()


@pytest.fixture(scope="module")
def every():
    return cases.load()


def of_kind(every, kind):
    return next(case for case in every if case.id.endswith(f"-{kind}"))


# ---- the cases ----


def test_105_cases_7_sceneries_5_pictures_3_motions(every):
    assert len(every) == 105 == len({case.id for case in every})
    assert len({case.picture for case in every}) == 35
    assert {(c.ground, c.time) for c in every} == set(lot.SCENERIES.values())
    assert sum(len(case.drags) == 2 for case in every) == 35
    assert all(case.strokes and case.drags for case in every)
    assert {case.move for case in every} >= set(MOVES[1:])
    for case in every:
        names = [case.painted.name, *(thing.name for thing in case.things)]
        assert len(set(names)) == 3
        known = set(words.WORDS)
        assert set(f"{case.text} {case.motion}".split()) <= known


def test_a_picture_is_for_tuning_or_for_reporting_never_both(every):
    halves = {}
    for case in every:
        halves.setdefault(case.picture, set()).add(case.half)
    assert all(len(half) == 1 for half in halves.values())
    assert 50 <= sum(case.half == "tuning" for case in every) <= 55


@pytest.mark.slow
def test_the_file_is_what_the_lot_draws_again(tmp_path):
    lot.main(Namespace(out=tmp_path))
    for file in (cases.FILE, cases.SECOND):
        assert (tmp_path / file.name).read_text() == file.read_text()


def test_subset_is_ten_over_all_sceneries(every):
    ten = cases.subset(every)
    assert len(ten) == 10
    assert {(c.ground, c.time) for c in ten} == set(lot.SCENERIES.values())
    assert {case.id[-1] for case in ten} == {"0", "1", "2"}


def test_saved_cases_come_back(every, tmp_path):
    lot.save(every[:3], tmp_path / "some.json")
    assert [c.id for c in cases.load(tmp_path / "some.json")] == [c.id for c in every[:3]]
    (tmp_path / "bad.json").write_text("[{}]")
    with pytest.raises(ValueError, match="bad.json.* holds no cases"):
        cases.load(tmp_path / "bad.json")


# ---- what is measured ----


def test_a_perfect_clip_is_judged_perfect_and_a_still_one_is_not(world, every):
    """The renderer's own true frames obey every text; a picture that stands still obeys none."""
    for kind in range(3):
        case = of_kind(every, kind)
        job = world.job(case)
        true = world.frames(world.scene(case), np.linspace(0, 1, 4))
        still = np.repeat(np.asarray(job.picture)[None], 4, 0)
        assert job.judge(true, None)["motion_obeyed"] == 1
        assert job.judge(still, None)["motion_obeyed"] == 0
        assert job.judge(still, None)["edit_named"] == 0
        if not case.event:
            assert job.judge(true, None)["background"] == storybench.IDENTICAL
            off = np.clip(true.astype(int) + 2, 0, 255).astype(np.uint8)
            assert 40 < job.judge(off, None)["background"] < 45


def test_cut_and_drag_arrives_and_a_still_picture_is_as_far_as_the_drag_is_long(world, every):
    clip = scores.Clip()
    for kind in range(3):
        job = world.job(of_kind(every, kind))
        moved = scores.measure(iv.warp(job.picture, job.drags, 4).frames, job, job.picture, clip)
        still = np.repeat(np.asarray(job.picture)[None], 4, 0)
        stays = scores.measure(still, job, job.picture, clip)
        lengths = [np.hypot(*np.subtract(d.path[-1], d.path[0])) for d in job.drags]
        assert moved["drag_distance"] < 0.01 and moved["path_distance"] < 0.01
        assert stays["drag_distance"] == pytest.approx(np.mean(lengths) / 256, abs=0.01)
        assert stays["image"] == pytest.approx(1, abs=1e-4) and stays["motion"] == 0


def test_what_is_painted_in_is_kept_and_named(world, every):
    case = next(case for case in every if case.painted.name == "sun")
    with_sun = replace(case, things=(*case.things, case.painted))
    edited = Image.fromarray(world.frames(world.scene(with_sun), [0])[0])
    job = world.job(case)
    frames = np.repeat(np.asarray(edited)[None], 4, 0)
    frames[2:] = np.asarray(job.picture)  # the sun dies half way
    row = scores.measure(frames, job, edited, scores.Clip())
    assert row["edit_kept"] == row["edit_named"] == 0.5


def test_track_follows_a_thing_through_changing_light():
    rng = np.random.default_rng(0)
    picture = np.full((64, 64, 3), 90, np.uint8)
    picture[10:26, 8:20] = rng.integers(0, 255, (16, 12, 3))
    mask = np.zeros((64, 64), bool)
    mask[10:26, 8:20] = True
    dark = np.roll(picture // 2, (20, 30), (0, 1))
    gone = np.full_like(picture, 90)
    found = metrics.track(np.stack([picture, dark, gone]), picture, mask)
    assert np.allclose(found[0], (13.5, 17.5)) and np.allclose(found[1], (43.5, 37.5))
    assert np.isnan(found[2]).all()


def test_bootstrap_resamples_whole_groups():
    mean, low, high = scores.bootstrap([0, 0, 0, 1, 1, 1, float("nan")], [0, 0, 0, 1, 1, 1, 1])
    assert (mean, low, high) == (0.5, 0, 1)  # two groups: anything between is possible
    rng = np.random.default_rng(0)
    values = rng.normal(5, 1, 400)
    mean, low, high = scores.bootstrap(values)
    assert low < 5 < high and 0.15 < high - low < 0.25
    assert np.isnan(scores.bootstrap([1, 2], ["one", "one"])[1])
    assert np.isnan(scores.bootstrap([float("nan")])).all()


# ---- methods ----


def test_methods_differ_as_they_should(folder, world, every):
    """lam = 1 is the clip without interaction; text alone sees no picture; the rest the edit."""
    case = of_kind(every, 1)
    pipe = iv.load(str(folder), device="cpu")
    maker = Maker(pipe, num_inference_steps=2)
    job = world.job(case, 16)
    maker.begin(job)
    clips = {name: maker.frames(method) for name, method in METHODS.items()}
    assert all(clip.shape == (4, 16, 16, 3) for clip in clips.values())
    assert (maker.frames(Method("one", lam=1.0)) == clips["i2v"]).all()
    for name in ("swap", "paired", "shared", "dual-clock", "both", "warp", "frozen"):
        assert (clips[name] != clips["i2v"]).any(), name
    maker.begin(replace(job, picture=Image.new("RGB", (16, 16), "red")))
    assert (maker.frames(METHODS["t2v"]) == clips["t2v"]).all()
    assert (maker.frames(METHODS["i2v"]) != clips["i2v"]).any()


def test_sweep_is_lam_by_reading_by_mechanism():
    assert len(SWEEP) == len({(m.lam, m.reading, m.mechanism) for m in SWEEP}) == 30


# ---- running, stopping, going on ----


class Fake:
    """A maker whose clips cost nothing; it may break, or be stopped, at one of them."""

    def __init__(self, breaks=(), stops=None):
        self.made, self.breaks, self.stops = [], breaks, stops

    def begin(self, job):
        self.job = job
        return job.picture

    def can(self, method):
        return True

    def frames(self, method):
        key = (self.job.id, method.name)
        if key == self.stops:
            raise KeyboardInterrupt
        if key in self.breaks:
            raise RuntimeError("no luck")
        self.made.append(key)
        return np.zeros((3, 16, 16, 3), np.uint8) + len(self.made)


@pytest.fixture
def fake_work(tmp_path, monkeypatch):
    monkeypatch.setattr(scores, "measure", lambda *_: {"image": 0.5})
    some = [SimpleNamespace(id=name) for name in ("a", "b", "c")]
    methods = [Method("i2v"), Method("swap")]

    def run(maker, settings=None, deadline=None):
        store = Store(tmp_path, settings or {"model": "m"}, run={"command": type(maker).__name__})
        work = Work(
            maker,
            None,
            methods,
            lambda c: Job(c.id, c.id, Image.new("RGB", (16, 16)), "a sun", "it moves"),
            store,
            deadline=deadline,
        )
        return work.run(some), store

    return run


def test_ctrl_c_keeps_what_is_done_and_the_next_run_repeats_none_of_it(fake_work):
    first, second = Fake(stops=("b", "swap")), Fake()
    stopped, store = fake_work(first)
    assert stopped == INTERRUPTED and len(store.rows()) == 3 == len(first.made)
    stopped, store = fake_work(second)
    assert not stopped and len(store.rows()) == 6
    assert not set(first.made) & set(second.made)
    assert [run["clips"] for run in store.runs(store.rows())] == [3, 3]


def test_when_the_time_is_up_no_clip_is_begun_and_the_next_run_goes_on(fake_work):
    class Slow(Fake):
        def frames(self, method):
            time.sleep(0.3)
            return super().frames(method)

    first, second = Slow(), Fake()
    stopped, store = fake_work(first, deadline=time.perf_counter() + 0.5)
    assert stopped == TIME_IS_UP and len(store.rows()) == len(first.made) == 2
    stopped, store = fake_work(second)
    assert not stopped and len(store.rows()) == 6 and len(second.made) == 4
    assert [(run["command"], run["clips"]) for run in store.runs(store.rows())] == [
        ("Slow", 2),
        ("Fake", 4),
    ]


def test_a_broken_case_is_reported_by_its_id_and_the_rest_goes_on(fake_work):
    stopped, store = fake_work(Fake(breaks={("b", "i2v")}))
    assert not stopped and len(store.rows()) == 5
    (error,) = store.errors()
    assert (error["case"], error["method"]) == ("b", "i2v") and "no luck" in error["error"]
    again = Fake()
    _, store = fake_work(again)
    assert again.made == [("b", "i2v")] and not store.errors()


def test_a_line_cut_off_by_a_crash_is_made_again(fake_work, tmp_path):
    fake_work(Fake())
    file = tmp_path / "rows-0.jsonl"
    file.write_text(file.read_text()[:-15])
    again = Fake()
    _, store = fake_work(again)
    assert again.made == [("c", "swap")] and len(store.rows()) == 6


def test_results_of_other_settings_are_not_mixed_in(fake_work):
    fake_work(Fake())
    with pytest.raises(ValueError, match="model 'm', not 'other'"):
        fake_work(Fake(), {"model": "other"})


def arguments(folder, out, *more):
    return ["storybench", "--model", str(folder), "--steps", "2", "--out", str(out), *more]


def test_one_command_writes_the_tables(folder, tmp_path, every, capsys):
    out = tmp_path / "out"
    ids = [every[0].id, every[2].id, every[3].id]
    some = ["--cases", *ids, "--methods", "i2v", "paired", "swap", "frozen", "--keep-clips"]
    latency = tmp_path / "latency.json"
    figures = {f"{k}_seconds": 1.5 for k in (*tables.PAPER_2, "whole_job")}
    latency.write_text(json.dumps({**figures, "peak_memory_mb": 900, "model": "m", "machine": "d"}))
    bench.main(arguments(folder, out, *some, "--latency", str(latency)))
    text = (out / "tables.md").read_text()
    assert "VideoComposer, as the paper prints it (not run) | 225.3 | 62.85" in text
    assert "| m, d | 1.5 s" in text and "## Measures, all: 3 cases" in text
    assert "paired | swap | image alignment" in text
    result = json.loads((out / "results.json").read_text())
    assert result["facts"]["command"] and result["facts"]["date"] and result["facts"]["weights"]
    assert result["means"]["all"]["frozen"]["image"][0] == pytest.approx(1, abs=1e-3)
    with (out / "results.csv").open() as f:
        rows = list(csv.DictReader(f))
    assert len(rows) == 12 and all(0 <= float(r["motion_obeyed"]) <= 1 for r in rows)
    assert len(mediapy.read_video(out / "clips" / ids[0] / "paired.mp4")) == 4
    assert "12 of 12 clips are measured, 12 of them here" in capsys.readouterr().out
    bench.main(arguments(folder, out, *some))
    assert "12 of 12 clips are measured, 0 of them here" in capsys.readouterr().out


def test_sweep_ranks_the_settings(folder, tmp_path, every, capsys):
    tuning = [case.id for case in every if case.half == "tuning"][:1]
    names = [m.name for m in SWEEP][4:6]
    bench.main(arguments(folder, tmp_path, "--sweep", "--cases", *tuning, "--methods", *names))
    assert "Best by mean rank" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (["--cases", "nowhere"], "no case 'nowhere'"),
        (["--methods", "magic"], "'magic' is not known"),
        (["--lam", "2"], "--lam must be in"),
        (["--study", "/none.csv"], "no file '/none.csv'"),
        (["--seconds", "-1"], "--seconds: must be a number of at least 0"),
    ],
)
def test_bad_arguments_end_with_one_sentence_before_any_work(
    folder, tmp_path, wrong, sentence, capsys
):
    out = tmp_path / "out"
    with contextlib.suppress(SystemExit):  # argparse's, which has said it
        assert answered("bench", lambda: bench.main(arguments(folder, out, *wrong))) == 2
    assert sentence in " ".join(capsys.readouterr().err.split()) and not out.exists()


@pytest.fixture
def few_cases(every, tmp_path):
    """A file of two cases, one of each half."""
    file = tmp_path / "few.json"
    lot.save([next(c for c in every if c.half == h) for h in ("tuning", "reporting")], file)
    return file


@pytest.mark.slow
def test_the_full_command_stops_in_time_goes_on_and_leaves_small_files(
    folder, few_cases, tmp_path, monkeypatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    results = tmp_path / "results"
    command = [
        "full",
        "--model",
        str(folder),
        "--out",
        str(tmp_path / "out"),
        "--results",
        str(results),
        "--commit",
        "abc1234",
    ]
    rest = ["--", "--steps", "1", "--case-file", str(few_cases)]
    results.mkdir()
    (results / "latency-cpu.json").write_text(
        json.dumps(
            {"model": "m", "machine": "d", "peak_memory_mb": 1e3}
            | {f"{k}_seconds": 1.5 for k in (*tables.PAPER_2, "whole_job")}
        )
    )
    maintain.main([*command, "--seconds", "1", *rest])  # no time to begin anything
    assert not (results / "storybench.csv").exists()
    maintain.main([*command, "--processes", "2", *rest])
    names = {
        "latency-cpu.json",
        "storybench.csv",
        "storybench.json",
        "sweep.csv",
        "sweep.json",
        "tables.md",
        "units.csv",
        "units.json",
    }
    assert {file.name for file in results.iterdir()} == names
    assert sum(file.stat().st_size for file in results.iterdir()) < 200_000
    found = json.loads((results / "storybench.json").read_text())
    (run,) = found["facts"]["runs"]
    assert (run["clips"], run["processes"], run["commit"]) == (2 * len(METHODS), 2, "abc1234")
    assert "accelerate launch --multi_gpu --num_processes 2 -m ivkit.bench" in run["command"]
    sweep = json.loads((results / "sweep.json").read_text())
    assert set(sweep["means"]) == {"tuning", "reporting"}
    assert len(sweep["means"]["tuning"]) == 30
    best = [name for name, _ in sweep["ranking"]["tuning"]][:3]
    assert set(sweep["means"]["reporting"]) == {*best, OWN}
    text = (results / "tables.md").read_text()
    assert "| m, d | 1.5 s" in text and "Best by mean rank" in text
    before = (results / "storybench.csv").read_text()
    maintain.main([*command, "--seconds", "0", *rest])  # the tables alone
    assert (results / "storybench.csv").read_text() == before


def test_the_packages_own_setting_is_in_the_sweep(tmp_path):
    defaults = inspect.signature(iv.Pipeline._start).parameters["lam"].default
    own = next(m for m in SWEEP if m.name == OWN)
    settings = iv.pipeline.Settings()
    assert (own.lam, own.reading, own.mechanism) == (defaults, settings.reading, settings.mechanism)
    assert full.winners(tmp_path) == [OWN]


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one(folder, tmp_path, every, monkeypatch):
    """Started by accelerate, on two cases; both together then repeat nothing."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    out = tmp_path / "scaling"
    some = [
        "--model",
        str(folder),
        "--steps",
        "2",
        "--cases",
        every[0].id,
        every[5].id,
        "--methods",
        "i2v",
        "paired",
        "frozen",
    ]
    maintain.main(["scaling", "--processes", "2", "--out", str(out), "--", *some])
    figures = json.loads((out / "scaling.json").read_text())
    assert figures["processes"] == 2 and figures["clips"] == 6
    assert figures["largest_difference"] < 1e-4
    assert all((out / "many" / f"rows-{i}.jsonl").stat().st_size for i in range(2))
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command = [sys.executable, *launch, "-m", "ivkit.bench", "storybench", *some]
    again = subprocess.run([*command, "--out", str(out / "many")], capture_output=True, text=True)
    assert "6 of 6 clips are measured, 0 of them here" in again.stdout


PAIRS = """if True:
    import os, sys
    import torch
    from ivkit.{begin} as begin
    from ivkit.bench.runner import together

    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    os.environ["WORLD_SIZE"], os.environ["MASTER_ADDR"] = "2", "127.0.0.1"
    for port in {ports}:
        started = []
        for rank in "01":
            started.append(os.fork())
            if not started[-1]:
                os.environ.update(RANK=rank, LOCAL_RANK=rank, MASTER_PORT=str(port))
                group = begin()
                import torch.distributed.nn.functional  # as diffusers does

                for thread in os.listdir("/proc/self/task"):
                    if thread != str(os.getpid()):
                        os.sched_setscheduler(int(thread), os.SCHED_IDLE, os.sched_param(0))
                for _ in range(3):
                    {meet}
                sys.exit()
        for child in started:
            print("end", os.waitpid(child, 0)[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="needs Linux's schedulers")
@pytest.mark.parametrize(
    "begin, meet",
    [
        ("bench.runner import _processes", "together(group)"),
        ("storybook.training.common import Ranks", "group.mean_(torch.zeros(1))"),
    ],
)
def test_no_thread_of_gloo_ends_a_process_that_is_done(begin, meet):
    """Its threads run last here, which aborted one process of four. Five pairs are tried."""
    with contextlib.ExitStack() as taken:
        sockets = [taken.enter_context(socket.socket()) for _ in range(5)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in sockets]
    code = PAIRS.format(begin=begin, meet=meet, ports=ports)
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert said.stdout.split() == ["end", "0"] * 10, said.stderr[-2000:]


def test_scaling_finds_a_measure_that_differs(tmp_path):
    for name, image, seconds in (("one", 0.9, 8.0), ("many", 0.8, 4.0)):
        (tmp_path / name).mkdir()
        line = json.dumps(row("a", "i2v", image=image))
        (tmp_path / name / "rows-0.jsonl").write_text(line + "\n")
        facts = {"run_seconds": seconds, "processes": 2, "machine": "m"}
        (tmp_path / name / "results.json").write_text(json.dumps({"facts": facts}))
    found = scaling.compare(tmp_path / "one", tmp_path / "many")
    assert found["ratio"] == 2 and found["largest_difference"] == pytest.approx(0.1)
    assert found["differs_most"] == "a i2v image"


# ---- tables ----


def row(case, method, **values):
    return {"case": case, "method": method, "group": case, "half": "reporting", **values}


def test_differences_say_better_only_where_the_interval_does():
    rng = np.random.default_rng(0)
    rows = []
    for i in range(40):
        noise = rng.normal(0, 0.1)
        rows.append(row(str(i), "align", flicker=1 + noise, image=0.9))
        rows.append(row(str(i), "paired", flicker=2 + noise, image=0.9 + rng.normal(0, 0.01)))
    found = {d["measure"]: d for d in tables.differences(rows)}
    assert found["flicker"]["verdict"] == "better" and found["flicker"]["gain"] == pytest.approx(1)
    assert found["image"]["verdict"] == "no difference shown"


def test_ranking_counts_every_measure_alike():
    rows = [row("a", "good", image=0.9, flicker=1.0), row("a", "bad", image=0.1, flicker=3.0)]
    assert [name for name, _ in tables.ranking(tables.summary(rows))] == ["good", "bad"]


def test_a_stopped_sweep_ranks_over_the_cases_that_every_setting_has_done():
    done = [row("a", "one", image=0.5), row("a", "two", image=0.6), row("b", "one", image=0.9)]
    assert tables.ranking(tables.summary(done))[0][0] == "one"
    assert tables.ranking(tables.summary(tables._whole(done)))[0][0] == "two"
    assert tables._whole(done[1:]) == done[1:]


# ---- AnimateBench ----


@pytest.fixture
def layout(tmp_path, world, every):
    """A folder in AnimateBench's layout, made from the storybook; one case has an interaction."""
    root = tmp_path / "bench"
    for style in ("1-meadow", "2-sea"):
        (root / "img" / style).mkdir(parents=True)
    (root / "configs").mkdir()
    picks = {"1-meadow": every[0], "2-sea": every[15]}
    for style, case in picks.items():
        picture = world.job(case, 64).picture
        for n in (1, 2):
            picture.save(root / "img" / style / f"{n}.png")
        prompts = [case.text, case.motion, "everything stays still"]
        where = {"input_name": style, "validation_input_path": "img"}
        config = {"prompts": [prompts, prompts[::-1]], "n_prompt": ["a red car"]}
        config["validation_data"] = where
        (root / "configs" / f"{style}.yaml").write_text(yaml.safe_dump(config))
    (root / "configs" / "base.yaml").write_text("generate: {sample_width: 512}\n")
    job = world.job(every[0], 16)
    mine = iv.Instructions(
        image=iv.ImageInstruction(job.picture),
        content=iv.ContentInstruction(job.text, job.strokes),
        trajectory=iv.TrajectoryInstruction(job.drags),
    )
    (root / "interactions" / "1-meadow").mkdir(parents=True)
    mine.save(root / "interactions" / "1-meadow" / "1-1.json")
    return root


def test_animatebench_is_read_from_its_layout(layout, every):
    found = animatebench.read(layout)
    assert len(found) == 12 and len({case.id for case in found}) == 12
    assert [c.prompt for c in found if c.group == "2-sea-2"][0] == "everything stays still"
    assert sum(case.interaction is not None for case in found) == 1
    assert {case.negative for case in found} == {""}
    assert {case.negative for case in animatebench.read(layout, negative=True)} == {"a red car"}
    with pytest.raises(ValueError, match="needs img/ and configs"):
        animatebench.read(layout / "img")


def test_animatebench_writes_the_same_tables(layout, folder, tmp_path):
    out = tmp_path / "out"
    bench.main(
        [
            "animatebench",
            "--bench",
            str(layout),
            "--model",
            str(folder),
            "--steps",
            "1",
            "--clip",
            "storybook",
            "--out",
            str(out),
            "--methods",
            "i2v",
            "both",
            "frozen",
        ]
    )
    with (out / "results.csv").open() as f:
        rows = list(csv.DictReader(f))
    assert len([r for r in rows if r["method"] == "i2v"]) == 12
    (mine,) = [r for r in rows if r["method"] == "both"]  # only where there is an interaction
    assert mine["case"] == "1-meadow-1-1" and float(mine["drag_distance"]) > 0
    assert "AnimateDiff, as the paper prints it" in (out / "tables.md").read_text()


def test_an_interaction_of_another_size_is_named(layout):
    case = next(c for c in animatebench.read(layout) if c.interaction)
    with pytest.raises(ValueError, match="1-1.json was drawn on 16 x 16 pixels.*32 x 32"):
        animatebench.job(case, 32)


# ---- the blind study ----


@pytest.fixture
def clips(tmp_path):
    for case in ("a", "b", "c"):
        (tmp_path / "clips" / case).mkdir(parents=True)
        for i, method in enumerate(("i2v", "both", "swap")):
            (tmp_path / "clips" / case / f"{method}.mp4").write_bytes(bytes([i]) * 9)
    return tmp_path / "clips"


def answer(widget, image="left", text="same", left="yes", right="no"):
    widget.answer(image, text, left, right)


def test_trials_are_balanced_and_the_same_for_one_participant(clips):
    some = study.trials(clips, "p1", pairs=6)
    assert some == study.trials(clips, "p1", pairs=6) != study.trials(clips, "p2", pairs=6)
    kinds = [frozenset(t[1:]) for t in some]
    assert all(kinds.count(kind) == 2 for kind in kinds)
    assert len(study.trials(clips, "p1", pairs=100)) == 9  # there are no more
    with pytest.raises(ValueError, match="no case with two clips"):
        study.trials(clips, "p1", methods=["i2v"])


def test_answers_are_in_the_csv_as_they_come_and_the_study_goes_on(clips, tmp_path):
    file = tmp_path / "answers.csv"
    widget = study.Study(clips, file, "p1", pairs=3)
    shown = [clip.value for clip in widget.clips]
    case, left, _ = widget.left_to_do[0]
    assert shown[0] == (clips / case / f"{left}.mp4").read_bytes()
    assert widget.next.disabled
    widget.keep()  # nothing is answered yet
    assert not file.exists()
    answer(widget)
    assert widget.next.disabled and len(study.read(file)) == 1
    with pytest.raises(ValueError, match="text must be one of .*'both'"):
        answer(widget, text="both")
    assert len(study.read(file)) == 1
    again = study.Study(clips, file, "p1", pairs=3)
    assert again.left_to_do == widget.left_to_do and len(again.left_to_do) == 2
    for _ in range(2):
        answer(again, image="right")
    assert "3 of 3" in again.progress.value and len(study.read(file)) == 3
    assert len(study.Study(clips, file, "p2", pairs=3).left_to_do) == 3


def test_the_method_is_hidden(clips, tmp_path):
    widget = study.Study(clips, tmp_path / "answers.csv", pairs=3)
    seen = json.dumps(
        [w.get_state() for w in (widget.progress, widget.texts, widget.next)], default=str
    )
    for name in ("i2v", "both", "swap"):
        assert name not in seen


def test_study_columns_and_their_table(tmp_path, capsys):
    rows = [
        {
            "participant": p,
            "case": "a",
            "left": "both",
            "right": "i2v",
            "image": "left",
            "text": "same",
            "satisfied_left": "yes",
            "satisfied_right": "no",
        }
        for p in ("p1", "p2")
    ]
    votes = study.columns(rows)
    assert votes["both"]["image"] == (1, 1, 1) and votes["i2v"]["satisfaction"][0] == 0
    assert votes["both"]["text"][0] == 0.5 == votes["i2v"]["text"][0]
    file = tmp_path / "answers.csv"
    with file.open("w", newline="") as f:
        writer = csv.DictWriter(f, study.COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    study.main(Namespace(answers=[file]))
    assert "| both | 1.000 [1.000, 1.000] | 0.500" in capsys.readouterr().out
    file.write_text("image,text\nleft,upwards\n")
    with pytest.raises(ValueError, match="row 1 is no answer"):
        study.read(file)
