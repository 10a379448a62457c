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
from flows.links import CONTROL_ROOM, PREFIX


def welcome(settings: Settings, url: str, announce: Callable[[str], None], *, viewer: bool, open_ui: bool) -> None:
    """Announce where one begins, where the control room is, and the folder for photos.

    viewer: the server has the pages of flows/viewer.py, where one begins; else it is Prefect's form. open_ui: show it.
    """
    ui = url.removesuffix("/api")
    form = _edit_form(ui, url)
    pages = f"{ui}{PREFIX}" if viewer and form else ""
    announce(f"EDI is ready: {pages or ui} (Ctrl-C ends it)")
    if form:
        room = f"  The control room:  {ui}{CONTROL_ROOM} (runs, logs, schedules)"
        announce(room if pages else f"  Edit a photo:      {form}")
        announce(f"  Folder for photos: {make_inbox(settings)}")
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
