"""The flow in this process, on a real server: retries of engines, hooks, leases that are lost."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from edi_storage.errors import EngineError, LeaseLostError, StorageFullError
from edi_storage.settings import Settings
from edi_storage.steps import Step
from edi_storage.store import Store, open_store
from tests import homes
from tests.flows.conftest import PALACE


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    homes.enter(monkeypatch, tmp_path / "home")
    return Settings()


@pytest.fixture
def store(settings: Settings, server: str) -> Iterator[Store]:
    with open_store(settings) as opened:
        yield opened


def edit(session_id: str, prompt: str = "make it brighter") -> dict[str, Any]:
    from flows.edit import edit_image

    result: dict[str, Any] = edit_image(image_path=str(PALACE), prompt=prompt, session_id=session_id)
    return result


def test_an_engine_that_fails_for_a_moment_is_tried_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import stages
    from flows.engines.editing import EmbeddedEditor

    real, failures = EmbeddedEditor.edit, iter([EngineError("busy"), EngineError("still busy")])

    def flaky(self: EmbeddedEditor, *args: Any) -> Any:
        for failure in failures:
            raise failure
        return real(self, *args)

    monkeypatch.setattr(EmbeddedEditor, "edit", flaky)
    monkeypatch.setitem(stages.STAGES, "edit", stages.edit.with_options(retry_delay_seconds=0))
    assert edit("flaky")["status"] == "completed"
    assert [commit.stage for commit in store.database.get_commits("flaky")].count("edit") == 1


def test_an_engine_that_keeps_failing_leaves_a_session_to_resume(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import stages
    from flows.engines.editing import EmbeddedEditor

    with monkeypatch.context() as broken:

        def fails(self: EmbeddedEditor, *args: Any) -> Any:
            raise EngineError("the backend is down")

        broken.setattr(EmbeddedEditor, "edit", fails)
        broken.setitem(stages.STAGES, "edit", stages.edit.with_options(retries=0))
        with pytest.raises(EngineError, match="down"):
            edit("down")
    assert [session.session_id for session in store.database.interrupted_sessions()] == ["down"]
    assert edit("down")["restored_stages"][-1] == "refine 3"


def test_in_a_batch_an_engine_is_tried_again_too_and_each_boundary_has_its_checkpoint(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import stages
    from flows.edit import asked_session, run_session
    from flows.engines.editing import EmbeddedEditor
    from flows.engines.wishes import Wishes
    from flows.session import SessionRun

    real, failures, seen = EmbeddedEditor.edit, iter([EngineError("busy"), EngineError("still busy")]), []

    def flaky(self: EmbeddedEditor, *args: Any) -> Any:
        for failure in failures:
            raise failure
        return real(self, *args)

    begin = SessionRun.begin

    def look(run: SessionRun, step: Any) -> Any:
        seen.append((run.seq, len(run.store.checkpoints.list_checkpoints(run.session.session_id))))
        return begin(run, step)

    monkeypatch.setattr(EmbeddedEditor, "edit", flaky)
    monkeypatch.setattr(SessionRun, "begin", look)
    monkeypatch.setattr(stages, "RETRY_DELAYS", [0, 0, 0])
    asked = {"prompt": "warmer", "wishes": Wishes(), "review": "auto", "max_attempts": 3, "output": "", "strip": False}
    session = asked_session(Settings(), session_id="one", image_path=str(PALACE), consent="local", **asked)
    assert run_session(store, Settings(), session, "", "", in_batch=True)["status"] == "completed"
    commits = store.database.get_commits("one")
    assert len({commit.key for commit in commits}) == len(commits) == 10
    assert dict(seen) == {seq: seq for seq in range(10)}


@pytest.mark.local_files("an object is written whole or not at all")
def test_what_a_killed_process_left_half_written_goes_when_the_session_goes_on(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.session import SessionRun

    class Killed(Exception):
        """The process goes down."""

    def dies(run: SessionRun, step: Any) -> Any:
        if step.stage == "edit":
            raise Killed
        return real(run, step)

    real = SessionRun.begin
    with monkeypatch.context() as down:
        down.setattr(SessionRun, "begin", dies)
        with pytest.raises(Killed):
            edit("half")
    left = settings.home / "sessions" / ".half.json.0123456789abcdef.tmp"
    other = settings.home / "sessions" / ".halves.json.0123456789abcdef.tmp"
    for path in (left, other):
        path.write_text("{")
    edit("half")
    assert (left.exists(), other.exists()) == (False, True)


def test_each_boundary_has_its_checkpoint_before_the_next_stage_starts(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.session import SessionRun

    seen: list[tuple[int, list[int]]] = []
    real = SessionRun.begin

    def begin(run: SessionRun, step: Any) -> Any:
        files = run.store.checkpoints.list_checkpoints(run.session.session_id)
        seen.append((run.seq, [file.seq for file in files]))
        return real(run, step)

    monkeypatch.setattr(SessionRun, "begin", begin)
    edit("watched")
    assert seen == [(seq, list(range(1, seq + 1))) for seq in range(10)]


def test_each_checkpoint_is_written_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from edi_storage.checkpoints import SessionStateManager

    written: list[int] = []
    real = SessionStateManager.write_checkpoint

    def write(manager: SessionStateManager, state: Any, info: Any) -> str:
        written.append(info.seq)
        return real(manager, state, info)

    monkeypatch.setattr(SessionStateManager, "write_checkpoint", write)
    edit("once")
    assert written == list(range(1, 11))
    assert [file.seq for file in store.checkpoints.list_checkpoints("once")] == [8, 9, 10]
    assert store.database.exported_seq("once") == 10


def test_a_server_is_asked_for_no_more_than_the_run_needs(
    store: Store, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.server import one_client

    asked: list[str] = []
    real = httpx.Client.send

    def send(client: httpx.Client, request: httpx.Request, **more: Any) -> httpx.Response:
        if threading.current_thread() is threading.main_thread():
            asked.append(f"{request.method} {re.sub('[0-9a-f-]{36}', 'ID', request.url.path)}")
        return real(client, request, **more)

    with one_client(server):
        edit("warm")
        monkeypatch.setattr(httpx.Client, "send", send)
        edit("frugal")
    # Its flow, the run, the run's name, Running, the run as it is now, Completed: no token, no store for results.
    begun = ["POST /api/flows/", "POST /api/flow_runs/", "PATCH /api/flow_runs/ID", "POST /api/flow_runs/ID/set_state"]
    assert asked == [*begun, "GET /api/flow_runs/ID", "POST /api/flow_runs/ID/set_state"]


def test_a_hook_that_fails_loses_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.session import SessionRun

    def fails(*_: Any) -> None:
        raise OSError("no room for checkpoints")

    monkeypatch.setattr(SessionRun, "export", fails)
    assert edit("hookless")["status"] == "completed"
    assert store.database.exported_seq("hookless") == 10, "the end of the flow writes what hooks missed"


def test_who_is_overtaken_stops_before_the_next_commit(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.session import SessionRun

    real = SessionRun.begin

    def begin(run: SessionRun, step: Any) -> Any:
        if step.stage == "edit":
            run.store.database.take_over(run.session.session_id, "somebody else", 600)
        return real(run, step)

    with monkeypatch.context() as overtaken:
        overtaken.setattr(SessionRun, "begin", begin)
        with pytest.raises(LeaseLostError):
            edit("overtaken")
    assert store.database.last_seq("overtaken") == 7
    assert (store.database.lease_of("overtaken") or [""])[0] == "somebody else"


def test_a_session_that_may_be_tried_again_is_kept_until_its_error_is_told(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import edit as flow
    from flows.session import SessionRun

    def full(run: SessionRun, step: Step) -> None:
        raise StorageFullError

    told: list[bool] = []
    monkeypatch.setattr(SessionRun, "begin", full)
    monkeypatch.setattr(flow, "tell", lambda error: told.append(store.database.lease_of("full") is not None))
    with pytest.raises(StorageFullError):
        edit("full")
    assert told == [True]
    assert store.database.lease_of("full") is None


def test_the_original_is_never_overwritten_through_the_flow_either(store: Store, tmp_path: Path) -> None:
    from edi_storage.errors import SessionFailedError
    from flows.edit import edit_image

    photo = tmp_path / "mine.jpg"
    photo.write_bytes(PALACE.read_bytes())
    for output in (photo, tmp_path / "result.gif", tmp_path / "nowhere" / "result.png"):
        with pytest.raises(SessionFailedError, match=r"original|format|folder"):
            edit_image(image_path=str(photo), prompt="brighter", output=str(output), overwrite=True)
    assert photo.read_bytes() == PALACE.read_bytes()


@pytest.mark.parametrize(("suffix", "strip"), [(".png", False), (".jpg", False), (".webp", True), (".png", True)])
def test_where_a_photo_was_taken_is_not_told_by_its_edits(
    store: Store, tmp_path: Path, suffix: str, strip: bool
) -> None:
    from flows.edit import edit_image

    photo, output = tmp_path / "mine.jpg", tmp_path / f"result{suffix}"
    with Image.open(PALACE) as palace:
        exif = palace.getexif()
        exif[0x0110] = "Camera 5"
        exif[0x010E] = "taken at home"
        exif[0x8825] = {1: "N", 2: (52.0, 31.0, 12.0)}
        palace.resize((320, 213)).save(photo, exif=exif, comment=b"at home")
    assert b"at home" in photo.read_bytes()
    done = edit_image(image_path=str(photo), prompt="make it warmer", output=str(output), strip=strip)
    for written, told in ((str(output), {} if strip else {0x0110: "Camera 5"}), (done["edited_image_path"], {})):
        assert b"at home" not in homes.read(written)
        with Image.open(io.BytesIO(homes.read(written))) as image:
            assert (dict(image.getexif()), image.info.get("comment")) == (told, None)


def test_an_output_that_cannot_be_written_at_the_end_is_a_warning(store: Store, tmp_path: Path) -> None:
    from flows.edit import edit_image

    folder = tmp_path / "goes"
    folder.mkdir()
    output = folder / "result.png"
    waiting = edit_image(image_path=str(PALACE), prompt="make it better", session_id="gone", output=str(output))
    assert waiting["waiting_for"] == "question"
    folder.rmdir()
    folder.write_bytes(b"a file now")
    done = edit_image(image_path=str(PALACE), prompt="make it better", session_id="gone", answer=1)
    assert done["status"] == "completed"
    assert done["output"] is None
    assert str(output) in done["warnings"][0]


def test_one_session_that_cannot_go_on_does_not_keep_others_from_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import resume
    from flows.session import SessionRun

    class Lost(Exception):
        """The process goes down."""

    real = SessionRun.begin

    def begin(run: SessionRun, step: Any) -> Any:
        if step.stage == "edit":
            raise Lost
        return real(run, step)

    with monkeypatch.context() as down:
        down.setattr(SessionRun, "begin", begin)
        for name in ("poison", "healthy"):
            with pytest.raises(Lost):
                edit(name)
    continued = resume.continue_session

    def poisoned(session: Any, answer: int = 0) -> Any:
        if session.session_id == "poison":
            raise RuntimeError("a fault of ours")
        return continued(session, answer)

    monkeypatch.setattr(resume, "continue_session", poisoned)
    results = {result["session_id"]: result["status"] for result in resume.resume_interrupted()}
    assert results == {"poison": "in_progress", "healthy": "completed"}


def test_a_session_that_would_fail_again_has_failed_before_it_is_told(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edi_storage.errors import SessionFailedError
    from flows import edit as flow

    told: list[str] = []
    monkeypatch.setattr(flow, "tell", lambda error: told.append(store.database.require_session("impossible").status))
    with pytest.raises(SessionFailedError, match="ComfyUI"):
        edit("impossible", "add a unicorn")
    # The page of the run has seconds to show it: found interrupted in these, it would be run again.
    assert told == ["failed"]
    session = store.database.require_session("impossible")
    assert session.status == "failed"
    assert "ComfyUI" in (session.failure_reason or "")
    assert store.database.lease_of("impossible") is None
