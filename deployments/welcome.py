"""What `edi serve` says, and opens, when it is ready."""

from __future__ import annotations

import os
import sys
import threading
import webbrowser
from collections.abc import Callable

from edi_storage.errors import EdiError
from edi_storage.settings import Settings
from flows.api import Api
from flows.inbox import make_inbox
from flows.links import PREFIX


def welcome(settings: Settings, url: str, announce: Callable[[str], None], *, viewer: bool, open_ui: bool) -> None:
    """Announce where the UI, the form to start an edit, the folder for photos and the page of what is in it are.

    viewer: the server has the pages of flows/viewer.py. open_ui: show the one of the photos, or else the form.
    """
    ui = url.removesuffix("/api")
    form, pages = _edit_form(ui, url), f"{ui}{PREFIX}" if viewer else ""
    announce(f"EDI is ready: {ui} (Ctrl-C ends it)")
    if form:
        if pages:
            announce(f"  Photos and edits: {pages}")
        announce(f"  Put photos into:  {make_inbox(settings)}")
        announce(f"  Edit a photo:     {form}")
    if open_ui:
        # In a thread: some browsers' starters return only when the browser is closed.
        threading.Thread(target=_show, args=(pages or form or ui, announce), daemon=True).start()


def somebody_is_there() -> bool:
    """Whether a person sits at a terminal of this machine with a display, so that a browser window would be seen."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("SSH_CONNECTION"):
        return False
    return sys.platform in {"darwin", "win32"} or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _edit_form(ui: str, url: str) -> str:
    """The address of the form that starts an edit; "" where that deployment is not served."""
    try:
        # Patient: it has only just started.
        known = Api(url, seconds=30).get("/deployments/name/edit-image/edit-image")
    except EdiError:
        return ""
    # Without /v2 Prefect shows its older pages.
    return f"{ui}/v2/deployments/deployment/{known['id']}/run"


def _show(address: str, announce: Callable[[str], None]) -> None:
    try:
        shown = webbrowser.open(address)
    except (OSError, webbrowser.Error):
        shown = False
    if not shown:
        announce(f"  No browser could be opened here: go to {address}")
