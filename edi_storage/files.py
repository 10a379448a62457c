"""Files of sessions: checkpoints, state files, masks and pictures, in a local folder or an object store.

The one place that touches storage. A local folder is written by `edi_storage.disk`, because fsspec's own
writers leave half files behind when the process dies, and never sync; an object store takes one PUT
through fsspec, which is whole by itself. No user string reaches fsspec: URLs
are taken from settings and checked against a list of schemes, paths are built from checked ids.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cached_property
from typing import Any, Protocol, TypeAlias
from urllib.parse import unquote

from edi_storage.disk import Entry, LocalFolder, NotRegularError, is_temp
from edi_storage.errors import EdiError, InputError, StorageFullError
from edi_storage.record import check_session_id, check_text, now_utc

#: Object stores whose PUT replaces an object whole or not at all. Others (sftp, smb, ...) leave half files.
WHOLE_PUT_SCHEMES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"})

#: Pictures of 100 megapixels fit; nothing that EDI stores is larger.
MAX_FILE_BYTES = 1 << 30

#: The class has a method named `list`.
Paths: TypeAlias = list[str]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_SUFFIX = re.compile(r"\.[a-z0-9]{1,8}")
_FULL = {errno.ENOSPC, errno.EDQUOT}


class StorageError(EdiError):
    """The storage could not be used."""


class FileMissingError(StorageError):
    """A file is missing from the storage."""


class NotAFileError(StorageError):
    """Something else stands where a file should be."""


class FileStore:
    """A tree of files below one root, addressed by paths relative to it (`<session>/files/<sha256>.png`).

    `url` is a local folder, a `file://` or `memory://` URL, or an object store's URL whose scheme stands in
    `allowed_schemes` (none by default). Raises InputError for any other URL and for paths that could leave
    the root; StorageFullError when a disk is full; StorageError, one sentence, for all else.
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        *,
        allowed_schemes: Collection[str] = (),
        clock: Callable[[], datetime] = now_utc,
    ) -> None:
        self._clock = clock
        self._backend = _backend(os.fspath(url), allowed_schemes)

    @property
    def root(self) -> str:
        """The root as an absolute local path or a URL."""
        return self._backend.root

    @property
    def is_local(self) -> bool:
        """Whether files can be opened by path."""
        return isinstance(self._backend, LocalFolder)

    def full_path(self, path: str) -> str:
        """The absolute local path or URL of a relative path."""
        return self._backend.full_path(_checked(path))

    def write_whole(self, path: str, data: bytes) -> None:
        """Write or replace a file: after a crash at any moment it holds the old bytes or the new, and once
        this returns it holds the new ones, a power cut included.
        """
        with self._named("write", _checked(path)):
            self._backend.write(path, data)

    def write_new(self, path: str, data: bytes) -> bool:
        """Write a file that never changes, unless there is one by that name; returns whether it was written."""
        with self._named("write", _checked(path)):
            return self._backend.create(path, data)

    def read(self, path: str, max_bytes: int = MAX_FILE_BYTES) -> bytes:
        """The bytes of a file. FileMissingError when there is none, InputError when it is larger than allowed."""
        with self._named("read", _checked(path)):
            data = self._backend.read(path, max_bytes)
        if len(data) > max_bytes:
            raise InputError(f"{self.full_path(path)} is larger than {max_bytes:,} bytes.")
        return data

    def exists(self, path: str) -> bool:
        """Whether there is anything by that name."""
        with self._named("look for", _checked(path)):
            return self._backend.exists(path)

    def entries(self, folder: str = "") -> Iterator[Entry]:
        """What stands directly inside a folder, in no order, left-over temp files too; nothing where there is none.

        One after the other: there may be millions.
        """
        with self._named("list", _checked_folder(folder)):
            yield from self._backend.entries(folder)

    def list(self, prefix: str = "") -> Paths:
        """The paths of all files in a folder and below, sorted, left-over temp files aside."""
        return [path for path in self._walk(prefix) if not is_temp(path)]

    def temp_files(self, prefix: str = "", *, below: bool = True) -> Paths:
        """What unfinished writes left behind in a folder, and `below` it unless that is False.

        Remove them only where nobody can be writing: under the session's lease.
        """
        if below:
            return [path for path in self._walk(prefix) if is_temp(path)]
        names = (entry.name for entry in self.entries(prefix) if not entry.is_folder and is_temp(entry.name))
        return sorted(f"{prefix}/{name}" if prefix else name for name in names)

    def remove(self, *paths: str) -> None:
        """Remove files, on disk once they all are; a missing one is no error."""
        for path in paths:
            with self._named("remove", _checked(path)):
                self._backend.remove(path)
        for folder in {os.path.dirname(path) for path in paths}:
            with self._named("remove", folder):
                self._backend.sync(folder)

    def remove_tree(self, prefix: str) -> None:
        """Remove a folder and everything in it; a missing one is no error."""
        with self._named("remove", _checked(prefix)):
            self._backend.remove_tree(prefix)

    def put(self, session_id: str, data: bytes, suffix: str) -> str:
        """Store a session's file under its own digest and return its path.

        A file that is already there is checked, and written again when it is damaged.
        """
        if not _SUFFIX.fullmatch(suffix):
            raise InputError(f"A file suffix must be a dot and 1 to 8 lower case letters or digits, not {suffix!r}.")
        path = f"{checked_session_id(session_id)}/files/{hashlib.sha256(data).hexdigest()}{suffix}"
        if not self._holds(path, data):
            self.write_whole(path, data)
        return path

    def share(self, path: str, session_id: str) -> str:
        """Give a file that `put` has stored to another session too, under its own folder; returns its path there.

        A second name of the same bytes where the storage has such, else a copy: either outlives the other. Raises
        FileMissingError, and StorageError for a file that does not have the digest it is named after.
        """
        data, name = self.read(path), path.rpartition("/")[2]
        if hashlib.sha256(data).hexdigest() != name.partition(".")[0]:
            raise StorageError(f"{self.full_path(path)} is damaged.")
        new = _checked(f"{checked_session_id(session_id)}/files/{name}")
        if not self._holds(new, data):
            with self._named("write", new):
                if not self._backend.share(path, new):
                    self._backend.write(new, data)
        return new

    def set_aside(self, path: str) -> str:
        """Rename a damaged file (or folder) to `<name>.set-aside-<time>` beside it; returns the new path."""
        stem = f"{_checked(path)}.set-aside-{self._clock():%Y%m%dT%H%M%SZ}"
        number, aside = 1, stem
        while self.exists(aside):
            number += 1
            aside = f"{stem}-{number}"
        with self._named("set aside", path):
            self._backend.rename(path, aside)
        return aside

    def _holds(self, path: str, data: bytes) -> bool:
        try:
            return self.read(path, len(data)) == data
        except (StorageError, InputError):  # missing, longer than it should be, or unreadable: write it again
            return False

    def _walk(self, prefix: str) -> Paths:
        with self._named("list", _checked_folder(prefix)):
            return sorted(self._backend.walk(prefix))

    @contextmanager
    def _named(self, verb: str, path: str) -> Iterator[None]:
        """Turn what the backend raises into one sentence that names the file."""
        where = self._backend.full_path(path)
        try:
            yield
        except EdiError:
            raise
        except FileNotFoundError as error:
            raise FileMissingError(f"There is no {where}.") from error
        except (IsADirectoryError, NotRegularError) as error:
            raise NotAFileError(f"{where} is not a file.") from error
        except OSError as error:
            if error.errno in _FULL:
                raise StorageFullError(_full_sentence(self._backend.place())) from error
            reason = error.strerror or str(error) or type(error).__name__
            raise StorageError(f"Could not {verb} {where}: {reason}.") from error
        except Exception as error:
            if self.is_local:
                raise
            # Every object store's client has its own errors; none of them may reach a person as a traceback.
            raise StorageError(f"Could not {verb} {where}: {type(error).__name__}: {error}.") from error


