"""What `edi db copy-to` and `edi storage copy-to` print."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

from edi_storage.connection import without_password
from edi_storage.copying import Copied, Progress
from edi_storage.copying import copy_database as _copy_database
from edi_storage.copying import copy_files as _copy_files
from edi_storage.database import EDIDatabase
from edi_storage.files import FileStore
from edi_storage.settings import load_settings
from flows.terminal import counted, show


def copy_database(url: str, as_json: bool) -> None:
    """Copy the database of this home to `url`."""
    settings = load_settings()
    with _bar(as_json) as progress, EDIDatabase(settings.database_url) as source, EDIDatabase(url) as target:
        tables = _copy_database(source, target, progress)
    total = Copied(sum(table.copied for table in tables.values()), sum(table.there for table in tables.values()))
    where = without_password(url)
    text = f"{_told(total, 'row')} All of {where} was read back.\nTo use it, set EDI_DATABASE_URL to that URL."
    show({"url": where, "tables": {name: asdict(table) for name, table in tables.items()}}, as_json, text)


def copy_files(url: str, as_json: bool) -> None:
    """Copy the files of this home to `url`."""
    settings = load_settings()
    source = FileStore(settings.storage_url, allowed_schemes=settings.allowed_schemes)
    target = FileStore(url, allowed_schemes=settings.allowed_schemes)
    with _bar(as_json) as progress:
        copied = _copy_files(source, target, progress)
    text = f"{_told(copied, 'file')} All of {target.root} was read back.\nTo use it, set EDI_STORAGE_URL to that URL."
    show({"url": target.root, **asdict(copied)}, as_json, text)


def _told(copied: Copied, what: str) -> str:
    there = f", {counted(copied.there, what)} were there already" if copied.there else ""
    return f"Copied {counted(copied.copied, what)}{there}."


@contextmanager
def _bar(as_json: bool) -> Iterator[Progress]:
    """A line that moves, on a terminal."""
    if as_json or not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console

    with Console(stderr=True).status("Comparing ...") as status:
        yield lambda what, done, of: status.update(f"Copying {what}: {done:,} of {of:,}")
