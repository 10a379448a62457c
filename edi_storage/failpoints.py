"""Failpoints: named moments of the commit protocol at which a test can kill, stop or fail the process.

Off unless EDI_FAILPOINTS is set when this module is imported: `reach` is then a function without a body. It holds
`name=action@n` items with semicolons between them: at the n-th time (1 if left out) that `name` is reached, the action
happens, once. Actions: `kill` (SIGKILL), `stop` (SIGSTOP), `pause:FILE` (wait until FILE is there), or the name of an
errno such as ENOSPC or EIO, raised as the operating system would. Only tests use them.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

_VARIABLE = "EDI_FAILPOINTS"

#: Every moment there is, in the order in which the commit of a stage comes by: a test goes through all of them.
NAMES = (
    "files.before_write",
    "files.before_fsync",
    "files.before_rename",
    "files.after_rename",
    "files.after_fsync",
    "commit.after_begin",
    "commit.after_lease",
    "commit.after_rows",
    "commit.after_insert",
    "commit.before_commit",
    "commit.after_commit",
    "export.before_checkpoint",
    "export.after_checkpoint",
    "export.after_mark",
    "lease.before_renew",
    "lease.before_release",
    "deliver.before_write",
)

#: The same of a fork, which an edit does not come by.
FORK_NAMES = (
    "fork.before_files",
    "fork.after_share",
    "fork.after_files",
    "fork.after_begin",
    "fork.after_boundaries",
    "fork.before_commit",
    "fork.after_commit",
    "fork.before_export",
)

#: The same of folding feedback in.
LEARN_NAMES = ("learn.after_begin", "learn.before_commit")


@dataclass(frozen=True)
class _Trap:
    action: str
    at: int


_traps: dict[str, _Trap] = {}
#: How often each failpoint was reached since the last `arm`.
reached: Counter[str] = Counter()


def arm(spec: str) -> None:
    """Set the traps of this process, and only these. Raises ValueError for a name or an action that is not known."""
    traps = dict(_parse(item) for item in spec.split(";") if item)
    _traps.clear()
    reached.clear()
    _traps.update(traps)


def _parse(item: str) -> tuple[str, _Trap]:
    name, _, rest = item.partition("=")
    action, _, count = rest.partition("@")
    if name not in NAMES + FORK_NAMES + LEARN_NAMES:
        raise ValueError(f"there is no failpoint {name!r}")
    if action not in ("kill", "stop") and not action.startswith("pause:") and not hasattr(errno, action):
        raise ValueError(f"there is no action {action!r}")
    return name, _Trap(action, int(count or 1))


def _spring(name: str) -> None:
    reached[name] += 1
    trap = _traps.get(name)
    if trap is not None and reached[name] == trap.at:
        _act(trap.action)


def _act(action: str) -> None:
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif action.startswith("pause:"):
        while not Path(action.removeprefix("pause:")).exists():
            time.sleep(0.005)
    else:
        number = getattr(errno, action)
        raise OSError(number, os.strerror(number))


if _VARIABLE in os.environ:

    def reach(name: str) -> None:
        """The moment `name` has come."""
        _spring(name)

    arm(os.environ[_VARIABLE])
else:

    def reach(name: str) -> None:
        """The moment `name` has come; nothing happens."""
