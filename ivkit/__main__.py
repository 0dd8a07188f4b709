"""`python -m ivkit demo`: the quickstart on recorded input; `... models`: what can be loaded.

`... student FOLDER`: the course with stubs and without solutions; `... mark PATH`: what the
exercises' checks say of notebooks that came back.
"""

import argparse
import sys
from pathlib import Path

from ivkit.support import commands


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ivkit", description=__doc__)
    todo = parser.add_subparsers(dest="command", required=True)
    demo = todo.add_parser("demo", help="make the quickstart's clip without opening it")
    demo.add_argument("--model", default=None, help="any name that ivkit.load knows")
    demo.add_argument(
        "--out", type=commands.folder, default="outputs/demo", help="default: %(default)s"
    )
    todo.add_parser("models", help="every checkpoint that ivkit.load knows by name")
    student = todo.add_parser("student", help="write the course without its solutions")
    student.add_argument("folder", metavar="FOLDER", type=Path, help="a new or empty folder")
    mark = todo.add_parser("mark", help="run students' notebooks and read their checks")
    mark.add_argument("paths", metavar="PATH", nargs="+", help="notebooks, or folders of them")
    mark.add_argument(
        "--csv", type=commands.new_file, default=None, help="also write the marks here"
    )
    args = parser.parse_args(argv)
    runs = {"demo": _demo, "models": _models, "student": _student, "mark": _mark}
    return commands.answered(f"ivkit {args.command}", lambda: runs[args.command](args))


def _demo(args) -> None:
    from ivkit.course.demo import demo

    demo(args.out, model=args.model)


def _models(args) -> None:
    from ivkit.models.table import listing

    print(listing())


def _student(args) -> None:
    from ivkit.course.classroom import student

    for path in student(args.folder):
        print(path)


def _mark(args) -> None:
    from ivkit.course.classroom import mark, notebooks_in, write_marks

    paths = notebooks_in(args.paths)
    if not paths:
        raise ValueError(f"there is no notebook in {', '.join(args.paths)}")
    marks = []
    for path in paths:
        found = mark(path)
        print(f"{path}: {sum(one.right for one in found)} of {len(found)} right", flush=True)
        for one in found:
            print(f"    {one.check:24s} {one.said}")
        marks += found
        if args.csv is not None:  # after each notebook: a stop keeps what is done
            write_marks(args.csv, marks)


if __name__ == "__main__":
    sys.exit(main())
