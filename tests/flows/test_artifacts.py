"""What a person sees of a session in the Prefect UI, read back from a real Prefect server."""

from __future__ import annotations

import base64
import io
import logging
import re
import threading
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import pytest
from PIL import Image

from edi_storage.errors import EngineError, SessionFailedError, UnsupportedEditError
from edi_storage.models import SessionHistory
from edi_storage.steps import Step
from edi_storage.store import Store
from flows import words
from flows.markdown import bare, plain
from tests.flows.conftest import PALACE, Edi
from tests.waiting import wait_until

Artifact = dict[str, Any]

#: Prefect keeps every version in its own database, and the browser loads the page at once.
MOST = 200_000


def edit(session_id: str, prompt: str = "make the sky dramatic", **more: Any) -> dict[str, Any]:
    from flows.edit import edit_image

    result: dict[str, Any] = edit_image(image_path=str(PALACE), prompt=prompt, session_id=session_id, **more)
    return result


def artifacts(server: str, **asked: Any) -> list[Artifact]:
    """Artifacts of the server, oldest first."""
    body = {"artifacts": asked, "limit": 200}
    found: list[Artifact] = httpx.post(f"{server}/artifacts/filter", json=body).raise_for_status().json()
    return sorted(found, key=lambda artifact: artifact["created"])


def pages(server: str, session_id: str) -> list[str]:
    """What each run shows of a session, the first run first."""
    from flows.artifacts import mark_of

    return [artifact["data"] for artifact in artifacts(server, key={"like_": f"-{mark_of(session_id)}"})]


def pictures(page: str) -> dict[str, Image.Image]:
    found = dict(re.findall(r"!\[([^\]]+)\]\(data:image/jpeg;base64,([^)]+)\)", page))
    return {name: Image.open(io.BytesIO(base64.b64decode(data))) for name, data in found.items()}


def rows(page: str, head: str) -> list[list[str]]:
    """The cells of the table whose head begins so."""
    lines = page[page.index(f"| {head} |") :].splitlines()
    table = lines[: next((number for number, line in enumerate(lines) if not line.startswith("|")), len(lines))]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table[2:]]


def test_a_person_can_watch_a_session_grow(edi: Edi, server: str) -> None:
    session_id = f"grown-{uuid4().hex}"
    edi.killed("shown", "edit", "edit", str(PALACE), "make the sky dramatic", "--session-id", session_id)
    (found,) = pages(server, session_id)
    done = edi.json("resume", session_id)
    kept, ended = pages(server, session_id)
    assert kept == found, "each run has the one page, and leaves those of others alone"
    # The stages go on while a page is made: it shows one of those after the analysis.
    assert re.match(r"## (Working out what the prompt means|Writing the prompt|Editing the photo)", found)
    assert set(pictures(found)) == {"before", "what was found"}
    assert "not yet" in found
    assert ended.startswith(f"## Done. EDI measures {100 * done['alignment_score']:.0f} % as asked; ")
    shown = pictures(ended)
    assert set(shown) == {"before", "after", "what was found", "what changed"}
    assert shown["before"].size == shown["after"].size == (384, 256)
    before, after = (np.asarray(shown[name].convert("RGB"), int) for name in ("before", "after"))
    assert np.abs(before - after).mean() > 5
    assert all(len(page) < MOST for page in (found, ended))


