"""Every command answers a bad path or value with one sentence and exit code 2, before any work."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ivkit.__main__ import main
from ivkit.bench import __main__ as bench
from ivkit.course import classroom as course
from ivkit.storybook import __main__ as storybook
from ivkit.support import commands, disk
from tests.bench import __main__ as maintain

MAINS = {"ivkit": main, "bench": bench.main, "maintain": maintain.main, "storybook": storybook.main}


def said(capsys, name, *arguments) -> tuple[int, str]:
    """The exit code and the last line on stderr; there is never a traceback."""
    try:
        code = commands.answered(name, lambda: sys.exit(MAINS[name](list(arguments)) or 0))
    except SystemExit as end:
        code = end.code
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return code, (err.strip().splitlines() or [""])[-1]


BAD_FOLDERS = ["{file}", "{file}/new", "/proc/new", "/dev/null"]
BAD_FILES = [*BAD_FOLDERS[1:], "{folder}", "{folder}/none/x.csv", "https://example.invalid/x", ""]
WRITES = {
    ("ivkit", "demo", "--out"): BAD_FOLDERS,
    ("ivkit", "student"): [*BAD_FOLDERS, "{full}", "https://example.invalid/x"],
    ("ivkit", "mark", "{folder}", "--csv"): BAD_FILES,
    ("bench", "latency", "--json"): BAD_FILES,
    ("maintain", "notebooks", "--json"): BAD_FILES,
    ("maintain", "notebooks", "--save"): BAD_FOLDERS,
    ("bench", "storybench", "--out"): BAD_FOLDERS,
    ("bench", "animatebench", "--out"): BAD_FOLDERS,
    ("maintain", "scaling", "--out"): BAD_FOLDERS,
    ("maintain", "full", "--out"): BAD_FOLDERS,
    ("maintain", "full", "--results"): BAD_FOLDERS,
    ("maintain", "gpu", "--tiny", "--out"): [*BAD_FOLDERS[1:], "{folder}", ""],
    ("maintain", "pictures", "--out"): BAD_FOLDERS,
    ("maintain", "record", "--out"): BAD_FILES,
    ("maintain", "drawings", "--out"): BAD_FOLDERS,
    ("storybook", "train", "vae", "--out"): BAD_FOLDERS,
    ("storybook", "train", "vae", "--folder"): BAD_FOLDERS,
    ("storybook", "eval", "--json"): BAD_FILES,
}


@pytest.mark.parametrize("command", WRITES, ids=" ".join)
def test_a_place_that_cannot_be_written_is_refused_first(command, tmp_path, capsys, monkeypatch):
    """Tracebacks, or a refusal after all the work, before."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("old")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").write_text("old")
    (tmp_path / "folder").mkdir()
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    fill = {name: str(tmp_path / name) for name in ("file", "full", "folder")}
    for place in WRITES[command]:
        program, *arguments = [part.format(**fill) for part in (*command, place)]
        code, sentence = said(capsys, program, *arguments)
        assert code == 2 and len(sentence) < 500, sentence
        assert sorted(str(path) for path in tmp_path.rglob("*")) == before
    assert (tmp_path / "file").read_text() == "old"


@pytest.mark.parametrize(
    "command, words",
    [
        ("ivkit mark none.ipynb", "there is no notebook none.ipynb"),
        ("ivkit mark .", "there is no notebook in ."),
        ("bench latency --model nonsense", "'nonsense' is not known"),
        ("bench latency --repeat 0", "--repeat: must be an integer of at least 1, not 0"),
        ("bench latency --repeat x", "--repeat"),
        ("bench latency --steps -1", "--steps"),
        ("maintain notebooks --threads 0", "at least 1, not 0"),
        ("bench storybench --model nonsense --out o", "'nonsense' is not known"),
        ("bench storybench --steps 0", "--steps"),
        ("bench storybench --case-file none.json --out o", "none.json"),
        ("bench study none.csv", "none.csv"),
        ("bench charts none", "bench full --results"),
        ("maintain full --seconds -1", "--seconds: must be a number of at least 0, not -1"),
        ("maintain full --seconds nan", "--seconds"),
        ("maintain scaling --processes 1", "--processes must be at least 2, not 1"),
        ("maintain pictures --model nonsense", "'nonsense' is not known"),
        ("maintain record --model nonsense", "'nonsense' is not known"),
        ("storybook sprites --font none.ttf", "none.ttf"),
        ("storybook train vae --set lr", "--set: must be NAME=VALUE"),
        ("storybook train vae --max-steps 0", "--max-steps"),
        ("storybook eval --scenes 0", "--scenes"),
        ("storybook eval --folder empty", "empty"),
    ],
)
def test_a_bad_value_is_one_sentence(command, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program, *arguments = command.split()
    code, sentence = said(capsys, program, *arguments)
    assert code == 2 and words in sentence and len(sentence) < 500, sentence


def test_on_a_full_disk_nothing_half_is_left(tmp_path, capsys, monkeypatch):
    """Half a folder was left, which the next call refused."""

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(course.shutil, "copy", full)
        code, sentence = said(capsys, "ivkit", "student", str(tmp_path / "class"))
    assert code == 2 and sentence.endswith("class cannot be written: No space left on device")
    assert list(tmp_path.iterdir()) == []
    assert said(capsys, "ivkit", "student", str(tmp_path / "class"))[0] == 0


def test_an_empty_folder_is_filled_where_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with disk.whole_folder(".") as part:
        (part / "a").write_text("x")
    assert [path.name for path in Path().iterdir()] == ["a"]


def test_a_stdout_without_unicode_gets_what_it_can_show():
    code = (
        "import sys; from ivkit import checks, setup; from ivkit.support import commands; setup();"
        "commands.answered('x', lambda: print('✓ right'));"
        "checks.blend(None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "right" in done.stdout and "not yet" in done.stdout, done.stderr
