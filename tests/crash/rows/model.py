"""Hypothesis drives EDIDatabase and a plain-Python model of it side by side, with faults among the rules.

Sessions are begun, taken over, committed, rated, learned from, deleted, by owners whose leases may be old; the clock
goes both ways; commits fail at any failpoint; the database is closed and opened, or lost and rebuilt. After each step
both must tell the same story.
"""

from __future__ import annotations

import tempfile
import traceback
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from edi_storage import failpoints
from edi_storage.doctor import doctor
from edi_storage.errors import EdiError, LeaseHeldError, LeaseLostError, NotFoundError, SessionGoneError
from edi_storage.models import Lease, SessionData, StageCommit, UserFeedback
from edi_storage.recovery import export_checkpoints
from edi_storage.state import Json, digest, fold, merge_patch
from edi_storage.store import Store, open_store
from tests.crash import homes
from tests.crash.bench import Bench
from tests.crash.processes import brief
from tests.crash.work import settings_for
from tests.storage.sessions import SESSION, THEN, boundaries, put_files

IDS = ("a", "b")
OWNERS = ("one", "two")
SECONDS = 30
_STEPS = list(boundaries())
_FAULTS = [name for name in failpoints.NAMES if name.startswith("commit.")]


@dataclass
class Known:
    """What the model knows of a session."""

    #: After each boundary, whether it was a step of the edit (or else a verdict), and the state.
    boundaries: list[tuple[bool, Json]] = field(default_factory=list)
    fence: int = 0
    owner: str | None = None
    expires: float = 0
    renewed: float = 0
    verdicts: dict[str, str] = field(default_factory=dict)
    exported: int = 0

    @property
    def state(self) -> Json:
        return self.boundaries[-1][1] if self.boundaries else {}

    @property
    def steps(self) -> int:
        return sum(is_step for is_step, _ in self.boundaries)

    def add(self, is_step: bool, delta: Json) -> None:
        self.boundaries.append((is_step, merge_patch(self.state, delta)))

    def renew(self, now: float) -> None:
        self.renewed, self.expires = now, now + SECONDS

    def renew_if_needed(self, now: float) -> None:
        """What a boundary does: prolong a lease that has less than half left, or was written by a clock gone back."""
        if self.expires < now + SECONDS / 2 or self.renewed > now + 5:
            self.renew(now)

    def is_held(self, now: float) -> bool:
        """A lease written by a clock that has gone back since counts as run out."""
        return self.owner is not None and self.expires > now and self.renewed <= now + 5


