"""The flow `backup-database`: a verified copy of the database, while it is in use."""

from __future__ import annotations

from prefect import flow

from edi_storage.housekeeping import KEPT_BACKUPS, backup_folder, backup_with_generations
from edi_storage.settings import load_settings
from edi_storage.store import open_store
from flows.session import log


@flow(name="backup-database", persist_result=False)
def backup_database(keep: int = KEPT_BACKUPS) -> str:
    """Copy the database into the folder `backups` beside it. keep: how many dated copies stay there."""
    with open_store(load_settings()) as store:
        made = backup_with_generations(store.database, backup_folder(store.database), keep)
    log.info("Backed up to %s.", made)
    return str(made)
