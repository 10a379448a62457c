"""What a person sees of a session in the Prefect UI: one markdown page a run, brought up to date as it goes on.

An artifact is never worth an edit: whatever keeps one from being made is told in the log, and the flow goes on.
"""

from __future__ import annotations

import contextvars
import hashlib
import re
import threading
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID

from prefect import Flow, State, Task, runtime
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.client.schemas.objects import FlowRun, TaskRun

from edi_storage.errors import NotFoundError
from edi_storage.models import SessionData, SessionHistory
from edi_storage.settings import load_settings
from edi_storage.steps import Step, next_step
from edi_storage.store import Store, open_store
from flows.album import SMALL, album
from flows.hooks import run_of_task
from flows.links import viewer_address
from flows.markdown import bare, session_page
from flows.names import short_prompt
from flows.reviving import session_id_of
from flows.session import SessionRun, log

#: Characters of a key before its digest.
_LONGEST_NAME: Final = 60

#: How long a page that was asked for waits for what comes next: seconds.
_PAUSE_SECONDS: Final = 0.2

#: How long a run that is told to end waits for a page that is being published: seconds.
_LAST_SECONDS: Final = 2.0


def show_session(run: SessionRun, client: SyncPrefectClient | None = None) -> None:
    """Publish the session as it stands."""
    try:
        history = run.store.database.load_session(run.session.session_id)
        pictures = album(run.store, history, SMALL, run.copies, run.drawn)
        text = session_page(history, pictures, run.store.files.full_path, run.restored, served=_is_served())
        run.artifact = _publish(history, text, UUID(str(runtime.flow_run.id)), run.artifact, client)
    except Exception as error:  # noqa: BLE001 - see above
        _not_shown(error)


class Showing:
    """Publishes a session while its stages go on, in a thread of its own: no stage waits for its pictures.

    What `SessionRun.show` asks for in short order becomes one page of the newest state. `finish` asks for the last
    page, for which the end of the block waits; where an error ends the block, there is none.
    """

    def __init__(self, run: SessionRun) -> None:
        self._run = run
        self._asked, self._hurry = threading.Event(), threading.Event()
        self._failed = False
        # With the context of the flow: from it Prefect knows which run the page belongs to.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._publish,), name="edi-showing", daemon=True)

    def __enter__(self) -> Self:
        self._run.show = self._asked.set
        self._thread.start()
        return self

    def finish(self) -> None:
        """Publish the session as it stands now, and no more after that. Returns at once."""
        self._run.show = None
        self._hurry.set()
        self._asked.set()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._failed = kind is not None
        self.finish()
        # Never less after a mere error: the page that tells of it must not be followed by an older one.
        is_told_to_end = kind is not None and not issubclass(kind, Exception)
        self._thread.join(_LAST_SECONDS if is_told_to_end else None)

    def _publish(self) -> None:
        try:
            # Of its own, as the empty settings say: the flow's client does not bear to be opened by two threads.
            with get_client(httpx_settings={}, sync_client=True) as client:
                while self._is_asked():
                    last = self._hurry.is_set()
                    show_session(self._run, client)
                    if last:
                        return
        except Exception as error:  # noqa: BLE001 - see above
            _not_shown(error)

    def _is_asked(self) -> bool:
        self._asked.wait()
        # What follows is mostly a few short stages, which drawing would hold up.
        self._hurry.wait(_PAUSE_SECONDS)
        self._asked.clear()
        return not self._failed


def show_progress(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> None:
    """After a stage that a watcher waits for: publish the session. A stage that was restored changes nothing."""
    run = run_of_task()
    # Where nothing more is computed, the end of the flow publishes the session a moment later.
    if run.show and state.name != "Restored" and _goes_on(next_step(run.state)):
        run.show()


def _goes_on(following: Any) -> bool:
    return isinstance(following, Step) and following.stage != "completed"


def show_stored(store: Store, session_id: str, flow_run_id: UUID) -> None:
    """After a verdict: publish the session as the database holds it, unless a run is at work and does that itself.

    The artifact belongs to the flow run that is named.
    """
    try:
        if store.database.lease_of(session_id) is None:
            _show_as_stored(store, session_id, flow_run_id)
    except Exception as error:  # noqa: BLE001 - see above
        _not_shown(error)


def show_end(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """After a failure or a cancellation: publish the session a last time, as the database holds it."""
    try:
        with open_store(load_settings()) as store:
            session_id = session_id_of(flow_run)
            store.database.require_session(session_id)
            if store.database.lease_of(session_id) is None:  # else another run works on it, and shows it as it is
                _show_as_stored(store, session_id, flow_run.id, stopped=True)
    except NotFoundError:
        pass  # it ended before there was a session to show
    except Exception as error:  # noqa: BLE001 - see above
        _not_shown(error)


def _show_as_stored(store: Store, session_id: str, flow_run_id: UUID, *, stopped: bool = False) -> None:
    history = store.database.load_session(session_id)
    pictures = album(store, history, SMALL)
    text = session_page(history, pictures, store.files.full_path, stopped=stopped, served=_is_served())
    _publish(history, text, flow_run_id)


def _is_served() -> bool:
    return bool(viewer_address(load_settings()))


def _publish(
    history: SessionHistory,
    text: str,
    flow_run_id: UUID,
    known: UUID | None = None,
    client: SyncPrefectClient | None = None,
) -> UUID:
    """Make the artifact of this session in this run, or bring it up to date; returns its id, which may be `known`.

    Not by Prefect's own function: this may run in the process of the runner, where Prefect knows of no flow run.
    """
    key, description = key_of(history.session), _asked(history)
    with nullcontext(client) if client else get_client(sync_client=True) as client:
        known = known or _known(client, key, flow_run_id)
        if known is None:
            made = ArtifactCreate(key=key, type="markdown", description=description, data=text, flow_run_id=flow_run_id)
            return client.create_artifact(made).id
        client.update_artifact(known, ArtifactUpdate(data=text, description=description))
        return known


def _known(client: SyncPrefectClient, key: str, flow_run_id: UUID) -> UUID | None:
    wanted = ArtifactFilter(key=ArtifactFilterKey(any_=[key]), flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]))
    found = client.read_artifacts(artifact_filter=wanted, limit=1)
    return found[0].id if found else None


def key_of(session: SessionData) -> str:
    """The artifact's key: "sky-dramatic-palace-jpg-3fa1b2c4".

    Prefect takes small letters, digits and dashes. The digest of the session's id tells sessions apart.
    """
    named = f"{short_prompt(session.naive_prompt)} {Path(session.image_path).name}".lower()
    plain = re.sub(r"[^a-z0-9]+", "-", named)[:_LONGEST_NAME].strip("-")
    return "-".join(filter(None, (plain, mark_of(session.session_id))))


def mark_of(session_id: str) -> str:
    """The end of the key, which follows from the id alone."""
    return hashlib.sha256(session_id.encode()).hexdigest()[:8]


def _asked(history: SessionHistory) -> str:
    return bare(f"{history.session.naive_prompt[:200]} - {Path(history.session.image_path).name}")


def _not_shown(error: Exception) -> None:
    log.warning("The session could not be shown in the Prefect UI: %s", error or type(error).__name__)
