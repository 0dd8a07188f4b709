"""Whatever is written: the old file or the new one, whole, and one sentence where it cannot be."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

import ivkit as iv
from ivkit.course import classroom as course
from ivkit.models import personal
from ivkit.support import disk
from ivkit.trace import Record, Trace

CLIP = np.zeros((3, 8, 8, 3), np.uint8)


def trace():
    z = torch.zeros(1, 4, 64, 64)
    return Trace([Record(0, 500.0, 0.6, 0.8, "epsilon", torch.zeros(1, 1, 1, 1), {"z_t": z})])


def lora():
    return personal.new(iv.Pipeline(tiny.model.__wrapped__("storybook")))


#: what is written, by the name of its file
WRITERS = {
    "a.json": lambda path: iv.Drag([(0, 0), (9, 9)], np.random.rand(64, 64) > 0.5).save(path),
    "a.mp4": lambda path: iv.save_video(path, CLIP),
    "a.gif": lambda path: iv.save_video(path, CLIP),
    "b.gif": lambda path: iv.save_video(path, CLIP, comment="how"),
    "t.safetensors": lambda path: trace().save(path),
    "l.safetensors": lambda path: lora().save(path),
    "marks.csv": lambda path: course.write_marks(path, [course.Mark("n", "c", True, "s")] * 99),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_the_old_file_and_nothing_else(name, tmp_path, monkeypatch):
    """Half a clip, half a CSV and `.part` files were left before."""
    path = tmp_path / name
    path.write_text("old")

    def full(self, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match=f"{name} cannot be written: No space left") as caught:
        WRITERS[name](path)
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old" and [f.name for f in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a.json", "t.safetensors"])
def test_a_limit_of_the_system_is_the_same_sentence(name, tmp_path):
    """A real one, on the size of a file: SafetensorError, or half a file, before."""
    code = f"import test_disk; test_disk.WRITERS[{name!r}](test_disk.Path({name!r}))"
    done = subprocess.run(
        [sys.executable, "-c", f"import signal as s; s.signal(s.SIGXFSZ, s.SIG_IGN); {code}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
    )
    assert f"OSError: {name} cannot be written" in done.stderr.splitlines()[-1]
    assert not [f for f in tmp_path.iterdir() if f.suffix != ".json" or f.name == name]


def test_an_interrupt_leaves_nothing_half(tmp_path):
    with pytest.raises(KeyboardInterrupt), disk.whole(tmp_path / "a.txt") as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", WRITERS)
def test_a_place_that_takes_no_file_is_one_sentence(name, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / f"folder{Path(name).suffix}").mkdir()
    for place in (
        tmp_path / "file" / name,
        tmp_path / f"folder{Path(name).suffix}",
        Path("/proc") / name,
        f"https://example.invalid/{name}",
    ):
        with pytest.raises((OSError, ValueError)) as caught:
            WRITERS[name](place)
        assert "\n" not in str(caught.value)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["file", f"folder{Path(name).suffix}"]


@pytest.mark.parametrize("device", ["/dev/null", "/dev/stdout", "/dev/new"])
def test_a_device_is_never_replaced(device):
    with pytest.raises(ValueError, match="a folder or a device"):
        disk.destination("path", device)


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    disk.write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_text() == "new"


def test_a_picture_that_was_opened_stays_one(tmp_path):
    with disk.whole(tmp_path / "new" / "a.png") as part:
        Image.new("RGB", (8, 8)).save(part)
    assert Image.open(tmp_path / "new" / "a.png").format == "PNG"
