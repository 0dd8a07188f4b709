"""`python -m ivkit demo`: the quickstart on recorded input; `... models`: what can be loaded."""

import argparse
import sys
from pathlib import Path


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ivkit", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="make the quickstart's clip without opening it")
    demo.add_argument("--model", default=None, help="any name that ivkit.load knows")
    demo.add_argument("--out", type=Path, default=Path("outputs/demo"), help="default: %(default)s")
    commands.add_parser("models", help="every checkpoint that ivkit.load knows by name")
    args = parser.parse_args(argv)

    if args.command == "models":
        from ivkit.models.table import listing

        print(listing())
        return 0

    from ivkit.demo import DemoError, demo

    try:
        demo(args.out, model=args.model)
    except DemoError as error:
        print(f"ivkit demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nivkit demo: stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
