"""Between tables and models: which columns a model fills, and the one upsert."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, TypeVar

from sqlalchemy import Connection, Dialect, Select, bindparam, select
from sqlalchemy.dialects import postgresql, sqlite

from edi_storage.learning_models import LoggedDecision
from edi_storage.learning_tables import DecisionRow
from edi_storage.models import (
    Artifact,
    EntityData,
    Intent,
    PromptRecord,
    SessionData,
    StageCommit,
    UserFeedback,
    ValidationData,
)
from edi_storage.record import Record
from edi_storage.state import Rows, masks_of
from edi_storage.statements import Prepared, Write, lasting, prepared
from edi_storage.tables import (
    ArtifactRow,
    Base,
    EntityRow,
    FeedbackRow,
    IntentRow,
    PromptRow,
    ValidationRow,
)

ModelT = TypeVar("ModelT", bound=Record)

#: Which table keeps a model, and the columns that make two records the same one.
TABLES: dict[type[Record], tuple[type[Base], tuple[str, ...]]] = {
    PromptRecord: (PromptRow, ("session_id", "attempt_number", "iteration")),
    EntityData: (EntityRow, ("session_id", "entity_id")),
    ValidationData: (ValidationRow, ("session_id", "attempt_number")),
    UserFeedback: (FeedbackRow, ("session_id", "feedback_key")),
    Intent: (IntentRow, ("session_id",)),
    Artifact: (ArtifactRow, ("session_id", "kind", "name")),
    LoggedDecision: (DecisionRow, ("session_id", "attempt")),
}

#: A seed database has NULL where the models have a value; it reads as nothing or 0.
_NULL_READS_AS: dict[str, Any] = {
    "positive_prompt": "",
    "negative_prompt": "",
    "label": "",
    "confidence": 0.0,
    "alignment_score": 0.0,
    "preserved_count": 0,
    "modified_count": 0,
    "unintended_count": 0,
}


def values_of(session_id: str, record: Record) -> dict[str, Any]:
    """The column values of a record that belongs to a session."""
    if type(record) is Intent and record.question:
        return {"session_id": session_id, **vars(record), "question": vars(record.question)}
    if type(record) is LoggedDecision:
        return {"session_id": session_id, **vars(record), "holdout": int(record.holdout), "seed": str(record.seed)}
    return {"session_id": session_id, **vars(record)}


def row_writes(session_id: str, rows: Rows, dialect: Dialect) -> list[Write]:
    """What stores all business rows of a session, table by table, on their natural keys."""
    intents = [rows.intent] if rows.intent else []
    groups = (rows.entities, intents, rows.prompts, rows.decisions, rows.validations, rows.feedback, rows.artifacts)
    return [_row_write(session_id, group, dialect) for group in groups if group]


def _row_write(session_id: str, group: Sequence[Record], dialect: Dialect) -> Write:
    table, keys = TABLES[type(group[0])]
    return upsert(dialect, table, [values_of(session_id, record) for record in group], keys)


def read(model: type[ModelT], row: Mapping[Any, Any]) -> ModelT:
    """The model of a row; columns the model does not know (the row's own id) are left out."""
    values = {name: row[name] for name in model.model_fields if name in row}
    for name, value in _NULL_READS_AS.items():
        if name in values and values[name] is None:
            values[name] = value
    return model.model_validate(values)


def records(connection: Connection, session_id: str, model: type[ModelT]) -> list[ModelT]:
    """The records of one kind that belong to a session, by their natural key."""
    found = prepared(_of_session(model), ("of",), connection.dialect).rows(connection, {"of": session_id})
    return [read(model, row) for row in found]


def all_artifacts(connection: Connection, session_id: str, entities: Iterable[EntityData]) -> list[Artifact]:
    """The artifacts of a session and the masks of its entities, by kind and name.

    A database of before has the masks in both tables; the entities' are those that count.
    """
    stored = records(connection, session_id, Artifact)
    found = {(item.kind, item.name): item for item in [*stored, *masks_of(entities)]}
    return [found[key] for key in sorted(found)]


@cache
def _of_session(model: type[Record]) -> Select[Any]:
    table, keys = TABLES[model]
    columns = table.__table__.c
    return (
        select(table.__table__).where(columns.session_id == bindparam("of")).order_by(*(columns[key] for key in keys))
    )


def session_values(session: SessionData, fields: set[str] | None = None) -> dict[str, Any]:
    """The columns of `sessions` for (some fields of) a session."""
    values = session.model_dump(include=fields)
    if "session_id" in values:
        values["id"] = values.pop("session_id")
    return values


def read_session(row: Mapping[Any, Any]) -> SessionData:
    values = {name: row[name] for name in SessionData.model_fields if name in row}
    return SessionData.model_validate({"session_id": row["id"], **values})


def commit_values(commit: StageCommit, delta: str) -> dict[str, Any]:
    """The columns of `stage_commits` for a boundary, `delta` being the JSON of what it changes."""
    return {**vars(commit), "state_delta": delta}


def upsert(dialect: Dialect, table: type[Base], values: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> Write:
    """What inserts `values`, at least one, or updates the rows that have the same `keys`; all in one statement."""
    statement = _upsert(lasting(dialect), table, tuple(values[0]), tuple(keys))
    return Write(statement, [statement.bind(value) for value in values])


@lru_cache(maxsize=128)
def _upsert(dialect: Dialect, table: type[Base], names: tuple[str, ...], keys: tuple[str, ...]) -> Prepared:
    statement = (postgresql if dialect.name == "postgresql" else sqlite).insert(table.__table__).inline()
    # A record saved again keeps the time it was made; a verdict that replaces another one has its own.
    kept = {*keys} if table is FeedbackRow else {*keys, "created_at"}
    changed = {name: statement.excluded[name] for name in names if name not in kept}
    if changed:
        statement = statement.on_conflict_do_update(index_elements=list(keys), set_=changed)
    else:
        statement = statement.on_conflict_do_nothing(index_elements=list(keys))
    return Prepared(statement, names, dialect)
