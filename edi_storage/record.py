"""What all models have in common: the kinds of values that they hold, the checks of those, and their base.

Text never holds NUL or lone surrogates and numbers are never NaN or infinite: neither could be read back from a
checkpoint.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from edi_storage.errors import InputError

# `list | tuple` in its place would be made anew for each value.
_LISTS: Final = (list, tuple)
#: Readers give up on deep nesting, some by crashing; a state has about ten levels.
_MAX_LEVELS = 100
_SESSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
#: JSON as boxes have it, whole numbers of up to 18 digits under names: known at a third of the cost of reading it.
_NUMBERS: Final = re.compile(r'\{"\w+":(?:0|[1-9]\d{0,17})(?:,"\w+":(?:0|[1-9]\d{0,17}))*\}', re.ASCII)
_WINDOWS_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


def now_utc() -> datetime:
    """The present time, aware, in UTC."""
    return datetime.now(UTC)


def check_text(value: str) -> str:
    """Refuse NUL and lone surrogates: SQLite and JSON readers cut or reject them."""
    if "\x00" in value:
        raise ValueError("contains a NUL character")
    if value.isascii():
        return value
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("contains characters that are not valid Unicode (a lone surrogate)") from None
    return value


def check_json(value: Any) -> Any:
    """Refuse what JSON cannot carry unchanged: NaN, infinities, bad text, keys that are not text, foreign types.

    Whole numbers beyond 64 bits and more than 100 levels are refused too: written, they could not be read back.
    """
    _check_level(value, 0)
    return value


def _check_level(value: Any, level: int) -> None:
    if level > _MAX_LEVELS:
        raise ValueError(f"contains more than {_MAX_LEVELS} levels of nesting")
    if isinstance(value, str):
        check_text(value)
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise ValueError("contains a whole number of more than 64 bits")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("contains NaN or an infinite number")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError("contains a key that is not text")  # noqa: TRY004 - pydantic wants ValueError
            if not key.isidentifier():  # a name has neither
                check_text(key)
            _check_level(item, level + 1)
    elif isinstance(value, _LISTS):
        for item in value:
            _check_level(item, level + 1)
    elif value is not None:
        raise ValueError(f"contains a {type(value).__name__}, which JSON has no form for")


def check_session_id(value: str) -> str:
    """A session id becomes a file name, so it is letters, digits, `_` and `-`, at most 64, and no device name."""
    if not _SESSION_ID.fullmatch(value):
        raise ValueError("must be 1 to 64 letters, digits, '_' or '-', and start with a letter or a digit")
    if value.lower() in _WINDOWS_DEVICES:
        raise ValueError("is a reserved device name; choose another")
    return value


def _as_utc(value: datetime) -> datetime:
    """A time without a zone is taken as UTC, which is what the seed's CURRENT_TIMESTAMP means."""
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:
        raise ValueError("is too far in the past or the future") from None


def _is_json(value: str) -> str:
    if _NUMBERS.fullmatch(value):
        return value
    check_text(value)
    try:
        document = from_json(value)
    except ValueError:
        raise ValueError("is not JSON that can be read") from None
    check_json(document)
    return value


Text = Annotated[str, AfterValidator(check_text)]
SessionId = Annotated[str, AfterValidator(check_session_id)]
JsonObject = Annotated[dict[str, Any], AfterValidator(check_json)]
JsonText = Annotated[str, AfterValidator(_is_json)]
UtcTime = Annotated[datetime, AfterValidator(_as_utc)]
Unit = Annotated[float, Field(ge=0.0, le=1.0)]
Percent = Annotated[float, Field(ge=0.0, le=100.0)]
# Neither SQLite nor most readers of JSON have larger numbers.
Whole = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
Ordinal = Annotated[int, Field(ge=1, le=2**63 - 1)]


class Record(BaseModel):
    """Base of all models: strict about unknown fields and bad numbers, and readable like the seed's dicts."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, populate_by_name=True)

    def __getitem__(self, key: str) -> Any:
        try:
            return getattr(self, key)
        except AttributeError:
            raise KeyError(key) from None

    def get(self, key: str, default: Any = None) -> Any:
        """The field `key`, or `default` where the model has no such field."""
        return getattr(self, key, default)

    def keys(self) -> Iterator[str]:
        """The field names, so that `dict(record)` works."""
        return iter(type(self).model_fields)

    def items(self) -> Iterator[tuple[str, Any]]:
        """The fields with their values, as in a dict."""
        return ((name, getattr(self, name)) for name in self.keys())

    def __contains__(self, key: object) -> bool:
        return key in type(self).model_fields

    @classmethod
    def checked(cls, data: Self | Mapping[str, Any]) -> Self:
        """Validate a model or a plain mapping; raise InputError with one sentence when it does not fit.

        `model_fields_set` of a model stays what it is: which fields were given, not filled in.
        """
        if not isinstance(data, (Record, Mapping)):
            raise InputError(f"{cls.__name__} must be given as a model or a mapping, not as {type(data).__name__}.")
        given = data.model_fields_set if isinstance(data, cls) else None
        try:
            record = cls.model_validate(data.model_dump() if isinstance(data, cls) else dict(data))
        except ValidationError as error:
            raise InputError(describe(error, cls.__name__)) from error
        if given is not None:
            record.model_fields_set.intersection_update(given)
        return record


def describe(error: ValidationError, what: str) -> str:
    """One sentence for a person: what, where, and what is wrong with it."""
    first = error.errors(include_url=False)[0]
    where = _printable(".".join(str(part) for part in first["loc"])) or what
    reason = first["msg"].removeprefix("Value error, ")
    more = error.error_count() - 1
    return f"{what}: {where} {_verb(reason)}{reason}" + (f" (and {more} more)" if more else "") + "."


def _printable(name: str) -> str:
    """A field's name may come from a file: short, on one line, and without what no terminal can print."""
    plain = name.encode("utf-8", "backslashreplace").decode()
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in plain[:80])


def _verb(reason: str) -> str:
    return "" if reason.startswith(("must", "is ", "contains")) else "is not right: "
