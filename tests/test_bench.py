"""The latency benchmark on a pipeline that draws nothing: its keys, its table, its files."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import ivkit as iv
from ivkit.bench import __main__ as bench
from ivkit.bench import charts, latency, scores, study, tables
from ivkit.storybook import words
from ivkit.storybook.world import World
from tests.bench import record, results

KEYS = {
    "image_seconds",
    "content_seconds",
    "motion_seconds",
    "trajectory_seconds",
    "whole_job_seconds",
    "import_seconds",
    "peak_memory_mb",
    "device",
    "dtype",
    "versions",
}


class Blank:
    """Answers like a pipeline, at once."""

    device, model = "cpu", SimpleNamespace(dtype="torch.bfloat16")

    def __init__(self):
        self.seeds = []

    def image(self, text, picture=None, **options):
        return Image.new("RGB", (64, 64))

    def video(self, picture, text, **options):
        self.seeds.append(options["seed"])
        return SimpleNamespace(frames=np.zeros((4, 64, 64, 3), np.uint8), trace=[None] * 6)


@pytest.fixture
def blank(monkeypatch):
    pipe = Blank()
    monkeypatch.setattr(iv, "load", lambda name: pipe, raising=False)
    monkeypatch.setattr(latency, "import_seconds", lambda: 0.5)
    return pipe


def test_json_holds_every_key_and_the_table_shows_the_figures(blank, tmp_path, capsys):
    bench.main(["latency", "--repeat", "2", "--json", str(tmp_path / "figures.json")])
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert set(figures) >= KEYS
    assert figures["dtype"] == "bfloat16" and figures["num_inference_steps"] == 6
    assert figures["peak_memory_mb"] > 10
    assert all(figures[key] > 0 for key in KEYS if key.endswith("_seconds"))
    printed = capsys.readouterr().out
    assert "storybook on cpu in bfloat16: 4 frames, 6 steps" in printed
    assert "import ivkit            0.50 s" in printed


def test_no_clip_is_made_twice_so_that_nothing_kept_is_timed(blank):
    latency.measure(blank, repeat=3)
    assert len(set(blank.seeds)) == len(blank.seeds) >= 4


@pytest.mark.parametrize(
    "arguments, words",
    [(["--repeat", "0"], "--repeat"), (["--json", "/no/such/folder/x.json"], "--json")],
)
def test_bad_arguments_are_refused_before_any_work(blank, arguments, words, capsys):
    with pytest.raises(SystemExit):
        bench.main(["latency", *arguments])
    assert words in capsys.readouterr().err
    assert not blank.seeds


def test_import_seconds_are_those_of_a_fresh_interpreter():
    assert 0 < latency.import_seconds() < 60


def test_recorded_strokes_are_what_a_mouse_sends_and_fill_the_disc():
    strokes = record.paint_disc((196, 50), 26)
    points = np.concatenate([stroke.points for stroke in strokes])
    assert len(points) > 100 and (points == points.round()).all()
    for stroke in strokes:
        steps = np.diff(stroke.times)
        assert (steps >= 0.0159).all() and len(stroke.times) == len(stroke.points)
    _, alpha = iv.rasterise(Image.new("RGB", (256, 256)), strokes)
    y, x = np.mgrid[:256, :256]
    distance = np.hypot(x - 196, y - 50)
    assert (alpha[distance < 22] > 0.5).all() and not alpha[distance > 30].any()


def test_a_recorded_drag_ends_on_its_target():
    path, times = record.move([(10, 20), (90, 60)], 0.5, np.random.default_rng(0))
    assert path[0] == [10, 20] and path[-1] == [90, 60] and times[-1] >= 0.49


ROW = {"motion": (1, None, None), "image": (0.5, 0.4, 0.6)}


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: charts.dots(3), "means must be a dict {method:"),
        (lambda: charts.dots({}), "means must be .* of at least one method, got {}"),
        (lambda: charts.dots({"a": {"seconds": (1, 1, 1)}}, ["text"]), "means has none of the"),
        (lambda: charts.dots({"a": {"text": 3}}), "means must be a dict"),
        (
            lambda: charts.sweep_lines({"a": {}}),
            "means has methods such as",
        ),
        (lambda: charts.sweep_lines({"lam 1.2.3, paired, both": {}}), "means has methods such as"),
        (lambda: charts.against_motion({"a": ROW}), "means has no 'text' of 'a'"),
        (lambda: charts.table_1({"a": ROW}), "means has no 'text' of 'a'"),
        (
            lambda: charts.verdicts([{"method": "a"}]),
            r"gains\[0\] must be a dict with",
        ),
        (lambda: charts.latencies([{}]), r"machines\[0\] must be a dict with model, machine"),
        (lambda: tables.table_1({"a": ROW}, "x"), "means has no 'text' of 'a'"),
        (lambda: tables.summary([{"method": "a"}]), r"rows\[0\] must be a dict with method, case"),
        (
            lambda: tables.differences([], [("a", "b", ["c"])]),
            r"claims\[0\] must be \(better",
        ),
        (lambda: scores.bootstrap("abc"), "values must be numbers of shape"),
        (lambda: scores.bootstrap([1, 2], ["a"]), "groups of shape .* does not fit values"),
        (lambda: scores.Clip(3), "name must be a sentence, got 3"),
        (lambda: scores.Clip("no/such"), "name 'no/such' is no CLIP model here: "),
        (
            lambda: scores.Clip().text("a zebra"),
            "text has the word 'zebra', which",
        ),
        (lambda: study.columns([{"case": "a"}]), r"rows\[0\] must be a dict with participant"),
        (lambda: study.table({"a": ROW}), "found has no 'answers' of 'a'"),
        (
            lambda: words.encode("a zebra"),
            "text has the word 'zebra', which",
        ),
        (
            lambda: World().sample(1).with_(nothing=1),
            "with_ has no argument 'nothing'",
        ),
        (lambda: World().sample(1).with_(speed="x"), "speed must be numbers that broadcast to"),
    ],
)
def test_a_wrong_call_is_answered_by_one_sentence(call, said):
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=said) as found:
        call()
    assert "\n" not in str(found.value) and len(str(found.value)) <= 400


def test_the_page_of_results_has_the_tables_that_its_files_give():
    page = (results.RESULTS / "README.md").read_text(encoding="utf-8")
    assert results.filled(page) == page, "run: python -m tests.bench results"
    assert set(results.PLACE.findall(page)) == set(results.TABLES)
    assert results.filled("<!-- pia -->\nold\n<!-- end -->\n").count("\n") == len(results.PIA) + 4
