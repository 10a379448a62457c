"""`python -m tests.crash --quick | --full [--only ROW] [--seed N]`: run the faults, print the matrix."""

from __future__ import annotations

import argparse
import sys
import time

from tests.crash import homes
from tests.crash.bench import Result, run_row, table
from tests.crash.matrix import ROWS
from tests.crash.processes import processes

#: So many violations of a row are printed.
_SHOWN = 8


def main() -> int:
    options = _options()
    chosen = {name: row for name, row in ROWS.items() if options.only.lower() in name.lower()}
    if not chosen:
        print(f"No row has {options.only!r} in its name. The rows are:\n  " + "\n  ".join(ROWS))
        return 2
    started, results = time.monotonic(), []
    with processes() as running:
        for name, row in chosen.items():
            results.append(run_row(name, row, running, full=options.full, seed=options.seed))
            _tell(results[-1])
    print(f"\n{table(results)}\n")
    mode = "full" if options.full else "quick"
    where = "PostgreSQL" if homes.SERVER else "SQLite"
    print(f"{mode}, on {where}, seed {options.seed}, {time.monotonic() - started:.0f} s in all.")
    return 1 if any(result.violations for result in results) else 0


def _tell(result: Result) -> None:
    for text in result.violations[:_SHOWN]:
        print(f"VIOLATION  {result.name}: {text}")
    for text in result.notes:
        print(f"note       {result.name}: {text}")
    found = f"skipped: {result.skipped}" if result.skipped else f"{len(result.violations)} violations"
    print(f"{result.name}: {result.rounds} rounds, {found}, {result.seconds:.1f} s", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--quick", action="store_true", help="every kind of fault, in under 4 minutes")
    how.add_argument("--full", action="store_true", help="the whole matrix, in under an hour")
    parser.add_argument("--only", default="", metavar="ROW", help="rows with this in their name")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="draw the same chances again")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
