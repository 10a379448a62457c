"""The command line where no edit is needed: help, bad input, clear sentences, exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edi_storage.connection import writing
from edi_storage.database import EDIDatabase
from edi_storage.migrations.runner import head
from tests import homes
from tests.flows.conftest import PALACE, Edi


@pytest.fixture
def edi(tmp_path: Path) -> Edi:
    # No server: what is tested here must not need one.
    return Edi(tmp_path / "home", {"PREFECT_API_URL": "http://127.0.0.1:9/api"})


@pytest.fixture
def bad(tmp_path: Path) -> dict[str, str]:
    """Files that are no usable photos, by what is wrong with them."""
    whole = PALACE.read_bytes()
    contents = {
        "empty.jpg": b"",
        "text.png": b"hello",
        "cut.jpg": whole[: len(whole) // 2],
        "page.jpg": b"<html></html>",
        "drawing.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    Image.new("RGB", (4, 4)).save(tmp_path / "tiny.png")
    os.mkfifo(tmp_path / "pipe.jpg")
    paths = {name: str(tmp_path / name) for name in (*contents, "tiny.png", "pipe.jpg", "missing.jpg")}
    return {**paths, "folder": str(tmp_path)}


def one_sentence(text: str) -> bool:
    return len(text.strip().splitlines()) == 1 and "Traceback" not in text


@pytest.mark.parametrize(
    "name",
    ["empty.jpg", "text.png", "cut.jpg", "page.jpg", "drawing.eps", "tiny.png", "pipe.jpg", "missing.jpg", "folder"],
)
def test_what_is_no_photo_is_refused_in_one_sentence(edi: Edi, bad: dict[str, str], name: str) -> None:
    refused = edi("edit", bad[name], "make it brighter", expect=2)
    assert one_sentence(refused.stderr), refused.stderr
    assert bad[name] in refused.stderr
    assert refused.stdout == ""
    assert edi.json("sessions") == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("edit", str(PALACE), ""),
        ("edit", str(PALACE), "   "),
        ("edit", str(PALACE), "x" * 2001),
        ("edit", str(PALACE), "a \udcff b"),
        ("edit", str(PALACE), "brighter", "--session-id", "../up"),
        ("edit", str(PALACE), "brighter", "--session-id", "nul"),
        ("edit", str(PALACE), "brighter", "--session-id", "x" * 65),
        ("edit", str(PALACE), "brighter", "--output", str(PALACE)),
        ("edit", str(PALACE), "brighter", "--output", "result.gif"),
        ("edit", str(PALACE), "brighter", "--output", "no-such-folder/result.png"),
        ("resume",),
        ("resume", "nobody"),
        ("resume", "some", "--all"),
        ("show", "nobody"),
        ("show", "last"),
        ("feedback", "nobody", "accept"),
        ("delete", "nobody", "--yes"),
        ("show", "a\udcff"),
        ("resume", "a\udcff"),
        ("feedback", "a\udcff", "accept"),
        ("delete", "a\udcff", "--yes"),
        ("resume", "--all", "--answer", "2"),
    ],
    ids=lambda arguments: " ".join(arguments[:1] + arguments[2:])[:40].encode("ascii", "replace").decode(),
)
def test_bad_input_is_one_sentence_and_exit_code_2(edi: Edi, arguments: tuple[str, ...]) -> None:
    refused = edi(*arguments, expect=2)
    assert one_sentence(refused.stderr), refused.stderr
    assert edi.json("sessions") == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("feedback", "x", "maybe"),
        ("feedback", "x", "accept", "--rating", "6"),
        ("feedback", "x", "accept", "--rating", "4.5"),
        ("sessions", "--status", "lost"),
        ("nonsense",),
    ],
)
def test_bad_usage_is_exit_code_2(edi: Edi, arguments: tuple[str, ...]) -> None:
    refused = edi(*arguments, expect=2)
    assert "Traceback" not in refused.stderr
    told = edi.json(*arguments, expect=2)
    assert told["exit_code"] == 2
    assert told["error"]


def test_an_existing_output_is_only_replaced_when_asked(edi: Edi, tmp_path: Path) -> None:
    output = tmp_path / "mine.png"
    output.write_bytes(b"precious")
    refused = edi("edit", str(PALACE), "brighter", "--output", str(output), expect=2)
    assert "--overwrite" in refused.stderr
    assert output.read_bytes() == b"precious"


def test_errors_are_json_when_json_is_asked_for(edi: Edi) -> None:
    assert edi.json("show", "nobody", expect=2)["exit_code"] == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EDI_LEASE_SECONDS", "soon"),
        ("EDI_LEASE_SECONDS", "inf"),
        ("EDI_LEASE_SECONDS", "nan"),
        ("EDI_LEASE_SECONDS", "1e12"),
        ("EDI_AUTOSAVE_SECONDS", "inf"),
        ("EDI_AUTOSAVE_SECONDS", "nan"),
        ("EDI_AUTOSAVE_SECONDS", "1e12"),
        ("EDI_HOME", "~nosuchuser/x"),
        ("EDI_STORAGE_URL", "memory://mine"),
        ("EDI_STORAGE_URL", "Memory://mine"),
    ],
)
def test_a_setting_out_of_range_is_named(edi: Edi, name: str, value: str) -> None:
    edi.environment = {name: value}
    refused = edi("sessions", expect=2)
    assert name in refused.stderr
    assert one_sentence(refused.stderr), refused.stderr


def test_a_database_url_with_a_bad_port_is_refused_without_its_password(edi: Edi) -> None:
    edi.environment = {"EDI_DATABASE_URL": "postgresql://me:secret@host:port/edi"}
    refused = edi("sessions", expect=2)
    assert one_sentence(refused.stderr), refused.stderr
    assert "me:***@host:port" in refused.stderr
    assert "secret" not in refused.stderr


@pytest.mark.sqlite_file("what is on servers is read without the folder of the home")
@pytest.mark.parametrize(
    ("home", "reason"),
    [("a-file/home", "Not a directory"), ("x" * 300, "File name too long")],
    ids=["below a file", "too long"],
)
@pytest.mark.parametrize("command", [("sessions",), ("doctor",), ("resume", "--all")], ids=" ".join)
def test_a_home_that_cannot_be_used_is_one_sentence_with_the_reason(
    edi: Edi, tmp_path: Path, home: str, reason: str, command: tuple[str, ...]
) -> None:
    (tmp_path / "a-file").write_bytes(b"")
    edi.home = tmp_path / home
    refused = edi(*command, expect=1)
    assert one_sentence(refused.stderr), refused.stderr
    assert str(edi.home) in refused.stderr
    assert reason in refused.stderr
    assert "went wrong" not in refused.stderr


def test_a_server_that_does_not_answer_is_named(edi: Edi) -> None:
    refused = edi("edit", str(PALACE), "brighter", expect=1)
    assert "127.0.0.1:9" in refused.stderr
    assert one_sentence(refused.stderr), refused.stderr


def stored(edi: Edi, **fields: Any) -> EDIDatabase:
    """The database of this home, with a session in it."""
    database = homes.database(edi.home)
    database.save_session({"id": "mine", "image_path": "a.jpg", "naive_prompt": "p", **fields})
    return database


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize(
    "command", [("sessions",), ("show", "mine"), ("config",), ("sessions", "--json")], ids=" ".join
)
def test_a_terminal_that_cannot_show_every_letter_is_no_reason_to_fail(
    edi: Edi, encoding: str, command: tuple[str, ...]
) -> None:
    edi.home = edi.home / "größe 雪"
    stored(edi, naive_prompt="mehr Schnee: 雪 ❄").close()
    edi.environment = {"PYTHONIOENCODING": f"{encoding}:strict"}
    shown = subprocess.run(
        [sys.executable, "-m", "flows.cli", *command],
        env={**os.environ, **homes.environment(edi.home), **edi.environment},
        cwd=PALACE.parents[2],
        capture_output=True,
        check=False,
    )
    assert (shown.returncode, shown.stderr) == (0, b"")


def test_what_is_created_is_private_whatever_the_umask(tmp_path: Path) -> None:
    code = """
