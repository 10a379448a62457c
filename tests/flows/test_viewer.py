"""The pages of sessions that `edi serve` has beside Prefect's UI."""

from __future__ import annotations

import asyncio
import io
import os
import re
import socket
from html import unescape
from pathlib import Path

import httpx
import pytest
from PIL import Image
from pydantic import SecretStr

from edi_storage.recovery import give_verdict
from edi_storage.store import open_store
from tests import homes
from tests.flows.conftest import PALACE, Edi
from tests.flows.control import Control


@pytest.fixture(scope="module")
def edited(control: Control) -> str:
    """The id of a session that was edited under `edi serve`."""
    run = control.start("edit-image", image_path=str(PALACE), prompt="make it warmer")
    control.wait_for(run, "Completed", "the edit")
    return run


def look(control: Control, path: str) -> httpx.Response:
    return httpx.get(control.api.removesuffix("/api") + path, timeout=60)


def test_a_session_has_a_page_with_the_slider_and_links(control: Control, edited: str) -> None:
    answer = look(control, f"/edi/{edited[:8]}")
    assert answer.status_code == httpx.codes.OK
    assert answer.headers["content-type"].startswith("text/html")
    for wanted in ("make it warmer", 'alt="before"', 'alt="after"', f'href="/edi/{edited}/result"', "keep it"):
        assert wanted in answer.text


def test_the_newest_sessions_are_listed(control: Control, edited: str) -> None:
    listed = look(control, "/edi").text
    assert f'<a href="/edi/{edited}">make it warmer</a>' in listed
    assert f'<a href="/edi/{edited}"><img loading="lazy" src="/edi/{edited}/small" alt=""></a>' in listed
    assert "<td>palace.jpg</td>" in listed
    assert "<td>completed, measured 100 % as asked</td>" in listed


def test_a_long_wish_is_listed_by_its_beginning_whether_it_has_words_or_not(control: Control) -> None:
    with control.database() as database:
        for name, wish in (("words", "warmer and " * 20), ("wordless", chr(0x6696) * 150)):
            database.save_session({"id": name, "image_path": "a.jpg", "naive_prompt": wish.strip()})
    listed = look(control, "/edi").text
    assert f'<a href="/edi/words">{8 * "warmer and "}warmer...</a>' in listed
    assert f'<a href="/edi/wordless">{97 * chr(0x6696)}...</a>' in listed


def test_a_list_has_small_pictures_of_the_results(control: Control, edited: str) -> None:
    answer = look(control, f"/edi/{edited}/small")
    assert (answer.headers["content-type"], Image.open(io.BytesIO(answer.content)).size) == ("image/jpeg", (480, 320))
    full = Image.open(io.BytesIO(look(control, f"/edi/{edited}/result").content)).convert("RGB").resize((1, 1))
    small = Image.open(io.BytesIO(answer.content)).resize((1, 1))
    near = zip(_colour(small), _colour(full), strict=True)
    assert all(abs(one - other) <= 6 for one, other in near), "it is the result, not the photo"
    url = control.api.removesuffix("/api") + f"/edi/{edited}/small"
    again = httpx.get(url, headers={"If-None-Match": answer.headers["etag"]}, timeout=60)
    assert (again.status_code, again.content) == (httpx.codes.NOT_MODIFIED, b"")


def _colour(pixel: Image.Image) -> tuple[int, int, int]:
    colour = pixel.getpixel((0, 0))
    assert isinstance(colour, tuple)
    return colour


def test_the_result_is_saved_in_the_photos_own_format_and_name(control: Control, edited: str) -> None:
    assert f'href="/edi/{edited}/saved" download="palace-edited.jpg"' in look(control, f"/edi/{edited}").text
    saved = look(control, f"/edi/{edited}/saved")
    assert saved.headers["content-type"] == "image/jpeg"
    picture = Image.open(io.BytesIO(saved.content))
    assert (picture.format, picture.size) == ("JPEG", (640, 427))


def filled(html: str) -> dict[str, str]:
    """What a form holds before a person changes it, by the names of its fields."""
    texts = re.findall(r'<input type="(?:text|hidden)" name="(\w+)"[^>]* value="([^"]*)"', html)
    texts += re.findall(r'<textarea name="(\w+)"[^>]*>([^<]*)</textarea>', html)
    for name, options in re.findall(r'<select name="(\w+)">(.*?)</select>', html):
        texts.append((name, "".join(re.findall(r'value="([^"]*)" selected', options))))
    texts += re.findall(r'<input type="radio" name="(\w+)" value="(\w+)" checked', html)
    return {name: unescape(value) for name, value in texts}


