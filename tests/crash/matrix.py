"""The rows of the matrix, in the order in which they are printed."""

from __future__ import annotations

from tests.crash.bench import Row
from tests.crash.rows import checkpoints, database, failpoints, sigkill

ROWS: dict[str, Row] = {
    "SIGKILL at a random moment": sigkill.row,
    "every failpoint x {kill, ENOSPC, EIO}": failpoints.row,
    "a checkpoint flipped, cut, emptied, deleted, newer": checkpoints.row,
    "the database flipped, cut, emptied, a folder, HTML, newer, without its -wal": database.row,
}
