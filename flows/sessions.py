"""Finding the session that a person means."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from edi_storage.database import EDIDatabase
from edi_storage.errors import EdiError, InputError, NotFoundError
from edi_storage.models import SessionData
from edi_storage.record import check_text
from edi_storage.settings import load_settings
from edi_storage.store import open_store
from flows.names import edit_name

#: How many of the newest sessions are looked through for one with a result.
_NEWEST = 1000


def newest_with_result(database: EDIDatabase) -> SessionData:
    """The newest session that has an edited picture to judge. Raises NotFoundError."""
    for session in database.query_history(limit=_NEWEST):
        if database.get_validations(session.session_id):
            return session
    raise NotFoundError("There is no edit yet that could be rated.")


def find_session(database: EDIDatabase, name: str) -> SessionData:
    """The session called `name`, whose id starts with it, or the newest one for "last".

    Raises NotFoundError, and InputError for a name that several sessions start with or that is no text.
    """
    try:
        check_text(name)
    except ValueError as error:
        raise InputError(f"The session's name {error}: `edi sessions` lists them.") from None
    if exact := database.get_session(name):
        return exact
    if name == "last":
        newest = database.query_history(limit=1)
        if not newest:
            raise NotFoundError("There are no sessions yet: `edi edit PHOTO PROMPT` makes one.")
        return newest[0]
    matches = database.sessions_starting_with(name, limit=2) if name else []
    if len(matches) > 1:
        raise InputError(f"Several sessions start with {name!r}: give more of the id.")
    if not matches:
        raise NotFoundError(f"There is no session {name!r}: `edi sessions` lists them.")
    return matches[0]


def called(database: EDIDatabase, session_ids: Iterable[str]) -> dict[str, str]:
    """What to call some sessions where a person reads of them, by their ids: "sky dramatic - photo.jpg"."""
    known = (database.get_session(session_id) for session_id in session_ids)
    return {
        one.session_id: edit_name({"prompt": one.naive_prompt, "image_path": one.image_path}) for one in known if one
    }


def photo_meant(find: Callable[[EDIDatabase, str], SessionData], name: str) -> str:
    """What the photo of the session is called that `find` says `name` means, for the name of a run.

    A run whose name cannot be made would not even start: where there is no such session, the run itself will say so.
    """
    try:
        with open_store(load_settings()) as store:
            return Path(find(store.database, name).image_path).name
    except EdiError:
        return name[:8]
