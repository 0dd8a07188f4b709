"""The glossary names things that are there, and leaves out no symbol of the paper's equations."""

import re
from pathlib import Path

import nbformat
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

    import ivkit.blend
    import ivkit.models.attention

    for dotted in set(re.findall(r"`ivkit\.([\w.]+)`", TEXT)):
        *modules, name = dotted.split(".")
        assert hasattr(import_module(".".join(["ivkit", *modules])), name), dotted
    for name in re.findall(r"`(\w+Instruction)`", TEXT):
        assert hasattr(ivkit, name)
    for name in re.findall(r"`pipe\.(\w+)", TEXT):
        assert hasattr(ivkit.Pipeline(run.model), name), name
    for name in re.findall(r"run\.warped\.(\w+)", TEXT):
        assert hasattr(run.warped, name), name


# Section 3 of the paper: its five equations, and what its text sets in mathematics beside them.
SECTION_3 = r"""
\{v_1, v_2, \dots, v_{N_F}\} = \mathcal{P}_{video}(\mathcal{P}_{img}(x, y), y', r).
z_t = \sqrt{\bar{\alpha}_t} z_0 + \sqrt{1 - \bar{\alpha}_t} \cdot \epsilon_t,
z_t = \sqrt{\bar{\alpha}_t} z_0 + \sqrt{1 - \bar{\alpha}_t} \cdot R(\epsilon_t).
\hat{\epsilon}_t = \lambda \cdot \epsilon_t + (1 - \lambda) \cdot \epsilon'_t,
v'_i = \text{Conv2D}(\text{SiLU}(\text{GroupNorm}(v_i - \tilde{x}))).
N_F, x \in \mathbb{R}^{C \times H \times W}, z_0 = \mathcal{E}(\tilde{x}), t, i
\tilde{x}', z'_0 = \mathcal{E}(\tilde{x}'), z_{t-1}, z'_{t-1}
"""
NO_SYMBOL = r"\\(?:text\{\w+\}|mathbb\{R\}|sqrt|dots|cdot|times|in\b)"
SYMBOL = (
    r"(?:\\(?:tilde|bar|hat)(?:\\\w+| ?\w)|\\mathcal\{\w\}|\\\w+|[A-Za-z])(?:_\{[^}]*\}|_\w|')*"
)


def symbols(latex) -> set[str]:
    """The symbols of a formula, written one way: primes last, z_{t-1} as z_t, v_1 as v_i."""
    latex = re.sub(NO_SYMBOL, " ", latex)
    latex = re.sub(r"(\\(?:tilde|bar|hat))\{([^}]*)\}", r"\1 \2", latex)
    latex = re.sub(r"(\\(?:tilde|bar|hat)) (?=\\)", r"\1", latex)
    found = set()
    for symbol in re.findall(SYMBOL, latex):
        symbol = symbol.replace("_{t-1}", "_t")
        symbol = re.sub(r"v('?)_(?:\d|\{N_F\})", r"v\1_i", symbol)
        found.add(symbol.replace("'", "") + "'" * symbol.count("'"))
    return found


def rows(text) -> list[list[str]]:
    """A table's rows as cells; the head and the line under it are left out."""
    split = [re.split(r"\s*\|\s*", line)[1:-1] for line in text.split("\n") if line.startswith("|")]
    return [cells for cells in split if cells[0] not in ("paper", "written", "---")]


def test_every_symbol_of_the_papers_section_3_has_a_row():
    explained = set().union(*(symbols(cells[0].replace("$", "")) for cells in rows(PAPER)))
    asked = symbols(SECTION_3)
    assert {"v_i'", r"\hat\epsilon_t", r"\tilde x'", r"\mathcal{P}_{img}", "z_t'", "C"} < asked
    assert asked - explained == set()


def test_every_row_names_what_stands_for_the_symbol_and_chapters():
    for symbol, words, name, _, chapters in rows(PAPER):
        assert words and re.search("`.+`", name), symbol
        assert re.fullmatch(r"\d+(, \d+)*", chapters), symbol


def test_what_it_says_a_chapter_holds_is_in_that_chapter():
    """Of each row, one of the names stands in each of the chapters it gives."""
    sources = {
        path.stem[:2]: "\n".join(cell.source for cell in nbformat.read(path, 4).cells)
        for path in NOTEBOOKS.glob("*.ipynb")
    }
    everywhere = {"trace", "i", "run", "pipe", "ivkit", "model", "state", "warped"}
    for symbol, _, name, _, chapters in rows(TEXT.split("## The chapters")[0]):
        code = " ".join(re.findall("`([^`]+)`", name))
        names = set(re.findall(r"[A-Za-z_]\w*", code)) - everywhere
        for chapter in re.findall(r"\d+", chapters):
            held = [n for n in names if re.search(rf"\b{n}\b", sources[f"{int(chapter):02d}"])]
            assert held, f"chapter {chapter} has none of {sorted(names)} ({symbol})"


def test_the_chapters_it_lists_are_the_notebooks():
    listed = set(re.findall(r"`(\d\d_\w+)`", TEXT))
    there = {path.stem for path in NOTEBOOKS.glob("*.ipynb")}
    assert there <= listed
