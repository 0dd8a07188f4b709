"""The measures, on clips whose answer is known."""

import numpy as np
import pytest
from PIL import Image

from ivkit.bench import metrics


def clip(xs, ys, size=64, side=12):
    frames = np.full((len(xs), size, size, 3), 60, np.uint8)
    frames[..., 2] = np.linspace(40, 120, size, dtype=np.uint8)[:, None]
    for f, x, y in zip(frames, xs, ys, strict=True):
        f[y : y + side, x : x + side] = (220, 40, 30)
    return frames


@pytest.fixture
def background():
    return clip([0], [0], side=0)[0]


def test_psnr_knows_equal_and_known_error(background):
    assert metrics.psnr(background, background) > 100
    other = background.astype(int) + 5
    assert metrics.psnr(background, other.astype(np.uint8)) == pytest.approx(34.15, abs=0.01)
    mask = np.zeros((64, 64), bool)
    mask[:8] = True
    worse = background.copy()
    worse[20:] += 50
    assert metrics.psnr(background, worse, mask) > 100 > metrics.psnr(background, worse)


def test_centre_and_drag_distance(background):
    frames = clip([4, 20, 36], [10, 14, 18])
    where, area = metrics.centre(frames[0], background)
    assert area == 144 and np.allclose(where, (9.5, 15.5))
    start, target = (9.5, 15.5), (41.5, 23.5)
    assert metrics.drag_distance(frames, background, start, target) == pytest.approx(0, abs=1e-6)
    assert metrics.drag_distance(frames, background, start, start) == pytest.approx(
        np.hypot(32, 8) / 64, abs=1e-6
    )
    assert metrics.drag_distance(frames * 0 + background, background, start, target) == 1.0


def test_presence_counts_inside_the_mask_alone(background):
    still = np.stack([background] * 3)
    edited = clip([4, 4, 50], [10, 10, 50])
    mask = np.zeros((64, 64), bool)
    mask[10:22, 4:16] = True
    there = metrics.presence(edited, still, mask)
    assert there[0] > 100 and there[0] == there[1] and there[2] == 0


def test_smooth_motion_flickers_less_than_noise():
    smooth = clip(range(4, 36, 4), [20] * 8)
    rng = np.random.default_rng(0)
    noisy = (smooth + rng.integers(0, 60, smooth.shape)).clip(0, 255).astype(np.uint8)
    assert metrics.flicker(noisy) > 3 * metrics.flicker(smooth)
    frozen = noisy[:1].repeat(4, 0)
    assert metrics.flicker(frozen) == metrics.motion_amount(frozen) == 0
    assert metrics.motion_amount(smooth) > 0


@pytest.mark.parametrize("bad", [np.zeros((4, 4, 3)), np.zeros((0, 4, 4, 3), np.uint8), "clip"])
def test_bad_input_is_named(bad, background):
    with pytest.raises(ValueError, match="a must be uint8"):
        metrics.psnr(bad, background)
    with pytest.raises(ValueError, match="mask is empty"):
        metrics.psnr(background, background, np.zeros((64, 64), bool))


def pin(side=40):
    """A round thing of three colours on nothing: RGBA."""
    y, x = np.mgrid[:side, :side] / (side - 1) * 2 - 1
    colours = np.where(y[..., None] < 0, (200, 30, 220), (20, 90, 40)).astype(np.uint8)
    colours[np.hypot(x, y) < 0.4] = (250, 240, 90)
    alpha = (np.hypot(x, y) < 1).astype(np.uint8)[..., None] * 255
    return Image.fromarray(np.concatenate([colours, alpha], -1))


@pytest.mark.parametrize("side, x, y", [(40, 60, 20), (56, 3, 70)])
def test_a_character_is_found_where_it_stands(side, x, y):
    picture = Image.new("RGB", (128, 128), (90, 160, 200))
    thing = pin().resize((side, side))
    picture.paste(thing, (x, y), thing)
    like, laid = metrics.find(np.asarray(picture), pin(), range(20, 60, 2))
    rows, columns = np.nonzero(laid[..., 3] > 127)
    assert like > 0.9 and laid.shape == (128, 128, 4) and laid.dtype == np.uint8
    assert abs(columns.mean() - x - side / 2) < 3 and abs(rows.mean() - y - side / 2) < 3
    assert abs(np.ptp(columns) + 1 - side) < 5
    other = Image.fromarray(np.asarray(picture)[..., [1, 2, 0]])
    assert metrics.find(other, pin())[0] < like - 0.2


def test_find_says_what_it_cannot_look_for():
    picture = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(ValueError, match="no transparent background"):
        metrics.find(picture, Image.new("RGB", (8, 8)))
    with pytest.raises(ValueError, match="no size at which the character fits"):
        metrics.find(picture, pin(), [200])
    with pytest.raises(ValueError, match="picture must be uint8"):
        metrics.find(picture.astype(float), pin())


def test_what_is_not_cut_out_is_refused_by_name():
    for picture in (3, b"a.png", [1], None):
        with pytest.raises(TypeError, match="picture: a character must be a PIL image with alpha"):
            metrics.cut_out(picture)
    with pytest.raises(ValueError, match="picture: the character has no transparent background"):
        metrics.cut_out(Image.new("RGB", (4, 4)))
    with pytest.raises(ValueError, match="there is no picture at 'nowhere.png'"):
        metrics.cut_out("nowhere.png")
    assert metrics.cut_out(pin()).mode == "RGBA"
