"""What doctor repairs of files and rows: lost pictures, what nothing refers to, what cannot be read."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from contextlib import closing

import pytest
from sqlalchemy import text

from edi_storage import Store, open_store
from edi_storage.backup import backup as make_backup
from edi_storage.connection import reading, writing
from edi_storage.doctor import doctor
from edi_storage.errors import DatabaseDamagedError
from edi_storage.models import Artifact, SessionHistory
from edi_storage.owner import owner_name
from edi_storage.recovery import end_session, export_checkpoints, give_verdict, reopen, write_state_file
from edi_storage.settings import Settings
from edi_storage.state import Json, digest, fold, merge_patch
from tests.storage.sessions import SESSION, commit_all, edited_session, put_files
from tests.storage.test_recovery import ID, finished, half_way, lose_database, repaired, rows


def lost(store: Store, history: SessionHistory, name: str) -> Artifact:
    artifact = next(artifact for artifact in history.artifacts if artifact.name == name)
    store.files.remove(artifact.path)
    return artifact


def test_a_lost_picture_is_made_again(settings: Settings, store: Store) -> None:
    history = finished(store)
    for name in ("sky_0", "attempt_1"):
        lost(store, history, name)

    def remake(store: Store, session_id: str, artifact: Artifact) -> None:
        content = artifact.kind if artifact.kind in ("edited", "delta") else artifact.name
        store.files.put(session_id, content.encode(), ".png")

    findings = doctor(settings, repair=True, remake=remake)
    assert [(finding.kind, finding.repaired) for finding in findings] == [("file", True), ("file", True)]
    assert doctor(settings) == []


def test_a_finished_session_is_not_undone_for_a_lost_picture(settings: Settings, store: Store) -> None:
    history = finished(store)
    give_verdict(store, ID, "accept", rating=5)
    lost(store, history, "sky_0")
    (found,) = doctor(settings, repair=True)
    assert not found.repaired
    after = store.database.load_session(ID)
    assert after.session.status == "completed"
    assert [said.rating for said in after.feedback] == [5]


def test_an_unfinished_session_does_its_stages_again_for_a_lost_picture(settings: Settings, store: Store) -> None:
    lost(store, half_way(store, upto=7), "building_0")
    repaired(settings)
    assert store.database.last_seq(ID) == 1
    assert [session.session_id for session in store.database.interrupted_sessions()] == [ID]


def test_what_nothing_refers_to_is_removed(settings: Settings, store: Store) -> None:
    finished(store)
    stray = store.files.put(ID, b"stray", ".png")
    assert [finding.kind for finding in repaired(settings)] == ["orphan"]
    assert not store.files.exists(stray)


def test_a_session_being_worked_on_is_left_alone(settings: Settings, store: Store) -> None:
    store.database.begin_session(SESSION, "worker", 60)
    stray = store.files.put(ID, b"about to be committed", ".png")
    assert doctor(settings, repair=True) == []
    assert store.files.exists(stray)


def test_a_session_whose_holder_is_gone_is_examined(settings: Settings, store: Store) -> None:
    with subprocess.Popen(["sleep", "60"]) as holder:
        owner = owner_name().replace(f":{os.getpid()}:", f":{holder.pid}:")
        half_way(store)
        store.database.acquire(ID, owner, 60)
        store.files.put(ID, b"never committed", ".png")
        assert doctor(settings) == []
        holder.kill()
    assert [finding.kind for finding in doctor(settings)] == ["orphan"]


@pytest.mark.sqlite_file("EDI makes no backups of a server's database")
def test_a_picture_that_a_later_boundary_refers_to_is_no_garbage(settings: Settings) -> None:
    # A database brought back from a backup is behind its checkpoints: what they refer to must not be removed.
    with open_store(settings) as store:
        half_way(store, upto=7)
        backup = make_backup(store.database.engine, settings.home / "backups")
        put_files(store)
        commit_all(store.database, store.database.acquire(ID, "resume", 30))
        store.database.free_leases(lambda _: True, ID)
        export_checkpoints(store, ID)
        write_state_file(store, ID)
        before = store.database.load_session(ID)
    lose_database(settings)
    backup.rename(settings.home / "edi_sessions.db")
    repaired(settings)
    with open_store(settings) as store:
        assert rows(store.database.load_session(ID)) == rows(before)


def test_checkpoints_of_an_earlier_session_are_not_grafted_onto_another(settings: Settings) -> None:
    with open_store(settings) as store:
        finished(store)
    lose_database(settings)
    with open_store(settings) as store:
        other = SESSION.model_copy(update={"naive_prompt": "make it warmer"})
        store.database.release(store.database.begin_session(other, "me", 30))
    assert {finding.kind for finding in doctor(settings, repair=True)} >= {"foreign"}
    with open_store(settings) as store:
        assert store.database.require_session(ID).naive_prompt == "make it warmer"
        assert store.database.last_seq(ID) == 0


def test_a_damaged_boundary_in_the_middle_of_a_finished_session_is_repaired(settings: Settings, store: Store) -> None:
    before = finished(store)
    with writing(store.database.engine) as connection:
        connection.execute(text("UPDATE stage_commits SET state_delta = '{}' WHERE seq = 3"))
    repaired(settings)
    assert rows(store.database.load_session(ID)) == rows(before)


@pytest.mark.parametrize("reason", ["cancelled by a person", "no engine can do this"])
def test_what_ended_as_failed_stays_so_when_the_database_is_rebuilt(settings: Settings, reason: str) -> None:
    with open_store(settings) as store:
        half_way(store)
        end_session(store, store.database.acquire(ID, "me", 30), reason)
    lose_database(settings)
    repaired(settings)
    with open_store(settings) as store:
        session = store.database.require_session(ID)
        assert (session.status, session.failure_reason) == ("failed", reason)
        assert store.database.interrupted_sessions() == []
        reopen(store, ID)
        assert [session.session_id for session in store.database.interrupted_sessions()] == [ID]
    lose_database(settings)
    # The reopening was not exported by a stage yet, so the checkpoints still say failed: safe, and said.
    repaired(settings)


GARBLED = [
    ("sessions", "created_at = '2026-11-2w 01:00:00'"),
    ("sessions", "options = 'not json'"),
    ("sessions", "naive_prompt = CAST(x'80ff' AS TEXT)"),
    ("prompts", "created_at = '' WHERE iteration = 1"),
    ("intents", "parameters = '{'"),
    ("entities", "label = CAST(x'80ff' AS TEXT)"),
    ("leases", "expires_at = 'soon'"),
    ("leases", "owner = CAST(x'80ff' AS TEXT)"),
]


@pytest.mark.sqlite_file("a server checks what a column holds")
@pytest.mark.parametrize(("table", "change"), GARBLED)
def test_rows_that_cannot_be_read_are_kept_aside_and_written_again(
    settings: Settings, store: Store, table: str, change: str
) -> None:
    before = finished(store)
    fence = store.database.acquire(ID, "me", 30).fence
    store.database.take_over(ID, "me", 0)
    with writing(store.database.engine) as connection:
        connection.execute(text(f"UPDATE {table} SET {change}"))
    found = repaired(settings)
    assert "unreadable" in {finding.kind for finding in found}
    assert rows(store.database.load_session(ID)) == rows(before)
    assert store.database.acquire(ID, "me", 30).fence > fence + 1
    with reading(store.database.engine) as connection:
        aside = connection.execute(text("SELECT table_name, row_json FROM quarantine")).all()
    assert {"sessions", "stage_commits", "entities", "leases", table} <= {row.table_name for row in aside}
    assert any(SESSION.image_path in row.row_json for row in aside if row.table_name == "sessions")


@pytest.mark.sqlite_file("a server checks what a column holds")
@pytest.mark.parametrize(
    "change", ["finished_at = 'then' WHERE seq = 2", "engine = CAST(x'80ff' AS TEXT) WHERE seq = 7"]
)
def test_a_boundary_that_cannot_be_read_comes_back_from_its_checkpoint(
    settings: Settings, store: Store, change: str
) -> None:
    before = finished(store)
    with writing(store.database.engine) as connection:
        connection.execute(text(f"UPDATE stage_commits SET {change}"))
    assert [finding.kind for finding in repaired(settings)] == ["state"]
    assert rows(store.database.load_session(ID)) == rows(before)


@pytest.mark.sqlite_file("a server checks what a column holds")
def test_a_half_done_session_that_cannot_be_read_goes_on_from_its_last_boundary(
    settings: Settings, store: Store
) -> None:
    before = half_way(store, 5)
    with writing(store.database.engine) as connection:
        connection.execute(text("UPDATE stage_commits SET started_at = 'x' WHERE seq = 3"))
        connection.execute(text("UPDATE sessions SET updated_at = 'x'"))
    repaired(settings)
    after = store.database.load_session(ID)
    assert rows(after) == rows(before)
    assert [session.session_id for session in store.database.interrupted_sessions()] == [ID]


@pytest.mark.sqlite_file("a server checks what a column holds")
def test_a_library_session_that_cannot_be_read_does_not_end_the_examination(settings: Settings, store: Store) -> None:
    finished(store)
    store.database.save_session({"id": "a-broken-one", "image_path": "a", "naive_prompt": "p"})
    with writing(store.database.engine) as connection:
        connection.execute(text("UPDATE sessions SET options = 'not json' WHERE id = 'a-broken-one'"))
    store.files.remove(f"{ID}.json")
    found = repaired(settings)
    assert {(finding.session_id, finding.kind) for finding in found} == {
        ("a-broken-one", "unreadable"),
        (ID, "state_file"),
    }
    # Nothing else knows that session: its row is kept where it harms nobody.
    assert [session.session_id for session in store.database.query_history()] == [ID]
    with reading(store.database.engine) as connection:
        assert "not json" in connection.execute(text("SELECT row_json FROM quarantine")).scalar_one()


@pytest.mark.parametrize(
    ("odd", "told"),
    [
        ({"validation": {"attempts": {"1": {"edited_image_path": 5}}}}, "path"),
        ({"validation": {"attempts": {"1": {"delta_image_path": []}}}}, "path"),
        ({"prompts": {"iteration_0": 5}}, "cannot be read"),
    ],
    ids=str,
)
def test_a_state_with_a_number_in_the_place_of_a_text_does_not_end_the_examination(
    settings: Settings, store: Store, odd: Json, told: str
) -> None:
    put_files(store)
    edited_session(store.database)
    stored = store.database.get_commits(SESSION.session_id)
    delta = merge_patch(stored[-1].state_delta, odd)
    state = fold([*(commit.state_delta for commit in stored[:-1]), delta])
    with writing(store.database.engine) as connection:
        changed = text("UPDATE stage_commits SET state_delta = :delta, sha256 = :sha256 WHERE seq = :seq")
        connection.execute(changed, {"delta": json.dumps(delta), "sha256": digest(state), "seq": stored[-1].seq})
    assert [told in finding.message for finding in doctor(settings) if finding.kind == "unreadable"] == [True]


@pytest.mark.sqlite_file("the schema of a server is not a text in a file")
@pytest.mark.parametrize(
    ("old", "new"), [("label", "lacel"), ("'completed'", "'compmeted'"), ("exported_seq", "exportee_seq")]
)
def test_a_letter_changed_in_the_definition_of_a_table_is_damage(
    settings: Settings, store: Store, old: str, new: str
) -> None:
    before = finished(store)
    store.database.close()
    with closing(sqlite3.connect(settings.home / "edi_sessions.db")) as raw:
        raw.execute("PRAGMA writable_schema=ON")
        raw.execute("UPDATE sqlite_master SET sql = replace(sql, ?, ?)", (old, new))
        raw.commit()
    with pytest.raises(DatabaseDamagedError, match=r"is damaged \((the definition of|CHECK constraint)"):
        store.database.check()
    assert "database" in [finding.kind for finding in repaired(settings)]
    with open_store(settings) as again:
        assert rows(again.database.load_session(ID)) == rows(before)


def test_an_index_that_somebody_added_is_no_damage(settings: Settings, store: Store) -> None:
    finished(store)
    with writing(store.database.engine) as connection:
        connection.execute(text("CREATE INDEX mine ON sessions (naive_prompt)"))
    store.database.check()
    assert doctor(settings) == []


@pytest.mark.sqlite_file("a server checks what a column holds")
def test_rows_of_no_session_are_kept_aside(settings: Settings, store: Store) -> None:
    finished(store)
    store.database.close()
    with closing(sqlite3.connect(settings.home / "edi_sessions.db")) as foreign_tool:
        foreign_tool.execute("INSERT INTO prompts (session_id, iteration, positive_prompt) VALUES ('gone', 0, 'lost')")
        foreign_tool.commit()
    found = repaired(settings)
    assert [(finding.kind, finding.message) for finding in found] == [
        ("rows", "rows of prompts that belong to no session: 1")
    ]
    with reading(store.database.engine) as connection:
        assert "lost" in connection.execute(text("SELECT row_json FROM quarantine")).scalar_one()


@pytest.mark.sqlite_file("a server checks what a column holds")
def test_a_garbled_value_read_while_writing_is_damage_too(store: Store) -> None:
    finished(store)
    with writing(store.database.engine) as connection:
        connection.execute(text("UPDATE sessions SET options = 'not json'"))
    with pytest.raises(DatabaseDamagedError, match=r"is damaged .*run `edi doctor --repair`"):
        store.database.acquire(ID, "me", 30)
