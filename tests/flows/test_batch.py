"""Batches: many photos, a session each, and none of them twice."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest
from PIL import Image

from edi_storage.errors import InputError
from edi_storage.models import SessionData
from edi_storage.owner import is_gone, owner_name
from edi_storage.recovery import end_session
from edi_storage.settings import Settings
from edi_storage.store import open_store
from flows import room
from flows.engines import bands
from flows.engines.wishes import Wishes
from flows.jobs import Job, jobs_of
from flows.runners import batch_runner
from tests import homes
from tests.flows.conftest import PALACE, Edi, all_is_well
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
    edi.killed("hook", "completed", *asked)
    before = commits(edi)
    assert 0 < len(before) < 3
    result = batch(edi, folder, "--workers", "1")
    assert [row["decision"] for row in result["results"]] == ["accepted"] * 3
    after = commits(edi)
    assert len(after) == 3
    for name, done in before.items():
        assert after[name][: len(done)] == done, "a finished stage was run again"
    assert all([stage for stage, _ in done].count("completed") == 1 for done in after.values())
    assert all_is_well(edi), "what was killed right after its last commit has no checkpoint of its end"


def test_what_a_batch_was_at_when_a_person_cancelled_it_is_over_and_comes_back_with_it(edi: Edi, folder: Path) -> None:
    from prefect.client.schemas.objects import FlowRun

    from flows.hooks import mark_batch_cancelled

    run = FlowRun(flow_id=uuid4(), parameters={})
    job = Job(str(folder / "a.jpg"), "make it warmer", Wishes()).session_id("mine")
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


def test_what_failed_is_tried_again_from_where_it_stood_and_nothing_else(edi: Edi, folder: Path) -> None:
    asked = ("batch", str(folder), "--prompt", "make it warmer", "--batch-id", "mine", "--workers", "1")
    edi.killed("commit", "refine 2", *asked)
    failed = Job(str(folder / "a.jpg"), "make it warmer", Wishes()).session_id("mine")
    with open_store(homes.settings_of(edi.home)) as store:
        store.database.free_leases(is_gone)
        end_session(store, store.database.acquire(failed, owner_name(), 600), "the engine was gone")
    before = commits(edi)[failed]
    assert [stage for stage, _ in before][-2:] == ["refinement", "failed"]
    rows = edi.json(*asked)["results"]
    assert {row["session"]: row["decision"] for row in rows}[failed] == "accepted"
    after = commits(edi)
    assert after[failed][: len(before)] == before
    assert [stage for stage, _ in after[failed]].count("upload") == 1
    assert edi.json(*asked)["results"] == rows
    assert commits(edi) == after


def test_a_photo_that_was_given_up_does_not_come_back_with_its_batch(edi: Edi, folder: Path) -> None:
    photo = str(folder / "a.jpg")
    asked = ("batch", photo, "--prompt", "make it warmer", "--batch-id", "mine")
    poison = Job(photo, "make it warmer", Wishes()).session_id("mine")
    with open_store(homes.settings_of(edi.home)) as store:
        session = SessionData(session_id=poison, image_path=photo, naive_prompt="make it warmer")
        lease = store.database.begin_session(session, owner_name(), 600)
        store.database.release(lease)
        assert not store.database.count_recovery(poison, 0)
    shown = edi(*asked, expect=1)
    assert "gave up after 0 resumes" in shown.stdout
    assert "tries only those, but not what was given up (1): `edi resume ID`" in shown.stderr
    assert edi.json("resume", poison)["status"] == "completed"
    assert [row["decision"] for row in edi.json(*asked)["results"]] == ["accepted"]


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
    assert row["decision"] == "waiting for you (question)"
    shown = edi("batch", str(folder / "a.jpg"), "--prompt", "make it better", expect=3)
    assert "Waiting for you: 1 of 1. `edi review` lists what is asked." in shown.stderr
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
        ("LIST",),
    ],
    ids=["no photos", "no prompt", "bad region", "results among the photos", "no such photo", "bad id", "long", "list"],
)
def test_bad_input_to_a_batch_is_one_sentence(edi: Edi, folder: Path, arguments: tuple[str, ...]) -> None:
    (folder / "list.csv").write_text("photo,prompt\na.jpg,warmer\nb.png,\n")
    places = {"FOLDER": str(folder), "LIST": str(folder / "list.csv")}
    refused = edi("batch", *(re.sub("FOLDER|LIST", lambda name: places[name[0]], word) for word in arguments), expect=2)
    assert len(refused.stderr.strip().splitlines()) == 1, refused.stderr
    assert edi.json("sessions") == []


def test_a_list_says_what_to_do_with_each_photo(edi: Edi, folder: Path) -> None:
    out, wanted = folder.parent / "out", folder / "wanted.csv"
    # As a spreadsheet writes it where numbers have commas.
    wanted.write_text(
        "\ufeffPhoto;Prompt;Strength\r\na.jpg;make it brighter;strong\r\na.jpg;make it darker;\r\n;;\r\nb.png;;\r\n"
        "later.jpg;;\r\n"
    )
    asked = ("batch", str(wanted), "--prompt", "make it warmer", "--output-folder", str(out))
    first = edi.json(*asked, expect=1)["results"]
    told = [(row["photo"], row["prompt"], row["decision"]) for row in first]
    assert told == [
        ("a.jpg", "make it brighter", "accepted"),
        ("a.jpg", "make it darker", "accepted"),
        ("b.png", "make it warmer", "accepted"),
        ("later.jpg", "make it warmer", "failed"),
    ]
    with open_store(homes.settings_of(edi.home)) as store:
        kept = [store.database.require_session(row["session"]) for row in first[:3]]
    assert [session.naive_prompt for session in kept] == [prompt for _, prompt, _ in told[:3]]
    assert [session.options.get("strength") for session in kept] == [0.85, None, None]
    written = sorted(path.name for path in out.iterdir())
    assert written[2:] == ["b.png"]
    assert len({(out / name).read_bytes() for name in written}) == 3, "a result was written over another one"
    done = {name: one for name, one in commits(edi).items() if name != first[3]["session"]}
    (folder / "later.jpg").write_bytes((folder / "a.jpg").read_bytes())
    shown = edi(*asked).stdout
    assert [word in shown for word in ("prompt", "make it darker", "failed")] == [True, True, False]
    after = commits(edi)
    assert {name: after[name] for name in done} == done


def test_who_reads_the_log_of_a_batch_finds_the_lines_of_each_photo_together(edi: Edi, folder: Path) -> None:
    import httpx

    rows = batch(edi, folder)["results"]
    run = edi.json("show", rows[0]["session"])["stage_commits"][0]["flow_run_id"]
    asked = {"logs": {"flow_run_id": {"any_": [run]}}, "limit": 200}
    of_photos: list[list[str]] = []

    def sent() -> bool:
        url = f"{edi.environment['PREFECT_API_URL']}/logs/filter"
        found = httpx.post(url, json=asked, timeout=60).raise_for_status().json()
        of_photos[:] = sorted(log["message"].splitlines() for log in found if log["task_run_id"])
        return any(log["message"].endswith("3 photos: 3 accepted.") for log in found)

    wait_until(sent, "the last line of the batch")
    assert [lines[0].split(" (")[0] for lines in of_photos] == [f"Opened {name}" for name in PHOTOS]
    words = ["Opened", "Found", "Understood:", "Refined", "Edited:", "Measured:", "Done:"]
    assert [[line.split(" ")[0] for line in lines] for lines in of_photos] == [words] * 3


def test_a_warning_is_logged_at_once_and_the_lines_of_what_failed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.batch import _in_one_record

    stages, told = logging.getLogger("edi"), list[str]()
    listener = logging.Handler()
    monkeypatch.setattr(listener, "emit", lambda record: told.append(record.getMessage()))
    monkeypatch.setattr(stages, "handlers", [listener])
    monkeypatch.setattr(stages, "level", logging.INFO)

    def failing() -> None:
        stages.info("Opened %s.", "a.jpg")
        stages.warning("The engine failed.")
        stages.info("Found nothing.")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), _in_one_record():
        failing()
    stages.info("After it.")
    assert told == ["The engine failed.", "Opened a.jpg.\nFound nothing.", "After it."]


def test_photos_are_found_in_folders_and_the_inbox_each_once(tmp_path: Path, folder: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    with pytest.raises(InputError, match="no photos in the folder for photos"):
        jobs_of([], settings, "warmer", {})
    (settings.home / "images" / "beach.jpg").write_bytes(PALACE.read_bytes())
    inside = [str(folder / name) for name in PHOTOS]
    beach = str(settings.home / "images" / "beach.jpg")
    (folder / "list.csv").write_text(f"photo\na.jpg\nbeach.jpg\n{inside[1]}\nnobody.jpg\n")

    def found(*named: str) -> list[str]:
        return [job.photo for job in jobs_of(named, settings, "warmer", {})]

    assert found() == [beach]
    assert found(str(folder), inside[0], "beach.jpg") == [*inside, beach]
    assert found(str(folder / "list.csv")) == [inside[0], beach, inside[1], str(Path("nobody.jpg").absolute())]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "list.csv begins with nothing: its first line has to name its columns, each once: photo, and where"),
        ("a.jpg,warmer\n", "list.csv begins with a.jpg, warmer: its first line has to name its columns"),
        ("photo,photo\n", "list.csv begins with photo, photo: its first line has to name its columns, each once"),
        ("photo,Prompt,sepia\n", "list.csv begins with photo, prompt, sepia: its first line has to name its columns"),
        ("photo,prompt\n", "There are no photos in "),
        ("photo,prompt\n,warmer\n", "list.csv, line 2: no photo is named."),
        ("photo,prompt\n\na.jpg,\n", "list.csv, line 3: nothing is said of what to do"),
        ("photo,prompt\na.jpg,warmer, but a bit\n", "list.csv, line 2: there are more cells than the first line has"),
        ("photo,prompt,strength\na.jpg,warmer,much\n", "list.csv, line 2: The strength is 'much'"),
        ("photo,prompt\na.jpg," + "x" * 2001 + "\n", "list.csv, line 2: the prompt has 2001 characters"),
        ("photo,prompt\na.jpg," + "x" * 200_000 + "\n", "list.csv, line 2: this is no CSV (field larger than"),
        ("photo,prompt\na.jpg,\0\n", "list.csv is not a list in CSV: save it as CSV in UTF-8."),
        (b"photo,prompt\n\xff.jpg,warmer\n", "list.csv is not a list in CSV: save it as CSV in UTF-8."),
    ],
)
def test_a_list_that_cannot_be_meant_is_refused_with_its_line(tmp_path: Path, text: str | bytes, told: str) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=re.escape(told)) as refused:
        jobs_of([str(path)], Settings(home=tmp_path / "home"), "", {})
    assert len(str(refused.value).splitlines()) == 1
    assert len(str(refused.value)) < 400


def test_so_many_photos_at_a_time_as_the_processors_and_the_memory_are_good_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large, small, broken = (str(tmp_path / name) for name in ("large.png", "small.png", "broken.png"))
    Image.new("1", (8000, 3000)).save(large)
    Image.new("1", (30, 20)).save(small)
    Path(broken).write_bytes(b"\x89PNG\r\n\x1a\n")
    container = tmp_path / "cgroup"
    container.mkdir()
    monkeypatch.setattr(room, "_CONTAINER", container)
    few = [small, broken, str(tmp_path / "nobody.png")]
    assert room.side_by_side(few * 50, 0) == (bands.processors() + 1, "")
    assert room.side_by_side(few * 50, 7) == (7, "")
    assert room.side_by_side(few, 7) == (3, "")
    for name, text in (("max", "10000000000\n"), ("current", "9000000000\n"), ("stat", "inactive_file 4200000000\n")):
        (container / f"memory.{name}").write_text(text)
    count, why = room.side_by_side([small, large, small], 3)
    needed = room._OF_A_PHOTO + room._OF_A_PIXEL * 8000 * 3000
    assert count == 5_200_000_000 // needed < 3
    assert re.fullmatch(r"the largest photo takes about \d\.\d GB of memory, and [345]\.\d GB are free", why)
    assert room.side_by_side([small] * 3, 3) == (3, "")
    (container / "memory.max").write_text("9000000000")
    (container / "memory.stat").write_text("inactive_file 0")
    assert room.side_by_side([small] * 3, 3)[0] == 1
    (container / "memory.max").write_text("max\n")
    assert room.side_by_side([small] * 3, 3) == (3, "")


def test_a_photo_takes_no_more_memory_than_it_is_given(edi: Edi, tmp_path: Path) -> None:
    with Image.open(PALACE) as palace:
        palace.resize((3000, 2000)).save(tmp_path / "large.jpg")
    told = {**os.environ, **homes.environment(edi.home), **edi.environment}
    edit = [sys.executable, "-m", "flows.cli", "batch", str(tmp_path / "large.jpg"), "--prompt", "make it warmer"]
    command = [sys.executable, "-m", "tests.peak", *edit]
    peak = int(subprocess.run(command, env=told, check=True, stdout=subprocess.PIPE).stdout)
    needed = room._OF_A_PHOTO + room._OF_A_PIXEL * 6_000_000
    assert needed / 2 < peak < needed


def test_a_session_belongs_to_one_batch_and_one_version_of_a_photo(folder: Path) -> None:
    photo = folder / "a.jpg"

    def named(batch: str = "mine", prompt: str = "warmer", **wishes: str) -> str:
        return Job(str(photo), prompt, Wishes.checked(**wishes)).session_id(batch)

    mine = named()
    assert mine == named()
    assert len({mine, named("other"), named(prompt="cooler"), named(strength="subtle")}) == 4
    photo.write_bytes(photo.read_bytes() + b"\0")
    assert mine != named()
