"""The choice of a preset and of a strength: Thompson sampling with a guard, and a holdout to compare with.

The probabilities are worked out first and the arm is then drawn from that very vector, so what is logged as the
propensity of a choice is the probability it had. The same profile, cell, arms and seed give the same choice.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from edi_storage.learning.profile import Belief, Profile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Share of the sessions that get the default whatever was learned.
HOLDOUT: Final = 0.10
#: What every arm gets at least of the rest, so that nothing is given up for ever.
LEAST: Final = 0.01
#: Both parameters of a Beta distribution are multiplied by this before it is drawn from: less trying out.
_SHARPNESS: Final = 4.0
_DRAWS: Final = 1000
#: Where the best arm is not this sure to be better than the default, only a part of what was learned applies.
_SURE: Final = 0.8
_UNSURE_SHARE: Final = 0.35
#: With fewer verdicts than this on the edit type or the label nothing is sure: three rejects in a row are chance.
FEWEST: Final = 10


@dataclass(frozen=True)
class Chosen:
    """An arm, with the probability that each arm had; they sum to 1. `holdout`: the default, whatever was learned."""

    arm: str
    probabilities: dict[str, float]
    holdout: bool = False

    @property
    def propensity(self) -> float:
        """The probability of the arm that was chosen, 0..1."""
        return self.probabilities[self.arm]


def seed_of(session_id: str, attempt: int) -> int:
    """The seed of a session's choice, 0..2**63-1: not of the clock, so that a choice made again is the same one."""
    return int.from_bytes(_digest(session_id, str(attempt))[:8], "big") >> 1


def choose(
    beliefs: Sequence[Belief],
    default: str,
    seed: int,
    *,
    verdicts: float = FEWEST,
    source: str = "",
    rejected: Collection[str] = (),
) -> Chosen:
    """Choose among the arms of `beliefs`, of which `default` is one. `source` names what is chosen, and from what.

    `verdicts` is how many stand behind the beliefs; with few of them the default keeps most, whatever they say.

    Arms that are `rejected` are left out, and what they had is shared out among the others in proportion; when all are,
    none is.
    """
    shares = _shares(tuple(beliefs), default, source, verdicts >= FEWEST)
    left = {arm: share for arm, share in shares.items() if arm not in rejected} or shares
    place = random.Random(f"{seed} {source}").random()  # noqa: S311 - not a secret
    if len(left) < len(shares):
        # The person has refused something: there is no first attempt to compare any more.
        total = sum(left.values())
        probabilities = {arm: share / total for arm, share in left.items()}
        return Chosen(_drawn(probabilities, place), probabilities)
    probabilities = {arm: (1 - HOLDOUT) * share + HOLDOUT * (arm == default) for arm, share in left.items()}
    holdout = is_holdout(seed)
    return Chosen(default if holdout else _drawn(left, place), probabilities, holdout)


def is_holdout(seed: int) -> bool:
    """Whether a session gets the default whatever was learned: the same for all that is chosen in it."""
    return random.Random(seed).random() < HOLDOUT  # noqa: S311 - not a secret


def only(arm: str) -> Chosen:
    """The choice where there is none."""
    return Chosen(arm, {arm: 1.0})


def _drawn(shares: dict[str, float], place: float) -> str:
    """The arm at `place`, 0..1, when each has a piece as long as its share."""
    last = ""
    for arm, share in shares.items():
        last = arm
        place -= share
        if place < 0:
            break
    return last


@lru_cache(maxsize=512)
def _shares(beliefs: tuple[Belief, ...], default: str, source: str, is_known: bool) -> dict[str, float]:
    """What each arm gets but for the holdout: how often it wins a draw from the beliefs, guarded, and a bit for all."""
    import numpy as np

    seed = int.from_bytes(_digest(source, default, *(belief.arm for belief in beliefs))[:8], "big")
    rng = np.random.default_rng(seed)
    alpha = np.array([belief.alpha for belief in beliefs])
    beta = np.array([belief.beta for belief in beliefs])
    drawn = rng.beta(_SHARPNESS * alpha, _SHARPNESS * beta, size=(_DRAWS, len(beliefs)))
    wins = np.bincount(drawn.argmax(axis=1), minlength=len(beliefs)) / _DRAWS
    at = next(number for number, belief in enumerate(beliefs) if belief.arm == default)
    if not is_known or _better_than(drawn, alpha / (alpha + beta), at) < _SURE:
        wins *= _UNSURE_SHARE
        wins[at] += 1 - _UNSURE_SHARE
    rest = 1 - LEAST * len(beliefs)
    return {belief.arm: float(rest * share + LEAST) for belief, share in zip(beliefs, wins, strict=True)}


def _better_than(drawn: NDArray[np.float64], means: NDArray[np.float64], default: int) -> float:
    """How sure it is that the best arm is better than the default, 0..1."""
    best = int(means.argmax())
    return float((drawn[:, best] > drawn[:, default]).mean())


def _digest(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(parts).encode()).digest()


# --- With a profile ----------------------------------------------------------------------------------


def choose_preset(
    profile: Profile,
    edit_type: str,
    label: str,
    arms: Sequence[str],
    default: str,
    seed: int,
    rejected: Collection[str] = (),
) -> Chosen:
    """Choose a preset for a cell."""
    return choose(
        profile.presets.beliefs(edit_type, label, arms),
        default,
        seed,
        verdicts=profile.presets.verdicts(edit_type, label),
        source=f"{profile.sha256}|{edit_type}|{label}|preset",
        rejected=rejected,
    )


def choose_strength(
    profile: Profile, edit_type: str, label: str, levels: Sequence[int], default: int, seed: int
) -> Chosen:
    """Choose a strength level; the default where nobody has said yet that another one would be better."""
    arms = [str(level) for level in levels]
    if not any(profile.strengths.has(edit_type, label, arm) for arm in arms if arm != str(default)):
        return only(str(default))
    return choose(
        profile.strengths.beliefs(edit_type, label, arms),
        str(default),
        seed,
        verdicts=profile.strengths.verdicts(edit_type, label),
        source=f"{profile.sha256}|{edit_type}|{label}|strength",
    )
