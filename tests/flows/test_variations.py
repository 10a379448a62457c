"""Edits with variations, end to end: what is asked, what is answered, and what survives in between."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edi_storage.doctor import doctor
from edi_storage.errors import InputError
from edi_storage.forking import Wanted, make_fork, plan_fork
from edi_storage.settings import Settings
from edi_storage.store import Store, open_store
from flows.output import history_document
from tests import homes
from tests.flows.conftest import PALACE, Edi
from tests.flows.test_edit import differences, normalised, steady

SKY = "make the sky dramatic"


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The palace at half the size: three skies are made in a second."""
    path = tmp_path_factory.mktemp("photo") / "palace.png"
    with Image.open(PALACE) as palace:
        palace.resize((320, 214)).save(path)
    return str(path)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, server: str) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("variations") / "home"
    with pytest.MonkeyPatch.context() as patch:
        homes.enter(patch, path)
        yield path


@pytest.fixture(scope="module")
def store(home: Path) -> Iterator[Store]:
    with open_store(Settings()) as opened:
        yield opened


def edit(photo: str, session_id: str, answer: str = "", review: str = "unsure", **wishes: Any) -> dict[str, Any]:
    from flows.edit import edit_image

    asked = {"variations": 3, "prompt": SKY, **wishes}
    result: dict[str, Any] = edit_image(image_path=photo, session_id=session_id, answer=answer, review=review, **asked)
    return result


@pytest.fixture(scope="module")
def asked(store: Store, photo: str) -> dict[str, Any]:
    """A session that asks which of three skies it is to be."""
    return edit(photo, "asked")


def another(store: Store, session_id: str, stage: str = "choice", parent: str = "asked") -> None:
    """A session that asks the same: forked from the one that asks, it shares everything before the choice."""
    make_fork(store, plan_fork(store, store.database.require_session(parent), Wanted(stage, session_id)))


def pictures(result: dict[str, Any]) -> list[str]:
    return [Path(one["path"]).name for one in result["variations"]]


def told(store: Store, session_id: str) -> Any:
    """All rows and the state of a session, without times, ids of runs, and fences."""
    document = history_document(store, store.database.load_session(session_id))
    return normalised(steady(json.loads(json.dumps(document))), session_id)


def test_a_session_killed_before_and_after_the_answer_asks_the_same_and_ends_the_same(
    store: Store, home: Path, asked: dict[str, Any], photo: str, server: str
) -> None:
    assert (asked["waiting_for"], asked["edited_image_path"]) == ("question", None)
    assert asked["question"]["choices"] == ["dramatic, 60 %", "stormy, 60 %", "golden, 60 %"]
    edi = Edi(home, {"PREFECT_API_URL": server})
    command = ("edit", photo, SKY, "--variations", "3", "--review", "unsure", "--session-id", "killed")
    edi.killed("hook", "edit", *command)
    again = edit(photo, "killed")
    assert (again["waiting_for"], again["question"], pictures(again)) == (
        "question",
        asked["question"],
        pictures(asked),
    )
    edi.killed("begin", "choice", "resume", "killed", "--answer", "2, sky from 3")
    assert store.database.require_session("killed").options["choice"] == "2, sky from 3"
    done = edit(photo, "killed")
    assert (done["status"], [one["chosen"] for one in done["variations"]]) == ("completed", [False, True, False])

    edit(photo, "whole")
    edit(photo, "whole", "2, sky from 3")
    assert list(differences(told(store, "whole"), told(store, "killed"))) == []
    assert doctor(Settings()) == []


def test_a_choice_is_the_attempts_result_and_can_be_gone_back_to(
    store: Store, asked: dict[str, Any], photo: str
) -> None:
    another(store, "chosen")
    for wrong, said in (("4", "no choice 4"), ("1, moon from 2", "do not see 'moon'"), ("the best", "not clear")):
        with pytest.raises(InputError, match=said):
            edit(photo, "chosen", wrong)
    done = edit(photo, "chosen", "2")
    assert (done["status"], done["decision"]) == ("completed", "accepted")
    assert Path(done["edited_image_path"]).name == pictures(asked)[1]
    # What follows goes by what was chosen: the next attempt would be of a stormy sky, too.
    assert done["intent"]["parameters"]["mood"] == "stormy"
    assert [commit.key for commit in store.database.get_commits("chosen")][-4:] == [
        ("edit", 1, 0),
        ("edit", 1, 1),
        ("validation", 1, 0),
        ("completed", 1, 0),
    ]
    another(store, "again", parent="chosen")
    assert store.database.require_session("again").waiting_for == "question"
    assert edit(photo, "again", "3")["intent"]["parameters"]["mood"] == "golden"
    another(store, "anew", stage="edit", parent="chosen")
    assert pictures(edit(photo, "anew")) == pictures(asked)


