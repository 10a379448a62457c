"""What each operation takes, as models: they check a stored list, and the JSON schema is made from them.

An operation carries the `version` of the meaning of its parameters. Version 1 is what was stored before operations had
one; `upcast` brings it up to date, and refuses what a newer EDI has written.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from edi_storage.errors import InputError
from edi_storage.models import Operation
from edi_storage.record import describe

#: The version that this EDI plans and understands.
VERSION: Final = 2

Mood = Literal["dramatic", "stormy", "golden", "clear"]
MOODS: Final[tuple[Mood, ...]] = ("dramatic", "stormy", "golden", "clear")

Share = Annotated[float, Field(ge=0, le=1)]
Signed = Annotated[float, Field(ge=-1, le=1)]


def _is_color(value: str) -> str:
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", value):
        raise ValueError("must be a colour written as #rrggbb")
    return value


Color = Annotated[
    str,
    AfterValidator(_is_color),
    Field(description="#rrggbb, in sRGB", json_schema_extra={"pattern": "^#[0-9a-fA-F]{6}$"}),
]


class Parameters(BaseModel):
    """What every operation takes beside its own parameters."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)

    keep: Annotated[list[str], Field(description="entity ids that are not the background (a target)")] = []
    protect: Annotated[list[str], Field(description="entity ids whose area is left out of the mask")] = []
    feather: Annotated[float, Field(ge=0, le=0.1, description="extra softness of the mask, of the long side")] = 0.0
    within: Annotated[str | None, Field(description="entity id outside of which nothing changes")] = None
    untouched: Annotated[list[str], Field(description="entity ids inside of which nothing changes")] = []


class BlackAndWhite(Parameters):
    """Grey with a gentle S-curve."""

    amount: Share = 1.0


class Blend(Parameters):
    """A part of what other operations make of the original, laid in without a seam."""

    operations: Annotated[list[Operation], Field(description="a list like this one, without another blend")] = []

    @field_validator("operations")
    @classmethod
    def _are_known(cls, operations: list[Operation]) -> list[Operation]:
        for operation in operations:
            if isinstance(checked(operation), Blend):
                raise ValueError("contains a blend, which cannot be blended again")  # noqa: TRY004
        return operations


class Blur(Parameters):
    """Out of focus: a disc of light, of the masked area only."""

    radius: Annotated[float, Field(ge=0, le=0.1, description="of the disc, of the long side")] = 0.012
    falloff: Annotated[
        Literal["even", "depth"],
        Field(description="depth: as on the ground of a photo, softer with the distance from the foot of what is kept"),
    ] = "even"


class Clarity(Parameters):
    """More local contrast, without halos."""

    amount: Annotated[float, Field(ge=-1, le=2)] = 0.5


class Contrast(Parameters):
    """An S-curve around `pivot`, or less contrast."""

    amount: Signed = 0.4
    pivot: Annotated[float, Field(ge=0.05, le=0.95, description="the grey that stays as it is")] = 0.5


class DramaticSky(Parameters):
    """Another sky: deeper and structured in three moods, or blue with fair clouds ("clear")."""

    strength: Share = 0.6
    mood: Mood = "dramatic"
    clouds: Annotated[Share, Field(description="how much of the clouds is invented")] = 0.0


class Exposure(Parameters):
    """Brighter or darker; highlights roll off and do not clip."""

    stops: Annotated[float, Field(ge=-5, le=5)] = 0.5


class Fade(Parameters):
    """Blacks lifted to a matte grey, whites a little lowered."""

    amount: Share = 0.4


class Fill(Parameters):
    """One plain colour."""

    color: Color = "#808080"
    amount: Share = 1.0


class Grain(Parameters):
    """The grain of film, strongest in the middle tones."""

    amount: Share = 0.4


class Recolour(Parameters):
    """Another colour with the same light and shade."""

    color: Color = "#c03020"
    amount: Share = 1.0


class Remove(Parameters):
    """Gone: filled with shifted pieces of the surroundings."""


