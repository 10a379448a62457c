"""The order of calls, read from strace: nothing is acknowledged before it is safe.

When a thread acknowledges a boundary, every file that it has written was synced after its last write, every renamed
file was synced before the rename and its folder after it. A power cut shows the same, but only where the file system
does not happen to flush more than it was asked to.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.bench import Bench
from tests.crash.rows.syscalls import need_strace, traced
from tests.crash.work import Task

SESSIONS = ("s-5", "s-1")
_CALLS = "write,pwrite64,fsync,fdatasync,rename,sendto,mkdir"
_LINE = re.compile(r"^(\d+) +(\w+)\((.*)\) += (-?\d+)")
_FILE = re.compile(r"^\d+<(.*?)>")
_RENAME = re.compile(r'^"(.*)", "(.*)"')

#: Locks, logs, and SQLite's shared memory, which it makes anew.
_UNIMPORTANT = (".edi.lock", "-shm")


def row(bench: Bench) -> None:
    need_strace(bench)
    for _ in range(5 if bench.full else 1):
        with bench.round("order"):
            home, output = bench.home(), bench.folder / "calls"
            process = bench.ready(Task(home, SESSIONS))
            with traced(process, "-y", "-s", "4", "-o", str(output), "-e", f"trace={_CALLS}"):
                process.line.say("go")
                process.wait()
            acks = bench.acks(process)
            found = Calls(home.parent)
            for line in _whole_lines(output.read_text().splitlines()):
                found.read(line)
            bench.violation("order", *dict.fromkeys(found.wrong))
            if found.acknowledged < len(acks):
                bench.violation("order", f"saw {found.acknowledged} of {len(acks)} acknowledgements")
            bench.note(f"{found.renames} renames and {found.acknowledged} acknowledgements, in order")


def _whole_lines(lines: Iterable[str]) -> Iterator[str]:
    """The calls, each where it ended; strace splits those during which another thread made one."""
    begun: dict[str, str] = {}
    for line in lines:
        thread, rest = line.split(" ", 1)
        if rest.endswith(" <unfinished ...>"):
            begun[thread] = line.removesuffix(" <unfinished ...>")
        elif "resumed>" in rest and thread in begun:
            yield begun.pop(thread) + rest.partition("resumed>")[2]
        else:
            yield line


@dataclass
class Calls:
    """What each thread has written and not yet synced."""

    #: The folder that matters: what is written elsewhere is passed over.
    root: Path
    unsynced: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    folders: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    wrong: list[str] = field(default_factory=list)
    renames: int = 0
    acknowledged: int = 0

    def read(self, line: str) -> None:
        match = _LINE.match(line)
        if match is None or match[4].startswith("-"):
            return
        thread, call, arguments = match[1], match[2], match[3]
        if call == "rename":
            self._rename(thread, arguments)
        elif call == "mkdir":
            self._changed(thread, arguments.split('"')[1])
        elif call == "sendto":
            self._acknowledge(thread)
        elif file := _FILE.match(arguments):
            self._touch(thread, call, file[1])

    def _touch(self, thread: str, call: str, path: str) -> None:
        if not path.startswith(str(self.root)) or path.endswith(_UNIMPORTANT):
            return
        if call in ("fsync", "fdatasync"):
            self.unsynced[thread].discard(path)
            self.folders[thread].discard(path)
        else:
            self.unsynced[thread].add(path)

    def _rename(self, thread: str, arguments: str) -> None:
        old, new = _RENAME.match(arguments).groups()  # type: ignore[union-attr]
        if not new.startswith(str(self.root)):
            return
        self.renames += 1
        if old in self.unsynced[thread]:
            self.wrong.append(f"{self._kind(new)} was renamed before it was synced")
            self.unsynced[thread].discard(old)
        self._changed(thread, new)

    def _changed(self, thread: str, path: str) -> None:
        if path.startswith(str(self.root)):
            self.folders[thread].add(str(Path(path).parent))

    def _acknowledge(self, thread: str) -> None:
        self.acknowledged += 1
        self.wrong += [f"acknowledged before {self._kind(path)} was synced" for path in self.unsynced[thread]]
        self.wrong += [f"acknowledged before the folder of {self._kind(p + '/')} was" for p in self.folders[thread]]
        self.unsynced[thread].clear()
        self.folders[thread].clear()

    def _kind(self, path: str) -> str:
        """The path with what differs between sessions and files left out."""
        return re.sub(r"[0-9a-f]{12,}|s-\d+", "*", path.removeprefix(str(self.root)))
