"""The choice: its probabilities are the ones it is drawn with, and it keeps what it promises."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edi_storage.errors import InputError
from edi_storage.learning.choice import HOLDOUT, Chosen, choose_preset, choose_strength, is_holdout, only, seed_of
from edi_storage.learning.profile import Profile, document_of
from edi_storage.learning_models import LEVELS, PresetCell

ARMS = ("vivid: usual", "vivid: soft", "vivid: punchy", "vivid: warm", "vivid: deep")
USUAL = ARMS[0]

cells = st.lists(
    st.builds(
        PresetCell,
        edit_type=st.sampled_from(["color", "style"]),
        label=st.sampled_from(["sky", "person", "image"]),
        preset=st.sampled_from([*ARMS, "warmer: soft", ""]),
        strength=st.integers(0, 5),
        accepted=st.integers(0, 200),
        partial=st.integers(0, 50),
        rejected=st.integers(0, 200),
        too_strong=st.integers(0, 50),
        too_weak=st.integers(0, 50),
    ),
    max_size=12,
)


def cell(preset: str, accepted: int, rejected: int, label: str = "sky", strength: int = 0, **more: int) -> PresetCell:
    return PresetCell(
        edit_type="color",
        label=label,
        preset=preset,
        strength=strength,
        accepted=accepted,
        rejected=rejected,
        **more,  # type: ignore[arg-type]
    )


def profile(*known: PresetCell) -> Profile:
    return Profile(document_of(known))


def preset(known: Profile, seed: int, rejected: tuple[str, ...] = (), label: str = "sky") -> Chosen:
    return choose_preset(known, "color", label, ARMS, USUAL, seed, rejected)


@given(cells, st.integers(0, 2**63 - 1), st.integers(1, 5), st.sets(st.sampled_from(ARMS)))
def test_probabilities_sum_to_one_and_nothing_is_given_up(
    known: list[PresetCell], seed: int, count: int, rejected: set[str]
) -> None:
    arms = ARMS[:count]
    chosen = choose_preset(profile(*known), "color", "sky", arms, USUAL, seed, rejected)
    assert sum(chosen.probabilities.values()) == pytest.approx(1, abs=1e-9)
    assert min(chosen.probabilities.values()) >= 0.009
    assert chosen.propensity == chosen.probabilities[chosen.arm]
    if rejected >= set(arms):
        assert chosen.probabilities.keys() == set(arms)
    else:
        assert chosen.probabilities.keys() == set(arms) - rejected
    strength = choose_strength(profile(*known), "color", "sky", LEVELS, 3, seed)
    assert sum(strength.probabilities.values()) == pytest.approx(1, abs=1e-9)
    assert min(strength.probabilities.values()) >= 0.009


@given(cells, st.text(min_size=1), st.integers(1, 3))
def test_the_same_profile_seed_and_session_choose_the_same(known: list[PresetCell], name: str, attempt: int) -> None:
    seed = seed_of(name, attempt)
    assert 0 <= seed < 2**63
    assert preset(profile(*known), seed) == preset(profile(*reversed(known)), seed_of(name, attempt))


def test_it_is_drawn_with_the_probabilities_that_are_logged() -> None:
    known = profile(cell(USUAL, 10, 20), cell(ARMS[1], 14, 10), cell(ARMS[2], 9, 9))
    draws = 6000
    seen = Counter(preset(known, seed_of(f"s-{number}", 1)).arm for number in range(draws))
    for arm, probability in preset(known, 0).probabilities.items():
        spread = (probability * (1 - probability) / draws) ** 0.5
        assert abs(seen[arm] / draws - probability) < 4.5 * spread, arm


def test_one_session_in_ten_gets_the_default_whatever_was_learned() -> None:
    known = profile(cell(USUAL, 0, 200), cell(ARMS[1], 200, 0))
    chosen = [preset(known, seed_of(f"s-{number}", 1)) for number in range(4000)]
    kept = [one for one in chosen if one.holdout]
    assert {one.arm for one in kept} == {USUAL}
    assert abs(len(kept) / len(chosen) - HOLDOUT) < 0.02
    assert chosen[0].probabilities[ARMS[1]] > 0.8
    assert chosen[0].probabilities[USUAL] < 0.12


def test_a_session_held_out_is_so_for_preset_and_strength_alike() -> None:
    known = profile(cell(ARMS[1], 200, 0, strength=2), cell(USUAL, 0, 200, strength=3, too_strong=200))
    for number in range(300):
        seed = seed_of(f"s-{number}", 1)
        strength = choose_strength(known, "color", "sky", LEVELS, 3, seed)
        assert preset(known, seed).holdout == strength.holdout == is_holdout(seed)


def test_where_it_is_not_sure_to_be_better_the_default_keeps_most() -> None:
    unsure = preset(profile(cell(USUAL, 10, 10), cell(ARMS[1], 10, 10)), 1).probabilities
    sure = preset(profile(cell(USUAL, 20, 80), cell(ARMS[1], 80, 20)), 1).probabilities
    assert unsure[USUAL] > 0.65
    assert sure[ARMS[1]] > 0.75


def test_what_a_person_rejected_is_never_shown_again() -> None:
    known = profile(cell(USUAL, 50, 10), cell(ARMS[1], 10, 10))
    for number in range(200):
        chosen = preset(known, number, rejected=(USUAL, ARMS[2]))
        assert chosen.arm not in (USUAL, ARMS[2])
        assert not chosen.holdout


def test_a_cell_without_verdicts_learns_from_its_kin() -> None:
    """The same preset on other labels, and presets of the same character elsewhere on this label."""
    elsewhere = profile(cell(USUAL, 20, 60, "car"), cell(ARMS[2], 70, 10, "car"), cell(USUAL, 30, 60, "tree"))
    assert preset(elsewhere, 1, label="sky").probabilities[ARMS[2]] > 0.3
    soft = Profile(
        document_of(
            [
                PresetCell(edit_type="style", label="person", preset="clearer: soft", accepted=90, rejected=5),
                PresetCell(edit_type="style", label="person", preset="clearer: usual", accepted=20, rejected=75),
            ]
        )
    )
    beliefs = {belief.arm: belief.mean for belief in soft.presets.beliefs("color", "person", ARMS)}
    assert beliefs["vivid: soft"] > beliefs["vivid: usual"] + 0.1


def test_the_strength_stays_where_nobody_has_said_anything_of_it() -> None:
    known = profile(cell(USUAL, 5, 60, strength=3))
    assert choose_strength(known, "color", "sky", LEVELS, 3, 1) == only("3")


@pytest.mark.parametrize(("complaint", "better"), [("too_strong", "2"), ("too_weak", "4")])
def test_too_strong_makes_it_weaker_and_too_weak_stronger(complaint: str, better: str) -> None:
    known = profile(cell(USUAL, 10, 60, strength=3, **{complaint: 50}))
    shares = choose_strength(known, "color", "sky", LEVELS, 3, 1).probabilities
    assert max(shares, key=lambda level: shares[level]) == better
    assert shares[better] > 0.7


def test_a_profile_of_another_format_is_refused() -> None:
    with pytest.raises(InputError, match="format 9"):
        Profile({"format": 9})


def test_what_was_asked_for_by_name_teaches_nothing_of_presets() -> None:
    assert document_of([cell("", 50, 0)]) == {"format": 1, "presets": [], "strengths": []}
