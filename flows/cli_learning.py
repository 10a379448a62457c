"""The commands `edi feedback`, `edi learn` with what belongs to it, and `edi export`. Imports are inside them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows import listing, terminal
from flows.terminal import JsonOption, handled

if TYPE_CHECKING:
    from edi_storage.learning.report import Report
    from edi_storage.learning_models import StoredProfile

learn_app = typer.Typer(
    invoke_without_command=True,
    epilog="Examples:  edi learn --report   |   edi learn --html learned.html   |   edi learn --explain last",
)

Format = Literal["jsonl", "parquet", "trl", "diffusion-dpo", "kto", "magicbrush"]


@handled
def feedback(
    session_id: terminal.SessionArgument,
    verdict: Annotated[Literal["accept", "reject", "partial"], typer.Argument(help="What you think of the result.")],
    rating: Annotated[int | None, typer.Option(min=1, max=5, help="1 (poor) to 5 (excellent).")] = None,
    comment: Annotated[str, typer.Option(help="In your own words.")] = "",
    reason: Annotated[
        list[str] | None,
        typer.Option(help="What was wrong: too strong, too weak, wrong region, edges, colour, artifact, tone."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what you think of an edit. Saying it again replaces what you said before."""
    from edi_storage.recovery import give_verdict

    with terminal.store() as store:
        found = terminal.find_session(store, session_id)
        waited = found.waiting_for == "review"
        saved = give_verdict(
            store, found.session_id, verdict, rating=rating, comment=comment, reasons=terminal.reasons(reason or [])
        )
    document = {"session_id": found.session_id, **saved.model_dump(mode="json")}
    more = f" Continue with: edi resume {found.session_id}" if waited else ""
    terminal.show(document, as_json, f"Thank you: session {found.session_id} is rated {verdict}.{more}")


@learn_app.callback()
@handled
def learn(
    context: typer.Context,
    report: Annotated[bool, typer.Option("--report", help="Tell all of it, not only what is new.")] = False,
    html: Annotated[str, typer.Option("--html", metavar="FILE", help="Write the report as one web page.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Let --html replace a file.")] = False,
    explain: Annotated[
        str, typer.Option("--explain", metavar="ID", help="Only say why this session got its preset.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Learn from new feedback: whether it helps, what changed and why, and what the next edit will do differently.

    Each verdict counts once, however often this runs. `edi serve` runs it every hour.
    """
    if context.invoked_subcommand is not None:
        return
    if explain:
        _explain(explain, as_json)
        return
    found = _learn()
    if html:
        _write_page(found, html, overwrite, as_json)
    elif as_json:
        terminal.print_json(found.model_dump(mode="json"))
    else:
        from flows.learned.terminal import show

        show(found, brief=not report)


def _learn() -> Report:
    from edi_storage.learning import learn as fold
    from edi_storage.learning.evidence import report_on
    from edi_storage.settings import load_settings
    from flows.learned.kinds import kinds

    with terminal.store() as store:
        learned = fold(store.database)
        return report_on(store.database, kinds(), learned, is_on=load_settings().learning == "on")


def _write_page(report: Report, html: str, overwrite: bool, as_json: bool) -> None:
    from flows.learned.page import page

    path = listing.write_html(html, page(report), overwrite)
    terminal.show({"html": str(path)}, as_json, str(path))


def _explain(name: str, as_json: bool) -> None:
    from edi_storage.learning.explanation import explain
    from flows.learned.explaining import show

    with terminal.store() as store:
        session = terminal.find_session(store, name)
        explained = explain(store.database, session.session_id)
    if as_json:
        attempts = [one.model_dump(mode="json") for one in explained]
        terminal.print_json({"session_id": session.session_id, "attempts": attempts})
    else:
        show(session.session_id, explained)


@learn_app.command(epilog="Example:  edi learn profiles --json")
@handled
def profiles(as_json: JsonOption = False) -> None:
    """List what was learned, version by version; the newest first."""
    with terminal.store() as store:
        found = store.database.profiles()
    if as_json:
        terminal.print_json([_plain(one) for one in found])
    elif not found:
        terminal.say("There is no profile yet: `edi learn` makes the first one of rated edits.")
    else:
        rows = [
            (
                str(one.version),
                one.status,
                f"{one.created_at:%Y-%m-%d %H:%M}",
                f"{one.parent or '-'}",
                str(one.seq_to),
                one.sha256[:12],
            )
            for one in found
        ]
        terminal.print_table(("profile", "status", "made (UTC)", "after", "events", "digest"), rows)


def _plain(profile: StoredProfile) -> dict[str, object]:
    return profile.model_dump(mode="json", exclude={"profile"})


@learn_app.command(epilog="Example:  edi learn activate 3")
@handled
def activate(
    version: Annotated[int, typer.Argument(min=1, metavar="V", help="A profile that `edi learn profiles` lists.")],
    as_json: JsonOption = False,
) -> None:
    """Use this profile from the next edit on. Newer ones are kept as candidates until you activate one of them."""
    with terminal.store() as store:
        used = store.database.activate_profile(version)
    terminal.show(_plain(used), as_json, f"Profile {used.version} is used from the next edit on.")


@learn_app.command(epilog="Example:  edi learn rollback")
@handled
def rollback(as_json: JsonOption = False) -> None:
    """Go back to the profile that the present one came after."""
    with terminal.store() as store:
        used = store.database.roll_back_profile()
    terminal.show(_plain(used), as_json, f"Back to profile {used.version}; it is used from the next edit on.")


@handled
def export(
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="A new folder, or an earlier export, which is replaced.")
    ],
    format_: Annotated[
        Format,
        typer.Option(
            "--format",
            help="jsonl, parquet: all that was judged. diffusion-dpo: pairs of pictures. magicbrush: accepted edits. "
            "trl, kto: refined prompts, in pairs or one by one.",
        ),
    ] = "jsonl",
    comments: Annotated[bool, typer.Option("--comments", help="Also your comments, word for word.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write what you liked and what not as a data set for training.

    Only of sessions made with EDI_CONSENT=export; without names, paths and camera data.
    """
    from edi_storage.exports import export as write
    from edi_storage.settings import load_settings
    from flows.export_pictures import CleanPictures

    settings = load_settings()
    with terminal.store() as store:
        done = write(store, settings.home, out, format_, CleanPictures(), comments=comments)
    rows = ", ".join(f"{count} in {split}" for split, count in sorted(done.rows.items())) or "none"
    text = f"{done.folder}\n{terminal.counted(sum(done.rows.values()), 'row')} ({rows}) of "
    text += terminal.counted(done.sessions, "session") + "."
    text += f" {done.skipped} left out: their pictures are lost." if done.skipped else ""
    if not done.sessions:
        text += " What may be shared is what is edited with EDI_CONSENT=export, and rated."
        if format_ in ("trl", "diffusion-dpo"):
            text += " A pair takes a session in which one result was accepted or chosen, and another was not."
    terminal.show(done.model_dump(mode="json"), as_json, text)


def register(app: typer.Typer) -> None:
    """Add the commands to `edi`."""
    app.command(epilog='Example:  edi feedback last reject --reason "too strong" --rating 2')(feedback)
    app.add_typer(learn_app, name="learn")
    app.command(epilog="Example:  edi export --format diffusion-dpo --out preferred")(export)
