"""Instructions: what they accept, what they refuse, and the way through JSON and back."""

import base64
import io
import json
import math
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image

from ivkit.instructions import (
    EASINGS,
    TOOLS,
    Camera,
    ContentInstruction,
    Drag,
    ImageInstruction,
    Instructions,
    MotionInstruction,
    Stroke,
    TrajectoryInstruction,
)
from ivkit.pictures import to_picture

coordinate = st.floats(-500, 500)
point = st.tuples(coordinate, coordinate)
colour = st.tuples(*[st.integers(0, 255)] * 3)
strokes = st.builds(
    Stroke,
    points=st.lists(point, min_size=1, max_size=6),
    colour=colour,
    width=st.floats(0.1, 200),
    opacity=st.floats(0, 1),
    tool=st.sampled_from(TOOLS),
)
masks = st.none() | st.builds(
    lambda seed: np.random.default_rng(seed).random((5, 7)) < 0.5, st.integers(0, 9)
)
easings = st.sampled_from(EASINGS)
drags = st.builds(
    Drag,
    path=st.lists(point, min_size=2, max_size=5),
    mask=masks,
    rotate=st.floats(-720, 720),
    scale=st.floats(0.1, 10),
    easing=easings,
) | st.builds(
    Drag,
    handles=st.lists(
        st.lists(point, min_size=1, max_size=3),
        min_size=2,
        max_size=4,
        unique_by=lambda path: path[0],
    ),
    mask=masks,
)
cameras = st.builds(Camera, pan=point, zoom=st.floats(0.1, 10), roll=coordinate, easing=easings)
trajectories = st.builds(
    TrajectoryInstruction,
    drags=st.lists(drags, max_size=3),
    pins=st.lists(point, max_size=3),
    camera=st.none() | cameras,
)
pictures = st.builds(
    lambda seed: np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8),
    st.integers(0, 9),
)
instructions = st.builds(
    Instructions,
    image=st.none() | st.builds(ImageInstruction, pictures),
    content=st.builds(ContentInstruction, st.just("a boat"), st.lists(strokes, max_size=3)),
    motion=st.builds(MotionInstruction, st.just("it moves"), st.integers(0, 8)),
    trajectory=trajectories,
    lam=st.floats(0, 1) | st.lists(st.floats(0, 1), min_size=1, max_size=4),
    seed=st.integers(0, 2**63),
)


@given(strokes | drags | cameras | trajectories | instructions)
def test_json_round_trip(instruction):
    text = json.dumps(instruction.to_json())
    again = type(instruction).from_json(text)
    assert again == instruction
    assert json.dumps(again.to_json()) == text


@given(instructions)
def test_equality_is_by_value(instruction):
    changed = dict(instruction.to_json(), seed=instruction.seed + 1)
    assert Instructions.from_json(changed) != instruction


def test_masks_and_pictures_come_back_to_the_bit(tmp_path):
    rng = np.random.default_rng(0)
    mask, picture = rng.random((30, 41)) < 0.3, rng.integers(0, 256, (30, 41, 3), np.uint8)
    everything = Instructions(
        image=ImageInstruction(picture),
        trajectory=TrajectoryInstruction([Drag([(1, 2), (3, 4)], mask)]),
        lam=np.linspace(0, 1, 5).reshape(5, 1, 1, 1, 1),
    )
    everything.save(tmp_path / "session.json")
    again = Instructions.load(tmp_path / "session.json")
    assert np.array_equal(np.asarray(again.image.picture), picture)
    assert np.array_equal(again.trajectory.drags[0].mask, mask)
    assert again.lam.shape == (5, 1, 1, 1, 1)
    assert [file.name for file in tmp_path.iterdir()] == ["session.json"]


