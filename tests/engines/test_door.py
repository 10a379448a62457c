"""Engines are chosen by name, and importing the package costs nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from edi_storage.errors import InputError
from flows import engines
from flows.engines.base import Analyzer, Editor, Engine, Reasoner, Validator

MAKERS: list[tuple[Callable[[str], Engine], str]] = [
    (engines.analyzer, "EDI_ANALYZER"),
    (engines.reasoner, "EDI_REASONER"),
    (engines.editor, "EDI_EDITOR"),
    (engines.validator, "EDI_VALIDATOR"),
]


@pytest.mark.parametrize(("make", "setting"), MAKERS)
def test_the_embedded_engine_has_a_name_and_a_version(make: Callable[[str], Engine], setting: str) -> None:
    engine = make("embedded")
    assert engine.name == "embedded"
    assert engine.version


@pytest.mark.parametrize(("make", "setting"), MAKERS)
def test_an_unknown_engine_names_the_setting_and_the_choices(make: Callable[[str], Engine], setting: str) -> None:
    with pytest.raises(InputError, match=f"{setting} is 'magic'.*embedded"):
        make("magic")


def test_the_embedded_engines_fit_their_protocols() -> None:
    analyzer: Analyzer = engines.analyzer()
    reasoner: Reasoner = engines.reasoner()
    editor: Editor = engines.editor()
    validator: Validator = engines.validator()
    assert {engine.name for engine in (analyzer, reasoner, editor, validator)} == {"embedded"}


def test_the_door_and_the_protocols_import_no_image_library() -> None:
    code = (
        "import sys; import flows.engines, flows.engines.base, flows.engines.scoring; "
        "print([name for name in ('cv2', 'skimage', 'PIL') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
