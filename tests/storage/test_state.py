"""The JSON of states: what is read, strictly, and what is written."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edi_storage.errors import InputError
from edi_storage.learning_models import LoggedDecision
from edi_storage.models import UserFeedback
from edi_storage.record import check_json
from edi_storage.state import (
    MAX_STATE_BYTES,
    Json,
    compact,
    failed_delta,
    feedback_delta,
    fold,
    parse_state,
    refinement_delta,
    rows_of,
)
from tests.storage.generated import json_values
from tests.storage.sessions import THEN, boundaries, prompt

# --- Read, strictly ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "not JSON"),
        (b"nonsense", "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"\xff", "UTF-8"),
        (b"[1]", "object"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"a": [{"b": 1, "b": 1}]}', "twice"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": 1e999}', "infinite"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"\\u0000": 1}', "NUL"),
        (b'{"a": %s}' % (b"9" * 5000), "64 bits"),
        (b'{"a": %s}' % (b"9" * 20), "64 bits"),
        (b'{"a": %s}' % (b"[" * 200 + b"]" * 200), "levels"),
        (b'{"a": %s' % (b"[" * 200_000), "deeply"),
        (b" " * (MAX_STATE_BYTES + 1), "larger"),
    ],
)
def test_json_that_another_reader_would_see_otherwise_is_refused(data: bytes, word: str) -> None:
    with pytest.raises(InputError, match=word):
        parse_state(data)


@given(st.binary(max_size=200) | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_a_document_or_one_named_error(data: bytes) -> None:
    try:
        document = parse_state(data)
    except InputError:
        return
    assert parse_state(json.dumps(document).encode()) == document


# --- Written ----------------------------------------------------------------------------------------


@given(value=json_values)
@example(
    value={"": -0.0, "\u2028\x7f\ufffe": ["\U0001f3de", 5e-324, 1e16, 1.7976931348623157e308, -(2**63), 2**63 - 1]}
)
def test_any_value_survives_compact_json(value: Any) -> None:
    assert repr(json.loads(compact(value).text)) == repr(value)  # repr tells -0.0 from 0.0, and 1 from True


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_no_number_that_json_has_not_is_written_compactly(number: float) -> None:
    with pytest.raises(ValueError, match="NaN or an infinite"):
        compact({"a": [number]})
    assert compact({"a": "NaN and -Infinity"}).text == '{"a":"NaN and -Infinity"}'
    assert compact({"a": ["null", None]}).text == '{"a":["null",null]}'


def test_the_numbers_of_numpy_that_are_floats_are_written_as_such() -> None:
    value = {"a": [np.float64(0.1), np.float64(1e16)]}
    assert check_json(value) is value
    assert json.loads(compact(value).text) == {"a": [0.1, 1e16]}
    with pytest.raises(ValueError, match="NaN or an infinite"):
        compact({"a": np.float64("nan")})
    with pytest.raises(TypeError, match="float32"):
        compact({"a": np.float32(0.1)})


# --- The rows that it stands for -----------------------------------------------------------------------


def deltas() -> list[Json]:
    """One of each kind, and the whole state of an edit."""
    verdict = UserFeedback(feedback_type="accept", feedback_key="first", created_at=THEN)
    chosen = LoggedDecision(attempt=2, edit_type="style", label="sky", params={"step": 1}, profile_version=3)
    edit = [delta for _, delta in boundaries()]
    retry = refinement_delta(prompt(0, 2), prompt(0, 2), decision=chosen)
    return [*edit, retry, feedback_delta(verdict), failed_delta("no"), fold(edit)]


def test_the_files_of_a_state_are_in_the_order_in_which_the_stages_make_them() -> None:
    """So they are made again: an edited picture wants its masks."""
    by_stage = [(item.kind, item.name) for _, delta in boundaries() for item in rows_of(delta).files]
    assert [(item.kind, item.name) for item in rows_of(fold(delta for _, delta in boundaries())).files] == by_stage
    assert [kind for kind, _ in by_stage] == ["original", "mask", "mask", "edited", "delta"]


def with_nulls(part: Json, names: list[str]) -> Json:
    """The part, in which every object also removes whatever else there could be."""
    nulls = {name: None for name in names if name not in part}
    return {key: with_nulls(value, names) if isinstance(value, dict) else value for key, value in part.items()} | nulls


@pytest.mark.parametrize("delta", deltas())
def test_what_a_delta_removes_stands_for_no_row(delta: Json) -> None:
    names = sorted({name for known in deltas() for name in _names(known)} | {"2", "mask", "variations", "parent"})
    removing = with_nulls(delta, names)
    quick = [rows_of(value, nulls=compact(value).nulls) for value in (removing, delta)]
    assert quick == [rows_of(removing), rows_of(delta)] == [rows_of(delta)] * 2


@pytest.mark.parametrize(
    "patch",
    [
        {"intent": {"question": None}},
        {"scene_analysis": {"image": {"mask": None}, "parent": {"stage": None}, "options": {"consent": None}}},
        {"validation": {"attempts": {"1": {"hints": None}}, "feedback": {"first": None}, "failure": None}},
    ],
)
def test_a_delta_that_only_removes_stands_for_no_row(patch: Json) -> None:
    assert rows_of(patch) == rows_of({})


def _names(part: Json) -> set[str]:
    return {*part}.union(*(_names(value) for value in part.values() if isinstance(value, dict)))
