"""Every schema is made by the revisions; a seed database keeps every row, or says where it went and why."""

import json
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from edi_storage import migrations, models
from edi_storage.backup import verify_backup
from edi_storage.connection import SCHEMA_REVISION, create_database, make_engine, reading, sqlite_url, writing
from edi_storage.errors import DatabaseDamagedError, DatabaseError, DatabaseTooNewError, InputError, StorageFullError
from edi_storage.migrations import seed_rows
from edi_storage.tables import Base
from tests.storage import seed_database
from tests.storage.seed_database import execute, rows
from tests.storage.small_disk import small_disk

TABLES = ("sessions", "prompts", "entities", "validations", "user_feedback")


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "edi_sessions.db")


@pytest.fixture
def seed(path):
    """A seed database with three sound sessions."""
    seed_database.build(path)
    return path


def engine_for(path):
    return make_engine(sqlite_url(path))


def upgrade(path, **options):
    engine = engine_for(path)
    try:
        return migrations.upgrade(engine, **options)
    finally:
        engine.dispose()


def is_current(path):
    engine = engine_for(path)
    try:
        return migrations.is_current(engine)
    finally:
        engine.dispose()


def counts(path):
    return {table: len(rows(path, table)) for table in TABLES}


def quarantined(path):
    return [(row["table_name"], row["reason"], json.loads(row["row_json"])) for row in rows(path, "quarantine")]


# --- The schema --------------------------------------------------------------------------------------


def test_the_newest_revision_is_the_one_this_version_works_with(path):
    assert migrations.head() == f"{SCHEMA_REVISION:04d}"
    report = upgrade(path)
    assert (report.from_revision, report.to_revision, report.backup_path) == (None, migrations.head(), None)
    assert is_current(path)


def test_the_first_revision_is_the_seeds_schema_to_the_letter(tmp_path):
    seed_database.EDIDatabase(str(tmp_path / "seed.db"))
    upgrade(tmp_path / "ours.db", target="0001")
    ours = [row for row in rows(str(tmp_path / "ours.db"), "sqlite_master") if "alembic" not in row["name"]]
    theirs = rows(str(tmp_path / "seed.db"), "sqlite_master")
    assert {(row["name"], row["sql"]) for row in ours if row["sql"]} == {
        (row["name"], row["sql"]) for row in theirs if row["sql"]
    }


def _checks(sql):
    """The CHECKs of a CREATE TABLE by name, blanks evened out."""
    found = {}
    for match in re.finditer(r"CONSTRAINT (\w+) CHECK \(", sql):
        end, depth = match.end(), 1
        while depth:
            depth += {"(": 1, ")": -1}.get(sql[end], 0)
            end += 1
        found[match[1]] = " ".join(sql[match.end() : end - 1].split())
    return found


def _schema(path):
    """All that SQLite knows of the tables, but for the order of constraints."""
    with closing(sqlite3.connect(path)) as raw:
        tables = dict(raw.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall())
        for name in ("alembic_version", "sqlite_sequence"):
            tables.pop(name, None)
        return {
            name: {
                "columns": raw.execute(f"PRAGMA table_xinfo({name})").fetchall(),
                "foreign keys": sorted(row[2:] for row in raw.execute(f"PRAGMA foreign_key_list({name})")),
                "indexes": _indexes(raw, name),
                "checks": _checks(sql),
                "constraint names": sorted(re.findall(r"CONSTRAINT (\w+)", sql)),
                "numbered for ever": "AUTOINCREMENT" in sql,
            }
            for name, sql in tables.items()
        }


def _indexes(raw, table):
    found = []
    for _, name, unique, origin, partial in raw.execute(f"PRAGMA index_list({table})"):
        columns = [row[2] for row in raw.execute(f"PRAGMA index_info({name})")]
        sql = raw.execute("SELECT sql FROM sqlite_master WHERE name = ?", (name,)).fetchone()[0]
        found.append((None if sql is None else name, unique, origin, partial, columns, " ".join((sql or "").split())))
    return sorted(found, key=str)


