"""Made-up worlds of people and their tastes, in which the shipped choice and the shipped counting are tried out.

A world is sessions -> decisions -> verdicts. What is chosen, and what is learned of the verdicts, is done by the code
that ships: `choose_preset`, `document_of` and `Profile` of `edi_storage.learning`. Only SQLite is left out for speed:
`Counts` adds up the same cells in memory that `EDIDatabase.fold_feedback` adds up by SQL (a test compares the two).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edi_storage.learning.choice import Chosen, choose_preset, only, seed_of
from edi_storage.learning.profile import Profile, document_of
from edi_storage.learning_models import PresetCell

EDIT_TYPES = tuple(f"type {number}" for number in range(6))
LABELS = tuple(f"label {number}" for number in range(8))
PRESETS = tuple(f"preset {number}" for number in range(5))
DEFAULT = PRESETS[0]
#: Sessions between two runs of the learning.
LEARN_EVERY = 10
WRONG = 0.05
#: Share of the attempts that a person does not quite like, of which they say "partial".
PARTIAL = 0.3


@dataclass(frozen=True)
class Tastes:
    """How strong people's tastes are, as standard deviations in logits."""

    level: float = 0.35
    arm: float = 0.12
    by_type: float = 0.55
    by_label: float = 0.55
    by_cell: float = 0.40
    #: Whether the default is already the preset that is accepted most on the whole.
    good_default: bool = False


USUAL = Tastes()
NULL = Tastes(arm=0.0, by_type=0.0, by_label=0.0, by_cell=0.0)
WEAK = Tastes(arm=0.06, by_type=0.275, by_label=0.275, by_cell=0.2)
GOOD_DEFAULT = Tastes(good_default=True)


@dataclass(frozen=True)
class Session:
    """One first attempt: what was chosen, how likely it was to be accepted, and what the person said."""

    number: int
    edit_type: str
    label: str
    chosen: Chosen
    profile_version: int | None
    acceptance: float
    default_acceptance: float
    verdict: str

    @property
    def reward(self) -> float:
        return {"accept": 1.0, "partial": 0.5, "reject": 0.0}[self.verdict]


@dataclass
class Counts:
    """The cells of `learning_cells`, in memory."""

    cells: dict[tuple[str, str, str], PresetCell] = field(default_factory=dict)

    def add(self, edit_type: str, label: str, preset: str, verdict: str) -> None:
        key = (edit_type, label, preset)
        cell = self.cells.setdefault(key, PresetCell(edit_type=edit_type, label=label, preset=preset))
        name = {"accept": "accepted", "partial": "partial", "reject": "rejected"}[verdict]
        self.cells[key] = cell.model_copy(update={name: cell[name] + 1})


class World:
    """Acceptance by edit type, label and preset, and how often each cell comes up; fixed by its seed."""

    def __init__(self, seed: int, tastes: Tastes = USUAL) -> None:
        rng = np.random.default_rng([seed, 20260601])
        shape = (len(EDIT_TYPES), len(LABELS), len(PRESETS))
        logits = 0.1 + rng.normal(0, tastes.arm, shape[2])[None, None, :]
        logits = logits + rng.normal(0, tastes.level, shape[0])[:, None, None]
        logits = logits + rng.normal(0, tastes.level, shape[1])[None, :, None]
        logits = logits + rng.normal(0, tastes.by_type, (shape[0], shape[2]))[:, None, :]
        logits = logits + rng.normal(0, tastes.by_label, (shape[1], shape[2]))[None, :, :]
        logits = logits + rng.normal(0, tastes.by_cell, shape)
        self.seed = seed
        self.acceptance = 1 / (1 + np.exp(-logits))
        self._cells = _popularity(rng, shape[0])[:, None] * _popularity(rng, shape[1])[None, :]
        if tastes.good_default:
            best = int(self._by_arm().argmax())
            self.acceptance[:, :, [0, best]] = self.acceptance[:, :, [best, 0]]

    def means(self) -> dict[str, float]:
        """Acceptance of the default, of the one preset that is best on the whole, and of the best in each cell."""
        by_arm = self._by_arm()
        oracle = float((self.acceptance.max(axis=2) * self._cells).sum())
        return {"default": float(by_arm[0]), "global best": float(by_arm.max()), "oracle": oracle}

    def _by_arm(self) -> NDArray[np.float64]:
        return np.asarray((self.acceptance * self._cells[:, :, None]).sum(axis=(0, 1)))

    def run(self, sessions: int, *, learning: bool = True) -> Iterator[Session]:
        """So many sessions, one after the other, learning as they come."""
        rng = np.random.default_rng([self.seed, 7])
        counts, profile, version = Counts(), None, None
        kinds = rng.choice(self._cells.size, size=sessions, p=self._cells.ravel())
        for number in range(sessions):
            of_type, of_label = divmod(int(kinds[number]), len(LABELS))
            edit_type, label = EDIT_TYPES[of_type], LABELS[of_label]
            if profile is None:
                chosen = only(DEFAULT)
            else:
                seed = seed_of(f"world-{self.seed}-session-{number}", 1)
                chosen = choose_preset(profile, edit_type, label, PRESETS, DEFAULT, seed)
            p = self.acceptance[of_type, of_label]
            verdict = _verdict(rng, float(p[PRESETS.index(chosen.arm)]))
            yield Session(
                number, edit_type, label, chosen, version, float(p[PRESETS.index(chosen.arm)]), float(p[0]), verdict
            )
            counts.add(edit_type, label, chosen.arm, verdict)
            if learning and (number + 1) % LEARN_EVERY == 0:
                profile, version = Profile(document_of(counts.cells.values())), (version or 0) + 1


def _popularity(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """What people ask for is uneven: the n-th most popular thing about 1/sqrt(n) as often as the first."""
    shares = np.array([1 / math.sqrt(rank) for rank in range(1, count + 1)])
    rng.shuffle(shares)
    return shares / shares.sum()


def _verdict(rng: np.random.Generator, acceptance: float) -> str:
    likes = bool(rng.random() < acceptance)
    if rng.random() < WRONG:
        likes = not likes
    if likes:
        return "accept"
    return "partial" if rng.random() < PARTIAL else "reject"
