"""Telling a dead owner of a lease from a living one, with real processes."""

from __future__ import annotations

import os
import subprocess
import sys

from edi_storage.owner import is_gone, owner_name


def test_this_process_is_not_gone() -> None:
    assert not is_gone(owner_name("run"))


def test_a_process_that_was_killed_is_gone_even_before_its_parent_waits() -> None:
    script = "from edi_storage.owner import owner_name; print(owner_name(), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        owner = process.stdout.readline().strip()
        assert not is_gone(owner)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, but still a zombie
        assert is_gone(owner)
        process.wait()
        assert is_gone(owner)


def test_a_process_of_another_machine_is_never_called_gone() -> None:
    assert not is_gone("elsewhere:1:run")


def test_odd_names_are_never_called_gone() -> None:
    machine = owner_name().partition(":")[0]
    for owner in ("", "test", machine, f"{machine}:", f"{machine}:x:run", f"{machine}:-1:run", f"{machine}:{10**30}:r"):
        assert not is_gone(owner)
