"""Record media/paint_*.json anew: pictures that a person brings, and what is painted on them.

The pictures are rendered by the storybook's own world, so they do not depend on the model's
weights, and neither do the strokes on them. The cases are those of the paper's figures 4 and 5.
"""

from ivkit.support import commands
from tests.bench.record import MEDIA, move, paint_disc

SKY, SEA, TREE = "#3a78d2", "#2f8fe0", "#e8862a"
LIGHTS = ("#4df58c", "#7fe8a0", "#a860ea")


def add_arguments(parser) -> None:
    parser.add_argument("--out", type=commands.folder, default=MEDIA, help="default: media/")


def main(args) -> None:
    import ivkit as iv

    for name, (picture, text, strokes) in cases().items():
        path = args.out / f"paint_{name}.json"
        content = iv.ContentInstruction(text, strokes, strength=0.7)
        iv.Instructions(image=iv.ImageInstruction(picture), content=content, seed=3).save(path)
        print(path)


def cases() -> dict:
    """{name: (picture, content text, strokes)}; x, y are shares of the picture's sides."""
    tree = {"tree": (0.3, 0.72, 0.36)}
    trees = {"tree": (0.25, 0.72, 0.38), "green tree": (0.74, 0.72, 0.38)}
    boat = {"boat": (0.35, 0.66, 0.34)}
    penguin = {"penguin": (0.5, 0.78, 0.32)}
    return {
        "birds": (
            scene("green meadow", "day", tree),
            "a bird and a tree on the green meadow at day",
            bird((178, 66)),
        ),
        "sun": (
            scene("blue sea", "day", boat),
            "a sun and a boat on the blue sea at day",
            paint_disc((192, 56), 30),
        ),
        "waves": (
            scene("blue sea", "day", boat),
            "a wave and a boat on the blue sea at day",
            wave((190, 190)),
        ),
        "polar_lights": (
            scene("white snow", "night", penguin),
            "polar lights and a penguin on the white snow at night",
            [
                hand(
                    [(48, 72 - 22 * k), (100, 56 - 22 * k), (150, 76 - 22 * k), (208, 58 - 22 * k)],
                    colour=colour,
                    width=24,
                    opacity=0.85,
                    seed=k,
                )
                for k, colour in enumerate(LIGHTS)
            ],
        ),
        "recolour": (
            scene("green meadow", "day", trees),
            "a green tree and an orange tree on the green meadow at day",
            [
                hand(
                    [(180, 148), (204, 148), (164, 164), (216, 164), (164, 180), (214, 180)],
                    colour=TREE,
                    width=24,
                    opacity=0.75,
                    seed=9,
                )
            ],
        ),
    }


def bird(centre) -> list:
    """A body, a head and a beak."""
    x, y = centre
    return [
        *paint_disc((x, y), 26, colour=SKY, width=14),
        *paint_disc((x + 20, y - 18), 14, colour=SKY, width=10),
        hand([(x + 32, y - 18), (x + 42, y - 14)], colour="#f2a33c", width=6),
    ]


def wave(centre) -> list:
    """A crest that curls over, and its foam."""
    x, y = centre
    crest = [(x - 40, y + 26), (x - 18, y - 6), (x + 8, y - 26), (x + 30, y - 10)]
    fill = [(x - 26, y + 28), (x + 4, y + 2), (x - 6, y + 30), (x + 24, y + 14), (x + 22, y + 30)]
    return [
        hand(fill, colour=SEA, width=26),
        hand(crest, colour="#dff2ff", width=12, seed=1),
    ]


def hand(corners, colour, width, opacity=1.0, seconds=1.6, seed=0):
    """One stroke through the corners, as a hand draws it."""
    import numpy as np

    import ivkit as iv

    points, times = move(corners, seconds, np.random.default_rng(seed))
    return iv.Stroke(points, colour=colour, width=width, opacity=opacity, times=times)


def scene(ground: str, time: str, things: dict):
    """A rendered picture, PIL RGB 256 x 256; things: {name: (x, y, size)} in shares of it."""
    import torch

    from ivkit.pictures import to_pictures
    from ivkit.storybook.world import GROUNDS, SLOTS, TIMES, World

    world = World()
    names = [" ".join(filter(None, (colour, name))) for name, colour in world.labels]
    plain = {name: i for i, (name, _) in reversed(list(enumerate(world.labels)))}
    rows = [(names.index(n) if n in names else plain[n], *where) for n, where in things.items()]
    rows += [(0, 0.5, 0.5, 0.1)] * (SLOTS - len(rows))
    sprite, x, y, size = zip(*rows, strict=True)
    scenes = world.sample(1, torch.Generator().manual_seed(0)).with_(
        ground=GROUNDS.index(ground),
        time=TIMES.index(time),
        horizon=0.58,
        shore=2.0,
        sprite=[sprite],
        x=[x],
        y=[y],
        size=[size],
        event=0,
        present=[[i < len(things) for i in range(SLOTS)]],
        hills=[[0.5, 0.02, 6.0]],
    )
    return to_pictures(world.render(scenes, torch.zeros(1, 1))[0])[0]
