"""What is known of presets and strengths, as a document: counts of verdicts, from which every estimate follows.

    {"format": 1,
     "presets":   [[edit type, label, preset, verdicts, reward], ...],
     "strengths": [[edit type, label, level 1..5, weight, reward], ...]}

A reward is 1 for accept, 0.5 for partial and 0 for reject, summed. What the person asked for by name is not in it: it
was no choice, and people like what they asked for.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from edi_storage.errors import InputError
from edi_storage.learning_models import LEVELS, PresetCell
from edi_storage.state import canonical

FORMAT: Final = 1
#: Pseudo-counts that shrink the mean of a preset within one edit type, or on one label, to the additive estimate.
SHRINKAGE: Final = 20.0
#: Pseudo-counts of the prior of a cell.
PRIOR_WEIGHT: Final = 12.0
#: Before anything is known at all: one accept and one reject.
_INNOCENT: Final = (2.0, 1.0)

#: Verdicts and summed reward. Verdicts moved from another strength count by halves.
Tally = tuple[float, float]
Key = tuple[str, ...]


@dataclass(frozen=True)
class Belief:
    """What is believed of one arm: a Beta distribution around `prior`, moved by `count` verdicts of summed `reward`."""

    arm: str
    count: float
    reward: float
    prior: float

    @property
    def alpha(self) -> float:
        return PRIOR_WEIGHT * self.prior + self.reward

    @property
    def beta(self) -> float:
        return PRIOR_WEIGHT * (1 - self.prior) + self.count - self.reward

    @property
    def mean(self) -> float:
        """Expected acceptance, 0..1."""
        return self.alpha / (self.alpha + self.beta)


class Profile:
    """One version of what was learned; reads the document that `document_of` writes.

    Raises InputError for a document of another format.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        if document.get("format") != FORMAT:
            raise InputError(f"This version of EDI cannot read a profile of format {document.get('format')}.")
        self.document = document
        self.sha256 = hashlib.sha256(canonical(document).encode()).hexdigest()

    @cached_property
    def presets(self) -> Tallies:
        """By preset; those of different kinds are alike where their arms have the same name."""
        return Tallies((str(t), str(label), str(name), n, k) for t, label, name, n, k in self.document["presets"])

    @cached_property
    def strengths(self) -> Tallies:
        """By strength level."""
        return Tallies((str(t), str(label), str(level), n, k) for t, label, level, n, k in self.document["strengths"])


class Tallies:
    """Sums of verdicts by edit type, label and arm, and what they make one believe of an arm in a cell."""

    def __init__(self, cells: Iterable[tuple[str, str, str, float, float]]) -> None:
        self.cells: dict[Key, Tally] = {}
        self._sums: dict[Key, Tally] = {}
        for edit_type, label, arm, count, reward in cells:
            _add(self.cells, (edit_type, label, arm), count, reward)
            character = character_of(arm)
            for key in (
                ("type", edit_type, arm),
                ("label", label, character),
                ("arm", character),
                ("any type", edit_type),
                ("any label", label),
                ("cell", edit_type, label),
                ("all",),
            ):
                _add(self._sums, key, count, reward)

    def has(self, edit_type: str, label: str, arm: str) -> bool:
        """Whether anybody has judged this arm in this cell."""
        return self.cells.get((edit_type, label, arm), (0.0, 0.0))[0] > 0

    def verdicts(self, edit_type: str, label: str) -> float:
        """How many verdicts there are on this edit type or on this label."""
        of_type, on_label, both = (
            self._sums.get(key, (0.0, 0.0))[0]
            for key in (("any type", edit_type), ("any label", label), ("cell", edit_type, label))
        )
        return of_type + on_label - both

    def beliefs(self, edit_type: str, label: str, arms: Sequence[str]) -> list[Belief]:
        """What to believe of each arm in a cell that may have few verdicts of its own.

        The prior of an arm is additive in logits: how it does in this edit type, plus how it does on this label, less
        how it does everywhere. Both means are shrunk to what is expected without an interaction.
        """
        found = []
        for arm in arms:
            count, reward = self.cells.get((edit_type, label, arm), (0.0, 0.0))
            found.append(Belief(arm, count, reward, self._prior(edit_type, label, arm)))
        return found

    def _prior(self, edit_type: str, label: str, arm: str) -> float:
        character = character_of(arm)
        everywhere = self._mean(("all",), 0.5, _INNOCENT[0])
        of_arm = self._mean(("arm", character), everywhere)
        of_type = self._mean(("any type", edit_type), everywhere)
        of_label = self._mean(("any label", label), everywhere)
        base = _logit(of_arm) - _logit(everywhere)
        in_type = self._mean(("type", edit_type, arm), _sigmoid(base + _logit(of_type)))
        on_label = self._mean(("label", label, character), _sigmoid(base + _logit(of_label)))
        return _sigmoid(_logit(in_type) + _logit(on_label) - _logit(of_arm))

    def _mean(self, key: Key, expected: float, weight: float = SHRINKAGE) -> float:
        count, reward = self._sums.get(key, (0.0, 0.0))
        return (reward + weight * expected) / (count + weight)


def _add(sums: dict[Key, Tally], key: Key, count: float, reward: float) -> None:
    before = sums.get(key, (0.0, 0.0))
    sums[key] = (before[0] + count, before[1] + reward)


def character_of(arm: str) -> str:
    """What arms of different kinds may share: "vivid: soft" and "brighten: soft" are both soft."""
    return arm.rpartition(": ")[2]


def _logit(share: float) -> float:
    limited = min(1 - 1e-6, max(1e-6, share))
    return math.log(limited / (1 - limited))


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


# --- From cells --------------------------------------------------------------------------------------


def document_of(cells: Iterable[PresetCell]) -> dict[str, Any]:
    """The document of what these cells say; the same cells give the same document."""
    presets: dict[Key, Tally] = {}
    strengths: dict[Key, Tally] = {}
    for cell in cells:
        if not cell.count:
            continue
        if cell.preset:
            _add(presets, (cell.edit_type, cell.label, cell.preset), cell.count, cell.reward)
        if cell.strength:
            _judge_strengths(strengths, cell)
    return {
        "format": FORMAT,
        "presets": [[*key, *_plain(tally)] for key, tally in sorted(presets.items())],
        "strengths": [[*key[:2], int(key[2]), *_plain(tally)] for key, tally in sorted(strengths.items())],
    }


def _judge_strengths(strengths: dict[Key, Tally], cell: PresetCell) -> None:
    """A verdict is about its strength; one that says "too strong" is about the others too.

    What was too strong would have been so at every level above, and half as likely as not fine at the one below; too
    weak likewise, the other way round.
    """
    where = (cell.edit_type, cell.label)
    _add(strengths, (*where, str(cell.strength)), cell.count, cell.reward)
    for complaints, direction in ((cell.too_strong, -1), (cell.too_weak, 1)):
        if complaints <= 0:
            continue
        better = cell.strength + direction
        if better in LEVELS:
            _add(strengths, (*where, str(better)), 0.5 * complaints, 0.5 * complaints)
        for level in LEVELS:
            if (level - cell.strength) * direction < 0:
                _add(strengths, (*where, str(level)), 0.5 * complaints, 0.0)


def _plain(tally: Tally) -> list[float | int]:
    return [int(number) if float(number).is_integer() else number for number in tally]
