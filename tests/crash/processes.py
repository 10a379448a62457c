"""Real processes that start in milliseconds: a process that has everything imported forks one for each task.

The forked process has no database open and shares nothing; it can be killed, stopped and traced by its id.
"""

from __future__ import annotations

import importlib
import logging
import os
import pickle
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

#: No step of any row takes this long, also on a machine with much else to do: who does has hung.
PATIENCE = 180.0

#: Imported once, before the forks. Alembic's parts too: the first process of a home makes the database.
PRELOADED = (
    "alembic.autogenerate",
    "alembic.command",
    "edi_storage.doctor",
    "edi_storage.migrations.runner",
    "edi_storage.migrations.env",
    "edi_storage.recovery",
    "PIL.GifImagePlugin",
    "PIL.JpegImagePlugin",
    "PIL.PngImagePlugin",
    "flows.engines.photo",
    "flows.output",
    "hypothesis.stateful",
    "pysqlite3.dbapi2",
    "flows.session",
    "psycopg",
    "sqlalchemy.dialects.postgresql.psycopg",
    "tests.crash.checks",
    "tests.crash.rows.prefect",
    "tests.crash.work",
)


class Hung(AssertionError):
    """A process did not come to an end."""


class Raised(AssertionError):
    """A process ended with a traceback."""


class Line:
    """Pickled messages over a socket; `send`, not `write`, so that faults in write(2) do not touch it."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        self._buffer = b""

    def say(self, message: Any) -> None:
        data = pickle.dumps(message)
        self.end.sendall(struct.pack("!I", len(data)) + data)

    def hear(self, seconds: float = PATIENCE) -> Any:
        """The next message; EOFError when the other side is gone, Hung when nothing comes."""
        until = time.monotonic() + seconds
        while (message := self._whole()) is None:
            if not select.select([self.end], [], [], max(0.0, until - time.monotonic()))[0]:
                raise Hung(f"no message within {seconds:g} s")
            try:
                data = self.end.recv(1 << 16)
            except ConnectionError:
                data = b""
            if not data:
                raise EOFError
            self._buffer += data
        return message[0]

    def _whole(self) -> tuple[Any] | None:
        if len(self._buffer) < 4:
            return None
        size = 4 + struct.unpack_from("!I", self._buffer)[0]
        if len(self._buffer) < size:
            return None
        data, self._buffer = self._buffer[4:size], self._buffer[size:]
        return (pickle.loads(data),)


class Process:
    """One forked process, running a function whose last argument is its line to here."""

    def __init__(self, pid: int, line: Line) -> None:
        self.pid, self.line = pid, line
        self._fd = os.pidfd_open(pid)
        #: Everything it has said so far.
        self.heard: list[Any] = []

    def hear(self, seconds: float = PATIENCE) -> Any:
        message = self.line.hear(seconds)
        self.heard.append(message)
        return message

    def wait(self, seconds: float = PATIENCE) -> list[Any]:
        """Listen until it has ended; returns everything that it said. Kills it and raises Hung when it does not end."""
        until = time.monotonic() + seconds
        try:
            with suppress(EOFError):
                while True:
                    self.hear(max(0.0, until - time.monotonic()))
            if not self.gone(max(0.0, until - time.monotonic())):
                raise Hung(f"process {self.pid} did not end within {seconds:g} s")
        finally:
            self.signal(signal.SIGKILL)
            self.gone(5)
            self.line.end.close()
        return self.heard

    def listen(self, seconds: float) -> None:
        """Take in what it says for so long, or until it ends."""
        until = time.monotonic() + seconds
        with suppress(EOFError, Hung):
            while True:
                self.hear(max(0.0, until - time.monotonic()))

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._fd, number)

    def gone(self, seconds: float = 0) -> bool:
        return bool(select.select([self._fd], [], [], seconds)[0])

    def stopped(self, seconds: float) -> bool:
        """Whether it stands still (SIGSTOP) within so many seconds."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.gone():
            with suppress(OSError):
                if Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt":
                    return True
            time.sleep(0.002)
        return False

    def __del__(self) -> None:
        os.close(self._fd)


