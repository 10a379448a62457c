"""Batches: many photos, a session each, and none of them twice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest
from PIL import Image

from edi_storage.errors import InputError
from edi_storage.models import SessionData
from edi_storage.owner import owner_name
from edi_storage.settings import Settings
from edi_storage.store import open_store
from flows.batch import find_photos, session_id_of
from flows.runners import batch_runner
from tests import homes
from tests.flows.conftest import PALACE, Edi
from tests.waiting import is_alive, wait_until

PHOTOS = ("a.jpg", "b.png", "c.webp")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three small photos."""
    path = tmp_path / "holiday"
    path.mkdir()
    with Image.open(PALACE) as palace:
        for name in PHOTOS:
            palace.resize((320, 213)).save(path / name)
    return path


def batch(edi: Edi, folder: Path, *more: str, expect: int = 0) -> Any:
    return edi.json("batch", str(folder), "--prompt", "make it warmer", *more, expect=expect)


def commits(edi: Edi) -> dict[str, list[tuple[str, str]]]:
    """When each boundary of each session was done."""
    shown = {session["session_id"]: edi.json("show", session["session_id"]) for session in edi.json("sessions")}
    return {
        name: [(commit["stage"], commit["finished_at"]) for commit in one["stage_commits"]]
        for name, one in shown.items()
    }


def test_one_bad_photo_does_not_stop_the_others_and_again_does_nothing_twice(edi: Edi, folder: Path) -> None:
    (folder / "broken.jpg").write_bytes(PALACE.read_bytes()[:20_000])
    out = folder.parent / "out"
    first = batch(edi, folder, "--output-folder", str(out), expect=1)
    by_photo = {row["photo"]: row for row in first["results"]}
    assert [row["photo"] for row in first["results"]] == ["a.jpg", "b.png", "broken.jpg", "c.webp"]
    for name in PHOTOS:
        assert by_photo[name]["decision"] == "accepted"
        assert by_photo[name]["score"] >= 0.8
    assert (by_photo["broken.jpg"]["decision"], by_photo["broken.jpg"]["score"]) == ("failed", None)
    assert "broken.jpg" in by_photo["broken.jpg"]["error"]
    assert sorted(path.name for path in out.iterdir()) == sorted(PHOTOS)
    done = commits(edi)
    assert len(done) == 4
    again = batch(edi, folder, "--output-folder", str(out), expect=1)
    assert again == first
    assert commits(edi) == done
    (table,) = artifacts(edi, f"batch-{first['batch_id']}")
    assert '"decision": "failed"' in table["data"]
    assert table["description"] == "make it warmer: 4 photos: 3 accepted, 1 failed"


def artifacts(edi: Edi, key: str) -> Any:
    import httpx

    api = edi.environment["PREFECT_API_URL"]
    asked = {"artifacts": {"key": {"any_": [key]}}, "limit": 10, "sort": "CREATED_DESC"}
    found = httpx.post(f"{api}/artifacts/filter", json=asked, timeout=60).raise_for_status().json()
    return found[:1]


def test_a_killed_batch_that_is_started_again_does_every_photo_once(edi: Edi, folder: Path) -> None:
    asked = ("batch", str(folder), "--prompt", "make it warmer", "--workers", "1")
    edi.killed("begin", "completed", *asked)
    edi.killed("commit", "completed", *asked)
    before = commits(edi)
    assert 0 < len(before) < 3
    result = batch(edi, folder, "--workers", "1")
    assert [row["decision"] for row in result["results"]] == ["accepted"] * 3
    after = commits(edi)
    assert len(after) == 3
    for name, done in before.items():
        assert after[name][: len(done)] == done, "a finished stage was run again"
    assert all([stage for stage, _ in done].count("completed") == 1 for done in after.values())


def test_what_a_batch_was_at_when_a_person_cancelled_it_is_over_and_comes_back_with_it(edi: Edi, folder: Path) -> None:
    from prefect.client.schemas.objects import FlowRun

    from flows.hooks import mark_batch_cancelled

    run = FlowRun(flow_id=uuid4(), parameters={})
    job = session_id_of("mine", str(folder / "a.jpg"), "make it warmer", {})
    with open_store(homes.settings_of(edi.home)) as store:
        mine = SessionData(session_id=job, image_path=str(folder / "a.jpg"), naive_prompt="make it warmer")
        other = mine.model_copy(update={"session_id": "other"})
        store.database.begin_session(mine, owner_name(str(run.id)), 600)
        store.database.begin_session(other, owner_name(str(uuid4())), 600)
    with pytest.MonkeyPatch.context() as here:
        homes.enter(here, edi.home)
        mark_batch_cancelled(cast("Any", None), run, cast("Any", None))
    with open_store(homes.settings_of(edi.home)) as store:
        ended = store.database.require_session(job)
        assert (ended.status, ended.failure_reason) == ("failed", "cancelled by a person")
        assert store.database.require_session("other").status == "in_progress"
    rows = batch(edi, folder, "--batch-id", "mine")["results"]
    assert {row["session"]: row["decision"] for row in rows}[job] == "accepted"


