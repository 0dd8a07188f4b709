"""Trajectories: fields, warped frames, grown masks."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from ivkit.instructions import EASINGS, Camera, Drag, TrajectoryInstruction
from ivkit.trajectory import (
    check,
    displacement,
    drag_still,
    grow_mask,
    moving_region,
    warp,
    with_masks,
)

W, H, F = 48, 40, 5
NOISE = np.random.default_rng(0).integers(0, 256, (H, W, 3), np.uint8)


def box(left, top, right, bottom, shape=(H, W)):
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


THING = box(10, 12, 22, 24)
HANDLE = (16, 18)


def shifted(array, dx, dy):
    """Moved by whole pixels, and where that came from inside the frame."""
    out, valid = np.zeros_like(array), np.zeros(array.shape[:2], bool)
    y, x = np.mgrid[: array.shape[0], : array.shape[1]]
    from_y, from_x = y - dy, x - dx
    valid = (0 <= from_y) & (from_y < array.shape[0]) & (0 <= from_x) & (from_x < array.shape[1])
    out[valid] = array[from_y[valid], from_x[valid]]
    return out, valid


whole = st.tuples(st.integers(-W, W), st.integers(-H, H))
inside = st.tuples(st.floats(0, W - 1), st.floats(0, H - 1))
anywhere = st.tuples(st.floats(-W / 2, 1.5 * W), st.floats(-H / 2, 1.5 * H))


# ----------------------------------------------------------------------------------------- warps


@given(
    st.lists(st.just(HANDLE), min_size=2, max_size=4),
    st.integers(1, 6),
    st.sampled_from(EASINGS),
)
def test_an_identity_drag_changes_nothing(path, frames, easing):
    warped = warp(NOISE, Drag(path, THING, easing=easing), frames)
    assert (warped.frames == NOISE).all() and len(warped.frames) == frames
    assert not warped.field.any() and not warped.vacated.any()
    assert (warped.masks[:, THING] == 1).all()


@pytest.mark.parametrize("nothing", [None, [], TrajectoryInstruction(pins=[(3, 3)]), Camera()])
def test_no_instruction_changes_nothing(nothing):
    warped = warp(NOISE, nothing, F)
    assert (warped.frames == NOISE).all() and not warped.field.any() and not warped.masks.any()


@given(whole)
def test_a_whole_pixel_drag_is_an_exact_shift_and_clips_at_the_frame(move):
    dx, dy = move
    drag = Drag([HANDLE, (HANDLE[0] + dx, HANDLE[1] + dy)], THING)
    warped = warp(NOISE, drag, F)
    moved, _ = shifted(NOISE, dx, dy)
    now, _ = shifted(THING, dx, dy)
    assert np.array_equal(warped.frames[-1][now], moved[now])
    assert (warped.masks[-1][now] == 1).all()
    if not now.any():
        assert not warped.masks[-1][~THING].max() > 0.5
    assert (warped.field[-1][THING] == move).all() and not warped.field[-1][~THING].any()


@given(whole)
def test_far_from_the_thing_the_background_is_untouched(move):
    drag = Drag([HANDLE, (HANDLE[0] + move[0], HANDLE[1] + move[1])], THING)
    warped = warp(NOISE, drag, F)
    still = moving_region(warped)[-1] == 0
    assert np.array_equal(warped.frames[-1][still], NOISE[still])


@given(whole)
def test_the_moving_region_is_where_the_thing_is_and_where_it_was(move):
    assume(move != (0, 0))
    drag = Drag([HANDLE, (HANDLE[0] + move[0], HANDLE[1] + move[1])], THING)
    region = moving_region(warp(NOISE, drag, 3))
    now, _ = shifted(THING, *move)
    assert region.dtype == np.float32 and region.max() == 1
    assert (region[-1][THING | now] == 1).all()
    assert np.array_equal(region[0] == 1, THING)
    assert region[-1].sum() < 4 * THING.sum()


@given(st.lists(anywhere, min_size=1, max_size=4), st.floats(-200, 200), st.floats(0.2, 3))
def test_frame_zero_is_the_picture(path, rotate, scale):
    drag = Drag([HANDLE, *path], THING, rotate=rotate, scale=scale)
    warped = warp(NOISE, TrajectoryInstruction([drag], pins=[(2, 2)], camera=Camera((9, 4), 2)), 3)
    assert np.array_equal(warped.frames[0], NOISE)
    assert not warped.field[0].any() and not warped.vacated[0].any()


def test_the_hole_is_filled_from_around():
    picture = np.full((H, W, 3), 90, np.uint8)
    picture[THING] = (250, 20, 20)
    warped = warp(picture, Drag([HANDLE, (38, 18)], THING), 2)
    red = warped.frames[-1][..., 0].astype(int)
    assert red[12:24, 32:44].min() == 250
    assert abs(red[:, :28] - 90).max() <= 2


def test_a_horizon_runs_straight_through_the_hole():
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:30], picture[30:] = 200, 40
    mask = box(16, 10, 48, 52, (64, 64))
    picture[mask] = (255, 0, 0)
    filled = warp(picture, Drag([(32, 32), (32, 120)], mask), 2).frames[-1]
    assert filled[:26, 20:44].min() > 190 and filled[34:52, 20:44].max() < 50


def test_the_later_drag_lies_on_top():
    picture = np.zeros((H, W, 3), np.uint8)
    left, right = box(4, 15, 14, 25), box(34, 15, 44, 25)
    picture[left], picture[right] = (255, 0, 0), (0, 0, 255)
    a = Drag([(9, 20), (24, 20)], left)
    b = Drag([(39, 20), (24, 20)], right)
    assert warp(picture, [a, b], 2).frames[-1][20, 24].tolist() == [0, 0, 255]
    assert warp(picture, [b, a], 2).frames[-1][20, 24].tolist() == [255, 0, 0]


def test_drags_that_cross_both_arrive():
    picture = np.zeros((H, W, 3), np.uint8)
    left, right = box(4, 8, 12, 16), box(36, 24, 44, 32)
    picture[left], picture[right] = (255, 0, 0), (0, 0, 255)
    drags = [Drag([(8, 12), (40, 28)], left), Drag([(40, 28), (8, 12)], right)]
    last = warp(picture, drags, 9).frames[-1]
    assert (last[right] == (255, 0, 0)).all() and (last[left] == (0, 0, 255)).all()


def test_a_thing_that_rests_stays_in_front_of_one_that_passes():
    picture = NOISE.copy()
    passing, resting = box(2, 15, 10, 25), box(20, 10, 28, 30)
    drags = [Drag([(6, 20), (24, 20)], passing), Drag([(24, 20), (24, 20)], resting)]
    last = warp(picture, drags, 2).frames[-1]
    assert np.array_equal(last[resting], NOISE[resting])


def test_what_a_later_region_hid_does_not_travel_along():
    picture = np.zeros((H, W, 3), np.uint8)
    body, hat = box(10, 10, 30, 30), box(14, 14, 20, 20)
    picture[body], picture[hat] = (0, 200, 0), (255, 0, 0)
    drags = [Drag([(12, 28), (20, 28)], body), Drag([(16, 16), (16, 16)], hat)]
    last = warp(picture, drags, 2).frames[-1]
    assert (last[hat] == (255, 0, 0)).all()
    assert (last[..., 0] > 100).sum() == hat.sum()


def test_turning_is_clockwise_and_scaling_about_the_handle():
    picture = np.zeros((65, 65, 3), np.uint8)
    bar = box(32, 30, 52, 35, (65, 65))  # from the middle to the right
    picture[bar] = 255
    turned = warp(picture, Drag([(32, 32), (32, 32)], bar, rotate=90), 2).frames[-1][..., 0]
    assert turned[45, 32] == 255 and turned[32, 45] < 60 and turned[20, 32] < 60
    larger = warp(picture, Drag([(32, 32), (32, 32)], bar, scale=1.5), 2).frames[-1][..., 0]
    assert larger[32, 58] == 255 and larger[29, 45] == 255


def test_the_still_is_the_last_frame():
    drag = Drag([HANDLE, (30, 20), (33, 9)], THING, rotate=20, scale=1.2)
    still = drag_still(Image.fromarray(NOISE), drag)
    assert isinstance(still, Image.Image)
    assert np.array_equal(np.asarray(still), warp(NOISE, drag, F).frames[-1])


# ---------------------------------------------------------------------------------------- fields


@given(
    st.lists(anywhere, min_size=1, max_size=4),
    st.sampled_from(EASINGS),
    st.floats(-300, 300),
    st.floats(0.2, 4),
)
def test_the_handle_ends_at_its_target(path, easing, rotate, scale):
    drag = Drag([HANDLE, *path], THING, easing=easing, rotate=rotate, scale=scale)
    field = displacement(drag, (H, W), F)
    assert field.shape == (F, H, W, 2) and field.dtype == np.float32
    at_handle = field[-1, HANDLE[1], HANDLE[0]]
    assert np.allclose(at_handle, np.subtract(path[-1], HANDLE), atol=1e-3)
    assert not field[:, ~THING].any()


@given(anywhere, st.floats(-300, 300), st.floats(0.2, 4))
def test_a_region_with_one_handle_is_rigid(target, rotate, scale):
    drag = Drag([HANDLE, target], THING, rotate=rotate, scale=scale)
    u = displacement(drag, (H, W), 2)[-1]
    y, x = np.nonzero(THING)
    before, after = x + 1j * y, x + 1j * y + u[y, x] @ [1, 1j]
    turn = scale * np.exp(1j * np.radians(rotate))
    assert np.allclose(after - after[0], turn * (before - before[0]), atol=1e-3)


@given(st.lists(inside, min_size=1, max_size=4), anywhere, st.booleans())
def test_the_field_is_zero_at_pins(pins, target, with_camera):
    pins = [(round(x), round(y)) for x, y in pins]
    assume(HANDLE not in pins)
    camera = Camera((7, -3), zoom=1.4, roll=9) if with_camera else None
    trajectory = TrajectoryInstruction([Drag([HANDLE, target], THING)], pins, camera)
    field = displacement(trajectory, (H, W), 3)
    for x, y in pins:
        assert np.abs(field[:, y, x]).max() < 1e-3
    assert np.allclose(field[-1, HANDLE[1], HANDLE[0]], np.subtract(target, HANDLE), atol=1e-2)


def test_pixels_at_a_pin_stay_where_they_are():
    picture = np.zeros((128, 128, 3), np.uint8)
    picture[60:69, 40:49] = 255
    pinned = TrajectoryInstruction(pins=[(44, 64)], camera=Camera((16, 0)))
    last = warp(picture, pinned, 2).frames[-1]
    assert last[62:67, 42:47].min() > 240
    assert warp(picture, pinned.camera, 2).frames[-1][64, 44].max() == 0


@given(st.lists(st.tuples(inside, anywhere), min_size=2, max_size=4, unique_by=lambda p: p[0]))
def test_several_handles_all_reach_their_targets(pairs):
    pairs = [((round(x), round(y)), target) for (x, y), target in pairs]
    assume(len({handle for handle, _ in pairs}) == len(pairs))
    everything = np.ones((H, W), bool)
    everything[0, 0] = (0, 0) in [handle for handle, _ in pairs]
    everything[-1, -1] = (W - 1, H - 1) in [handle for handle, _ in pairs]
    assume(not everything.all())
    drag = Drag(handles=[[handle, target] for handle, target in pairs], mask=everything)
    u = displacement(drag, (H, W), 2)[-1]
    for (x, y), target in pairs:
        assert np.allclose(u[y, x], np.subtract(target, (x, y)), atol=1e-2)


@given(st.floats(-60, 60), st.floats(0.5, 2), st.tuples(st.floats(-9, 9), st.floats(-9, 9)))
def test_moving_least_squares_reproduces_a_similarity(angle, scale, shift):
    turn = scale * np.exp(1j * np.radians(angle))

    def moved(x, y):
        v = turn * (x - 20 + 1j * (y - 20)) + 20 + 20j + complex(*shift)
        return v.real, v.imag

    corners = [(12, 14), (20, 14), (20, 22), (13, 21)]
    drag = Drag(handles=[[corner, moved(*corner)] for corner in corners], mask=THING)
    u = displacement(drag, (H, W), 2)[-1]
    y, x = np.nonzero(THING)
    expected = np.stack(moved(x, y), -1) - np.stack([x, y], -1)
    assert np.allclose(u[THING], expected, atol=1e-2)


def test_bent_pixels_land_where_the_field_says():
    y, x = np.mgrid[:128, :128]
    smooth = np.stack([x * 2, y * 2, 128 + 0 * x], -1).astype(np.uint8)  # colour is position
    mask = box(20, 30, 100, 100, (128, 128))
    handles = [[(30, 40), (24, 20)], [(90, 90), (90, 90)], [(30, 90), (40, 95)]]
    warped = warp(smooth, Drag(handles=handles, mask=mask), 2)
    target = np.rint(np.stack([x, y], -1) + warped.field[-1]).astype(int)[45:90:5, 30:90:5]
    colours = warped.frames[-1][target[..., 1], target[..., 0], :2].astype(float) / 2
    assert np.abs(colours - np.stack([x, y], -1)[45:90:5, 30:90:5]).max() < 2


def test_constant_speed_along_a_polyline():
    drag = Drag([HANDLE, (19, 18), (19, 30)], THING)  # 3 pixels, then 12
    u = displacement(drag, (H, W), 6)[:, HANDLE[1], HANDLE[0]]
    assert np.allclose(u, [(0, 0), (3, 0), (3, 3), (3, 6), (3, 9), (3, 12)], atol=1e-5)


def test_times_say_when_each_point_is_reached():
    drag = Drag([HANDLE, (20, 18), (20, 22)], THING, times=[0.25, 0.5, 0.75])
    u = displacement(drag, (H, W), 9)[:, HANDLE[1], HANDLE[0]]
    assert np.allclose(
        u[[0, 2, 3, 4, 5, 6, 8]], [(0, 0), (0, 0), (2, 0), (4, 0), (4, 2)] + [(4, 4)] * 2
    )


@pytest.mark.parametrize(
    ("easing", "half"), [("linear", 0.5), ("ease", 0.5), ("ease-in", 0.25), ("ease-out", 0.75)]
)
def test_easing(easing, half):
    u = displacement(Drag([HANDLE, (36, 18)], THING, easing=easing), (H, W), 5)[:, 18, 16, 0]
    assert u[2] == pytest.approx(20 * half, abs=1e-4)
    assert (np.diff(u) > 0).all() and u[-1] == pytest.approx(20, abs=1e-4)


def test_a_pinned_thing_swings_about_its_pin():
    pinned = TrajectoryInstruction([Drag([(20, 14), (14, 22)], THING)], pins=[(12, 14)])
    u = displacement(pinned, (H, W), 2)[-1]
    assert np.allclose(u[14, 20], (-6, 8), atol=1e-3) and np.allclose(u[14, 12], 0, atol=1e-3)
    assert np.allclose(u[14, 16], (-3, 4), atol=1e-3)


# ---------------------------------------------------------------------------------------- camera


@given(whole)
def test_a_pan_moves_everything_the_other_way(pan):
    warped = warp(NOISE, Camera(pan), 2)
    moved, valid = shifted(NOISE, -pan[0], -pan[1])
    assert np.array_equal(warped.frames[-1][valid], moved[valid])
    assert np.allclose(warped.field[-1], np.negative(pan), atol=1e-4)
    assert (warped.masks[-1] == (pan != (0, 0))).all()


def test_zoom_and_roll_turn_about_the_middle():
    middle_x, middle_y = (W - 1) / 2, (H - 1) / 2
    u = displacement(Camera(zoom=2, roll=90), (H, W), 2)[-1]
    v = 2 * np.exp(-0.5j * np.pi) * complex(-middle_x, -middle_y)
    expected = (v.real + middle_x, v.imag + middle_y)
    assert np.allclose(u[0, 0], expected, atol=1e-3)
    assert np.abs(u[H // 2, W // 2]).max() < 2


@pytest.mark.parametrize(
    "path, times", [([HANDLE] * 2, None), ([HANDLE, HANDLE, (30, 20)], (0, 0.9, 1))]
)
def test_a_thing_that_waits_while_the_camera_moves_is_there_once(path, times):
    picture = np.full((H, W, 3), 90, np.uint8)
    picture[THING] = (250, 20, 20)
    drag = Drag(path, THING, times=times)
    warped = warp(picture, TrajectoryInstruction([drag], camera=Camera((10, 0))), 4)
    for frame in warped.frames[:3]:  # it has not moved yet
        assert ((frame[..., 0] > 170) == THING).all()
    assert warped.vacated[2].any()


def test_a_drag_is_on_the_screen_whatever_the_camera_does():
    trajectory = TrajectoryInstruction([Drag([HANDLE, (30, 20)], THING)], camera=Camera((10, 0)))
    warped = warp(NOISE, trajectory, 2)
    now, _ = shifted(THING, 14, 2)
    assert np.array_equal(warped.frames[-1][now], shifted(NOISE, 14, 2)[0][now])
    assert np.allclose(warped.field[-1][~THING], (-10, 0), atol=1e-4)


# --------------------------------------------------------------------------------------- regions


def things(seed, size=96):
    """Two discs with stripes on a sloping, slightly noisy ground, and their true masks."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    picture = np.stack([90 + y // 2, 150 + 0 * x, 220 - y // 2], -1) + rng.normal(0, 2, (1, 1, 3))
    picture = picture + rng.normal(0, 1.5, picture.shape)
    masks = []
    for cx, cy in rng.integers((20, 20), (30, 76), 2), rng.integers((64, 20), (76, 76), 2):
        mask = (x - cx) ** 2 + (y - cy) ** 2 <= 14**2
        picture[mask] = np.where((y[mask] // 7 % 2)[:, None], (210, 40, 30), (250, 240, 200))
        masks.append(((int(cx), int(cy)), mask))
    return np.clip(picture, 0, 255).astype(np.uint8), masks


@pytest.mark.parametrize("seed", range(6))
def test_a_mask_grown_from_a_handle_is_the_thing(seed):
    picture, masks = things(seed)
    for centre, mask in masks:
        grown = grow_mask(picture, centre)
        assert grown.dtype == bool and grown.shape == mask.shape
        assert (grown & mask).sum() / (grown | mask).sum() > 0.9


@pytest.mark.filterwarnings("ignore:no thing stands out")
@given(inside)
def test_a_grown_mask_holds_its_point_whatever_is_there(point):
    for picture in (NOISE, np.full_like(NOISE, 7)):
        mask = grow_mask(picture, point)
        assert mask[round(point[1]), round(point[0])]


def test_growing_a_mask_repeats():
    picture, ((centre, _), _) = things(1)
    assert np.array_equal(grow_mask(picture, centre), grow_mask(picture, centre))


def test_masks_are_grown_only_where_there_are_none():
    picture, ((centre, _), (other, mine)) = things(0)
    trajectory = with_masks([Drag([centre, (48, 48)]), Drag([other, (48, 48)], mine)], picture)
    assert np.array_equal(trajectory.drags[0].mask, grow_mask(picture, centre))
    assert np.array_equal(trajectory.drags[1].mask, mine)
    without = displacement(Drag([centre, (48, 48)]), (96, 96), 2, picture=picture)
    assert np.array_equal(without, displacement(trajectory.drags[:1], (96, 96), 2))


# ------------------------------------------------------------------------------------- bad input


def drag_of(**changes):
    return Drag(**{"path": [HANDLE, (30, 20)], "mask": THING, **changes})


@pytest.mark.parametrize(
    ("trajectory", "message"),
    [
        (drag_of(path=[(-5, 3), (9, 9)]), r"the handle of drags\[0\] must lie in .* 48 x 40"),
        ([drag_of(), drag_of(path=[(48, 3), (9, 9)])], r"drags\[1\].* got \(48, 3\)"),
        (drag_of(path=[HANDLE, (500, 9)]), r"path of drags\[0\] may leave .* got \(500, 9\)"),
        (drag_of(mask=np.ones((40, 47))), r"picture's shape \(40, 48\), got \(40, 47\)"),
        (drag_of(mask=np.ones((40, 48))), "covers the whole picture"),
        (drag_of(mask=None), "has no mask"),
        ([drag_of(), drag_of()], r"drags\[0\] lies wholly under"),
        (TrajectoryInstruction([drag_of()], pins=[HANDLE]), "is a handle of"),
        (TrajectoryInstruction(pins=[(0, 40)]), r"pins\[0\] must lie in"),
        (Drag(handles=[[(1, 1)], [(99, 1)]], mask=THING), "the handle of"),
    ],
)
def test_what_does_not_fit_the_picture_is_refused(trajectory, message):
    with pytest.raises(ValueError, match=message) as error:
        displacement(trajectory, (H, W), F)
    assert "\n" not in str(error.value)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="num_frames must be an integer of at least 1 .* got 0"):
        warp(NOISE, drag_of(), 0)
    with pytest.raises(ValueError, match="point must lie in the picture"):
        grow_mask(NOISE, (W, 0))
    with pytest.raises(TypeError, match="drags must be a list of Drag, got 3"):
        warp(NOISE, 3)
    with pytest.raises(TypeError, match="a picture must be"):
        warp([[1]], drag_of())
    assert check([drag_of()], (H, W)).drags == (drag_of(),)


@given(
    st.lists(st.tuples(inside, anywhere), min_size=1, max_size=3),
    inside,
    st.none() | st.builds(Camera, pan=anywhere, zoom=st.floats(0.1, 9), roll=st.floats(-400, 400)),
)
def test_whatever_is_asked_frames_and_masks_stay_in_range(pairs, pin, camera):
    pairs = [*pairs, (HANDLE, pin)]  # among them a handle that is dragged onto a pin
    handles = {handle: [handle, target] for handle, target in pairs if handle != pin}
    assume(len(handles) > 1)
    drags = [Drag(handles=list(handles.values()), mask=THING), Drag([HANDLE, pin], box(0, 0, 9, 9))]
    warped = warp(NOISE, TrajectoryInstruction(drags, [pin], camera), 3)
    for part in (warped.masks, warped.vacated, moving_region(warped)):
        assert 0 <= part.min() and part.max() <= 1
    assert np.isfinite(warped.field).all()
    assert np.array_equal(warped.frames[0], NOISE)
