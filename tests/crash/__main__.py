"""`python -m tests.crash --quick | --full [--only ROW] [--seed N] [--jobs N]`: run the faults, print the matrix."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from concurrent.futures import as_completed

from tests import readme
from tests.crash import homes
from tests.crash.bench import Result, running, table
from tests.crash.matrix import ROWS

#: So many violations of a row are printed.
_SHOWN = 8


def main() -> int:
    options = _options()
    # A shell that starts this in the background has it ignored, and so would every process that is to get a Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    chosen = {name: fault for name, fault in ROWS.items() if options.only.lower() in name.lower()}
    if not chosen:
        print(f"No row has {options.only!r} in its name. The rows are:\n  " + "\n  ".join(ROWS))
        return 2
    started = time.monotonic()
    rows = {name: fault.run for name, fault in chosen.items()}
    # On a server one row at a time: some of them kill it, and all would feel it.
    jobs = options.jobs or (1 if homes.SERVER else None)
    with running(rows, full=options.full, seed=options.seed, jobs=jobs) as futures:
        for done in as_completed(futures.values()):
            _tell(done.result())
    results = [done.result() for done in futures.values()]
    print(f"\n{table(results)}\n")
    mode = "full" if options.full else "quick"
    where = "PostgreSQL" if homes.SERVER else "SQLite"
    print(f"{mode}, on {where}, seed {options.seed}, {time.monotonic() - started:.0f} s in all.")
    if options.readme:
        minutes = (time.monotonic() - started) / 60
        readme.write_survival(results, options.seed, minutes, whole=not options.only)
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
    how.add_argument("--quick", action="store_true", help="every kind of fault; on SQLite in 4 to 10 minutes")
    how.add_argument("--full", action="store_true", help="the whole matrix, in under an hour")
    parser.add_argument("--only", default="", metavar="ROW", help="rows with this in their name")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="draw the same chances again")
    parser.add_argument("--readme", action="store_true", help="write the table into the README; with --only its line")
    parser.add_argument("--jobs", type=int, metavar="N", help="rows at the same time; by default 3, on a server 1")
    options = parser.parse_args()
    if options.readme and (homes.SERVER or not options.full):
        parser.error("--readme takes the long numbers of a SQLite file: --full, without EDI_TEST_DATABASE_URL")
    return options


if __name__ == "__main__":
    sys.exit(main())
