"""`python -m tests.crash.mutants [NAME]`: break the store on purpose, and see the crash suite notice each time.

Each mutant is one change to a copy of the sources, and the row of the matrix that has to find it. Exit code 1 when one
lives: then the suite has a hole, or the line that the mutant changes is gone.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Mutant:
    """Changes as (file, what stands there once, what stands there instead), and the row that must fail."""

    name: str
    changes: Sequence[tuple[str, str, str]]
    row: str


#: The boundary is committed by the hook that should only write its checkpoint.
_IN_THE_HOOK = """    pending = None

    def commit_stage(self, lease, commit, seconds):
        self.commit_pending()
        self.pending = (lease, commit, seconds)
        return commit.model_copy(update={"fence": lease.fence})

    def commit_pending(self):
        pending, self.pending = self.pending, None
        if pending:
            self.commit_in_hook(*pending)

    def commit_in_hook(self, lease"""

MUTANTS = (
    Mutant(
        "synchronous=NORMAL",
        [("edi_storage/database_file.py", "{'FULL' if mode == 'wal' else 'EXTRA'}", "NORMAL")],
        "order of writes",
    ),
    Mutant("no fsync of the file", [("edi_storage/disk.py", "_sync_file(file.fileno())", "pass")], "order of writes"),
    Mutant(
        "no fsync of the directory",
        [("edi_storage/disk.py", "    try:\n        os.fsync(fd)\n", "    try:\n        pass\n")],
        "order of writes",
    ),
    Mutant(
        "commit without the fence check",
        [
            (
                "edi_storage/queries.py",
                '    _LEASES.c.owner == bindparam("by"),\n    _LEASES.c.fence == bindparam("with_fence"),\n',
                "",
            )
        ],
        "SIGSTOP",
    ),
    Mutant(
        "upsert turned into insert",
        [
            (
                "edi_storage/rows.py",
                "statement.on_conflict_do_update(index_elements=list(keys), set_=changed)",
                "statement",
            ),
            ("edi_storage/rows.py", "statement.on_conflict_do_nothing(index_elements=list(keys))", "statement"),
        ],
        "random walks",
    ),
    Mutant(
        "hook made the commit point",
        [
            ("edi_storage/database.py", "    def commit_stage(self, lease", _IN_THE_HOOK),
            (
                "edi_storage/recovery.py",
                "    noted = store.database.exported_seq",
                "    store.database.commit_pending()\n    commits = store.database.get_commits(session_id)\n"
                "    noted = store.database.exported_seq",
            ),
        ],
        "SIGKILL at a random moment",
    ),
    Mutant(
        "BEGIN deferred",
        [("edi_storage/connection.py", '"BEGIN" if reads else "BEGIN IMMEDIATE"', '"BEGIN"')],
        "6 processes",
    ),
)


def main(wanted: str = "") -> int:
    alive = 0
    for mutant in MUTANTS:
        if wanted.lower() in mutant.name.lower():
            started = time.monotonic()
            found = noticed(mutant)
            alive += not found
            print(f"{mutant.name}: {found or 'NOT NOTICED'} ({time.monotonic() - started:.0f} s)", flush=True)
    return 1 if alive else 0


def noticed(mutant: Mutant) -> str:
    """The first violation that the row finds in the mutant; "" when it finds none."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for room in ("edi_storage", "flows", "deployments", "tests"):
            shutil.copytree(ROOT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
        for file, old, new in mutant.changes:
            text = (copy / file).read_text()
            assert text.count(old) == 1, f"{mutant.name}: {file} has {text.count(old)} places to change"
            (copy / file).write_text(text.replace(old, new))
        command = [sys.executable, "-m", "tests.crash", "--quick", "--only", mutant.row]
        done = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    violation = re.search(r"^VIOLATION +(.*)$", done.stdout, re.MULTILINE)
    return violation[1][:160] if violation and done.returncode == 1 else ""


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
