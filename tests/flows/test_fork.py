"""Going back: a fork through the real command and the real flow, on a real photo."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edi_storage.store import open_store
from tests import homes
from tests.flows.conftest import PALACE, Edi, all_is_well
from tests.storage.sessions import SESSION, commit_all

DRAMATIC = ("edit", str(PALACE), "make the sky dramatic")
AGAIN = ("fork", "first", "--from", "refinement", "--strength", "very strong", "--session-id", "strong")


def files_of(edi: Edi, session_id: str) -> dict[str, str]:
    """The digest of every file of a session."""
    with open_store(homes.settings_of(edi.home)) as store:
        paths = [f"{session_id}.json", *store.files.list(session_id)]
        return {path: hashlib.sha256(store.files.read(path)).hexdigest() for path in paths}


def operations(shown: dict[str, Any]) -> Any:
    return shown["state"]["validation"]["attempts"]["1"]["operations"]


def test_a_stronger_sky_from_the_same_analysis_even_if_it_is_killed(edi: Edi) -> None:
    edi.json(*DRAMATIC, "--session-id", "first")
    before, files = edi.json("show", "first"), files_of(edi, "first")
    edi.killed("begin", "edit", *AGAIN)
    (result,) = edi.json("resume", "--all")["sessions"]
    assert (result["session_id"], result["status"]) == ("strong", "completed")
    assert (result["parent_session_id"], result["forked_from_stage"]) == ("first", "refine 0")
    after = edi.json("show", "strong")
    # Nothing of the parent has changed, and nothing that it had done was done again.
    assert (edi.json("show", "first"), files_of(edi, "first")) == (before, files)
    for ours, theirs in zip(after["stage_commits"][:3], before["stage_commits"][:3], strict=True):
        assert (ours["started_at"], ours["finished_at"]) == (theirs["started_at"], theirs["finished_at"])
        assert (ours["fence"], ours["flow_run_id"]) == (0, None)
    assert [commit["stage"] for commit in after["stage_commits"]].count("analysis") == 1
    # What comes of it is another picture, as strong as it was asked for.
    assert operations(before)[0]["parameters"]["strength"] == 0.6
    assert operations(after)[0]["parameters"]["strength"] == 1.0
    assert "dramatic sky (dramatic) at 100 %" in after["prompts"][-1]["positive_prompt"]
    assert after["state"]["edited_image_path"] != before["state"]["edited_image_path"]
    assert all_is_well(edi)
    # Asked for again, it is the same fork.
    again = edi.json(*AGAIN)
    assert again["edited_image_path"] == result["edited_image_path"]
    assert len(edi.json("sessions")) == 2
    # The parent is remembered without a database, and outlived.
    homes.lose_database(edi.home)
    assert edi.json("doctor", "--repair")["ok"]
    assert edi.json("show", "strong")["sessions"][0]["parent_session_id"] == "first"
    edi("delete", "first", "--yes")
    assert edi.json("history", "strong")["parent"] == {"session_id": "first", "from": "refine 0", "exists": False}
    assert all_is_well(edi)


RUN = "import sys; from flows.fork import fork_session; print(fork_session(**eval(sys.argv[1]))['session_id'])"


def test_the_deployments_flow_goes_back_too_and_another_prompt_is_understood_anew(edi: Edi, tmp_path: Path) -> None:
    edi.killed("begin", "intent", *DRAMATIC, "--session-id", "first")
    parameters = {"parent": "first", "stage": "intent", "prompt": "make it warmer", "session_id": "warm"}
    command = [sys.executable, "-c", RUN, repr(parameters)]
    done = edi._run(command)
    assert done.stdout.split()[-1:] == ["warm"], done.stderr
    shown = edi.json("show", "warm")
    assert shown["sessions"][0]["status"] == "completed"
    assert shown["sessions"][0]["parent_session_id"] == "first"
    assert shown["intents"][0]["action"] == "warmth"
    assert edi.json("history", "first")["forks"][0]["session_id"] == "warm"


# --- Where no edit is needed -------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path) -> Edi:
    """A home with the finished session s-1; nothing in it can be run, as there is no server."""
    home = tmp_path / "home"
    with open_store(homes.settings_of(home)) as store:
        for content, suffix in (("photo", ".jpg"), ("sky_0", ".png"), ("building_0", ".png"), ("edited", ".png")):
            store.files.put(SESSION.session_id, content.encode(), suffix)
        lease = store.database.begin_session(SESSION, "test", 30)
        commit_all(store.database, lease)
        store.database.release(lease)
    return Edi(home, {"PREFECT_API_URL": "http://127.0.0.1:9/api"})


@pytest.mark.parametrize(
    "arguments",
    [
        ("nobody", "--from", "intent"),
        ("s-1", "--from", "nonsense"),
        ("s-1", "--from", "attempt 2: edit"),
        ("s-1", "--from", "edit", "--prompt", "warmer"),
        ("s-1", "--from", "intent", "--prompt", "x" * 2001),
        ("s-1", "--from", "intent", "--prompt", "a \udcff b"),
        ("s-1", "--from", "refinement", "--strength", "1.5"),
        ("s-1", "--from", "edit", "--strength", "0.5"),
        ("s-1", "--from", "edit", "--session-id", "../up"),
        ("s-1", "--from", "edit", "--session-id", "s-1"),
        ("s-1", "--from", "edit", "--output", "result.gif"),
        ("s-1", "--from", "edit", "--output", str(PALACE)),
    ],
    ids=lambda arguments: " ".join(arguments)[:50].encode("ascii", "replace").decode(),
)
def test_what_cannot_be_forked_is_said_in_one_sentence_before_anything_starts(
    kept: Edi, arguments: tuple[str, ...]
) -> None:
    refused = kept("fork", *arguments, expect=2)
    assert len(refused.stderr.strip().splitlines()) == 1
    assert "Traceback" not in refused.stderr
    assert [session["session_id"] for session in kept.json("sessions")] == ["s-1"]


def test_left_for_later_it_needs_no_prefect_and_is_the_same_when_asked_for_again(kept: Edi) -> None:
    later = ("fork", "last", "--from", "edit", "--session-id", "later", "--no-run")
    assert "Run it with: edi resume later" in kept(*later).stdout
    again = kept.json(*later)
    assert (again["parent_session_id"], again["forked_from_stage"], again["status"]) == ("s-1", "edit", "in_progress")
    assert kept.json("resume", "--all") == {"sessions": []}, "it waits until somebody names it"


def test_the_form_says_what_each_field_is_and_asks_for_one_only() -> None:
    from prefect.utilities.callables import parameter_schema

    from flows.fork import fork_session

    schema = parameter_schema(fork_session).model_dump()
    assert schema["required"] == ["parent"]
    for name, field in schema["properties"].items():
        assert field["title"] != name, name
        assert field["description"], name
        assert "anyOf" not in field, name


def test_help_answers_without_prefect() -> None:
    code = "import sys, flows.cli, flows.history; print('prefect' in sys.modules, 'numpy' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.split() == ["False", "False"]
