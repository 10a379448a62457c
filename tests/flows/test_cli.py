"""The command line where no edit is needed: help, bad input, clear sentences, exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

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


def test_an_existing_output_is_only_replaced_when_asked(edi: Edi, tmp_path: Path) -> None:
    output = tmp_path / "mine.png"
    output.write_bytes(b"precious")
    refused = edi("edit", str(PALACE), "brighter", "--output", str(output), expect=2)
    assert "--overwrite" in refused.stderr
    assert output.read_bytes() == b"precious"


def test_errors_are_json_when_json_is_asked_for(edi: Edi) -> None:
    assert edi.json("show", "nobody", expect=2)["exit_code"] == 2


def test_a_setting_out_of_range_is_named(edi: Edi) -> None:
    edi.environment = {"EDI_LEASE_SECONDS": "soon"}
    refused = edi("sessions", expect=2)
    assert "EDI_LEASE_SECONDS" in refused.stderr
    assert one_sentence(refused.stderr)


def test_a_server_that_does_not_answer_is_named(edi: Edi) -> None:
    refused = edi("edit", str(PALACE), "brighter", expect=1)
    assert "127.0.0.1:9" in refused.stderr
    assert one_sentence(refused.stderr), refused.stderr


def test_deleting_asks_first(edi: Edi) -> None:
    from edi_storage.settings import Settings
    from edi_storage.store import open_store

    with open_store(Settings(home=edi.home)) as store:
        store.database.save_session({"id": "mine", "image_path": "a.jpg", "naive_prompt": "p"})
    assert "--yes" in edi("delete", "mine", expect=2).stderr
    assert len(edi.json("sessions")) == 1
    edi("delete", "mine", "--yes")
    assert edi.json("sessions") == []


def test_the_database_commands(edi: Edi) -> None:
    assert edi.json("db", "current") == {"revision": None, "head": "0004"}
    assert edi.json("db", "upgrade")["to_revision"] == "0004"
    assert edi.json("db", "upgrade")["backup"] is None
    assert edi.json("db", "current")["revision"] == "0004"
    assert Path(edi.json("db", "backup")["backup"]).is_file()


def test_config_says_where_a_setting_comes_from(edi: Edi) -> None:
    shown = edi.json("config")
    assert shown["EDI_HOME"] == {"value": str(edi.home), "source": "environment"}
    assert shown["EDI_DATABASE_URL"]["value"] == f"sqlite:///{edi.home}/edi_sessions.db"


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
            env={**os.environ, "EDI_HOME": str(tmp_path)},
            cwd=PALACE.parents[2],
        )
    assert done.stderr.strip().splitlines()[-1] == "[]"