def test_lost_variations_and_a_lost_database_come_back(
    photo: str, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.remake import remake

    homes.enter(monkeypatch, tmp_path / "home")
    settings = Settings()
    asked = edit(photo, "lost")
    homes.lose_database(settings.home)
    assert all(found.repaired for found in doctor(settings, repair=True, remake=remake))
    again = edit(photo, "lost")
    assert (again["question"], again["variations"]) == (asked["question"], asked["variations"])
    done = edit(photo, "lost", "1, sky from 3")
    lost = [done["variations"][2]["path"], done["edited_image_path"]]
    before = [homes.read(path) for path in lost]
    for path in lost:
        homes.remove(path)
    assert all(found.repaired for found in doctor(settings, repair=True, remake=remake))
    assert [homes.read(path) for path in lost] == before
    assert doctor(settings) == []


def test_where_nobody_answers_the_best_measured_variation_is_taken(
    store: Store, asked: dict[str, Any], photo: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from flows import choosing

    def given_up(session_id: str) -> list[bool]:
        another(store, session_id)
        assert store.database.give_up_waiting(store.database.require_session(session_id))
        done = edit(photo, session_id)
        assert done["alignment_score"] == 1.0
        return [one["chosen"] for one in done["variations"]]

    caplog.set_level("INFO", "edi")
    assert given_up("equals") == [True, False, False]
    assert "Nobody was asked: variation 1 (dramatic, 60 %) was taken" in caplog.text
    assert "of equals, the nearest to what was asked" in caplog.text
    # On this photo all three are right. So let the first one be as if nothing had been done to the photo.
    real, instead = choosing.decode_photo, iter([Path(photo).read_bytes()])
    monkeypatch.setattr(choosing, "decode_photo", lambda data: real(next(instead, data)))
    assert given_up("better") == [False, True, False]


def test_with_automatic_review_nothing_is_asked(store: Store, photo: str) -> None:
    done = edit(photo, "alone", review="auto", prompt="make it warmer", variations=2)
    assert (done["status"], [one["chosen"] for one in done["variations"]]) == ("completed", [True, False])
    assert done["question"] is None


def test_an_edit_that_comes_out_in_one_way_says_so(store: Store, photo: str) -> None:
    done = edit(photo, "one-way", prompt="sharpen the sky", variations=2)
    assert (done["status"], done["variations"]) == ("completed", [])
    assert any("variations" in warning for warning in done["warnings"]), done["warnings"]


def test_the_pages_show_the_variations_and_which_was_taken(store: Store, asked: dict[str, Any], photo: str) -> None:
    from flows.album import SMALL, album
    from flows.markdown import session_page
    from flows.pages.session import page

    another(store, "shown")
    asking = store.database.load_session("shown")
    written = page(store, asking)
    assert len(re.findall(r'alt="variation \d"', written)) == 3
    assert "Which of these do you like best?" in written
    edit(photo, "shown", "1, sky from 2")
    said = "You chose variation 1 (dramatic, 60 %, with sky from 2 (stormy, 60 %))."
    history = store.database.load_session("shown")
    assert said in page(store, history)
    for stage in (asking, history):
        text = session_page(stage, album(store, stage, SMALL), store.files.full_path)
        assert "![variations](data:image/jpeg" in text
        assert len(text) < 200_000


@pytest.mark.parametrize("number", ["0", "5"])
def test_a_number_of_variations_that_cannot_be_is_bad_usage(edi: Edi, photo: str, number: str) -> None:
    refused = edi("edit", photo, SKY, "--variations", number, expect=2)
    assert "--variations" in refused.stderr
    assert not edi.home.exists()
