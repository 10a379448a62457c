"""Who holds a lease, and whether that process is provably gone.

A lease that runs out frees a session anyway, whatever became of its owner. But a process that was killed on this
very machine can be told at once, so that a resume right after the kill need not wait for the lease.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path


def owner_name(flow_run_id: str | None = None) -> str:
    """This process as the owner of a lease: `<machine>:<process id>:<flow run id>`."""
    return f"{_machine()}:{os.getpid()}:{flow_run_id or 'no-flow'}"


def is_gone(owner: str) -> bool:
    """Whether the owner was a process of this machine, since its last start, that no longer runs.

    Any doubt (another machine or container, an odd name, a process id in use again) counts as not gone.
    """
    machine, _, rest = owner.partition(":")
    process = rest.partition(":")[0]
    if machine != _machine() or not process.isdigit():
        return False
    return no_longer_runs(int(process))


def no_longer_runs(process: int) -> bool:
    """Whether no process of this id is left on this machine; any doubt counts as running."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return _is_zombie(process)


def _machine() -> str:
    """Host name, boot and process namespace: process ids mean the same only where all three agree."""
    parts = [socket.gethostname().replace(":", "-")]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()[:8])
        parts.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    except OSError:
        pass  # not Linux: the host name has to do
    return "-".join(parts)


def _is_zombie(process: int) -> bool:
    """A killed process that its parent has not waited for still has an id."""
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    # "pid (name) state ...", and the name may hold anything, also brackets.
    return status.rpartition(")")[2].split()[:1] in (["Z"], ["X"])
