"""The page of `edi learn --html` in a real Chromium: whole, with its plots, and asking for nothing."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from edi_storage.learning import learn
from edi_storage.learning.evidence import report_on
from edi_storage.store import open_store
from flows.learned import words
from flows.learned.kinds import kinds
from flows.learned.page import page
from tests import homes
from tests.browser.chromium import chromium, missing
from tests.browser.conftest import NEEDED
from tests.browser.ui import shown
from tests.learning.household import live

with contextlib.suppress(ImportError):
    from playwright.sync_api import expect


def test_a_stranger_sees_first_whether_it_helps_and_what_changed(tmp_path: Path) -> None:
    if why := missing():
        (pytest.fail if os.environ.get(NEEDED) else pytest.skip)(f"THE PAGE IS NOT LOOKED AT: {why}")
    with open_store(homes.settings_of(tmp_path)) as store:
        live(store, 120)
        report = report_on(store.database, kinds(), learn(store.database))
    (tmp_path / "learned.html").write_text(page(report), encoding="utf-8")
    with chromium() as (browser, asked_beyond):
        browser.goto((tmp_path / "learned.html").as_uri())
        for text in (words.title(report), words.since(report), words.COMING):
            expect(browser.get_by_role("heading", name=text)).to_be_in_viewport()
        for plot in ("first tries over time", "accepted by score"):
            assert shown(browser.locator("body"), plot) > 400
        assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "nothing sticks out"
        browser.set_viewport_size({"width": 390, "height": 800})
        assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "nor on a telephone"
        assert asked_beyond == []
