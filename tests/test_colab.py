"""The set-up cell under a made-up google.colab: widgets switched on, nothing installed twice."""

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").rglob("*.ipynb"))
LACKS = (NOTEBOOKS[0].parent / "colab.txt").read_text()
COLAB_HAS = """anywidget torch numpy diffusers transformers ipython ipywidgets accelerate peft
safetensors""".split()


@pytest.fixture
def colab(monkeypatch):
    """Calls of google.colab.output, by name."""
    calls = []
    google, made, output = (
        ModuleType(n) for n in ("google", "google.colab", "google.colab.output")
    )
    output.enable_custom_widget_manager = lambda: calls.append("enable_custom_widget_manager")
    made.output = output
    for module in (google, made, output):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return calls


def run(path) -> list[str]:
    """Run a notebook's first cell; returns the commands it gave to the shell."""
    cell = next(c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code")
    shell, commands = InteractiveShell(), []
    shell.system = lambda command: commands.append(shell.var_expand(command, depth=0))
    shell.run_line_magic = lambda name, line, **_: commands.append(f"%{name} {line}")
    shell.run_cell(cell.source, silent=True).raise_error()
    return commands


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_where_ivkit_is_there_it_only_switches_widgets_on(path, colab):
    assert run(path) == []
    assert colab == ["enable_custom_widget_manager"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_on_a_bare_colab_it_installs_what_colab_lacks_and_nothing_else(path, colab, monkeypatch):
    find = importlib.util.find_spec
    missing = lambda name, *rest: None if name == "ivkit" else find(name, *rest)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", missing)
    monkeypatch.setattr("builtins.input", lambda _: "https://localhost/c")
    clone, install = run(path)
    assert clone == "git clone -q https://localhost/c ivkit"
    assert install == "pip install -q --no-deps ./ivkit -r ivkit/notebooks/colab.txt"
    named = {line.split("#")[0].strip() for line in LACKS.splitlines()} - {""}
    assert named == {"mediapy", "ipycanvas==0.13.3"}  # one pin, of what Colab's widgets can load
    assert not {name.split("=")[0] for name in named} & set(COLAB_HAS)
    assert colab == ["enable_custom_widget_manager"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_it_runs_beside_the_recordings_also_after_a_restart(path, colab, tmp_path, monkeypatch):
    inside = Path("ivkit") / path.parent.relative_to(NOTEBOOKS[0].parents[1])
    (tmp_path / inside).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert run(path) == [] and os.getcwd() == str(tmp_path / inside)


def test_off_colab_nothing_happens(monkeypatch):
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    assert run(NOTEBOOKS[0]) == []
