"""A folder on this machine, written so that a crash or a power cut leaves old bytes or new ones, never half.

A whole write is: temp name in the same folder, sync, rename, sync of the folder. Files are 0600, folders 0700.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from edi_storage.failpoints import reach

if sys.platform == "darwin":
    import fcntl

_TEMP = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")


def is_temp(path: str) -> bool:
    """Whether the name is one that only an unfinished write has."""
    return _TEMP.fullmatch(path.rpartition("/")[2]) is not None


class NotRegularError(OSError):
    """A folder, pipe, device or socket stands where a file should be."""


class Entry(NamedTuple):
    """What stands directly inside a folder."""

    name: str
    is_folder: bool


class LocalFolder:
    """A folder on this machine. Nothing is made before the first write."""

    #: How many folders are remembered as synced before the memory is emptied.
    _REMEMBERED = 1000

    def __init__(self, folder: str) -> None:
        # Absolute from the start, so that a later chdir does not move the store.
        self.root = os.path.abspath(os.path.expanduser(folder))
        self._durable: set[str] = set()

    def full_path(self, path: str) -> str:
        return os.path.join(self.root, *path.split("/")) if path else self.root

    def place(self) -> str:
        """The file system that the root is on, by its mount point."""
        place = Path(self.root)
        while not os.path.ismount(place) and place != place.parent:
            place = place.parent
        return str(place)

    def create(self, path: str, data: bytes) -> bool:
        """Write a whole file unless there is one; returns whether it was written."""
        if self.exists(path):
            return False
        self.write(path, data)
        return True

    def write(self, path: str, data: bytes, writer: str = "") -> None:
        """Write a whole file. A temp file that the same `writer` left beside it, when it was killed, goes first."""
        target = self.full_path(path)
        folder = os.path.dirname(target)
        self._make_durable(folder)
        temp = _temp_name(target, writer)
        if writer:
            _remove_left_by(writer, target)
        try:
            reach("files.before_write")
            _write_synced(temp, data)
            reach("files.before_rename")
            os.replace(temp, target)
        except BaseException:
            with suppress(OSError):
                os.unlink(temp)
            raise
        reach("files.after_rename")
        _sync_folder(folder)
        reach("files.after_fsync")

    def share(self, path: str, new: str) -> bool:
        """Give a file a second name, as durable as a write; False where it cannot be: not every file system has links.

        Nothing is ever written into a file that has its name, so neither name can spoil the other's bytes.
        """
        target = self.full_path(new)
        self._make_durable(os.path.dirname(target))
        try:
            os.link(self.full_path(path), target)
        except FileNotFoundError:
            raise
        except OSError:
            return False
        _sync_folder(os.path.dirname(target))
        return True

    def read(self, path: str, max_bytes: int) -> bytes:
        with open(_open_regular(self.full_path(path)), "rb") as file:
            # One byte more than allowed tells that it is larger, without reading it all.
            return file.read(min(os.fstat(file.fileno()).st_size, max_bytes) + 1)

    def exists(self, path: str) -> bool:
        return os.path.lexists(self.full_path(path))

    def entries(self, folder: str) -> Iterator[Entry]:
        with suppress(FileNotFoundError), os.scandir(self.full_path(folder)) as found:
            for entry in found:
                yield Entry(entry.name, entry.is_dir(follow_symlinks=False))

    def walk(self, folder: str) -> list[str]:
        prefix = f"{folder}/" if folder else ""
        paths = []
        for entry in self.entries(folder):
            path = prefix + entry.name
            paths += self.walk(path) if entry.is_folder else [path]
        return paths

    def remove(self, path: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self.full_path(path))

    def sync(self, folder: str) -> None:
        with suppress(FileNotFoundError):
            _sync_folder(self.full_path(folder))

    def remove_tree(self, path: str) -> None:
        target = self.full_path(path)
        with suppress(FileNotFoundError):
            shutil.rmtree(target)
            _sync_folder(os.path.dirname(target))
        self._durable.clear()

    def rename(self, path: str, new: str) -> None:
        os.rename(self.full_path(path), self.full_path(new))
        _sync_folder(os.path.dirname(self.full_path(path)))

    def _make_durable(self, folder: str) -> None:
        """Make a folder of the store, private, and sync its entry in the folder above, up to the root's own.

        Also when it is already there: whoever made it may have died before the sync.
        """
        if folder in self._durable and os.path.isdir(folder):
            return
        if len(self._durable) >= self._REMEMBERED:
            self._durable.clear()
        if folder == self.root:
            _make_root(folder)
        else:
            self._make_durable(os.path.dirname(folder))
            _make_folder(folder)
            _sync_folder(os.path.dirname(folder))
        self._durable.add(folder)


def _make_root(folder: str) -> None:
    above = os.path.dirname(folder)
    if not os.path.isdir(folder):
        if not os.path.isdir(above):
            _make_root(above)
        _make_folder(folder)
    # The folder above may belong to somebody else and not be readable.
    with suppress(PermissionError):
        _sync_folder(above)


def _make_folder(folder: str) -> None:
    with suppress(FileExistsError):
        os.mkdir(folder, 0o700)


def _temp_name(target: str, writer: str = "") -> str:
    """A hidden name in the same folder (a rename is atomic only within a file system), known to `is_temp`.

    Never used twice, also by the same writer: one that sleeps must not find another's bytes under its name.
    """
    folder, name = os.path.split(target)
    token = _mark(writer) + secrets.token_hex(4) if writer else secrets.token_hex(8)
    return os.path.join(folder, f".{name}.{token}.tmp")


def _mark(writer: str) -> str:
    return hashlib.sha256(writer.encode()).hexdigest()[:8]


def _remove_left_by(writer: str, target: str) -> None:
    folder, name = os.path.split(target)
    start = f".{name}.{_mark(writer)}"
    with suppress(OSError):  # it is somebody's own folder, which may be written to but not listed
        for left in os.listdir(folder):
            if left.startswith(start) and is_temp(left):
                os.unlink(os.path.join(folder, left))


def _write_synced(path: str, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags, 0o600), "wb", buffering=0) as file:
        _write_all(file.fileno(), data)
        reach("files.before_fsync")
        _sync_file(file.fileno())


def _write_all(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


def _sync_file(fd: int) -> None:
    if sys.platform == "darwin":
        # fsync on macOS leaves the bytes in the drive's cache.
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fsync(fd)


def _sync_folder(folder: str) -> None:
    if os.name == "nt":  # Windows has no way to open a folder; NTFS journals the rename itself
        return
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as error:
        # Some network file systems know no sync of a folder and say EINVAL; anything else is a real failure.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(fd)


def _open_regular(path: str) -> int:
    """Open for reading what is truly a file: a pipe would hang, a link could lead out of the store."""
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    fd = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotRegularError(errno.EINVAL, "it is not a regular file", path)
    return fd
