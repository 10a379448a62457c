"""Every model survives JSON, refuses what could not be read back, and the state document keeps its rules."""

from __future__ import annotations

import copy
import json
import types
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import AfterValidator, ValidationError
from pydantic.fields import FieldInfo
from sqlalchemy.dialects.sqlite import pysqlite

from edi_storage import autosave, models
from edi_storage.errors import InputError
from edi_storage.models import EntityData, SessionData, SessionState, UserFeedback
from edi_storage.record import Record, check_json, check_session_id
from edi_storage.state import Json, digest, fold, make_patch, merge_patch
from edi_storage.tables import UtcDateTime
from tests.storage.generated import json_objects, json_values, safe_text

session_ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{4,63}", fullmatch=True)


# --- A strategy for any model, read off its fields ---------------------------------------------------


def of_model(model: type[Record]) -> st.SearchStrategy[Record]:
    fields = {name: of_type(field.annotation, field.metadata) for name, field in model.model_fields.items()}
    required = {name: fields.pop(name) for name, field in model.model_fields.items() if field.is_required()}
    return st.fixed_dictionaries(required, optional=fields).map(lambda data: built(model, data))


def built(model: type[Record], data: Json) -> Record:
    """The record; another try where its fields contradict each other, which only the model itself knows."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        assume(error.errors()[0]["type"] not in ("value_error", "assertion_error"))
        raise


def of_type(annotation: Any, metadata: Iterable[Any] = ()) -> st.SearchStrategy[Any]:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = [item for arg in args[1:] for item in (arg.metadata if isinstance(arg, FieldInfo) else [arg])]
        return of_type(args[0], [*inner, *metadata])
    if origin in (Union, types.UnionType):
        return st.one_of([of_type(arg) for arg in args])
    if origin is Literal:
        return st.sampled_from(args)
    if origin is list:
        return st.lists(of_type(args[0]), min_size=limit("min_length", metadata, 0), max_size=3)
    if isinstance(annotation, type) and issubclass(annotation, Record):
        return of_model(annotation)
    return of_scalar(origin or annotation, list(metadata))


def of_scalar(kind: Any, metadata: list[Any]) -> st.SearchStrategy[Any]:
    low, high = limit("ge", metadata, None), limit("le", metadata, None)
    plain: dict[Any, Callable[[], st.SearchStrategy[Any]]] = {
        type(None): st.none,
        bool: st.booleans,
        int: lambda: st.integers(-(2**63) if low is None else low, 2**63 - 1 if high is None else high),
        float: lambda: st.floats(low, high, allow_nan=False, allow_infinity=False),
        datetime: lambda: st.datetimes(timezones=st.none() | st.just(UTC)),
        dict: lambda: json_objects,
        str: lambda: of_text(metadata),
    }
    return plain[kind]()


def of_text(metadata: list[Any]) -> st.SearchStrategy[str]:
    checks = {item.func.__name__ for item in metadata if isinstance(item, AfterValidator)}
    if pattern := limit("pattern", metadata, None):
        return st.from_regex(pattern.removesuffix("$"), fullmatch=True)
    if "check_session_id" in checks:
        return session_ids
    if "_is_json" in checks:
        return json_values.map(lambda value: json.dumps(value, ensure_ascii=False))
    shortest = limit("min_length", metadata, 0)
    return safe_text.filter(lambda text: len(text) >= shortest)


def limit(name: str, metadata: Iterable[Any], default: Any) -> Any:
    return next((found for item in metadata if (found := getattr(item, name, None)) is not None), default)


def records_in(*modules: types.ModuleType) -> list[type[Record]]:
    kinds = {kind for module in modules for kind in vars(module).values() if isinstance(kind, type)}
    found = {kind for kind in kinds if issubclass(kind, Record)} - {Record}
    return sorted(found, key=lambda kind: kind.__name__)


RECORDS = records_in(models, autosave)
each_record = pytest.mark.parametrize("model", RECORDS, ids=[model.__name__ for model in RECORDS])


# --- Models ------------------------------------------------------------------------------------------


@each_record
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(data=st.data())
def test_every_model_survives_json_text_plain_dicts_and_itself(model: type[Record], data: st.DataObject) -> None:
    record = data.draw(of_model(model))
    assert model.model_validate_json(record.model_dump_json()) == record
    assert model.model_validate(json.loads(json.dumps(record.model_dump(mode="json")))) == record
    assert model.checked(record.model_dump()) == record
    assert model.checked(record) == record
    assert model.checked(record).model_fields_set == record.model_fields_set
    assert dict(record).keys() == record.model_dump().keys()
    assert dict(record.items()) == dict(record)
    assert all(name in record for name in dict(record))


def text_fields() -> list[tuple[type[Record], str]]:
    return [
        (model, name)
        for model in RECORDS
        for name, field in model.model_fields.items()
        if "str" in str(field.annotation)
        and "dict" not in str(field.annotation)
        and "Literal" not in str(field.annotation)
    ]


@pytest.mark.parametrize("bad", ["a\x00b", "\ud800", "\udfff text"])
@pytest.mark.parametrize(("model", "name"), text_fields(), ids=lambda value: getattr(value, "__name__", value))
@settings(max_examples=1, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_text_field_takes_nul_or_a_lone_surrogate(
    model: type[Record], name: str, bad: str, data: st.DataObject
) -> None:
    good = data.draw(of_model(model)).model_dump()
    with pytest.raises(InputError, match=name) as error:
        model.checked({**good, name: [bad] if "list" in str(model.model_fields[name].annotation) else bad})
    str(error.value).encode()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    ("model", "name"),
    [
        (model, name)
        for model in RECORDS
        for name, field in model.model_fields.items()
        if "float" in str(field.annotation)
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
@settings(max_examples=1, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_number_field_takes_nan_or_infinity(model: type[Record], name: str, bad: float, data: st.DataObject) -> None:
    good = data.draw(of_model(model)).model_dump()
    with pytest.raises(InputError, match=name):
        model.checked({**good, name: bad})


@pytest.mark.parametrize("bad", [2**63, -(2**63) - 1, 10**30])
@pytest.mark.parametrize(
    ("model", "name"),
    [
        (model, name)
        for model in RECORDS
        for name, field in model.model_fields.items()
        if "int" in str(field.annotation)
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
@settings(max_examples=1, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_number_field_takes_more_than_sqlite_can_hold(
    model: type[Record], name: str, bad: int, data: st.DataObject
) -> None:
    good = data.draw(of_model(model)).model_dump()
    with pytest.raises(InputError, match=name):
        model.checked({**good, name: bad})


@each_record
@pytest.mark.parametrize("bad", [None, "abc", 5, [], [("id", "s1")], object(), dict])
def test_what_is_no_mapping_is_refused_in_one_sentence(model: type[Record], bad: Any) -> None:
    with pytest.raises(InputError, match=f"^{model.__name__} must be given as a model or a mapping, not as "):
        model.checked(bad)


def test_a_record_is_asked_for_a_field_like_a_dict() -> None:
    session = SessionData.checked({"id": "s1", "image_path": "a.jpg", "naive_prompt": "p"})
    assert "status" in session
    assert "nothing" not in session
    assert 5 not in session
    assert ("status", "in_progress") in list(session.items())


@each_record
@settings(max_examples=1, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_model_takes_an_unknown_field(model: type[Record], data: st.DataObject) -> None:
    good = data.draw(of_model(model)).model_dump()
    with pytest.raises(InputError, match="surprise"):
        model.checked({**good, "surprise": 1})


@given(st.text())
def test_a_session_id_is_safe_as_a_file_name_or_refused(text: str) -> None:
    try:
        check_session_id(text)
    except ValueError:
        return
    assert text.isascii()
    assert text[0].isalnum()
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")


@given(st.datetimes(timezones=st.timezones()))
def test_every_time_becomes_the_same_moment_in_utc(moment: datetime) -> None:
    try:
        stored = SessionData(session_id="s1", image_path="a", naive_prompt="p", created_at=moment).created_at
    except ValidationError:
        assert moment.year in (1, 9999)
        return
    assert stored.utcoffset() == timedelta(0)
    # Not ==, which Python defines as false for an hour that a clock shows twice.
    assert stored.timestamp() == moment.timestamp()


@given(st.datetimes(timezones=st.timezones() | st.just(UTC)))
def test_a_time_stands_in_sqlite_as_the_seed_wrote_it(moment: datetime) -> None:
    try:
        there = moment.astimezone(UTC)
    except OverflowError:
        assume(False)
    to_text = UtcDateTime().bind_processor(pysqlite.dialect())
    assert to_text(moment) == str(there.replace(tzinfo=None))
    with pytest.raises(ValueError, match="without a zone"):
        to_text(moment.replace(tzinfo=None))


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_beyond_the_calendar_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="created_at"):
        SessionData.checked({"id": "s1", "image_path": "a", "naive_prompt": "p", "created_at": text})


def test_the_seeds_names_and_its_json_are_accepted() -> None:
    session = SessionData.checked({"id": "session-789", "image_path": "a.jpg", "naive_prompt": "p", "status": "failed"})
    assert (session.id, session["session_id"], session.get("nothing", 3)) == ("session-789", "session-789", 3)
    assert EntityData.checked({"id": "sky_0", "label": "sky", "confidence": 0.95}).entity_id == "sky_0"
    state = SessionState.model_validate_json(
        """{"session_id": "session-456", "current_stage": "refinement", "image_path": "/path/to/image2.jpg",
        "naive_prompt": "enhance lighting", "scene_analysis": {"entities": [], "spatial_layout": "..."},
        "intent": {"target_entities": ["sky_0"], "edit_type": "style", "confidence": 0.85},
        "prompts": {"iteration_0": {"positive": "...", "negative": "..."}},
        "edited_image_path": "/path/to/edited_image2.jpg", "validation": {"score": 0.87, "delta": {}}}"""
    )
    assert state.validation == {"score": 0.87, "delta": {}}


@pytest.mark.parametrize("rating", [0, 6, 4.5, "5", True, -1])
def test_a_rating_is_a_whole_number_from_1_to_5(rating: Any) -> None:
    with pytest.raises(InputError, match="rating"):
        UserFeedback.checked({"feedback_type": "accept", "rating": rating})


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[" * 100_000, '{"a": NaN}', '"\\ud800"'),
        *("[1e999]", '"\\u0000"', "9" * 20, "9" * 5000, "[" * 150 + "]" * 150),
        # Nearly what a box is written as.
        *(
            '{"x":01}',
            '{"x":1,}',
            '{"x":1"y":2}',
            '{"x":1}}',
            '{"x":1}\n{',
            '{"x":' + "9" * 19 + "}",
            '{"\ud800":1}',
        ),
        *("{'x':1}", '{"x":٣}', "{x:1}", '{"x":-}'),
    ],
)
def test_a_box_that_is_no_json_or_that_others_could_not_read_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="bbox_json"):
        EntityData.checked({"id": "sky_0", "label": "sky", "confidence": 1, "bbox_json": text})


def test_a_refusal_is_one_short_sentence_that_can_be_printed() -> None:
    for key in ("\ud800", "x" * 100_000, "a\nb"):
        with pytest.raises(InputError) as error:
            SessionState.checked({key: 1})
        message = str(error.value)
        assert len(message.encode()) < 400
        assert "\n" not in message


@given(json_values)
def test_what_json_can_carry_is_let_through_unchanged(value: Any) -> None:
    assert check_json(value) is value
    assert json.loads(json.dumps(value)) == value


@pytest.mark.parametrize(
    "value", [float("nan"), 2**63, -(2**63) - 1, "\x00", "\ud800", {1: 2}, {"\x00": 1}, b"x", {1, 2}, object()]
)
def test_what_json_cannot_carry_is_refused_at_any_depth(value: Any) -> None:
    for deep in (value, [value], {"a": [{"b": value}]}, (1, value)):
        with pytest.raises(ValueError, match="contains"):
            check_json(deep)


# --- Merge patches -----------------------------------------------------------------------------------

patches = st.recursive(
    st.none() | st.integers(0, 3) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
patch_objects = st.dictionaries(st.sampled_from("abc"), patches, max_size=3)


def without_nulls(value: Any) -> Any:
    """A document a merge patch can make: RFC 7396 has no way to set a member of an object to null."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return value


