"""How runs are called in the Prefect UI: "sky dramatic - photo.jpg" instead of a random pair of words.

Prefect fails a run whose name cannot be made, so nothing here raises, whatever the parameters hold.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import PurePath
from typing import Any

#: Longest prompt and file name inside a run's name.
_PROMPT, _PHOTO = 60, 40

_POLITE = re.compile(
    r"(?:please|pls|kindly|hey|hi|make|turn|(?:can|could|would|will) you|i(?:'d| would) like you to|i want you to|"
    r"i(?:'d| would) like|i want|let's|let us)\b[\s,]*",
    re.IGNORECASE,
)
_WHOLE = re.compile(r"(?:(?:the|this) (?:photo|picture|image)|this|it)\s+(?=\S)", re.IGNORECASE)
_ARTICLE = re.compile(r"\b(?:the|an?)\s+", re.IGNORECASE)


def short_prompt(prompt: str) -> str:
    """A prompt without politeness and articles, at most 60 characters.

    "sky dramatic" of "make the sky dramatic", "better" of "make it better".
    """
    plain = text = _one_line(prompt)
    while text and (polite := _POLITE.match(text)):
        text = text[polite.end() :]
    if whole := _WHOLE.match(text):
        text = text[whole.end() :]
    text = _ARTICLE.sub("", text).rstrip(" .!")
    return cut(text or plain, _PROMPT)


def edit_name(parameters: Mapping[str, Any]) -> str:
    """ "sky dramatic - photo.jpg" """
    photo = PurePath(str(parameters.get("image_path", ""))).name
    return _joined(short_prompt(str(parameters.get("prompt", ""))), photo)


def verdict_name(parameters: Mapping[str, Any], photo: str) -> str:
    """ "accept 4 - photo.jpg" """
    rating = parameters.get("rating") or ""
    return _joined(f"{parameters.get('verdict', '')} {rating}".strip(), photo)


def answer_name(parameters: Mapping[str, Any], photo: str) -> str:
    """ "answer 2 - photo.jpg" """
    return _joined(f"answer {parameters.get('answer', '')}", photo)


def batch_name(parameters: Mapping[str, Any]) -> str:
    """ "sky dramatic - holiday" for a folder, "sky dramatic - 12 photos" for more than one name."""
    named = list(parameters.get("photos") or [])
    what = f"{len(named)} photos" if len(named) > 1 else PurePath(str(named[0])).name if named else "all photos"
    return _joined(short_prompt(str(parameters.get("prompt", ""))), what)


def timed_name(what: str) -> str:
    """ "backup - 23 Nov 14:05", in this machine's time."""
    return f"{what} - {datetime.now().astimezone():%d %b %H:%M}"


def _joined(what: str, photo: str) -> str:
    # The end of a file name tells more than its middle.
    name = _one_line(photo)
    name = name if len(name) <= _PHOTO else f"{name[: _PHOTO - 11]}...{name[-8:]}"
    return " - ".join(part for part in (cut(what, _PROMPT), name) if part) or "edit"


def _one_line(text: str) -> str:
    printable = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(printable.split())


def cut(text: str, longest: int) -> str:
    """The text, or its beginning with "..." up to `longest` characters: to the last word where there are words."""
    if len(text) <= longest:
        return text
    start = text[: longest - 3]
    return (start.rsplit(" ", 1)[0] if " " in start[20:] else start) + "..."
