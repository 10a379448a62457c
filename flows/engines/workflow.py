"""A ComfyUI workflow with named slots: loaded, checked, and filled in.

The file is ComfyUI's API format: a JSON object of nodes by their number, each with `class_type` and `inputs`. Wherever
an input is a text, it may be or contain a slot such as `{{positive}}`; one that is nothing but a slot takes the slot's
own type, so `"seed": "{{seed}}"` becomes a number.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edi_storage.errors import InputError

#: Every slot, and what it is filled with.
SLOTS: Final[Mapping[str, str]] = {
    "image": "name of the uploaded photo",
    "mask": "name of the uploaded mask: white is what may change",
    "positive": "what to do",
    "negative": "what not to do",
    "seed": "a whole number, the same for the same prompt and attempt",
    "denoise": "0 to 1: how much the sampler may change",
    "strength": "0 to 1: how strong the edit should be",
    "width": "pixels of the uploaded photo",
    "height": "pixels of the uploaded photo",
    "checkpoint": "EDI_COMFYUI_CHECKPOINT",
    "filename_prefix": "for SaveImage; another one for every job",
}

PACKAGED: Final = Path(__file__).parent / "templates" / "comfyui-inpaint.json"
_SLOT = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_MOST: Final = 4 << 20


@dataclass(frozen=True)
class Workflow:
    """A checked workflow. `called` is its file, for sentences about it."""

    nodes: Mapping[str, Any]
    called: str

    @property
    def slots(self) -> frozenset[str]:
        """The names of the slots that it has."""
        return frozenset(_slots_in(self.nodes))

    @property
    def digest(self) -> str:
        """Twelve hex digits that tell one workflow from another."""
        return hashlib.sha256(json.dumps(self.nodes, sort_keys=True).encode()).hexdigest()[:12]

    def filled(self, values: Mapping[str, str | int | float]) -> dict[str, Any]:
        """The workflow as it is sent; `values` by slot."""
        filled: dict[str, Any] = _fill(self.nodes, values)
        return filled


def load_workflow(path: Path | None) -> Workflow:
    """The person's workflow, or the packaged one. Raises InputError for one that cannot work, saying why."""
    called = f"EDI_COMFYUI_WORKFLOW ({path})" if path else "the packaged workflow"
    file = path.expanduser() if path else PACKAGED
    try:
        data = file.read_bytes() if file.stat().st_size <= _MOST else b""
        nodes = json.loads(data)
    except OSError as error:
        raise InputError(f"{called} cannot be read ({error.strerror}): give the path of a workflow.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{called} is not JSON: export it from ComfyUI in the API format.") from error
    if isinstance(nodes, dict) and isinstance(nodes.get("nodes"), list):
        raise InputError(f"{called} is in the format of ComfyUI's editor: export it in the API format instead.")
    workflow = Workflow(_checked_nodes(nodes, called), called)
    if unknown := sorted(workflow.slots - SLOTS.keys()):
        raise InputError(f"{called} has a slot {{{{{unknown[0]}}}}} that EDI does not know: use {', '.join(SLOTS)}.")
    if "image" not in workflow.slots:
        raise InputError(f"{called} has no slot {{{{image}}}}: put it where a LoadImage node names its picture.")
    return workflow


def _checked_nodes(nodes: Any, called: str) -> Mapping[str, Any]:
    wrong = not isinstance(nodes, dict) or not nodes
    for node in nodes.values() if isinstance(nodes, dict) else ():
        wrong |= not (isinstance(node, dict) and isinstance(node.get("class_type"), str))
        wrong |= not (isinstance(node, dict) and isinstance(node.get("inputs"), dict))
    if wrong:
        raise InputError(f"{called} is no workflow: each node needs class_type and inputs, as in ComfyUI's API format.")
    checked: Mapping[str, Any] = nodes
    return checked


def _slots_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from _SLOT.findall(value)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _slots_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from _slots_in(item)


def _fill(value: Any, values: Mapping[str, str | int | float]) -> Any:
    if isinstance(value, str):
        if whole := _SLOT.fullmatch(value):
            return values[whole[1]]
        return _SLOT.sub(lambda slot: str(values[slot[1]]), value)
    if isinstance(value, Mapping):
        return {key: _fill(item, values) for key, item in value.items()}
    return [_fill(item, values) for item in value] if isinstance(value, list) else value
