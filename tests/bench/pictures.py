"""Make the README's picture and clip in media/ anew, from the recorded quickstart."""

from pathlib import Path

from ivkit.support import commands
from ivkit.support.disk import write_picture
from tests.bench.record import MEDIA, TEXT

SAMPLES = {
    "a red car and a blue bird on the grey street at day": "the car moves right",
    "a sun and a boat on the blue sea at day": "the boat moves right",
    "a dog on the green meadow at sunset": "the dog moves up",
    "polar lights and a house on the white snow at night": "the polar lights move left",
    "a purple balloon and a tree on the sandy beach at day": "the purple balloon moves right",
    "a fox and a cow on the yellow desert at night": "the cow moves left",
    "a green fish on the blue sea at night": "the green fish grows",
    "a castle and an owl on the green meadow at day": "the owl moves left and it gets dark",
}


def add_arguments(parser) -> None:
    parser.add_argument("--model", default="storybook", help="default: %(default)s")
    parser.add_argument("--out", type=commands.folder, default=MEDIA, help="default: media/")


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
    write_picture(args.out / "quickstart.png", row(steps), optimize=True)
    iv.save_video(args.out / "quickstart.gif", beside(run.unedited, run.frames))
    trace = iv.trace_grid(run.trace, decode=pipe.model.decode)
    write_picture(args.out / "trace.png", trace, optimize=True)
    samples(pipe, args.out / "storybook.jpg")
    iv.save_video(args.out / "live.gif", live(pipe), fps=4)
    for name in ("quickstart.png", "quickstart.gif", "trace.png", "storybook.jpg", "live.gif"):
        print(args.out / name)


def live(pipe):
    """Twenty seconds of the recorded stream, four frames a second, three quarters of the size."""
    import cv2
    import numpy as np

    import ivkit as iv

    stream = pipe.live(iv.LiveInstructions.load(MEDIA / "live.json"))
    frames = np.concatenate([next(stream)[1::2] for _ in range(40)])
    return np.stack([cv2.resize(f, (192, 192), interpolation=cv2.INTER_AREA) for f in frames])


def samples(pipe, path: Path) -> None:
    """What the model draws: pictures of fixed captions, and four frames of a clip made of each."""
    import numpy as np

    strips = []
    for text, motion in SAMPLES.items():
        run = pipe.video(pipe.image(text, seed=1), motion, seed=1)
        strips.append(np.hstack(run.frames[[0, 5, 10, 15]]))
    half = len(strips) // 2
    sheet = _image(np.hstack([np.vstack(strips[:half]), np.vstack(strips[half:])]))
    write_picture(path, sheet.resize((sheet.width // 2, sheet.height // 2)), quality=85)


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