class Processes:
    """Starts processes. `close` ends all that still run."""

    def __init__(self) -> None:
        mine, its = socket.socketpair()
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("EDI_") or name.startswith("EDI_TEST_")
        }
        self._line = Line(mine)
        self._mother = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.processes", str(its.fileno())],
            cwd=ROOT,
            env={**kept, "EDI_FAILPOINTS": "", "TZ": "UTC"},
            pass_fds=[its.fileno()],
        )
        its.close()
        self._line.hear()

    def start(self, function: Callable[..., object], *arguments: Any) -> Process:
        """Run `function(*arguments, line)` in a process of its own."""
        mine, its = socket.socketpair()
        # The socket first: a read of the request must not take the byte that carries it along.
        socket.send_fds(self._line.end, [b"!"], [its.fileno()])
        self._line.say((function.__module__, function.__qualname__, arguments))
        its.close()
        process = Process(self._line.hear(), Line(mine))
        # Until now it has waited, so that its id could not vanish before somebody held on to it.
        process.line.say("begin")
        return process

    def call(self, function: Callable[..., Any], *arguments: Any, seconds: float = PATIENCE) -> Any:
        """What `function(*arguments)` returns in a fresh process. Raises Raised with its traceback, or Hung."""
        heard = self.start(_answer, function.__module__, function.__qualname__, arguments).wait(seconds)
        if not heard or heard[-1][0] != "returned":
            raise Raised(brief(heard[-1][1]) if heard else f"{function.__qualname__} was killed")
        return heard[-1][1]

    def close(self) -> None:
        self._line.end.close()
        self._mother.wait(10)


def brief(trace: str) -> str:
    """A traceback as one line: what was raised, and by which lines of EDI's."""
    places = re.findall(r'File "[^"]*/((?:edi_storage|flows)/[^"]+)", line (\d+)', trace)
    last = trace.strip().splitlines()[-1]
    return f"{last[:300]} ({' > '.join(f'{file}:{line}' for file, line in places[-4:])})"


@contextmanager
def processes() -> Iterator[Processes]:
    made = Processes()
    try:
        yield made
    finally:
        made.close()


def _answer(module: str, name: str, arguments: tuple[Any, ...], line: Line) -> None:
    line.say(("returned", _function(module, name)(*arguments)))


def _function(module: str, name: str) -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


# --- In the process that forks -----------------------------------------------------------------------


def _mother(line: Line) -> None:
    """Fork a process for every request, until the other side is gone; then end all that still run."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them: they vanish when they end
    for name in PRELOADED:
        with suppress(Exception):
            importlib.import_module(name)
    # What doctor compares a database with, remembered here once, not computed in every process.
    importlib.import_module("edi_storage.migrations.runner").expected_schema()
    line.say("ready")
    running: list[int] = []
    with suppress(EOFError):
        while fds := socket.recv_fds(line.end, 1, 1)[1]:
            [fd], request = fds, line.hear()
            pid = os.fork()
            if pid == 0:
                line.end.close()
                _child(*request, Line(socket.socket(fileno=fd)))
            os.close(fd)
            running = [*filter(_runs, running), os.pidfd_open(pid)]
            line.say(pid)
    for handle in running:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)


def _runs(handle: int) -> bool:
    if select.select([handle], [], [], 0)[0]:
        os.close(handle)
        return False
    return True


def _child(module: str, name: str, arguments: tuple[Any, ...], line: Line) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    logging.disable()  # thousands of warnings about faults that were made on purpose
    code = 0
    try:
        line.hear()
        _function(module, name)(*arguments, line)
    except BaseException:  # noqa: BLE001 - whatever it is, the driver shows it
        code = 2
        with suppress(OSError):
            line.say(("raised", traceback.format_exc()))
    finally:
        os._exit(code)


if __name__ == "__main__":
    _mother(Line(socket.socket(fileno=int(sys.argv[1]))))
