"""python -m ivkit.storybook sprites | train STAGE | eval: the embedded model, made and measured."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from pathlib import Path

from ..support import commands
from ..support.disk import write_text

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
    sheet.add_argument(
        "--font", type=commands.file, required=True, help="path of NotoColorEmoji.ttf"
    )
    train = todo.add_parser(
        "train",
        help="train one stage, or all (several GPUs: torchrun -m ivkit.storybook train ...)",
    )
    train.add_argument("stage", choices=[*STAGES, "all"], nargs="?", default="all")
    train.add_argument(
        "--folder",
        type=commands.folder,
        default=WEIGHTS,
        help="the model's folder, read and written",
    )
    train.add_argument(
        "--out",
        type=commands.folder,
        default=Path("outputs/storybook"),
        help="pictures and figures to look at",
    )
    train.add_argument("--seconds", type=commands.seconds, help=f"for one stage; else {STAGES}")
    train.add_argument("--max-steps", type=commands.count, help="stop after so many steps instead")
    train.add_argument(
        "--photos", help="vae: a folder of photographs (*.jpg, 192 px), with held_out/ beside them"
    )
    train.add_argument(
        "--set",
        type=commands.setting,
        nargs="*",
        default=[],
        metavar="NAME=VALUE",
        help="a stage's other numbers, e.g. lr=5e-4",
    )
    judge = todo.add_parser("eval", help="measure the model on held-out scenes")
    judge.add_argument("--folder", type=commands.folder, default=WEIGHTS)
    judge.add_argument("--out", type=commands.folder, default=Path("outputs/storybook"))
    judge.add_argument("--scenes", type=commands.count, default=256)
    judge.add_argument("--live", action="store_true", help="the live student and the tiny decoder")
    judge.add_argument(
        "--json", type=commands.new_file, help="where the table goes; else a file in --out"
    )
    judge.add_argument("--few-step", action="store_true", help="the few-step variant, unguided")
    judge.add_argument("--steps", type=commands.count, help="denoising steps (16; few-step: 5)")
    args = parser.parse_args(argv)

    if args.todo == "sprites":
        from .sprites import draw_sheet

        print("wrote", draw_sheet(args.font))
        return
    if args.todo == "eval" and not (args.folder / "model_index.json").is_file():
        raise FileNotFoundError(f"{args.folder} holds no model: train one there first")
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
        write_text(args.json or args.out / name, json.dumps(result, indent=1) + "\n")
        return
    from .networks import write_layout
    from .training.common import Ranks

    first = os.environ.get("RANK", "0") == "0"  # of several processes one writes
    if args.stage == "all" and (args.seconds or args.set):
        parser.error("--seconds and --set are for one stage: name it")
    if first:
        write_layout(args.folder)
    for name in STAGES if args.stage == "all" else [args.stage]:
        options = dict(args.set)
        if args.photos and name == "vae":
            options["photos"] = args.photos
        stage = importlib.import_module(f".training.{name}", __package__)
        limit = args.seconds or STAGES[name]
        result = stage.train(args.folder, args.out, limit, max_steps=args.max_steps, **options)
        Ranks().end()
        if first:
            write_text(args.out / f"{name}.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(commands.answered("ivkit.storybook", main))
