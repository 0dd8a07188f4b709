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
STAGES = {"vae": 500, "classifier": 60, "clip": 120, "diffusion": 2400, "few_step": 300}
STAGES |= {"align": 60, "character": 80, "tiny_decoder": 250, "live": 1000}
WEIGHTS = Path(__file__).with_name("weights")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m ivkit.storybook", description=__doc__)
    todo = parser.add_subparsers(dest="todo", required=True)
    add = todo.add_parser("sprites", help="draw the sprite sheet from an emoji font").add_argument
    add("--font", type=commands.file, required=True, help="path of NotoColorEmoji.ttf")
    many = "several GPUs: torchrun -m ivkit.storybook train ..."
    train = todo.add_parser("train", help=f"train one stage, or all ({many})")
    judge = todo.add_parser("eval", help="measure the model on held-out scenes")
    out = Path("outputs/storybook")
    for command in (train, judge):
        add = command.add_argument
        add("--folder", type=commands.folder, default=WEIGHTS, help="the model's folder")
        add("--out", type=commands.folder, default=out, help="pictures and figures to look at")
    add = train.add_argument
    add("stage", choices=[*STAGES, "all"], nargs="?", default="all")
    add("--seconds", type=commands.seconds, help=f"for one stage; else {STAGES}")
    add("--max-steps", type=commands.count, help="stop after so many steps instead")
    add("--photos", help="vae: a folder of photographs (*.jpg, 192 px), with held_out/ in it")
    said, form = "a stage's other numbers, e.g. lr=5e-4", "NAME=VALUE"
    add("--set", type=commands.setting, nargs="*", default=[], metavar=form, help=said)
    add = judge.add_argument
    add("--scenes", type=commands.count, default=256)
    add("--live", action="store_true", help="the live student and the tiny decoder")
    add("--json", type=commands.new_file, help="where the table goes; else a file in --out")
    add("--few-step", action="store_true", help="the few-step variant, unguided")
    add("--steps", type=commands.count, help="denoising steps (16; few-step: 5)")
    args = parser.parse_args(argv)
    {"sprites": draw, "train": learn, "eval": measure}[args.todo](parser, args)


def draw(parser, args) -> None:
    from .sprites import draw_sheet

    print("wrote", draw_sheet(args.font))


def measure(parser, args) -> None:
    if not (args.folder / "model_index.json").is_file():
        raise FileNotFoundError(f"{args.folder} holds no model: train one there first")
    args.out.mkdir(parents=True, exist_ok=True)
    if args.live:
        from .evaluate_live import evaluate as evaluate_live

        result, name = evaluate_live(args.folder, args.out, args.scenes), "eval_live.json"
    else:
        from .evaluate import evaluate

        options = {"steps": args.steps} if args.steps else {}
        if args.few_step:
            options = {"steps": 5, "picture_guidance": 1.0, "clip_guidance": 1.0} | options
        result = evaluate(args.folder, args.out, args.scenes, few_step=args.few_step, **options)
        name = "eval_few_step.json" if args.few_step else "eval.json"
    write_text(args.json or args.out / name, json.dumps(result, indent=1) + "\n")


def learn(parser, args) -> None:
    from .networks import write_layout
    from .training.common import Stage

    first = os.environ.get("RANK", "0") == "0"  # of several processes one writes
    if args.stage == "all" and (args.seconds or args.set):
        parser.error("--seconds and --set are for one stage: name it")
    args.out.mkdir(parents=True, exist_ok=True)
    if first:
        write_layout(args.folder)
    for name in STAGES if args.stage == "all" else [args.stage]:
        options = dict(args.set)
        if args.photos and name == "vae":
            options["photos"] = args.photos
        longer = {k: options.pop(k) for k in ("total", "before") if k in options}
        limit = args.seconds or STAGES[name], args.max_steps
        stage = Stage(args.folder, args.out, *limit, **longer)
        module = importlib.import_module(f".training.{name}", __package__)
        result = module.train(stage, **options)
        stage.ranks.end()
        if first:
            write_text(args.out / f"{name}.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(commands.answered("ivkit.storybook", main))
