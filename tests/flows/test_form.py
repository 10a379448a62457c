"""The run forms in Prefect's UI, and what a person fills in there: names, wishes, errors, feedback."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edi_storage.errors import InputError, NotFoundError, SessionFailedError
from edi_storage.settings import Settings
from edi_storage.store import Store, open_store
from flows.names import batch_name, edit_name, short_prompt, verdict_name
from tests import homes
from tests.flows.conftest import PALACE, Edi


def forms() -> list[Any]:
    from flows.backup import backup_database
    from flows.batch import edit_batch
    from flows.edit import edit_image
    from flows.feedback import record_feedback
    from flows.learn import learn_from_feedback
    from flows.resume import resume_interrupted

    return [edit_image, edit_batch, record_feedback, resume_interrupted, learn_from_feedback, backup_database]


def fields(flow: Any) -> dict[str, dict[str, Any]]:
    properties: dict[str, dict[str, Any]] = flow.parameters.properties
    return properties


def test_every_field_of_every_form_is_said_in_words_and_has_no_toggle() -> None:
    for flow in forms():
        assert flow.description, flow.name
        for name, field in fields(flow).items():
            assert field["title"] != name, f"{flow.name} shows the parameter's own name {name}"
            assert len(field["description"]) > 10, f"{flow.name}: {name}"
            assert {"anyOf", "oneOf"}.isdisjoint(field), f"{flow.name} shows a toggle of types for {name}"
            assert field.get("default", "") is not None


def test_the_form_of_an_edit_asks_the_photo_and_the_prompt_first_and_is_short() -> None:
    edit_image = forms()[0]
    order = sorted(fields(edit_image), key=lambda name: fields(edit_image)[name]["position"])
    assert order[:7] == ["image_path", "prompt", "strength", "protect", "region", "mask", "review"]
    assert order[7:] == ["variations", "max_attempts"]
    assert edit_image.parameters.required == ["image_path", "prompt"]
    attempts = fields(edit_image)["max_attempts"]
    assert (attempts["minimum"], attempts["maximum"]) == (1, 3)
    assert (
        fields(edit_image)["strength"]["enum"][0] == "as the prompt says" == fields(edit_image)["strength"]["default"]
    )


def test_what_the_form_does_not_ask_can_be_given_all_the_same_but_not_in_vain() -> None:
    given = {"image_path": "a.jpg", "prompt": "warmer", "session_id": "mine", "learning": False}
    checked = forms()[0].validate_parameters(given)
    assert (checked["session_id"], checked["learning"], checked["consent"]) == ("mine", False, "")
    with pytest.raises(Exception, match="session_id"):
        forms()[0].validate_parameters({**given, "session_id": "../mine"})


def test_a_script_may_give_a_strength_as_a_number() -> None:
    checked = forms()[0].validate_parameters({"image_path": "a.jpg", "prompt": "warmer", "strength": 0.4})
    assert checked["strength"] == 0.4


@pytest.mark.parametrize(
    ("prompt", "short"),
    [
        ("make the sky dramatic", "sky dramatic"),
        ("Please, can you make the sky a bit darker?", "sky bit darker?"),
        ("I would like you to blur the background!", "blur background"),
        ("warmer", "warmer"),
        ("make", "make"),
        ("make it\nbrighter\x00", "brighter"),
        ("make this picture pop", "pop"),
        ("makeup stronger", "makeup stronger"),
        ("darker " * 30, ("darker " * 8).strip() + "..."),
        ("x" * 90, "x" * 57 + "..."),
    ],
)
def test_a_run_is_called_by_its_prompt_in_short(prompt: str, short: str) -> None:
    assert short_prompt(prompt) == short
    assert len(short_prompt(prompt)) <= 60


@pytest.mark.parametrize("odd", [{}, {"prompt": None}, {"prompt": "\udcff", "image_path": 7}, {"photos": [""]}])
def test_a_runs_name_can_always_be_made(odd: dict[str, Any]) -> None:
    for name in (edit_name(odd), batch_name(odd), verdict_name(odd, "")):
        assert name
        name.encode("utf-8")


def test_runs_are_called_by_what_they_are_about() -> None:
    asked = {"prompt": "make the sky dramatic", "image_path": "/photos/photo.jpg"}
    assert edit_name(asked) == "sky dramatic - photo.jpg"
    assert verdict_name({"verdict": "accept", "rating": 4}, "photo.jpg") == "accept 4 - photo.jpg"
    assert batch_name({**asked, "photos": ["/a/holiday"]}) == "sky dramatic - holiday"
    assert batch_name({**asked, "photos": ["a.jpg", "b.jpg"]}) == "sky dramatic - 2 photos"


# --- Runs on a real server ---------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str) -> Iterator[Store]:
    homes.enter(monkeypatch, tmp_path / "home")
    with open_store(Settings()) as opened:
        yield opened


def run_of(server: str, state: Any) -> Any:
    import httpx

    return httpx.get(f"{server}/flow_runs/{state.state_details.flow_run_id}", timeout=60).raise_for_status().json()


def test_what_is_wrong_is_the_runs_message_as_it_stands(store: Store, server: str) -> None:
    from flows.edit import edit_image

    state = edit_image(image_path="castle.jpg", prompt="make it warmer", return_state=True)
    told = run_of(server, state)["state"]["message"]
    assert told.startswith("There is no photo 'castle.jpg' in ")
    with pytest.raises(InputError, match="castle"):
        state.result()
    state = edit_image(image_path=str(PALACE), prompt="warmer", protect="unicorn", session_id="odd", return_state=True)
    run = run_of(server, state)
    assert (run["name"], run["state"]["type"]) == ("warmer - palace.jpg", "FAILED")
    assert run["state"]["message"].startswith("I do not see 'unicorn' in this photo")
    assert store.database.require_session("odd").failure_reason == run["state"]["message"]
    with pytest.raises(SessionFailedError, match="I found: sky"):
        state.result()


def test_feedback_finds_its_session_by_prefix_or_takes_the_newest_with_a_result(store: Store, server: str) -> None:
    from flows.edit import edit_image
    from flows.feedback import record_feedback

    with pytest.raises(NotFoundError, match="no edit yet"):
        record_feedback(verdict="accept")
    for name in ("first-one", "second-one"):
        edit_image(image_path=str(PALACE), prompt="make it warmer", session_id=name)
    with pytest.raises(SessionFailedError):
        edit_image(image_path=str(PALACE), prompt="add a unicorn", session_id="without-result")
    state = record_feedback(verdict="accept", rating=4, return_state=True)
    assert run_of(server, state)["name"] == "accept 4 - palace.jpg"
    record_feedback(verdict="reject", reasons=["too weak"], session_id="first")
    said = {name: store.database.get_feedback(name) for name in ("first-one", "second-one", "without-result")}
    assert [(one.feedback_type, one.rating) for one in said["second-one"]] == [("accept", 4)]
    assert [(one.feedback_type, one.reasons) for one in said["first-one"]] == [("reject", ["too weak"])]
    assert said["without-result"] == []


def test_the_other_runs_are_named_by_what_they_do_and_when(store: Store, server: str) -> None:
    from flows.backup import backup_database
    from flows.resume import resume_interrupted

    for flow, what in ((backup_database, "backup"), (resume_interrupted, "resume")):
        name = run_of(server, flow(return_state=True))["name"]
        assert name.startswith(f"{what} - ")


# --- The same wishes on the command line -------------------------------------------------------------

WISHES = ("--region", "50,0,50,100", "--protect", "the palace", "--strength", "subtle", "--attempts", "2")


def pixels(path: str | Path) -> Any:
    return np.asarray(Image.open(io.BytesIO(homes.read(str(path)))).convert("RGB")).astype(int)


def test_wishes_survive_a_kill_and_hold_in_the_resumed_session(edi: Edi) -> None:
    edi.killed("begin", "intent", "edit", str(PALACE), "make it warmer", *WISHES, "--session-id", "half")
    (result,) = edi.json("resume", "--all")["sessions"]
    options = edi.json("show", "half")["sessions"][0]["options"]
    assert {name: options[name] for name in ("region", "protect", "strength", "max_attempts")} == {
        "region": "50,0,50,100",
        "protect": "the palace",
        "strength": 0.3,
        "max_attempts": 2,
    }
    assert (result["status"], result["intent"]["strength"]) == ("completed", 0.3)
    changed = np.abs(pixels(result["edited_image_path"]) - pixels(PALACE)).max(axis=2)
    assert changed[:, :320].max() == 0
    assert changed[:, 320:].max() > 5
    building = next(e["mask_path"] for e in result["entities"] if e["entity_id"] == "building_0")
    assert changed[np.asarray(Image.open(io.BytesIO(homes.read(building)))) > 250].max() <= 1


def test_a_lost_mask_of_a_region_is_made_again(edi: Edi) -> None:
    result = edi.json("edit", str(PALACE), "make it warmer", "--region", "20,20,50,50", "--session-id", "mended")
    masks = [entity["mask_path"] for entity in result["entities"] if entity["entity_id"] == "region"]
    lost = [result["edited_image_path"], *masks]
    before = [homes.read(path) for path in lost]
    assert len(before) == 2
    for path in lost:
        homes.remove(path)
    assert edi.json("doctor", "--repair")["ok"]
    assert [homes.read(path) for path in lost] == before


@pytest.mark.parametrize("wish", [("--strength", "mighty"), ("--region", "1,2"), ("--protect", "a\udcff")])
def test_a_wish_that_cannot_be_read_is_refused_before_anything_is_made(edi: Edi, wish: tuple[str, str]) -> None:
    refused = edi("edit", str(PALACE), "make it warmer", *wish, expect=2)
    assert len(refused.stderr.strip().splitlines()) == 1
    assert edi.json("sessions") == []


def test_the_command_takes_the_name_of_a_photo_in_the_inbox(edi: Edi) -> None:
    inbox = edi.home / "images"
    inbox.mkdir(parents=True)
    (inbox / "beach.jpg").write_bytes(PALACE.read_bytes())
    refused = edi("edit", "castle.jpg", "make it warmer", expect=2)
    assert "There: beach.jpg." in refused.stderr
    edi.killed("begin", "edit", "edit", "beach.jpg", "make it warmer", "--session-id", "mine")
    (inbox / "beach.jpg").unlink()
    done = edi.json("edit", "beach.jpg", "make it warmer", "--session-id", "mine")
    assert (done["status"], done["image_path"]) == ("completed", str(inbox / "beach.jpg"))
