"""How often the validator's verdicts on constructed edits are those that a person would give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flows.engines.base import ValidationRequest
from flows.engines.scoring import count, decide
from flows.engines.validation import EmbeddedValidator
from tests.quality.constructed import HELD, TUNED, Case
from tests.quality.figures import Figure

_BAR = 0.95


@dataclass(frozen=True)
class Judged:
    """One edit as the validator judged it: what it got wrong, by entity, and the decision."""

    case: Case
    wrong: dict[str, str]
    decision: str

    @property
    def right(self) -> bool:
        """Whether every verdict and the decision are a person's."""
        return not self.wrong and self.decision == self.case.decision

    def __str__(self) -> str:
        missed = [f"{name} {verdict}, not {self.case.verdicts.get(name)}" for name, verdict in self.wrong.items()]
        missed += [f"{self.decision}, not {self.case.decision}"] * (self.decision != self.case.decision)
        return f"{self.case.scene}: {self.case.name}: {'; '.join(missed) or 'right'}"


def judge(case: Case) -> Judged:
    """Validate one constructed edit."""
    drawn = case.drawn
    request = ValidationRequest(drawn.pixels, case.edited, drawn.masks, drawn.analysis, case.intent, [])
    result = EmbeddedValidator().validate(request)
    wrong = {d.entity_id: d.verdict for d in result.deltas if d.verdict not in case.expected(d.entity_id)}
    counts = count(result)
    return Judged(case, wrong, decide(counts.score, counts.applied, 1, 3))


def measure() -> list[Figure]:
    """The share of edits judged rightly in all they have, and of single verdicts; the held-out photo apart."""
    tuned, held = [judge(case) for case in TUNED], [judge(case) for case in HELD]
    for judged in (*tuned, *held):
        if not judged.right:
            print(f"validation, wrong: {judged}")
    return [*_figures("constructed edits", tuned), *_figures("held-out edits", held)]


def _figures(name: str, judged: Sequence[Judged]) -> list[Figure]:
    verdicts = sum(len(one.case.drawn.masks) for one in judged)
    right = verdicts - sum(len(one.wrong) for one in judged)
    whole = sum(one.right for one in judged)
    return [
        Figure(f"validation, {name}: all verdicts and the decision", whole / len(judged), _BAR, f"{len(judged)} edits"),
        Figure(f"validation, {name}: single verdicts", right / verdicts, _BAR, f"{verdicts} verdicts"),
    ]