@pytest.mark.parametrize("start", ["nothing", "a seed database"])
def test_the_revisions_make_exactly_the_tables_of_tables_py(tmp_path, path, start):
    if start == "a seed database":
        seed_database.build(path)
    upgrade(path)
    direct = engine_for(tmp_path / "direct.db")
    create_database(direct)
    Base.metadata.create_all(direct)
    direct.dispose()
    made, meant = _schema(path), _schema(tmp_path / "direct.db")
    assert made.keys() == meant.keys()
    for table in meant:
        assert made[table] == meant[table], table
    assert sum(len(table["checks"]) for table in made.values()) > 20


def test_alembic_sees_no_difference_either(path):
    upgrade(path)
    engine = engine_for(path)
    with reading(engine) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_a_database_can_stop_at_every_revision_and_go_on(path):
    seed_database.build(path)
    for number in range(1, SCHEMA_REVISION + 1):
        report = upgrade(path, target=f"{number:04d}")
        assert report.to_revision == f"{number:04d}"
        assert is_current(path) == (number == SCHEMA_REVISION)
    assert counts(path) == {"sessions": 3, "prompts": 6, "entities": 3, "validations": 3, "user_feedback": 3}


def test_an_unknown_target_is_refused(path):
    with pytest.raises(InputError, match="no revision '0099'"):
        upgrade(path, target="0099")


