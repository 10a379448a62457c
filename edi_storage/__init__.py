"""EDI's storage layer: sessions in a database, their state in checkpoints.

The door of the package. Names are imported when they are first used, so that importing one costs only that one.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edi_storage.autosave import Autosaver
    from edi_storage.checkpoints import SessionStateManager
    from edi_storage.database import EDIDatabase
    from edi_storage.errors import EdiError
    from edi_storage.files import FileStore
    from edi_storage.models import (
        BoundingBox,
        EntityData,
        Intent,
        PromptRecord,
        SessionData,
        SessionState,
        StageCommit,
        UserFeedback,
        ValidationData,
    )
    from edi_storage.settings import Settings, load_settings
    from edi_storage.store import Store, open_store

_HOME = {
    "Autosaver": "autosave",
    "SessionStateManager": "checkpoints",
    "EDIDatabase": "database",
    "EdiError": "errors",
    "FileStore": "files",
    **dict.fromkeys(
        (
            "BoundingBox",
            "EntityData",
            "Intent",
            "PromptRecord",
            "SessionData",
            "SessionState",
            "StageCommit",
            "UserFeedback",
            "ValidationData",
        ),
        "models",
    ),
    "Settings": "settings",
    "load_settings": "settings",
    "Store": "store",
    "open_store": "store",
}

__all__ = [
    "Autosaver",
    "BoundingBox",
    "EDIDatabase",
    "EdiError",
    "EntityData",
    "FileStore",
    "Intent",
    "PromptRecord",
    "SessionData",
    "SessionState",
    "SessionStateManager",
    "Settings",
    "StageCommit",
    "Store",
    "UserFeedback",
    "ValidationData",
    "load_settings",
    "open_store",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"edi_storage.{_HOME[name]}"), name)
