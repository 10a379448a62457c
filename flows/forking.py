"""What a person asks for when they go back in a session: the fork, planned and checked before anything is written."""

from __future__ import annotations

from edi_storage.database import EDIDatabase
from edi_storage.forking import Fork, Wanted, plan_fork
from edi_storage.models import SessionData
from edi_storage.store import Store
from flows.output import check_output
from flows.sessions import find_session


def planned(store: Store, name: str, wanted: Wanted) -> Fork:
    """The fork of the session that `name` means. Raises NotFoundError, and InputError for what cannot be."""
    fork = plan_fork(store, _parent(store.database, name, wanted), wanted)
    check_output(fork.session)
    return fork


def _parent(database: EDIDatabase, name: str, wanted: Wanted) -> SessionData:
    # Asked for the second time, the newest session may be the fork itself.
    known = database.get_session(wanted.session_id) if name == "last" else None
    return find_session(database, (known.parent_session_id if known else None) or name)
