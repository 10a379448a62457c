"""Migrations on PostgreSQL: upgrades at once and with a cut link, and what is refused (conftest.py has the server)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.exc import IntegrityError

from edi_storage import EDIDatabase, migrations
from edi_storage.connection import SCHEMA_REVISION, writing
from edi_storage.errors import DatabaseError, DatabaseTooNewError
from edi_storage.tables import Base
from tests import databases
from tests.postgres import binaries
from tests.storage.sessions import SESSION, edited_session
from tests.storage.test_database_server import opened, raw


@pytest.fixture
def engine(empty_database: str) -> Iterator[Engine]:
    with opened(empty_database) as made:
        yield made


def schema(url: str) -> list[str]:
    """What pg_dump says of the schema, without alembic's table and what differs from run to run."""
    command = [str(binaries() / "pg_dump"), "-s", "-T", "alembic_version", databases.conninfo(url)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in lines if not line.startswith(("\\", "--"))]


def test_the_revisions_make_exactly_the_tables_of_tables_py(engine: Engine, empty_database: str) -> None:
    assert not migrations.is_current(engine)
    report = migrations.upgrade(engine)
    assert (report.from_revision, report.to_revision, report.backup_path) == (None, migrations.head(), None)
    assert migrations.is_current(engine)
    assert not migrations.upgrade(engine).changed
    direct = databases.make(empty_database)
    try:
        with opened(direct) as other:
            Base.metadata.create_all(other)
        assert schema(empty_database) == schema(direct)
    finally:
        databases.drop(direct)


SEED_ROWS = """
    INSERT INTO sessions (id, image_path, naive_prompt, status) VALUES
        ('s-0', 'a.jpg', 'p', 'completed'), ('s-1', 'b.jpg', 'p', 'failed'), ('../x', 'c.jpg', 'p', 'failed');
    INSERT INTO prompts (session_id, iteration, quality_score) VALUES
        ('s-0', 0, 0.5), ('s-0', 1, 'NaN'), ('s-0', 0, 0.7), ('s-1', NULL, 0.5);
    INSERT INTO entities (session_id, entity_id, confidence) VALUES ('s-0', 'sky_0', 0.9), ('s-0', 'sky_1', 1.5);
    INSERT INTO validations (session_id, attempt_number, alignment_score) VALUES ('s-0', 1, 0.5);
    INSERT INTO user_feedback (session_id, feedback_type, rating) VALUES ('s-0', 'accept', 5), ('s-0', NULL, 5);
"""


def test_a_database_can_stop_at_every_revision_and_go_on_with_its_rows(engine: Engine) -> None:
    migrations.upgrade(engine, target="0001")
    with writing(engine) as connection:
        connection.exec_driver_sql(SEED_ROWS)
    quarantined = {}
    for number in range(2, SCHEMA_REVISION + 1):
        quarantined |= migrations.upgrade(engine, target=f"{number:04d}").quarantined
        assert migrations.is_current(engine) == (number == SCHEMA_REVISION)
    assert quarantined == {"sessions": 1, "prompts": 3, "entities": 1, "user_feedback": 1}
    with writing(engine) as connection:
        prompts = connection.exec_driver_sql("SELECT id, quality_score FROM prompts").all()
        new = connection.exec_driver_sql(
            "INSERT INTO prompts (session_id, iteration) VALUES ('s-1', 5) RETURNING id"
        ).scalar_one()
    assert prompts == [(3, 0.7)]
    assert new > 4, "an id that was used is not given again"


UPGRADE = """
import sys
from edi_storage import migrations
from edi_storage.connection import make_engine
import alembic.command
engine = make_engine(sys.argv[1])
print("ready", flush=True); input()
print(migrations.upgrade(engine).changed, migrations.is_current(engine), flush=True)
"""