def test_asking_whether_a_database_is_current_does_not_import_alembic(path):
    upgrade(path)
    code = (
        "import sys; from edi_storage import migrations; from edi_storage.connection import make_engine\n"
        f"engine = make_engine({sqlite_url(path)!r})\n"
        "print(migrations.is_current(engine), migrations.current(engine), 'alembic' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.split() == ["True", migrations.head(), "False"]


def test_a_database_that_is_not_there_is_not_current_and_is_not_made_by_asking(tmp_path, path):
    engine = engine_for(path)
    assert (migrations.is_current(engine), migrations.current(engine)) == (False, None)
    assert list(tmp_path.iterdir()) == []


# --- A seed database ---------------------------------------------------------------------------------


def test_a_sound_seed_database_keeps_every_value(seed):
    before = {table: rows(seed, table) for table in TABLES}
    report = upgrade(seed)
    assert (report.from_revision, report.to_revision, report.quarantined) == ("0001", migrations.head(), {})
    for table in TABLES:
        kept = rows(seed, table)
        assert [{name: row[name] for name in before[table][0]} for row in kept] == before[table]
    assert {row["attempt_number"] for row in rows(seed, "prompts")} == {1}
    assert [row["feedback_key"] for row in rows(seed, "user_feedback")] == ["seed-1", "seed-2", "seed-3"]


def test_the_seeds_own_script_still_reads_an_upgraded_database(seed):
    before = seed_database.EDIDatabase(seed).get_session("s-1")
    upgrade(seed)
    reader = seed_database.EDIDatabase(seed)
    assert {name: reader.get_session("s-1")[name] for name in before} == before
    assert [prompt["iteration"] for prompt in reader.get_prompt_history("s-1")] == [0, 1]
    assert is_current(seed)


def test_older_feedback_becomes_learning_events(seed):
    upgrade(seed)
    events = rows(seed, "feedback_events")
    assert [
        (row["session_id"], row["feedback_key"], row["sign"], row["edit_type"], row["label"]) for row in events
    ] == [(f"s-{n}", f"seed-{n + 1}", 1, "unknown", "unknown") for n in range(3)]
    given = [(row["feedback_type"], row["rating"], row["created_at"]) for row in rows(seed, "user_feedback")]
    assert [(row["feedback_type"], row["rating"], row["created_at"]) for row in events] == given


#: What may be wrong with a row, and how the reason for its quarantine begins.
BAD_ROWS = {
    "sessions": [
        ("NULL, 'now', 'x', 'y', 'failed', NULL", "id is missing"),
        ("NULL, 'now', 'x', 'y', 'completed', NULL", "id is missing"),
        ("'', 'now', 'x', 'y', 'failed', NULL", "id is '', which cannot be"),
        ("'../etc/passwd', 'now', 'x', 'y', 'failed', NULL", "id is '../etc/passwd', which cannot be"),
        ("'CON', 'now', 'x', 'y', 'failed', NULL", "id is 'CON', which cannot be"),
        ("x'6162', 'now', 'x', 'y', 'failed', NULL", "id is not text"),
        ("CAST(x'ff41' AS TEXT), 'now', 'x', 'y', 'failed', NULL", "id is not text"),
        ("'b1', 'now', 'x', 'y', NULL, NULL", "status is missing"),
        ("'b2', 'now', 'x', 'y', 'failed', 1.01", "final_alignment_score is 1.01, not a number from 0 to 1"),
        ("'b3', 'now', 'x', 'y', 'failed', 9e999", "final_alignment_score is inf"),
        ("'b4', 'now', 'x', 'y', 'failed', 'good'", "final_alignment_score is 'good'"),
        ("'b5', 'now', 'x', 'y', 'failed', x'00ff'", "final_alignment_score is b'\\x00\\xff'"),
        ("'b6', 'yesterday', 'x', 'y', 'failed', NULL", "created_at is 'yesterday', not a time"),
        ("'b7', NULL, 'x', 'y', 'failed', NULL", "created_at is missing"),
        ("'b8', 1700000000, 'x', 'y', 'failed', NULL", "created_at is 1700000000, not a time"),
        ("'b9', 'now', x'ff', 'y', 'failed', NULL", "image_path is not text"),
        ("'b10', 'now', 'x', 'y' || char(0) || 'z', 'failed', NULL", "naive_prompt contains a NUL"),
    ],
    "prompts": [
        ("NULL, 'nobody', 0, 'p', 'n', NULL, 'now'", "session 'nobody' is not there"),
        ("NULL, 'b1', 0, 'p', 'n', NULL, 'now'", "session 'b1' is not there"),
        ("NULL, NULL, 0, 'p', 'n', NULL, 'now'", "session_id is missing"),
        ("NULL, 's-0', NULL, 'p', 'n', NULL, 'now'", "iteration is missing"),
        ("NULL, 's-0', 1.5, 'p', 'n', NULL, 'now'", "iteration is 1.5, not a whole number"),
        ("NULL, 's-0', -1, 'p', 'n', NULL, 'now'", "iteration is -1, not a whole number"),
        ("NULL, 's-0', 'two', 'p', 'n', NULL, 'now'", "iteration is 'two', not a whole number"),
        ("NULL, 's-0', 7, 'p', 'n', -0.1, 'now'", "quality_score is -0.1"),
        ("NULL, 's-0', 8, x'0102', 'n', NULL, 'now'", "positive_prompt is not text"),
    ],
    "entities": [
        ("NULL, 's-0', NULL, 'sky', 0.9, NULL, NULL, NULL, NULL", "entity_id is missing"),
        ("NULL, 's-0', '', 'sky', 0.9, NULL, NULL, NULL, NULL", "entity_id is empty"),
        ("NULL, 's-0', 'a', 'sky', 1.9, NULL, NULL, NULL, NULL", "confidence is 1.9"),
        ("NULL, 's-0', 'b', 'sky', 0.9, '(0, 0)', NULL, NULL, NULL", "bbox_json is not JSON"),
        ("NULL, 's-0', 'c', 'sky', 0.9, NULL, NULL, 'blue', NULL", "color_hex is 'blue'"),
        ("NULL, 's-0', 'd', 'sky', 0.9, NULL, NULL, NULL, 101", "area_percent is 101.0"),
        ("NULL, 'nobody', 'e', 'sky', 0.9, NULL, NULL, NULL, 1", "session 'nobody' is not there"),
    ],
    "validations": [
        ("NULL, 's-0', NULL, 0.5, 1, 1, 1, NULL, 'now'", "attempt_number is missing"),
        ("NULL, 's-0', 2, 2, 1, 1, 1, NULL, 'now'", "alignment_score is 2.0"),
        ("NULL, 's-0', 3, 0.5, -1, 1, 1, NULL, 'now'", "preserved_count is -1"),
        ("NULL, 's-0', 4, 0.5, 1, 'many', 1, NULL, 'now'", "modified_count is 'many'"),
        ("NULL, 's-0', 5, 0.5, 1, 1, 0.5, NULL, 'now'", "unintended_count is 0.5"),
    ],
    "user_feedback": [
        ("NULL, 's-0', NULL, NULL, 5, 'now'", "feedback_type is missing"),
        ("NULL, 's-0', 'accept', NULL, 4.5, 'now'", "rating is 4.5, not a whole number"),
        ("NULL, 's-0', 'accept', x'00', 4, 'now'", "comments is not text"),
        ("NULL, 'nobody', 'accept', NULL, 4, 'now'", "session 'nobody' is not there"),
    ],
}


def add_bad_rows(path):
    now = "'2026-01-02 03:04:05'"
    for table, cases in BAD_ROWS.items():
        execute(
            path, *(f"INSERT INTO {table} VALUES ({row.replace(chr(39) + 'now' + chr(39), now)})" for row, _ in cases)
        )


def test_every_bad_row_goes_to_quarantine_with_its_reason_and_no_other(seed):
    add_bad_rows(seed)
    before = counts(seed)
    report = upgrade(seed)
    assert report.quarantined == {table: len(cases) for table, cases in BAD_ROWS.items()}
    assert before == {table: count + report.quarantined[table] for table, count in counts(seed).items()}
    for table, cases in BAD_ROWS.items():
        reasons = sorted(reason for name, reason, _ in quarantined(seed) if name == table)
        for (row, expected), reason in zip(sorted(cases, key=lambda case: case[1]), reasons, strict=True):
            assert reason.startswith(expected), row
    assert {row["revision"] for row in rows(seed, "quarantine")} == {"0002"}


def test_a_quarantined_row_can_be_read_back_bytes_included(seed):
    add_bad_rows(seed)
    upgrade(seed)
    found = {reason: row for table, reason, row in quarantined(seed) if table == "sessions"}
    assert found["final_alignment_score is b'\\x00\\xff', not a number from 0 to 1"]["final_alignment_score"] == {
        "hex": "00ff"
    }
    assert found["final_alignment_score is inf, not a number from 0 to 1"]["final_alignment_score"] == {"real": "inf"}
    ids = [row["id"] for table, reason, row in quarantined(seed) if reason == "id is not text"]
    assert sorted(item["hex"] for item in ids) == ["6162", "ff41"]
    assert found["created_at is 'yesterday', not a time"] == {
        "id": "b6",
        "created_at": "yesterday",
        "image_path": "x",
        "naive_prompt": "y",
        "status": "failed",
        "final_alignment_score": None,
    }


def test_of_duplicates_the_newest_is_kept(seed):
    execute(
        seed,
        "INSERT INTO prompts (session_id, iteration, positive_prompt) VALUES ('s-0', 1, 'newer'), ('s-0', 1, 'newest')",
        # Newer still, but not sound: it does not push the sound one out.
        "INSERT INTO prompts (session_id, iteration, positive_prompt, quality_score) VALUES ('s-0', 1, 'bad', 7)",
        "INSERT INTO entities (session_id, entity_id, label) VALUES ('s-1', 'sky_0', 'newest')",
        "INSERT INTO validations (session_id, attempt_number, alignment_score) VALUES ('s-2', 1, 0.5)",
    )
    report = upgrade(seed)
    assert report.quarantined == {"entities": 1, "prompts": 3, "validations": 1}
    prompts = [row["positive_prompt"] for row in rows(seed, "prompts") if row["session_id"] == "s-0"]
    assert sorted(prompts) == ["newest", "storm clouds"]
    kept = next(row for row in rows(seed, "entities") if row["session_id"] == "s-1")
    assert kept["label"] == "newest"
    assert next(row for row in rows(seed, "validations") if row["session_id"] == "s-2")["alignment_score"] == 0.5
    reasons = {reason for _, reason, _ in quarantined(seed)}
    assert "a newer row of the same session has iteration 1 too" in reasons


def test_children_of_a_quarantined_session_follow_it(seed):
    execute(
        seed,
        "INSERT INTO sessions (id, image_path, naive_prompt, status) VALUES ('lost', 'x', 'y', NULL)",
        "INSERT INTO prompts (session_id, iteration) VALUES ('lost', 0)",
    )
    assert upgrade(seed).quarantined == {"prompts": 1, "sessions": 1}


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("2026-01-02 03:04:05", "2026-01-02 03:04:05"),
        ("2026-01-02 03:04:05.678901", "2026-01-02 03:04:05.678901"),
        ("2026-01-02T03:04:05", "2026-01-02 03:04:05"),
        ("2026-01-02T05:04:05+02:00", "2026-01-02 03:04:05"),
        ("2026-01-02T03:04:05Z", "2026-01-02 03:04:05"),
        ("2026-01-02", "2026-01-02 00:00:00"),
    ],
)
def test_times_are_kept_in_one_form_and_in_utc(seed, written, kept):
    execute(seed, f"UPDATE sessions SET created_at = '{written}'")
    assert upgrade(seed).quarantined == {}
    assert {row["created_at"] for row in rows(seed, "sessions")} == {kept}


