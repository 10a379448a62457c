"""The rows of the matrix, in the order in which they are printed, and what each of them holds the store to."""

from __future__ import annotations

from dataclasses import dataclass

from tests.crash import homes
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
    prefect,
    server,
    shared,
    sigkill,
    stopped,
    syscalls,
)


@dataclass(frozen=True)
class Fault:
    """One row: what runs it, and what a person is promised of it (a violation is a promise that was broken)."""

    run: Row
    promise: str


#: What a person can meet, whatever the database is.
COMMON: dict[str, Fault] = {
    "SIGKILL at a random moment": Fault(
        sigkill.row, "the stage that was running is run again; nothing that was finished is lost or done twice"
    ),
    "every failpoint x {kill, ENOSPC, EIO}": Fault(
        failpoints.row, "the same, at every step of a stage's commit; an error is one sentence"
    ),
    "k-th write, fsync, rename, openat fails or kills": Fault(
        syscalls.row, "the same, at every call to the operating system"
    ),
    "power cut (ext4, XFS)": Fault(power.row, "what was acknowledged is on the disk"),
    "order of writes, syncs and renames": Fault(order.row, "no name before its bytes, no acknowledgement before both"),
    "a checkpoint flipped, cut, emptied, deleted, newer": Fault(
        checkpoints.row, "it is set aside and written again, a newer one is left alone"
    ),
    "the database flipped, cut, emptied, a folder, HTML, newer, without its -wal": Fault(
        database.row,
        "it is named, set aside and rebuilt from the checkpoints; only who ran each stage and when is gone, and of "
        "finished sessions the way to the newest three boundaries",
    ),
    "disk full at 20 levels, then freed": Fault(full_disk.row, "one sentence, and it goes on when there is room"),
    "SIGSTOP, takeover, SIGCONT at every step": Fault(stopped.row, "the sleeper finds its fence old and stops"),
    "6 processes on shared sessions, takeovers forced": Fault(shared.takeovers, "every boundary is done once"),
    "two edits on one session id": Fault(shared.two_edits, "one runs, the other says who does"),
    "database locked by another process": Fault(locked.row, "it waits up to 30 s, then says so"),
    "clock a day ahead and behind, DST, leap second": Fault(clock.row, "the fence decides, not the clock"),
    "migration killed, and 8 at once": Fault(migration.row, "the old schema or the new one, after a backup"),
    "bad ids, prompts, feedback, state files, images": Fault(bad_input.row, "one sentence each, and nothing is stored"),
    "random walks beside a model (Hypothesis)": Fault(model.row, "the store and a plain model say the same throughout"),
    "Prefect's server, flows, runner killed; reboot": Fault(
        prefect.row, "under `edi serve` nobody types anything: every edit is continued, but for one that was cancelled"
    ),
    "`edi edit` killed again and again, with its server": Fault(prefect.alone, "one `edi resume` brings it to its end"),
}

#: What only a database server does.
ON_A_SERVER: dict[str, Fault] = {
    "links to the server cut at random moments": Fault(server.links, "as if the process was killed: nothing is lost"),
    "one process of the server killed": Fault(server.backends, "the server recovers, and the next process goes on"),
    "the server killed and started again": Fault(server.servers, "the same"),
    "SIGSTOP inside a transaction, for longer than the server allows": Fault(
        server.stand_still, "the sleeper keeps its own session waiting, and for 10 s at most"
    ),
    "migration on the server killed, cut, and 8 at once": Fault(server.migration, "the old schema or the new one"),
}

ROWS: dict[str, Fault] = COMMON | (ON_A_SERVER if homes.SERVER else {})
