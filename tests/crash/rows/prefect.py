"""Prefect's processes killed under real edits: every edit comes to its end, and nobody types `edi resume`.

One `edi serve` gets edits through Prefect's API, a few at a time; at a random moment the server, the processes of the
flow runs, both, the runner, or all of it ("reboot", after which `edi serve` is started again) are killed with SIGKILL.
Each edit that was under way is one round. In the end its own run is completed, and the rows, the state and the picture
are those of an edit that nothing interrupted. A second row does the same to `edi edit` with the server it brings along.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image

from edi_storage.models import SessionData
from edi_storage.store import Store, open_store
from flows.output import history_document
from tests.crash import checks, homes
from tests.crash.bench import Bench, Skipped
from tests.crash.processes import ROOT, Hung, Raised
from tests.crash.work import Ack, settings_for
from tests.flows.conftest import PALACE
from tests.flows.control import Control, processes_of
from tests.waiting import PATIENCE

PROMPT = "make the sky dramatic"

#: What dies in each fault; the others live on.
FAULTS: dict[str, tuple[str, ...]] = {
    "server killed": ("server",),
    "flow processes killed": ("flow",),
    "server and flow processes killed": ("server", "flow"),
    "runner killed": ("runner",),
    "reboot": ("serve", "server", "runner", "flow"),
}

#: The fault comes while the edits start, which takes seconds ...
START = 5.0
#: ... or when a batch has at most so many boundaries together (an edit has ten) ...
MOST = 12
#: ... and at most so many seconds later: most stages take a tenth of a second.
MOMENT = 1.0

#: How often the driver looks, which takes a process each time: seconds.
POLL = 0.4

#: So many violations end the row.
ENOUGH = 5


def row(bench: Bench) -> None:
    """Each fault hits so many edits; then one edit is cancelled while all is killed."""
    _faults(bench, list(FAULTS))


def one_fault(bench: Bench) -> None:
    """The row for a test run that has more to do: one of the faults, whichever the seed draws."""
    _faults(bench, [bench.rng.choice(list(FAULTS))])


def _faults(bench: Bench, chosen: Sequence[str]) -> None:
    wanted = 20 if bench.full else 2
    hit = dict.fromkeys(chosen, 0)
    place = _place(bench, workers=4 if bench.full else 2, EDI_RESUME_SECONDS="10" if bench.full else "15")
    with _served(place):
        [whole] = place.trigger(1)
        place.finish([whole])
        # Once much is wrong, waiting for more of it takes hours.
        while (short := [name for name in hit if hit[name] < wanted]) and len(bench.result.violations) < ENOUGH:
            for fault in short:
                hit[fault] += _batch(bench, place, fault, whole)
        _cancelled(bench, place)
        bench.violation("at the end", *place.open_runs())
    bench.violation("at the end", *place.orphans(), *bench.call(checks.doubled, place.home))
    bench.violation("at the end", *bench.call(checks.examine, place.home))
    bench.note(", ".join(f"{fault}: {count}" for fault, count in hit.items()))


def _batch(bench: Bench, place: Place, fault: str, whole: str) -> int:
    """Some edits, one fault; returns how many of them it hit, each of which is a round."""
    before, hit, acks = bench.result.rounds, list[str](), list[Ack]()
    boundaries = bench.rng.choice((0, *bench.rng.choices(range(1, MOST + 1), k=2)))
    pause = bench.rng.uniform(0, MOMENT if boundaries else START)
    what, started = f"{fault} {pause:.1f} s after boundary {boundaries}", time.monotonic()
    # One more than there are workers: it waits, for a worker or for `edi serve`.
    asked = place.workers + 1 if bench.full else place.workers
    with bench.round(what):
        sessions = place.trigger(asked)
        _until(lambda: len(bench.call(_acks, place.home, sessions)) >= boundaries, f"boundary {boundaries}")
        time.sleep(pause)
        started = time.monotonic()
        spared = {session for session in sessions if FAULTS[fault] == ("flow",) and place.is_waiting(session)}
        place.kill(FAULTS[fault])
        hit = [session for session in place.unfinished(sessions) if session not in spared]
        acks = bench.call(_acks, place.home, hit)
        bench.result.acknowledged += len(acks)
        if "serve" in FAULTS[fault]:
            place.serve()
        place.finish(sessions)
        place.settle(sessions)
        bench.check_acks(what, place.home, acks)
        for session in sessions:
            bench.violation(f"{what}: {session}", *bench.call(_differences, place.home, session, whole))
    bench.note(f"{what}: hit at {_listed(acks, hit)}; all done after {time.monotonic() - started:.0f} s")
    bench.result.rounds = before + len(hit)
    return len(hit)


def _listed(acks: Sequence[Ack], sessions: Sequence[str]) -> str:
    """How many boundaries each of the sessions had."""
    return ", ".join(str(sum(ack.session_id == session for ack in acks)) for session in sessions) or "nothing"


def _cancelled(bench: Bench, place: Place) -> None:
    """A person cancels a run, and everything is killed before anybody has acted on it: nothing resumes it."""
    with bench.round("cancelled"):
        [session] = place.trigger(1, place.large)
        _until(lambda: bench.call(_acks, place.home, [session]), "the first stage")
        cancelling = {"type": "CANCELLING", "name": "Cancelling"}
        place.control.call(f"/flow_runs/{session}/set_state", state=cancelling, force=True)
        place.kill(FAULTS["reboot"])
        place.serve()
        # One resume comes right after the start, others later.
        started = datetime.now(UTC)
        _until(lambda: place.resumes_since(started) >= 2, "two more resumes")
        [ending] = bench.call(_endings, place.home, [session])
        if ending != "failed: cancelled by a person":
            bench.violation("cancelled", f"the session is {ending}")


# --- `edi serve` ---------------------------------------------------------------------------------------


class Place:
    """A home, the processes that work for it, and the API of its `edi serve`."""

    def __init__(self, bench: Bench, home: Path, port: int, workers: int, settings: Mapping[str, str]) -> None:
        self.bench, self.home, self.port, self.workers = bench, home, port, workers
        self.control = Control(home, port)
        self.small, self.large = _photo(home, 320), _photo(home, 2560)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("EDI_", "PREFECT_"))}
        self._environment = {**kept, **settings, "EDI_HOME": str(home)}
        self._outputs = 0
        self._served: subprocess.Popen[bytes] | None = None

    def edi(self, *arguments: str, log: Path) -> subprocess.Popen[bytes]:
        """The `edi` command."""
        with log.open("wb") as said:
            return subprocess.Popen(
                [sys.executable, "-m", "flows.cli", *arguments],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def serve(self) -> None:
        """What a service manager does after a boot."""
        log = self.home / f"serve-{time.monotonic_ns()}.log"
        options = ("--port", str(self.port), "--workers", str(self.workers))
        self._served = process = self.edi("serve", *options, log=log)
        _until(lambda: "is ready" in log.read_text() or process.poll() is not None, "the start of `edi serve`")
        if process.poll() is not None:
            raise Raised(f"`edi serve` ended: {log.read_text()[-300:]}")

    def stop(self) -> None:
        """Ctrl-C."""
        assert self._served is not None
        self._served.send_signal(signal.SIGINT)
        self._served.wait(60)

    def trigger(self, edits: int, photo: str = "") -> list[str]:
        """Ask for edits as the UI does; each session has the id of its run."""
        asked = {"image_path": photo or self.small, "prompt": PROMPT}
        return [self.control.start("edit-image", **asked, output=self._new_output()) for _ in range(edits)]

    def _new_output(self) -> str:
        self._outputs += 1
        return str(self.home / f"{self._outputs}.png")

    def is_waiting(self, session: str) -> bool:
        """Whether the run of this session has no process yet."""
        return self.control.state(session) in {"Scheduled", "Late", "AwaitingRetry"}

    def unfinished(self, sessions: Sequence[str]) -> list[str]:
        ends = self.bench.call(_endings, self.home, sessions)
        return [session for session, end in zip(sessions, ends, strict=True) if end != "completed"]

    def finish(self, sessions: Sequence[str]) -> None:
        """Wait until all are completed (or any failed); nobody does anything for it."""

        def stand() -> str:
            ends = self.bench.call(_endings, self.home, sessions)
            return ", ".join(
                f"{id_} {end} (run {self.control.state(id_)})" for id_, end in zip(sessions, ends, strict=True)
            )

        def is_over() -> bool:
            ends = self.bench.call(_endings, self.home, sessions)
            return any(end.startswith("failed") for end in ends) or set(ends) == {"completed"}

        _until(is_over, "the end of every edit", stand)
        if self.unfinished(sessions):
            raise Hung(f"not every edit is completed: {stand()}")

    def settle(self, sessions: Sequence[str]) -> None:
        """Wait until the very runs that were asked for are completed: whoever looks sees one run, and it is green."""

        def stand() -> str:
            return ", ".join(f"{session} {self.control.state(session)}" for session in sessions)

        _until(lambda: all(self.control.state(run) == "Completed" for run in sessions), "the end of every run", stand)

    def resumes_since(self, moment: datetime) -> int:
        """How many runs of `resume-interrupted` that began after this moment are done."""
        identifier = self.control.deployment("resume-interrupted")["id"]
        done = {
            "state": {"type": {"any_": ["COMPLETED"]}},
            "deployment_id": {"any_": [identifier]},
            "start_time": {"after_": str(moment)},
        }
        return int(self.control.call("/flow_runs/count", flow_runs=done))

    def open_runs(self) -> list[str]:
        """Runs that look alive although nothing is left to do; each resume is one for a moment."""
        wanted = {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}}
        deadline = time.monotonic() + 60
        while found := self.control.call("/flow_runs/filter", flow_runs=wanted, limit=50):
            if time.monotonic() > deadline:
                return [f"the run {run['name']} ({run['id']}) is {run['state_name']} for ever" for run in found]
            time.sleep(0.5)
        return []

    # --- Processes ---

    def kill(self, roles: Collection[str]) -> None:
        """SIGKILL to all processes in these roles at once."""
        self._strike(roles)
        if "serve" in roles and self._served:
            self._served.wait()
            # Also those that were being started in that moment.
            _until(lambda: not self._strike(roles), "the end of killed processes", lambda: str(self.running()))

    def _strike(self, roles: Collection[str]) -> list[int]:
        struck = [process for process, role in self.running().items() if role in roles]
        for process in struck:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        return struck

    def running(self) -> dict[int, str]:
        """The processes that work for this home, and what each of them is."""
        return processes_of(self.home)

    def orphans(self) -> list[str]:
        """Processes that are left over when nothing should be, after the seconds that an orderly end may take."""
        deadline = time.monotonic() + 15
        while (left := self.running()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return [f"a process was left behind: {role} {process}" for process, role in left.items()]


def _place(bench: Bench, workers: int = 0, **settings: str) -> Place:
    if not Path("/proc/self/environ").exists():
        raise Skipped("there is no /proc, which says which processes belong together")
    home = bench.home()
    home.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        where = {"EDI_DATABASE_URL": homes.database_url(home)} if homes.SERVER else {}
        return Place(bench, home, probe.getsockname()[1], workers, {**settings, **where})


@contextmanager
def _served(place: Place) -> Iterator[None]:
    """`edi serve` at work; whatever happens, none of its processes outlives the block, unless the end is orderly."""
    try:
        place.serve()
        yield
        place.stop()
    except BaseException:
        place.kill(FAULTS["reboot"])
        raise


def _photo(home: Path, width: int) -> str:
    path = home / f"photo-{width}.jpg"
    with Image.open(PALACE) as palace:
        palace.resize((width, width * palace.height // palace.width)).save(path, quality=90)
    return str(path)


def _until(done: Callable[[], Any], what: str, state: Callable[[], str] = str) -> None:
    """Poll until `done`; Hung with the `state` when it takes too long."""
    deadline = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > deadline:
            raise Hung(f"{what} did not come within {PATIENCE:.0f} s {state()}".rstrip())
        time.sleep(POLL)


# --- What is stored, read in processes of their own -----------------------------------------------------


def _endings(home: Path, sessions: Sequence[str]) -> list[str]:
    """How each session stands."""
    with open_store(settings_for(home)) as store:
        found = [store.database.get_session(session_id) for session_id in sessions]
    return [_ending(session) if session else NOT_BEGUN for session in found]


def _ending(session: SessionData) -> str:
    return f"{session.status}: {session.failure_reason}" if session.failure_reason else session.status


NOT_BEGUN = "not begun"


def _acks(home: Path, sessions: Sequence[str]) -> list[Ack]:
    """The boundaries that are committed."""
    with open_store(settings_for(home)) as store:
        commits = [commit for session in sessions for commit in store.database.get_commits(session)]
    return [Ack(commit.session_id, commit.seq, commit.sha256) for commit in commits]


#: What differs between two edits that did the same: times, runs, how often it was tried, and what follows from the id.
_VOLATILE = {"created_at", "updated_at", "started_at", "finished_at", "flow_run_id", "fence", "recovery_attempts"}


def _differences(home: Path, session_id: str, whole: str) -> list[str]:
    """Where the rows, the state or the picture differ from those of an edit that nothing interrupted."""
    with open_store(settings_for(home)) as store:
        are, should = (_document(store, name) for name in (session_id, whole))
    return [f"{table} {are[table]} is not {should[table]}" for table in should if are[table] != should[table]]


def _document(store: Store, session_id: str) -> dict[str, str]:
    history = store.database.load_session(session_id)
    output = Path(history.session.options["output"])
    tables = _steady(history_document(store, history))
    told = {name: json.dumps(rows, sort_keys=True) for name, rows in tables.items()}
    told = {name: text.replace(str(output), "OUTPUT").replace(session_id, "ID") for name, text in told.items()}
    return {**told, "output": hashlib.sha256(output.read_bytes()).hexdigest() if output.exists() else "missing"}


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        # The digests of commits cover the id, and the seed of a choice follows from it; those of pictures are in paths.
        return {key: _steady(item) for key, item in value.items() if key not in _VOLATILE | {"sha256", "seed"}}
    return [_steady(item) for item in value] if isinstance(value, list) else value


# --- `edi edit` with the server that it brings along ----------------------------------------------------


def alone(bench: Bench) -> None:
    """One session id, killed again and again at random moments, then resumed by hand."""
    place = _place(bench)
    _run(place, "edit", place.small, PROMPT, "--session-id", "whole", "--output", str(place.home / "whole.png"))
    asked = ("edit", place.small, PROMPT, "--session-id", "killed", "--output", str(place.home / "killed.png"))
    for number in range(10 if bench.full else 2):
        with bench.round(f"kill {number + 1}"):
            _killed(bench, place, asked)
    with bench.round("killed"):
        _run(place, *_next_command(bench, place, asked))
        bench.violation("killed", *bench.call(_differences, place.home, "killed", "whole"))
        bench.violation("killed", *place.orphans(), *bench.call(checks.doubled, place.home))
        bench.violation("killed", *bench.call(checks.examine, place.home))
    bench.result.rounds -= 1
    if bench.fired < bench.result.rounds:
        bench.note(f"only {bench.fired} of {bench.result.rounds} kills came before the end of the edit")


def _killed(bench: Bench, place: Place, asked: Sequence[str]) -> None:
    """Edit or resume the session; kill the process while it starts, or soon after its next boundary."""
    before = bench.call(_acks, place.home, ["killed"])
    process = place.edi(*_next_command(bench, place, asked), log=place.home / "killed.log")
    # The last stages follow each other within moments: who waits for a boundary there comes too late.
    if len(before) < 8 and bench.rng.random() < 0.7:
        _until(lambda: len(bench.call(_acks, place.home, ["killed"])) > len(before), "the next boundary")
        time.sleep(bench.rng.uniform(0, 0.1))
    else:
        time.sleep(bench.rng.uniform(0, 4))
    process.kill()
    process.wait()
    acks = bench.call(_acks, place.home, ["killed"])
    bench.check_acks("killed", place.home, before)
    bench.result.acknowledged += len(before)
    bench.fired += bench.call(_endings, place.home, ["killed"]) != ["completed"]
    bench.note(f"killed at boundary {len(acks)}")


def _next_command(bench: Bench, place: Place, asked: Sequence[str]) -> Sequence[str]:
    """What a person would type now."""
    [ending] = bench.call(_endings, place.home, ["killed"])
    return asked if ending == NOT_BEGUN else ("resume", "killed")


def _run(place: Place, *arguments: str) -> None:
    log = place.home / "edi.log"
    process = place.edi(*arguments, log=log)
    if process.wait(PATIENCE):
        raise Raised(f"`edi {arguments[0]}` ended with {process.returncode}: {log.read_text()[-300:]}")
