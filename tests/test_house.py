"""The house keeps its shape: how long its rooms are, who imports whom, what a wheel holds."""

import ast
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import ivkit
from ivkit.bench import __main__ as readers
from tests.bench import __main__ as maintainers

ROOT = Path(__file__).parents[1]
HOUSE = ROOT / "ivkit"
FILES = sorted(HOUSE.rglob("*.py"))

EDITS = ("pictures", "instructions", "paint", "regions", "trajectory")
LOOPS = ("image", "blend", "align", "video", "trace")
TOP = (*EDITS, *LOOPS, "view", "live", "pipeline")
SELF = ("__init__",)  # for the version, or the public names

#: each room, and those that it may import beside `support`, also inside functions
ROOMS = {
    "support": ("pictures", *SELF),
    "pictures": (),
    "instructions": ("pictures",),
    "paint": ("instructions", "pictures"),
    "regions": ("pictures",),
    "trajectory": ("instructions", "pictures", "regions"),
    "models": ("pictures",),
    "align": (),
    "trace": ("models",),
    "blend": ("models", "trace"),
    "image": (*EDITS, "models", "blend", "trace"),
    "video": (*EDITS, "models", "blend", "align", "trace"),
    "view": ("pictures", "trace"),
    "live": (*EDITS, *LOOPS, "models", "view"),
    "pipeline": (*EDITS, *LOOPS, "models", "live"),
    "storybook": (*TOP, "models", "bench", *SELF),
    "widgets": (*TOP, "models", *SELF),
    "course": (*TOP, "models", "storybook", "widgets", "bench", *SELF),
    "bench": (*TOP, "models", "storybook", *SELF),
    "__main__": ("models", "course"),
    "__init__": (),
}
#: what one file of a room may import beside: a LoRA is trained on what its own pipeline draws
BESIDE = {"models/personal.py": ("pipeline",)}


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def lines(paths) -> int:
    return sum(len(read(path).splitlines()) for path in paths)


def test_the_top_floor_is_the_paper():
    top = list(HOUSE.glob("*.py"))
    assert {path.stem for path in top} <= {*TOP, "__init__", "__main__"} and len(top) <= 15
    assert lines(top) <= 4900  # of which the stream takes 530; the wish is 4,000


def test_the_house_is_thin():
    assert lines(FILES) <= 22460  # the wish is 16,500


def imported(path: Path):
    """The rooms that a file imports, its own aside; what only type checkers see does not count."""
    own = path.relative_to(ROOT).with_suffix("").parts
    tree = ast.parse(read(path))
    typing = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [*own[: len(own) - node.level]] if node.level else []
            base += node.module.split(".") if node.module else []
            names = [[*base, alias.name] for alias in node.names]
        for name in names:
            if name[0] == "ivkit" and id(node) not in typing:
                room = name[1] if name[1:] and name[1] in ROOMS else "__init__"
                if room != own[1]:
                    yield room


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_a_room_imports_what_it_may(path):
    name = path.relative_to(HOUSE)
    may = {"support", *ROOMS[name.parts[0].removesuffix(".py")], *BESIDE.get(str(name), ())}
    assert set(imported(path)) - may == set()


def test_the_measures_know_nothing_of_the_storybook():
    assert "storybook" not in set(imported(HOUSE / "bench" / "metrics.py"))


def test_what_is_measured_of_imports_is_what_python_sees():
    """Of relative, absolute and late imports; not of what a type checker alone sees."""
    file = HOUSE / "widgets" / "_a_file_that_is_not_there.py"
    text = "from .. import blend\nfrom ..models import memory\ndef f():\n    import ivkit.paint\n"
    text += "if TYPE_CHECKING:\n    from ..view import show\n"

    class Written(type(file)):
        def read_text(self, encoding):
            return text

    assert sorted(imported(Written(file))) == ["blend", "models", "paint"]


def test_only_tables_of_data_keep_a_form_of_their_own():
    found = []
    for path in [*FILES, *(ROOT / "tests").rglob("*.py")]:
        text = read(path)
        if path == Path(__file__) or "# fmt: skip" not in text:
            continue
        marked = {i for i, line in enumerate(text.splitlines(), 1) if "# fmt: skip" in line}
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.stmt) and node.end_lineno in marked:
                table = isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(
                    node.value, (ast.Dict, ast.List, ast.Tuple, ast.Set)
                )
                found.append((f"{path.relative_to(ROOT)}:{node.lineno}", table))
    assert len(found) <= 30
    assert [place for place, table in found if not table] == []


def test_a_wheel_holds_no_maintainers_benchmark():
    from setuptools import find_packages

    include = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = find_packages(str(ROOT), **include["packages"]["find"])
    assert "ivkit.bench" in packages
    assert [name for name in packages if not f"{name}.".startswith("ivkit.")] == []
    assert set(maintainers.NAMES) & set(readers.NAMES) == set()
    assert not {path.stem for path in (HOUSE / "bench").glob("*.py")} & {"full", "gpu", "scaling"}


def test_importing_and_running_leave_no_switch_behind():
    """No handler of signals, nothing at Python's exit, torch's switches as they were."""
    code = """
import atexit, signal
from pathlib import Path

before = {s: signal.getsignal(s) for s in signal.valid_signals()}
count = atexit._ncallbacks()
import ivkit
assert atexit._ncallbacks() == count
import torch
flags = lambda: (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.benchmark,
                 torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads())
as_it_was = flags()
pipe = ivkit.load("sd", small=True)
pipe.speed_up(compile=False)
picture = pipe.image("a boat", num_inference_steps=1, progress=False)
assert flags() == as_it_was
after = {s: signal.getsignal(s) for s in signal.valid_signals()}
assert after == before, "a signal's handler"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("old, new", ivkit._MOVED.items())
def test_a_module_that_moved_is_found_by_its_old_name(old, new):
    sys.modules.pop(f"ivkit.{old}", None)
    with pytest.warns(DeprecationWarning, match=f"ivkit.{old} is ivkit.{new} now"):
        assert import_module(f"ivkit.{old}") is import_module(f"ivkit.{new}")
    assert getattr(ivkit, old) is import_module(f"ivkit.{new}")


def test_a_module_that_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError, match="ivkit.no_such_module"):
        import_module("ivkit.no_such_module")
