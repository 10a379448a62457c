"""What the commands that look after a home print: doctor, the database, pruning."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edi_storage.settings import load_settings
from flows.terminal import DONE, FAILED, confirm, counted, print_json, show, store

if TYPE_CHECKING:
    from edi_storage.doctor import Finding
    from flows.engines.health import Health


@contextmanager
def checking(as_json: bool) -> Iterator[Callable[[str], object]]:
    """Shows which session is being checked, on a terminal."""
    if as_json or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True).status("Checking ...") as status:
        yield lambda session_id: status.update(f"Checking session {session_id} ...")


def look_at_engines() -> list[Health]:
    """Whether the configured engines could work now; nothing that is not configured is contacted."""
    from flows.engines.health import health
    from flows.session import backends_of, engine_names

    settings = load_settings()
    return health(engine_names(settings), backends_of(settings))


def show_findings(findings: Sequence[Finding], looks: Sequence[Health], as_json: bool) -> None:
    """What doctor found; exit code 1 when something is left to do, or an engine could not work."""
    healthy = all(look.ok for look in looks)
    ok = healthy and all(finding.repaired for finding in findings)
    if as_json:
        print_json(
            {
                "ok": ok,
                "findings": [finding.model_dump() for finding in findings],
                "engines": [asdict(look) for look in looks],
            }
        )
    else:
        for look in looks:
            mark = "ok" if look.ok else "not well"
            typer.secho(f"{look.setting} {look.engine}: {mark}. {look.message}", bold=not look.ok)
        if ok and not findings:
            typer.echo("All is well.")
    for finding in [] if as_json else findings:
        typer.secho(f"{'repaired' if finding.repaired else 'found'}: {finding.message}", bold=not finding.repaired)
        typer.echo(f"  {'done' if finding.repaired else '--repair would'}: {finding.fix}")
    raise typer.Exit(DONE if ok else FAILED)


def show_upgrade(as_json: bool) -> None:
    """Upgrade the database, and say what that meant."""
    from edi_storage.connection import make_engine
    from edi_storage.migrations import upgrade

    engine = make_engine(load_settings().database_url)
    try:
        report = upgrade(engine)
    finally:
        engine.dispose()
    document = {
        "from_revision": report.from_revision,
        "to_revision": report.to_revision,
        "backup": str(report.backup_path) if report.backup_path else None,
        "quarantined": report.quarantined,
    }
    if report.from_revision == report.to_revision:
        text = f"The database is at revision {report.to_revision} already: nothing to do."
    else:
        text = f"Upgraded from revision {report.from_revision or 'none'} to {report.to_revision}."
    if report.backup_path:
        text += f"\nThe database as it was: {report.backup_path}"
    for table, count in report.quarantined.items():
        text += f"\nOf {table}, {counted(count, 'row')} did not fit: kept in the table quarantine."
    show(document, as_json, text)


def show_current(as_json: bool) -> None:
    """Which revision the database has, and which this version wants."""
    from edi_storage.connection import make_engine
    from edi_storage.migrations import current, head

    engine = make_engine(load_settings().database_url)
    try:
        revision = current(engine)
    finally:
        engine.dispose()
    newest = head()
    text = f"Revision {revision or 'none'}; this version of EDI uses {newest}."
    show({"revision": revision, "head": newest}, as_json, text)


def make_backup(folder: Path | None, keep: int, as_json: bool) -> None:
    """A verified copy of the database."""
    from edi_storage.housekeeping import backup_folder, backup_with_generations

    with store() as opened:
        made = backup_with_generations(opened.database, folder or backup_folder(opened.database), keep)
    show({"backup": str(made)}, as_json, f"Backed up to {made}")


def restore_backup(source: Path, yes: bool, as_json: bool) -> None:
    """Put a backup in the place of the database."""
    from edi_storage.housekeeping import restore

    confirm(f"Put {source} in the place of the database? The present one is set aside.", yes)
    aside = restore(load_settings().database_url, source)
    text = f"Restored from {source}."
    if aside:
        text += f"\nThe database as it was: {aside}"
    text += "\n`edi doctor --repair` brings forward what the checkpoints know beyond it."
    show({"restored": str(source), "set_aside": str(aside) if aside else None}, as_json, text)


def prune_sessions(older_than: str, keep: int, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Delete old sessions that have ended."""
    from edi_storage.housekeeping import period, prunable, prune
    from edi_storage.record import now_utc

    before = now_utc() - period(older_than)
    with store() as opened:
        found = list(prunable(opened.database, before=before, keep=keep))
        if not dry_run and found:
            confirm(f"Delete {counted(len(found), 'session')} with their pictures?", yes)
        done = [session for session in found if dry_run or prune(opened, session)]
    names = [session.session_id for session in done]
    verb = "Would delete" if dry_run else "Deleted"
    lines = [f"  {session.session_id}  {session.created_at:%Y-%m-%d}  {session.naive_prompt[:60]}" for session in done]
    show(
        {"dry_run": dry_run, "sessions": names},
        as_json,
        "\n".join([f"{verb} {counted(len(names), 'session')}.", *lines]),
    )
