"""What a person sends from EDI's own pages: photos, wishes for edits, answers and verdicts."""

from __future__ import annotations

import io
import re
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from PIL import Image

from edi_storage.owner import owner_name
from flows.engines.targets import phrase_of
from tests.flows.conftest import PALACE
from tests.flows.control import Control
from tests.flows.test_viewer import filled, look
from tests.waiting import wait_until


def send(control: Control, name: str, data: bytes, **headers: str) -> httpx.Response:
    url = control.api.removesuffix("/api") + "/edi/-/photo"
    return httpx.put(url, params={"name": name}, content=data, headers=headers, timeout=60)


def test_a_photo_is_sent_to_the_inbox_whole_and_replaces_no_other(control: Control) -> None:
    inbox, photo = control.home / "images", PALACE.read_bytes()
    assert (send(control, "sent.jpg", photo).status_code, (inbox / "sent.jpg").read_bytes()) == (201, photo)
    assert (inbox / "sent.jpg").stat().st_mode & 0o077 == 0
    again = send(control, "sent.jpg", photo)
    assert (again.status_code, again.text) == (200, "sent.jpg\n"), "the same one again is there already"
    another = io.BytesIO()
    Image.new("RGB", (64, 64), "navy").save(another, "JPEG")
    assert send(control, "sent.jpg", another.getvalue()).text == "sent-2.jpg\n"
    assert ((inbox / "sent.jpg").read_bytes(), (inbox / "sent-2.jpg").read_bytes()) == (photo, another.getvalue())
    assert 'src="/edi/-/photo?name=sent-2.jpg"' in look(control, "/edi").text
    assert [path.name for path in inbox.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("../sent.jpg", PALACE.read_bytes(), "'../sent.jpg' is no name for a photo."),
        (".sent.jpg", PALACE.read_bytes(), "'.sent.jpg' is no name for a photo."),
        ("", PALACE.read_bytes(), "'' is no name for a photo."),
        ("sent.exe", PALACE.read_bytes(), "sent.exe is not called as a photo: EDI opens .jpeg, .jpg, .png, .webp."),
        ("text.jpg", b"a text", "text.jpg is not a photo that EDI can open; use a PNG, JPEG or WebP file."),
    ],
)
def test_what_is_no_photo_is_not_taken(control: Control, name: str, data: bytes, said: str) -> None:
    before = sorted(path.name for path in (control.home / "images").iterdir())
    answer = send(control, name, data)
    assert answer.status_code == httpx.codes.BAD_REQUEST
    assert answer.text.startswith(said)
    assert sorted(path.name for path in (control.home / "images").iterdir()) == before


def test_another_sites_page_sends_nothing(control: Control) -> None:
    refused = send(control, "foreign.jpg", PALACE.read_bytes(), Origin="http://elsewhere.example")
    assert refused.status_code == httpx.codes.FORBIDDEN
    assert not (control.home / "images" / "foreign.jpg").exists()


def post(control: Control, path: str, headers: dict[str, str] | None = None, **fields: object) -> httpx.Response:
    return httpx.post(control.api.removesuffix("/api") + path, data=fields, headers=headers or {}, timeout=60)


def wish(photo: str = str(PALACE), prompt: str = "make it warmer", **more: object) -> dict[str, object]:
    return {"photo": photo, "prompt": prompt, "once": uuid4(), **more}


def started(control: Control, **more: object) -> str:
    """Send the form; returns the id of the run, which is its session's."""
    answer = post(control, "/edi/-/edit", **wish(**more))
    assert answer.status_code == httpx.codes.SEE_OTHER, answer.text
    return answer.headers["location"].removeprefix("/edi/")


def stands(control: Control, run: str) -> str:
    """How the page of the edit says it stands."""
    _, _, rest = look(control, f"/edi/{run}").text.partition('<p class="standing"><strong>')
    return rest.partition("</strong>")[0]


def test_the_form_starts_an_edit_and_leads_to_its_page(control: Control) -> None:
    wishes = {"strength": "strong", "protect": "sky", "review": "auto"}
    run = started(control, **wishes)
    assert stands(control, run), "there is a page at once"
    asked = control.read(f"/flow_runs/{run}")
    assert asked["name"] == "warmer - palace.jpg"
    wait_until(lambda: stands(control, run).startswith("Done"), "the edit")
    with control.database() as database:
        session = database.require_session(run)
    assert (session.image_path, session.naive_prompt) == (str(PALACE), "make it warmer")
    assert (session.options["strength"], session.options["protect"], session.options["review"]) == (0.85, "sky", "auto")


