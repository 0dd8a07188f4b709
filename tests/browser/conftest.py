"""One server and one browser for all tests in a browser."""

import pytest


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    pytest.importorskip("playwright")
    from .lab import Lab

    with Lab(tmp_path_factory.mktemp("lab")) as lab:
        yield lab
