"""Whether the engines of the settings could work now: one short look at each that is configured, and at no other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from edi_storage.errors import EdiError, InputError
from flows.engines import analyzer, editor, names_in, reasoner, validator
from flows.engines.backends import Backends


@dataclass(frozen=True)
class Health:
    """What a look at one engine showed. `message` is one sentence."""

    setting: str
    engine: str
    ok: bool
    message: str


def health(chosen: Mapping[str, str], backends: Backends) -> list[Health]:
    """Look at each engine that `chosen` names, by setting ("EDI_EDITOR": "comfyui,embedded")."""
    found = []
    for setting, names in chosen.items():
        try:
            listed = names_in(setting, names)
        except InputError as error:
            found.append(Health(setting, names, False, str(error)))
            continue
        found += [_look(setting, name, backends) for name in listed]
    return found


def _look(setting: str, name: str, backends: Backends) -> Health:
    try:
        return Health(setting, name, True, _LOOKS.get(name, _embedded)(setting, backends))
    except EdiError as error:
        return Health(setting, name, False, str(error))
    except Exception as error:  # noqa: BLE001 - whatever keeps an engine from being loaded is what doctor is asked for
        return Health(setting, name, False, f"It cannot be loaded: {error or type(error).__name__}.")


def _embedded(setting: str, backends: Backends) -> str:
    makers: Mapping[str, Callable[..., object]] = {
        "EDI_ANALYZER": analyzer,
        "EDI_REASONER": reasoner,
        "EDI_EDITOR": editor,
        "EDI_VALIDATOR": validator,
    }
    engine = makers[setting]("embedded", backends)
    # An engine with models of its own says itself whether they load.
    getattr(engine, "check", lambda: None)()
    return f"Loaded, version {getattr(engine, 'version', '?')}."


def _comfyui(setting: str, backends: Backends) -> str:
    from flows.engines.comfyui_jobs import Jobs
    from flows.engines.http import Server
    from flows.engines.workflow import load_workflow

    if not backends.comfyui_url:
        raise InputError("EDI_COMFYUI_URL is not set: say where ComfyUI is.")
    workflow = load_workflow(backends.comfyui_workflow)
    jobs = Jobs(Server("ComfyUI", "EDI_COMFYUI_URL", backends.comfyui_url), backends.comfyui_seconds)
    version = jobs.version()
    if "checkpoint" in workflow.slots:
        listed = jobs.checkpoints()
        if backends.comfyui_checkpoint not in listed:
            named = ", ".join(listed[:8]) or "none is installed there"
            given = f"is {backends.comfyui_checkpoint}" if backends.comfyui_checkpoint else "is not set"
            raise InputError(f"EDI_COMFYUI_CHECKPOINT {given}: name a model that ComfyUI has ({named}).")
    return f"ComfyUI {version} answers at {backends.comfyui_url}, workflow {workflow.digest}."


def _chat(setting: str, backends: Backends, name: str) -> str:
    from flows.engines import chat

    kind = chat.OllamaReasoner if name == "ollama" else chat.OpenAIReasoner
    if not (backends.chat_url and backends.chat_model):
        raise InputError(f"EDI_CHAT_{'MODEL' if backends.chat_url else 'URL'} is not set.")
    listed = kind(backends).models()
    if backends.chat_model not in listed:
        named = ", ".join(listed[:8]) or "none"
        raise InputError(f"The server at {backends.chat_url} has no model {backends.chat_model}; it has: {named}.")
    return f"The server at {backends.chat_url} has the model {backends.chat_model}."


def _sam(setting: str, backends: Backends) -> str:
    from flows.engines.segment_anything import check_models

    check_models(backends)
    return f"The models are in {backends.grounding_model} and {backends.sam_model}."


_LOOKS: Final[Mapping[str, Callable[[str, Backends], str]]] = {
    "comfyui": _comfyui,
    "ollama": lambda setting, backends: _chat(setting, backends, "ollama"),
    "openai": lambda setting, backends: _chat(setting, backends, "openai"),
    "sam": _sam,
}
