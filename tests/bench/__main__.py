"""`python -m tests.bench NAME`: what a maintainer measures, on a GPU or for the README."""

import sys

from ivkit.bench import __main__ as bench
from ivkit.support.commands import answered

NAMES = (
    *("full", "gpu", "scaling", "notebooks", "results"),
    *("pictures", "record", "drawings", "cases", "rendered"),
)


def main(argv=None) -> None:
    bench.main(argv, "tests.bench", NAMES)


if __name__ == "__main__":
    sys.exit(answered("tests.bench", main))
