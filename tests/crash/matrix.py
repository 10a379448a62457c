"""The rows of the matrix, in the order in which they are printed."""

from __future__ import annotations

from tests.crash.bench import Row
from tests.crash.rows import (
    bad_input,
    checkpoints,
    clock,
    database,
    failpoints,
    full_disk,
    locked,
    migration,
    model,
    order,
    power,
    server,
    shared,
    sigkill,
    stopped,
    syscalls,
)

ROWS: dict[str, Row] = {
    "SIGKILL at a random moment": sigkill.row,
    "every failpoint x {kill, ENOSPC, EIO}": failpoints.row,
    "a checkpoint flipped, cut, emptied, deleted, newer": checkpoints.row,
    "the database flipped, cut, emptied, a folder, HTML, newer, without its -wal": database.row,
    "SIGSTOP, takeover, SIGCONT at every step": stopped.row,
    "6 processes on shared sessions, takeovers forced": shared.takeovers,
    "two edits on one session id": shared.two_edits,
    "disk full at 20 levels, then freed": full_disk.row,
    "database locked by another process": locked.row,
    "clock a day ahead and behind, DST, leap second": clock.row,
    "migration killed, and 8 at once": migration.row,
    "bad ids, prompts, feedback, state files, images": bad_input.row,
    "random walks beside a model (Hypothesis)": model.row,
    "k-th write, fsync, rename, openat fails or kills": syscalls.row,
    "order of writes, syncs and renames": order.row,
    "power cut (ext4, XFS)": power.row,
    "links to the server cut at random moments": server.links,
    "one process of the server killed": server.backends,
    "the server killed and started again": server.servers,
    "SIGSTOP inside a transaction, for longer than the server allows": server.stand_still,
    "migration on the server killed, cut, and 8 at once": server.migration,
}
