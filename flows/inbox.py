"""The inbox: a folder in EDI_HOME where a person drops photos, to name them without a path."""

from __future__ import annotations

import difflib
import itertools
import os
from pathlib import Path

from edi_storage.errors import InputError
from edi_storage.files import FileStore
from edi_storage.models import SessionData
from edi_storage.record import check_text
from edi_storage.settings import Settings

#: What a photo's name ends in, as far as EDI opens it.
SUFFIXES = (".jpeg", ".jpg", ".png", ".webp")

#: So many names are listed to somebody who named a photo that is not there.
_LISTED = 5


def inbox_of(settings: Settings) -> Path:
    """EDI_HOME/images; `edi serve` makes it."""
    return settings.home / "images"


def make_inbox(settings: Settings) -> Path:
    """Make the inbox, for its owner only, if it is not there."""
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = inbox_of(settings)
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def keep_photo(inbox: Path, name: str, data: bytes) -> tuple[str, bool]:
    """Put a photo into the inbox, whole or not at all: what it is called there, and whether it is new.

    Another photo keeps its name, and one that is there already is not put there twice. One at a time in a process.
    Raises InputError for a name that is none of a photo, StorageError where it cannot be written. Whether `data` is a
    photo is for the caller to see.
    """
    if not name or Path(name).name != name or name.startswith(".") or not name.isprintable():
        raise InputError(f"{name[:80]!r} is no name for a photo.")
    if Path(name).suffix.lower() not in SUFFIXES:
        raise InputError(f"{name[:80]} is not called as a photo: EDI opens {', '.join(SUFFIXES)}.")
    folder = FileStore(str(inbox))
    for number in itertools.count(1):
        free = name if number == 1 else f"{Path(name).stem}-{number}{Path(name).suffix}"
        if folder.write_new(free, data):
            return free, True
        if _holds(inbox / free, data):
            return free, False
    raise AssertionError("never reached")


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:
        return False


def photos_in(folder: Path) -> list[Path]:
    """The photos in a folder, by name; hidden files and folders in it are left out. None when it is not there."""
    try:
        entries = [Path(entry.path) for entry in os.scandir(folder) if _is_file(entry)]
    except OSError:
        return []
    return sorted(path for path in entries if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads nowhere, or in a circle
        return False


def find_photo(name: str, inbox: Path, *, here: bool = False) -> str:
    """The absolute path of the photo that a person means: a path, or the bare name of a photo in the inbox.

    A bare name is looked for in the inbox, then in the working directory; the other way round for a person who is
    `here`, in that directory. Raises InputError for a bare name that is in neither, saying what is in the inbox, and
    for what is no name. Whether a path leads to a photo is for `open_photo` to see.
    """
    try:
        check_text(name)
    except ValueError as error:
        raise InputError(f"The photo's name {error}.") from None
    # The form's fields take several lines.
    name = name.strip("\r\n")
    if not name.strip():
        raise InputError(f"No photo is named: give its path, or the name of one in {inbox}. {_listing(inbox)}")
    path = expanded(name)
    if path.name != name:
        return str(path.absolute())
    for place in (path.absolute(), inbox / name) if here else (inbox / name, path.absolute()):
        # os.path: a name that no file system takes is one that is not there.
        if os.path.exists(place):
            return str(place)
    where = f"{Path.cwd()} or in the folder" if here else "the folder"
    raise InputError(
        f"There is no photo {name!r} in {where} for photos, {inbox}.{_similar(name, inbox)} {_listing(inbox)}"
    )


def photo_for(known: SessionData | None, name: str, inbox: Path, *, here: bool = False) -> str:
    """The photo's path, for a session that may be known already.

    A known session has its own copy: what its photo was called is enough, the file may be gone by now.
    """
    if known and name.strip("\r\n") in (known.image_path, Path(known.image_path).name):
        return known.image_path
    return find_photo(name, inbox, here=here)


def expanded(name: str) -> Path:
    """The path that a person has written, with `~` as their home."""
    try:
        return Path(name).expanduser()
    except RuntimeError:  # "~nobody/photo.jpg"
        return Path(name)


def _similar(name: str, inbox: Path) -> str:
    close = difflib.get_close_matches(name, [path.name for path in photos_in(inbox)], n=1)
    return f" Do you mean {close[0]!r}?" if close else ""


def _listing(inbox: Path) -> str:
    there = [path.name for path in photos_in(inbox)]
    if not there:
        return "That folder is empty: drop a photo there and name it."
    more = len(there) - _LISTED
    return f"There: {', '.join(there[:_LISTED])}{f' and {more} more' if more > 0 else ''}."
