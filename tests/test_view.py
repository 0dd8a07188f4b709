"""Views: what is drawn is what was given, files can be read back, bad input is named."""

import base64
import re
import subprocess
from types import SimpleNamespace

import mediapy
import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import ivkit as iv
from ivkit import view
from ivkit.support import progress
from ivkit.support.encode import encoded
from ivkit.trace import Record


@pytest.fixture
def clip():
    frames = np.zeros((6, 32, 48, 3), np.uint8)
    for f in range(6):
        frames[f, 8:24, 4 * f : 4 * f + 16, 0] = 200
    return frames


@pytest.fixture
def shown(monkeypatch):
    calls = []
    for name in ("show_videos", "show_images"):
        monkeypatch.setattr(mediapy, name, lambda *a, **k: calls.append((a, k)))
    return calls


def test_show_puts_the_unedited_clip_beside_the_edited_one_at_eight_frames_a_second(clip, shown):
    iv.show(SimpleNamespace(frames=clip, unedited=clip[::-1]))
    (videos, titles), options = shown[0]
    assert titles == ["unedited", "edited"]
    assert (videos[0] == clip[::-1]).all() and (videos[1] == clip).all()
    assert options["fps"] == 8


def test_show_takes_one_video_a_dict_and_a_run_without_unedited(clip, shown):
    iv.show(clip, fps=4)
    iv.show({"a": clip, "b": clip})
    iv.show(SimpleNamespace(frames=clip, unedited=None))
    assert [call[0][1] for call in shown] == [[None], ["a", "b"], ["edited"]]
    assert shown[0][1]["fps"] == 4


def test_show_pictures_takes_pictures_and_masks(shown):
    picture, mask = Image.new("RGB", (8, 4)), np.ones((4, 8), bool)
    iv.show_pictures({"x": picture, "mask": mask}, height=64)
    images, titles = shown[0][0]
    assert titles == ["x", "mask"] and images[0].shape == (4, 8, 3)
    assert images[1].dtype == float and shown[0][1] == {"height": 64}


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_saved_video_reads_back(clip, tmp_path, suffix):
    path = iv.save_video(tmp_path / "new" / f"clip{suffix}", clip, fps=10)
    back = mediapy.read_video(path)
    assert back.shape == clip.shape
    assert np.abs(back.astype(int) - clip).mean() < 12
    assert back.metadata.fps == pytest.approx(10)


def pixel_format(content: bytes, folder) -> str:
    """Of the video stream, as ffmpeg says."""
    (folder / "any").write_bytes(content)
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    done = subprocess.run([ffmpeg, "-i", folder / "any"], capture_output=True, text=True)
    return re.search(r"Video: h264.*?, (\w+)\(.*?, (\d+x\d+)", done.stderr).groups()


@pytest.mark.parametrize("width, height", [(1, 1), (15, 9), (16, 9), (15, 10), (33, 31)])
def test_every_size_is_written_as_browsers_play_it(width, height, tmp_path):
    """Odd sides were yuv444p, High 4:4:4, before."""
    clip = np.random.default_rng(0).integers(0, 255, (3, height, width, 3), np.uint8)
    wanted = "yuv420p", f"{width + width % 2}x{height + height % 2}"
    assert pixel_format(iv.save_video(tmp_path / "a.mp4", clip).read_bytes(), tmp_path) == wanted
    assert pixel_format(encoded(clip, view.FPS), tmp_path) == wanted


@pytest.mark.parametrize("options", [{}, {"height": 7}, {"width": 9}, {"width": 9, "height": 7}])
def test_what_is_shown_has_even_sides_and_its_size_on_the_page(options, tmp_path):
    clip = np.random.default_rng(0).integers(0, 255, (3, 21, 27, 3), np.uint8)
    page = view.show(clip, return_html=True, **options)
    content = base64.b64decode(re.search(r"base64,([\w+/=]+)", page)[1])
    assert pixel_format(content, tmp_path) == ("yuv420p", "10x8" if options else "28x22")
    assert 'width="9" height="7"' in page if options else 'width="28"' in page


def test_without_an_ffmpeg_the_one_of_imageio_is_used(clip, tmp_path, monkeypatch):
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    before = mediapy._config.ffmpeg_name_or_path
    monkeypatch.setattr(mediapy, "video_is_available", lambda: False)
    try:
        assert iv.save_video(tmp_path / "clip.mp4", clip).stat().st_size > 0
        assert mediapy._config.ffmpeg_name_or_path == imageio_ffmpeg.get_ffmpeg_exe()
    finally:
        mediapy.set_ffmpeg(before)


