"""FileStore: whole writes, checked paths and URLs, on a folder and on an object store."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from edi_storage.disk import LocalFolder, _temp_name, is_temp
from edi_storage.errors import EdiError, InputError, StorageFullError
from edi_storage.files import (
    FileMissingError,
    FileStore,
    NotAFileError,
    StorageError,
)

NOON = datetime(2026, 3, 4, 12, 0, 0, tzinfo=UTC)


@pytest.fixture(params=["folder", "file-url", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FileStore]:
    """The same tests for every kind of place."""
    if request.param == "s3":
        yield FileStore(f"{request.getfixturevalue('bucket_url')}/home", allowed_schemes=["s3"], clock=lambda: NOON)
        return
    folder = tmp_path / "my sessions"
    urls = {"folder": str(folder), "file-url": folder.as_uri(), "memory": f"memory://{uuid4()}/store"}
    yield FileStore(urls[request.param], clock=lambda: NOON)
    if request.param == "memory":
        import fsspec

        fsspec.filesystem("memory").rm("/", recursive=True)


@pytest.fixture
def local(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "root", clock=lambda: NOON)


# --- What every store does ---------------------------------------------------------------------------


def test_what_is_written_is_read_back_and_replaced(store: FileStore) -> None:
    store.write_whole("s1/state.json", b"one")
    assert store.read("s1/state.json") == b"one"
    store.write_whole("s1/state.json", b"")
    assert store.read("s1/state.json") == b""


def test_a_missing_file_is_a_named_error(store: FileStore) -> None:
    with pytest.raises(FileMissingError, match=r"There is no .*nothing\.json\.$"):
        store.read("s1/nothing.json")
    assert not store.exists("s1/nothing.json")


def test_an_empty_store_lists_nothing(store: FileStore) -> None:
    assert store.list() == store.list("s1") == store.temp_files() == []
    assert list(store.entries()) == list(store.entries("s1")) == []


def test_listing_is_sorted_and_relative_to_the_root(store: FileStore) -> None:
    for path in ("s2.json", "s1/files/b.png", "s1/files/a.png", "s10/x.json"):
        store.write_whole(path, b"x")
    assert store.list() == ["s1/files/a.png", "s1/files/b.png", "s10/x.json", "s2.json"]
    assert store.list("s1") == ["s1/files/a.png", "s1/files/b.png"]
    assert sorted(store.entries()) == [("s1", True), ("s10", True), ("s2.json", False)]
    assert sorted(store.entries("s1/files")) == [("a.png", False), ("b.png", False)]


def test_a_file_larger_than_allowed_is_refused(store: FileStore) -> None:
    store.write_whole("big", b"12345")
    assert store.read("big", 5) == b"12345"
    with pytest.raises(InputError, match="larger than 4 bytes"):
        store.read("big", 4)


def test_a_new_file_is_written_once(store: FileStore) -> None:
    assert store.write_new("once", b"1")
    assert not any(store.write_new("once", other) for other in (b"1", b"2", b""))
    assert store.read("once") == b"1"


def test_of_many_that_write_a_new_object_at_once_one_does(bucket_url: str) -> None:
    stores = [FileStore(f"{bucket_url}/home", allowed_schemes=["s3"]) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: stores[number].write_new("once", bytes([number])), range(8)))
    assert made.count(True) == 1
    assert stores[0].read("once") == bytes([made.index(True)])


def test_removing_is_idempotent_and_takes_only_what_was_named(store: FileStore) -> None:
    for path in ("s1.json", "s1/a", "s1/b/c", "s11/a"):
        store.write_whole(path, b"x")
    for _ in range(2):
        store.remove("s1.json")
        store.remove_tree("s1")
    assert store.list() == ["s11/a"]


def test_the_root_itself_cannot_be_removed(store: FileStore) -> None:
    with pytest.raises(InputError, match="empty"):
        store.remove_tree("")


def test_put_names_a_file_by_its_digest_and_writes_it_once(store: FileStore) -> None:
    path = store.put("s1", b"pixels", ".png")
    assert path == f"s1/files/{hashlib.sha256(b'pixels').hexdigest()}.png"
    assert store.put("s1", b"pixels", ".png") == path
    assert store.list() == [path]


@pytest.mark.parametrize("damage", [b"pixel", b"pixelz", b"pixels!", b""])
def test_put_writes_a_damaged_file_again(store: FileStore, damage: bytes) -> None:
    path = store.put("s1", b"pixels", ".png")
    store.write_whole(path, damage)
    store.put("s1", b"pixels", ".png")
    assert store.read(path) == b"pixels"


@pytest.mark.parametrize("suffix", ["png", ".", ".PNG", ".tar.gz", "./x", ".p\n", ".toolong9x"])
def test_put_refuses_odd_suffixes(store: FileStore, suffix: str) -> None:
    with pytest.raises(InputError, match="suffix"):
        store.put("s1", b"", suffix)


def test_put_refuses_an_id_that_is_no_file_name(store: FileStore) -> None:
    with pytest.raises(InputError, match="session id"):
        store.put("../s1", b"", ".png")


def test_a_shared_file_outlives_either_of_its_sessions(store: FileStore) -> None:
    path = store.put("one", b"mask", ".png")
    shared = store.share(path, "two")
    assert shared == path.replace("one/", "two/")
    store.write_whole(shared, b"damaged")
    assert store.read(path) == b"mask", "nothing is written into a file that has its name"
    assert store.share(path, "two") == shared
    store.remove_tree("one")
    assert store.read(shared) == b"mask"


def test_a_missing_or_damaged_file_is_not_shared(store: FileStore) -> None:
    path = store.put("one", b"mask", ".png")
    store.write_whole(path, b"other")
    with pytest.raises(StorageError, match="is damaged"):
        store.share(path, "two")
    store.remove(path)
    with pytest.raises(FileMissingError):
        store.share(path, "two")
    assert store.list("two") == []


def test_set_aside_keeps_the_bytes_under_a_dated_name(store: FileStore) -> None:
    names = []
    for data in (b"bad", b"worse", b"worst"):
        store.write_whole("s1.json", data)
        names.append(store.set_aside("s1.json"))
    assert names[0] == "s1.json.set-aside-20260304T120000Z"
    assert [store.read(name) for name in names] == [b"bad", b"worse", b"worst"]
    assert store.list() == sorted(names)


def test_full_path_can_be_opened(store: FileStore) -> None:
    store.write_whole("s1/a.txt", b"hello")
    where = store.full_path("s1/a.txt")
    if store.is_local:
        assert Path(where).is_absolute()
        assert Path(where).read_bytes() == b"hello"
    else:
        import fsspec

        fs, path = fsspec.url_to_fs(where)
        assert fs.cat_file(path) == b"hello"


# --- What is refused ---------------------------------------------------------------------------------

BAD_PATHS = [
    "",
    "/etc/passwd",
    "../x",
    "s1/../../x",
    "s1//x",
    "./x",
    "s1/.",
    "s1/",
    "a\\b",
    "C:x",
    "a\x00b",
    "a\ud800",
    "a\nb",
]


@pytest.mark.parametrize("path", BAD_PATHS)
def test_paths_that_could_leave_the_root_are_refused(store: FileStore, path: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: store.read(path),
        lambda: store.write_whole(path, b""),
        lambda: store.write_new(path, b""),
        lambda: store.exists(path),
        lambda: store.remove(path),
        lambda: store.remove_tree(path),
        lambda: store.set_aside(path),
        lambda: store.full_path(path),
        lambda: store.list(path or "/"),
    ]
    for call in calls:
        with pytest.raises(InputError):
            call()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a\x00b",
        "s3://bucket/x",
        "http://example.org/x",
        "https://example.org/x",
        "zip://x.zip",
        "reference://x",
        "sftp://host/x",
        "simplecache::s3://bucket/x",
        "simplecache::file:///any/x",
        "zip://a::file:///any/x.zip",
        "file://relative/x",
        "memory://a/../b",
        "memory://a?b",
    ],
)
def test_storage_urls_that_are_not_allowed_are_refused(url: str) -> None:
    with pytest.raises(InputError):
        FileStore(url)


@pytest.mark.parametrize("url", ["zip://x", "reference://x", "sftp://host/x", "http://x/y", "simplecache::s3://b/x"])
def test_some_schemes_cannot_even_be_allowed(url: str) -> None:
    with pytest.raises(InputError):
        FileStore(url, allowed_schemes=["zip", "reference", "sftp", "http", "simplecache", "s3"])


@pytest.mark.parametrize("url", ["s3://", "s3://key:secret@bucket/x", "s3://bucket/x?versionId=1", "s3://bucket/../x"])
def test_an_allowed_scheme_still_needs_a_plain_url(url: str) -> None:
    with pytest.raises(InputError) as error:
        FileStore(url, allowed_schemes=["s3"])
    assert "secret" not in str(error.value)


def test_an_allowed_scheme_is_taken_without_touching_the_network() -> None:
    store = FileStore("S3://bucket/folder/", allowed_schemes=["s3"])
    assert store.full_path("s1.json") == "s3://bucket/folder/s1.json"
    assert not store.is_local


# --- On a local disk ---------------------------------------------------------------------------------


def test_making_a_store_makes_no_folder(local: FileStore) -> None:
    assert local.list() == []
    assert not os.path.exists(local.root)


def test_files_and_folders_are_private_whatever_the_umask(local: FileStore) -> None:
    before = os.umask(0)
    try:
        local.write_whole("s1/files/a.png", b"x")
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(os.lstat(os.path.join(local.root, path)).st_mode) for path in ("", "s1", "s1/files")}
    assert set(modes.values()) == {0o700}
    assert stat.S_IMODE(os.lstat(local.full_path("s1/files/a.png")).st_mode) == 0o600


def test_a_relative_root_does_not_move_with_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = FileStore("sessions")
    store.write_whole("a", b"x")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert store.read("a") == b"x"


def test_a_root_in_the_home_folder_may_be_written_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert FileStore("~/sessions").root == str(tmp_path / "sessions")


def test_a_writer_removes_what_it_left_when_it_was_killed_and_nothing_else(tmp_path: Path) -> None:
    folder = LocalFolder(str(tmp_path))
    left, of_another, of_no_one = _temp_name("a.png", "s-1"), _temp_name("a.png", "s-2"), _temp_name("a.png")
    for name in (left, of_another, of_no_one, f"{left}.jpg"):
        (tmp_path / name).write_bytes(b"half")
    folder.write("a.png", b"whole", writer="s-1")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted([of_another, of_no_one, f"{left}.jpg", "a.png"])


def test_left_over_temp_files_are_listed_apart(local: FileStore) -> None:
    local.write_whole("s1/a.json", b"x")
    for name in (".a.json.0123456789abcdef.tmp", "files/.b.0123456789abcdef.tmp"):
        path = Path(local.root, "s1", name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    assert local.list() == ["s1/a.json"]
    assert local.temp_files() == ["s1/.a.json.0123456789abcdef.tmp", "s1/files/.b.0123456789abcdef.tmp"]
    assert local.temp_files("s1", below=False) == ["s1/.a.json.0123456789abcdef.tmp"]
    for temp in local.temp_files():
        local.remove(temp)
    assert local.temp_files() == []


def test_a_pipe_folder_or_link_in_place_of_a_file_is_refused_at_once(local: FileStore, tmp_path: Path) -> None:
    local.write_whole("s1/real", b"x")
    os.mkfifo(local.full_path("s1/pipe"))
    os.symlink(tmp_path, local.full_path("s1/link"))
    for name in ("s1/pipe", "s1"):
        with pytest.raises(NotAFileError, match="is not a file"):
            local.read(name)
    with pytest.raises(StorageError):
        local.read("s1/link")


def test_a_folder_can_be_set_aside_too(local: FileStore) -> None:
    local.write_whole("s1.json/inside", b"x")
    aside = local.set_aside("s1.json")
    assert local.list() == [f"{aside}/inside"]


def test_a_file_where_a_folder_is_needed_gives_one_sentence(local: FileStore) -> None:
    local.write_whole("s1", b"x")
    with pytest.raises(StorageError, match=r"^Could not write .*: Not a directory\.$"):
        local.write_whole("s1/a", b"y")


def test_local_stores_do_not_import_fsspec() -> None:
    code = """
