"""The engines, one per stage, chosen by name. Importing this costs nothing: an engine is imported when asked for.

Several names with commas between are a fallback order: the first that works does the stage (see `fallback`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from edi_storage.errors import InputError

if TYPE_CHECKING:
    from flows.engines.backends import Backends
    from flows.engines.base import Analyzer, Editor, Reasoner, Validator

__all__ = ["analyzer", "editor", "names_in", "reasoner", "validator"]

#: For each setting the names it takes, and where the engine is.
_ENGINES: Final[Mapping[str, Mapping[str, tuple[str, str]]]] = {
    "EDI_ANALYZER": {
        "embedded": ("flows.engines.analysis", "EmbeddedAnalyzer"),
        "sam": ("flows.engines.segment_anything", "SegmentAnythingAnalyzer"),
    },
    "EDI_REASONER": {
        "embedded": ("flows.engines.reasoning", "EmbeddedReasoner"),
        "ollama": ("flows.engines.chat", "OllamaReasoner"),
        "openai": ("flows.engines.chat", "OpenAIReasoner"),
    },
    "EDI_EDITOR": {
        "embedded": ("flows.engines.editing", "EmbeddedEditor"),
        "comfyui": ("flows.engines.comfyui", "ComfyUIEditor"),
    },
    "EDI_VALIDATOR": {"embedded": ("flows.engines.validation", "EmbeddedValidator")},
}

#: For each setting what tries several engines in their order.
_FALLBACKS: Final[Mapping[str, str]] = {
    "EDI_ANALYZER": "FallbackAnalyzer",
    "EDI_REASONER": "FallbackReasoner",
    "EDI_EDITOR": "FallbackEditor",
    "EDI_VALIDATOR": "FallbackValidator",
}


def analyzer(names: str = "embedded", backends: Backends | None = None) -> Analyzer:
    """The analyzer of that name, or of those. Raises InputError, as do the others, for a name that is none."""
    engine: Analyzer = _make("EDI_ANALYZER", names, backends)
    return engine


def reasoner(names: str = "embedded", backends: Backends | None = None) -> Reasoner:
    """The reasoner of that name, or of those."""
    engine: Reasoner = _make("EDI_REASONER", names, backends)
    return engine


def editor(names: str = "embedded", backends: Backends | None = None) -> Editor:
    """The editor of that name, or of those."""
    engine: Editor = _make("EDI_EDITOR", names, backends)
    return engine


def validator(names: str = "embedded", backends: Backends | None = None) -> Validator:
    """The validator of that name, or of those."""
    engine: Validator = _make("EDI_VALIDATOR", names, backends)
    return engine


def names_in(setting: str, names: str) -> list[str]:
    """The engines that a setting such as "comfyui,embedded" names, in their order. Raises InputError."""
    choices = _ENGINES[setting]
    listed = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    for name in listed or [""]:
        if name not in choices:
            known = ", ".join(sorted(choices))
            raise InputError(f"{setting} is {names!r}, but there is no such engine here; set it to one of: {known}.")
    return listed


def _make(setting: str, names: str, backends: Backends | None) -> Any:
    makers = {name: partial(_one, setting, name, backends) for name in names_in(setting, names)}
    if len(makers) == 1:
        return next(iter(makers.values()))()
    fallback: Callable[..., Any] = getattr(import_module("flows.engines.fallback"), _FALLBACKS[setting])
    return fallback(makers)


def _one(setting: str, name: str, backends: Backends | None) -> Any:
    module, attribute = _ENGINES[setting][name]
    kind = getattr(import_module(module), attribute)
    if name == "embedded" and setting != "EDI_REASONER":
        return kind()
    from flows.engines.backends import Backends

    return kind(backends or Backends())
