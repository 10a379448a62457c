"""Stored lists of operations: their schema, their version, and the sentence for what does not fit."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from edi_storage.errors import InputError
from edi_storage.models import Operation
from flows.engines.operations import REGISTRY, apply
from flows.engines.parameters import PARAMETERS, VERSION, checked, schema, upcast
from tests.engines.conftest import landscape


def test_every_operation_has_its_parameters() -> None:
    assert set(PARAMETERS) == {*REGISTRY, "blend"}


def test_the_schema_is_printed_and_names_every_operation() -> None:
    command = [sys.executable, "-m", "flows.engines.operations", "--schema"]
    printed = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert printed == schema()
    assert [entry["properties"]["name"]["const"] for entry in printed["items"]["oneOf"]] == list(PARAMETERS)
    for entry in printed["items"]["oneOf"]:
        for name, described in entry["properties"]["parameters"]["properties"].items():
            assert "default" in described, (entry["title"], name)


def test_what_was_stored_without_a_version_means_what_it_meant() -> None:
    stored = {"name": "dramatic_sky", "target": "sky_0", "parameters": {"mood": "misty", "unheard_of": 1}}
    operation = upcast(Operation.model_validate(stored))
    assert operation.version == VERSION
    # Version 1 took an unknown mood for "dramatic", and passed over parameters that it did not know.
    assert operation.parameters == {"mood": "dramatic"}
    assert upcast(operation) == operation


def test_an_old_list_makes_the_picture_of_its_upcast_form() -> None:
    pixels = landscape(60, 80)
    old = [Operation(name="exposure", parameters={"stops": 0.7, "unheard_of": 1}), Operation(name="warmth")]
    assert (apply(pixels, {}, old) == apply(pixels, {}, [upcast(operation) for operation in old])).all()


def test_a_list_of_a_newer_edi_is_refused() -> None:
    with pytest.raises(InputError, match="newer EDI"):
        checked(Operation(version=VERSION + 1, name="warmth"))


@pytest.mark.parametrize(
    ("name", "parameters", "told"),
    [
        ("exposure", {"stops": 99}, "exposure: stops"),
        ("exposure", {"stops": "much"}, "exposure: stops"),
        ("tint", {"color": "reddish"}, "#rrggbb"),
        ("blur", {"falloff": "steep"}, "blur: falloff"),
        ("warmth", {"amounts": 0.2}, "warmth: amounts"),
    ],
)
def test_what_does_not_fit_is_one_sentence(name: str, parameters: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told) as caught:
        checked(Operation(version=VERSION, name=name, parameters=parameters))
    assert "\n" not in str(caught.value)
