"""Blocks that have the same store open: they share its connections, and the last one closes them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from edi_storage import EdiError, Settings, open_store
from edi_storage.connection import sqlite_file, sqlite_url
from tests import databases

SESSION = {"session_id": "s1", "image_path": "/photos/lake.jpg", "naive_prompt": "make it warmer"}


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, database_url=database_url)


def test_a_block_within_another_shares_its_database_and_leaves_it_open(settings: Settings) -> None:
    with open_store(settings) as outer:
        with open_store(settings) as inner:
            assert inner.database is outer.database
            inner.database.save_session(SESSION)
        kept = outer.database.engine.pool
        assert outer.database.get_session("s1") is not None
        assert outer.database.engine.pool is kept, "disposing of an engine gives it a new pool"


def test_the_last_block_closes_and_the_next_one_opens_anew(settings: Settings) -> None:
    first, second = ExitStack(), ExitStack()
    one = first.enter_context(open_store(settings)).database
    second.enter_context(open_store(settings))
    pool = one.engine.pool
    first.close()
    assert one.engine.pool is pool, "it is in use still"
    second.close()
    assert one.engine.pool is not pool
    with open_store(settings) as again:
        assert again.database is not one


def test_what_was_lost_while_others_have_it_open_is_made_anew(settings: Settings) -> None:
    with open_store(settings) as store:
        store.database.save_session(SESSION)
        if file := sqlite_file(settings.database_url):
            store.database.close()
            for suffix in ("", "-wal", "-shm"):
                Path(f"{file}{suffix}").unlink(missing_ok=True)
        else:
            databases.lose(settings.database_url)
        with open_store(settings) as again:
            assert again.database.session_ids() == []


def test_threads_that_open_it_at_once_get_the_same(settings: Settings) -> None:
    together = threading.Barrier(8)

    def use(_: int) -> int:
        together.wait()
        with open_store(settings) as store:
            together.wait()
            return id(store.database)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(use, range(8)))) == 1


def test_stores_of_two_homes_are_two(tmp_path: Path) -> None:
    one, other = (Settings(home=tmp_path / name, database_url=sqlite_url(tmp_path / f"{name}.db")) for name in "ab")
    with open_store(one) as first, open_store(other) as second:
        first.database.save_session(SESSION)
        assert second.database.get_session("s1") is None


def test_what_could_not_be_opened_is_tried_again(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, database_url=sqlite_url(tmp_path / "edi.db"))
    (tmp_path / "edi.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(EdiError), open_store(settings):
        pass
    (tmp_path / "edi.db").unlink()
    with open_store(settings) as store:
        assert store.database.session_ids() == []
