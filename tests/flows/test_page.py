"""The page of `edi show --html`: it holds the pictures themselves, fetches nothing, and believes no text."""

from __future__ import annotations

import base64
import io
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from edi_storage.models import Reason
from edi_storage.store import open_store
from flows import album
from flows.pages.forms import rating_form
from flows.pages.session import Served, page
from flows.words import REASONS
from tests import homes
from tests.flows.conftest import PALACE, Edi


def pictures(html: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


def test_a_page_shows_before_after_and_what_was_found(edi: Edi, tmp_path: Path) -> None:
    edi("edit", str(PALACE), "make the sky dramatic", "--session-id", "mine")
    edi("feedback", "mine", "accept", "--comment", "<b>lovely</b> & dark")
    file = tmp_path / "mine.html"
    assert edi.json("show", "mine", "--html", str(file))["html"] == str(file)
    html = file.read_text(encoding="utf-8")
    before, after, *masks, delta = pictures(html)
    assert before.size == after.size == (640, 427)
    assert np.abs(np.asarray(before, int) - np.asarray(after, int)).mean() > 5
    with open_store(homes.settings_of(edi.home)) as store:
        history = store.database.load_session("mine")
        unsure = [entity.model_copy(update={"confidence": 0.65}) for entity in history.entities]
        doubtful = page(store, history.model_copy(update={"entities": unsure}))
    assert delta.size == (640, 441), "the heat map has a scale of its colours below it"
    assert "sky changed as asked (ΔE " in html
    assert len(masks) == 1 + len(history.entities) > 2, "all entities in one picture, and each in its own"
    for entity in history.entities:
        assert f"{entity.label}</strong>" in html
    assert doubtful.count(", perhaps</strong>") == len(history.entities)
    assert "1.00 = 0.4 x 4/4 kept + 0.4 x 1/1 changed as asked" in html
    assert "&lt;b&gt;lovely&lt;/b&gt; &amp; dark" in html
    assert re.findall(r"https?://", html) == []
    assert "default-src 'none'" in html
    assert file.stat().st_mode & 0o077 == 0


def test_a_page_tells_what_was_wished_and_where_it_comes_from(tmp_path: Path) -> None:
    wishes = {"strength": 0.3, "protect": "the palace", "region": "0,0,100,50"}
    with open_store(homes.settings_of(tmp_path)) as store:
        database = store.database
        database.save_session({"id": "first", "image_path": "a.jpg", "naive_prompt": "warmer"})
        about = {"parent_session_id": "first", "forked_from_stage": "refine 0", "options": wishes}
        database.save_session({"id": "second", "image_path": "a.jpg", "naive_prompt": "warmer", **about})
        first, second = (page(store, database.load_session(name)) for name in ("first", "second"))
    assert "<p>Forks: second (from refine 0)</p>" in first
    assert (
        "<p>Strength: subtle<br>Protected: the palace<br>Only inside: 0,0,100,50 (left, top, width, height in percent)"
        "<br>Forked from: first at refine 0</p>" in second
    )


def test_the_page_of_a_failed_edit_leads_to_another_try(edi: Edi) -> None:
    edi("edit", str(PALACE), "add a unicorn", "--session-id", "mine", expect=1)
    with open_store(homes.settings_of(edi.home)) as store:
        html = page(store, store.database.load_session("mine"), Served("as it is"))
    assert "Failed: " in html
    assert "No result yet" not in html
    assert '<a href="/edi/mine/again">Say it in other words</a>' in html


def test_a_page_is_not_written_over_a_file_unless_asked(edi: Edi, tmp_path: Path) -> None:
    with open_store(homes.settings_of(edi.home)) as store:
        store.database.save_session({"id": "mine", "image_path": "a.jpg", "naive_prompt": "warmer"})
    file = tmp_path / "mine.html"
    file.write_text("precious")
    refused = edi("show", "mine", "--html", str(file), expect=2)
    assert refused.stderr == f"{file} exists already: name another file, or add --overwrite.\n"
    assert file.read_text() == "precious"
    edi("show", "mine", "--html", str(file), "--overwrite")
    assert "<h1>warmer</h1>" in file.read_text(encoding="utf-8")
    assert "name a file in a folder" in edi("show", "mine", "--html", str(tmp_path / "no" / "a.html"), expect=2).stderr


def test_a_page_is_opened_in_the_browser_from_a_private_file(edi: Edi, tmp_path: Path) -> None:
    with open_store(homes.settings_of(edi.home)) as store:
        store.database.save_session({"id": "mine", "image_path": "a.jpg", "naive_prompt": "warmer"})
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    browser.chmod(0o700)
    edi.environment = {**edi.environment, "BROWSER": f"{browser} %s", "TMPDIR": str(tmp_path)}
    file = Path(edi.json("show", "mine", "--open")["html"])
    assert (tmp_path / "opened").read_text().strip() == file.as_uri()
    assert "warmer" in file.read_text(encoding="utf-8")
    assert (file.stat().st_mode | file.parent.stat().st_mode) & 0o077 == 0


def test_each_photo_is_decoded_once_for_a_page(edi: Edi, monkeypatch: pytest.MonkeyPatch) -> None:
    edi("edit", str(PALACE), "make the sky dramatic", "--session-id", "mine")
    decoded: list[str] = []

    def note(name: str, real: Callable[[bytes], Any]) -> None:
        monkeypatch.setattr(album, name, lambda data: decoded.append(name) or real(data))

    note("decode_photo", album.decode_photo)
    note("decode_mask", album.decode_mask)
    with open_store(homes.settings_of(edi.home)) as store:
        history = store.database.load_session("mine")
        page(store, history)
    assert Counter(decoded) == {"decode_photo": 3, "decode_mask": len(history.entities)}


def test_a_page_believes_no_text(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    with open_store(homes.settings_of(tmp_path)) as store:
        database = store.database
        database.save_session({"id": "s", "image_path": f"/{hostile}.jpg", "naive_prompt": hostile})
        database.save_prompt_history("s", [{"iteration": 0, "positive_prompt": hostile, "negative_prompt": hostile}])
        database.save_feedback("s", {"feedback_type": "reject", "comments": hostile})
        html = page(store, database.load_session("s"))
    assert "<script>alert" not in html
    assert "<img src=x" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 5


def test_every_reason_has_words_of_a_person_and_a_box_in_the_form() -> None:
    assert set(REASONS) == set(get_args(Reason))
    form = rating_form("mine", 1, None, {}, "")
    assert all(f'value="{reason}"> {said}<' in form for reason, said in REASONS.items())
