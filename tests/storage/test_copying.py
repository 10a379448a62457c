"""Moving an installation: to PostgreSQL and S3, and back, killed on the way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edi_storage.copying import Copied, copy_database, copy_files
from edi_storage.database import EDIDatabase
from edi_storage.errors import DatabaseError, InputError
from edi_storage.files import FileStore
from tests.storage.sessions import SESSION, edited_session, entity, prompt


@pytest.fixture
def source(tmp_path: Path) -> Iterator[EDIDatabase]:
    """Three sessions; one was edited to its end and rated."""
    with EDIDatabase(str(tmp_path / "old.db")) as database:
        save(database, "s-0")
        edited_session(database)
        save(database, "s-2")
        database.save_feedback("s-1", {"feedback_type": "accept", "rating": 5, "comments": "größer \U0001f308"})
        yield database


def save(database: EDIDatabase, session_id: str) -> None:
    """A session with a few rows."""
    database.save_session(SESSION.model_copy(update={"session_id": session_id}))
    database.save_entities(session_id, [entity("sky_0", "sky", 40.0), entity("person_0", "person", 5.5)])
    database.save_prompt_history(session_id, [prompt(0)])


def everything(database: EDIDatabase) -> list[str]:
    return [database.load_session(f"s-{number}").model_dump_json() for number in range(3)]


def total(tables: dict[str, Copied]) -> Copied:
    return Copied(sum(table.copied for table in tables.values()), sum(table.there for table in tables.values()))


def test_a_database_moves_to_another_kind_and_back(source: EDIDatabase, server_database: str, tmp_path: Path) -> None:
    with EDIDatabase(server_database) as server, EDIDatabase(str(tmp_path / "new.db")) as back:
        moved = total(copy_database(source, server))
        assert (moved.copied, moved.there) == (total(copy_database(server, back)).copied, 0)
        assert moved.copied > 30
        assert everything(source) == everything(server) == everything(back)


def test_copying_again_copies_only_what_is_new(source: EDIDatabase, server_database: str) -> None:
    with EDIDatabase(server_database) as server:
        first = total(copy_database(source, server))
        assert total(copy_database(source, server)) == Copied(0, first.copied)
        source.save_feedback("s-2", {"feedback_type": "reject"})
        again = copy_database(source, server)
        assert {name for name, table in again.items() if table.copied} >= {"user_feedback", "feedback_events"}
        assert again["entities"] == Copied(0, 6)
        assert everything(source) == everything(server)


def test_work_goes_on_in_the_new_place(source: EDIDatabase, server_database: str) -> None:
    with EDIDatabase(server_database) as server:
        copy_database(source, server)
        # Numbers that the old place has given must not be given again.
        server.save_feedback("s-2", {"feedback_type": "partial"})
        save(server, "s-9")
        assert len(server.get_entities("s-9")) == 2
        assert server.get_feedback("s-1") == source.get_feedback("s-1")


def test_a_copy_that_was_killed_is_finished_by_the_next(source: EDIDatabase, database_url: str) -> None:
    class Killed(BaseException):
        pass

    def at_entities(table: str, done: int, of: int) -> None:
        if table == "entities":
            raise Killed

    with EDIDatabase(database_url) as target:
        with pytest.raises(Killed):
            copy_database(source, target, at_entities)
        assert copy_database(source, target)["sessions"] == Copied(0, 3)
        assert everything(source) == everything(target)


def test_a_database_with_sessions_of_its_own_is_left_alone(source: EDIDatabase, database_url: str) -> None:
    with EDIDatabase(database_url) as target:
        save(target, "s-7")
        with pytest.raises(InputError, match=r"has sessions of its own, such as s-7: copy to an empty database\."):
            copy_database(source, target)
        assert [session.session_id for session in target.query_history()] == ["s-7"]


def test_rows_that_the_old_place_does_not_have_are_noticed(source: EDIDatabase, database_url: str) -> None:
    with EDIDatabase(database_url) as target:
        copy_database(source, target)
        target.save_feedback("s-0", {"feedback_type": "accept"})
        with pytest.raises(DatabaseError, match="has rows of its own: empty it, then try again"):
            copy_database(source, target)


def test_nothing_is_copied_while_somebody_works(source: EDIDatabase, database_url: str) -> None:
    lease = source.begin_session({"id": "s-3", "image_path": "a.jpg", "naive_prompt": "warmer"}, "somebody:1:x", 600)
    with EDIDatabase(database_url) as target:
        with pytest.raises(InputError, match="Session s-3 is being worked on"):
            copy_database(source, target)
        assert target.query_history() == []
        source.release(lease)
        copy_database(source, target)


# --- Files -------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(bucket_url: str) -> FileStore:
    return FileStore(bucket_url, allowed_schemes=["s3"])


@pytest.fixture
def files(tmp_path: Path) -> FileStore:
    store = FileStore(tmp_path / "sessions")
    for number in range(20):
        store.put(f"s-{number}", bytes([number]) * 5000, ".png")
    store.write_whole("s-1.json", b"{}")
    return store


def test_files_move_to_a_bucket_and_back(files: FileStore, bucket: FileStore, tmp_path: Path) -> None:
    back = FileStore(tmp_path / "back")
    assert copy_files(files, bucket) == Copied(21, 0)
    assert copy_files(bucket, back) == Copied(21, 0)
    assert files.list() == bucket.list() == back.list()
    assert all(files.read(path) == back.read(path) for path in files.list())


def test_only_what_is_missing_or_damaged_is_copied_again(files: FileStore, bucket: FileStore) -> None:
    copy_files(files, bucket)
    first, second, *_ = bucket.list()
    bucket.remove(first)
    bucket.write_whole(second, b"torn")
    assert copy_files(files, bucket) == Copied(2, 19)
    assert bucket.read(second) == files.read(second)


def test_a_place_is_not_copied_onto_itself(files: FileStore) -> None:
    with pytest.raises(InputError, match="is where the files are already"):
        copy_files(files, FileStore(files.root + "/"))