class Saturation(Parameters):
    """More or less colour; -1 is grey."""

    amount: Signed = 0.4


class Sepia(Parameters):
    """The brown of old prints."""

    amount: Share = 0.8


class Sharpen(Parameters):
    """Unsharp mask on luma with limited overshoot."""

    amount: Annotated[float, Field(ge=0, le=2)] = 0.6
    radius: Annotated[float, Field(ge=0, le=0.02, description="of the long side")] = 0.0006


class SplitTone(Parameters):
    """Shadows lean to one hue, lights to another, at unchanged luma."""

    shadows: Color = "#1f4a5a"
    lights: Color = "#f0c890"
    amount: Share = 0.4


class Tint(Parameters):
    """The hue of a colour laid over, at unchanged luma."""

    color: Color = "#ffa040"
    amount: Share = 0.4


class Tones(Parameters):
    """Shadows and highlights each lighter or darker; local contrast is kept."""

    shadows: Signed = 0.3
    highlights: Signed = 0.0


class Vignette(Parameters):
    """The corners fall off into the dark."""

    amount: Share = 0.5


class Warmth(Parameters):
    """Warmer or cooler, at unchanged luma."""

    amount: Signed = 0.4


#: The parameters of each operation, by its name.
PARAMETERS: Final[dict[str, type[Parameters]]] = {
    "black_and_white": BlackAndWhite,
    "blend": Blend,
    "blur": Blur,
    "clarity": Clarity,
    "contrast": Contrast,
    "dramatic_sky": DramaticSky,
    "exposure": Exposure,
    "fade": Fade,
    "fill": Fill,
    "grain": Grain,
    "recolour": Recolour,
    "remove": Remove,
    "saturation": Saturation,
    "sepia": Sepia,
    "sharpen": Sharpen,
    "split_tone": SplitTone,
    "tint": Tint,
    "tones": Tones,
    "vignette": Vignette,
    "warmth": Warmth,
}


def upcast(operation: Operation) -> Operation:
    """The operation in today's version. Raises InputError for one of a newer EDI."""
    if operation.version > VERSION:
        raise InputError(
            f"The operation {operation.name!r} is of version {operation.version}, this EDI knows up to {VERSION}: "
            "install the newer EDI that wrote it."
        )
    model = PARAMETERS.get(operation.name)
    if operation.version == VERSION or model is None:
        return operation
    # Version 1 passed over what it did not know; now that is an error.
    known = {name: value for name, value in operation.parameters.items() if name in model.model_fields}
    if "mood" in known and known["mood"] not in MOODS:
        known["mood"] = "dramatic"
    return Operation(name=operation.name, target=operation.target, parameters=known, version=VERSION)


def checked(operation: Operation) -> Parameters:
    """The parameters of an operation, of any version. Raises InputError for what does not exist or does not fit."""
    model = PARAMETERS.get(operation.name)
    if model is None:
        raise InputError(f"There is no operation {operation.name!r}; there are {', '.join(PARAMETERS)}.")
    try:
        return model.model_validate(upcast(operation).parameters)
    except ValidationError as error:
        raise InputError(describe(error, operation.name)) from error


def schema() -> dict[str, Any]:
    """The JSON schema (2020-12) of a stored list of operations."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "EDI operations",
        "description": "The steps of an edit, in order, replayed from the original at full resolution.",
        "type": "array",
        "items": {"oneOf": [_schema_of(name, model) for name, model in PARAMETERS.items()]},
    }


def _schema_of(name: str, model: type[Parameters]) -> dict[str, Any]:
    return {
        "title": name,
        "description": model.__doc__,
        "type": "object",
        "properties": {
            "version": {"const": VERSION},
            "name": {"const": name},
            "target": {"type": "string", "description": 'an entity id, "background" or "image"', "default": "image"},
            "parameters": model.model_json_schema(),
        },
        "required": ["version", "name"],
        "additionalProperties": False,
    }
