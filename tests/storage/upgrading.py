"""Upgrading a file and looking at what came out, and every way in which a seed's row can be bad."""

import json

from edi_storage import migrations
from edi_storage.connection import make_engine, sqlite_url
from tests.storage.seed_database import execute, rows

TABLES = ("sessions", "prompts", "entities", "validations", "user_feedback")


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