@given(st.data())
def test_a_file_cut_anywhere_is_refused_with_one_sentence(data):
    text = json.dumps(Drag([(0, 0), (3, 1)], np.eye(4)).to_json())
    end = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(ValueError, match="no complete Drag"):
        Drag.from_json(text[:end])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 1, got 2"),
        ({"version": None}, "version 1, got None"),
        ({"type": "Camera"}, "damaged data in a saved Camera"),
        ({"type": "Sword"}, "'Sword'"),
        ({"speed": 3}, "speed"),
        ({"mask": {"type": "mask", "png": "AAAA"}}, "damaged mask"),
        ({"mask": {"type": "mask"}}, "'mask'"),
        ({"mask": {"type": "mask", "png": "?"}}, "damaged mask in the saved mask"),
        ({"mask": {"type": "mask", "png": 5}}, "saved mask"),
        ({"mask": {"type": [], "png": ""}}, "is not known|damaged"),
        ({"path": {"type": "array", "values": [10**400]}}, "saved array"),
        ({"path": [[0, 10**400], [1, 1]]}, r"path\[0\]"),
        ({"scale": 10**400}, "scale"),
        ({"path": [[0, 0], [1]]}, r"path\[1\]"),
        ({"path": None}, "path"),
        ({"scale": "big"}, "scale"),
    ],
)
def test_damaged_data_is_refused(change, message):
    data = {**Drag([(0, 0), (3, 1)], np.eye(4)).to_json(), **change}
    with pytest.raises(ValueError, match=message):
        Drag.from_json(data)


def test_nesting_without_end_is_refused():
    for text in ("[" * 100_000, '{"version": 1, "path": ' + "[" * 900 + "]" * 900 + "}"):
        with pytest.raises(ValueError, match="no complete Drag|damaged|not known"):
            Drag.from_json(text)


def picture_in(content: bytes) -> dict:
    png = base64.b64encode(content).decode()
    return {"version": 1, "type": "ImageInstruction", "picture": {"type": "picture", "png": png}}


def written(format: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, format)
    return buffer.getvalue()


@pytest.mark.parametrize("format", ["JPEG", "EPS", "GIF", "TIFF", "PDF", "BMP"])
def test_a_saved_picture_is_a_png_and_nothing_else(format, monkeypatch):
    """EPS was drawn by Ghostscript before."""
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *a, **k: pytest.fail("was run"))
    with pytest.raises(ValueError, match="picture.*no PNG"):
        ImageInstruction.from_json(picture_in(written(format)))
    assert ImageInstruction.from_json(picture_in(written("PNG"))).picture.size == (8, 8)


def huge_png() -> bytes:
    """A header that promises 60000 x 60000 pixels."""
    head = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunk = lambda k, d: struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d))  # noqa: E731
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b""))


@pytest.mark.parametrize("content", [huge_png(), written("PNG")[:40], b"", b"x" * 99], ids=len)
def test_a_saved_picture_that_is_too_large_or_cut_is_one_sentence(content):
    with pytest.raises(ValueError, match="damaged picture in the saved picture") as caught:
        ImageInstruction.from_json(picture_in(content))
    assert "\n" not in str(caught.value)


def test_a_file_that_another_program_would_run_is_no_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *a, **k: pytest.fail("was run"))
    for name in ("a.eps", "a.png"):
        (tmp_path / name).write_bytes(written("EPS"))
        with pytest.raises(ValueError, match="is not a picture"):
            to_picture(tmp_path / name)
    with pytest.raises(ValueError, match="EPS is not accepted"):
        to_picture(Image.open(tmp_path / "a.eps"))