def test_no_stage_waits_for_a_page(store: Store, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import artifacts as shown
    from flows.session import SessionRun

    real, real_begin = shown.show_session, SessionRun.begin
    last_stage, waited = threading.Event(), list[bool]()

    def slow(*args: Any) -> None:
        waited.append(last_stage.wait(60 if all(waited) else 0))
        real(*args)

    def begin(run: SessionRun, step: Step) -> Any:
        if step.stage == "completed":
            last_stage.set()
        return real_begin(run, step)

    monkeypatch.setattr(shown, "show_session", slow)
    monkeypatch.setattr(SessionRun, "begin", begin)
    edit("unhurried")
    assert all(waited), "the stages went on while the first page was being made"
    assert 1 <= len(waited) <= 3, "what was asked for meanwhile became one page"
    assert pages(server, "unhurried")[-1].startswith("## Done.")


def test_a_result_is_seen_before_it_is_measured_and_rated_only_after(
    store: Store, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import markdown
    from flows.album import Album
    from flows.engines.validation import EmbeddedValidator

    real, seen = EmbeddedValidator.validate, list[tuple[str, SessionHistory]]()

    def measured() -> str | None:
        return next((page for page in pages(server, "early") if page.startswith("## Measuring what")), None)

    def validate(self: EmbeddedValidator, *args: Any) -> Any:
        seen.append((wait_until(measured), store.database.load_session("early")))
        return real(self, *args)

    monkeypatch.setattr(EmbeddedValidator, "validate", validate)
    edit("early")
    ((page, before),) = seen
    assert set(pictures(page)) == {"before", "after", "what was found"}
    done = store.database.load_session("early")
    failed = before.model_copy(update={"session": before.session.model_copy(update={"status": "failed"})})
    for history, to_rate in ((before, False), (failed, False), (done, True)):
        shown = markdown.session_page(history, Album(None, None), store.files.full_path, served=True)
        assert ("· Rate it: [keep it](/edi/early/rate" in shown, "### Rate it" in shown) == (to_rate, to_rate)
        assert "[Look at it at full size](/edi/early)" in shown


def test_a_run_draws_a_picture_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import markdown
    from flows.album import SMALL, Copies, Drawn, album

    edit("drawn")
    history = store.database.load_session("drawn")
    copies: Copies = {}
    drawn: Drawn = {}
    calls: list[Any] = []

    def page(*kept: Any) -> str:
        return markdown.session_page(history, album(store, history, SMALL, *kept), store.files.full_path)

    real = markdown.data_uri
    monkeypatch.setattr(markdown, "data_uri", lambda *args, **named: calls.append(args) or real(*args, **named))
    first = page(copies, drawn)
    assert len(calls) == 4, "before, after, what was found, what changed"
    assert page(copies, drawn) == first == page()
    assert len(calls) == 4 + 1 + 4, "what changed is shown by the last page only"


def test_the_page_says_what_the_rows_say(store: Store, server: str) -> None:
    result = edit("exact")
    page = pages(server, "exact")[-1]
    history = store.database.load_session("exact")
    shown = rows(page, "no.")
    for entity, cells in zip(words.largest_first(history.entities), shown, strict=True):
        _, what, share, certainty, became = cells
        assert (what, share) == (entity.label, words.percent(entity.area_percent))
        assert certainty == f"{100 * entity.confidence:.0f} %"
        assert ("changed as asked" in became) == (entity.entity_id in result["intent"]["target_entities"])
    assert [cells[0] for cells in shown] == [str(number) for number in range(1, len(shown) + 1)]
    assert " → ".join(f"{prompt.quality_score or 0:.2f}" for prompt in history.prompts) in page
    assert plain(history.prompts[-1].positive_prompt) in page
    assert page.count("<tr>") == 1 + len(history.prompts)
    (scored,) = history.validations
    parts = re.search(r"\*\*([\d.]+)\*\* = 0\.4 x (\d+)/(\d+) .* \+ 0\.4 x (\d+)/(\d+) .* \(1 - (\d+)/(\d+)", page)
    assert parts
    score, kept, to_keep, done, asked, spilt, total = map(float, parts.groups())
    assert (kept, done, spilt) == (scored.preserved_count, scored.modified_count, scored.unintended_count)
    assert score == pytest.approx(0.4 * kept / to_keep + 0.4 * done / asked + 0.2 * (1 - spilt / total), abs=0.005)
    assert f"`{result['edited_image_path']}`" in page
    assert "edi feedback exact VERDICT" in page


def test_each_entity_is_numbered_where_it_is(store: Store, server: str) -> None:
    from flows.album import album
    from flows.pictures import colour_of, labelled

    edit("numbered")
    history = store.database.load_session("numbered")
    small = album(store, history, 320)
    assert small.before is not None
    for number, entity in enumerate(words.largest_first(history.entities), 1):
        mask = small.masks[entity.entity_id]
        shown = labelled(small.before, {number: mask}).astype(int)
        red, green, blue = (int(colour_of(number)[place : place + 2], 16) for place in (1, 3, 5))
        inside, outside = shown[mask > 0.95], shown[mask == 0]
        assert np.ptp(outside, axis=1).max() == 0, "what is not the entity is grey"
        expected = small.before[mask > 0.95] * 0.45 + np.array([red, green, blue]) * 0.55
        coloured = np.abs(inside - expected).max(axis=1) < 3
        assert coloured.mean() > 0.8, "all but the number is the entity in its colour"


def test_a_killed_edit_says_what_was_restored(edi: Edi, server: str) -> None:
    session_id = f"Came_Back_{uuid4().hex}"
    edi.killed("shown", "edit", "edit", str(PALACE), "make the sky dramatic", "--session-id", session_id)
    edi.json("resume", session_id)
    first, ended = pages(server, session_id)
    assert "### Restored" not in first
    restored = "upload, analysis, intent, refine 0, refine 1, refine 2, refine 3"
    assert f"Finished before this run and not run again: {restored}." in ended
    assert set(pictures(ended)) == {"before", "after", "what was found", "what changed"}


def test_the_page_is_called_by_prompt_and_photo_and_no_two_sessions_share_it() -> None:
    from edi_storage.models import SessionData
    from flows.artifacts import key_of

    def key(session_id: str, prompt: str = "make the sky dramatic", photo: str = "/photos/Palace 1.jpg") -> str:
        return key_of(SessionData(session_id=session_id, naive_prompt=prompt, image_path=photo))

    assert re.fullmatch(r"sky-dramatic-palace-1-jpg-[0-9a-f]{8}", key("mine"))
    keys = [key(session_id) for session_id in ("mine", "Mine", "a-b", "a_b", "A-b", "a--b")]
    keys += [key("mine", "空を青く", "/空.jpg"), key("mine", "x" * 2000)]
    assert len(set(keys)) == len(keys)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", key) and len(key) < 80 for key in keys)


def test_an_edit_leaves_one_page(store: Store, server: str) -> None:
    edit("single")
    assert len(pages(server, "single")) == 1


def test_a_question_is_asked_in_the_artifact_with_its_choices(store: Store, server: str) -> None:
    asked = edit("unclear", "make it better")["intent"]["question"]
    page = pages(server, "unclear")[-1]
    assert page.startswith(f"## Waiting for your answer: {plain(asked['text'])}")
    for number, choice in enumerate(asked["choices"], 1):
        assert f"{number}. {plain(choice)}" in page
    edit("unclear", "make it better", answer=1)
    assert "Your answer was 1." in pages(server, "unclear")[-1]


def test_a_verdict_is_waited_for_in_the_artifact(store: Store, server: str) -> None:
    edit("judged", review="ask")
    assert pages(server, "judged")[-1].startswith("## Waiting for your verdict on attempt 1. EDI measures ")


def test_a_session_that_fails_says_why(store: Store, server: str) -> None:
    with pytest.raises(SessionFailedError):
        edit("impossible", "add a unicorn")
    page = pages(server, "impossible")[-1]
    assert page.startswith("## Failed: ")
    assert "ComfyUI" in page


def test_no_older_page_follows_the_one_of_a_failure(store: Store, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import artifacts as shown
    from flows.engines.editing import EmbeddedEditor

    real, under_way, followed = shown._publish, threading.Event(), threading.Event()
    ended: list[bool] = []

    def slow(history: SessionHistory, *args: Any) -> Any:
        if under_way.is_set():
            followed.set()
        else:
            under_way.set()
            ended.append(bool(wait_until(lambda: store.database.require_session("late").status == "failed")))
            ended.append(followed.wait(2.0))
        return real(history, *args)

    def fails(self: EmbeddedEditor, *args: Any) -> Any:
        assert under_way.wait(60)
        raise UnsupportedEditError("no such edit")

    monkeypatch.setattr(shown, "_LAST_SECONDS", 0.1)
    monkeypatch.setattr(shown, "_publish", slow)
    monkeypatch.setattr(EmbeddedEditor, "edit", fails)
    with pytest.raises(SessionFailedError):
        edit("late")
    assert ended == [True, False], "the session was failed first, and the page of that waited for the one under way"
    (page,) = pages(server, "late")
    assert page.startswith("## Failed: no such edit")


def test_a_session_that_is_interrupted_says_so(store: Store, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import stages
    from flows.engines.editing import EmbeddedEditor

    def fails(self: EmbeddedEditor, *args: Any) -> Any:
        raise EngineError("the backend is down")

    monkeypatch.setattr(EmbeddedEditor, "edit", fails)
    monkeypatch.setitem(stages.STAGES, "edit", stages.edit.with_options(retries=0))
    with pytest.raises(EngineError):
        edit("halted")
    assert pages(server, "halted")[-1].startswith("## Interrupted. Last at: Editing the photo.")


def test_a_run_that_is_turned_away_leaves_the_page_of_the_one_at_work(store: Store, server: str) -> None:
    from edi_storage.errors import LeaseHeldError
    from tests.storage.sessions import SESSION

    mine = SESSION.model_copy(update={"session_id": "taken", "image_path": str(PALACE)})
    lease = store.database.begin_session(mine, "somebody-else:1:x", 600)
    with pytest.raises(LeaseHeldError):
        edit("taken", mine.naive_prompt)
    assert pages(server, "taken") == []
    store.database.release(lease)


def tried_again(edi: Edi, server: str, because: str) -> str:
    """The page of an edit whose first attempt was rejected for this reason, and whose second one is made."""
    edi("edit", str(PALACE), "make the sky dramatic", "--review", "ask", "--session-id", "twice", expect=3)
    edi("feedback", "twice", "reject", "--reason", because)
    edi("resume", "twice", expect=3)
    return pages(server, "twice")[-1]


def test_an_attempt_that_is_the_one_before_says_so(edi: Edi, server: str) -> None:
    page = tried_again(edi, server, "wrong region")
    assert page.startswith("## Waiting for your verdict on attempt 2. It is the same as the one before: ")


def test_each_attempt_has_its_line(edi: Edi, server: str) -> None:
    page = tried_again(edi, server, "too strong")
    assert page.startswith("## Waiting for your verdict on attempt 2. EDI measures ")
    assert re.findall(r"^- Attempt (\d), dramatic sky on sky: alignment \*\*\d", page, re.MULTILINE) == ["1", "2"]
    assert re.search(r"version by version: attempt 1: [\d. →]+; attempt 2: [\d. →]+\.", page)
    assert "<summary>All 8 versions</summary>" in page
    assert "Your verdict: reject." in page


def test_a_verdict_is_seen_on_the_page_at_once(store: Store, server: str) -> None:
    from flows.feedback import record_feedback

    edit("rated")
    record_feedback("accept", rating=5, comment="lovely", session_id="rated")
    assert "Your verdict: accept, 5 of 5, “lovely”." in pages(server, "rated")[-1]


def test_pictures_that_are_lost_do_not_cost_the_session(store: Store, server: str) -> None:
    edit("faded", review="ask")
    history = store.database.load_session("faded")
    for artifact in history.artifacts:
        store.files.write_whole(artifact.path, b"no picture")
    store.database.save_feedback("faded", {"feedback_type": "accept"})
    assert edit("faded")["waiting_for"] == "review"
    page = pages(server, "faded")[-1]
    assert pictures(page) == {}
    assert "The stored photo cannot be read any more" in page


def test_an_artifact_that_cannot_be_made_is_one_warning(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from flows import artifacts as shown

    def refuses(*_: Any, **__: Any) -> None:
        raise RuntimeError("the server has no room")

    monkeypatch.setattr(shown, "get_client", refuses)
    monkeypatch.setattr(logging.getLogger("edi"), "propagate", True)
    assert edit("unseen")["status"] == "completed"
    told = [record.getMessage() for record in caplog.records if record.name == "edi" and record.levelname == "WARNING"]
    assert set(told) == {"The session could not be shown in the Prefect UI: the server has no room"}


def test_text_of_persons_is_shown_and_not_obeyed() -> None:
    hostile = "a | b\n# c <img src=x onerror=alert(1)> [d](javascript:e) `f` **g** &lt; http://h _i_ $j$ ![k](l)"
    text = plain(hostile)
    assert "\n" not in text
    assert not re.search(r"(?<!\\)[|<>\[\]`*_&$#!]", text)
    assert not re.search(r"[|<>\[\]`*_&$#!\\]", bare(hostile))
    assert [plain(start) for start in ("- a", "+ a", "1. a", "= a")] == ["\\- a", "\\+ a", "1\\. a", "\\= a"]
    assert len(plain("x" * 10_000)) < 2_000


def test_a_prompt_of_two_thousand_letters_stays_a_small_page(store: Store, server: str) -> None:
    prompt = ("make the sky dramatic, keep the house " + "| **loud** <b>words</b> " * 90)[:2000]
    edit("loud", prompt)
    page = pages(server, "loud")[-1]
    assert len(page) < MOST
    assert "<b>" not in page


def test_a_noisy_picture_is_made_small_enough() -> None:
    from flows.pictures import data_uri

    noise = np.random.default_rng(7).integers(0, 256, (900, 1200, 3), dtype=np.uint8)
    uri = data_uri(noise, 560, most=50_000)
    assert len(uri) <= 50_000
    assert max(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).size) > 100


# --- The sentences ------------------------------------------------------------------------------------


def test_the_log_tells_the_story(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("edi"), "propagate", True)
    edit("told")
    told = [record.getMessage() for record in caplog.records if record.name == "edi"]
    expected = [
        r"Opened palace\.jpg \(640 x 427, JPEG\)\.",
        r"Found sky \(\d+ %\), .*\.",
        r"Understood: dramatic sky on sky, with confidence 0\.\d\d\.",
        r"To be kept as they are: .*building.*\.",
        r"Refined the prompt in 4 steps; its quality \(1 is the best\): [\d., ]+\.",
        r"Edited: dramatic sky on sky\.",
        r"Measured: 100 % as asked, good\. Alignment 1\.00 = 0\.4 x 4/4 kept \+ 0\.4 x 1/1 .* \+ 0\.2 x .*\.",
        r"Done: attempt 1 is kept \(100 % as asked\): good\.",
    ]
    assert len(told) == len(expected), told
    for sentence, pattern in zip(told, expected, strict=True):
        assert re.fullmatch(pattern, sentence), sentence


def test_what_was_restored_is_told_by_attempt() -> None:
    steps = [Step("upload"), Step("refinement", 1, 0), Step("refinement", 2, 0), Step("edit", 2)]
    assert words.restored(steps) == "upload, refine 0; attempt 2: refine 0, edit"