def test_processes_do_the_same_and_a_killed_one_is_told_and_made_good(
    edi: Edi, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDI_TASK_RUNNER", "processes")
    monkeypatch.setenv("EDI_FAILPOINTS", "commit.after_rows=kill@3")
    killed = batch(edi, folder, expect=1)
    assert any("the process that edits has ended" in row["error"] for row in killed["results"])
    monkeypatch.delenv("EDI_FAILPOINTS")
    before = commits(edi)
    assert [row["decision"] for row in batch(edi, folder)["results"]] == ["accepted"] * 3
    after = commits(edi)
    for name, done in before.items():
        assert after[name][: len(done)] == done, "a finished stage was run again"
    assert all([stage for stage, _ in done].count("completed") == 1 for done in after.values())


def test_the_processes_of_a_killed_batch_end_with_it(edi: Edi, folder: Path) -> None:
    told = {**homes.environment(edi.home), **edi.environment, "EDI_TASK_RUNNER": "processes"}
    command = [sys.executable, "-m", "flows.cli", "batch", str(folder), "--prompt", "make it warmer"]
    running = subprocess.Popen(
        command, env={**os.environ, **told}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_until(lambda: len(workers_of(running.pid)) >= 2, "the worker processes")
    workers = workers_of(running.pid)
    running.kill()
    running.wait()
    wait_until(lambda: not any(map(is_alive, workers)), "the end of the worker processes")


def workers_of(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid), "-f", "spawn_main"], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


def test_a_runner_that_is_not_installed_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prefect_ray", None)
    with pytest.raises(InputError, match="EDI_TASK_RUNNER=ray needs what is not installed: pip install"):
        batch_runner("ray", 2)


@pytest.mark.parametrize("runner", ["dask", "ray"])
def test_a_cluster_does_the_same(edi: Edi, folder: Path, monkeypatch: pytest.MonkeyPatch, runner: str) -> None:
    pytest.importorskip(f"prefect_{runner}", reason=f"NOT TESTED: {runner} (prefect-{runner} is not installed)")
    monkeypatch.setenv("EDI_TASK_RUNNER", runner)
    assert [row["decision"] for row in batch(edi, folder)["results"]] == ["accepted"] * 3


def test_a_photo_that_asks_a_question_waits_and_the_others_are_edited(edi: Edi, folder: Path) -> None:
    result = edi.json("batch", str(folder / "a.jpg"), "--prompt", "make it better", expect=3)
    (row,) = result["results"]
    assert row["decision"] == "waits for you (question)"
    edi.json("resume", row["session"], "--answer", "1")
    (row,) = edi.json("batch", str(folder / "a.jpg"), "--prompt", "make it better")["results"]
    assert row["decision"] == "accepted"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--prompt", "warmer"),
        ("FOLDER",),
        ("FOLDER", "--prompt", "warmer", "--region", "1,2"),
        ("FOLDER", "--prompt", "warmer", "--output-folder", "FOLDER"),
        ("FOLDER/nobody.jpg", "--prompt", "warmer"),
        ("FOLDER", "--prompt", "warmer", "--batch-id", "../up"),
        ("FOLDER", "--prompt", "warmer", "--protect", " " * 600),
    ],
    ids=["empty inbox", "no prompt", "bad region", "results among the photos", "no such photo", "bad id", "long"],
)
def test_bad_input_to_a_batch_is_one_sentence(edi: Edi, folder: Path, arguments: tuple[str, ...]) -> None:
    refused = edi("batch", *(word.replace("FOLDER", str(folder)) for word in arguments), expect=2)
    assert len(refused.stderr.strip().splitlines()) == 1, refused.stderr
    assert edi.json("sessions") == []


def test_photos_are_found_in_folders_and_the_inbox_each_once(tmp_path: Path, folder: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    with pytest.raises(InputError, match="no photos in the folder for photos"):
        find_photos([], settings)
    (settings.home / "images" / "beach.jpg").write_bytes(PALACE.read_bytes())
    inside = [str(folder / name) for name in PHOTOS]
    beach = str(settings.home / "images" / "beach.jpg")
    assert find_photos([], settings) == [beach]
    assert find_photos([str(folder), inside[0], "beach.jpg"], settings) == [*inside, beach]


def test_a_session_belongs_to_one_batch_and_one_version_of_a_photo(folder: Path) -> None:
    photo = folder / "a.jpg"
    mine = session_id_of("mine", str(photo))
    assert mine == session_id_of("mine", str(photo))
    assert mine != session_id_of("other", str(photo))
    photo.write_bytes(photo.read_bytes() + b"\0")
    assert mine != session_id_of("mine", str(photo))
