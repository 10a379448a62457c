"""Whatever is killed in the middle of an edit: within two minutes the edit is done, and nobody did a thing for it."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from tests.browser.photos import large_photo
from tests.flows.control import Control, Serve, processes_of
from tests.waiting import wait_until

#: What people are promised: seconds from the kill to the end of the edit.
PROMISED = 120

#: What dies, and whether `edi serve` is started again, as a person or a service manager does.
KILLED: dict[str, tuple[Collection[str], bool]] = {
    "the process of the edit": (["flow"], False),
    "the worker": (["runner"], False),
    "the server": (["server"], False),
    "edi serve": (["serve"], True),
    "the machine": (["serve", "server", "runner", "flow"], True),
}


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """A running `edi serve`, set up as it is for everybody; a test that kills it starts it again."""
    serve = Serve(tmp_path_factory.mktemp("healed"))
    try:
        serve.start()
        yield serve
        serve.stop()
    finally:
        serve.kill(["serve", "server", "runner", "flow"])


@pytest.mark.parametrize("what", KILLED)
def test_an_edit_is_completed_within_two_minutes_after_the_kill_of(what: str, serve: Serve, tmp_path: Path) -> None:
    control = Control(serve.home, serve.port)
    run = control.start("edit-image", image_path=str(large_photo(tmp_path)), prompt="make the sky dramatic")
    roles, again = KILLED[what]
    with control.database() as database:
        wait_until(lambda: database.last_seq(run) >= 2, "the analysis")
        serve.kill(roles)
        promised = time.monotonic() + PROMISED
        before = database.get_commits(run)
        assert database.require_session(run).status == "in_progress", "it was done before the kill"
        if again:
            serve.start()
        wait_until(
            lambda: database.require_session(run).status == "completed", "the resume", promised - time.monotonic()
        )
        after = database.get_commits(run)
        rows = database.load_session(run)
    assert after[: len(before)] == before, "a finished stage was run again"
    assert after[-1].stage == "completed"
    assert len({commit.key for commit in after}) == len(after)
    assert len({prompt.iteration for prompt in rows.prompts}) == len(rows.prompts)
    assert len({result.attempt_number for result in rows.validations}) == len(rows.validations)
    control.wait_for(run, "Completed", "the end of the very run that was asked for")
    wait_until(lambda: not _tasks_at_work(control, run), "an end of the task that the killed process was at")
    assert sorted(set(processes_of(serve.home).values()) - {"flow"}) == ["runner", "serve", "server"]


def _tasks_at_work(control: Control, run: str) -> list[str]:
    return [task["name"] for task in control.tasks(run) if task["state_type"] == "RUNNING"]
