"""A child process that ends with its parent, and one that fails."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from edi_storage.errors import EdiError
from flows.child import bound_child, wait_ready
from tests.flows.processes import line_of, python
from tests.waiting import is_alive, wait_until

#: A process that keeps a child and is then killed; the child's number is printed first.
KILLED_PARENT = """
import os, signal, sys
from pathlib import Path
from flows.child import bound_child
with bound_child(["-c", "import os; os.read(0, 1)"], log=Path(sys.argv[1]), env={}) as child:
    fork = os.fork()
    if fork == 0:
        signal.pause()
    print(child.pid, fork, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_child_ends_with_its_killed_parent_though_a_fork_lives_on(tmp_path: Path) -> None:
    parent = python(KILLED_PARENT, str(tmp_path / "log"), home=tmp_path)
    child, fork = map(int, line_of(parent).split())
    try:
        wait_until(lambda: not is_alive(child))
        assert is_alive(fork)
    finally:
        os.kill(fork, signal.SIGKILL)
        parent.communicate()


def test_a_child_that_fails_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    with (
        bound_child(["-c", "import sys; sys.exit('no such database')"], log=log, env={}) as child,
        pytest.raises(EdiError, match=r"server ended with code 1; see .*server\.log: no such database$"),
    ):
        wait_ready(child, log, "server")
    assert log.stat().st_mode & 0o777 == 0o600
