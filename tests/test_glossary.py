"""The glossary names things that are there, and leaves out no symbol of the paper's equations."""

import re
from pathlib import Path

import pytest
import tiny

import ivkit

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
TEXT = (NOTEBOOKS / "glossary.md").read_text()
PAPER = TEXT.split("## What the paper does not name")[0]


@pytest.fixture(scope="module")
def run():
    pipe, picture = tiny.pipeline("storybook"), tiny.picture()
    drag = ivkit.Drag(path=[(5, 7), (9, 9)], mask=tiny.region())
    edited = tiny.picture(1)
    options = {"edited": edited, "drags": [drag], "progress": False, "lam": 0.5}
    return pipe.video(picture, "the boat moves right", **options)


def test_every_tensor_it_names_is_in_a_trace(run):
    record = run.trace[1]
    names = re.findall(r'\["(\w+)"\]', TEXT)
    assert len(set(names)) > 12
    for name in names:
        assert record[name].shape == run.trace[1]["z_t"].shape, name
    for name in set(re.findall(r"trace\[i\]\.(\w+)`", TEXT)):
        assert hasattr(record, name), name
    assert run.trace[0].undefined("eps") and not record.undefined("eps")


def test_every_name_of_ivkit_is_there(run):
    from importlib import import_module

    import ivkit.attention
    import ivkit.blend

    for dotted in set(re.findall(r"`ivkit\.([\w.]+)`", TEXT)):
        *modules, name = dotted.split(".")
        assert hasattr(import_module(".".join(["ivkit", *modules])), name), dotted
    for name in re.findall(r"`(\w+Instruction)`", TEXT):
        assert hasattr(ivkit, name)
    for name in re.findall(r"`pipe\.(\w+)", TEXT):
        assert hasattr(run.pipeline, name), name
    for name in re.findall(r"run\.warped\.(\w+)", TEXT):
        assert hasattr(run.warped, name), name


@pytest.mark.parametrize(
    "symbol",
    r"$x$ $y$ $y'$ $r$ \mathcal{P}_{img} \mathcal{P}_{video} \mathcal{E} $z_0$ $z_0'$ $z_t$ $R$ "
    r"\bar\alpha_t $\epsilon_t$ $\epsilon_t'$ $\hat\epsilon_t$ $\lambda$ $N_F$ $v_i$ $v_i'$".split()
    + [r"$\tilde x$", r"$\tilde x'$"],
)
def test_every_symbol_of_the_paper_has_a_row(symbol):
    assert any(line.startswith("| ") and symbol in line.split("|")[1] for line in PAPER.split("\n"))


def test_the_chapters_it_lists_are_the_notebooks():
    listed = set(re.findall(r"`(\d\d_\w+)`", TEXT))
    there = {path.stem for path in NOTEBOOKS.glob("*.ipynb")}
    assert there <= listed
