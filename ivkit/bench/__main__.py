"""`python -m ivkit.bench NAME`; each benchmark is the module of that name.

A benchmark module has `add_arguments(parser)` and `main(args)`; its docstring is its help.
"""

import argparse
import sys
from importlib import import_module

from ivkit.support.commands import answered

NAMES = ("latency", "live", "storybench", "animatebench", "study", "charts")


def main(argv=None, package: str = "ivkit.bench", names=NAMES) -> None:
    parser = argparse.ArgumentParser(prog=f"python -m {package}")
    commands = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    for name in names:  # their heavy imports are inside their functions
        module = import_module(f"{package}.{name}")
        summary = module.__doc__.splitlines()[0]
        command = commands.add_parser(name, help=summary, description=module.__doc__)
        module.add_arguments(command)
        command.set_defaults(main=module.main)
    args = parser.parse_args(argv)
    args.main(args)


if __name__ == "__main__":
    sys.exit(answered("ivkit.bench", main))