def test_the_same_photo_is_edited_again_from_the_filled_in_form(control: Control) -> None:
    photo = control.home / "images" / "again.jpg"
    photo.write_bytes(PALACE.read_bytes())
    asked = {"prompt": "make it warmer", "strength": "strong", "protect": "sky", "region": "0,0,100,50"}
    run = control.start("edit-image", image_path=photo.name, **asked)
    control.wait_for(run, "Completed", "the edit")
    again = filled(look(control, f"/edi/{run}/again").text)
    assert len(again.pop("once")) == 36
    usual = {"mask": "", "review": "unsure", "variations": "", "max_attempts": "3"}
    assert again == {"photo": "again.jpg", **asked, **usual}
    photo.unlink()
    form = look(control, f"/edi/{run}/again").text
    assert f'<img src="/edi/{run}/small?of=photo" alt="again.jpg">' in form, "shown from the session's own copy"
    shown = Image.open(io.BytesIO(look(control, f"/edi/{run}/small?of=photo").content)).resize((1, 1))
    assert (
        max(
            abs(one - other)
            for one, other in zip(_colour(shown), _colour(Image.open(PALACE).resize((1, 1))), strict=True)
        )
        < 3
    )


def test_what_was_said_stands_in_the_list(control: Control, edited: str) -> None:
    run = control.start("record-feedback", session_id=edited, verdict="partial", rating=4)
    control.wait_for(run, "Completed", "the verdict")
    assert "<td>right in part ★★★★</td>" in look(control, "/edi").text
    page = look(control, f"/edi/{edited}").text
    assert "You said: right in part ★★★★." in page
    assert (filled(page)["verdict"], filled(page)["stars"]) == ("partial", "4"), "it is changed from there"


def test_what_was_learned_has_a_page(control: Control, edited: str) -> None:
    assert '<a href="/edi/-/learned">What EDI has learned</a>' in look(control, "/edi").text
    learned = look(control, "/edi/-/learned")
    assert learned.headers["content-type"].startswith("text/html")
    assert "<title>What EDI has learned</title>" in learned.text


def test_the_photos_of_the_inbox_are_shown_and_lead_to_the_form(control: Control) -> None:
    inbox = control.home / "images"
    (inbox / "my beach.jpg").write_bytes(PALACE.read_bytes())
    (inbox / "broken.jpg").write_bytes(b"no photo")
    (inbox / "circle.jpg").symlink_to("circle.jpg")
    Path(os.fsdecode(os.fsencode(inbox) + b"/caf\xe9.jpg")).write_bytes(b"a name that is no text")
    shown = look(control, "/edi").text
    assert f"Photos that you add are kept in <code>{inbox}</code>." in shown
    assert 'src="/edi/-/photo?name=my+beach.jpg"' in shown
    small = look(control, "/edi/-/photo?name=my+beach.jpg")
    assert (small.headers["content-type"], Image.open(io.BytesIO(small.content)).size) == ("image/jpeg", (480, 320))
    assert 'href="/edi/-/edit?photo=my+beach.jpg"' in shown
    form = look(control, "/edi/-/edit?photo=my+beach.jpg").text
    assert 'src="/edi/-/photo?name=my+beach.jpg"' in form
    assert filled(form)["photo"] == "my beach.jpg"
    assert '<input type="text" name="photo" value="" required autofocus>' in look(control, "/edi/-/edit").text
    broken = look(control, "/edi/-/photo?name=broken.jpg")
    assert broken.status_code == httpx.codes.BAD_REQUEST
    assert broken.text.startswith("broken.jpg is not a photo that EDI can open; ")


def test_one_begins_at_edis_own_page_wherever_one_comes_in_and_prefects_is_one_click_away(control: Control) -> None:
    begin = look(control, "/")
    assert (begin.status_code, begin.headers["location"]) == (httpx.codes.TEMPORARY_REDIRECT, "/edi")
    assert '<a href="/v2/dashboard">The control room' in look(control, "/edi").text
    browser = {"Accept": "text/html"}
    room = httpx.get(control.api.removesuffix("/api") + "/v2/dashboard", headers=browser, timeout=60)
    assert (room.status_code, "<title>Prefect" in room.text) == (httpx.codes.OK, True)


def test_its_pictures_are_the_stored_ones(control: Control, edited: str) -> None:
    with open_store(homes.settings_of(control.home)) as store:
        state = store.database.get_state(edited)
        assert state is not None
        stored = {
            "photo": store.files.read(state.scene_analysis["image"]["path"]),
            "result": store.files.read(state.edited_image_path or ""),
        }
    assert stored["photo"] == PALACE.read_bytes()
    for name, data in stored.items():
        answer = look(control, f"/edi/{edited}/{name}")
        assert answer.content == data
        assert answer.headers["content-type"] == {"photo": "image/jpeg", "result": "image/png"}[name]
    assert Image.open(io.BytesIO(look(control, f"/edi/{edited}/changes").content)).format == "PNG"


def test_a_verdict_leads_to_the_filled_in_form(control: Control, edited: str) -> None:
    with control.database() as database:
        said = database.get_feedback(edited)
    answer = look(control, f"/edi/{edited}/rate?verdict=reject&stars=2")
    assert answer.status_code == httpx.codes.SEE_OTHER
    page, _, form = answer.headers["location"].partition("#")
    html = look(control, page).text
    assert f'<form method="post" action="/edi/{edited}/rate" id="{form}">' in html
    assert (filled(html)["verdict"], filled(html)["stars"]) == ("reject", "2")
    with control.database() as database:
        assert database.get_feedback(edited) == said, "only the form that is sent says anything"


