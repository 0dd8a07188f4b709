"""Make the README's picture and clip in media/ anew, from the recorded quickstart."""

from pathlib import Path

from ivkit.bench.record import MEDIA, TEXT


def add_arguments(parser) -> None:
    parser.add_argument("--model", default="storybook", help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=MEDIA, help="default: media/")


def main(args) -> None:
    import ivkit as iv

    recorded = iv.Instructions.load(MEDIA / "quickstart.json")
    content, trajectory = recorded.content, recorded.trajectory
    pipe = iv.load(args.model)
    picture = pipe.image(TEXT, seed=recorded.seed)
    painted, _ = iv.rasterise(picture, content.strokes)
    edited = pipe.image(
        content.text,
        picture,
        strokes=content.strokes,
        strength=content.strength,
        seed=recorded.seed,
    )
    run = pipe.video(
        picture,
        recorded.motion.text,
        edited=edited,
        drags=trajectory.drags,
        lam=recorded.lam,
        seed=recorded.seed,
    )
    warped = iv.warp(edited, trajectory, len(run.frames))
    steps = {
        "type": picture,
        "paint": painted,
        "edit": edited,
        "drag": iv.field_arrows(edited, warped.field).resize(picture.size),
        "blend, last frame": run.frames[-1],
    }
    args.out.mkdir(parents=True, exist_ok=True)
    row(steps).save(args.out / "quickstart.png", optimize=True)
    iv.save_video(args.out / "quickstart.gif", beside(run.unedited, run.frames))
    trace = iv.trace_grid(run.trace, decode=pipe.model.decode)
    trace.save(args.out / "trace.png", optimize=True)
    for name in ("quickstart.png", "quickstart.gif", "trace.png"):
        print(args.out / name)


def row(pictures: dict):
    """{title: picture}, all of one size, as one PIL.Image in a row."""
    import numpy as np

    import ivkit as iv

    columns = [iv.contact_sheet({title: np.asarray(p)[None]}) for title, p in pictures.items()]
    gap = np.full((columns[0].height, 6, 3), 255, np.uint8)
    return _image(np.hstack([part for column in columns for part in (np.asarray(column), gap)]))


def beside(left, right):
    """Two videos (F, H, W, 3) of one shape as one, with a white gap."""
    import numpy as np

    gap = np.full((*left.shape[:2], 6, 3), 255, np.uint8)
    return np.concatenate([left, gap, right], axis=2)


def _image(array):
    from PIL import Image

    return Image.fromarray(array)
