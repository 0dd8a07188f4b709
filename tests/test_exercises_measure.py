"""Chapter 9: what it writes out is what the bench computes; the recorded results."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from test_exercises import ROOT, defined

import ivkit as iv
from ivkit.bench import cases, charts, metrics, scores, storybench, tables
from ivkit.bench.methods import METHODS, OWN
from tests.bench import full

RESULTS = ROOT.parent / "media" / "results"


@pytest.fixture(scope="module")
def chapter():
    return defined("09_measure", Image=Image, csv=csv, metrics=metrics)


@pytest.fixture(scope="module")
def job():
    case = next(case for case in cases.load() if case.id == "sea-sunset-2-1")
    return storybench.World().job(case)


def test_what_is_measured_by_hand_is_what_the_bench_measures(chapter, job):
    """On a clip that a drag moves, and on one whose thing is gone."""
    clip = scores.Clip()
    moved = iv.warp(job.picture, job.drags, 4).frames
    for frames in (moved, np.full_like(moved, 90)):
        row = scores.measure(frames, job, job.picture, clip)
        seen = chapter["picture_vectors"](clip, frames).numpy(force=True)
        to = chapter["picture_vectors"](clip, [np.asarray(job.picture)]).numpy(force=True)[0]
        text = chapter["text_vector"](clip, job.text).numpy(force=True)
        assert (seen @ to).mean() == pytest.approx(row["image"], abs=1e-4)
        assert (seen @ text).mean() == pytest.approx(row["text"], abs=1e-4)
        assert chapter["drag_distance"](frames, job) == pytest.approx(
            row["drag_distance"], abs=1e-5
        )
        said, far = chapter["obeyed"](frames[-1], *job.judge.endings)
        assert said == row["motion_obeyed"] and len(far) == len(job.judge.endings[1])


def test_likeness_is_highest_where_the_tracker_finds_the_thing(chapter, job):
    (drag,) = job.drags
    frame = iv.warp(job.picture, drag, 4).frames[2]
    alike = chapter["likeness"](frame, job.picture, drag.mask).numpy()
    y, x = np.unravel_index(alike.argmax(), alike.shape)
    centre, corner = np.argwhere(drag.mask).mean(0)[::-1], np.argwhere(drag.mask).min(0)[::-1]
    found = metrics.track(frame[None], job.picture, drag.mask)[0]
    assert np.allclose((x, y) + centre - corner, found) and 0.95 < alike.max() < 1.001


def test_the_interval_by_hand_is_the_benchs(chapter):
    rng = np.random.default_rng(1)
    values, groups = rng.normal(size=30), rng.integers(0, 9, 30)
    means = chapter["bootstrap"](values.tolist(), groups.tolist())
    mine = values.mean(), *np.percentile(means, [2.5, 97.5])
    assert np.allclose(mine, scores.bootstrap(values, groups))


def test_the_rule_votes_by_the_measures(chapter):
    left = {"image": 0.9, "text": 0.5, "drag_distance": 0.02}
    right = {"image": 0.7, "text": 0.505, "drag_distance": 0.3}
    assert chapter["by_rule"](left, right) == ("left", "same", "yes", "no")
    assert chapter["by_rule"](right, left) == ("right", "same", "no", "yes")


# ---- the charts ----


@pytest.fixture
def results(tmp_path):
    """A folder of results, small and made up, some of whose measures some methods lack."""
    rng = np.random.default_rng(0)

    def rows(methods):
        for half, case in (("tuning", "a"), ("tuning", "b"), ("reporting", "c")):
            for method in methods:
                values = {m: float(rng.random()) for m in scores.MEASURES}
                if method in ("frozen", "i2v"):
                    del values["edit_named"]
                yield {
                    "case": case,
                    "group": case,
                    "half": half,
                    "method": method,
                    "run": 0,
                    **values,
                }

    facts = {
        "benchmark": "b",
        "model": "m",
        "weights": "w",
        "dtype": "d",
        "steps": 1,
        "lam": 0.3,
        "clip": "c",
        "size": 64,
        "runs": [],
    }
    for name, methods in (("storybench", METHODS), ("sweep", ("lam 0, paired, both", OWN))):
        (tmp_path / name).mkdir()
        tables.write(tmp_path / name, list(rows(methods)), facts, name == "sweep")
    full.gather(tmp_path, tmp_path)
    latency = {f"{name}_seconds": 0.1 for name in tables.PAPER_2} | {"model": "m", "machine": "d"}
    (tmp_path / "latency-cpu.json").write_text(json.dumps(latency))
    return tmp_path


def test_every_chart_is_drawn_from_results_with_gaps(results):
    storybench_, sweep, machines = charts.read(results)
    means = storybench_["means"]["all"]
    assert storybench_["means"]["all"]["frozen"].get("edit_named") is None
    pictures = [
        charts.dots(means), charts.table_1(means), charts.against_motion(means),
        charts.verdicts(storybench_["differences"]["all"]),
        charts.sweep_lines(sweep["means"]["tuning"]), charts.latencies(machines),
    ]  # fmt: skip
    for picture in pictures:
        assert picture.width > 300 and np.asarray(picture).std() > 5
    higher = {
        m: {k: (v[0] + 5, v[1] + 5, v[2] + 5) for k, v in r.items()}
        for m, r in means.items()
        if m != "t2v"
    }
    assert charts.dots({**means, **higher}).tobytes() != charts.dots(means).tobytes()


def test_one_command_draws_them_and_says_what_is_missing(results, tmp_path, capsys):
    from ivkit.bench import __main__ as bench

    bench.main(["charts", str(results)])
    assert {f.name for f in results.glob("*.png")} == {
        "measures.png",
        "verdicts.png",
        "sweep.png",
        "latency.png",
    }
    with pytest.raises(ValueError, match="bench full --results"):
        bench.main(["charts", str(tmp_path / "nowhere")])


# ---- what is recorded in media/results ----


def test_the_recorded_run_is_whole_and_says_what_it_is():
    found, sweep, machines = charts.read(RESULTS)
    assert set(found["means"]["all"]) == set(METHODS) and found["facts"]["cases"] == 105
    assert set(found["means"]) == {"all", "tuning", "reporting"}
    assert len(sweep["means"]["tuning"]) == 30 and OWN in sweep["means"]["reporting"]
    for run in found["facts"]["runs"] + sweep["facts"]["runs"]:
        assert run["command"] and run["date"] and run["commit"] and run["machine"]
    assert machines and all(m["whole_job_seconds"] > 0 for m in machines)
    assert sum(file.stat().st_size for file in RESULTS.iterdir()) < 2_000_000


def test_the_recorded_means_are_those_of_the_recorded_rows(chapter):
    found = charts.read(RESULTS)[0]
    rows = chapter["read"](RESULTS / "storybench.csv")
    for method, measures in found["means"]["all"].items():
        own = [row for row in rows if row["method"] == method]
        assert len(own) == 105
        for name, (mean, low, high) in measures.items():
            if mean is not None:
                assert mean == pytest.approx(np.nanmean([row[name] for row in own]), rel=1e-4)
                assert low is None or low <= mean <= high
