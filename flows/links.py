"""Where `edi serve` shows more of a session than Prefect's pages do (see flows/viewer.py), and where it is rated."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from edi_storage.models import FeedbackType, SessionHistory
from edi_storage.settings import Settings
from flows.server import read_server_file

#: Below the address of the UI.
PREFIX = "/edi"


@dataclass(frozen=True)
class Rating:
    """What a person may say of a result with one click; the form that opens shows it, to be changed or sent."""

    words: str
    verdict: FeedbackType
    stars: int


RATINGS: Sequence[Rating] = (
    Rating("keep it", "accept", 5),
    Rating("right in part", "partial", 3),
    Rating("not what I wanted", "reject", 1),
)

#: The pictures that can be opened at full size, as the last part of their address.
PICTURES = ("photo", "result", "changes")


def session_link(session_id: str, picture: str = "") -> str:
    """Its page with a before/after slider, or one of its PICTURES."""
    return "/".join(filter(None, (PREFIX, session_id, picture)))


def rating_link(session_id: str, rating: Rating) -> str:
    """The form of `record-feedback`, filled in."""
    return f"{session_link(session_id, 'rate')}?{urlencode({'verdict': rating.verdict, 'stars': rating.stars})}"


def has_result(history: SessionHistory) -> bool:
    """Whether there is an edited picture to look at and to rate."""
    return bool(history.state and history.state.edited_image_path)


def viewer_address(settings: Settings) -> str:
    """The address of the UI whose server has the pages of sessions, for a process that works for it; else ""."""
    info = read_server_file(settings)
    return info.ui if info and info.viewer and info.url == os.environ.get("PREFECT_API_URL") else ""