def test_loading_names_the_file(tmp_path):
    with pytest.raises(ValueError, match="nowhere.json"):
        Instructions.load(tmp_path / "nowhere.json")
    (tmp_path / "half.json").write_text('{"version": 1, "ty')
    with pytest.raises(ValueError, match="half.json.*no complete Instructions"):
        Instructions.load(tmp_path / "half.json")
    Camera().save(tmp_path / "camera.json")
    with pytest.raises(ValueError, match="camera.json.*expected a saved Instructions"):
        Instructions.load(tmp_path / "camera.json")


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "session.json"
    Camera(zoom=2).save(path)
    monkeypatch.setattr(json, "dumps", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Camera(zoom=3).save(path)
    monkeypatch.undo()
    assert Camera.load(path) == Camera(zoom=2)


BAD = [
    (lambda: Stroke([]), "points must have at least 1"),
    (lambda: Stroke("line"), "points must be a list"),
    (lambda: Stroke(None), "points must be a list"),
    (lambda: Stroke([(1, 2, 3)]), r"points\[0\] must be a point"),
    (lambda: Stroke([(1, float("nan"))]), r"points\[0\] must be a point"),
    (lambda: Stroke([(1, 1)], width=0), r"width must be a number in \(0, 10000\]"),
    (lambda: Stroke([(1, 1)], width=-3), "width must be a number"),
    (lambda: Stroke([(1, 1)], opacity=1.5), r"opacity must be a number in \[0, 1\], got 1.5"),
    (lambda: Stroke([(1, 1)], tool="spray"), "brush, eraser, mask, lasso, got 'spray'"),
    (lambda: Stroke([(1, 1)], colour="bluish"), "colour must be .* got 'bluish'"),
    (lambda: Stroke([(1, 1)], colour=(0, 0, 300)), "colour"),
    (lambda: Stroke([(1, 1)], colour="#11223344"), "without alpha"),
    (lambda: Stroke([(1, 1), (2, 2)], times=[0]), "2 increasing times"),
    (lambda: Stroke([(1, 1), (2, 2)], times=[2, 1]), "increasing"),
    (lambda: Stroke([(1, 1)], times="now"), "times"),
    (lambda: Drag(), "a drag must have a path"),
    (lambda: Drag([]), "a drag must have a path"),
    (lambda: Drag(None), "a drag must have a path"),
    (lambda: Drag([(1, 1)]), "path must have at least 2"),
    (lambda: Drag([(1, 1), (2, 2)], np.zeros((4, 4))), "mask is empty"),
    (lambda: Drag([(1, 1), (2, 2)], np.ones((4, 4, 3))), r"shape \(H, W\)"),
    (lambda: Drag([(1, 1), (2, 2)], np.full((4, 4), np.nan)), "NaN"),
    (lambda: Drag([(1, 1), (2, 2)], "region"), "mask must be"),
    (lambda: Drag([(1, 1), (2, 2)], times=[0, 1.5]), r"\[0, 1\]"),
    (lambda: Drag([(1, 1), (2, 2)], times=[0.5, 0.5]), "increasing"),
    (lambda: Drag([(1, 1), (2, 2)], scale=0), "scale"),
    (lambda: Drag([(1, 1), (2, 2)], rotate=float("inf")), "rotate"),
    (lambda: Drag([(1, 1), (2, 2)], easing="bouncy"), "easing must be one of linear"),
    (lambda: Drag([(1, 1), (2, 2)], handles=[[(1, 1)], [(2, 2)]]), "path"),
    (lambda: Drag(handles=[[(1, 1)]]), "at least two"),
    (lambda: Drag(handles=[[(1, 1)], [(1, 1), (2, 2)]]), "different points"),
    (lambda: Drag(handles=[[(1, 1)], []]), r"handles\[1\]"),
    (lambda: Drag(handles=[[(1, 1)], [(2, 2)]], rotate=9), "rotate"),
    (lambda: Drag(handles=[[(1, 1)], [(2, 2)]], times=np.array([0.0, 1.0])), "times belong"),
    (lambda: Drag(handles=3), "handles must be a list"),
    (lambda: Drag(5), "path must be a list"),
    (lambda: Drag([(1, 1), (2, 2)], times=[[0], [1, 2]]), "times must be"),
    (lambda: Stroke([(1, 1)], width=10**400), "width must be"),
    (lambda: Stroke([(10**400, 1)]), r"points\[0\] must be"),
    (lambda: Stroke(np.float64(3)), "points must be a list"),
    (lambda: Stroke([(1, 1)], colour=(math.inf, 0, 0)), "colour must be"),
    (lambda: Stroke([(1, 1)], times=np.zeros((9, 9))), "times must be"),
    (lambda: Camera(pan=3), "pan must be a point"),
    (lambda: Camera(zoom=0), "zoom"),
    (lambda: Camera(easing=None), "easing"),
    (lambda: ContentInstruction(""), "text must be a sentence"),
    (lambda: ContentInstruction(" \n"), "text must be a sentence"),
    (lambda: ContentInstruction(None), "text must be a sentence"),
    (lambda: ContentInstruction("a boat", strength=2), "strength"),
    (lambda: MotionInstruction("it moves", motion_scale=256), "motion_scale"),
    (lambda: MotionInstruction("it moves", motion_scale=0.5), "motion_scale"),
    (lambda: TrajectoryInstruction(pins=[(1,)]), r"pins\[0\]"),
    (lambda: Instructions(lam=1.5), r"lam must be in \[0, 1\].* got 1.5"),
    (lambda: Instructions(lam=[0.5, float("nan")]), "lam"),
    (lambda: Instructions(lam=[]), "lam"),
    (lambda: Instructions(lam="half"), "lam"),
    (lambda: Instructions(lam=[[1], [0, 1]]), "lam must be"),
    (lambda: Instructions(lam=np.full((9, 9), 2.0)), "lam must be"),
    (lambda: Instructions(seed=-1), "seed"),
    (lambda: Instructions(seed=True), "seed"),
    (lambda: Instructions(num_frames=0), "num_frames"),
    (lambda: Instructions(num_inference_steps=-4), "num_inference_steps"),
    (lambda: Instructions(guidance_scale=-1), "guidance_scale"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=[m for _, m in BAD])
def test_bad_values_are_refused_with_one_sentence(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value) and len(str(error.value)) < 250


@pytest.mark.parametrize(
    "make",
    [
        lambda: TrajectoryInstruction(drags=[(1, 2)]),
        lambda: TrajectoryInstruction(drags="drag"),
        lambda: TrajectoryInstruction(drags=3),
        lambda: TrajectoryInstruction(camera="zoom"),
        lambda: ContentInstruction("a boat", strokes=[Camera()]),
        lambda: Instructions(content="a boat"),
        lambda: to_picture(3),
        lambda: to_picture(None),
    ],
)
def test_wrong_types_are_refused(make):
    with pytest.raises(TypeError, match="must|got"):
        make()


def test_instructions_cannot_be_changed():
    drag = Drag([(0, 0), (1, 1)], np.eye(3))
    with pytest.raises(AttributeError):
        drag.scale = 2
    with pytest.raises(ValueError, match="read-only"):
        drag.mask[0, 0] = False


def test_a_mask_is_copied_from_the_callers_array():
    mine = np.eye(3, dtype=bool)
    drag = Drag([(0, 0), (1, 1)], mine)
    mine[0, 0] = False
    assert drag.mask[0, 0]


@given(colour)
def test_colours_are_kept_as_hex(rgb):
    assert Stroke([(0, 0)], colour=rgb) == Stroke(
        [(0, 0)], colour="#{:02x}{:02x}{:02x}".format(*rgb)
    )


# ------------------------------------------------------------------------------------- pictures


def test_alpha_is_laid_over_white():
    half = np.zeros((2, 2, 4), np.uint8)
    half[..., 3] = [[0, 255], [128, 0]]
    pixels = np.asarray(to_picture(half))
    assert pixels[0, 0].tolist() == [255] * 3
    assert pixels[0, 1].tolist() == [0] * 3
    assert pixels[1, 0].tolist() == [127] * 3
    grey_alpha = Image.fromarray(half).convert("LA")
    assert np.array_equal(np.asarray(to_picture(grey_alpha)), pixels)


def test_palette_transparency_is_laid_over_white():
    palette = Image.new("P", (1, 1), 0)
    palette.putpalette([10, 20, 30])
    palette.info["transparency"] = 0
    assert to_picture(palette).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "CMYK", "YCbCr", "HSV", "P"])
