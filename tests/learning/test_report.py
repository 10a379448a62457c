"""The report says what is known and no more, the same in its three places, and obeys no text."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from html import escape
from pathlib import Path

import pytest

from edi_storage.learning import learn
from edi_storage.learning.evidence import report_on
from edi_storage.learning.report import Evidence, Kind, Report, report_of
from edi_storage.learning_models import FirstVerdict, PresetCell, ScoreBin, TermCell
from edi_storage.store import Store, open_store
from flows.learned import page, terminal, words
from flows.learned.kinds import kinds
from flows.learned.markdown import as_markdown
from flows.links import session_link
from flows.sessions import called
from tests import homes
from tests.learning.histories import Attempt, Past, put
from tests.learning.household import live

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SKY = {"sky": Kind("sky: usual", ("sky: usual", "sky: golden"))}


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A household that has edited for a while."""
    with open_store(homes.settings_of(tmp_path_factory.mktemp("household"))) as store:
        live(store, 200)
        yield store


def told(store: Store) -> Report:
    return report_on(store.database, kinds(), learn(store.database))


def in_terminal(report: Report, *, brief: bool = False) -> str:
    shown = io.StringIO()
    terminal.show(report, shown, brief=brief, width=100)
    return shown.getvalue()


def first_tries(golden: float, usual: float, count: int) -> Sequence[FirstVerdict]:
    """Choices of "golden" in nine of ten, each liked so often: the holdout is every tenth."""
    found = []
    for number in range(count):
        holdout = number % 10 == 0
        liked = usual if holdout else golden
        found.append(
            FirstVerdict(
                session_id=f"s{number}",
                edit_type="style",
                label="sky",
                preset="sky: usual" if holdout else "sky: golden",
                propensity=0.109 if holdout else 0.891,
                probabilities={"sky: usual": 0.109, "sky: golden": 0.891},
                strength=0,
                strength_probabilities={},
                holdout=holdout,
                profile_version=1,
                reward=float((number * 7919) % 100 < 100 * liked),
                created_at=NOW + timedelta(hours=number),
            )
        )
    return found


def evidence(**parts: object) -> Report:
    return report_of(Evidence(made_at=NOW, new_events=0, watermark=0, kinds=SKY, **parts))  # type: ignore[arg-type]


CELLS = [PresetCell(edit_type="style", label="sky", preset="sky: golden", accepted=30, rejected=10)]


def test_nothing_learned_says_so_and_how_to_begin(tmp_path: Path) -> None:
    with open_store(homes.settings_of(tmp_path)) as store:
        report = told(store)
    for text in (in_terminal(report), as_markdown(report), page.page(report)):
        assert "Nothing learned yet" in text
        assert "edi feedback last accept" in text
        assert "How you rated" not in text


@pytest.mark.parametrize(
    ("tries", "title"),
    [
        ((0.9, 0.4, 30), "Learning has begun; it is too early to say whether it helps"),
        ((0.62, 0.55, 60), "Not yet proven that learning helps"),
        ((0.95, 0.3, 600), r"Learning helps: about \d+ more of every 100 first tries are accepted"),
        ((0.3, 0.95, 600), r"Learning does harm: about \d+ fewer of every 100 first tries are accepted"),
    ],
)
def test_the_headline_says_whether_it_helps(tries: tuple[float, float, int], title: str) -> None:
    report = evidence(cells=CELLS, first_tries=first_tries(*tries))
    assert re.fullmatch(title, words.title(report))
    for text in (in_terminal(report), as_markdown(report), page.page(report)):
        assert words.title(report) in text


def test_while_it_is_not_proven_it_says_that_it_may_be_nothing() -> None:
    known = words.standing(evidence(cells=CELLS, first_tries=first_tries(0.62, 0.55, 60)))
    assert "it may as well be no difference" in known[0]
    assert re.search(r"between \N{MINUS SIGN}\d+ and \+\d+ of every 100", known[0])


def test_what_a_household_likes_is_named_with_its_reason(lived: Store) -> None:
    report = told(lived)
    (sky,) = [leaning for leaning in report.next if leaning.what == "dramatic sky"]
    assert (sky.favourite.name, sky.default.name) == ("dramatic sky: golden", "dramatic sky: usual")
    sentence = next(line for line in words.coming(report) if line.startswith("Dramatic sky"))
    assert "“golden” (the warm light of the golden hour) instead of “usual” in " in sentence
    assert "of edits, because it was liked" in sentence
    for text in (in_terminal(report, brief=True), as_markdown(report), page.page(report)):
        assert "Dramatic sky" in text
        assert "golden" in text


def test_thirty_rejections_of_a_way_are_told_as_a_change(tmp_path: Path) -> None:
    with open_store(homes.settings_of(tmp_path)) as store:
        live(store, 100, seed=5)
        before = told(store)
        newest = store.database.first_verdicts()[-1]
        liked = "dramatic sky: golden"
        for number in range(30):
            decision = store.database.get_decisions(newest.session_id)[0].model_copy(
                update={
                    "edit_type": "style",
                    "label": "sky",
                    "preset": liked,
                    "probabilities": {liked: 1.0},
                    "propensity": 1.0,
                }
            )
            put(store, Past(f"no-{number}", [Attempt(verdict="reject", decision=decision)]))
        after = told(store)
    assert (after.new_events, after.profile_parent) == (30, before.profile)
    change = next(one for one in after.changes if one.now.what == "dramatic sky")
    assert change.before == liked != change.now.favourite.name
    sentence = words.changes(after)[0]
    assert sentence.startswith("Dramatic sky: “")
    assert "(before: " in sentence