def test_the_photo_of_that_name_in_the_inbox_is_meant_wherever_the_server_was_started(control: Control) -> None:
    Image.new("RGB", (64, 64), "navy").save(control.home / "started-in" / "same.jpg")
    (control.home / "images" / "same.jpg").write_bytes(PALACE.read_bytes())
    run = started(control, photo="same.jpg", review="auto")
    named = control.start("edit-image", image_path="same.jpg", prompt="make it warmer", review="auto")
    for edit in (run, named):
        wait_until(lambda edit=edit: stands(control, edit).startswith("Done"), "the edit")
        with control.database() as database:
            assert database.require_session(edit).image_path == str(control.home / "images" / "same.jpg")
    assert '<img src="/edi/-/photo?name=same.jpg" alt="same.jpg">' in look(control, f"/edi/{run}/again").text


def test_sent_twice_the_form_starts_one_edit(control: Control) -> None:
    form = wish(review="auto")
    first, second = (post(control, "/edi/-/edit", **form).headers["location"] for _ in range(2))
    assert first == second
    for other in ({"once": uuid4()}, {"strength": "subtle"}):
        assert post(control, "/edi/-/edit", **{**form, **other}).headers["location"] != first


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"photo": "/nowhere/beach.jpg"}, "There is no file /nowhere/beach.jpg; check the path."),
        ({"photo": str(Path(__file__))}, "is not a photo that EDI can open; use a PNG, JPEG or WebP file."),
        ({"prompt": "  "}, "Say what to do with the photo, such as "),
        ({"prompt": "x" * 2001}, "has 2001 characters: say it in at most 2000."),
        ({"strength": "huge"}, "The strength is &#x27;huge&#x27;"),
        ({"region": "0,0,0,0"}, "region"),
        ({"region": "0,0,50,50", "mask": str(PALACE)}, "A region and a mask say the same in two ways"),
    ],
)
def test_what_cannot_be_done_is_told_in_the_form_which_keeps_what_was_written(
    control: Control, wrong: dict[str, str], said: str
) -> None:
    form = wish(protect="the <b>sky</b>", **wrong)
    answer = post(control, "/edi/-/edit", **form)
    assert answer.status_code == httpx.codes.BAD_REQUEST
    told = answer.text.partition('<p class="wrong">')[2].partition("</p>")[0]
    assert said in told
    kept = {"review": "unsure", "variations": "", "max_attempts": "3", "strength": "", "region": "", "mask": ""}
    written = {name: str(value) for name, value in form.items()}
    assert filled(answer.text) == {**kept, **written, **({"strength": ""} if "strength" in wrong else {})}
    assert "<b>sky" not in answer.text


@pytest.mark.parametrize(
    "form",
    [
        {},
        wish(variations=5),
        wish(max_attempts=0),
        wish(review="me"),
        wish(once="twice"),
        {**wish(), **{f"more{number}": 1 for number in range(200)}},
        {**wish(), "protect": "x" * 70_000},
    ],
)
def test_a_form_that_no_page_sends_is_refused_in_one_sentence(control: Control, form: dict[str, object]) -> None:
    answer = post(control, "/edi/-/edit", **form)
    assert answer.status_code in (httpx.codes.BAD_REQUEST, httpx.codes.REQUEST_ENTITY_TOO_LARGE)
    assert len(answer.text.strip().splitlines()) == 1


def test_an_edit_that_cannot_begin_says_why_on_its_page_and_leads_to_another_try(control: Control) -> None:
    run = control.start("edit-image", image_path="nowhere.jpg", prompt="make it warmer")
    control.wait_for(run, "Failed", "the failure")
    page = look(control, f"/edi/{run}").text
    assert "Failed: There is no photo &#x27;nowhere.jpg&#x27;" in page
    assert 'href="/edi/-/edit?photo=nowhere.jpg&amp;prompt=make+it+warmer"' in page
    foreign = control.start("edit-image", image_path=str(PALACE), prompt="x", region="</script><script>alert(1)")
    control.wait_for(foreign, "Failed", "the failure")
    assert "<script>alert" not in look(control, f"/edi/{foreign}").text, "what a person wrote is text"
    other = control.start("learn-from-feedback")
    assert look(control, f"/edi/{other}").status_code == httpx.codes.NOT_FOUND, "it is no edit"


