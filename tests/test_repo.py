"""What holds for the repository as a whole: files agree, nothing leaks in, imports stay light."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement

import ivkit
from ivkit.course import classroom as course

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DEPENDENCIES = [Requirement(line) for line in PROJECT["project"]["dependencies"]]
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))


def tracked() -> list[Path]:
    """The repository's files: those in git, and new ones that it does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


def texts() -> list[tuple[Path, str]]:
    """(path, text) of every text file but the licence, which has addresses of its own."""
    found = []
    for path in tracked():
        if path.name == "LICENSE":
            continue
        try:
            found.append((path.relative_to(ROOT), path.read_text(encoding="utf-8")))
        except UnicodeDecodeError:
            pass
    return found


def test_environment_yml_installs_what_pyproject_asks_for():
    *conda, pip = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    *requirements, itself = pip["pip"]
    assert itself == "-e ."
    assert {str(Requirement(line)) for line in requirements} == set(map(str, DEPENDENCIES))
    python = next(line for line in conda if line.startswith("python"))
    assert set(python.removeprefix("python").split(",")) == set(
        PROJECT["project"]["requires-python"].split(",")
    )


def test_each_entry_of_environment_yml_says_what_it_is_for():
    lines = (ROOT / "environment.yml").read_text().splitlines()
    entries = [line for line in lines if re.match(r"\s+- (?!pip:|conda-forge)", line)]
    assert len(entries) == len(DEPENDENCIES) + 3
    assert [line for line in entries if "  # " not in line] == []


def pins(name: str) -> dict[str, str]:
    """{package: version} of a list of exact versions; of a package with markers the first."""
    found = {}
    for line in (ROOT / name).read_text().splitlines():
        package, _, version = line.partition("==")
        if version and not line.startswith("#"):
            key = package.lower().replace("_", "-")
            found.setdefault(key, version.partition(";")[0])
    return found


def test_the_tested_set_fits_what_pyproject_allows():
    extras = PROJECT["project"]["optional-dependencies"].values()
    tested = pins("constraints.txt")
    for requirement in DEPENDENCIES + [Requirement(r) for extra in extras for r in extra]:
        version = tested[requirement.name.lower().replace("_", "-")]
        assert requirement.specifier.contains(version), f"{requirement} is pinned to {version}"
    assert not [name for name, version in tested.items() if "+" in version or "@" in version]


def test_colabs_own_versions_fit_too():
    """What a Colab has it keeps: the notebooks' first cell installs ivkit beside it."""
    colab = pins("tests/colab.txt")
    assert len(colab) > 100 and colab["torch"] == "2.11.0" and colab["torchao"] == "0.10.0"
    for requirement in DEPENDENCIES:
        version = colab.get(requirement.name.lower().replace("_", "-"))
        assert version is None or requirement.specifier.contains(version), requirement


def test_the_tested_widgets_are_shown_in_vs_code():
    """ipywidgets 8.1.9 and its scripts are not (microsoft/vscode-jupyter#17504)."""
    names = ("ipywidgets", "jupyterlab-widgets", "widgetsnbextension")
    tested = pins("constraints.txt")
    assert [tested[name] for name in names] == ["8.1.8", "3.0.16", "4.0.15"]