def test_every_mode_becomes_rgb(mode):
    picture = to_picture(Image.new("RGB", (3, 2), (255, 255, 255)).convert(mode))
    assert picture.mode == "RGB" and picture.size == (3, 2)
    assert min(picture.getpixel((1, 1))) > 250


def test_sixteen_bit_grey_keeps_its_range(tmp_path):
    Image.fromarray(np.array([[0, 257 * 100, 65535]], np.uint16)).save(tmp_path / "deep.png")
    assert np.asarray(to_picture(tmp_path / "deep.png"))[0, :, 0].tolist() == [0, 100, 255]


def test_exif_rotation_is_applied(tmp_path):
    picture = Image.new("RGB", (6, 4), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    picture.save(tmp_path / "phone.jpg", exif=exif)
    assert to_picture(tmp_path / "phone.jpg").size == (4, 6)
    assert to_picture(str(tmp_path / "phone.jpg")).size == (4, 6)


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([(), (3,)]))
def test_arrays_keep_their_pixels(height, width, channels):
    array = np.random.default_rng(0).integers(0, 256, (height, width, *channels), np.uint8)
    pixels = np.asarray(to_picture(array))
    assert np.array_equal(pixels, array if channels else np.stack([array] * 3, -1))
    assert np.array_equal(np.asarray(to_picture(array / 255)), pixels)


