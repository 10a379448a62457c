"""The choice inside a session: what was refused is not shown again, and nobody's word is overridden."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from edi_storage.doctor import doctor
from edi_storage.forking import Wanted, make_fork, plan_fork
from edi_storage.learning.choice import is_holdout, seed_of
from edi_storage.learning.profile import document_of
from edi_storage.learning_models import LoggedDecision, PresetCell
from edi_storage.models import FeedbackType, Reason
from edi_storage.recovery import give_verdict
from edi_storage.settings import Settings
from edi_storage.store import Store, open_store
from tests import homes
from tests.flows.conftest import PALACE

KIND = "dramatic sky"
USUAL, STORMY = f"{KIND}: usual", f"{KIND}: stormy"


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, server: str) -> Iterator[Store]:
    """A home in which a stormy sky is liked, the usual one is not, and it is said to be too strong."""
    homes.enter(monkeypatch, tmp_path_factory.mktemp("home"))
    with open_store(Settings()) as opened:
        opened.database.save_profile(document_of(LIKED), seq_to=1)
        yield opened


LIKED = [
    PresetCell(edit_type="style", label="sky", preset=STORMY, strength=2, accepted=200),
    PresetCell(edit_type="style", label="sky", preset=USUAL, strength=3, rejected=200, too_strong=150),
]


def name_of(what: str, *, holdout: bool = False) -> str:
    """A session id, of one that is held out or not."""
    return next(
        name for name in (f"{what}-{number}" for number in range(999)) if is_holdout(seed_of(name, 1)) == holdout
    )


def edit(session_id: str, prompt: str = "make the sky dramatic", **options: Any) -> dict[str, Any]:
    from flows.edit import edit_image

    result: dict[str, Any] = edit_image(image_path=str(PALACE), prompt=prompt, session_id=session_id, **options)
    return result


def made(store: Store, session_id: str) -> list[LoggedDecision]:
    return store.database.get_decisions(session_id)


def judge(store: Store, session_id: str, verdict: FeedbackType, *reasons: Reason) -> None:
    give_verdict(store, session_id, verdict, reasons=list(reasons))


def test_what_is_liked_is_chosen_and_done(store: Store) -> None:
    # Of the sessions that are not held out one in a hundred still gets another preset, and this one does not.
    name = next(n for n in (name_of(f"liked-{number}") for number in range(9)) if edit(n) and of(store, n) == STORMY)
    (decision,) = made(store, name)
    assert (decision.strength, decision.holdout, decision.profile_version) == (2, False, 1)
    state = store.database.get_state(name)
    assert state is not None
    assert "(stormy) at 45 %" in state.prompts["final"]["positive"]
    (operation,) = state.validation["attempts"]["1"]["operations"]
    assert (operation["parameters"]["mood"], operation["parameters"]["strength"]) == ("stormy", 0.45)
    assert store.database.require_session(name).profile_version == 1
    # The learned profile has moved on: the session is still the one it was.
    store.database.save_profile(document_of([]), seq_to=2)
    assert edit(name)["status"] == "completed"
    assert made(store, name) == [decision]


def of(store: Store, session_id: str) -> str:
    return made(store, session_id)[0].preset


def test_the_sessions_that_are_held_out_get_the_usual(store: Store) -> None:
    name = name_of("held", holdout=True)
    edit(name)
    (decision,) = made(store, name)
    assert (decision.preset, decision.strength, decision.holdout) == (USUAL, 3, True)
    assert decision.propensity == decision.probabilities[USUAL] < 0.12


def test_a_refused_preset_is_not_shown_again(store: Store) -> None:
    name = name_of("refused")
    assert edit(name, review="ask")["waiting_for"] == "review"
    judge(store, name, "reject", "colour")
    assert edit(name, review="ask")["waiting_for"] == "review"
    judge(store, name, "reject")
    edit(name, review="ask")
    decisions = made(store, name)
    assert len({decision.preset for decision in decisions}) == len(decisions) == 3
    for decision in decisions[1:]:
        assert sum(decision.probabilities.values()) == pytest.approx(1)
        assert min(decision.probabilities.values()) >= 0.009
    assert len(decisions[2].probabilities) == 3
    assert is_well()


def test_too_strong_asks_for_the_same_with_less_of_it(store: Store) -> None:
    name = name_of("strong")
    edit(name, review="ask")
    judge(store, name, "reject", "too strong")
    edit(name, review="ask")
    first, second = made(store, name)
    assert (second.preset, second.strength) == (first.preset, first.strength)
    assert second.probabilities == {first.preset: 1.0}


def test_several_variations_are_chosen_by_the_person(store: Store) -> None:
    edit("several", variations=2)
    (decision,) = made(store, "several")
    assert (decision.engine, decision.preset, decision.probabilities) == ("none", "", {})


def test_switched_off_all_is_as_it_was(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDI_LEARNING", "off")
    edit("off")
    (decision,) = made(store, "off")
    assert (decision.preset, decision.probabilities, decision.profile_version) == (USUAL, {USUAL: 1.0}, None)
    state = store.database.get_state("off")
    assert state is not None
    assert "dramatic sky (dramatic) at 60 %" in state.prompts["final"]["positive"]


def test_a_reasoner_that_does_not_heed_the_choice_has_made_none(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.engines.reasoning import EmbeddedReasoner

    monkeypatch.setattr(EmbeddedReasoner, "heeds_choice", False)
    edit("deaf")
    (decision,) = made(store, "deaf")
    assert (decision.engine, decision.preset) == ("none", "")


def test_a_fork_has_the_decision_of_its_parent(store: Store) -> None:
    name = name_of("parent")
    edit(name)
    plan = plan_fork(store, store.database.require_session(name), Wanted("edit", "the-fork"))
    make_fork(store, plan)
    assert made(store, "the-fork") == made(store, name)
    assert store.database.require_session("the-fork").profile_version == 1
    assert is_well()


def is_well() -> bool:
    return doctor(Settings()) == []
