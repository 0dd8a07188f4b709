"""What this machine is: versions, device, peak memory, and the notebooks' first cell."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from .validate import File, checked

PACKAGES = ("torch", "diffusers", "transformers", "numpy", "ipywidgets", "ipycanvas", "mediapy")


def versions() -> dict[str, str]:
    """Versions of Python, ivkit and the libraries whose version changes results."""
    from ivkit import __version__

    found = {"python": platform.python_version(), "ivkit": __version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def device_name() -> str:
    """The device that `ivkit.load` picks, in words, such as "cpu: 2 threads"."""
    import torch

    if torch.cuda.is_available():
        facts = torch.cuda.get_device_properties(0)
        return f"cuda: {facts.name}, {facts.total_memory / 1e9:.1f} GB"
    if torch.backends.mps.is_available():
        return "mps: Apple GPU"
    return f"cpu: {torch.get_num_threads()} threads"


def peak_memory_mb() -> float:
    """The most resident memory this process has held so far, in MB (10^6 bytes)."""
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


@checked
def setup(folder: File = "ivkit/notebooks") -> None:
    """First cell of every notebook: print versions and device, and install nothing.

    On Colab it also lets widgets load, and goes to `folder` of the clone that the cell made, so
    that the notebook finds the recordings, also after a restart of the kernel.
    """
    if "google.colab" in sys.modules:
        from google.colab import output

        output.enable_custom_widget_manager()
        if os.path.isdir(folder):
            os.chdir(folder)
    print(", ".join(f"{name} {number}" for name, number in versions().items()))
    device = device_name()
    note = "  (no GPU found; the storybook model needs none)" if device.startswith("cpu") else ""
    print(f"device {device}{note}")
