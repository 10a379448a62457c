"""A database of the seed's script keeps every row, or says where it went and why."""

import re
import sqlite3
from contextlib import closing

import pytest
from sqlalchemy import text

from edi_storage import migrations, record
from edi_storage.backup import verify_backup
from edi_storage.connection import make_engine, sqlite_url, writing
from edi_storage.errors import DatabaseError, StorageFullError
from edi_storage.migrations import seed_rows
from tests.storage import seed_database
from tests.storage.seed_database import execute, rows
from tests.storage.small_disk import small_disk
from tests.storage.upgrading import BAD_ROWS, TABLES, add_bad_rows, counts, engine_for, is_current, quarantined, upgrade

pytestmark = pytest.mark.sqlite_file("the seed's script makes SQLite files")


@pytest.fixture
def seed(tmp_path):
    """A seed database with three sound sessions."""
    path = str(tmp_path / "edi_sessions.db")
    seed_database.build(path)
    return path


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
        for rule in (seed_rows._session_id, record.check_session_id):
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
