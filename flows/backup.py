"""The flow `backup-database`: a verified copy of the database, while it is in use."""

from __future__ import annotations

from prefect import flow

from edi_storage.housekeeping import KEPT_BACKUPS, backup_folder, backup_with_generations
from edi_storage.settings import load_settings
from edi_storage.store import open_store
from flows import form
from flows.names import timed_name
from flows.plain import in_plain_words
from flows.session import log


def _run_name() -> str:
    return timed_name("backup")


@flow(name="backup-database", flow_run_name=_run_name, persist_result=False)
@in_plain_words
def backup_database(keep: form.Keep = KEPT_BACKUPS) -> str:
    """Copy the database into the folder `backups` beside it, while it is in use, and verify the copy."""
    with open_store(load_settings()) as store:
        made = backup_with_generations(store.database, backup_folder(store.database), keep)
    log.info("Backed up to %s.", made)
    return str(made)
