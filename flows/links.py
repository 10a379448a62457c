"""Where `edi serve` has its own pages beside Prefect's (see flows/viewer.py)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from edi_storage.models import FeedbackType, SessionHistory
from edi_storage.settings import Settings
from edi_storage.steps import next_step
from flows.server import read_server_file

#: Below the address of the UI.
PREFIX = "/edi"
#: The first of Prefect's own pages; without /v2 they are its older ones.
CONTROL_ROOM = "/v2/dashboard"


@dataclass(frozen=True)
class Rating:
    """What a person may say of a result."""

    words: str
    verdict: FeedbackType


RATINGS: Sequence[Rating] = (
    Rating("keep it", "accept"),
    Rating("right in part", "partial"),
    Rating("not what I wanted", "reject"),
)

#: The pictures that can be opened at full size, as the last part of their address.
PICTURES = ("photo", "result", "changes")
#: Small pictures of the photos in the inbox, and where new ones are sent.
INBOX = f"{PREFIX}/-/photo"
#: The status that answers a photo which was sent before.
ALREADY_THERE = 200
#: The page of what was learned, the form that starts an edit, and how the list of photos and edits stands.
LEARNED, EDIT, LIST = f"{PREFIX}/-/learned", f"{PREFIX}/-/edit", f"{PREFIX}/-/stands"
#: A small one for lists, and the result as a file to give away: in the photo's own format, with its camera and time.
THUMBNAIL, SAVED = "small", "saved"


def session_link(session_id: str, picture: str = "") -> str:
    """Its page with a before/after slider, or one of its PICTURES."""
    return "/".join(filter(None, (PREFIX, session_id, picture)))


def rate_link(session_id: str) -> str:
    """Where a verdict is sent, and the form that sends it."""
    return session_link(session_id, "rate")


def rating_link(session_id: str, rating: Rating) -> str:
    """The form that rates a session, on its page, filled in."""
    return f"{rate_link(session_id)}?{urlencode({'verdict': rating.verdict})}"


def again_link(session_id: str) -> str:
    """The form that starts an edit, filled in as it was for this session."""
    return session_link(session_id, "again")


def answer_link(session_id: str) -> str:
    """Where an answer to what a session asks is sent."""
    return session_link(session_id, "answer")


def stop_link(session_id: str) -> str:
    """Where a person says that a session which waits for them is not to go on."""
    return session_link(session_id, "stop")


def stands_link(session_id: str) -> str:
    """How a session stands, as a text that is another one when anything of it has changed."""
    return session_link(session_id, "stands")


def run_link(flow_run_id: str) -> str:
    """The page of a run in Prefect's UI."""
    return f"/v2/runs/flow-run/{flow_run_id}"


def edit_link(photo: str = "") -> str:
    """The form that starts an edit, with the name of a photo of the inbox filled in."""
    return f"{EDIT}?{urlencode({'photo': photo})}" if photo else EDIT


def inbox_link(photo: str) -> str:
    """A small picture of a photo in the inbox."""
    return f"{INBOX}?{urlencode({'name': photo})}"


def has_result(history: SessionHistory) -> bool:
    """Whether there is an edited picture to look at and to rate."""
    return bool(history.state and history.state.edited_image_path)


def can_be_rated(history: SessionHistory) -> bool:
    """Whether there is a result that was measured, and nobody is about to make more of it."""
    if not has_result(history) or not history.validations or history.state is None:
        return False
    return history.session.status != "in_progress" or next_step(history.state.model_dump(mode="json")) == "review"


def viewer_address(settings: Settings) -> str:
    """The address of the UI whose server has the pages of sessions, for a process that works for it; else ""."""
    info = read_server_file(settings)
    return info.ui if info and info.viewer and info.url == os.environ.get("PREFECT_API_URL") else ""