def test_a_question_is_answered_on_the_page_and_the_edit_goes_on(control: Control) -> None:
    run = started(control, prompt="make it better")
    choice = '<button name="answer" value="2">brighter</button>'
    wait_until(lambda: choice in look(control, f"/edi/{run}").text, "the question")
    assert stands(control, run) == "Waiting for your answer: What would make it better?"
    wrong = post(control, f"/edi/{run}/answer", answer="9")
    assert (wrong.status_code, "There is no choice 9: answer with a number from 1" in wrong.text) == (400, True)
    answer = post(control, f"/edi/{run}/answer", answer="2")
    assert (answer.status_code, answer.headers["location"]) == (httpx.codes.SEE_OTHER, f"/edi/{run}")
    wait_until(lambda: stands(control, run).startswith("Done"), "the edit")
    with control.database() as database:
        commits = database.get_commits(run)
        intent = database.load_session(run).intent
    assert intent is not None
    assert intent.answer == 2
    assert len({commit.key for commit in commits}) == len(commits)
    late = post(control, f"/edi/{run}/answer", answer="1")
    assert (late.status_code, "has no open question to answer" in late.text) == (400, True)


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [("blur everything behind the bowl", "What should be blurred?"), ("make the toy red", "What should be made red?")],
)
def test_choices_show_where_they_are_and_doubtful_names_are_called_so(
    control: Control, prompt: str, asked: str
) -> None:
    run = started(control, prompt=prompt)
    wait_until(lambda: asked in look(control, f"/edi/{run}").text, "the question")
    found = re.findall(
        r'<button name="answer" value="\d+">(<img [^>]*>)([^<]*)</button>', look(control, f"/edi/{run}").text
    )
    with control.database() as database:
        intent, entities = database.get_intent(run), database.get_entities(run)
    nothing = post(control, f"/edi/{run}/answer")
    assert (nothing.status_code, "Nothing was chosen: tick what you mean" in nothing.text) == (400, True)
    wrong = post(control, f"/edi/{run}/answer", several=[1, 99])
    assert (wrong.status_code, "There is no choice 1,99: answer with" in wrong.text) == (400, True)
    assert post(control, f"/edi/{run}/answer", several=[2, 1]).status_code == httpx.codes.SEE_OTHER
    pictures, names = [picture for picture, _ in found], [unescape(name) for _, name in found]
    assert intent is not None
    assert intent.question is not None
    assert len(names) == len(set(pictures)) == len(intent.question.choices) > 2
    sure = {phrase_of(entity, entities): entity.confidence >= 0.7 for entity in entities}
    assert names == [choice if sure.get(choice, True) else f"{choice}, perhaps" for choice in intent.question.choices]
    wait_until(lambda: stands(control, run).startswith("Done"), "the edit")
    said = f"You said: {intent.question.choices[0]}; {intent.question.choices[1]}."
    assert said in unescape(look(control, f"/edi/{run}").text)
    with control.database() as database:
        done = database.get_intent(run)
    named = {phrase_of(entity, entities): entity.entity_id for entity in entities}
    meant = {
        named[thing]
        for choice in intent.question.choices[:2]
        for thing in choice.removeprefix("everything but ").split(" and ")
    }
    assert done is not None
    assert meant <= set(done.preserve_entities if "behind" in prompt else done.target_entities)


def test_an_edit_whose_question_has_no_answer_is_given_up_for_another_one(control: Control) -> None:
    run = started(control, prompt="make it better")
    button = f'action="/edi/{run}/stop" class="none"><button>None of these: say it in other words</button>'
    wait_until(lambda: button in look(control, f"/edi/{run}").text, "the question")
    assert "What was understood" not in look(control, f"/edi/{run}").text, "it is only a guess"
    control.wait_for(run, "Suspended", "the run to wait")
    answer = post(control, f"/edi/{run}/stop")
    assert (answer.status_code, answer.headers["location"]) == (httpx.codes.SEE_OTHER, f"/edi/{run}/again")
    assert stands(control, run) == "Given up, as you said."
    assert "<td>given up</td>" in look(control, "/edi").text
    with control.database() as database:
        session = database.require_session(run)
    assert (session.status, session.failure_reason) == ("failed", "cancelled by a person")
    assert control.state(run) == "Cancelled"
    late = post(control, f"/edi/{run}/stop")
    assert (late.status_code, "It does not wait for you any more." in late.text) == (400, True)


