"""Pruning, backup generations and restoring, on real files."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from edi_storage import EDIDatabase, Store, housekeeping, open_store
from edi_storage.errors import DatabaseDamagedError, DatabaseError, InputError
from edi_storage.housekeeping import backup_with_generations, backups, prunable, prune, restore
from edi_storage.settings import Settings
from tests.storage.sessions import SESSION, THEN

_BACKUPS = "EDI makes no backups of a server's database: pg_dump does"


def make(database: EDIDatabase, name: str, days_ago: int, status: str = "completed") -> None:
    made = THEN - timedelta(days=days_ago)
    database.save_session(
        {"id": name, "created_at": made, "image_path": "a.jpg", "naive_prompt": "p", "status": status}
    )


def names(database: EDIDatabase, *, days: int, keep: int) -> list[str]:
    found = prunable(database, before=THEN - timedelta(days=days), keep=keep)
    return [session.session_id for session in found]


def test_only_old_ended_sessions_beyond_the_newest_are_pruned(store: Store) -> None:
    for number, (days, status) in enumerate(
        [(0, "completed"), (10, "failed"), (20, "completed"), (40, "in_progress"), (50, "completed"), (60, "failed")]
    ):
        make(store.database, f"s{number}", days, status)
    assert names(store.database, days=5, keep=0) == ["s1", "s2", "s4", "s5"]
    assert names(store.database, days=30, keep=0) == ["s4", "s5"]
    assert names(store.database, days=5, keep=5) == ["s5"]


def test_pruning_goes_page_by_page(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(7):
        make(store.database, f"s{number}", number)
    monkeypatch.setattr(housekeeping, "_PAGE", 3)
    assert names(store.database, days=-1, keep=2) == [f"s{number}" for number in range(2, 7)]


def test_a_session_that_is_being_worked_on_is_not_pruned(store: Store) -> None:
    make(store.database, SESSION.session_id, 90)
    session = store.database.require_session(SESSION.session_id)
    store.database.acquire(SESSION.session_id, "somebody", 60)
    assert not prune(store, session)
    assert store.database.get_session(SESSION.session_id) is not None


def test_pruning_takes_files_with_it(store: Store, settings: Settings) -> None:
    make(store.database, "old", 90)
    path = store.files.put("old", b"picture", ".png")
    assert prune(store, store.database.require_session("old"))
    assert not store.files.exists(path)
    assert store.database.get_session("old") is None


@pytest.mark.sqlite_file(_BACKUPS)
def test_only_the_newest_backups_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    folder.mkdir()
    (folder / "mine.db").write_bytes(b"something of mine")
    moments = iter(THEN + timedelta(hours=number) for number in range(100))
    with EDIDatabase(str(tmp_path / "edi.db"), clock=lambda: next(moments)) as database:
        made = [backup_with_generations(database, folder, keep=3) for _ in range(5)]
    assert backups(folder) == made[:1:-1]
    assert (folder / "mine.db").exists()


@pytest.mark.sqlite_file(_BACKUPS)
def test_a_restored_database_is_the_one_that_was_backed_up(settings: Settings) -> None:
    with open_store(settings) as store:
        make(store.database, "then", 1)
        copy = backup_with_generations(store.database, settings.home / "backups")
        make(store.database, "later", 0)
        aside = restore(settings.database_url, copy)
        assert aside is not None
        assert aside.exists()
        # The store that was open all the time sees the restored one.
        assert [session.session_id for session in store.database.query_history()] == ["then"]
    assert copy.exists()


@pytest.mark.sqlite_file(_BACKUPS)
def test_a_restore_needs_no_database_in_its_place(settings: Settings) -> None:
    with open_store(settings) as store:
        make(store.database, "then", 1)
        copy = backup_with_generations(store.database, settings.home / "backups")
    for path in settings.home.glob("edi_sessions.db*"):
        path.unlink()
    assert restore(settings.database_url, copy) is None
    with open_store(settings) as store:
        assert store.database.get_session("then") is not None


@pytest.mark.sqlite_file(_BACKUPS)
@pytest.mark.parametrize("content", [b"", b"<html>", b"SQLite format 3\x00" + b"\x00" * 500])
def test_what_is_no_backup_is_refused_and_nothing_is_touched(settings: Settings, content: bytes) -> None:
    with open_store(settings) as store:
        make(store.database, "mine", 1)
    bad = settings.home / "bad.db"
    bad.write_bytes(content)
    with pytest.raises((DatabaseDamagedError, DatabaseError)):
        restore(settings.database_url, bad)
    with pytest.raises(InputError, match="database itself"):
        restore(settings.database_url, settings.home / "edi_sessions.db")
    with open_store(settings) as store:
        assert store.database.get_session("mine") is not None