@given(st.integers(1, 9), st.integers(1, 5), st.integers(1, 3))
def test_a_contact_sheet_holds_every_kept_frame_in_order(count, columns, every):
    frames = np.arange(1, count + 1, dtype=np.uint8)[:, None, None, None] * np.ones(
        (1, 8, 6, 3), np.uint8
    )
    sheet = np.asarray(iv.contact_sheet(frames, columns, every))
    kept = frames[::every]
    for i, frame in enumerate(kept):
        row, column = divmod(i, columns)
        assert (sheet[row * 10 : row * 10 + 8, column * 8 : column * 8 + 6] == frame).all()
    assert sheet.shape[1] == min(columns, len(kept)) * 8 - 2


def test_a_contact_sheet_of_several_videos_has_a_row_and_a_title_each(clip):
    sheet = np.asarray(iv.contact_sheet({"λ = 0": clip, "λ = 1": clip}, every=2, height=16))
    assert sheet.shape == (2 * (16 + 2 + 18) - 2, 3 * (24 + 2) - 2, 3)
    assert (sheet[:18] < 128).any(), "no title was written"


def test_heat_is_where_the_predictions_differ():
    eps = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    eps_edit = eps.clone()
    eps_edit[:, :, :2, 6:] += 1
    picture = np.full((64, 64, 3), 90, np.uint8)
    drawn = np.asarray(iv.heat(eps, eps_edit, picture)).astype(int)
    changed = np.abs(drawn - 90).sum(-1)
    assert changed[4:12, 52:60].min() > 30 and changed[32:, :32].max() == 0


def test_heat_of_equal_predictions_is_the_picture_itself():
    eps = torch.ones(4, 8, 8)
    picture = np.full((64, 64, 3), 90, np.uint8)
    assert (np.asarray(iv.heat(eps, eps, picture)) == 90).all()


def test_arrows_are_drawn_where_the_field_moves_only():
    picture, field = np.full((64, 64, 3), 255, np.uint8), np.zeros((3, 64, 64, 2), np.float32)
    still = np.asarray(iv.field_arrows(picture, field))
    field[-1, 20:40, 20:40] = (8, 0)
    moved = np.asarray(iv.field_arrows(picture, field))
    assert (still == 255).all() and (moved[..., 1] < 60).any()


@pytest.fixture
def trace():
    """Three steps of an epsilon model, the first of them pure noise."""
    z = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    tensors = {"z_t": z, "z_edit": z, "out_hat": z / 2}
    return iv.Trace(
        [
            Record(
                i, 999 - 400 * i, signal, (1 - signal**2) ** 0.5, "epsilon", torch.ones(1), tensors
            )
            for i, signal in enumerate((0.0, 0.5, 0.9))
        ]
    )


def test_trace_grid_decodes_x0_of_the_asked_frame_and_steps_where_it_is_defined(trace):
    seen = []

    def decode(z):
        seen.append(z)
        return torch.zeros(1, 3, 16, 16)

    iv.trace_grid(trace, names=("z_t", "x0"), frame=1, steps=[0, 2], decode=decode)
    assert len(seen) == 1 and torch.equal(seen[0], trace[2]["x0"][1:2])


def test_trace_grid_of_no_steps_is_refused():
    with pytest.raises(ValueError, match="no steps yet"):
        iv.trace_grid(iv.Trace())


def test_trace_grid_has_a_row_a_tensor_and_a_column_a_step(trace):
    wide = iv.trace_grid(trace, names=("z_t",))
    tall = iv.trace_grid(trace, names=("z_t", "eps_edit", "eps_hat"), steps=[1])
    assert wide.width > 2 * wide.height and tall.height > tall.width


def test_a_missing_tensor_is_told_apart_from_an_undefined_one(trace):
    assert view._latent(trace[0], "x0", 0) == "undefined,\nᾱ = 0"
    assert view._latent(trace[0], "eps_edit", 0) == "not evaluated,\nweight 0"
    assert view._latent(trace[1], "x0", 0).shape == (4, 8, 8)


def test_colours_of_latents_are_the_same_in_every_cell():
    z = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(2))
    paint = view.principal_colours([z, z * 2])
    assert (paint(z) == paint(z.clone())).all() and not (paint(z) == paint(z * 2)).all()
    assert paint(z).shape == (8, 8, 3)


