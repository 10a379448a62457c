"""The commands `edi db` and `edi storage`. Imports are inside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows import upkeep
from flows.terminal import JsonOption, handled

db_app = typer.Typer(no_args_is_help=True, help="Look after the database: upgrade, current, backup, restore, copy-to.")
storage_app = typer.Typer(no_args_is_help=True, help="Look after the files: copy-to.")


def register(app: typer.Typer) -> None:
    """Add the commands to those of `edi`."""
    app.add_typer(db_app, name="db")
    app.add_typer(storage_app, name="storage")


@db_app.command()
@handled
def upgrade(as_json: JsonOption = False) -> None:
    """Bring the database to this version's schema, after a verified backup."""
    upkeep.show_upgrade(as_json)


@db_app.command()
@handled
def current(as_json: JsonOption = False) -> None:
    """Show which schema revision the database has."""
    upkeep.show_current(as_json)


@db_app.command()
@handled
def backup(
    keep: Annotated[int, typer.Option(min=1, help="How many dated backups stay in the folder.")] = 8,
    to: Annotated[
        Path | None, typer.Option(help="Folder for the copy. \\[default: backups/ beside the database]")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the database while it is in use, and verify the copy."""
    upkeep.make_backup(to, keep, as_json)


@db_app.command()
@handled
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A backup that `edi db backup` or an upgrade made.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Put a backup in the place of the database, which is set aside."""
    upkeep.restore_backup(file, yes, as_json)


@db_app.command(epilog="Example:  edi db copy-to postgresql+psycopg://edi:secret@db.example/edi")
@handled
def copy_to(
    url: Annotated[str, typer.Argument(metavar="URL", help="A new, empty database, as EDI_DATABASE_URL names it.")],
    as_json: JsonOption = False,
) -> None:
    """Copy the whole database to another place, and read it back. Killed half-way, run it again."""
    from flows.moving import copy_database

    copy_database(url, as_json)


@storage_app.command("copy-to", epilog="Example:  EDI_ALLOWED_SCHEMES=s3 edi storage copy-to s3://bucket/edi")
@handled
def copy_files_to(
    url: Annotated[str, typer.Argument(metavar="URL", help="A folder or bucket, as EDI_STORAGE_URL names it.")],
    as_json: JsonOption = False,
) -> None:
    """Copy all pictures and checkpoints to another place, and read them back. Killed half-way, run it again."""
    from flows.moving import copy_files

    copy_files(url, as_json)
