"""What `edi sessions`, `show`, `history`, `review` and `config` print."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edi_storage.errors import InputError
from edi_storage.settings import Settings, load_settings
from flows.terminal import print_json, print_table, result_text, say, show, temporary, waits_for

if TYPE_CHECKING:
    from edi_storage.models import SessionData, SessionHistory
    from edi_storage.store import Store
    from flows.editing import Result


def show_sessions(found: Sequence[SessionData], as_json: bool) -> None:
    """The list of sessions."""
    if as_json:
        print_json([session.model_dump(mode="json") for session in found])
        return
    from flows import words

    if not found:
        typer.echo('No sessions. Make one with: edi edit photo.jpg "make the sky dramatic"')
        return
    rows = [
        (
            session.session_id,
            f"{session.created_at.astimezone():%Y-%m-%d %H:%M}",
            words.standing(session),
            "" if session.final_alignment_score is None else f"{session.final_alignment_score:.2f}",
            Path(session.image_path).name,
            session.naive_prompt[:60],
        )
        for session in found
    ]
    print_table(("session", "created", "status", "score", "photo", "prompt"), rows)


def show_waiting(opened: Store, as_json: bool) -> None:
    """What waits for a person, and how to answer."""
    from flows.output import outcome

    waiting = [outcome(opened, session.session_id) for session in opened.database.waiting_sessions()]
    if as_json:
        print_json({"waiting": waiting})
    elif not waiting:
        typer.echo("Nothing waits for you.")
    else:
        typer.echo("\n\n".join(f"{_headline(result)}\n{result_text(result)}" for result in waiting))


def _headline(result: Result) -> str:
    return typer.style(f"{result['prompt']} - {Path(result['image_path']).name}", bold=True)


def show_session(opened: Store, history: SessionHistory, as_json: bool) -> None:
    """Everything of one session."""
    from flows import words
    from flows.output import history_document, outcome

    document = history_document(opened, history)
    if as_json:
        print_json(document)
        return
    session = history.session
    typer.secho(f"{session.naive_prompt}", bold=True)
    lines = [
        f"session   {session.session_id} ({words.standing(session)}{_why(session)})",
        f"photo     {session.image_path}",
        *(
            [f"parent    {session.parent_session_id}, forked at {session.forked_from_stage}"]
            if session.parent_session_id
            else []
        ),
        f"result    {(document['state'] or {}).get('edited_image_path') or 'none yet'}",
    ]
    typer.echo("\n".join(lines))
    typer.echo("\n".join(_understood(history)))
    if history.entities:
        typer.echo()
        found = [
            (e.entity_id, f"{e.confidence:.2f}", f"{e.area_percent or 0:.0f} %", e.color_hex or "")
            for e in history.entities
        ]
        print_table(("entity", "confidence", "area", "colour"), found)
    if history.commits:
        from flows.history import event_lines, tell

        typer.echo()
        typer.echo("\n".join(event_lines(tell(opened, history)["events"], _width(), session.parent_session_id)))
    # The lines above tell of verdicts too; a session that was kept through the library has none.
    for said in history.feedback if not history.commits else []:
        parts = [said.feedback_type, said.rating and f"{said.rating}/5", ", ".join(said.reasons), said.comments]
        typer.echo(f"\nfeedback  {said.feedback_key}: {'; '.join(part for part in parts if part)}")
    if waits_for(session):
        typer.echo(f"\n{result_text(outcome(opened, session.session_id))}")


def show_history(opened: Store, history: SessionHistory, as_json: bool) -> None:
    """The past of one session."""
    from flows.history import as_text, tell

    story = tell(opened, history)
    show(story, as_json, "" if as_json else as_text(story, _width()))


def _width() -> int:
    """Columns to fill; not on a terminal, what belongs together stays on one line, for grep."""
    return shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else 1000


def write_page(
    opened: Store, history: SessionHistory, html: str, overwrite: bool, in_browser: bool, as_json: bool
) -> None:
    """A session as one web page, whole or not at all; in a temporary file where none is named."""
    from flows.pages.session import page

    html = html or str(temporary(f"{history.session.session_id}.html"))
    path = write_html(html, page(opened, history), overwrite)
    if in_browser:
        _open_in_browser(path)
    show({"session_id": history.session.session_id, "html": str(path)}, as_json, str(path))


def write_html(html: str, text: str, overwrite: bool) -> Path:
    """Write a page to the file that a person named, whole or not at all; returns its full path. Raises InputError."""
    from edi_storage.disk import LocalFolder

    path = Path(html).expanduser().absolute()
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"{html} cannot be written: name a file in a folder that exists.")
    if path.exists() and not overwrite:
        raise InputError(f"{html} exists already: name another file, or add --overwrite.")
    LocalFolder(str(path.parent)).write(path.name, text.encode())
    return path


def _open_in_browser(path: Path) -> None:
    import webbrowser

    if not webbrowser.open(path.as_uri()):
        say("No browser was found here: open this file in one.")


def _understood(history: SessionHistory) -> list[str]:
    """What the prompt was taken to mean, how it was put to the editor, and what came of each attempt."""
    from flows import words

    lines = [f"intent    {words.understood(history.intent, history.entities)}"] if history.intent else []
    if history.prompts:
        lines.append(f"prompt    {history.prompts[-1].positive_prompt}")
    lines += words.listed_variations(history) if not waits_for(history.session) else []
    lines += [
        f"attempt {scored.attempt_number} scored {scored.alignment_score:.2f}: {scored.preserved_count} preserved, "
        f"{scored.modified_count} changed as asked, {scored.unintended_count} by accident"
        for scored in history.validations
    ]
    return lines


def _why(session: SessionData) -> str:
    parts = [session.failure_reason, session.decision and session.decision.replace("_", " ")]
    return "".join(f": {part}" for part in parts if part)


def show_settings(as_json: bool) -> None:
    """The settings with their source, and without passwords."""
    from edi_storage.connection import without_password

    settings = load_settings()
    rows = []
    for name, field in Settings.model_fields.items():
        variable = f"EDI_{name.upper()}"
        source = "environment" if os.environ.get(variable) else "default"
        value = getattr(settings, name)
        value = ",".join(value) if isinstance(value, tuple) else without_password("" if value is None else str(value))
        rows.append((variable, value, source, field.description or ""))
    if as_json:
        print_json({name: {"value": value, "source": source} for name, value, source, _ in rows})
    else:
        for name, value, source, what in rows:
            typer.secho(f"{name}={value}", bold=source != "default", nl=False)
            typer.echo(f"  ({source})\n    {what}")
