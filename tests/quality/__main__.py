"""`python -m tests.quality [PART ...]`: measure the embedded engines and print the figures beside their bars."""

from __future__ import annotations

import argparse
import importlib

from tests.quality.figures import Figure, table

#: Modules of this package, each with `measure() -> list[Figure]`.
PARTS = ("analysis", "intent", "validation")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.quality", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"by default all of: {', '.join(PARTS)}")
    chosen = parser.parse_args().parts or list(PARTS)
    if unknown := [part for part in chosen if part not in PARTS]:
        parser.error(f"there is no part {unknown[0]!r}; the parts are: {', '.join(PARTS)}")
    figures: list[Figure] = []
    for part in chosen:
        figures += importlib.import_module(f"tests.quality.{part}").measure()
    print(table(figures))
    return 0 if all(figure.holds for figure in figures) else 1


if __name__ == "__main__":
    raise SystemExit(main())
