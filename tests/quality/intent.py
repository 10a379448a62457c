"""How well prompts are understood: `python -m tests.quality intent`.

`prompts.toml` has photos (described, not pictured) and what people type about them. Fields of a prompt, all but the
first two optional: `scene`, `text`; `type`, the edit type; `do`, the actions in order, with + or - for the direction;
`targets`, entity ids that change ("*" all of them, "-car_0" but this one); `kept`, ids that the prompt says must not
change; `degree`, "low" or "high"; `asks`, a question is due (then `type` and `targets` are those of its first choice);
`refused`, no embedded engine can do it. A field that is missing has no one right answer and is not judged.

A third of the prompts is held out, by the digest of their text. `python -m tests.quality.intent` prints what goes
wrong on the other two thirds, which are there to learn from, and never on the held-out one.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from edi_storage.errors import EdiError, UnsupportedEditError
from edi_storage.models import BoundingBox, EntityData, Intent, SceneAnalysis
from flows.engines.intent import SURE, understand
from flows.engines.steps import Step, steps_of
from tests.quality.figures import Figure

PROMPTS: Final = Path(__file__).with_name("prompts.toml")
#: Size of the described photos in pixels.
_WIDTH, _HEIGHT = 1200, 800
#: Upper ends of the bins of confidence.
_BINS: Final = (0.5, SURE, 0.85, 1.0)
#: Strengths from "a bit" down, and from "much" up.
_LOW, _HIGH = 0.45, 0.8


@dataclass(frozen=True)
class Case:
    """A prompt with what it means, and what the reasoner made of it: an intent or an error."""

    row: dict[str, Any]
    scene: SceneAnalysis
    intent: Intent | None
    error: EdiError | None

    @property
    def held_out(self) -> bool:
        digest = hashlib.sha256(self.row["text"].encode()).hexdigest()
        return int(digest, 16) % 3 == 0

    @property
    def targets(self) -> set[str]:
        """The entities that should change."""
        names: set[str] = set()
        for name in self.row["targets"]:
            if name == "*":
                names |= {entity.entity_id for entity in self.scene.entities}
            elif name.startswith("-"):
                names.discard(name[1:])
            else:
                names.add(name)
        return names

    @property
    def done(self) -> list[str]:
        return [] if self.intent is None else [_named(step) for step in steps_of(self.intent)]


def _named(step: Step) -> str:
    direction = step.parameters.get("direction")
    return step.action + ("" if direction is None else "+" if direction >= 0 else "-")


def type_right(case: Case) -> bool:
    return case.intent is not None and case.intent.edit_type == case.row["type"]


def targets_right(case: Case) -> bool:
    return case.intent is not None and set(case.intent.target_entities) == case.targets


def action_right(case: Case) -> bool:
    return case.done == case.row["do"]


def direction_right(case: Case) -> bool:
    """Each signed action that is asked for is there with its sign, and not with the other."""
    signed = {action for action in case.row["do"] if action[-1] in "+-"}
    turned = {action[:-1] + ("-" if action[-1] == "+" else "+") for action in signed}
    return signed <= set(case.done) and not (turned - signed) & set(case.done)


def kept_right(case: Case) -> bool:
    return case.intent is not None and set(case.row["kept"]) <= set(case.intent.preserve_entities)


def degree_right(case: Case) -> bool:
    if case.intent is None:
        return False
    return case.intent.strength <= _LOW if case.row["degree"] == "low" else case.intent.strength >= _HIGH


def asks(case: Case) -> bool:
    return case.intent is not None and case.intent.question is not None


def refuses(case: Case) -> bool:
    return isinstance(case.error, UnsupportedEditError)


def understood(case: Case) -> bool:
    """Type and targets are right, as far as the row says what they are."""
    return ("type" not in case.row or type_right(case)) and ("targets" not in case.row or targets_right(case))


@cache
def cases() -> tuple[Case, ...]:
    """All prompts, read once."""
    data = tomllib.loads(PROMPTS.read_text(encoding="utf-8"))
    scenes = {name: _scene(entry["entities"]) for name, entry in data["scenes"].items()}
    return tuple(_case(row, scenes[row["scene"]]) for row in data["prompts"])


def _case(row: dict[str, Any], scene: SceneAnalysis) -> Case:
    try:
        return Case(row, scene, understand(row["text"], scene), None)
    except EdiError as error:
        return Case(row, scene, None, error)


def _scene(entities: Sequence[dict[str, Any]]) -> SceneAnalysis:
    return SceneAnalysis(entities=[_entity(entry) for entry in entities], spatial_layout="As described.")


def _entity(entry: dict[str, Any]) -> EntityData:
    x, y, width, height = entry["box"]
    box = BoundingBox(
        x=round(x * _WIDTH / 100),
        y=round(y * _HEIGHT / 100),
        width=round(width * _WIDTH / 100),
        height=round(height * _HEIGHT / 100),
    )
    return EntityData(
        entity_id=entry["id"],
        label=entry["id"].rsplit("_", 1)[0].replace("_", " "),
        confidence=entry["confidence"],
        bbox_json=box.model_dump_json(),
        color_hex=entry["colour"],
        area_percent=entry["area"],
    )


#: Name, what is right, on which of the prompts, and the bar on the held-out third.
_JUDGED: Final[tuple[tuple[str, Callable[[Case], bool], Callable[[Case], bool], float | None], ...]] = (
    ("edit type", type_right, lambda case: _possible(case, "type"), 0.85),
    ("targets", targets_right, lambda case: _possible(case, "targets"), 0.90),
    ("actions, all of them", action_right, lambda case: _possible(case, "do"), None),
    ("direction", direction_right, lambda case: _possible(case, "do") and _is_signed(case), None),
    ("protected as said", kept_right, lambda case: _possible(case, "kept"), None),
    ("degree", degree_right, lambda case: _possible(case, "degree"), None),
    ("asks where it should", asks, lambda case: bool(case.row.get("asks")), None),
    ("does not ask what is clear", lambda case: not asks(case), lambda case: _clear(case), None),
    ("refuses what it cannot do", refuses, lambda case: bool(case.row.get("refused")), None),
    ("refuses nothing else", lambda case: case.error is None, lambda case: not case.row.get("refused"), None),
)


def _possible(case: Case, field: str) -> bool:
    return field in case.row and not case.row.get("refused")


def _clear(case: Case) -> bool:
    return not case.row.get("refused") and not case.row.get("asks")


def _is_signed(case: Case) -> bool:
    return any(action[-1] in "+-" for action in case.row["do"])


def measure() -> list[Figure]:
    """Every figure on the held-out third, then the same on the rest, then accuracy by confidence on all."""
    held = [case for case in cases() if case.held_out]
    rest = [case for case in cases() if not case.held_out]
    figures = _judge(held, "held-out prompts", bars=True) + _judge(rest, "prompts to learn from", bars=False)
    return figures + _calibration(held)


def _judge(chosen: Sequence[Case], of: str, bars: bool) -> list[Figure]:
    figures = []
    for name, right, judged, bar in _JUDGED:
        some = [case for case in chosen if judged(case)]
        share = sum(right(case) for case in some) / max(1, len(some))
        figures.append(Figure(f"intent: {name}", share, bar if bars else None, f"{len(some)} {of}"))
    return figures


def _calibration(chosen: Sequence[Case]) -> list[Figure]:
    """How often type and targets are right, by how sure the reasoner says that it is."""
    figures, low = [], 0.0
    for high in _BINS:
        some = [
            case
            for case in chosen
            if case.intent is not None
            and not case.row.get("refused")
            and (low <= case.intent.confidence < high or case.intent.confidence == high == _BINS[-1])
        ]
        share = sum(understood(case) for case in some) / max(1, len(some))
        figures.append(
            Figure(f"intent: right at confidence {low:g}-{high:g}", share, None, f"{len(some)} held-out prompts")
        )
        low = high
    return figures


def _failures() -> None:
    """Print what goes wrong on the prompts to learn from, one line for each."""
    for case in cases():
        if case.held_out:
            continue
        wrong = [name for name, right, judged, _ in _JUDGED if judged(case) and not right(case)]
        if wrong:
            got = str(case.error) if case.intent is None else f"{case.done} {case.intent.target_entities}"
            question = "" if case.intent is None or case.intent.question is None else f" ? {case.intent.question.text}"
            print(f"[{case.row['scene']}] {case.row['text']}\n    {', '.join(wrong)}: {got[:140]}{question}")


if __name__ == "__main__":
    _failures()