import sys
from edi_storage.checkpoints import SessionStateManager
SessionStateManager("sessions").session_ids()
print("fsspec" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


class Disk:
    """Records the system calls of a write in order, and fails one of them on demand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.fail: tuple[str, int] | None = None
        self.names: dict[int, str] = {}
        for name in ("open", "write", "fsync", "replace", "mkdir", "unlink"):
            monkeypatch.setattr(os, name, self._watched(name, getattr(os, name)))

    def _watched(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            subject = self.names.get(args[0], "?") if name in ("write", "fsync") else str(args[0])
            label = f"{name} {'temp' if is_temp(subject) else os.path.basename(subject)}"
            if self.fail and label == self.fail[0]:
                raise OSError(self.fail[1], os.strerror(self.fail[1]))
            result = real(*args, **options)
            if name == "open":
                self.names[result] = subject
            self.calls.append(label)
            return result

        return call


STEPS = ["open temp", "write temp", "fsync temp", "replace temp", "open s1", "fsync s1"]


def test_a_whole_write_syncs_the_file_before_the_rename_and_the_folder_after(
    local: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.write_whole("s1/a", b"old")
    seen = Disk(monkeypatch)
    local.write_whole("s1/a", b"new")
    assert seen.calls == STEPS


def test_the_entry_of_every_new_folder_is_synced(local: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    above = os.path.basename(os.path.dirname(local.root))
    seen = Disk(monkeypatch)
    local.write_whole("s1/files/a", b"x")
    made = [call for call in seen.calls if call.startswith(("mkdir", "fsync"))]
    assert made == [
        "mkdir root",
        f"fsync {above}",
        "mkdir s1",
        "fsync root",
        "mkdir files",
        "fsync s1",
        "fsync temp",
        "fsync files",
    ]


def test_files_that_go_together_cost_one_sync_of_their_folder(
    local: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("a", "s1/b", "s1/c"):
        local.write_whole(path, b"x")
    seen = Disk(monkeypatch)
    local.remove("s1/c", "s1/b", "s1/missing", "gone/d", "a")
    assert local.list() == []
    gone, synced = seen.calls[:3], [call for call in seen.calls[3:] if call.startswith("fsync")]
    assert gone == ["unlink c", "unlink b", "unlink a"]
    assert sorted(synced) == ["fsync root", "fsync s1"]


def test_folders_that_another_process_made_are_synced_once(local: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    FileStore(local.root).write_whole("s1/a", b"x")
    seen = Disk(monkeypatch)
    local.write_whole("s1/a", b"y")
    assert "fsync root" in seen.calls
    seen.calls.clear()
    local.write_whole("s1/a", b"z")
    assert "fsync root" not in seen.calls


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("step", STEPS)
def test_a_failing_step_leaves_the_old_file_or_the_new_and_no_other(
    local: FileStore, monkeypatch: pytest.MonkeyPatch, step: str, code: int
) -> None:
    local.write_whole("s1/a", b"old")
    seen = Disk(monkeypatch)
    seen.fail = (step, code)
    full = code in (errno.ENOSPC, errno.EDQUOT)
    with pytest.raises(StorageFullError if full else StorageError, match=r"^[^\n]+\.$"):
        local.write_whole("s1/a", b"new")
    monkeypatch.undo()
    assert local.read("s1/a") == (b"new" if step in ("open s1", "fsync s1") else b"old")
    assert local.temp_files() == []
    local.write_whole("s1/a", b"newest")
    assert local.read("s1/a") == b"newest"


def test_a_full_disk_is_named_by_its_mount_point(local: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Disk(monkeypatch)
    seen.fail = ("write temp", errno.ENOSPC)
    with pytest.raises(StorageFullError) as error:
        local.write_whole("a", b"x")
    place = str(error.value).removeprefix("The disk at ").partition(" is full: ")[0]
    assert os.path.ismount(place)


def test_short_writes_are_continued(local: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:3]))
    local.write_whole("a", b"0123456789")
    monkeypatch.undo()
    assert local.read("a") == b"0123456789"


def test_a_file_system_that_cannot_sync_folders_is_used_all_the_same(
    local: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.write_whole("s1/a", b"old")
    seen = Disk(monkeypatch)
    seen.fail = ("fsync s1", errno.EINVAL)
    local.write_whole("s1/a", b"new")
    assert local.read("s1/a") == b"new"


def test_readers_see_whole_files_while_threads_replace_them(local: FileStore) -> None:
    contents = [bytes([number]) * 50_000 for number in range(4)]
    local.write_whole("a", contents[0])
    failed: list[BaseException] = []

    def replace(data: bytes) -> None:
        try:
            for _ in range(15):
                local.write_whole("a", data)
        except EdiError as error:
            failed.append(error)

    writers = [threading.Thread(target=replace, args=(data,)) for data in contents]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert local.read("a") in contents
    assert not failed
    assert local.temp_files() == []