documents = patch_objects.map(without_nulls)


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        # The test cases of RFC 7396, appendix A, whose result is an object.
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_does_what_the_rfc_says(target: Json, patch: Json, result: Json) -> None:
    assert merge_patch(target, patch) == result


@given(documents, patch_objects)
def test_a_patch_applied_twice_is_applied_once(document: Json, patch: Json) -> None:
    once = merge_patch(document, patch)
    assert merge_patch(once, patch) == once


@given(documents, patch_objects)
def test_merging_changes_neither_document_nor_patch(document: Json, patch: Json) -> None:
    before = copy.deepcopy((document, patch))
    merge_patch(document, patch)
    assert (document, patch) == before


@given(st.lists(patch_objects, max_size=5), st.integers(0, 5))
def test_a_fold_can_be_cut_anywhere(deltas: list[Json], cut: int) -> None:
    state = fold(deltas[:cut])
    for delta in deltas[cut:]:
        state = merge_patch(state, delta)
    assert state == fold(deltas)


@given(documents, documents)
def test_make_patch_leads_from_one_document_to_the_other(before: Json, after: Json) -> None:
    assert merge_patch(before, make_patch(before, after)) == after
    assert make_patch(before, before) == {}


# --- The digest --------------------------------------------------------------------------------------


@given(json_objects)
def test_the_digest_does_not_depend_on_the_order_of_keys(value: Json) -> None:
    state = {"validation": value, "naive_prompt": "p"}
    backwards = json.loads(json.dumps(state), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    assert digest(backwards) == digest(state)


@given(json_objects)
def test_the_digest_covers_neither_time_nor_checkpoint_nor_empty_fields(value: Json) -> None:
    state = {"session_id": "s1", "validation": value}
    more = {**state, "last_updated": "now", "checkpoint": {"seq": 1}, "intent": {}, "edited_image_path": None}
    assert digest(more) == digest(state)


@given(json_objects, json_objects)
def test_other_states_have_other_digests(one: Json, other: Json) -> None:
    # As text: in Python 1 == True == 1.0, which JSON tells apart.
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (digest({"validation": one}) == digest({"validation": other})) == same


@given(json_objects)
def test_a_state_read_back_as_a_model_has_the_same_digest(value: Json) -> None:
    state = {"session_id": "s1", "current_stage": "edit", "image_path": "a", "naive_prompt": "p", "prompts": value}
    assert digest(SessionState.checked(state).model_dump(mode="json")) == digest(state)