def test_a_verdict_on_the_page_is_stored_once_and_steers_the_edit_that_waits(control: Control) -> None:
    run = started(control, review="ask")
    again = "With “not what I wanted” it is tried again."
    wait_until(lambda: again in look(control, f"/edi/{run}").text, "the first attempt")
    page = look(control, f"/edi/{run}").text
    assert filled(page)["attempt"] == "1"
    verdict = {
        "attempt": 1,
        "verdict": "reject",
        "stars": 2,
        "comment": "<too> much",
        "reasons": ["too strong", "tone"],
    }
    answer = post(control, f"/edi/{run}/rate", **verdict)
    assert (answer.status_code, answer.headers["location"]) == (httpx.codes.SEE_OTHER, f"/edi/{run}#said")
    to_rate = '<a href="#rate">Rate it</a>'
    wait_until(lambda: to_rate in look(control, f"/edi/{run}").text, "the second attempt, not rated yet")
    late = post(control, f"/edi/{run}/rate", attempt=1, verdict="accept", comment="too late")
    assert (late.status_code, "Attempt 2 is there by now: look at it first." in late.text) == (400, True)
    assert "too late</textarea>" in late.text, "what was written is not lost"
    assert post(control, f"/edi/{run}/rate", attempt=2, verdict="accept").status_code == httpx.codes.SEE_OTHER
    wait_until(lambda: stands(control, run).startswith("Done"), "the end")
    with control.database() as database:
        said = {one.feedback_key: one for one in database.get_feedback(run)}
    first, second = said["attempt-1"], said["attempt-2"]
    assert (first.feedback_type, first.rating, first.comments) == ("reject", 2, "<too> much")
    assert set(first.reasons) == {"too strong", "tone"}
    assert (second.feedback_type, second.rating, second.comments, second.reasons) == ("accept", None, None, [])
    again = post(control, f"/edi/{run}/rate", attempt=2, verdict="partial", stars=3)
    assert again.status_code == httpx.codes.SEE_OTHER, again.text
    with control.database() as database:
        assert len(database.get_feedback(run)) == 2, "it replaces what was said before"
    assert '<a href="#said">You said: right in part ★★★</a>' in look(control, f"/edi/{run}").text


def test_a_verdict_given_at_once_waits_until_the_run_has_let_go(control: Control) -> None:
    run = started(control, review="auto")
    control.wait_for(run, "Completed", "the edit")
    with control.database() as database, ThreadPoolExecutor() as pool:
        lease = database.acquire(run, owner_name(), 60)
        rated = pool.submit(post, control, f"/edi/{run}/rate", attempt=1, verdict="accept")
        with pytest.raises(TimeoutError):
            rated.result(timeout=1)
        database.release(lease)
        assert rated.result().status_code == httpx.codes.SEE_OTHER
        assert len(database.get_feedback(run)) == 1


@pytest.mark.parametrize("sent", [{"verdict": "maybe"}, {"stars": 6}, {"reasons": ["ugly"]}, {"comment": "x" * 2001}])
def test_a_verdict_that_no_page_sends_is_refused(control: Control, sent: dict[str, object]) -> None:
    answer = post(control, "/edi/last/rate", **{"attempt": 1, "verdict": "accept", **sent})
    assert answer.status_code == httpx.codes.BAD_REQUEST
    assert answer.text.startswith("The form: ")


def test_another_sites_page_starts_rates_and_answers_nothing(control: Control) -> None:
    port = control.api.removesuffix("/api").rpartition(":")[2]
    foreign = [
        {"Origin": "http://elsewhere.example"},
        {"Origin": f"http://127.0.0.1:{int(port) + 1}"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ]
    for path in ("/edi/-/edit", "/edi/last/rate", "/edi/last/answer", "/edi/last/stop"):
        for headers in foreign:
            answer = post(control, path, headers, **wish(), attempt=1, verdict="accept", answer=1)
            assert answer.status_code == httpx.codes.FORBIDDEN, (path, headers)
    own = {"Origin": f"http://127.0.0.1:{port}", "Sec-Fetch-Site": "same-origin"}
    assert post(control, "/edi/-/edit", own, **wish()).status_code == httpx.codes.SEE_OTHER