def _full_sentence(place: str) -> str:
    return f"The disk at {place} is full: nothing was lost, free some room and run `edi resume --all`."


# --- Which URLs and paths are taken ------------------------------------------------------------------


def _backend(url: str, allowed_schemes: Collection[str]) -> _Backend:
    _refuse_bad_text(url, "storage URL")
    match = _SCHEME.fullmatch(url)
    if "::" in url and (match or ":/" in url):
        raise InputError("The storage URL chains file systems with '::', which is not allowed.")
    if match is None:
        return LocalFolder(url)
    scheme, rest = match[1].lower(), match[2]
    if scheme == "file":
        return LocalFolder(_path_of_file_url(rest))
    if scheme != "memory" and scheme not in WHOLE_PUT_SCHEMES.intersection(allowed_schemes):
        raise InputError(f"Storage on {scheme}:// is not allowed here; use a folder, or allow the scheme first.")
    _refuse_odd_rest(scheme, rest)
    return _ObjectStore(scheme, rest.strip("/"))


def _path_of_file_url(rest: str) -> str:
    if not rest.startswith("/"):
        raise InputError("A file:// URL needs three slashes and an absolute path: file:///home/me/sessions.")
    path = unquote(rest)
    # Path.as_uri() writes file:///C:/sessions on Windows.
    return path[1:] if re.match(r"/[A-Za-z]:", path) else path


def _refuse_odd_rest(scheme: str, rest: str) -> None:
    if scheme != "memory" and not rest.strip("/"):
        raise InputError(f"The storage URL names no bucket: {scheme}://<bucket>/<folder>.")
    if "@" in rest.partition("/")[0] or "?" in rest or "#" in rest:
        raise InputError("The storage URL holds credentials or options; give these to the store's own client.")
    if rest.strip("/"):
        _checked(rest.strip("/"))


def _refuse_bad_text(text: str, what: str) -> None:
    if not text:
        raise InputError(f"The {what} is empty.")
    try:
        check_text(text)
    except ValueError as error:
        raise InputError(f"The {what} {error}.") from error


