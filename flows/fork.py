"""The flow `fork-session`: goes back to a stage of a session and takes another way from there, as a new session."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from prefect import flow, runtime
from pydantic import WithJsonSchema

from edi_storage.forking import Wanted, make_fork
from edi_storage.models import MAX_PROMPT, SessionData
from edi_storage.settings import load_settings
from edi_storage.store import Store, open_store
from flows import form
from flows.artifacts import show_end
from flows.edit import edit_image
from flows.engines.wishes import STRENGTHS, Wishes
from flows.forking import planned
from flows.form import shown
from flows.hooks import forgive_disk, mark_cancelled, mark_crashed
from flows.plain import in_plain_words
from flows.runs import has_worked
from flows.session import log

Parent = Annotated[
    str,
    shown(
        "Session to go back in",
        "Its id, the start of one, or 'last' for the newest. It stays as it is.",
        min_length=1,
        max_length=64,
    ),
]
Stage = Annotated[
    Literal["analysis", "intent", "refinement", "edit", "validation"],
    shown(
        "Go back to",
        "This stage and what follows are done anew; everything before it is shared. "
        "Another prompt needs intent, another strength refinement, or before.",
    ),
]
Attempt = Annotated[int, shown("In which attempt", "1 unless a weak result was tried again.", ge=1, le=3)]
Prompt = Annotated[str, shown("Another prompt", "In your own words. Empty: the same as before.", max_length=MAX_PROMPT)]
#: A choice of words in the form; scripts that call the flow itself may also give a number up to 1.
_SAME = "the same as before"
Strength = Annotated[
    str | float,
    WithJsonSchema({"type": "string", "enum": [_SAME, *(word for word, number in STRENGTHS.items() if number)]}),
    shown("Another strength", "From refinement or before."),
]
NewName = Annotated[
    str,
    shown(
        "Name of the new session",
        "Empty: one is made up.",
        pattern=form.SESSION_NAME,
    ),
]


def _run_name() -> str:
    """How the run is called in the Prefect UI: "last again from refinement"."""
    parameters = runtime.flow_run.parameters
    return f"{str(parameters.get('parent'))[:40]} again from {parameters.get('stage', 'refinement')}"


def _made_before(store: Store, session_id: str) -> SessionData | None:
    """The fork, if this run is taken up again after it was made: its parent may be gone since, its output be there."""
    if runtime.flow_run.run_count < 2 and not has_worked(runtime.flow_run.id):
        return None
    known = store.database.get_session(session_id)
    return known if known and known.parent_session_id else None


# Its hooks know the session by the parameter `session_id`, or else the flow run's id, as those of `edit-image` do.
@flow(
    name="fork-session",
    flow_run_name=_run_name,
    persist_result=False,
    on_failure=[forgive_disk, show_end],
    on_crashed=[mark_crashed],
    on_cancellation=[mark_cancelled, show_end],
)
@in_plain_words
def fork_session(
    parent: Parent,
    stage: Stage = "refinement",
    attempt: Attempt = 1,
    prompt: Prompt = "",
    strength: Strength = _SAME,
    output: form.Output = "",
    overwrite: form.Overwrite = False,
    session_id: NewName = "",
) -> dict[str, Any]:
    """Go back to a stage of a session, and edit from there anew as a session of its own. The old one stays as it is."""
    wanted = Wanted(
        stage=f"attempt {attempt}: {stage}",
        session_id=session_id or str(runtime.flow_run.id),
        prompt=prompt.strip(),
        strength=None if strength in (_SAME, 0) else Wishes.checked(strength=strength).strength,
        output=str(Path(output).expanduser().absolute()) if output else "",
        overwrite=overwrite,
    )
    settings = load_settings()
    with open_store(settings) as store:
        fork = _made_before(store, wanted.session_id) or make_fork(store, planned(store, parent, wanted))
    log.info("Forked from %s at %s.", fork.parent_session_id, fork.forked_from_stage)
    # Its body, not a run of its own: so the stages stand in this run, and a person is asked by this run.
    result: dict[str, Any] = edit_image.fn(
        image_path=fork.image_path, prompt=fork.naive_prompt, session_id=fork.session_id
    )
    return result