def test_cmp_tells_exact_from_approximate_from_different(capsys):
    a = torch.zeros(3)
    iv.cmp("same", a, a.numpy())
    iv.cmp("close", a, a + 1e-7)
    iv.cmp("far", a, a + 1)
    lines = capsys.readouterr().out.splitlines()
    assert "exact: True " in lines[0] and "max difference: 0" in lines[0]
    assert "exact: False" in lines[1] and "approximate: True " in lines[1]
    assert "approximate: False" in lines[2] and "max difference: 1" in lines[2]


CLIP = np.zeros((2, 8, 8, 3), np.uint8)
FIELD = np.zeros((2, 9, 9, 2))
RECORD = Record(0, 900, 0.5, 0.5, "epsilon", torch.ones(1, 1, 1, 1))


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda p: iv.save_video(p / "clip.avi", CLIP), "clip.avi"),
        (lambda p: iv.save_video(p / "clip.mp4", CLIP / 255), "float64"),
        (lambda p: iv.save_video(p / "clip.mp4", CLIP[:0]), r"\(0, 8, 8, 3\)"),
        *[
            (lambda p, fps=fps: iv.save_video(p / "clip.mp4", CLIP, fps), "fps must be a number in")
            for fps in (0, "8", None, True, np.inf, np.nan, 1e-9, 1e9, [8])
        ],
        (lambda p: iv.save_video(p / "clip.gif", CLIP, fps=51), r"fps of a gif .*\[0.1, 50\]"),
        *[
            (lambda p, path=path: iv.save_video(path, CLIP), "path must")
            for path in (
                "-x.mp4",
                "https://example.invalid/x.mp4",
                "file:x.mp4",
                "pipe:1.mp4",
                "data:,x.mp4",
                "a\0.mp4",
                "",
                ".",
                "..",
                ".mp4",
            )
        ],
        (lambda p: iv.save_video("x" * 300 + ".mp4", CLIP), "cannot be written"),
        (lambda p: iv.save_video(p / "clip.mp4", CLIP, comment="a\0b"), "comment must be"),
        (lambda p: iv.save_video(p / "clip.mp4", CLIP, comment="a" * 200_000), "comment must be"),
        (lambda p: iv.show(CLIP, codec="-x"), "codec must be one of h264, gif"),
        (lambda p: iv.show(CLIP, height=0), "height must be"),
        (lambda p: iv.show(CLIP, codec="gif", fps=60), "fps of a gif"),
        (lambda p: iv.show(CLIP, fps=-1), "fps"),
        (lambda p: iv.contact_sheet(CLIP, columns=0), "columns"),
        (lambda p: iv.contact_sheet({}), "empty"),
        (lambda p: iv.heat(np.zeros((4, 8, 8)), np.zeros((4, 9, 8)), CLIP[0]), "eps_edit"),
        (lambda p: iv.field_arrows(CLIP[0], FIELD), "field"),
        (lambda p: iv.trace_grid(iv.Trace([RECORD]), names=["a"]), "names must be one of z_t,"),
        (lambda p: iv.cmp("x", np.zeros(3), np.zeros(4)), r"\(3,\)"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(call, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=words):
        call(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_path_that_raises_is_none():
    class Path:
        def __fspath__(self):
            raise RuntimeError

    for path in (Path(), b"a.mp4", "\ud800.mp4"):
        with pytest.raises(TypeError, match="path must be a path, got"):
            iv.save_video(path, CLIP)


def test_what_takes_long_has_a_bar_and_what_is_quick_has_none(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SOON", 1000)
    pipe = tiny.pipeline("storybook")
    picture = pipe.image("the boat", seed=1)
    run = pipe.video(picture, "the boat moves right", progress=False)
    iv.trace_grid(run.trace, decode=pipe.model.decode)
    pipe.image("the boat", seed=1)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "SOON", 0)
    pipe.image("the boat", seed=1)
    iv.trace_grid(run.trace, decode=pipe.model.decode)
    assert {"picture:", "x0:"} <= set(capsys.readouterr().err.split())
    pipe.image("the boat", seed=1, progress=False)
    assert capsys.readouterr().err == ""
    pipe.video(picture, "the boat moves right")
    assert {"clip:", "frames:"} <= set(capsys.readouterr().err.split())