def test_the_id_rule_of_the_revision_is_the_models_rule_of_its_day():
    for value in [
        "a",
        "A-1_b",
        "x" * 64,
        "x" * 65,
        "",
        "-a",
        "_a",
        "a b",
        "é",
        "a\n",
        "CON",
        "com1",
        "com0",
        "lpt9",
        "nul",
    ]:
        verdicts = []
        for rule in (seed_rows._session_id, models.check_session_id):
            try:
                verdicts.append(rule(value))
            except ValueError:
                verdicts.append(None)
        assert verdicts[0] == verdicts[1], value


def test_a_number_once_given_is_never_given_again(seed):
    execute(seed, "INSERT INTO prompts (id, session_id, iteration) VALUES (500, 'nobody', 0)")
    execute(seed, "DELETE FROM user_feedback WHERE id = 3")
    upgrade(seed)
    engine = engine_for(seed)
    with writing(engine) as connection:
        connection.execute(text("INSERT INTO prompts (session_id, iteration) VALUES ('s-0', 2)"))
        connection.execute(text("INSERT INTO user_feedback (session_id, feedback_type) VALUES ('s-0', 'accept')"))
    engine.dispose()
    assert max(row["id"] for row in rows(seed, "prompts")) == 501
    assert max(row["id"] for row in rows(seed, "user_feedback")) == 4