def _checked(path: str) -> str:
    """A relative path of plain names: nothing that could leave the root on any system."""
    _refuse_bad_text(path, "path of a stored file")
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or any(bad in path for bad in "\\:\n\r"):
        raise InputError(f"The path of a stored file must be relative and plain, not {path!r}.")
    return path


def _checked_folder(folder: str) -> str:
    return _checked(folder) if folder else ""


def checked_session_id(session_id: str) -> str:
    """The id, if it can be part of a path; InputError if not."""
    try:
        return check_session_id(session_id)
    except ValueError as error:
        raise InputError(f"A session id {error}.") from error


# --- Where the files are -----------------------------------------------------------------------------


class _Backend(Protocol):
    """What differs between a folder and an object store. Paths are relative and checked."""

    root: str

    def full_path(self, path: str) -> str: ...
    def place(self) -> str: ...
    def write(self, path: str, data: bytes) -> None: ...
    def create(self, path: str, data: bytes) -> bool:
        """Write it unless there is something by that name; returns whether it was written."""
        ...

    def read(self, path: str, max_bytes: int) -> bytes: ...
    def exists(self, path: str) -> bool: ...
    def entries(self, folder: str) -> Iterator[Entry]: ...
    def walk(self, folder: str) -> list[str]: ...
    def remove(self, path: str) -> None:
        """Remove a file, for good after the next `sync` of its folder; a missing one is no error."""
        ...

    def sync(self, folder: str) -> None: ...
    def remove_tree(self, path: str) -> None: ...
    def rename(self, path: str, new: str) -> None: ...
    def share(self, path: str, new: str) -> bool: ...


class _ObjectStore:
    """A bucket, or memory, through fsspec."""

    def __init__(self, scheme: str, rest: str) -> None:
        self.root = f"{scheme}://{rest}"
        self._scheme = scheme
        self._base = f"/{rest}".rstrip("/") if scheme == "memory" else rest

    @cached_property
    def _fs(self) -> Any:
        # Imported here: a local store does not need fsspec, and `edi --help` should not pay for it.
        import fsspec

        # s3fs would go on listing what another process has deleted.
        options = {"use_listings_cache": False} if self._scheme in ("s3", "s3a") else {}
        return fsspec.filesystem(self._scheme, **options)

    def full_path(self, path: str) -> str:
        return f"{self.root.rstrip('/')}/{path}" if path else self.root

    def place(self) -> str:
        return self.root

    def write(self, path: str, data: bytes) -> None:
        # Never `with fs.open(...)`: an exception inside it commits half a file.
        self._fs.pipe_file(self._key(path), data)

    def create(self, path: str, data: bytes) -> bool:
        if self._scheme not in ("s3", "s3a"):
            if self.exists(path):
                return False
            self.write(path, data)
            return True
        try:
            # If-None-Match: of two machines that write it at once, one is told by the store.
            self._fs.pipe_file(self._key(path), data, mode="create")
        except FileExistsError:
            return False
        return True

    def read(self, path: str, max_bytes: int) -> bytes:
        key = self._key(path)
        size = int(self._fs.info(key)["size"])
        # A ranged read of an empty object is an error on S3, so the size is asked for instead.
        return bytes(self._fs.cat_file(key)) if size <= max_bytes else b" " * (max_bytes + 1)

    def exists(self, path: str) -> bool:
        # Not fs.exists: it takes a broken connection for "no".
        try:
            self._fs.info(self._key(path))
        except FileNotFoundError:
            return False
        return True

    def entries(self, folder: str) -> Iterator[Entry]:
        prefix = f"{self._key(folder)}/"
        with suppress(FileNotFoundError):
            for entry in self._fs.ls(self._key(folder), detail=True):
                name = entry["name"].rstrip("/")
                if name.startswith(prefix):
                    yield Entry(name.removeprefix(prefix), entry["type"] == "directory")

    def walk(self, folder: str) -> list[str]:
        base = f"{self._base}/" if self._base else ""
        prefix = f"{self._key(folder)}/"
        return [name.removeprefix(base) for name in self._fs.find(self._key(folder)) if name.startswith(prefix)]

    def remove(self, path: str) -> None:
        with suppress(FileNotFoundError):
            self._fs.rm_file(self._key(path))

    def sync(self, folder: str) -> None:
        """What an object store has answered is done."""

    def remove_tree(self, path: str) -> None:
        with suppress(FileNotFoundError):
            self._fs.rm(self._key(path), recursive=True)

    def rename(self, path: str, new: str) -> None:
        # There is no rename in an object store: copy first, so that the bytes are always somewhere.
        self._fs.cp_file(self._key(path), self._key(new))
        self._fs.rm_file(self._key(path))

    def share(self, path: str, new: str) -> bool:
        # Within the store: the bytes need not travel.
        self._fs.cp_file(self._key(path), self._key(new))
        return True

    def _key(self, path: str) -> str:
        return f"{self._base}/{path}" if path else self._base
