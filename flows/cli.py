"""The `edi` command. Imports are inside the commands: `edi --help` and the reading commands must answer at once."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from flows import cli_learning, cli_moving, listing, terminal, upkeep
from flows.terminal import JsonOption, SessionArgument, handled

if TYPE_CHECKING:
    from edi_storage.models import Artifact
    from edi_storage.store import Store

# click's class, which newer typers carry a copy of; only its children are public there.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


class _Commands(TyperGroup):
    """The commands; with --json, scripts are told of wrong usage in JSON too."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with _usage_errors_as_json():
            return super().make_context(*args, **kwargs)

    def invoke(self, *args: Any, **kwargs: Any) -> Any:
        with _usage_errors_as_json():
            return super().invoke(*args, **kwargs)


@contextmanager
def _usage_errors_as_json() -> Iterator[None]:
    try:
        yield
    except _UsageError as error:
        # The command line is not parsed, or there would be no error: so look for the option as it stands.
        if "--json" in sys.argv:
            terminal.show_usage_error(error)
        raise


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Edit photos from naive prompts. Every step is kept: an interrupted edit goes on where it stopped.",
    epilog='Start with:  edi edit photo.jpg "make the sky dramatic" --output dramatic.jpg',
)
cli_moving.register(app)

StrengthOption = Annotated[
    str, typer.Option(help="subtle, normal, strong, very strong, or a number up to 1. \\[default: as the prompt says]")
]
ProtectOption = Annotated[str, typer.Option(help="Things that must not change: 'the car, people'.")]
RegionOption = Annotated[
    str,
    typer.Option(
        metavar="X,Y,W,H",
        help="Change nothing outside of this, in percent of the picture: 0,0,100,40 is the upper two fifths.",
    ),
]
MaskOption = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        help="Change nothing where this picture is black; it has the photo's proportions, white where EDI may work.",
    ),
]
AttemptsOption = Annotated[
    int | None, typer.Option(min=1, max=3, help="Edits to try, at most. \\[default: EDI_MAX_ATTEMPTS, else 3]")
]
VariationsOption = Annotated[
    int,
    typer.Option(
        min=1,
        max=4,
        help="Make so many results, and choose one or blend regions of them; where nobody can be asked, the one that "
        "measures best is taken.",
    ),
]
LearningOption = Annotated[
    bool, typer.Option("--learning/--no-learning", help="Use what was learned from feedback, or do as without it.")
]
ConsentOption = Annotated[
    Literal["none", "local", "export"] | None,
    typer.Option(
        help="What your verdict on it may be used for: none (nothing), local (learning here), export (also what "
        "`edi export` writes). \\[default: EDI_CONSENT, else local]"
    ),
]
StripOption = Annotated[bool, typer.Option("--strip", help="Leave camera, time and copyright out of what is written.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        from flows import VERSION

        typer.echo(f"edi {VERSION}")
        raise typer.Exit


@app.callback()
def _before_each_command(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")] = False,
) -> None:
    # Photos are private: whatever EDI creates is for its owner only.
    os.umask(0o077)
    # A prompt may hold what the terminal cannot show; that is no reason to fail.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


# --- Editing -----------------------------------------------------------------------------------------


@app.command(epilog='Example:  edi edit photo.jpg "make the sky dramatic, keep the house" --output dramatic.jpg')
@handled
def edit(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="A PNG, JPEG or WebP photo. It is never changed.")],
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What to do with it, in your own words.")],
    session_id: Annotated[str, typer.Option(help="Your own name for the session; known ones are continued.")] = "",
    output: Annotated[str, typer.Option("--output", "-o", help="Also write the result to this file.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Let --output replace a file.")] = False,
    review: Annotated[
        Literal["auto", "unsure", "ask"] | None,
        typer.Option(
            help="auto: decide by the score. unsure: you judge what scores 0.6 to 0.8. ask: you judge each attempt. "
            "\\[default: EDI_REVIEW, else unsure at a terminal and auto in a script]"
        ),
    ] = None,
    strength: StrengthOption = "",
    protect: ProtectOption = "",
    region: RegionOption = "",
    mask: MaskOption = "",
    attempts: AttemptsOption = None,
    variations: VariationsOption = 1,
    strip: StripOption = False,
    learning: LearningOption = True,
    consent: ConsentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Edit a photo as the prompt says.

    IMAGE is a path, or the bare name of a photo in EDI_HOME/images.

    Exit codes: 0 done, 1 failed, 2 bad input, 3 waiting for you.
    """
    from flows import editing

    request = editing.Request.checked(
        image=image,
        prompt=prompt,
        session_id=session_id,
        output=output,
        overwrite=overwrite,
        review=review,
        somebody=terminal.somebody(as_json),
        strength=strength,
        protect=protect,
        region=region,
        mask=mask,
        max_attempts=attempts,
        strip=strip,
        variations=variations,
        learning=learning,
        consent=consent,
    )
    terminal.finish_edit(editing.edit(request, terminal.person(as_json)), as_json)


@app.command(
    epilog='Examples:  edi batch holiday/ --prompt "make the sky dramatic" --output-folder edited   |   '
    "edi batch wishes.csv"
)
@handled
def batch(
    photos: Annotated[
        list[str] | None,
        typer.Argument(metavar="FOLDER|FILES|LIST.csv...", help="\\[default: EDI_HOME/images]"),
    ] = None,
    prompt: Annotated[str, typer.Option(help="What to do with each of them that a list says nothing else of.")] = "",
    output_folder: Annotated[str, typer.Option(help="Also write each result there, under the photo's name.")] = "",
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, max=64, help="Photos edited side by side. \\[default: as many as processors and memory allow]"
        ),
    ] = None,
    batch_id: Annotated[str, typer.Option(help="Your own name for the batch; a new one does it all anew.")] = "",
    strength: StrengthOption = "",
    protect: ProtectOption = "",
    region: RegionOption = "",
    attempts: AttemptsOption = None,
    strip: StripOption = False,
    as_json: JsonOption = False,
) -> None:
    """Edit many photos, a session each. Started again, it does only what is left, and what failed.

    A list has a line for each photo, and a first line that names its columns: photo, and where wanted prompt, strength,
    protect and region. An empty cell is as the options here say.

    Exit codes: 0 done, 1 one or more failed, 2 bad input, 3 one or more wait for you.
    """
    from flows import editing

    request = {
        "prompt": prompt,
        "strength": strength,
        "protect": protect,
        "region": region,
        "max_attempts": attempts,
        "strip": strip,
        "output_folder": output_folder,
        "workers": workers or 0,
        "batch_id": batch_id,
    }
    terminal.show_lines(as_json, "edi.batch")
    terminal.finish_batch(editing.batch(photos or [], request), as_json)


@app.command(epilog="Examples:  edi resume --all   |   edi resume last --answer 2")
@handled
def resume(
    session_id: Annotated[str, typer.Argument(metavar="[ID]", help="A session id, the start of one, or 'last'.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Every interrupted session.")] = False,
    answer: Annotated[
        str,
        typer.Option(
            help="Your choice, when the session has asked a question: its number, or several: 1,2; of variations a "
            "blend such as '1, sky from 3'."
        ),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Continue an interrupted session, or all of them, from the last finished stage.

    A session that has failed is tried again when you name it.
    """
    from edi_storage.errors import InputError
    from flows import editing

    if bool(session_id) == everything:
        raise InputError("Name one session, or say --all: `edi sessions` lists them.")
    if everything and answer:
        raise InputError("--answer is for one session: name it instead of --all.")
    if everything:
        terminal.finish_resume_all(editing.resume_all(terminal.person(as_json)), as_json)
    else:
        terminal.finish_edit(editing.resume(session_id, answer, terminal.person(as_json)), as_json)


@app.command()
@handled
def review(as_json: JsonOption = False) -> None:
    """List what waits for you: questions to answer and results to judge."""
    with terminal.store() as store:
        listing.show_waiting(store, as_json)


@app.command(
    epilog="Examples:  edi fork last --from refinement --strength 0.9   |   edi fork ID --from intent --prompt warmer"
)
@handled
def fork(
    session_id: SessionArgument,
    stage: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="STAGE",
            help="The first stage to be done anew: analysis, intent, refinement, edit, validation, or as "
            "`edi history` calls it ('refine 2', 'attempt 2: edit').",
        ),
    ],
    prompt: Annotated[str, typer.Option(help="Another prompt; from intent or before.")] = "",
    strength: Annotated[
        str,
        typer.Option(
            help="Another one: subtle, normal, strong, very strong, or a number up to 1; from refinement or before."
        ),
    ] = "",
    new_id: Annotated[str, typer.Option("--session-id", metavar="NEW", help="Your own name for the new session.")] = "",
    output: Annotated[str, typer.Option("--output", "-o", help="Also write the result to this file.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Let --output replace a file.")] = False,
    run: Annotated[bool, typer.Option("--run/--no-run", help="Run it at once, or leave it for `edi resume`.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Go back to a stage of a session, and take another way from there as a new session.

    It shares everything before that stage; the old session stays as it is, and either can be deleted.
    """
    from flows import editing

    wanted = terminal.wanted_fork(stage, new_id, prompt, strength, output, overwrite)
    result = editing.fork(session_id, wanted, terminal.person(as_json), run=run)
    terminal.finish_fork(result, as_json, run)


cli_learning.register(app)


# --- Looking -----------------------------------------------------------------------------------------


@app.command(epilog="Example:  edi sessions --status in_progress --limit 5")
@handled
def sessions(
    status: Annotated[Literal["in_progress", "completed", "failed"] | None, typer.Option(help="Only these.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List sessions, newest first."""
    with terminal.store() as store:
        found = store.database.query_history(status=status, limit=limit)
    listing.show_sessions(found, as_json)


@app.command(epilog="Examples:  edi show last --open   |   edi show last --html session.html")
@handled
def show(
    session_id: SessionArgument,
    html: Annotated[
        str, typer.Option("--html", metavar="FILE", help="Write it as one web page with its pictures.")
    ] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Let --html replace a file.")] = False,
    in_browser: Annotated[bool, typer.Option("--open", help="Open that page in the browser.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show everything that is known of a session."""
    with terminal.store() as store:
        found = terminal.find_session(store, session_id)
        history = store.database.load_session(found.session_id)
        if html or in_browser:
            listing.write_page(store, history, html, overwrite, in_browser, as_json)
        else:
            listing.show_session(store, history, as_json)


@app.command(epilog="Example:  edi history last")
@handled
def history(session_id: SessionArgument, as_json: JsonOption = False) -> None:
    """Tell what was done in a session, when, by what and by whom; where it was interrupted, and what was forked."""
    with terminal.store() as store:
        found = terminal.find_session(store, session_id)
        listing.show_history(store, store.database.load_session(found.session_id), as_json)


@app.command()
@handled
def config(
    prefect_file: Annotated[
        bool, typer.Option("--prefect-file", help="Only say where the prefect.yaml for a work pool of your own is.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the settings, and where each comes from."""
    if prefect_file:
        import deployments

        path = str(Path(deployments.__path__[0]) / "prefect.yaml")
        terminal.show({"prefect_file": path}, as_json, path)
    else:
        listing.show_settings(as_json)


# --- Looking after -----------------------------------------------------------------------------------


@app.command(epilog="Example:  edi doctor --repair")
@handled
def doctor(
    repair: Annotated[
        bool, typer.Option("--repair", help="Put right what can be; damaged files are set aside, not deleted.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check database, checkpoints, pictures and engines. Exit code 0 when all is well (or has been repaired)."""
    from edi_storage.doctor import doctor as examine
    from edi_storage.settings import load_settings

    with upkeep.checking(as_json) as progress:
        findings = examine(load_settings(), repair=repair, remake=_remake, progress=progress)
    upkeep.show_findings(findings, upkeep.look_at_engines(), as_json)


def _remake(store: Store, session_id: str, artifact: Artifact) -> None:
    # Imported when a picture is lost, and only then: it takes the engines.
    from flows.remake import remake

    remake(store, session_id, artifact)


@app.command()
@handled
def delete(
    session_id: SessionArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete a session with its checkpoints and pictures. Your own photo and --output files stay."""
    from edi_storage.recovery import delete_session

    with terminal.store() as store:
        found = terminal.find_session(store, session_id)
        terminal.confirm(f"Delete session {found.session_id} ({found.naive_prompt!r})?", yes)
        delete_session(store, found.session_id)
    terminal.show({"deleted": found.session_id}, as_json, f"Deleted session {found.session_id}.")


@app.command(epilog="Example:  edi prune --older-than 30d --keep 100 --dry-run")
@handled
def prune(
    older_than: Annotated[str, typer.Option(help="Made longer ago than this: 12h, 30d, 8w.")] = "30d",
    keep: Annotated[int, typer.Option(min=0, help="The newest sessions stay, however old.")] = 100,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete old sessions that have ended, with their pictures."""
    upkeep.prune_sessions(older_than, keep, dry_run, yes, as_json)


# --- Serving -----------------------------------------------------------------------------------------


@app.command(epilog="Example:  edi serve --port 4300")
@handled
def serve(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the Prefect UI.")] = 4200,
    host: Annotated[
        str, typer.Option(help="Address to serve at. Any but this machine's own needs a password in EDI_AUTH_STRING.")
    ] = "127.0.0.1",
    workers: Annotated[int, typer.Option(min=1, max=64, help="Edits that run at the same time.")] = 2,
    open_ui: Annotated[
        bool | None,
        typer.Option(
            "--open/--no-open",
            help="Show the photos and edits in the browser. \\[default: when you sit at a terminal with a display]",
        ),
    ] = None,
) -> None:
    """Start the control room: Prefect's UI, automatic resume and scheduled learning. Ctrl-C ends it."""
    from deployments.serve import serve as run
    from deployments.welcome import somebody_is_there
    from edi_storage.settings import load_settings

    shown = somebody_is_there() if open_ui is None else open_ui
    run(load_settings(), port=port, host=host, workers=workers, open_ui=shown)


@app.command()
@handled
def status(as_json: JsonOption = False) -> None:
    """Show what runs, what waits for you, and what was interrupted. Exit code 1 when the server does not answer."""
    from flows import status as standing

    standing.show_status(as_json)


def as_script() -> Any:  # pragma: no cover - `python -m flows.cli`
    """Run the command line."""
    return app()


if __name__ == "__main__":
    as_script()
