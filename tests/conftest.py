"""What every test shares: deterministic hypothesis, two torch threads, one browser switch."""

import os
import shutil

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
from hypothesis import HealthCheck, settings

import ivkit  # noqa: F401  (before torch: it sets how torch's threads wait)

settings.register_profile(
    "ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci")


@pytest.fixture(autouse=True, scope="session")
def _two_threads():
    import torch

    torch.set_num_threads(2)


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    import sys

    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


def pytest_collection_modifyitems(items):
    if shutil.which("chromium"):
        return
    skip = pytest.mark.skip(reason="no chromium on this machine")
    for item in items:
        if item.get_closest_marker("browser"):
            item.add_marker(skip)
