"""A household whose tastes are known: what it asks for, what is chosen for it by the shipped code, and what it says.

`python -m tests.learning.household HOME 500` makes such a history in a new EDI_HOME, to look at what is reported of it.
"""

from __future__ import annotations

import random
import sys
from datetime import timedelta
from pathlib import Path
from typing import Final

from edi_storage.learning import profile as profiles
from edi_storage.learning.choice import choose_preset, choose_strength, is_holdout, only, seed_of
from edi_storage.learning_models import LEVELS, LoggedDecision
from edi_storage.models import Consent, FeedbackType, Reason
from edi_storage.settings import Settings
from edi_storage.store import Store, open_store
from flows.learned.kinds import kinds
from tests.learning.histories import THEN, Attempt, Past, put

#: What is asked for, how often: kind, edit type, label, prompts.
WISHES: Final = (
    ("dramatic sky", "style", "sky", 5, ("make the sky dramatic", "a dramatic sky please", "dramatic evening sky")),
    ("warmer", "color", "image", 4, ("make it warmer", "warmer light", "a warmer evening mood")),
    ("brighten", "color", "person", 3, ("brighten the person", "make her face brighter", "brighter portrait")),
    ("vivid", "color", "vegetation", 2, ("make the trees vivid", "more vivid meadow", "vivid green trees")),
    ("blurred background", "style", "background", 2, ("blur the background", "soft background", "portrait blur")),
    ("better", "style", "image", 1, ("make it better", "enhance it", "improve this old photo")),
)
#: How likely this household accepts a way on the first try; 0.5 for all others.
TASTE: Final = {
    "dramatic sky: usual": 0.45,
    "dramatic sky: golden": 0.85,
    "dramatic sky: stormy": 0.35,
    "warmer: usual": 0.6,
    "warmer: soft": 0.85,
    "brighten: usual": 0.4,
    "brighten: airy": 0.75,
    "brighten: crisp": 0.2,
    "vivid: usual": 0.7,
    "vivid: punchy": 0.4,
    "blurred background: usual": 0.55,
    "blurred background: strong": 0.35,
}
#: What it says in its own words, where it does not choose the chip.
SAID: Final[dict[Reason, str]] = {"too weak": "hardly visible", "colour": "the colour of the skin is wrong"}
LEARN_EVERY: Final = 20


def live(store: Store, sessions: int, *, seed: int = 1, consent: Consent = "export") -> None:
    """Let the household edit so many photos, one after the other, and learn of it every twenty."""
    random_ = random.Random(seed)
    known: profiles.Profile | None = None
    version: int | None = None
    for number in range(sessions):
        session_id = f"edit-{number:05}"
        kind, edit_type, label, _, prompts = random_.choices(WISHES, [wish[3] for wish in WISHES])[0]
        decision = _decide(known, version, edit_type, label, kind, session_id)
        past = Past(
            session_id,
            [_attempt(random_, decision)],
            prompt=random_.choice(prompts),
            edit_type=edit_type,
            label=label,
            consent=consent,
            made=THEN + timedelta(hours=6 * number),
        )
        put(store, past)
        if number % LEARN_EVERY == LEARN_EVERY - 1:
            run = store.database.fold_feedback()
            document = profiles.document_of(store.database.preset_cells())
            store.database.save_profile(document, run.seq_to)
            active = store.database.active_profile()
            assert active is not None
            known, version = profiles.Profile(active.profile), active.version


def _decide(
    known: profiles.Profile | None, version: int | None, edit_type: str, label: str, kind: str, session_id: str
) -> LoggedDecision:
    """As the stage of refinement decides."""
    ways, seed = kinds()[kind], seed_of(session_id, 1)
    preset, level = only(ways.default), only("3")
    if known is not None:
        preset = choose_preset(known, edit_type, label, ways.arms, ways.default, seed)
        level = choose_strength(known, edit_type, label, LEVELS, 3, seed)
    return LoggedDecision(
        edit_type=edit_type,
        label=label,
        preset=preset.arm,
        propensity=preset.propensity,
        probabilities=preset.probabilities,
        strength=int(level.arm),
        strength_propensity=level.propensity,
        strength_probabilities=level.probabilities,
        seed=seed,
        holdout=known is not None and is_holdout(seed),
        profile_version=version,
        engine="embedded",
    )


def _likes(random_: random.Random, decision: LoggedDecision) -> tuple[bool, Reason | None]:
    """Whether the household likes it, and what is wrong if not: it likes people brightened less than usual."""
    off = abs(decision.strength - (2 if decision.label == "person" else 3))
    if random_.random() < TASTE.get(decision.preset, 0.5) - 0.15 * off:
        return True, None
    if off and random_.random() < 0.6:
        return False, "too strong" if decision.strength > 2 else "too weak"
    return False, random_.choice(("edges", "colour", "tone", "artifact", "wrong region"))


def _attempt(random_: random.Random, decision: LoggedDecision) -> Attempt:
    likes, reason = _likes(random_, decision)
    verdict: FeedbackType = "accept" if likes else random_.choice(("partial", "reject", "reject"))
    score = round(min(1.0, max(0.3, random_.gauss(0.86 if likes else 0.74, 0.1))), 2)
    colour = (random_.randrange(256), 80, 120)
    if reason is None:
        return Attempt(colour, score, verdict, decision=decision)
    comment = SAID.get(reason, "")
    return Attempt(colour, score, verdict, () if comment else (reason,), comment, decision)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with open_store(Settings(home=Path(sys.argv[1]))) as opened:
        live(opened, int(sys.argv[2]))