def test_deleting_a_session_takes_its_rows_along_afterwards(seed):
    upgrade(seed)
    engine = engine_for(seed)
    with writing(engine) as connection:
        connection.execute(text("DELETE FROM sessions WHERE id = 's-0'"))
    engine.dispose()
    assert counts(seed) == {"sessions": 2, "prompts": 4, "entities": 2, "validations": 2, "user_feedback": 2}


# --- Before and again --------------------------------------------------------------------------------


def test_a_database_with_tables_is_backed_up_before(seed, tmp_path):
    add_bad_rows(seed)
    before = {table: rows(seed, table) for table in TABLES}
    report = upgrade(seed)
    assert report.backup_path.parent == tmp_path / "backups"
    assert re.fullmatch(r"edi_sessions-\d{8}T\d{6}Z-0001\.db", report.backup_path.name)
    assert verify_backup(report.backup_path) == {table: len(found) for table, found in before.items()}
    ours = "SELECT * FROM prompts ORDER BY id"
    with closing(sqlite3.connect(report.backup_path)) as copy:
        assert [tuple(row.values()) for row in before["prompts"]] == copy.execute(ours).fetchall()


def test_upgrading_again_changes_nothing(seed, tmp_path):
    add_bad_rows(seed)
    upgrade(seed, backup_dir=tmp_path / "kept")
    tables = (*TABLES, "quarantine", "feedback_events", "alembic_version", "sqlite_master")
    before = {table: rows(seed, table) for table in tables}
    report = upgrade(seed, backup_dir=tmp_path / "kept")
    assert not report.changed
    assert (report.backup_path, report.quarantined) == (None, {})
    assert {table: rows(seed, table) for table in tables} == before
    assert len(list((tmp_path / "kept").glob("*.db"))) == 1


