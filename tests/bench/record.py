"""Record media/quickstart.json anew: the strokes and the drag that the quickstart replays.

The points are those a mouse would send: one each 16 ms, on whole pixels, fast in mid-stroke and
slow at its ends, with a hand's tremor. The drag's mask is grown from the handle on the edited
picture, so run this again whenever the model's weights change, and look at the mask it saves.
"""

from pathlib import Path

from ivkit.support import commands
from ivkit.support.disk import write_picture

MEDIA = Path(__file__).parents[2] / "media"
TEXT = "a boat on the blue sea at day"
EDIT_TEXT = "a sun and a boat on the blue sea at day"
MOTION = "the boat moves right"


def add_arguments(parser) -> None:
    parser.add_argument("--model", default="storybook", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--sun", type=float, nargs=2, metavar=("X", "Y"), default=(196, 50))
    parser.add_argument("--radius", type=float, default=26, help="of the sun, in pixels")
    parser.add_argument("--handle", type=float, nargs=2, metavar=("X", "Y"), default=(90, 150))
    parser.add_argument("--target", type=float, nargs=2, metavar=("X", "Y"), default=(172, 174))
    parser.add_argument("--out", type=commands.new_file, default=MEDIA / "quickstart.json")


def main(args) -> None:
    import numpy as np
    from PIL import Image

    import ivkit as iv

    pipe = iv.load(args.model)
    picture = pipe.image(TEXT, seed=args.seed)
    content = iv.ContentInstruction(EDIT_TEXT, paint_disc(args.sun, args.radius), strength=0.7)
    edited = pipe.image(
        EDIT_TEXT, picture, strokes=content.strokes, strength=content.strength, seed=args.seed
    )
    mask = iv.grow_mask(edited, args.handle)
    path, times = move([args.handle, args.target], seconds=0.9, rng=np.random.default_rng(1))
    drag = iv.Drag(path=path, mask=mask, times=[t / times[-1] for t in times])
    recording = iv.Instructions(
        content=content,
        motion=iv.MotionInstruction(MOTION),
        trajectory=iv.TrajectoryInstruction(drags=[drag]),
        seed=args.seed,
    )
    recording.save(args.out)
    shade = np.where(np.asarray(mask)[..., None], 255, np.asarray(edited) // 2).astype(np.uint8)
    preview = Path("outputs") / "recorded_mask.png"
    write_picture(preview, Image.fromarray(shade))
    print(f"{args.out}; the mask holds {np.mean(mask):.1%} of the picture, see {preview}")


def paint_disc(centre, radius, width=12.0, colour="#ffc81e") -> list:
    """Strokes of a person filling a disc: once around it, then to and fro until it is full."""
    import numpy as np

    import ivkit as iv

    rng = np.random.default_rng(0)
    inner = radius - width / 2
    angles = np.linspace(-0.5, 2 * np.pi - 0.3, 24)
    around = np.array(centre) + inner * np.stack([np.cos(angles), np.sin(angles)], 1)
    rows = np.arange(-inner, inner + 1, width * 0.6)
    half = np.sqrt(np.maximum(inner**2 - rows**2, 0))
    zigzag = [
        (s * h, y)
        for i, (h, y) in enumerate(zip(half, rows, strict=True))
        for s in ((-1, 1) if i % 2 else (1, -1))
    ]
    strokes = []
    for corners, seconds in ((around, 1.1), (np.array(centre) + zigzag, 2.4)):
        points, times = move(corners, seconds, rng)
        strokes.append(iv.Stroke(points, colour=colour, width=width, times=times))
    return strokes


def move(corners, seconds, rng, interval=0.016, tremor=0.4):
    """A hand's way through the corners: points on whole pixels and their times in seconds."""
    import numpy as np

    corners = np.asarray(corners, float)
    along = np.concatenate([[0], np.hypot(*np.diff(corners, axis=0).T).cumsum()])
    times = np.arange(0, seconds + interval, interval)
    s = np.minimum(times / seconds, 1)
    s = along[-1] * s**3 * (10 - 15 * s + 6 * s**2)  # minimum jerk: how a hand speeds up and slows
    points = np.stack([np.interp(s, along, corners[:, i]) for i in (0, 1)], 1)
    points[1:-1] += rng.normal(0, tremor, points[1:-1].shape)
    points = points.round()
    kept = [0, *(i for i in range(1, len(points)) if (points[i] != points[i - 1]).any())]
    return points[kept].tolist(), times[kept].round(3).tolist()
