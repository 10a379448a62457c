"""The SQL of learning: events, cells, runs and profiles. Functions inside a transaction their caller has begun."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    JSON,
    ColumnElement,
    Connection,
    Insert,
    Select,
    and_,
    case,
    cast,
    delete,
    exists,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from edi_storage.learning_models import (
    FirstVerdict,
    LoggedDecision,
    PresetCell,
    ReasonCounts,
    StoredProfile,
)
from edi_storage.learning_tables import (
    DecisionRow,
    FeedbackEventRow,
    LearningCalibrationRow,
    LearningCellRow,
    LearningProfileRow,
    LearningRunRow,
    LearningTermCellRow,
)
from edi_storage.models import EntityData, Intent, LearningRun, SessionData, UserFeedback, ValidationData
from edi_storage.rows import records
from edi_storage.state import canonical
from edi_storage.steps import attempt_of
from edi_storage.tables import Base, SessionRow
from edi_storage.wording import OTHER, reasons_of, terms_of

#: The rules by which events are counted into cells; after a change of them all are counted again.
COUNTING: Final = "2"
#: Events folded in by one learning transaction, so that a long backlog never holds the lock for long.
EVENTS_A_RUN: Final = 50_000
#: Profiles kept beside the active one.
_PROFILES_KEPT: Final = 100
#: Newest events from which the uplift is estimated: seconds for a report, whatever the history.
_ESTIMATED_FROM: Final = 20_000
#: Newest events among which samples are looked for: a look must not take longer with the history.
_LOOKED_THROUGH: Final = 20_000
_REASON_COLUMNS: Final = tuple(ReasonCounts.model_fields)
_KINDS: Final = (("accept", "accepted"), ("partial", "partial"), ("reject", "rejected"))
#: What makes two events say the same, but for their sign.
_SAID: Final = (
    FeedbackEventRow.session_id,
    FeedbackEventRow.feedback_key,
    FeedbackEventRow.edit_type,
    FeedbackEventRow.label,
    FeedbackEventRow.feedback_type,
    FeedbackEventRow.rating,
    FeedbackEventRow.attempt,
    FeedbackEventRow.preset,
    FeedbackEventRow.strength,
    FeedbackEventRow.score,
    FeedbackEventRow.reasons,
    FeedbackEventRow.terms,
)

# --- Events ------------------------------------------------------------------------------------------


def take_back_events(connection: Connection, which: ColumnElement[bool]) -> None:
    """Add the opposite of the learning events that still stand, so that their sum is nothing."""
    net = func.sum(FeedbackEventRow.sign)
    standing = select(*_SAID, (-net).label("sign")).where(which).group_by(*_SAID).having(net != 0)
    connection.execute(insert(FeedbackEventRow).from_select([*(column.key for column in _SAID), "sign"], standing))


def add_event(connection: Connection, session: SessionData, verdict: UserFeedback) -> None:
    """Log a verdict for learning, with what it was about as it stands now; not where the person wants no learning."""
    if session.consent == "none":
        return
    reasons = reasons_of(verdict.comments or "", verdict.reasons)
    if verdict.feedback_type == "accept":
        reasons = [reason for reason in reasons if reason != OTHER]  # a kind word is no complaint
    event = {
        "session_id": session.session_id,
        "feedback_key": verdict.feedback_key,
        "sign": 1,
        "feedback_type": verdict.feedback_type,
        "rating": verdict.rating,
        "reasons": f",{','.join(reasons)}," if reasons else "",
        "terms": json.dumps(terms_of(session.naive_prompt), ensure_ascii=False),
        **_what_was_judged(connection, session.session_id, verdict),
    }
    connection.execute(insert(FeedbackEventRow).values(event))


def _what_was_judged(connection: Connection, session_id: str, verdict: UserFeedback) -> dict[str, Any]:
    """The attempt, with its score, and what was chosen for it."""
    decisions = {decision.attempt: decision for decision in records(connection, session_id, LoggedDecision)}
    scores = {data.attempt_number: data.alignment_score for data in records(connection, session_id, ValidationData)}
    attempt = attempt_of(verdict.feedback_key) or max((1, *decisions, *scores))
    decision, score = decisions.get(attempt), scores.get(attempt)
    edit_type, label = _what_was_edited(connection, session_id)
    judged = {"attempt": attempt, "score": None if score is None else round(100 * score)}
    if decision is None or not decision.is_open:
        return {**judged, "edit_type": edit_type, "label": label, "preset": "", "strength": 0}
    chosen = decision.model_dump(include={"edit_type", "label", "preset", "strength"})
    return {**judged, **chosen}


def _what_was_edited(connection: Connection, session_id: str) -> tuple[str, str]:
    """Edit type and label of the first target; the whole picture is "image", a session without intent "unknown"."""
    intents = records(connection, session_id, Intent)
    if not intents:
        return "unknown", "unknown"
    intent = intents[0]
    labels = {entity.entity_id: entity.label for entity in records(connection, session_id, EntityData)}
    if not intent.preserve_entities or not intent.target_entities:
        return intent.edit_type, "image"
    return intent.edit_type, labels.get(intent.target_entities[0], "image")


# --- Folding -----------------------------------------------------------------------------------------


def fold_new(connection: Connection) -> LearningRun:
    """Count the events after the watermark. By other rules than the last time, all are counted again."""
    mine = select(func.max(LearningRunRow.seq_to)).where(LearningRunRow.config == COUNTING)
    watermark = connection.execute(mine).scalar()
    if watermark is None and connection.execute(select(exists().where(LearningRunRow.id > 0))).scalar():
        return count_again(connection)
    watermark = watermark or 0
    new = select(FeedbackEventRow.seq).where(FeedbackEventRow.seq > watermark).order_by(FeedbackEventRow.seq)
    batch = new.limit(EVENTS_A_RUN).subquery()
    last, events = connection.execute(select(func.max(batch.c.seq), func.count())).one()
    run = LearningRun(seq_from=watermark, seq_to=last or watermark, events=events)
    if events:
        _count(connection, run)
        _forget_deleted(connection, run)
    return run


def _forget_deleted(connection: Connection, run: LearningRun) -> None:
    """Remove the events of sessions that were deleted: they add up to nothing, and hold words of the person."""
    row = FeedbackEventRow
    taken_back = (
        select(row.session_id)
        .where(row.seq > run.seq_from, row.seq <= run.seq_to, row.sign == -1)
        .where(~exists().where(SessionRow.id == row.session_id))
    )
    connection.execute(delete(row).where(row.seq <= run.seq_to, row.session_id.in_(taken_back)))


def count_again(connection: Connection) -> LearningRun:
    """Empty the cells and count all events there are."""
    # The last events may be gone with their sessions; what was learned since must not seem older for it.
    known = connection.execute(select(func.max(LearningRunRow.seq_to))).scalar() or 0
    for table in (LearningCellRow, LearningTermCellRow, LearningCalibrationRow, LearningRunRow):
        connection.execute(delete(table))
    last, events = connection.execute(select(func.max(FeedbackEventRow.seq), func.count())).one()
    run = LearningRun(seq_from=0, seq_to=max(last or 0, known), events=events)
    if run.seq_to:
        _count(connection, run)
        _forget_deleted(connection, run)
    return run


def _count(connection: Connection, run: LearningRun) -> None:
    for first in range(run.seq_from, run.seq_to, EVENTS_A_RUN):  # SQLite sorts a statement's events in memory
        last = min(first + EVENTS_A_RUN, run.seq_to)
        _add_up(connection, and_(FeedbackEventRow.seq > first, FeedbackEventRow.seq <= last))
    for table in (LearningCellRow, LearningTermCellRow, LearningCalibrationRow):
        columns = table.__table__.c
        # Together as the partial index has them.
        connection.execute(delete(table).where(columns.accepted == 0, columns.partial == 0, columns.rejected == 0))
    connection.execute(insert(LearningRunRow).values(config=COUNTING, **run.model_dump()))


def _add_up(connection: Connection, which: ColumnElement[bool]) -> None:
    """Add these events to the cells."""
    _add(connection, LearningCellRow, ("edit_type", "label", "preset", "strength"), _cell_sums(which))
    term = _each_term(connection)
    keys = [term.c.value.label("term"), FeedbackEventRow.edit_type, FeedbackEventRow.label, FeedbackEventRow.preset]
    sums = select(*keys, *_verdict_sums()).select_from(FeedbackEventRow).join(term, literal(True)).where(which)
    _add(connection, LearningTermCellRow, ("term", "edit_type", "label", "preset"), sums.group_by(*keys))
    scored = select(FeedbackEventRow.score, *_verdict_sums()).where(which, FeedbackEventRow.score.is_not(None))
    _add(connection, LearningCalibrationRow, ("score",), scored.group_by(FeedbackEventRow.score))


def _verdict_sums() -> list[ColumnElement[int]]:
    event = FeedbackEventRow
    return [func.sum(case((event.feedback_type == kind, event.sign), else_=0)).label(name) for kind, name in _KINDS]


def _cell_sums(which: ColumnElement[bool]) -> Select[Any]:
    event = FeedbackEventRow
    keys = [event.edit_type, event.label, event.preset, event.strength]
    reasons = [
        func.sum(case((event.reasons.like(f"%,{name.replace('_', ' ')},%"), event.sign), else_=0)).label(name)
        for name in _REASON_COLUMNS
    ]
    return (
        select(
            *keys,
            *_verdict_sums(),
            func.sum(func.coalesce(event.rating, 0) * event.sign).label("rating_sum"),
            func.sum(case((event.rating.is_not(None), event.sign), else_=0)).label("rating_count"),
            *reasons,
        )
        .where(which)
        .group_by(*keys)
    )


def _each_term(connection: Connection) -> Any:
    """A table of the stems of an event, in its column `value`."""
    if connection.dialect.name == "postgresql":
        return func.json_array_elements_text(cast(FeedbackEventRow.terms, JSON)).table_valued("value", name="term")
    return func.json_each(FeedbackEventRow.terms).table_valued("value", name="term")


def _add(connection: Connection, table: type[Base], keys: tuple[str, ...], sums: Select[Any]) -> None:
    """Add sums to the rows of the same `keys`, in one statement."""
    maker: Any = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    names = [column.name for column in sums.selected_columns]
    statement: Any = maker(table).from_select(names, sums)
    columns = table.__table__.c
    added = {name: columns[name] + statement.excluded[name] for name in names if name not in keys}
    whole: Insert = statement.on_conflict_do_update(index_elements=list(keys), set_=added)
    connection.execute(whole)


# --- Reading -----------------------------------------------------------------------------------------


def preset_cells(connection: Connection) -> list[PresetCell]:
    """All cells, by their keys."""
    row = LearningCellRow
    query = select(row.__table__).order_by(row.edit_type, row.label, row.preset, row.strength)
    return [PresetCell.model_validate(dict(row)) for row in connection.execute(query).mappings()]


def first_verdicts(connection: Connection) -> list[FirstVerdict]:
    """The verdicts that stand on first attempts in which a profile chose, oldest first; of the newest events only."""
    event, made = FeedbackEventRow, DecisionRow
    worth = case((event.feedback_type == "accept", 1.0), (event.feedback_type == "partial", 0.5), else_=0.0)
    query = (
        select(event.session_id, func.min(event.seq).label("seq"), func.sum(event.sign * worth).label("reward"))
        .where(event.attempt == 1, event.seq > _newest_event() - _ESTIMATED_FROM)
        .group_by(event.session_id)
        .having(func.sum(event.sign) == 1)
        .subquery()
    )
    joined = (
        select(made.__table__, query.c.reward)
        .join(query, query.c.session_id == made.session_id)
        .where(made.attempt == 1, made.profile_version.is_not(None), made.engine != "none")
        .order_by(query.c.seq)
    )
    fields = FirstVerdict.model_fields
    return [
        FirstVerdict.model_validate({name: value for name, value in row.items() if name in fields})
        for row in connection.execute(joined).mappings()
    ]


def _newest_event() -> Any:
    return select(func.coalesce(func.max(FeedbackEventRow.seq), 0)).scalar_subquery()


def sessions_with_reason(connection: Connection, reason: str, limit: int) -> list[str]:
    """The sessions whose standing verdicts give a reason, newest first, looked for among the newest events."""
    event = FeedbackEventRow
    given = and_(event.seq > _newest_event() - _LOOKED_THROUGH, event.reasons.contains(f",{reason},", autoescape=True))
    query = (
        select(event.session_id)
        .where(given)
        .group_by(event.session_id, event.feedback_key)
        .having(func.sum(event.sign) > 0)
        .order_by(func.max(event.seq).desc())
        .limit(limit)
    )
    return list(dict.fromkeys(connection.scalars(query)))


# --- Profiles ----------------------------------------------------------------------------------------


def stored_profile(connection: Connection, which: ColumnElement[bool]) -> StoredProfile | None:
    """The newest profile of those asked for."""
    query = select(LearningProfileRow.__table__).where(which).order_by(LearningProfileRow.version.desc()).limit(1)
    row = connection.execute(query).mappings().one_or_none()
    return read_profile(dict(row)) if row else None


def read_profile(row: dict[str, Any]) -> StoredProfile:
    """The model of a row."""
    return StoredProfile.model_validate({**row, "profile": json.loads(row["profile"])})


def insert_profile(connection: Connection, profile: StoredProfile) -> int:
    """Add a profile, whatever its number; returns the number it got."""
    values = profile.model_dump(exclude={"version", "profile"})
    added = connection.execute(insert(LearningProfileRow).values(values | {"profile": canonical(profile.profile)}))
    assert added.inserted_primary_key is not None
    return int(added.inserted_primary_key[0])


def make_active(connection: Connection, version: int) -> None:
    """Make this profile the one that is used, in place of the one before."""
    row = LearningProfileRow
    connection.execute(update(row).where(row.status == "active", row.version != version).values(status="retired"))
    connection.execute(update(row).where(row.version == version).values(status="active"))


def forget_old_profiles(connection: Connection) -> None:
    """Keep the newest hundred, and the one that is used."""
    row = LearningProfileRow
    newest = connection.execute(select(func.max(row.version))).scalar() or 0
    connection.execute(delete(row).where(row.status != "active", row.version <= newest - _PROFILES_KEPT))


def last_learned(connection: Connection) -> datetime | None:
    """When events were last folded in."""
    found: datetime | None = connection.scalar(select(func.max(LearningRunRow.created_at)))
    return found