def test_no_backup_no_upgrade(seed, tmp_path):
    (tmp_path / "backups").write_text("a file where the folder should be")
    before = rows(seed, "sqlite_master")
    with pytest.raises(DatabaseError, match=r"backups.* could not be used: Not a directory"):
        upgrade(seed)
    assert rows(seed, "sqlite_master") == before


def test_an_upgrade_that_fills_the_disk_leaves_the_database_as_it_was(tmp_path):
    folder = tmp_path / "disk"
    with small_disk(folder) as enlarge:
        path = str(folder / "edi.db")
        seed_database.build(path)
        execute(path, *["UPDATE prompts SET positive_prompt = hex(randomblob(60000))"])
        before = {table: rows(path, table) for table in ("sqlite_master", *TABLES)}
        with pytest.raises(StorageFullError, match="nothing was lost"):
            upgrade(path, backup_dir=tmp_path / "elsewhere")
        assert {table: rows(path, table) for table in before} == before
        enlarge()
        assert upgrade(path, backup_dir=tmp_path / "elsewhere").changed
        assert is_current(path)


def test_the_standard_librarys_sqlite_upgrades_too(seed):
    engine = make_engine(sqlite_url(seed), driver=sqlite3)
    report = migrations.upgrade(engine)
    assert report.changed
    assert verify_backup(report.backup_path)["sessions"] == 3
    assert migrations.is_current(engine)
    engine.dispose()


# --- What is refused ---------------------------------------------------------------------------------


def refused_and_untouched(path, error, match):
    with open(path, "rb") as file:
        before = file.read()
    with pytest.raises(error, match=match):
        upgrade(path)
    with open(path, "rb") as file:
        assert file.read() == before


def test_a_newer_revision_is_refused_untouched(seed):
    upgrade(seed)
    execute(seed, "UPDATE alembic_version SET version_num = '9999'")
    engine = engine_for(seed)
    with pytest.raises(DatabaseTooNewError):
        migrations.is_current(engine)
    engine.dispose()
    refused_and_untouched(seed, DatabaseTooNewError, "revision 9999, which this version of EDI does not know")


def test_a_newer_user_version_is_refused_untouched(seed):
    upgrade(seed)
    execute(seed, f"PRAGMA user_version={SCHEMA_REVISION + 1}")
    refused_and_untouched(seed, DatabaseTooNewError, "written by a newer version of EDI")


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE pages (content)"],
        ["CREATE TABLE sessions (id TEXT, token TEXT)"],
        ["CREATE TABLE alembic_version (version_num VARCHAR(32))", "INSERT INTO alembic_version VALUES ('0001')"],
        ["CREATE VIEW v AS SELECT 1"],
    ],
    ids=["other tables", "another sessions table", "another program's alembic", "only a view"],
)
def test_another_applications_database_is_refused_untouched(path, statements):
    execute(path, *statements)
    refused_and_untouched(path, DatabaseError, "belongs to another application")
    assert not is_current_or_refused(path)


def is_current_or_refused(path):
    try:
        return is_current(path)
    except DatabaseError:
        return False


