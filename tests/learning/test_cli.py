"""`edi learn`, `edi export` and what belongs to them, as a person calls them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edi_storage.store import open_store
from flows.learned import words
from tests import homes
from tests.flows.conftest import Edi
from tests.learning.household import live


@pytest.fixture(scope="module")
def edi(tmp_path_factory: pytest.TempPathFactory) -> Edi:
    """The home of a household that has edited for a while. No server: what is tested here must not need one."""
    home = tmp_path_factory.mktemp("household")
    with open_store(homes.settings_of(home)) as store:
        live(store, 130)
    return Edi(home, {"PREFECT_API_URL": "http://127.0.0.1:9/api"})


def test_the_first_screen_says_whether_it_helps_and_what_comes(edi: Edi) -> None:
    shown = edi("learn").stdout
    assert "earn" in shown.splitlines()[1]
    assert "What changed since profile" in shown
    assert words.COMING in shown
    assert words.CELLS not in shown
    assert "All of it: edi learn --report" in shown
    assert len(shown.splitlines()) < 40
    assert words.CELLS in edi("learn", "--report").stdout
    assert edi.json("learn")["new_events"] == 0


def test_a_terminal_of_plain_letters_gets_plain_letters(edi: Edi) -> None:
    plain = Edi(edi.home, {**edi.environment, "PYTHONIOENCODING": "ascii:strict"})
    shown = plain("learn", "--report").stdout
    assert shown.isascii()
    assert "\\u" not in shown
    assert "==#=" in shown
    assert "\\u" not in plain("learn", "--explain", "last").stdout


def test_the_page_is_one_private_file_and_not_written_over_another(edi: Edi, tmp_path: Path) -> None:
    file = tmp_path / "learned.html"
    assert edi.json("learn", "--html", str(file)) == {"html": str(file)}
    assert file.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert file.stat().st_mode & 0o077 == 0
    assert "--overwrite" in edi("learn", "--html", str(file), expect=2).stderr
    edi("learn", "--html", str(file), "--overwrite")


def test_a_choice_is_explained(edi: Edi) -> None:
    told = edi("learn", "--explain", "edit-00129").stdout
    assert told.startswith("Attempt 1, ")
    assert "follow from profile" in told or "as if nothing had been learned" in told
    (attempt,) = edi.json("learn", "--explain", "edit-00129")["attempts"]
    assert sum(way["chance"] for way in attempt["presets"]) == pytest.approx(1)
    assert [way["name"] for way in attempt["presets"] if way["chosen"]] == [attempt["decision"]["preset"]]
    assert "nothing had been learned yet" in edi("learn", "--explain", "edit-00001").stdout
    assert "There is no session 'nobody'" in edi("learn", "--explain", "nobody", expect=2).stderr


def test_profiles_are_listed_gone_back_to_and_activated(edi: Edi) -> None:
    edi("learn")
    newest, before, *_ = edi.json("learn", "profiles")
    assert (newest["status"], newest["parent"]) == ("active", before["version"])
    assert f"Back to profile {before['version']}" in edi("learn", "rollback").stdout
    assert "because you went back to it" in " ".join(edi("learn").stdout.replace("│", " ").split())
    edi("learn", "activate", str(newest["version"]))
    assert edi.json("learn", "profiles")[0]["status"] == "active"
    assert "There is no profile 999" in edi("learn", "activate", "999", expect=2).stderr


def test_an_export_says_what_it_holds(edi: Edi, tmp_path: Path) -> None:
    done = edi.json("export", "--format", "kto", "--out", str(tmp_path / "kto"))
    assert done["sessions"] == sum(done["rows"].values()) > 50
    told = edi("export", "--out", str(tmp_path / "all")).stdout
    assert "130 rows" in told
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("precious")
    assert "not an earlier export" in edi("export", "--out", str(tmp_path / "mine"), expect=2).stderr


def test_nothing_to_share_says_how_it_could_be(tmp_path: Path) -> None:
    edi = Edi(tmp_path / "home")
    assert "EDI_CONSENT=export" in edi("export", "--out", str(tmp_path / "out")).stdout
    assert "A pair takes a session" in edi("export", "--out", str(tmp_path / "out"), "--format", "trl").stdout


@pytest.mark.parametrize("command", [("learn", "--help"), ("export", "--help"), ("learn", "activate", "--help")])
def test_help_has_an_example_and_needs_nothing_heavy(command: tuple[str, ...]) -> None:
    code = f"""
import sys
from flows.cli import app
try:
    app({list(command)!r})
except SystemExit:
    pass
heavy = {{"numpy", "scipy", "matplotlib", "sqlalchemy", "prefect", "pyarrow"}} & set(sys.modules)
print("heavy:", sorted(heavy))
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "Example" in shown
    assert "heavy: []" in shown
