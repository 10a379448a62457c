"""What a person sees of a session in the Prefect UI: one markdown page, published again as the session goes on.

An artifact is never worth an edit: whatever keeps one from being made is told in the log, and the flow goes on.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import Flow, State, Task
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.objects import FlowRun, TaskRun

from edi_storage.errors import NotFoundError
from edi_storage.models import SessionHistory
from edi_storage.settings import load_settings
from edi_storage.state import Step, next_step
from edi_storage.store import Store, open_store
from flows.album import SMALL, album
from flows.markdown import bare, session_page
from flows.reviving import session_id_of
from flows.session import SessionRun, log


def show_session(run: SessionRun) -> None:
    """Publish the session as it stands. The next version takes the place of this one; the UI keeps the older ones."""
    try:
        history = run.store.database.load_session(run.session.session_id)
        text = session_page(
            history, album(run.store, history, SMALL, run.copies), run.store.files.full_path, run.restored
        )
        create_markdown_artifact(text, key=key_of(run.session.session_id), description=_asked(history))
    except Exception as error:  # noqa: BLE001 - see above
        _not_shown(error)


def show_progress(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> None:
    """After a stage that a watcher waits for: publish the session. A stage that was restored changes nothing."""
    run = state.result()
    # Where nothing more is computed, the end of the flow publishes the session a moment later.
    if isinstance(run, SessionRun) and state.name != "Restored" and _goes_on(next_step(run.state)):
        show_session(run)


def _goes_on(following: Any) -> bool:
    return isinstance(following, Step) and following.stage != "completed"


def show_stored(store: Store, session_id: str) -> None:
    """After a verdict: publish the session as the database holds it, unless a run is at work and does that itself."""
    try:
        if store.database.lease_of(session_id) is None:
            history = store.database.load_session(session_id)
            text = session_page(history, album(store, history, SMALL), store.files.full_path)
            create_markdown_artifact(text, key=key_of(session_id), description=_asked(history))
    except Exception as error:  # noqa: BLE001 - see above
        _not_shown(error)


def show_end(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """After a failure or a cancellation: publish the session a last time, as the database holds it."""
    try:
        with open_store(load_settings()) as store, get_client(sync_client=True) as client:
            history = store.database.load_session(session_id_of(flow_run))
            if store.database.lease_of(history.session.session_id):
                return  # another run works on it, and shows it as it is
            text = session_page(history, album(store, history, SMALL), store.files.full_path, stopped=True)
            client.create_artifact(_artifact(history, text, flow_run.id))
    except NotFoundError:
        pass  # it ended before there was a session to show
    except Exception as error:  # noqa: BLE001 - see above
        _not_shown(error)


def _artifact(history: SessionHistory, text: str, flow_run_id: UUID) -> ArtifactCreate:
    # By hand: this may run in the process of the runner, where Prefect knows of no flow run.
    return ArtifactCreate(
        key=key_of(history.session.session_id),
        type="markdown",
        description=_asked(history),
        data=text,
        flow_run_id=flow_run_id,
    )


def key_of(session_id: str) -> str:
    """The artifact's key. Prefect takes small letters, digits and dashes: a digest tells ids with others apart."""
    plain = re.sub(r"[^a-z0-9]+", "-", session_id.lower()).strip("-")
    mark = "" if plain == session_id else "-" + hashlib.sha256(session_id.encode()).hexdigest()[:6]
    return f"session-{plain}{mark}"


def _asked(history: SessionHistory) -> str:
    return bare(f"{history.session.naive_prompt[:200]} - {Path(history.session.image_path).name}")


def _not_shown(error: Exception) -> None:
    log.warning("The session could not be shown in the Prefect UI: %s", error or type(error).__name__)