def upgrader(url: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", UPGRADE, url]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_eight_processes_may_upgrade_at_once(empty_database: str) -> None:
    eight = [upgrader(empty_database) for _ in range(8)]
    for process in eight:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in eight:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [process.communicate(timeout=60)[0].split() for process in eight]
    assert [process.returncode for process in eight] == [0] * 8
    assert sorted(told) == [["False", "True"]] * 7 + [["True", "True"]]


def test_an_upgrade_whose_link_is_cut_leaves_nothing(engine: Engine, empty_database: str) -> None:
    @event.listens_for(engine, "before_cursor_execute")
    def cut(connection: object, cursor: object, statement: str, *_: object) -> None:
        if "CREATE TABLE leases" in statement:
            databases.cut_links(empty_database)

    with pytest.raises(DatabaseError):
        migrations.upgrade(engine)
    event.remove(engine, "before_cursor_execute", cut)
    with raw(empty_database) as direct:
        assert direct.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
    assert migrations.upgrade(engine).changed


def test_a_newer_revision_is_refused_untouched_also_in_an_open_store(empty_database: str) -> None:
    with EDIDatabase(empty_database) as database:
        with raw(empty_database) as direct:
            newer = SCHEMA_REVISION + 1
            direct.execute(f"COMMENT ON TABLE alembic_version IS 'EDI {newer:04d}'")
            direct.execute(f"UPDATE alembic_version SET version_num = '{newer:04d}'".encode())
        before = schema(empty_database)
        for use in (database.query_history, lambda: database.begin_session(SESSION, "me", 30), database.init_db):
            with pytest.raises(DatabaseTooNewError, match="newer version of EDI"):
                use()
        with pytest.raises(DatabaseTooNewError):
            migrations.upgrade(database.engine)
        assert schema(empty_database) == before


@pytest.mark.parametrize(
    "statements",
    [
        "CREATE TABLE pages (content text)",
        "CREATE TABLE sessions (id text, token text)",
        "CREATE TABLE alembic_version (version_num varchar(32)); INSERT INTO alembic_version VALUES ('0001')",
        "CREATE VIEW v AS SELECT 1",
        "CREATE MATERIALIZED VIEW v AS SELECT 1",
    ],
)
def test_another_applications_database_is_refused_untouched(empty_database: str, statements: str) -> None:
    with raw(empty_database) as direct:
        direct.execute(statements.encode())
    before = schema(empty_database)
    with pytest.raises(DatabaseError, match="belongs to another application"):
        EDIDatabase(empty_database)
    assert schema(empty_database) == before


def test_a_database_that_cannot_hold_every_text_is_refused(empty_database: str) -> None:
    name = "edi_latin_1"
    with databases.administration(empty_database) as execute:
        execute("DROP DATABASE IF EXISTS {}", name)
        execute(
            "CREATE DATABASE {} TEMPLATE template0 ENCODING LATIN1 LC_COLLATE 'C' LC_CTYPE 'C' LOCALE_PROVIDER libc",
            name,
        )
    url = empty_database.replace(databases.name_of(empty_database), name)
    try:
        with pytest.raises(DatabaseError, match="LATIN1"):
            EDIDatabase(url)
    finally:
        databases.drop(url)


@pytest.mark.parametrize(
    "broken",
    [
        "UPDATE sessions SET final_alignment_score = 'NaN'",
        "UPDATE sessions SET final_alignment_score = 1.01",
        "UPDATE sessions SET status = 'done'",
        "UPDATE sessions SET id = ''",
        "UPDATE prompts SET quality_score = 'Infinity'",
        "UPDATE prompts SET iteration = 0",
        "UPDATE prompts SET attempt_number = 0",
        "UPDATE prompts SET session_id = 'nobody'",
        "UPDATE entities SET area_percent = 'NaN'",
        "UPDATE intents SET confidence = 'NaN'",
        "UPDATE stage_commits SET sha256 = 'short'",
        "UPDATE stage_commits SET seq = 0",
        "UPDATE stage_commits SET stage = 'upload', attempt = 1, iteration = 0",
        "UPDATE leases SET fence = 0",
        "INSERT INTO user_feedback (session_id, feedback_type, rating) VALUES ('s-1', 'accept', 6)",
        "INSERT INTO feedback_events (session_id, feedback_key, sign, edit_type, label, feedback_type) "
        "VALUES ('s-1', 'k', 2, 'e', 'l', 'accept')",
    ],
)
def test_the_database_itself_refuses_bad_rows(server_database: str, broken: str) -> None:
    with EDIDatabase(server_database) as database:
        edited_session(database)
        with pytest.raises(IntegrityError), writing(database.engine) as connection:
            connection.exec_driver_sql(broken.replace("%", "%%"))
