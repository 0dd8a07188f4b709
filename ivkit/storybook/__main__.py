"""python -m ivkit.storybook sprites | train STAGE | eval: the embedded model, made and measured."""

from __future__ import annotations

import argparse
import importlib
import json
import os
from pathlib import Path

#: the stages in their order, and how many seconds each takes where nothing else is said: about an
#: hour and a half of one H200 in all
STAGES = {
    "vae": 500,
    "classifier": 60,
    "clip": 120,
    "diffusion": 2400,
    "few_step": 300,
    "align": 60,
    "character": 80,
    "tiny_decoder": 250,
    "live": 1000,
}
WEIGHTS = Path(__file__).with_name("weights")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m ivkit.storybook", description=__doc__)
    todo = parser.add_subparsers(dest="todo", required=True)
    sheet = todo.add_parser("sprites", help="draw the sprite sheet from an emoji font")
    sheet.add_argument("--font", required=True, help="path of NotoColorEmoji.ttf")
    train = todo.add_parser(
        "train",
        help="train one stage, or all (several GPUs: torchrun -m ivkit.storybook train ...)",
    )
    train.add_argument("stage", choices=[*STAGES, "all"], nargs="?", default="all")
    train.add_argument(
        "--folder", type=Path, default=WEIGHTS, help="the model's folder, read and written"
    )
    train.add_argument(
        "--out",
        type=Path,
        default=Path("outputs/storybook"),
        help="pictures and figures to look at",
    )
    train.add_argument("--seconds", type=float, help=f"for one stage; else {STAGES}")
    train.add_argument("--max-steps", type=int, help="stop after so many steps instead")
    train.add_argument(
        "--photos", help="vae: a folder of photographs (*.jpg, 192 px), with held_out/ beside them"
    )
    train.add_argument(
        "--set",
        nargs="*",
        default=[],
        metavar="NAME=VALUE",
        help="a stage's other numbers, e.g. lr=5e-4",
    )
    judge = todo.add_parser("eval", help="measure the model on held-out scenes")
    judge.add_argument("--folder", type=Path, default=WEIGHTS)
    judge.add_argument("--out", type=Path, default=Path("outputs/storybook"))
    judge.add_argument("--scenes", type=int, default=256)
    judge.add_argument("--live", action="store_true", help="the live student and the tiny decoder")
    judge.add_argument("--json", type=Path, help="where the table goes; else a file in --out")
    judge.add_argument("--few-step", action="store_true", help="the few-step variant, unguided")
    judge.add_argument("--steps", type=int, help="denoising steps (16; few-step: 5)")
    args = parser.parse_args(argv)

    if args.todo == "sprites":
        from .sprites import draw_sheet

        print("wrote", draw_sheet(args.font))
        return
    args.out.mkdir(parents=True, exist_ok=True)
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.todo == "eval":
        if args.live:
            from .evaluate_live import evaluate as evaluate_live

            result, name = evaluate_live(args.folder, args.out, args.scenes), "eval_live.json"
        else:
            from .evaluate import evaluate

            options = (
                {"steps": 5, "picture_guidance": 1.0, "clip_guidance": 1.0} if args.few_step else {}
            )
            options |= {"steps": args.steps} if args.steps else {}
            result = evaluate(args.folder, args.out, args.scenes, few_step=args.few_step, **options)
            name = "eval_few_step.json" if args.few_step else "eval.json"
        (args.json or args.out / name).write_text(json.dumps(result, indent=1) + "\n")
        return
    from .networks import write_layout
    from .training.common import Ranks

    first = os.environ.get("RANK", "0") == "0"  # of several processes one writes
    if args.stage == "all" and (args.seconds or args.set):
        parser.error("--seconds and --set are for one stage: name it")
    if first:
        write_layout(args.folder)
    for name in STAGES if args.stage == "all" else [args.stage]:
        options = {k: json.loads(v) for k, v in (pair.split("=", 1) for pair in args.set)}
        if args.photos and name == "vae":
            options["photos"] = args.photos
        stage = importlib.import_module(f".training.{name}", __package__)
        seconds = args.seconds or STAGES[name]
        result = stage.train(args.folder, args.out, seconds, max_steps=args.max_steps, **options)
        Ranks().end()
        if first:
            (args.out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