import atexit, os, runpy, sys
os.umask(0)
atexit.register(lambda: print(oct(os.umask(0)), file=sys.stderr))
sys.argv = ["edi", "config"]
runpy.run_module("flows.cli", run_name="__main__")
"""
    environment = {**os.environ, **homes.environment(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=PALACE.parents[2], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "0o77"


def test_a_failed_session_waits_for_nobody(edi: Edi) -> None:
    stored(edi, status="failed", waiting_for="question", failure_reason="no sky").close()
    assert "waiting" not in edi("sessions").stdout
    shown = edi("show", "mine").stdout
    assert "failed: no sky" in shown
    assert "waiting" not in shown
    assert "Answer with" not in shown


def test_show_says_what_a_session_waits_for_and_how_to_answer(edi: Edi) -> None:
    with stored(edi, waiting_for="question") as database:
        question = {"text": "Which house?", "choices": ["the left one", "the right one"]}
        intent = {"edit_type": "color", "confidence": 0.3, "question": question}
        database.save_intent("mine", intent)
    assert "waiting for you (question)" in edi("sessions").stdout
    shown = edi("show", "mine").stdout
    assert "Which house?\n  1. the left one\n  2. the right one\n" in shown
    assert "edi resume mine --answer NUMBER" in shown


def test_show_says_that_a_session_waits_for_a_review(edi: Edi) -> None:
    stored(edi, waiting_for="review", final_alignment_score=0.5).close()
    assert "edi feedback mine accept|reject|partial, and: edi resume mine" in edi("show", "mine").stdout


@pytest.mark.parametrize("waiting_for", ["question", "review"])
def test_show_says_little_of_a_session_that_says_little(edi: Edi, waiting_for: str) -> None:
    stored(edi, waiting_for=waiting_for).close()
    assert f"waiting for you ({waiting_for})" in edi("show", "mine").stdout


@pytest.mark.sqlite_file("a server checks what a column holds")
def test_stored_values_that_cannot_be_read_are_one_sentence(edi: Edi) -> None:
    with stored(edi) as database, writing(database.engine) as connection:
        connection.exec_driver_sql("UPDATE sessions SET created_at = 'yesterday'")
    refused = edi("sessions", expect=1)
    assert one_sentence(refused.stderr), refused.stderr
    assert "edi_sessions.db is damaged" in refused.stderr


def test_deleting_asks_first(edi: Edi) -> None:
    stored(edi).close()
    assert "--yes" in edi("delete", "mine", expect=2).stderr
    assert len(edi.json("sessions")) == 1
    edi("delete", "mine", "--yes")
    assert edi.json("sessions") == []


def test_the_database_commands(edi: Edi) -> None:
    homes.lose_database(edi.home)
    assert edi.json("db", "current") == {"revision": None, "head": head()}
    assert edi.json("db", "upgrade")["to_revision"] == head()
    assert edi.json("db", "upgrade")["backup"] is None
    assert edi.json("db", "current")["revision"] == head()


@pytest.mark.sqlite_file("EDI makes no backups of a server's database: pg_dump does")
def test_a_backup_is_a_file(edi: Edi) -> None:
    assert Path(edi.json("db", "backup")["backup"]).is_file()


def test_pruning_says_first_and_deletes_then(edi: Edi) -> None:
    from edi_storage.store import open_store

    with open_store(homes.settings_of(edi.home)) as store:
        for year in (2020, 2021):
            made = {"id": f"from-{year}", "created_at": f"{year}-01-01T00:00:00Z", "status": "completed"}
            store.database.save_session({**made, "image_path": "a.jpg", "naive_prompt": "p"})
    old = ["--older-than", "30d", "--keep", "1"]
    assert edi.json("prune", *old, "--dry-run") == {"dry_run": True, "sessions": ["from-2020"]}
    assert "--yes" in edi("prune", *old, expect=2).stderr
    assert len(edi.json("sessions")) == 2
    assert edi.json("prune", *old, "--yes")["sessions"] == ["from-2020"]
    assert [session["session_id"] for session in edi.json("sessions")] == ["from-2021"]
    edi("prune", "--older-than", "soon", expect=2)


@pytest.mark.sqlite_file("EDI makes no backups of a server's database: pg_dump does")
def test_a_backup_can_be_restored(edi: Edi) -> None:
    from edi_storage.store import open_store

    copy = edi.json("db", "backup")["backup"]
    with open_store(homes.settings_of(edi.home)) as store:
        store.database.save_session({"id": "later", "image_path": "a.jpg", "naive_prompt": "p"})
    assert "--yes" in edi("db", "restore", copy, expect=2).stderr
    restored = edi.json("db", "restore", copy, "--yes")
    assert Path(restored["set_aside"]).is_file()
    assert edi.json("sessions") == []
    edi("db", "restore", str(PALACE), "--yes", expect=1)
    assert edi.json("sessions") == []


def test_config_says_where_a_setting_comes_from(edi: Edi) -> None:
    edi.environment = {"EDI_DATABASE_URL": ""}
    shown = edi.json("config")
    assert shown["EDI_HOME"] == {"value": str(edi.home), "source": "environment"}
    assert shown["EDI_DATABASE_URL"]["value"] == f"sqlite:///{edi.home}/edi_sessions.db"


def test_config_shows_no_password(edi: Edi) -> None:
    edi.environment = {
        "EDI_DATABASE_URL": "postgresql://me:secret@host/edi",
        "EDI_STORAGE_URL": "s3://key:secret@bucket/edi",
    }
    assert edi.json("config")["EDI_DATABASE_URL"]["value"] == "postgresql://me:***@host/edi"
    assert edi.json("config")["EDI_STORAGE_URL"]["value"] == "s3://key:***@bucket/edi"
    assert "secret" not in edi("config").stdout


def test_help_tells_what_is_done_where_nothing_is_given(edi: Edi) -> None:
    for command, told in {
        "edit": "[default: EDI_MAX_ATTEMPTS, else 3]",
        "batch": "[default: as many as processors and memory allow]",
    }.items():
        shown = edi(command, "--help").stdout.replace("│", " ")
        assert told in " ".join(shown.split())


@pytest.mark.parametrize("arguments", [["--help"], ["edit", "--help"], ["sessions"], ["show", "last"]])
def test_reading_commands_import_neither_prefect_nor_opencv(tmp_path: Path, arguments: list[str]) -> None:
    script = (
        "import sys\nfrom flows.cli import app\n"
        f"sys.argv = ['edi', *{arguments!r}]\n"
        "try:\n    app()\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('prefect', 'cv2', 'numpy', 'alembic') if name in sys.modules], file=sys.stderr)"
    )
    for _ in range(2):  # the first call makes the database, which needs alembic
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            env={**os.environ, **homes.environment(tmp_path)},
            cwd=PALACE.parents[2],
        )
    assert done.stderr.strip().splitlines()[-1] == "[]"