def test_a_page_knows_when_it_is_to_be_loaded_anew(control: Control, edited: str) -> None:
    stands, listed = look(control, f"/edi/{edited}/stands").text, look(control, "/edi/-/stands").text
    assert f'"{stands}"' in look(control, f"/edi/{edited}").text
    assert f'"{listed}"' in look(control, "/edi").text
    assert (look(control, f"/edi/{edited}/stands").text, look(control, "/edi/-/stands").text) == (stands, listed)
    with open_store(homes.settings_of(control.home)) as store:
        give_verdict(store, edited, "accept", rating=5)
    assert look(control, f"/edi/{edited}/stands").text != stands
    rated = look(control, "/edi/-/stands").text
    assert rated != listed
    (control.home / "images" / "dropped.jpg").write_bytes(PALACE.read_bytes())
    assert look(control, "/edi/-/stands").text != rated


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/edi/nobody", 404, "There is no session 'nobody': `edi sessions` lists them.\n"),
        ("/edi/nobody/result", 404, "There is no session 'nobody': `edi sessions` lists them.\n"),
        ("/edi/last/rate?verdict=maybe", 400, "A verdict is one of accept, partial, reject.\n"),
        ("/edi/last/../../etc/passwd", 404, ""),
        ("/edi/last/files", 404, ""),
        ("/edi/-/photo?name=../edi_sessions.db", 404, "There is no such photo in the folder for photos.\n"),
    ],
)
def test_what_is_not_there_is_one_sentence(control: Control, edited: str, path: str, status: int, said: str) -> None:
    answer = look(control, path)
    assert answer.status_code == status
    assert said in answer.text
    assert "Traceback" not in answer.text


def test_nothing_can_be_changed_there(control: Control, edited: str) -> None:
    url = control.api.removesuffix("/api") + f"/edi/{edited}"
    for method in ("POST", "PUT", "DELETE"):
        assert httpx.request(method, url, timeout=60).status_code == httpx.codes.METHOD_NOT_ALLOWED


def test_another_sites_page_sees_nothing(control: Control, edited: str) -> None:
    url = control.api.removesuffix("/api") + f"/edi/{edited}/photo"
    for headers in ({"Origin": "http://elsewhere.example"}, {"Host": "elsewhere.example"}):
        assert httpx.get(url, headers=headers, timeout=60).status_code == httpx.codes.FORBIDDEN


def test_a_password_is_asked_for_here_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.viewer import Viewer

    homes.enter(monkeypatch, tmp_path)
    viewer = Viewer(None, homes.settings_of(tmp_path, auth_string=SecretStr("ann:secret")))

    async def ask(auth: tuple[str, str] | None, **headers: str) -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(viewer), base_url="http://localhost") as client:
            sent = await client.post("/edi/last/rate", content=b"", auth=auth, headers=headers)
            seen = await client.get("/edi/last", auth=auth, headers=headers)
        assert (sent.status_code == httpx.codes.UNAUTHORIZED) == (seen.status_code == httpx.codes.UNAUTHORIZED)
        return seen.status_code

    assert asyncio.run(ask(None)) == httpx.codes.UNAUTHORIZED
    assert asyncio.run(ask(("ann", "wrong"))) == httpx.codes.UNAUTHORIZED
    assert asyncio.run(ask(None, Authorization="Basic ###")) == httpx.codes.UNAUTHORIZED
    assert asyncio.run(ask(("ann", "secret"))) == httpx.codes.NOT_FOUND, "there is no session in this home"


def test_a_page_does_not_wait_for_a_server_that_is_busy_and_asks_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.viewer import _PATIENCE, Viewer

    homes.enter(monkeypatch, tmp_path)
    viewer = Viewer(None, homes.settings_of(tmp_path))

    async def ask(path: str) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(viewer), base_url="http://localhost") as client:
            return await asyncio.wait_for(client.get(path), 30)

    run = "/edi/6b0b4c43-4a3a-4a52-8a4e-31a8d42a6e55"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        api = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
        monkeypatch.setattr("flows.viewer._PATIENCE", {**_PATIENCE, "PREFECT_API_URL": api})
        page, stands = asyncio.run(ask(run)), asyncio.run(ask(f"{run}/stands"))
    assert (page.status_code, stands.status_code) == (200, 503), "an open page stays as it is"
    assert "Prefect's server is busy and does not say how this edit stands: the page asks" in unescape(page.text)
    assert f'"{run}/stands"' in page.text


def test_an_edit_under_another_server_does_not_speak_of_these_pages(edi: Edi, server: str) -> None:
    from tests.flows.test_artifacts import pages

    edi("edit", str(PALACE), "make it warmer", "--session-id", "elsewhere")
    (page,) = pages(server, "elsewhere")
    assert "](/edi/" not in page
    assert "Run the deployment `record-feedback` for `elsewhere`" in page