def test_a_first_rejection_makes_other_ways_be_tried(tmp_path: Path) -> None:
    with open_store(homes.settings_of(tmp_path)) as store:
        live(store, 1)
        first = store.database.get_decisions("edit-00000")[0]
        put(store, Past("no", [Attempt(verdict="reject", decision=first)]))
        store.database.delete_session("edit-00000")
        report = told(store)
    assert "1 rating, profile 1" in words.stamp(report)
    assert words.since(report) == "What changed with your first ratings"
    assert re.search(
        r"“usual” was not liked the one time it was judged\. One rating is little, so it stays the main choice, in "
        r"\d\d % of edits \(before: 100 %\); the rest tries others \(such as “\w+” \d+ %, “\w+” \d+ %\)",
        words.changes(report)[0],
    )
    assert words.coming(report)[0].startswith("Nothing as a rule")
    assert words.standing(report)[0].startswith("Your rating will shape the edits that follow.")


def test_ratings_that_are_not_compared_are_counted_as_such(lived: Store) -> None:
    report = told(lived)
    compared = report.uplift.learned.n + report.uplift.holdout.n
    assert 0 < compared < report.verdicts
    assert words.not_compared(report).startswith(f" {report.verdicts - compared} ratings are not compared: ")
    assert words.not_compared(report) in page.page(report)


def test_few_verdicts_are_called_insufficient() -> None:
    few = [PresetCell(edit_type="style", label="sky", preset="sky: usual", accepted=9)]
    (cell,) = evidence(cells=few).cells
    assert not cell.enough
    for text in (in_terminal(evidence(cells=few)), as_markdown(evidence(cells=few)), page.page(evidence(cells=few))):
        assert "insufficient" in text
        assert "100 %" not in text.replace("0 to 100 %", "")


def test_an_engines_word_is_shown_and_not_obeyed() -> None:
    bad = "a | <img src=x> **b** [c](d) `e`"
    cells = [PresetCell(edit_type="color", label=bad, preset=f"{bad}: {bad}", accepted=600)]
    terms = [TermCell(term="<b>x", edit_type="color", label=bad, preset=f"{bad}: {bad}", rejected=90)]
    report = evidence(cells=cells, terms=terms, samples={"edges": ["<i>"]})
    assert len(report.phrases) == 1
    text = as_markdown(report)
    row = next(line for line in text.splitlines() if "\\| \\<img" in line)
    assert len(re.findall(r"(?<!\\)\|", row)) == 6
    html = page.page(report)
    assert "<img src=x>" not in html
    assert "<b>x" not in html
    assert "default-src 'none'" in html
    assert re.findall(r"(?:src|href)=\"(?!data:)", html) == []
    assert "[c](d)" in in_terminal(report)


def test_what_is_switched_off_is_said_to_be(lived: Store) -> None:
    report = report_on(lived.database, kinds(), learn(lived.database), is_on=False)
    assert "learning is switched off" in in_terminal(report, brief=True)
    assert "instead of “" not in in_terminal(report, brief=True)


def test_the_plots_are_pictures_in_the_page_and_in_the_artifact(lived: Store) -> None:
    report = told(lived)
    assert len(report.trend) > 2
    assert page.page(report).count("data:image/svg+xml;base64,") == 2
    text = as_markdown(report)
    assert text.count("](data:image/svg+xml;base64,") == 2
    assert len(text) < 200_000


def test_scores_reasons_and_their_sessions_are_told(lived: Store) -> None:
    report = told(lived)
    assert report.calibration.method != "none"
    edges = next(why for why in report.reasons if why.reason == "edges")
    assert 1 <= len(edges.sessions) <= 3
    said = [item for name in edges.sessions for item in lived.database.get_feedback(name)]
    assert all("edges" in item.reasons for item in said)
    example = edges.sessions[0]
    assert f"edi show {example}" in as_markdown(report)
    pages = called(lived.database, report.examples)
    assert f"]({session_link(example)})" in as_markdown(report, pages)
    assert f'<a href="{session_link(example)}">{escape(pages[example])}</a>' in page.page(report, pages)
    assert pages[example].endswith(Path(lived.database.require_session(example).image_path).name)


def test_a_threshold_is_recommended_in_words() -> None:
    scores = [ScoreBin(score=score, accepted=39, rejected=1) for score in (62, 67, 72, 77, 82, 92)]
    (advice,) = [line for line in words.calibration(evidence(cells=CELLS, scores=scores)) if "would be" in line]
    assert "accepted by themselves from 0.80 on. From 0.60 on would be right" in advice


def test_going_back_is_said(lived: Store) -> None:
    lived.database.roll_back_profile()
    try:
        report = told(lived)
        assert report.profile != report.profile_newest
        assert "because you went back to it" in " ".join(words.standing(report))
    finally:
        assert report.profile_newest is not None
        lived.database.activate_profile(report.profile_newest)
