"""A store of stage boundaries as one writes it after SQLAlchemy's tutorial: an object for each row, merged one by one.

Saving a boundary again changes nothing, and one commit makes it safe. The whole state is a JSON column of each
boundary. There is no lease, no fence, and nothing that notices damage.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, create_engine, event
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from edi_storage.models import StageCommit
from edi_storage.record import Record
from edi_storage.rows import session_values
from edi_storage.state import Json, Rows
from tests.benchmarks.boundary import session as new_session


class Base(DeclarativeBase):
    pass


class EditSession(Base):
    __tablename__ = "sessions"

    id: Mapped[str] = mapped_column(primary_key=True)
    status: Mapped[str]
    image_path: Mapped[str]
    naive_prompt: Mapped[str]
    decision: Mapped[str | None]
    final_alignment_score: Mapped[float | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime | None]


class Entity(Base):
    __tablename__ = "entities"

    session_id: Mapped[str] = mapped_column(primary_key=True)
    entity_id: Mapped[str] = mapped_column(primary_key=True)
    label: Mapped[str]
    confidence: Mapped[float]
    bbox_json: Mapped[str | None]
    mask_path: Mapped[str | None]
    color_hex: Mapped[str | None]
    area_percent: Mapped[float | None]


class Prompt(Base):
    __tablename__ = "prompts"

    session_id: Mapped[str] = mapped_column(primary_key=True)
    attempt_number: Mapped[int] = mapped_column(primary_key=True)
    iteration: Mapped[int] = mapped_column(primary_key=True)
    positive_prompt: Mapped[str]
    negative_prompt: Mapped[str]
    quality_score: Mapped[float | None]


class Validation(Base):
    __tablename__ = "validations"

    session_id: Mapped[str] = mapped_column(primary_key=True)
    attempt_number: Mapped[int] = mapped_column(primary_key=True)
    alignment_score: Mapped[float]


class IntentOfSession(Base):
    __tablename__ = "intents"

    session_id: Mapped[str] = mapped_column(primary_key=True)
    edit_type: Mapped[str]
    target_entities: Mapped[list[str]] = mapped_column(JSON)
    preserve_entities: Mapped[list[str]] = mapped_column(JSON)
    confidence: Mapped[float]
    action: Mapped[str]


class File(Base):
    __tablename__ = "artifacts"

    session_id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    path: Mapped[str]
    sha256: Mapped[str]


class Boundary(Base):
    __tablename__ = "boundaries"

    session_id: Mapped[str] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    stage: Mapped[str]
    state: Mapped[dict[str, Any]] = mapped_column(JSON)
    sha256: Mapped[str]


class NaiveStore:
    """The store, in a new SQLite file whose commits survive a power cut."""

    def __init__(self, path: Path) -> None:
        self.engine = create_engine(f"sqlite:///{path}")
        event.listen(self.engine, "connect", _make_durable)
        Base.metadata.create_all(self.engine)

    def begin(self, session_id: str) -> None:
        """Insert the row of a session."""
        with Session(self.engine) as session:
            session.add(EditSession(**_columns(EditSession, session_values(new_session(session_id)))))
            session.commit()

    def save(self, commit: StageCommit, state: Json, rows: Rows) -> None:
        """Save a boundary, its rows, and the state after it."""
        records: list[tuple[type[Base], Record]] = [(Entity, entity) for entity in rows.entities]
        records += [(IntentOfSession, rows.intent)] if rows.intent else []
        records += [(Prompt, prompt) for prompt in rows.prompts]
        records += [(Validation, validation) for validation in rows.validations]
        records += [(File, artifact) for artifact in rows.artifacts]
        with Session(self.engine) as session:
            for table, record in records:
                session.merge(table(session_id=commit.session_id, **_columns(table, record.model_dump())))
            about = {"session_id": commit.session_id, "seq": commit.seq, "stage": commit.stage}
            session.merge(Boundary(**about, state=state, sha256=commit.sha256))
            changed = {"id": commit.session_id, "updated_at": commit.finished_at, **_columns(EditSession, rows.session)}
            session.merge(EditSession(**changed))
            session.commit()


def _columns(table: type[Base], values: dict[str, Any]) -> dict[str, Any]:
    """Those of the values that the table has a column for."""
    return {name: value for name, value in values.items() if name in table.__table__.columns}


def _make_durable(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
