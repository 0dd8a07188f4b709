"""Whatever is written: the old file or the new one, whole, and one sentence where it cannot be."""

import ast
import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

import ivkit as iv
from ivkit.bench import study
from ivkit.bench.runner import Store
from ivkit.course import classroom as course
from ivkit.models import decoder, personal
from ivkit.storybook import networks
from ivkit.storybook.training import common
from ivkit.support import disk
from ivkit.trace import Record, Trace
from ivkit.widgets import session

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
    "grid.jpg": lambda path: common.save_grid(torch.zeros(1, 1, 3, 64, 64), path),
}


def answered(folder):
    """One answer of a blind study, added to those that are there."""
    for name in ("i2v", "both"):
        (folder.parent / "clips" / "case").mkdir(parents=True, exist_ok=True)
        (folder.parent / "clips" / "case" / f"{name}.mp4").write_bytes(b"clip")
    folder.mkdir(exist_ok=True)
    person = f"p{len(study.read(folder / 'a.csv')) if (folder / 'a.csv').is_file() else 0}"
    study.Study(folder.parent / "clips", folder / "a.csv", person).answer(
        "left", "same", "yes", "no"
    )


def saved_by_itself(folder):
    autosave = session.Autosave("paint", folder)
    autosave._latest = iv.Drag([(0, 0), (9, 9)], np.random.rand(64, 64) > 0.5)
    autosave.flush()
    if autosave.failed:
        raise autosave.failed


#: what is written to a folder whose files are there already
FOLDERS = {
    "networks": lambda folder: networks.Networks.made().save(folder),
    "layout": networks.write_layout,
    "lora": lambda folder: common.write_lora(folder, 1, "x", {"x.lora_A.weight": torch.rand(1, 9)}),
    "decoder": lambda folder: decoder.save(decoder.TinyDecoder(), folder),
    "rows": lambda folder: Store._append(folder / "rows-0.jsonl", {"case": "a"}),
    "answers": answered,
    "autosave": saved_by_itself,
}


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "a.mp4")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


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


@pytest.mark.parametrize("name", FOLDERS)
def test_a_full_disk_leaves_the_files_of_a_folder_and_nothing_else(name, tmp_path):
    """A real limit on the size of a file, at half of the largest that is written."""
    folder = tmp_path / "folder"
    folder.mkdir()
    FOLDERS[name](folder)
    before, limits = contents(folder), resource.getrlimit(resource.RLIMIT_FSIZE)
    half = max(map(len, before.values())) // 2
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (half, limits[1]))
        with pytest.raises(OSError, match="cannot be written") as caught:
            FOLDERS[name](folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert "\n" not in str(caught.value)
    assert contents(folder) == before


WRITES = {"save_pretrained", "write_text", "write_bytes", "save_file", "copyfile", "copytree"}
TEMPORARY = "path.write_bytes(content)"  # an upload, in a folder that goes


def test_nothing_in_the_package_is_written_in_its_place():
    """What writes is given `part`, the place beside of `disk.whole`, or something in memory."""
    wrong = []
    for path in Path(iv.__file__).parent.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
                continue
            said = ast.unparse(call)
            opens = call.func.attr == "open" and any(f"'{mode}" in said for mode in "wa")
            if (call.func.attr in WRITES or opens) and "part" not in said and said != TEMPORARY:
                wrong.append(f"{path.name}:{call.lineno}: {said}")
    assert wrong == []


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
