"""The engines, one per stage, chosen by name. Importing this costs nothing: an engine is imported when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from edi_storage.errors import InputError

if TYPE_CHECKING:
    from flows.engines.base import Analyzer, Editor, Reasoner, Validator

__all__ = ["analyzer", "editor", "reasoner", "validator"]

#: For each setting the names it takes, and where the engine is.
_ENGINES: Final[Mapping[str, Mapping[str, tuple[str, str]]]] = {
    "EDI_ANALYZER": {"embedded": ("flows.engines.analysis", "EmbeddedAnalyzer")},
    "EDI_REASONER": {"embedded": ("flows.engines.reasoning", "EmbeddedReasoner")},
    "EDI_EDITOR": {"embedded": ("flows.engines.editing", "EmbeddedEditor")},
    "EDI_VALIDATOR": {"embedded": ("flows.engines.validation", "EmbeddedValidator")},
}


def analyzer(name: str = "embedded") -> Analyzer:
    """The analyzer of that name. Raises InputError, as do the others, for a name that is none."""
    engine: Analyzer = _make("EDI_ANALYZER", name)
    return engine


def reasoner(name: str = "embedded") -> Reasoner:
    """The reasoner of that name."""
    engine: Reasoner = _make("EDI_REASONER", name)
    return engine


def editor(name: str = "embedded") -> Editor:
    """The editor of that name."""
    engine: Editor = _make("EDI_EDITOR", name)
    return engine


def validator(name: str = "embedded") -> Validator:
    """The validator of that name."""
    engine: Validator = _make("EDI_VALIDATOR", name)
    return engine


def _make(setting: str, name: str) -> Any:
    choices = _ENGINES[setting]
    if name not in choices:
        listed = ", ".join(sorted(choices))
        raise InputError(f"{setting} is {name!r}, but there is no such engine here; set it to one of: {listed}.")
    module, attribute = choices[name]
    return getattr(import_module(module), attribute)()
