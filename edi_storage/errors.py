"""Every error the library raises on purpose. The docstring of a class is its default message."""

from __future__ import annotations


class EdiError(Exception):
    """EDI could not finish what was asked."""

    #: What the `edi` command exits with: 1 failed, 2 bad input or usage, 3 waiting for a person.
    exit_code = 1

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or type(self).__doc__)


class InputError(EdiError):
    """What was given cannot be used."""

    exit_code = 2


class NotFoundError(InputError):
    """There is no such session."""


class LeaseHeldError(EdiError):
    """Somebody else is working on this session."""


class LeaseLostError(EdiError):
    """Another process took this session over; this one stopped and changed nothing more."""


class SessionGoneError(EdiError):
    """This session was deleted while it was being worked on."""


class StaleBoundaryError(EdiError):
    """This stage was committed out of turn: the session has moved on."""


class SessionFailedError(EdiError):
    """This session cannot be finished: trying again would end in the same way."""

    def __init__(self, cause: EdiError, session_id: str) -> None:
        super().__init__(str(cause))
        self.exit_code = cause.exit_code
        self.session_id = session_id


class AlreadyFailedError(InputError):
    """This session has failed: `edi resume` tries again."""


class UnsupportedEditError(EdiError):
    """No configured engine can do this edit."""


class EngineError(EdiError):
    """An engine failed in a way that may pass; the stage is tried again."""


class StorageFullError(EdiError):
    """The disk is full: nothing was lost, free some room and run `edi resume --all`."""


class DatabaseError(EdiError):
    """The database could not be used."""


class DatabaseDamagedError(DatabaseError):
    """The database is damaged: run `edi doctor --repair` to set it aside and rebuild it from the checkpoints."""


class DatabaseTooNewError(DatabaseError):
    """The database was written by a newer version of EDI: upgrade EDI, the file was not touched."""


class DatabaseTooOldError(DatabaseError):
    """The database has an older schema: run `edi db upgrade`."""


class DatabaseBusyError(DatabaseError):
    """Another process has kept the database locked for too long: try again when it is done."""


class CheckpointError(EdiError):
    """A checkpoint could not be used."""


class CheckpointDamagedError(CheckpointError):
    """A checkpoint is damaged."""


class CheckpointTooNewError(CheckpointError):
    """A checkpoint was written by a newer version of EDI: upgrade EDI, the file was not touched."""


class ConnectionLostError(DatabaseError):
    """The connection to the database server was lost; what was being written may be there or not."""


class TransactionUndoneError(ConnectionLostError):
    """The database server has undone what was being read or written: nothing of it is there."""
