"""A headless Chromium of this machine that reaches `edi serve` and nothing else, and tells what it tried beyond."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page, Request, ViewportSize

#: Debian's name first. None is ever downloaded.
NAMES = ("chromium", "chromium-browser", "google-chrome")

#: Seconds for what takes a moment on a quiet machine.
PATIENCE = 120

#: What a laptop shows without scrolling.
WINDOW: ViewportSize = {"width": 1400, "height": 1000}

#: Where `edi serve` listens.
HERE = "127.0.0.1"


def missing() -> str:
    """Why no browser can be driven here; "" if one can."""
    try:
        import playwright  # noqa: F401
    except ImportError:
        return "the Python package playwright is not installed"
    return "" if _executable() else f"there is no browser on the path ({', '.join(NAMES)})"


def _executable() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def chromium() -> Iterator[tuple[Page, list[str]]]:
    """A page of a browser that has never been used, and a list of all that its pages ask for beyond this machine."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE * 1000)
    with sync_playwright() as playwright:
        # Chromium refuses to run as root with its sandbox; here it sees pages of our own only.
        as_root = ["--no-sandbox"] if os.geteuid() == 0 else []
        # Chromium itself would like to talk to its maker, too: no name leads anywhere.
        nowhere = f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {HERE}"
        browser = playwright.chromium.launch(executable_path=_executable(), args=[nowhere, *as_root])
        page = browser.new_page(viewport=WINDOW)
        page.set_default_timeout(PATIENCE * 1000)
        yield page, _asked_beyond(page.context)
        browser.close()


def _asked_beyond(context: BrowserContext) -> list[str]:
    asked: list[str] = []

    def note(request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in {"http", "https", "ws", "wss"} and parts.hostname != HERE:
            asked.append(request.url)

    def forget(request: Request) -> None:
        # What the server's Content-Security-Policy forbids, the browser never sends.
        if request.failure == "csp":
            asked.remove(request.url)

    context.on("request", note)
    context.on("requestfailed", forget)
    return asked
