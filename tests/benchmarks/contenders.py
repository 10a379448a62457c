"""How others store a stage boundary: each function makes a store in an empty folder (see `boundary.Contender`).

What each needs is imported where it is made: none of it has to be installed.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edi_storage.models import StageCommit
from edi_storage.state import Json, rows_of
from tests.benchmarks.boundary import Store
from tests.benchmarks.naive import NaiveStore
from tests.benchmarks.rows import RowsFile, statements_of

Done = Callable[[], object]
#: Stores one boundary, given with the state after it.
Save = Callable[[StageCommit, Json], object]


# --- LangGraph ---------------------------------------------------------------------------------------


def langgraph_put(folder: Path) -> Store:
    """The whole state, by `put` of the SQLite saver."""
    checkpoints = _Checkpoints(folder)
    return _each(checkpoints.put)


def langgraph_rows(folder: Path) -> Store:
    """`put_writes` of what the stage changed, the rows, and `put` of the whole state: three transactions."""
    checkpoints, rows = _Checkpoints(folder), RowsFile(folder / "rows.db")

    def save(commit: StageCommit, state: Json) -> None:
        checkpoints.put_writes(commit)
        rows.save(statements_of(commit))
        checkpoints.put(commit, state)

    return _each(save, begin=rows.begin)


class _Checkpoints:
    """LangGraph's saver as a graph uses it: the writes of a task belong to the checkpoint that it began with."""

    def __init__(self, folder: Path) -> None:
        from langgraph.checkpoint.base import empty_checkpoint
        from langgraph.checkpoint.sqlite import SqliteSaver

        self._empty = empty_checkpoint
        self._saver = SqliteSaver(_durable(folder / "langgraph.db"))
        self._saver.setup()
        self._last: dict[str, Any] = {}

    def put(self, commit: StageCommit, state: Json) -> None:
        versions = dict.fromkeys(state, commit.seq)
        checkpoint = {**self._empty(), "channel_values": state, "channel_versions": versions}
        about = {"source": "loop", "step": commit.seq, "parents": {}}
        changed = dict.fromkeys(commit.state_delta, commit.seq)
        self._last[commit.session_id] = self._saver.put(self._at(commit), checkpoint, about, changed)

    def put_writes(self, commit: StageCommit) -> None:
        at = self._at(commit)
        # The first task of a graph has a checkpoint to begin with too: that of its input.
        at["configurable"].setdefault("checkpoint_id", "input")
        self._saver.put_writes(at, list(commit.state_delta.items()), f"{commit.stage}-{commit.seq}")

    def _at(self, commit: StageCommit) -> Any:
        begun = {"configurable": {"thread_id": commit.session_id, "checkpoint_ns": ""}}
        return self._last.get(commit.session_id, begun)


# --- DBOS --------------------------------------------------------------------------------------------


def dbos_rows(folder: Path) -> Store:
    """A workflow with one step a boundary, which stores the rows and returns what it changed.

    SQLite keeps a rollback journal in the file that DBOS makes.
    """
    from dbos import DBOS, SetWorkflowID

    path = folder / "dbos.db"
    DBOS(config={"name": "bench", "system_database_url": f"sqlite:///{path}", "log_level": "ERROR"})
    rows = RowsFile(folder / "rows.db")
    #: What a workflow is given would be stored too.
    work: dict[str, tuple[list[StageCommit], Done]] = {}

    @DBOS.step()
    def boundary(commit: StageCommit) -> Json:
        rows.save(statements_of(commit))
        return commit.state_delta

    @DBOS.workflow()
    def edit(session_id: str) -> None:
        commits, done = work.pop(session_id)
        done()
        for commit in commits:
            boundary(commit)
            done()

    DBOS.launch()

    def store(session_id: str, commits: list[StageCommit], _: list[Json], done: Done) -> None:
        rows.begin(session_id)
        work[session_id] = commits, done
        with SetWorkflowID(session_id):
            edit(session_id)

    return store


def dbos_wal(folder: Path) -> Store:
    """The same with WAL. DBOS leaves a file in the journal mode that it has."""
    _durable(folder / "dbos.db").close()
    return dbos_rows(folder)


# --- Our own naive version -----------------------------------------------------------------------------


def orm(folder: Path) -> Store:
    """See `naive`."""
    store = NaiveStore(folder / "orm.db")
    return _each(lambda commit, state: store.save(commit, state, rows_of(commit.state_delta)), begin=store.begin)


# --- What keeps a state, or results, and no rows -------------------------------------------------------


def burr(folder: Path) -> Store:
    """The whole state, by the SQLite persister."""
    from burr.core import State
    from burr.core.persistence import SQLitePersister

    persister = SQLitePersister(str(folder / "burr.db"), connection=_durable(folder / "burr.db"))
    persister.initialize()
    return _each(
        lambda commit, state: persister.save(
            "bench", commit.session_id, commit.seq, commit.stage, State(state), "completed"
        )
    )


def diskcache(folder: Path) -> Store:
    """The whole state as one value. By default it syncs nothing, and keeps large values in files of their own."""
    from diskcache import Cache

    cache = Cache(str(folder), sqlite_synchronous=2, disk_min_file_size=1 << 30)
    return _each(lambda commit, state: cache.set((commit.session_id, commit.seq), state))


def prefect(folder: Path) -> Store:
    """The whole state as the result of a task, in a folder."""
    os.environ["PREFECT_HOME"] = str(folder / "home")
    from prefect.filesystems import LocalFileSystem
    from prefect.results import ResultStore

    results = ResultStore(result_storage=LocalFileSystem(basepath=str(folder)), cache_result_in_memory=False)
    return _each(lambda commit, state: results.write(obj=state, key=f"{commit.session_id}/{commit.seq}"))


def joblib(folder: Path) -> Store:
    """The whole state as the result of a remembered function."""
    from joblib import Memory

    current: dict[str, Json] = {}

    def stage(session_id: str, seq: int) -> Json:
        return current["state"]

    remembered = Memory(str(folder), verbose=0).cache(stage)

    def save(commit: StageCommit, state: Json) -> None:
        current["state"] = state
        remembered(commit.session_id, commit.seq)

    return _each(save)


# --- What they have in common --------------------------------------------------------------------------


def _each(save: Save, *, begin: Callable[[str], object] = lambda _: None) -> Store:
    """A store that saves one boundary after the other; to begin a session takes no time."""

    def store(session_id: str, commits: list[StageCommit], states: list[Json], done: Done) -> None:
        begin(session_id)
        done()
        for commit, state in zip(commits, states, strict=True):
            save(commit, state)
            done()

    return store


def _durable(path: Path) -> sqlite3.Connection:
    """A connection as the standard library makes it, set so that what it commits survives a power cut."""
    connection = sqlite3.connect(path, check_same_thread=False)
    _make_durable(connection)
    return connection


def _make_durable(connection: Any) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
