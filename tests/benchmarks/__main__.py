"""`python -m tests.benchmarks [NAME ...]`: all benchmarks, or those named, one by one; each prints its figures.

Fails when one that has bars misses them. The whole takes more than an hour, and 3 GB for a while.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

NAMES = ("boundary", "peers", "history", "learning", "editing", "orchestration", "batch", "memory", "scale")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", default=NAMES, help=f"by default all of {', '.join(NAMES)}")
    chosen = parser.parse_args().names
    if unknown := set(chosen) - set(NAMES):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    missed = []
    for name in chosen:
        print(f"\n== {name}", flush=True)
        if subprocess.call([sys.executable, "-m", f"tests.benchmarks.{name}"]):
            missed.append(name)
    if missed:
        print(f"\nThese missed their bars: {', '.join(missed)}.")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