class Model(RuleBasedStateMachine):
    """The rules. `self.known` is the model; every rule predicts from it what the database must do."""

    template: Path
    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="edi-model-"))
        homes.place(self.home, like=self.template)
        self.now, self.known = 0.0, dict[str, Known]()
        self.store = self._open()

    def _open(self) -> Store:
        self._opened = open_store(settings_for(self.home))
        store = self._opened.__enter__()
        store.database.clock = lambda: THEN + timedelta(seconds=self.now)
        return store

    def teardown(self) -> None:
        failpoints.arm("")
        self._opened.__exit__(None, None, None)
        homes.remove(self.home)

    # --- Leases ---

    @rule(target=leases, name=st.sampled_from(IDS), owner=st.sampled_from(OWNERS))
    def begin(self, name: str, owner: str) -> Lease | None:
        made = partial(self.store.database.begin_session, _session(name), owner, SECONDS)
        if name in self.known and self.known[name].is_held(self.now):
            return _refused(made, LeaseHeldError)
        self.known.setdefault(name, Known())
        return self._took(name, owner, made())

    @rule(target=leases, name=st.sampled_from(IDS), owner=st.sampled_from(OWNERS))
    def take_over(self, name: str, owner: str) -> Lease | None:
        taken = partial(self.store.database.take_over, name, owner, SECONDS)
        return self._took(name, owner, taken()) if name in self.known else _refused(taken, NotFoundError)

    def _took(self, name: str, owner: str, lease: Lease) -> Lease:
        known = self.known[name]
        assert lease.fence > known.fence, "the fence did not rise"
        known.fence, known.owner = lease.fence, owner
        known.renew(self.now)
        return lease

    def _is_mine(self, lease: Lease) -> bool:
        known = self.known.get(lease.session_id)
        return known is not None and (known.fence, known.owner) == (lease.fence, lease.owner)

    @precondition(lambda self: self.known)
    @rule(lease=leases)
    def renew(self, lease: Lease | None) -> None:
        if lease is None:
            return
        renewed = partial(self.store.database.renew, lease, SECONDS)
        if not self._is_mine(lease):
            _refused(renewed, LeaseLostError, SessionGoneError)
            return
        renewed()
        self.known[lease.session_id].renew(self.now)

    @rule(lease=leases)
    def release(self, lease: Lease | None) -> None:
        if lease is not None:
            self.store.database.release(lease)
            if self._is_mine(lease):
                self.known[lease.session_id].owner = None

    @rule(seconds=st.sampled_from([1, 16, 31, 86_400, -86_400, -1]))
    def time_goes_by(self, seconds: float) -> None:
        self.now += seconds

    # --- Boundaries ---

    @rule(lease=leases, fault=st.sampled_from(["", *_FAULTS]), action=st.sampled_from(["EIO", "ENOSPC"]))
    def commit(self, lease: Lease | None, fault: str, action: str) -> None:
        if lease is None:
            return
        known = self.known.get(lease.session_id) or Known()
        if known.steps == len(_STEPS):
            return
        commit = _next(lease, known)
        failpoints.arm(f"{fault}={action}" if fault else "")
        try:
            self.store.database.commit_stage(lease, commit, SECONDS)
        except (LeaseLostError, SessionGoneError):
            assert not self._is_mine(lease), "its own lease was refused"
            return
        except EdiError:
            assert fault, "a commit failed without a fault"
            if fault != "commit.after_commit":
                return
        finally:
            failpoints.arm("")
        assert self._is_mine(lease), "the fence let an old owner in"
        assert fault in ("", "commit.after_commit"), "a failed commit is there"
        known.add(True, commit.state_delta)
        known.renew_if_needed(self.now)

    @rule(lease=leases)
    def commit_again(self, lease: Lease | None) -> None:
        """The same boundary a second time, after an answer that was lost on the way."""
        known = self.known.get(lease.session_id) if lease else None
        if lease is None or known is None or not known.steps or known.verdicts or not self._is_mine(lease):
            return
        stored = self.store.database.get_commits(lease.session_id)[-1]
        assert self.store.database.commit_stage(lease, stored, SECONDS) == stored
        known.renew(self.now)

    # --- Feedback ---

    @rule(name=st.sampled_from(IDS), verdict=st.sampled_from(["accept", "reject"]), key=st.sampled_from(["k", "l"]))
    def rate(self, name: str, verdict: Any, key: str) -> None:
        given = UserFeedback(feedback_type=verdict, feedback_key=key, created_at=THEN)
        save = partial(self.store.database.save_feedback, name, given)
        if name not in self.known:
            _refused(save, NotFoundError)
            return
        known = self.known[name]
        if known.is_held(self.now):
            _refused(save, LeaseHeldError)
            return
        save()
        if known.verdicts.get(key) == verdict:
            return
        known.verdicts[key] = verdict
        if known.boundaries:
            known.add(False, {"validation": {"feedback": {key: given.model_dump(mode="json")}}})

    @rule()
    def learn(self) -> None:
        while self.store.database.fold_feedback().events:
            pass
        count = sum(cell.count for cell in self.store.database.learning_cells())
        verdicts = sum(len(known.verdicts) for known in self.known.values())
        assert count == verdicts, f"{count} verdicts were learned, {verdicts} stand"

    # --- Ends ---

    @rule(name=st.sampled_from(IDS))
    def delete(self, name: str) -> None:
        gone = partial(self.store.database.delete_session, name)
        if name not in self.known:
            _refused(gone, NotFoundError)
        elif self.known[name].is_held(self.now):
            _refused(gone, LeaseHeldError)
        else:
            gone()
            self.store.checkpoints.delete_session(name)
            del self.known[name]

    @rule()
    def close_and_open(self) -> None:
        self._opened.__exit__(None, None, None)
        self.store = self._open()

    @rule(name=st.sampled_from(IDS))
    def export(self, name: str) -> None:
        if name in self.known:
            export_checkpoints(self.store, name)
            self.known[name].exported = len(self.known[name].boundaries)

    @precondition(lambda self: any(known.exported for known in self.known.values()))
    @rule()
    def lose_the_database(self) -> None:
        """It is rebuilt from the checkpoints: what was exported is back; what never was is gone."""
        self._opened.__exit__(None, None, None)
        homes.lose_database(self.home)
        unrepaired = [finding for finding in doctor(settings_for(self.home), repair=True) if not finding.repaired]
        assert not unrepaired, unrepaired
        self.store = self._open()
        self.known = {name: _rebuilt(known) for name, known in self.known.items() if known.exported}
        for name, known in self.known.items():
            known.fence = self.store.database.take_over(name, "rebuilt", 0).fence
            known.owner, known.renewed, known.expires = "rebuilt", self.now, self.now

    # --- What must always hold ---

    @invariant()
    def both_tell_the_same_story(self) -> None:
        for name in IDS:
            assert (self.store.database.get_session(name) is not None) == (name in self.known)
        for name, known in self.known.items():
            stored = self.store.database.get_commits(name)
            state = fold(commit.state_delta for commit in stored)
            # Compared by their digests: a document from a checkpoint also has the fields that say nothing.
            assert digest(state) == digest(known.state), "another state"
            assert stored == [] or (stored[-1].seq, stored[-1].sha256) == (len(known.boundaries), digest(state))
            assert len({commit.seq for commit in stored}) == len(stored)


