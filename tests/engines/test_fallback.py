"""Several engines for one stage: who is asked, what is kept of who failed, and what ends it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from edi_storage.errors import EdiError, EngineError, InputError, LeaseLostError, UnsupportedEditError
from edi_storage.models import Intent, PromptRecord, SceneAnalysis
from flows import engines
from flows.engines.base import EditOutcome, EditRequest
from flows.engines.fallback import FallbackEditor
from tests.engines.conftest import landscape

REQUEST = EditRequest(
    pixels=landscape(24, 32),
    masks={},
    scene=SceneAnalysis(entities=[], spatial_layout="Nothing."),
    intent=Intent(edit_type="color", confidence=1.0),
    prompt=PromptRecord(iteration=0, positive_prompt="a", negative_prompt=""),
    attempt=1,
)


class Engine:
    """An editor that raises `errors`, one at each edit, and then works."""

    def __init__(self, name: str, *errors: BaseException) -> None:
        self.name, self.version, self.errors, self.asked = name, f"{name} 7", list(errors), 0

    def edit(self, request: EditRequest, progress: Any) -> EditOutcome:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return EditOutcome(request.pixels, [])


def chain(*listed: Engine) -> FallbackEditor:
    makers: dict[str, Callable[[], Any]] = {engine.name: lambda engine=engine: engine for engine in listed}  # type: ignore[misc]
    return FallbackEditor(makers)


def test_the_first_that_works_does_it_and_is_named() -> None:
    one, two = Engine("one"), Engine("two")
    editor = chain(one, two)
    editor.edit(REQUEST)
    assert (editor.name, editor.version, editor.warnings) == ("one", "one 7", [])
    assert two.asked == 0


@pytest.mark.parametrize("error", [EngineError("is down"), InputError("has no model")])
def test_what_has_failed_is_told_of_and_not_asked_again(error: EdiError) -> None:
    one, two = Engine("one", error), Engine("two")
    editor = chain(one, two)
    for _ in range(3):
        editor.edit(REQUEST)
        assert (editor.name, editor.version) == ("two", "two 7")
        assert editor.warnings == [f"two was used instead of one: {error}"]
    assert one.asked == 1


def test_a_warning_is_told_in_the_log_that_a_person_reads(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Prefect, where a test before this one has set it up, keeps that log to itself.
    monkeypatch.setattr(logging.getLogger("edi"), "propagate", True)
    chain(Engine("one", EngineError("is down")), Engine("two")).edit(REQUEST)
    assert [(record.name, record.getMessage()) for record in caplog.records] == [
        ("edi", "two was used instead of one: is down")
    ]


def test_what_one_engine_cannot_do_it_may_well_do_next_time() -> None:
    one = Engine("one", UnsupportedEditError("cannot add a dog"))
    editor = chain(one, Engine("two"))
    editor.edit(REQUEST)
    assert (editor.name, editor.warnings) == ("two", ["two was used instead of one: cannot add a dog"])
    editor.edit(REQUEST)
    assert (editor.name, editor.warnings) == ("one", [])


def test_when_none_works_all_of_them_are_told_of_in_the_way_of_the_last_one() -> None:
    editor = chain(Engine("one", EngineError("is down.")), Engine("two", UnsupportedEditError("cannot do that.")))
    with pytest.raises(UnsupportedEditError) as failed:
        editor.edit(REQUEST)
    assert str(failed.value) == "one: is down. two: cannot do that."


@pytest.mark.parametrize("error", [LeaseLostError(), KeyboardInterrupt(), ZeroDivisionError()])
def test_what_is_no_failure_of_an_engine_is_not_hidden_by_another(error: BaseException) -> None:
    two = Engine("two")
    with pytest.raises(type(error)):
        chain(Engine("one", error), two).edit(REQUEST)
    assert two.asked == 0


def test_one_name_is_that_engine_and_several_are_made_only_when_asked() -> None:
    assert engines.editor("embedded").name == "embedded"
    assert isinstance(engines.editor(" comfyui , embedded,comfyui "), FallbackEditor)
    assert engines.names_in("EDI_EDITOR", " comfyui , embedded,comfyui ") == ["comfyui", "embedded"]


@pytest.mark.parametrize("names", ["", " , ", "embedded,magic", "sam"])
def test_a_name_that_is_none_is_refused_with_those_there_are(names: str) -> None:
    with pytest.raises(InputError, match=r"EDI_EDITOR is .*set it to one of: comfyui, embedded"):
        engines.editor(names)
