"""One browser, and one server of each kind, for all tests in a browser."""

import pytest


@pytest.fixture(scope="session")
def browser():
    pytest.importorskip("playwright")
    from .lab import chromium

    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def lab(browser, tmp_path_factory):
    from .lab import Lab

    with Lab(tmp_path_factory.mktemp("lab"), browser) as lab:
        yield lab


@pytest.fixture(scope="session")
def notebook(browser, tmp_path_factory):
    """Jupyter Notebook 7, where it is installed."""
    pytest.importorskip("notebook")
    from .lab import Lab

    with Lab(tmp_path_factory.mktemp("notebook"), browser, app="notebook") as lab:
        yield lab
