"""The past of a session as a story: `edi history ID`, and the stages that `edi show ID` lists.

`tell` gives it as plain JSON, `as_text` as lines for a terminal. Whoever works on a session holds its fence: a stage
with another fence than the one before was done by somebody who took the session over, and the state says why.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

from edi_storage.models import SessionData, SessionHistory, StageCommit
from edi_storage.state import Json, merge_patch
from edi_storage.steps import Step, next_step, step_of
from edi_storage.store import Store
from flows.words import variations

#: Boundaries that say something of the session between its stages.
_SAID: Final = ("feedback", "failed", "reopened")

#: Who did a stage: a run of this session; the parent of this fork; nobody knows, it came back from a checkpoint.
Origin = Literal["run", "shared", "checkpoint"]


# --- As a document -----------------------------------------------------------------------------------


def tell(store: Store, history: SessionHistory) -> Json:
    """The story as plain JSON; times are ISO 8601 in UTC, durations seconds."""
    session, database = history.session, store.database
    lease = database.lease_of(session.session_id)
    following = next_step(_state(history))
    more = isinstance(following, Step) and session.status == "in_progress"
    return {
        **_standing(session),
        "image_path": session.image_path,
        "waiting_for": session.waiting_for,
        "failure_reason": session.failure_reason,
        "parent": _parent(store, session),
        "events": list(_events(history)),
        "next": following.label if more and isinstance(following, Step) else None,
        "worked_on_by": lease[0] if lease else None,
        "forks": [
            {**_standing(fork), "from": fork.forked_from_stage} for fork in database.forks_of(session.session_id)
        ],
    }


def _standing(session: SessionData) -> Json:
    return {
        "session_id": session.session_id,
        "prompt": session.naive_prompt,
        "strength": session.options.get("strength"),
        "status": session.status,
        "decision": session.decision,
        "alignment_score": session.final_alignment_score,
        "created_at": session.created_at.isoformat(),
    }


def _state(history: SessionHistory) -> Json:
    return history.state.model_dump(mode="json") if history.state else {}


def _parent(store: Store, session: SessionData) -> Json | None:
    if session.parent_session_id is None:
        return None
    there = store.database.get_session(session.parent_session_id) is not None
    return {"session_id": session.parent_session_id, "from": session.forked_from_stage, "exists": there}


def _events(history: SessionHistory) -> Iterator[Json]:
    """One event for each boundary, in order; `after` is what lay before it when somebody else did the stage before."""
    state: Json = {}
    before: StageCommit | None = None
    came = ""
    for commit in history.commits:
        state = merge_patch(state, commit.state_delta)
        changed = before is not None and _origin(history, commit) == "run" and before.fence not in (0, commit.fence)
        is_stage = commit.stage not in _SAID
        yield {
            "seq": commit.seq,
            "stage": commit.stage,
            "label": _label(commit),
            "attempt": commit.attempt,
            "iteration": commit.iteration,
            "started_at": commit.started_at.isoformat(),
            "finished_at": commit.finished_at.isoformat(),
            "seconds": round((commit.finished_at - commit.started_at).total_seconds(), 3),
            "engine": commit.engine,
            "engine_version": commit.engine_version,
            "flow_run_id": commit.flow_run_id,
            "fence": commit.fence,
            "origin": _origin(history, commit),
            "after": came or "interruption" if is_stage and changed else None,
            "pause": _pause(before, commit) if is_stage and changed else None,
            "said": _one_line(_said(commit, state)),
        }
        if is_stage:
            before, following = commit, next_step(state)
            came = following if isinstance(following, str) else ""
        elif commit.stage == "failed":
            came = "failure"


def was_interrupted(history: SessionHistory) -> bool:
    """Whether the session went on after a process that worked on it was killed."""
    return any(event["after"] == "interruption" for event in _events(history))


def _pause(before: StageCommit | None, commit: StageCommit) -> float | None:
    return round((commit.started_at - before.finished_at).total_seconds(), 3) if before else None


def _origin(history: SessionHistory, commit: StageCommit) -> Origin:
    if commit.engine == "checkpoint":
        return "checkpoint"
    # A verdict has the fence of the stage it was given after, so its time has to tell.
    said_here = commit.stage in _SAID and commit.finished_at >= history.session.created_at
    return "shared" if commit.fence == 0 and not said_here else "run"


def _label(commit: StageCommit) -> str:
    step = step_of(commit)
    return step.label if step else {"feedback": "verdict", "reopened": "tried again"}.get(commit.stage, commit.stage)


def _said(commit: StageCommit, state: Json) -> str:
    """What came of a boundary, in a few words; `state` is the state after it."""
    attempt = state.get("validation", {}).get("attempts", {}).get(str(commit.attempt), {})
    match commit.stage:
        case "upload":
            image = state["scene_analysis"]["image"]
            return f"{Path(state['image_path']).name}, {image.get('width')} x {image.get('height')}"
        case "analysis":
            entities = state["scene_analysis"].get("entities", [])
            return ", ".join(f"{entity['label']} ({entity.get('area_percent') or 0:.0f} %)" for entity in entities)
        case "intent":
            return _understood(state["intent"])
        case "refinement":
            return _refined(commit, state)
        case "edit":
            return _edited(commit, attempt)
        case "validation":
            return _measured(attempt)
        case "completed":
            validation = state["validation"]
            return f"kept attempt {validation['kept_attempt']}: {validation['decision'].replace('_', ' ')}"
        case "feedback":
            return _verdicts(commit.state_delta)
        case "failed":
            return str(commit.state_delta.get("validation", {}).get("failure") or "")
        case "reopened":
            return "somebody asked for it"


def _edited(commit: StageCommit, attempt: Json) -> str:
    if commit.iteration:
        chosen = attempt["chosen"]
        told = "chosen by a person" if chosen["by"] == "person" else "measured best"
        return f"{told}: {chosen['number']}, {chosen['words']}"
    if "variations" in attempt:
        return variations(attempt["variations"])
    return ", ".join(operation["name"].replace("_", " ") for operation in attempt.get("operations", []))


def _understood(intent: Json) -> str:
    question, answer = intent.get("question"), intent.get("answer")
    if question and answer:
        return f"{answer}. {question['choices'][answer - 1]}"
    if question:
        return f"asked: {question['text']}"
    look = (intent.get("action") or intent["edit_type"]).replace("_", " ")
    where = ", ".join(intent.get("target_entities", [])) if intent.get("preserve_entities") else "the whole picture"
    return f"{look} on {where}, strength {intent.get('strength', 0):.0%}, confidence {intent['confidence']:.2f}"


def _refined(commit: StageCommit, state: Json) -> str:
    pairs = [pair for key, pair in state.get("prompts", {}).items() if key != "final"]
    mine = (commit.attempt, commit.iteration)
    scores = [p.get("quality_score") for p in pairs if (p["attempt_number"], p["iteration"]) == mine]
    return f"quality {scores[0]:.2f}" if scores and scores[0] is not None else ""


def _measured(attempt: Json) -> str:
    if "alignment_score" not in attempt:
        return ""
    counts = f"{attempt['modified_count']} as asked, {attempt['preserved_count']} kept, "
    decision = attempt.get("decision", "").replace("_", " ")
    return f"alignment {attempt['alignment_score']:.2f}, {decision}: {counts}{attempt['unintended_count']} by accident"


def _verdicts(delta: Json) -> str:
    said = delta.get("validation", {}).get("feedback", {}).values()
    return "; ".join(
        ", ".join(
            part
            for part in (
                verdict["feedback_type"],
                f"{verdict['rating']}/5" if verdict.get("rating") else "",
                *verdict.get("reasons", []),
                f'"{verdict["comments"]}"' if verdict.get("comments") else "",
            )
            if part
        )
        for verdict in said
        if verdict
    )


def _one_line(text: str) -> str:
    """What a person wrote may hold lines, and what a terminal would obey."""
    return "".join(char if char.isprintable() else " " for char in text)


# --- As text -----------------------------------------------------------------------------------------


def as_text(story: Json, width: int) -> str:
    """The story for a terminal of so many columns."""
    lines = [_one_line(story["prompt"]), *_head(story), ""]
    lines += event_lines(story["events"], width, (story["parent"] or {}).get("session_id"))
    lines += ["", *_ending(story)]
    if story["forks"]:
        lines += ["", "Forks", *_forks(story)]
    return "\n".join(lines)


def _head(story: Json) -> Iterator[str]:
    yield f"{Path(_one_line(story['image_path'])).name}, session {story['session_id']}: {_fate(story)}"
    if parent := story["parent"]:
        gone = "" if parent["exists"] else " (deleted since)"
        yield f"forked from {parent['session_id']}{gone} at {parent['from']}"


def _fate(standing: Json) -> str:
    parts = [standing["status"].replace("_", " "), (standing["decision"] or "").replace("_", " ")]
    if standing["alignment_score"] is not None:
        parts.append(f"alignment {standing['alignment_score']:.2f}")
    return ", ".join(part for part in parts if part)


def event_lines(events: Sequence[Json], width: int, parent: str | None = None) -> list[str]:
    """A line for each boundary under one that says who did them; long ones go on under their own beginning."""
    labels = max((len(event["label"]) for event in events), default=0)
    engines = max((len(_engine(event)) for event in events), default=0)
    lines: list[str] = []
    group: tuple[Any, ...] = ()
    for event in events:
        who = (event["origin"], event["flow_run_id"], event["fence"])
        if event["stage"] not in _SAID and who != group:
            lines += textwrap.wrap(_heading(event, group, parent), width, subsequent_indent=" " * 12)
            group = who
        took = f"{_took(event):>7}  {_engine(event):{engines}}"
        start = f"  {_clock(event['finished_at'])}  {event['label']:{labels}}  {took}  "
        lines += textwrap.wrap(start + event["said"], width, subsequent_indent=" " * len(start)) or [start.rstrip()]
    return lines


def _heading(event: Json, before: tuple[Any, ...], parent: str | None) -> str:
    day = f"{_local(event['started_at']):%Y-%m-%d}"
    if event["origin"] == "shared":
        return f"{day}  shared with {parent}, not run again"
    if event["origin"] == "checkpoint":
        return f"{day}  brought back from checkpoints: who ran it, and how long, is lost"
    again = before[1:2] == (event["flow_run_id"],)
    run = f"run {event['flow_run_id'][:8]}" if event["flow_run_id"] else "no flow run"
    who = f"{'the same ' if again else ''}{run}, fence {event['fence']}"
    pause = _span(event["pause"] or 0)
    match event["after"]:
        case "interruption":
            return f"{day}  interrupted; restored and continued {pause} later by {who}"
        case "question":
            return f"{day}  asked a question; answered and continued {pause} later by {who}"
        case "review":
            return f"{day}  waited for a verdict; continued {pause} later by {who}"
        case "failure":
            return f"{day}  failed; tried again {pause} later by {who}"
    return f"{day}  {who}"


def _took(event: Json) -> str:
    return f"{event['seconds']:.1f} s" if event["stage"] not in _SAID and event["origin"] != "checkpoint" else ""


def _engine(event: Json) -> str:
    return (
        ""
        if event["stage"] in _SAID or event["origin"] == "checkpoint"
        else f"{event['engine']} {event['engine_version']}"
    )


def _ending(story: Json) -> Iterator[str]:
    session_id, events = story["session_id"], story["events"]
    if story["status"] == "completed":
        work = sum(event["seconds"] for event in events if event["origin"] == "run")
        yield f"Done with {_span(work)} of work."
    elif story["status"] == "failed":
        yield f"Failed: {_one_line(story['failure_reason'] or 'for no known reason')}"
        yield f"Try again: edi resume {session_id}; or go another way: edi fork {session_id} --from STAGE"
    elif story["worked_on_by"]:
        yield f"At work: {story['worked_on_by']}{', at ' + story['next'] if story['next'] else ''}."
    elif story["waiting_for"] == "question":
        yield f"Waits for your answer: edi resume {session_id} --answer NUMBER"
    elif story["waiting_for"] == "review":
        yield f"Waits for your verdict: edi feedback {session_id} accept|reject|partial"
    else:
        yield f"Stopped before {story['next'] or 'its first stage'}; edi resume {session_id} goes on."


def _forks(story: Json) -> Iterator[str]:
    longest = max(len(fork["session_id"]) for fork in story["forks"])
    for fork in story["forks"]:
        changes = [f'"{_one_line(fork["prompt"])}"'] if fork["prompt"] != story["prompt"] else []
        changes += [f"strength {fork['strength']:g}"] if fork["strength"] not in (None, story["strength"]) else []
        how = f"from {fork['from']}" + "".join(f", {change}" for change in changes)
        yield f"  {fork['session_id']:{longest}}  {how}: {_fate(fork)}"


def _local(moment: str) -> datetime:
    return datetime.fromisoformat(moment).astimezone()


def _clock(moment: str) -> str:
    return f"{_local(moment):%H:%M:%S}"


def _span(seconds: float) -> str:
    """A length of time as people say it: "4.2 s", "3 min", "2 h 5 min", "3 days"."""
    if seconds < 100:
        return f"{max(seconds, 0):.1f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if hours < 48 else f"{round(hours / 24)} days"
