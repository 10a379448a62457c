"""A child process whose life hangs on a pipe from its parent.

The child reads its standard input, of which only the parent holds the other end. When the parent ends, by whatever
means, the kernel closes that end and the child leaves: a killed parent needs no clean-up of its own.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from edi_storage.errors import EdiError

#: How long a child may take until it is ready. A server's first start runs all of Prefect's migrations: 7 s, or more
#: than a minute on a machine that has other things to do.
START_SECONDS = 180.0

#: How long a child may take to end in good order once its pipe is closed. It takes a second, or many where the
#: machine has other things to do; a shorter time would cost the states of the last task runs.
STOP_SECONDS = 20.0

#: A log is begun anew by the first child that finds it longer than this.
LOG_BYTES = 1_000_000

#: The parent's ends of the pipes.
_pipes: weakref.WeakSet[IO[bytes]] = weakref.WeakSet()


@contextlib.contextmanager
def bound_child(
    command: Sequence[str], *, log: Path, env: Mapping[str, str], pass_fds: Sequence[int] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """Run this Python with `command`, in its own session, errors to `log`; it ends when its standard input does."""
    with _open_log(log) as errors:
        child = subprocess.Popen(  # noqa: S603
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **import_environment(), **env},
            pass_fds=pass_fds,
            # Ctrl-C goes to the parent only, which still needs the child to write down how its run ended.
            start_new_session=True,
        )
    assert child.stdin is not None
    _pipes.add(child.stdin)
    try:
        yield child
    finally:
        end_child(child, STOP_SECONDS)


def end_child(child: subprocess.Popen[bytes], patience: float) -> None:
    """Close the pipe that keeps the child alive, and kill the child if it stays longer than `patience` seconds."""
    for pipe in (child.stdin, child.stdout):
        if pipe:
            pipe.close()
    try:
        child.wait(patience)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def import_environment() -> dict[str, str]:
    """What a child needs to find this package, and not a folder of the same name where the person works."""
    root = str(Path(__file__).absolute().parent.parent)
    found = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    # site-packages must not come before the standard library, and is found anyway.
    paths = found if Path(root).name in {"site-packages", "dist-packages"} else [root, *found]
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(dict.fromkeys(filter(None, paths)))}


def _open_log(path: Path) -> IO[bytes]:
    long = path.exists() and path.stat().st_size > LOG_BYTES
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if long else 0)
    return os.fdopen(os.open(path, flags, 0o600), "ab")


def wait_ready(child: subprocess.Popen[bytes], log: Path, name: str) -> None:
    """Return when the child has said that it is ready; EdiError with the end of its log if it does not."""
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    stdout = child.stdout
    assert stdout is not None
    threading.Thread(target=lambda: lines.put(stdout.readline()), daemon=True).start()
    try:
        line = lines.get(timeout=START_SECONDS)
    except queue.Empty:
        reason = f"did not answer within {START_SECONDS:.0f} seconds"
    else:
        if line:
            return
        reason = f"ended with code {child.wait()}"
    child.kill()
    raise EdiError(f"The Prefect {name} {reason}; see {log}: {_tail(log)}")


def _tail(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace")[-4000:].splitlines() if line.strip()]
    return " / ".join(lines[-3:]) or "(empty)"


def watch_parent(on_end: Callable[[], None]) -> None:
    """In a child: call `on_end` in a thread once the parent has gone or has closed the pipe."""

    def wait() -> None:
        # Not sys.stdin: a thread blocked inside it deadlocks the interpreter's own way out.
        while os.read(0, 1024):
            pass
        on_end()

    threading.Thread(target=wait, daemon=True).start()


def say_ready() -> None:
    """In a child: let the parent's `wait_ready` return. What is printed after that goes to the log."""
    with contextlib.suppress(OSError):  # the parent is gone already
        os.write(1, b"ready\n")
    os.dup2(2, 1)  # nobody reads the pipe any more


def _close_in_fork() -> None:
    # A fork that goes on without exec would keep the children alive after this process.
    for pipe in _pipes:
        with contextlib.suppress(OSError):
            os.close(pipe.fileno())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_fork)
