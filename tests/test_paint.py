"""Painting: what a stroke leaves, where an edit may reach, and that nothing else is touched."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from ivkit.instructions import Stroke
from ivkit.paint import composite, edit_mask, latent_mask, paint_over, rasterise, region_mask

W, H = 48, 40
NOISE = np.random.default_rng(0).integers(0, 256, (H, W, 3), np.uint8)

points = st.lists(st.tuples(st.floats(0, W - 1), st.floats(0, H - 1)), min_size=1, max_size=5)


def some_strokes(*tools):
    return st.lists(
        st.builds(
            Stroke,
            points=points,
            colour=st.tuples(*[st.integers(0, 255)] * 3),
            width=st.floats(0.5, 30),
            opacity=st.floats(0, 1),
            tool=st.sampled_from(tools),
        ),
        max_size=4,
    )


@given(some_strokes("brush", "eraser", "mask", "lasso"))
def test_where_there_is_no_paint_the_picture_is_unchanged(strokes):
    painted, alpha = rasterise(NOISE, strokes)
    assert painted.size == (W, H) and alpha.shape == (H, W) and alpha.dtype == np.float32
    assert 0 <= alpha.min() and alpha.max() <= 1
    assert np.array_equal(np.asarray(painted)[alpha == 0], NOISE[alpha == 0])


@given(some_strokes("eraser", "mask", "lasso"))
def test_erasers_and_masks_alone_leave_the_picture(strokes):
    painted, alpha = rasterise(NOISE, strokes)
    assert np.array_equal(np.asarray(painted), NOISE) and not alpha.any()


@given(some_strokes("brush"), points, st.floats(4, 20))
def test_an_eraser_gives_the_picture_back(strokes, path, width):
    before, _ = rasterise(NOISE, strokes)
    erased, alpha = rasterise(NOISE, [*strokes, Stroke(path, width=width, tool="eraser")])
    whole = rasterise(NOISE, [Stroke(path, width=width)])[1]
    assert np.array_equal(np.asarray(erased)[whole == 1], NOISE[whole == 1])
    assert np.array_equal(np.asarray(erased)[whole == 0], np.asarray(before)[whole == 0])
    assert not alpha[whole == 1].any()


@given(points, st.floats(4, 20), st.tuples(*[st.integers(0, 255)] * 3))
def test_an_opaque_stroke_has_its_colour_where_it_covers(path, width, colour):
    painted, alpha = rasterise(NOISE, [Stroke(path, colour, width)])
    assert (np.asarray(painted)[alpha == 1] == colour).all()
    x, y = (round(v) for v in path[0])
    assert alpha[y, x] == 1


@given(points, st.floats(2, 20), st.floats(0, 1))
def test_opacity_does_not_add_up_within_a_stroke(path, width, opacity):
    solid = rasterise(NOISE, [Stroke(path, width=width)])[1]
    thin = rasterise(NOISE, [Stroke(path, width=width, opacity=opacity)])[1]
    assert np.allclose(thin, solid * opacity, atol=1e-5)


def test_opacity_adds_up_between_strokes():
    stroke = Stroke([(20, 20)], "#ffffff", 10, opacity=0.5)
    painted, alpha = rasterise(np.zeros((H, W, 3), np.uint8), [stroke, stroke])
    assert alpha[20, 20] == pytest.approx(0.75)
    assert painted.getpixel((20, 20)) == (191, 191, 191)


@pytest.mark.parametrize("width", [1, 2, 5, 12.5, 30])
@pytest.mark.parametrize("centre", [(20, 20), (20.5, 19.25)])
def test_a_dot_has_the_area_and_centre_of_a_disc(width, centre):
    alpha = rasterise(NOISE, [Stroke([centre], width=width)])[1].astype(float)
    assert alpha.sum() == pytest.approx(np.pi * width**2 / 4, rel=0.06, abs=0.15)
    y, x = np.mgrid[:H, :W]
    assert (alpha * x).sum() / alpha.sum() == pytest.approx(centre[0], abs=0.13)
    assert (alpha * y).sum() / alpha.sum() == pytest.approx(centre[1], abs=0.13)


@pytest.mark.parametrize("ends", [((8, 20), (38, 20)), ((24, 5), (24, 34)), ((8, 8), (30, 30))])
def test_a_line_is_as_wide_as_it_says_and_has_round_ends(ends):
    a, b = np.array(ends, float)
    alpha = rasterise(NOISE, [Stroke(ends, width=8)])[1]
    assert alpha.sum() == pytest.approx(8 * np.hypot(*(b - a)) + np.pi * 16, rel=0.03)


def test_the_picture_is_painted_at_its_own_resolution_whatever_its_size():
    big = Image.new("RGB", (2100, 2000))  # past the size where it is still supersampled
    painted, alpha = rasterise(big, [Stroke([(0, 0), (2099, 1999)], "red", 40)])
    assert painted.size == big.size and alpha[1000, 1050] == 1 and alpha[0, 2099] == 0


def test_a_stroke_may_leave_the_picture_but_not_miss_it():
    inside = Stroke([(W - 2, 10), (W + 50, 10)], width=6)
    assert rasterise(NOISE, [inside])[1][10, W - 1] == 1
    outside = Stroke([(W + 50, 10), (W + 60, 10)], width=6)
    with pytest.raises(ValueError, match=r"strokes\[1\] lies outside .* size is 48 x 40"):
        rasterise(NOISE, [inside, outside])
    with pytest.raises(ValueError, match="outside"):
        region_mask([outside], (W, H))


def test_what_is_no_stroke_is_refused():
    with pytest.raises(TypeError, match=r"strokes\[0\] must be a Stroke, got \(1, 2\)"):
        rasterise(NOISE, [(1, 2)])
    with pytest.raises(TypeError, match="strokes must be a list of Stroke, got 3"):
        rasterise(NOISE, 3)


def test_region_mask_follows_mask_strokes_and_erasers():
    mark = Stroke([(20, 20)], width=20, opacity=0.1, tool="mask")
    paint = Stroke([(40, 20)], width=6)
    erase = Stroke([(20, 20)], width=6, tool="eraser")
    region = region_mask([mark, paint, erase], (W, H))
    assert region.dtype == bool and region.shape == (H, W)
    assert region[20, 28] and not region[20, 20] and not region[20, 40]
    assert not region_mask([], (W, H)).any()


def test_a_lasso_marks_what_lies_inside_of_its_line():
    ring = Stroke([(10, 10), (30, 10), (30, 25), (10, 25)], tool="lasso")
    region = region_mask([ring, Stroke([(20, 20)], width=6, tool="eraser")], (W, H))
    assert region[10, 10] and region[25, 30] and not region[20, 20]
    assert region[10:26, 10:31].sum() == region.sum() and 0 < 21 * 16 - region.sum() < 40
    more = region_mask([Stroke([(40, 35)], tool="lasso")], (W, H), before=region)
    assert more[35, 40] and more.sum() == region.sum() + 1
    assert region_mask([Stroke([(-9, 5), (9, 5), (9, 9), (-9, 9)], tool="lasso")], (W, H))[7, 0]


# ------------------------------------------------------------------------------------------ masks


@given(some_strokes("brush"), st.floats(0, 2), st.sampled_from([4, 8, 16]), st.floats(0, 10))
def test_the_edit_mask_is_zero_outside_the_grown_strokes(strokes, grow, cell, feather):
    alpha = rasterise(NOISE, strokes)[1]
    assume((alpha > 0).any())
    mask = edit_mask(alpha, grow, cell, feather)
    assert mask.dtype == np.float32 and 0 <= mask.min() and mask.max() <= 1
    y, x = np.nonzero(alpha)
    yy, xx = np.mgrid[:H, :W]
    away = np.sqrt(((yy[..., None] - y) ** 2 + (xx[..., None] - x) ** 2).min(-1))
    assert not mask[away >= grow * cell + 0.51].any()
    assert (mask[away <= grow * cell - feather] == 1).all() or grow * cell < feather


@given(some_strokes("brush"), st.floats(0, 1.5))
def test_pixels_outside_the_edit_mask_are_identical_after_painting(strokes, grow):
    alpha = rasterise(NOISE, strokes)[1]
    assume((alpha > 0).any())
    mask = edit_mask(alpha, grow, cell=8)
    out = np.asarray(composite(NOISE, 255 - NOISE, mask))
    assert np.array_equal(out[mask == 0], NOISE[mask == 0])
    assert np.array_equal(out[mask == 1], 255 - NOISE[mask == 1])


def test_the_edit_mask_falls_monotonically_over_the_feather():
    alpha = np.zeros((1, 100), np.float32)
    alpha[0, :20] = 0.01
    mask = edit_mask(alpha, grow=2, cell=16, feather=10)[0]
    assert (np.diff(mask) <= 0).all()
    assert mask[41] == 1 and 0 < mask[46] < 1 and mask[52] == 0
    assert set(np.unique(edit_mask(alpha, grow=2, feather=0))) == {0, 1}


def test_growing_by_nothing_feathers_within_the_paint():
    alpha = np.zeros((20, 20))
    alpha[4:16, 4:16] = 1
    mask = edit_mask(alpha, grow=0, feather=4)
    assert not mask[alpha == 0].any() and mask[10, 10] == 1 and 0 < mask[4, 10] < 0.2


def test_paint_everywhere_may_change_everything():
    assert (edit_mask(np.ones((8, 8))) == 1).all()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((np.zeros((8, 8)),), "alpha is empty"),
        ((np.ones((8, 8, 3)),), r"alpha must be .* \(H, W\), got shape \(8, 8, 3\)"),
        ((np.ones((8, 8)), -1), "grow must be .* got -1"),
        ((np.ones((8, 8)), 1, 0), "cell must be .* got 0"),
        ((np.ones((8, 8)), 1, 8, -2), "feather must be .* got -2"),
    ],
)
def test_bad_edit_masks_are_refused(args, message):
    with pytest.raises(ValueError, match=message):
        edit_mask(*args)


@given(st.integers(0, 15), st.integers(0, 31))
def test_one_pixel_frees_one_latent_cell(y, x):
    mask = np.zeros((16, 32))
    mask[y, x] = 1
    for how, value in (("max", 1), ("mean", 1 / 64)):
        cells = latent_mask(mask, cell=8, how=how)
        assert cells.shape == (1, 1, 2, 4) and cells.dtype == np.float32
        assert cells[0, 0, y // 8, x // 8] == value and cells.sum() == value


def test_latent_masks_need_whole_cells():
    with pytest.raises(ValueError, match=r"multiples of 16, got \(24, 32\)"):
        latent_mask(np.ones((24, 32)))
    with pytest.raises(ValueError, match="how must be"):
        latent_mask(np.ones((16, 16)), how="median")


def test_composites_need_one_size_and_a_mask_in_range():
    with pytest.raises(ValueError, match=r"48 x 40, 48 x 40 and a mask of shape \(3, 3\)"):
        composite(NOISE, NOISE, np.ones((3, 3)))
    with pytest.raises(ValueError, match="one size"):
        composite(NOISE, NOISE[1:], np.ones((H, W)))
    for bad in (1.5, -0.1, np.nan):
        with pytest.raises(ValueError, match=r"mask must be finite numbers in \[0, 1\]"):
            composite(NOISE, NOISE, np.full((H, W), bad))


def test_a_region_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"before must have shape \(40, 48\), .* got \(48, 40\)"):
        region_mask([], (W, H), before=np.ones((W, H)))


def test_pixels_that_cannot_be_written_are_painted_on_a_copy():
    pixels = NOISE.copy()
    pixels.flags.writeable = False
    painted, alpha = paint_over(pixels, [Stroke([(20, 20)], "red", 9)])
    assert (pixels == NOISE).all() and (painted[20, 20] == (255, 0, 0)).all() and alpha[20, 20] == 1