def test_the_callers_picture_is_left_alone():
    picture = Image.new("RGBA", (2, 2))
    to_picture(picture).putpixel((0, 0), (1, 2, 3))
    assert picture.mode == "RGBA" and picture.getpixel((0, 0)) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((0, 4, 3), np.uint8), "got 4 x 0"),
        (Image.new("RGB", (0, 0)), "got 0 x 0"),
        (np.broadcast_to(np.uint8(0), (20_000, 20_000)), "64 megapixels, got 20000 x 20000"),
        (np.zeros((4, 4, 2), np.uint8), r"shape .* got \(4, 4, 2\)"),
        (np.zeros(4, np.uint8), "shape"),
        (np.zeros((4, 4, 3), np.uint16), "got uint16"),
        (np.zeros((4, 4), bool), "got bool"),
        (np.full((4, 4), np.nan), "finite values in"),
        (np.full((4, 4), 7.0), r"finite values in \[0, 1\]"),
        (np.array([["a"]]), "uint8"),
        (Image.new("F", (2, 2)), "mode 'F'"),
        ("no/such/file.png", "no picture at 'no/such/file.png'"),
        (__file__, "not a picture"),
    ],
)
def test_what_is_no_picture_is_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        to_picture(bad)


def test_an_enormous_file_is_refused_before_it_is_decoded(tmp_path):
    Image.new("1", (8_100, 8_000)).save(tmp_path / "huge.png")
    with pytest.raises(ValueError, match="64 megapixels"):
        to_picture(tmp_path / "huge.png")


def test_a_cut_off_file_is_refused(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:6000])
    with pytest.raises(ValueError, match="cannot be read to its end"):
        to_picture(tmp_path / "half.png")


def test_a_size_crops_about_the_centre_and_says_so():
    stripes = np.zeros((10, 30, 3), np.uint8)
    stripes[:, 8:22] = 200
    with pytest.warns(UserWarning, match="30 x 10 .* resized to 5 x 5"):
        picture = to_picture(stripes, size=(5, 5))
    assert picture.size == (5, 5) and np.asarray(picture).min() > 190


def test_a_picture_that_fits_is_passed_through_silently(recwarn):
    array = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    assert np.array_equal(np.asarray(to_picture(array, size=(6, 4))), array)
    assert not recwarn.list


@pytest.mark.parametrize("size", [(0, 4), (4,), (-1, 3)])
def test_a_size_of_nothing_is_refused(size):
    with pytest.raises(ValueError, match="size must be"):
        to_picture(np.zeros((4, 4), np.uint8), size=size)


def test_strokes_and_drags_are_printed_in_one_short_line():
    mask = np.zeros((40, 40), bool)
    mask[:20] = True
    points = [(i / 3, i / 7) for i in range(500)]
    stroke, drag = Stroke(points, "red", 9), Drag(points[:100], mask)
    assert repr(stroke) == "Stroke((0, 0) to (166.3, 71.3), 500 points, #ff0000, width 9, brush)"
    assert repr(drag) == "Drag((0, 0) to (33, 14.1), mask of 50.0%)"
    assert repr(Drag([(1, 2), (3, 4)])) == "Drag((1, 2) to (3, 4), no mask)"
    whole = repr(TrajectoryInstruction([drag]))
    assert repr(drag) in whole and len(whole) < 150
