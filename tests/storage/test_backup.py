"""Copies that can be trusted, made while others write."""

import os
import shutil
import sqlite3
import stat
import threading
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from edi_storage import migrations
from edi_storage.backup import backup, remove_leftovers, verify_backup
from edi_storage.connection import make_engine, reading, sqlite_url, writing
from edi_storage.errors import DatabaseDamagedError, DatabaseError, InputError
from edi_storage.migrations.runner import head
from tests.storage import seed_database

pytestmark = pytest.mark.sqlite_file("EDI makes no backups of a server's database: pg_dump does")

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.fixture
def engine(tmp_path):
    """A database of today with three sessions."""
    path = tmp_path / "edi_sessions.db"
    seed_database.build(str(path))
    engine = make_engine(sqlite_url(path))
    migrations.upgrade(engine, backup_dir=tmp_path / "before")
    yield engine
    engine.dispose()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "backups"


def counts(engine):
    with reading(engine) as connection:
        tables = ("sessions", "prompts", "entities", "validations", "user_feedback", "feedback_events")
        return {name: connection.execute(text(f"SELECT count(*) FROM {name}")).scalar() for name in tables}


def add_pair(engine, number):
    """Two rows in one transaction: a copy must hold both or none."""
    with writing(engine) as connection:
        for half in ("a", "b"):
            connection.execute(
                text(
                    "INSERT INTO sessions (id, image_path, naive_prompt, status) VALUES (:id, 'x', 'y', 'in_progress')"
                ),
                {"id": f"pair-{number}-{half}"},
            )


def test_a_backup_holds_the_same_rows_and_opens_like_the_original(engine, folder, tmp_path):
    copy = backup(engine, folder)
    restored = tmp_path / "restored.db"
    shutil.copy(copy, restored)
    again = make_engine(sqlite_url(restored))
    assert migrations.is_current(again)
    assert counts(again) == counts(engine)
    again.dispose()


def test_a_backup_is_one_private_file_named_by_date_and_revision(engine, folder):
    copy = backup(engine, folder, now=lambda: NOON)
    assert copy == folder / f"edi_sessions-20261122T120000Z-{head()}.db"
    assert sorted(file.name for file in folder.iterdir()) == [".edi.lock", copy.name]
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_verifying_a_backup_returns_its_rows_and_leaves_it_as_it_is(engine, folder):
    copy = backup(engine, folder)
    before = copy.read_bytes()
    found = verify_backup(copy)
    assert {name: found[name] for name in counts(engine)} == counts(engine)
    assert copy.read_bytes() == before
    assert sorted(file.name for file in folder.iterdir()) == [".edi.lock", copy.name]


def test_two_backups_in_the_same_second_are_both_kept(engine, folder):
    first = backup(engine, folder, now=lambda: NOON)
    add_pair(engine, 1)
    second = backup(engine, folder, now=lambda: NOON)
    assert second.name == f"edi_sessions-20261122T120000Z-{head()}-2.db"
    assert verify_backup(second)["sessions"] == verify_backup(first)["sessions"] + 2


def test_a_backup_made_while_others_write_is_one_moment(engine, folder):
    done = threading.Event()
    written = []

    def write():
        while not done.is_set():
            add_pair(engine, len(written))
            written.append(1)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        sessions = [verify_backup(backup(engine, folder))["sessions"] for _ in range(5)]
    finally:
        done.set()
        writer.join()
    assert written
    assert all((count - 3) % 2 == 0 for count in sessions)
    assert sessions == sorted(sessions)
    assert counts(engine)["sessions"] == 3 + 2 * len(written)


def test_a_seed_database_with_orphans_can_be_backed_up_and_verified(tmp_path, folder):
    path = str(tmp_path / "seed.db")
    seed_database.build(path)
    seed_database.execute(path, "INSERT INTO prompts (session_id, iteration) VALUES ('nobody', 0)")
    engine = make_engine(sqlite_url(path))
    copy = backup(engine, folder, now=lambda: NOON)
    engine.dispose()
    assert copy.name == "seed-20261122T120000Z-0001.db"
    assert verify_backup(copy)["prompts"] == 7


def test_a_damaged_database_is_not_backed_up(engine, folder):
    with writing(engine) as connection:
        connection.execute(
            text("INSERT INTO sessions (id, image_path, naive_prompt, status) VALUES ('big', 'x', :p, 'failed')"),
            {"p": "long prompt " * 5000},
        )
    engine.dispose()  # nobody has it open while it is damaged
    path = Path(engine.url.database)
    content = bytearray(path.read_bytes())
    page = 4096 * (len(content) // 4096 - 3)
    content[page : page + 64] = bytes(64)
    path.write_bytes(content)
    with pytest.raises(DatabaseDamagedError, match="is damaged"):
        backup(engine, folder)
    assert [file.name for file in folder.iterdir() if file.name != ".edi.lock"] == []


@pytest.mark.parametrize("damage", ["cut", "zeroed", "orphan"])
def test_a_damaged_backup_does_not_verify(engine, folder, damage):
    copy = backup(engine, folder)
    content = bytearray(copy.read_bytes())
    if damage == "cut":
        copy.write_bytes(content[: len(content) // 2])
    elif damage == "zeroed":
        content[4096 * 2 : 4096 * 12] = bytes(4096 * 10)
        copy.write_bytes(content)
    else:
        with closing(sqlite3.connect(copy)) as raw:
            raw.execute("DELETE FROM sessions WHERE id = 's-0'")
            raw.commit()
    with pytest.raises(DatabaseDamagedError):
        verify_backup(copy)


def test_what_is_no_database_of_edi_does_not_verify(tmp_path):
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE pages (content)")
    with pytest.raises(DatabaseError, match="is not a database of EDI"):
        verify_backup(tmp_path / "other.db")
    with pytest.raises(DatabaseError, match="There is no database"):
        verify_backup(tmp_path / "absent.db")
    (tmp_path / "page.db").write_text("<html></html>")
    with pytest.raises(DatabaseDamagedError):
        verify_backup(tmp_path / "page.db")


def test_a_database_server_is_not_copied(folder):
    with pytest.raises(InputError, match="pg_dump"):
        backup(make_engine("postgresql+psycopg://host/edi"), folder)


def test_only_old_leftovers_of_killed_backups_are_removed(engine, folder):
    copy = backup(engine, folder)
    old, new = (
        folder / f".edi_sessions.db.{os.getpid()}-{digits}.tmp" for digits in ("0123456789abcdef", "fedcba9876543210")
    )
    for leftover in (old, new):
        leftover.write_bytes(b"half")
    os.utime(old, (0, 0))
    assert remove_leftovers(folder) == [old]
    assert sorted(file.name for file in folder.iterdir()) == sorted([".edi.lock", copy.name, new.name])