def imported(path: Path) -> set[str]:
    """Top-level names of all modules that a file imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_every_import_is_in_the_install_list():
    homes = packages_distributions()
    allowed = {requirement.name.lower() for requirement in DEPENDENCIES}
    extras = PROJECT["project"]["optional-dependencies"]
    for path in (ROOT / "ivkit").rglob("*.py"):
        optional = allowed | {
            Requirement(line).name.lower()
            for name, lines in extras.items()
            if name == "train" and "storybook" in path.parts
            for line in lines
        }
        given = {"ivkit", "google", "triton"}  # triton comes with torch, where there is CUDA
        for name in imported(path) - set(sys.stdlib_module_names) - given:
            owners = {owner.lower() for owner in homes.get(name, [name])}
            assert owners & optional, (
                f"{path.relative_to(ROOT)} imports {name}, which is not listed"
            )


def test_import_loads_nothing_heavy():
    heavy = ("torch", "diffusers", "transformers", "cv2", "matplotlib", "PIL", "numpy", "mediapy")
    code = f"import sys, ivkit; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there_and_described():
    for name in ivkit.__all__:
        value = getattr(ivkit, name)
        assert name == "__version__" or (value.__doc__ or "").strip(), f"ivkit.{name} says nothing"
    with pytest.raises(AttributeError, match="no_such_name"):
        ivkit.no_such_name  # noqa: B018


def test_top_level_holds_the_rooms_and_what_tools_demand():
    allowed = {
        "notebooks", "ivkit", "media", "environment.yml", "tests", "README.md",
        "pyproject.toml", "constraints.txt", "Makefile", "LICENSE", ".ci", ".gitignore",
    }  # fmt: skip
    tops = {path.relative_to(ROOT).parts[0] for path in tracked()}
    assert {top for top in tops if not top.startswith(".")} <= allowed


def test_the_repository_address_is_set_in_one_place():
    address = PROJECT["project"]["urls"]["Repository"]
    holders = [str(path) for path, text in texts() if address in text]
    assert holders == ["pyproject.toml"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_on_colab_the_address_is_asked_for_and_not_written_down(path):
    """Whoever publishes the repository sets its address once; no notebook has it, nor a badge."""
    first, *others = [c.source for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
    _, asked = course.ASKS
    assert f"    !git clone -q {{{asked}}} ivkit\n    !pip install" in first
    assert sum(line.startswith("    ") for line in first.splitlines()) == 2  # and the condition
    assert "git clone" not in "\n".join(others) and "colab.research" not in path.read_text()


# Where an address may lead besides the project itself: papers, and the standards' own pages.
KNOWN_HOSTS = {"arxiv.org", "example.invalid"}


def test_no_address_leads_anywhere_unknown():
    address = PROJECT["project"]["urls"]["Repository"]
    for path, text in texts():
        if path.suffix in (".py", ".md", ".ipynb", ".toml", ".yml", ".txt", ".json", "") or (
            path.name == "Makefile"
        ):
            for url in re.findall(r"https?://[^\s)\"'>\]`]+", text):
                host = url.split("/")[2]
                known = url.startswith(address) or host in KNOWN_HOSTS
                assert known or host.startswith(("localhost", "127.0.0.1")), f"{path}: {url}"


def test_no_path_of_one_machine_is_written_down():
    pattern = re.compile(r"(?<![\w.])/(?:home|root|Users|work|tmp|opt)/\w|file:///")
    found = {
        f"{path}: {match.group()}"
        for path, text in texts()
        if path.name != Path(__file__).name
        for match in pattern.finditer(text)
    }
    assert not found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_valid_and_without_outputs(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    assert "widgets" not in book.metadata
    for cell in book.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_cell_is_longer_than_a_screen(path):
    book = nbformat.read(path, as_version=4)
    assert all(len(c.source.splitlines()) <= 25 for c in book.cells if c.cell_type == "code")


def test_the_checkout_is_small():
    sizes = {path.relative_to(ROOT): path.stat().st_size for path in tracked()}
    weights = sum(s for path, s in sizes.items() if "weights" in path.parts)
    media = sum(s for path, s in sizes.items() if path.parts[0] == "media")
    mib = 2**20
    assert sum(sizes.values()) < 62 * mib and weights < 52 * mib and media < 10 * mib
    assert all(s <= 15 * mib for s in sizes.values())


def test_what_pip_installs_holds_the_storybook():
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["ivkit"]
    home = ROOT / "ivkit"
    packaged = {
        path for pattern in patterns for path in home.glob(pattern + "/*" * pattern.endswith("**"))
    }
    data = {path for path in tracked() if home in path.parents and path.suffix != ".py"}
    assert not {path for path in data - packaged if path.is_file()}


def test_make_lists_every_target_it_has():
    makefile = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split()
    head = makefile.split("PYTHON ?=")[0]
    assert {"demo", "test", "test-slow", "lab"} <= set(targets)
    assert [target for target in targets if f"make {target}" not in head] == []


@pytest.mark.parametrize("folder", [ROOT, ROOT / "media" / "results"], ids=lambda f: f.name)
def test_what_a_readme_shows_and_links_to_is_there(folder):
    text = (folder / "README.md").read_text()
    linked = [t for t in re.findall(r"\]\(([^)]+)\)", text) if not t.startswith("http")]
    named = re.findall(r"`((?:ivkit|notebooks)/[\w./]+)`", text)
    paths = [*(folder / name for name in linked), *(ROOT / name for name in named)]
    assert paths and [path for path in paths if not path.exists()] == []
