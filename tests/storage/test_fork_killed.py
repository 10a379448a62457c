"""A fork that is killed, or whose disk fails, is not there or whole, and two that are made at once are one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from edi_storage import Store, open_store
from edi_storage.doctor import doctor
from edi_storage.errors import EdiError
from edi_storage.failpoints import FORK_NAMES
from edi_storage.forking import Fork, Wanted, make_fork, plan_fork, stages_of
from edi_storage.models import SessionData
from edi_storage.recovery import FORKING
from edi_storage.settings import Settings
from tests.storage.test_fork import ID, edited, everything, forked

# --- Killed, and on a failing disk -------------------------------------------------------------------

MAKE = """
import sys
from edi_storage.errors import EdiError
from edi_storage.forking import Wanted, make_fork, plan_fork
from edi_storage.settings import load_settings
from edi_storage.store import open_store
with open_store(load_settings()) as store:
    parent = store.database.require_session("s-1")
    try:
        make_fork(store, plan_fork(store, parent, Wanted("edit", "fork")))
    except EdiError as error:
        print(error)
        sys.exit(3)
"""


def environment_of(settings: Settings) -> dict[str, str]:
    """What a process needs to work in the same home."""
    told = {"EDI_DATABASE_URL": settings.database_url, "EDI_STORAGE_URL": settings.storage_url}
    schemes = ",".join(settings.allowed_schemes)
    return {**os.environ, **told, "EDI_HOME": str(settings.home), "EDI_ALLOWED_SCHEMES": schemes}


def fork_in_a_process(settings: Settings, traps: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", MAKE]
    environment = {**environment_of(settings), "EDI_FAILPOINTS": traps}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)


@pytest.mark.parametrize("name", FORK_NAMES)
def test_a_killed_fork_is_not_there_or_whole(settings: Settings, name: str) -> None:
    with open_store(settings) as store:
        parent = edited(store)
        before = everything(store, settings, ID)
    done = fork_in_a_process(settings, f"{name}=kill")
    assert done.returncode == -signal.SIGKILL, done.stderr
    with open_store(settings) as store:
        committed = name in ("fork.after_commit", "fork.before_export")
        assert (store.database.get_session("fork") is not None) == committed
    assert all(finding.repaired for finding in doctor(settings, repair=True))
    assert doctor(settings) == []
    with open_store(settings) as store:
        assert (store.files.list("fork") != []) == committed
        forked(store, parent, "edit")
        assert len(store.database.get_commits("fork")) == 7
        assert not store.files.exists(f"fork/{FORKING}")
        assert everything(store, settings, ID) == before
    assert doctor(settings) == []


@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("files.before_fsync", marks=pytest.mark.local_files("an object store is not synced by EDI")),
        "fork.after_boundaries",
        "fork.before_commit",
        "fork.after_commit",
    ],
)
def test_a_failing_disk_is_one_sentence_and_trying_again_helps(settings: Settings, name: str, error: str) -> None:
    with open_store(settings) as store:
        edited(store)
    done = fork_in_a_process(settings, f"{name}={error}")
    # An error of the link after the COMMIT: the fork is found there, and nobody need hear of it.
    found = (name, error) == ("fork.after_commit", "EIO")
    assert (done.returncode, done.stdout.count("\n")) == ((0, 0) if found else (3, 1)), done.stderr
    assert fork_in_a_process(settings, "").returncode == 0
    assert all(finding.repaired for finding in doctor(settings, repair=True))
    with open_store(settings) as store:
        assert len(store.database.get_commits("fork")) == 7


def test_doctor_does_not_take_away_the_files_of_a_fork_that_is_being_made(settings: Settings, store: Store) -> None:
    """They are removed under the lock under which the fork looks for them: so it fails, and may be made again."""
    parent = edited(store)
    fork = plan_fork(store, parent, Wanted("edit", "fork"))
    real = store.database.add_fork

    def meanwhile(*args: Any, **kwargs: Any) -> SessionData:
        assert [finding.repaired for finding in doctor(settings, repair=True)] == [True]
        return real(*args, **kwargs)

    store.database.add_fork = meanwhile  # type: ignore[method-assign]
    with pytest.raises(EdiError, match="removed meanwhile: try again"):
        make_fork(store, fork)
    store.database.add_fork = real  # type: ignore[method-assign]
    assert store.database.get_session("fork") is None
    make_fork(store, fork)
    assert doctor(settings) == []


def test_two_processes_that_make_the_same_fork_make_one(settings: Settings) -> None:
    with open_store(settings) as store:
        edited(store)
    command, environment = [sys.executable, "-c", MAKE], environment_of(settings)
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [(process.wait(240), process.communicate()[0]) for process in both] == [(0, "")] * 3
    with open_store(settings) as store:
        assert len(store.database.get_commits("fork")) == 7
    assert doctor(settings) == []


def test_a_fork_that_another_process_makes_meanwhile_is_not_taken_for_a_lost_one(store: Store) -> None:
    parent = edited(store)
    fork = plan_fork(store, parent, Wanted("edit", "fork"))
    real = store.database.get_session

    def meanwhile(session_id: str) -> SessionData | None:
        store.database.get_session = real  # type: ignore[method-assign]
        found = real(session_id)
        make_fork(store, fork)
        return found

    store.database.get_session = meanwhile  # type: ignore[method-assign]
    make_fork(store, plan_fork(store, parent, Wanted("edit", "fork")))
    assert len(store.database.get_commits("fork")) == 7


def test_a_plan_names_every_stage_once(store: Store) -> None:
    edited(store)
    stages = stages_of(store.database.get_commits(ID))
    assert [step.label for step in stages] == [
        *("analysis", "intent", "refine 0", "refine 1", "refine 2", "refine 3", "edit", "validation"),
    ]
    assert isinstance(plan_fork(store, store.database.require_session(ID), Wanted("edit", "x")), Fork)