@pytest.mark.parametrize("extra", ["a sixth table", "a missing column", "a view"])
def test_what_only_resembles_the_seeds_database_is_refused_untouched(seed, extra):
    execute(
        seed,
        {
            "a sixth table": "CREATE TABLE more (x)",
            "a missing column": "ALTER TABLE entities DROP COLUMN area_percent",
            "a view": "CREATE VIEW best AS SELECT * FROM sessions",
        }[extra],
    )
    refused_and_untouched(seed, DatabaseError, "belongs to another application")


def test_a_damaged_seed_database_is_refused_untouched(seed):
    with open(seed, "r+b") as file:
        file.truncate(4096 * 3)
    refused_and_untouched(seed, DatabaseDamagedError, "is damaged")


def test_a_sqlite_file_without_tables_is_taken(path):
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("VACUUM")
        raw.execute("CREATE TABLE t (x)")
        raw.execute("DROP TABLE t")
    assert upgrade(path).from_revision is None
    assert is_current(path)


# --- Many at once, and dying half-way ----------------------------------------------------------------

UPGRADE = """
import sys
from edi_storage import migrations
from edi_storage.connection import make_engine, sqlite_url
import alembic.command, filelock
engine = make_engine(sqlite_url(sys.argv[1]))
print("ready", flush=True); input()
report = migrations.upgrade(engine)
print(report.changed, report.backup_path is not None, migrations.is_current(engine), flush=True)
"""


def upgrader(path):
    """A process that says `ready`, waits for a line, upgrades, and tells what it did."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", UPGRADE, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("start", ["nothing", "a seed database"])
def test_eight_processes_may_upgrade_at_once(path, tmp_path, start):
    if start == "a seed database":
        seed_database.build(path, sessions=50)
        add_bad_rows(path)
        before = counts(path)
    processes = [upgrader(path) for _ in range(8)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [process.communicate(timeout=60)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0] * 8
    is_seed = start == "a seed database"
    assert sorted(told) == [["False", "False", "True"]] * 7 + [["True", str(is_seed), "True"]]
    assert len(list(tmp_path.glob("backups/*.db"))) == is_seed
    if is_seed:
        assert counts(path) == {table: count - len(BAD_ROWS[table]) for table, count in before.items()}


def test_a_killed_upgrade_leaves_the_old_schema_or_the_new_one(tmp_path):
    template = str(tmp_path / "template.db")
    seed_database.build(template, sessions=100)
    add_bad_rows(template)
    before = counts(template)
    started = time.monotonic()
    upgrade(_copy(template, tmp_path / "timed" / "edi.db"))
    duration = time.monotonic() - started
    seen = set()
    for number in range(10):
        path = _copy(template, tmp_path / str(number) / "edi.db")
        _kill_during_upgrade(path, after=random.uniform(0, duration))
        seen.add(_finish_killed_upgrade(path, before))
        for copy in (tmp_path / str(number)).glob("backups/*.db"):
            assert {table: count for table, count in verify_backup(copy).items() if table in before} == before
    assert seen  # which of the two it was is up to chance


def _copy(template, path):
    path.parent.mkdir()
    path.write_bytes(open_bytes(template))
    return str(path)


def open_bytes(path):
    with open(path, "rb") as file:
        return file.read()


def _kill_during_upgrade(path, after):
    process = upgrader(path)
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("go\n")
    process.stdin.flush()
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)


def _finish_killed_upgrade(path, before):
    """Check what the killed process left, finish its work, and say which schema it had left."""
    kept = {table: count - len(BAD_ROWS[table]) for table, count in before.items()}
    with closing(sqlite3.connect(path)) as raw:
        tables = {row[0] for row in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    was_new = "alembic_version" in tables
    assert was_new == is_current(path)
    if not was_new:
        assert tables - {"sqlite_sequence"} == set(TABLES)
    assert counts(path) == (kept if was_new else before)
    assert upgrade(path).changed == (not was_new)
    assert is_current(path)
    assert counts(path) == kept
    return "new" if was_new else "old"
