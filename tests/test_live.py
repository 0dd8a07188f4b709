"""The stream: what is done to it, replayed, undone and refused; and how the shipped student obeys.

The rules are tried with a student whose every frame is its condition and a little of its noise, so
that hundreds of chunks take a moment.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import ivkit as iv
from ivkit.instructions import Stroke
from ivkit.models import live as student_of
from ivkit.models import storybook_folder

SIDE, CELL = 64, 16
BOX = np.zeros((SIDE, SIDE), bool)
BOX[24:40, 8:24] = True


class Copier:
    """A student: latents are the picture at a quarter of its size, four times 3 channels apart."""

    chunks = 0

    def encode(self, pictures):
        return F.pixel_unshuffle(pictures.float(), CELL)

    def decode(self, z):
        return F.pixel_shuffle(z, CELL).clamp(-1, 1)

    def chunk(self, noise, context, condition, text, affinity, held=None):
        self.chunks += 1
        steps = torch.linspace(0.25, 1, 4).view(1, 4, 1, 1, 1)
        way = torch.lerp(context[:, -1:], condition[:, None], steps)
        return way + 0.01 * noise[:, -4:] + 0.01 * text.mean() * (1 - affinity)


def pipe():
    texts = {}
    model = SimpleNamespace(
        folder=storybook_folder(),
        dtype=torch.float32,
        affinity=((1.0, 0.5), (1.0, 0.2)),
        defaults={"video": {"motion_scale": 1}},
        encode_text=lambda text: texts.setdefault(text, torch.full((1, 2, 3), float(len(text)))),
        check_text=check_text,
        check_motion_scale=check_motion_scale,
    )
    return SimpleNamespace(
        model=model,
        pictures=model,
        name="copier",
        size=(SIDE, SIDE),
        vae_scale_factor=CELL,
        device="cpu",
    )


def check_text(text, argument):
    if "zebra" in text:
        raise ValueError(f"{argument} has the word 'zebra', which copier does not know")
    return text


def check_motion_scale(motion_scale):
    if motion_scale not in range(2):
        raise ValueError(f"motion_scale must be an integer from 0 to 1, got {motion_scale}")


@pytest.fixture
def begin(monkeypatch):
    monkeypatch.setattr(student_of.Student, "load", classmethod(lambda *_: Copier()))

    def begin(instructions=None, seed=0, picture=None):
        first = picture or Image.fromarray(np.where(BOX[..., None], (200, 60, 20), 90).astype("u1"))
        return iv.Live(pipe(), instructions or iv.LiveInstructions(first, seed))

    return begin


def played(stream, chunks):
    return np.concatenate([next(stream) for _ in range(chunks)])


# ---- what is done is what is shown, again and again ----

DOINGS = st.lists(
    st.tuples(
        st.sampled_from(
            ["play", "say", "grab", "move", "release", "paint", "replace", "lam", "rewind"]
        ),
        st.floats(0, 1),
    ),
    max_size=25,
)


def do(stream, kind, share):
    held, at = stream.held, (share * (SIDE - 1), (1 - share) * (SIDE - 1))
    if kind == "say":
        stream.say("a" * (1 + int(9 * share)), int(share > 0.5))
    elif kind == "grab" and not held:
        stream.grab(BOX)
    elif kind == "move" and held:
        stream.move(next(iter(held)), at)
    elif kind == "release" and held:
        stream.release(next(iter(held)))
    elif kind == "paint":
        stream.paint([Stroke([at], "red", 9)])
    elif kind == "replace":
        stream.replace(Image.new("RGB", (SIDE, SIDE), (int(255 * share), 80, 90)))
    elif kind == "lam":
        stream.lam = round(share, 2)
    elif kind == "rewind":
        stream.rewind(share)
    else:
        next(stream)


@settings(max_examples=40)
@given(doings=DOINGS, seed=st.integers(0, 3))
def test_the_same_timeline_gives_the_same_frames(doings, seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(student_of.Student, "load", classmethod(lambda *_: Copier()))
        first = Image.fromarray(np.where(BOX[..., None], (200, 60, 20), 90).astype("u1"))
        stream = iv.Live(pipe(), iv.LiveInstructions(first, seed))
        for kind, share in doings:
            do(stream, kind, share)
        played(stream, 2)
        said = iv.LiveInstructions.from_json(stream.instructions.to_json())
        again = iv.Live(pipe(), said)
        played(again, stream.index)
        assert torch.equal(torch.cat([*stream._latents]), torch.cat([*again._latents]))
        assert again.instructions == said


def test_lam_1_is_the_unedited_stream_and_lam_0_the_edited(begin):
    plain, edited, held_back = begin(), begin(), begin()
    for stream in (edited, held_back):
        stream.paint([Stroke([(48, 16)], "yellow", 20)])
    held_back.lam = 1
    unedited = played(plain, 3)
    assert (played(held_back, 3) == unedited).all()
    assert (played(edited, 3) != unedited).any()
    edited.lam = 1  # the unedited stream catches up
    assert (next(edited) == next(plain)).all()


def test_lam_0_and_1_run_one_stream(begin):
    stream = begin()
    stream.say("the waves roll")
    stream.paint([Stroke([(48, 16)], "yellow", 20)])
    played(stream, 3)
    assert stream.student.chunks == 3
    stream.lam = 1
    next(stream)
    assert stream.student.chunks == 7  # the three that were missed, and this one
    stream.say("the waves roll")
    next(stream)
    assert stream.student.chunks == 8
    stream.lam = 0.5
    next(stream)
    assert stream.student.chunks == 10


def test_the_trace_holds_eq_4_of_each_chunk(begin):
    stream = begin()
    stream.grab(BOX)
    stream.move(0, (40, 40))
    stream.lam = 0.3
    played(stream, 2)
    for record in stream.trace:
        x, x_edit, x_hat = record.terms
        wanted = 0.3 * record[x] + 0.7 * record[x_edit]
        torch.testing.assert_close(record[x_hat], wanted)
        assert (record[x] != record[x_edit]).any()
    assert len(stream.trace) == 2


def test_a_thing_goes_in_equal_steps_to_the_pointer_and_stays_when_let_go(begin):
    stream = begin()
    handle = stream.grab(BOX)
    start = stream.held[handle]
    stream.move(handle, (start[0] + 20, start[1]))
    stream.move(handle, (start[0] + 24, start[1]))  # the last one counts
    frames = next(stream)
    stream.release(handle)
    later = played(stream, 2)

    def x_of(frame):
        return np.nonzero(frame[..., 0].astype(int) - frame[..., 2] > 90)[1].mean()

    assert abs(x_of(frames[-1]) - start[0] - 24) < 1.5
    assert abs(x_of(later[-1]) - start[0] - 24) < 1.5


def test_what_rests_and_is_in_no_hand_stays_as_it_is_without_the_network(begin):
    stream = begin()
    frames = played(stream, 3)
    assert stream.student.chunks == 0
    assert (frames == frames[0]).all()
    stream.move(stream.grab(BOX), (40, 40))
    assert (next(stream)[-1] != frames[0]).any() and stream.student.chunks == 1


def test_a_text_acts_for_sixteen_frames(begin):
    stream = begin()
    stream.say("the waves roll")
    said = []
    for _ in range(6):
        next(stream)
        said.append(stream.state.in_force[0])
    assert said == ["the waves roll"] * 3 + [student_of.REST] * 3


def test_a_rewound_stream_goes_on_as_it_did(begin):
    stream = begin()
    stream.say("the waves roll")
    handle = stream.grab(BOX)
    before = played(stream, 2)
    stream.move(handle, (40, 40))
    played(stream, 2)
    stream.rewind(1)
    assert stream.index == 2 and len(stream.trace) == 2 and not stream.held
    other = begin(stream.instructions)
    assert (played(other, 2) == before).all()
    assert (played(stream, 2) == played(other, 2)).all()
    stream.rewind(10**6)
    assert stream.index == 0 and not stream.instructions.acts


def test_an_interrupt_loses_nothing(begin, monkeypatch):
    stream, other = begin(), begin()
    for s in (stream, other):
        s.paint([Stroke([(48, 16)], "yellow", 20)])
    decode = Copier.decode

    def cut(self, z):
        raise KeyboardInterrupt

    monkeypatch.setattr(Copier, "decode", cut)
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    monkeypatch.setattr(Copier, "decode", decode)
    assert stream.index == 0 and (next(stream) == next(other)).all()


def test_what_is_done_at_the_very_end_of_a_chunk_counts_for_the_next(begin):
    from collections import deque
    from threading import Thread

    stream, speakers = begin(), []

    class Slow(deque):
        def append(self, state):
            super().append(state)
            speakers.append(Thread(target=stream.say, args=("it gets dark",)))
            speakers[-1].start()
            speakers[-1].join(0.2)  # it speaks before the chunk is quite over, or waits for that

    stream._states = Slow(stream._states)
    next(stream)
    speakers[0].join()
    assert stream.instructions.acts[-1].chunk == stream.index == 1


def test_a_long_stream_holds_no_more(begin, monkeypatch):
    from ivkit import live

    monkeypatch.setattr(live, "KEPT", 8)
    stream = begin()
    played(stream, 40)
    assert len(stream._states) == len(stream._latents) == 8 and len(stream.trace) == live.TRACED
    stream.rewind(100)
    assert stream.index == 33
    next(stream)


def test_two_streams_at_once_do_not_meet(begin):
    from threading import Thread

    wanted = [played(begin(seed=seed), 6) for seed in (0, 1)]
    streams, found = [begin(seed=seed) for seed in (0, 1)], [None, None]

    def play(k):
        found[k] = played(streams[k], 6)

    threads = [Thread(target=play, args=(k,)) for k in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((a == b).all() for a, b in zip(found, wanted, strict=True))


def test_a_recording_holds_what_was_shown(begin, tmp_path):
    import mediapy

    stream = begin()
    with pytest.raises(ValueError, match="nothing was shown yet"):
        stream.record(tmp_path / "a.mp4")
    frames = played(stream, 3)
    assert mediapy.read_video(stream.record(tmp_path / "a.mp4")).shape == frames.shape


# ---- what is refused, in one sentence, while the stream goes on ----


@pytest.mark.parametrize(
    "said, wrong",
    [
        ("point", lambda s: s.move(s.grab(BOX), (SIDE + 5, 3))),
        ("what", lambda s: s.grab((-9, 3))),
        ("held already, by handle 0", lambda s: (s.grab(BOX), s.grab(BOX))),
        ("what is a mask of", lambda s: s.grab(BOX[:5])),
        ("what is empty", lambda s: s.grab(BOX & False)),
        ("handle 3 holds nothing; nothing is held", lambda s: s.move(3, (1, 1))),
        ("handle 1 holds nothing", lambda s: s.release(1)),
        ("text", lambda s: s.say("  ")),
        ("zebra", lambda s: s.say("a zebra")),
        ("zebra", lambda s: s.paint([Stroke([(9, 9)])], "a zebra")),
        ("motion_scale", lambda s: s.say("it gets dark", 7)),
        ("strokes", lambda s: s.paint([])),
        ("strength needs a text", lambda s: s.paint([Stroke([(9, 9)])], strength=0.5)),
        ("lam", lambda s: setattr(s, "lam", 2)),
        ("lam", lambda s: setattr(s, "lam", "a")),
        ("seconds", lambda s: s.rewind(-1)),
    ],
)
def test_what_cannot_be_is_said_and_the_stream_goes_on(begin, said, wrong):
    stream = begin()
    next(stream)
    with pytest.raises((ValueError, TypeError), match=said) as error:
        wrong(stream)
    assert "\n" not in str(error.value) and next(stream).shape == (4, SIDE, SIDE, 3)


def test_both_hands_full_and_two_things(begin):
    stream = begin()
    other, third = np.roll(BOX, 30, 1), np.roll(BOX, -20, 0)
    assert (stream.grab(BOX), stream.grab(other)) == (0, 1)
    with pytest.raises(ValueError, match=r"2 things are held: release one of \[0, 1\] first"):
        stream.grab(third)
    next(stream)
    stream.release(0)
    assert stream.grab(third) == 0


def test_a_timeline_on_a_picture_of_another_size_is_refused(begin):
    stream = begin()
    stream.grab(BOX)
    said = stream.instructions
    larger = iv.LiveInstructions(said.picture.resize((100, 80)), 0, said.acts)
    with pytest.raises(ValueError, match="picture is 100 x 80 pixels"):
        begin(larger)
    assert begin(picture=said.picture.resize((100, 80))).picture.size == (SIDE, SIDE)


def test_a_model_without_a_student_says_so():
    import tiny

    with pytest.raises(ValueError, match=r"has no live student; ivkit.load\('storybook'\) has one"):
        tiny.pipeline().live(Image.new("RGB", (16, 16)))


# ---- the shipped student ----


@pytest.fixture(scope="module")
def shipped():
    pipe = iv.load("storybook", dtype=torch.float32)
    return pipe, pipe.image("a boat on the blue sea at day", seed=5, progress=False)


def middle(mask):
    return np.argwhere(mask).mean(0)[::-1]


def test_the_shipped_student_follows_the_pointer_and_the_text(shipped):
    pipe, picture = shipped
    stream = pipe.live(picture, seed=0)
    handle = stream.grab((70, 170))
    x, y = middle(stream.instructions.acts[0].mask)
    for k in range(1, 4):
        stream.move(handle, (70 + 25 * k, 170 - 8 * k))
        next(stream)
    last = next(stream)[-1]
    found = middle(iv.grow_mask(Image.fromarray(last), (145, 146)))
    assert np.hypot(found[0] - x - 75, found[1] - y + 24) < 0.03 * 256
    stream.release(handle)
    before = last.mean()
    stream.say("it gets dark")
    dark = played(stream, 4)[-1]
    assert dark.mean() < 0.6 * before
    assert iv.grow_mask(Image.fromarray(dark), (145, 146)).mean() < 0.2  # the boat is still there


def test_the_benchmark_counts_frames_and_waits(begin, monkeypatch, tmp_path, capsys):
    import json

    from ivkit.bench import __main__ as bench

    class Blank:
        size, device, model = (SIDE, SIDE), "cpu", SimpleNamespace(dtype=torch.float32)

        def image(self, *_, **__):
            ground = Image.new("RGB", (SIDE, SIDE), "navy")
            ground.paste("orange", (14, 34, 26, 48))
            return ground

        def live(self, picture, motion):
            stream = begin(picture=picture)
            stream.say(motion)
            return stream

    monkeypatch.setattr(iv, "load", lambda name: Blank(), raising=False)
    file = tmp_path / "live.json"
    bench.main(["live", "--chunks", "2", "--json", str(file)])
    figures = json.loads(file.read_text())
    rates = [v for k, v in figures.items() if k.startswith("frames_per_second")]
    assert len(rates) == 3 and min(rates) > 0 and figures["delay_seconds"] > 0
    assert "a thing held" in capsys.readouterr().out


def test_a_preview_shows_the_edit_the_drag_and_the_text(shipped):
    from ivkit.live import preview

    pipe, picture = shipped
    edited = iv.rasterise(picture, [Stroke([(60, 40)], "#ffd21e", 44)])[0]
    drag = iv.Drag(path=[(70, 170), (150, 150)])
    frames = preview(pipe, picture, "it gets dark", edited=edited, drags=[drag], seed=1)
    assert frames.shape == (16, 256, 256, 3)
    start = middle(iv.grow_mask(edited, (70, 170)))
    found = middle(iv.grow_mask(Image.fromarray(frames[-1]), (150, 150)))
    assert np.hypot(*(found - start - (80, -20))) < 0.04 * 256
    assert frames[-1].mean() < 0.6 * np.mean(picture) and frames[-1][40, 60].min() < 120


def test_previews_and_clips_can_come_from_the_tiny_decoder(shipped):
    from ivkit.bench.metrics import psnr

    pipe, picture = shipped
    how = {"num_frames": 4, "num_inference_steps": 2, "progress": False}
    full, tiny_one = (
        pipe.video(picture, "it gets dark", decoder=decoder, **how) for decoder in ("full", "tiny")
    )
    assert torch.equal(full.state.z, tiny_one.state.z)
    assert 30 < psnr(full.frames, tiny_one.frames) < 60
    assert tiny_one.instructions.decoder == "tiny"
    shown = pipe.model.preview(full.state.z, -1)
    torch.testing.assert_close(shown, pipe.model.decode_tiny(full.state.z[-1:])[0])


def test_a_model_without_a_tiny_decoder_says_so():
    import tiny

    with pytest.raises(ValueError, match="decoder must be full: .* has no tiny one"):
        tiny.pipeline().video(tiny.picture(), "the boat moves", decoder="tiny")