def _session(name: str) -> SessionData:
    return SESSION.model_copy(update={"session_id": name})


def _next(lease: Lease, known: Known) -> StageCommit:
    """The next boundary of the session, as its owner would commit it."""
    step, delta = _STEPS[known.steps]
    delta = {**delta, "session_id": lease.session_id} if known.steps == 0 else delta
    state = merge_patch(known.state, delta)
    return StageCommit(
        session_id=lease.session_id,
        seq=len(known.boundaries) + 1,
        stage=step.stage,
        attempt=step.attempt,
        iteration=step.iteration,
        state_delta=delta,
        sha256=digest(state),
        engine="model",
        engine_version="1",
        fence=lease.fence,
        started_at=THEN,
        finished_at=THEN,
    )


def _rebuilt(known: Known) -> Known:
    """What the checkpoints know."""
    found = Known(known.boundaries[: known.exported], exported=known.exported)
    verdicts = found.state.get("validation", {}).get("feedback", {})
    found.verdicts = {key: item["feedback_type"] for key, item in verdicts.items()}
    return found


def _refused(function: partial[Any], *errors: type[EdiError]) -> None:
    """It must raise one of these."""
    try:
        function()
    except errors:
        return
    raise AssertionError(f"{function.func.__name__} was not refused with {errors[0].__name__}")


# --- The row -----------------------------------------------------------------------------------------


def row(bench: Bench) -> None:
    examples, steps = (1500, 60) if bench.full else (60, 30)
    chance = bench.rng.randrange(1 << 32)
    with bench.round("model"):
        bench.violation("model", *bench.call(drive, bench.home(), examples, steps, chance, seconds=1200))
    bench.result.rounds += examples - 1


def drive(template: Path, examples: int, steps: int, chance: int) -> list[str]:
    """Run the machine. Returns where the two differed, with the shortest way there."""
    with open_store(settings_for(template)) as store:
        Model.template = template
        put_files(store)
    profile = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(seed(chance)(Model), settings=profile)
    except Exception as error:  # noqa: BLE001 - whatever it is, these steps lead to it
        steps_there = "\n".join(getattr(error, "__notes__", ()))
        return [f"{brief(traceback.format_exc())}\n{steps_there}"]
    return []
