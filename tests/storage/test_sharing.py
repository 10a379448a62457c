"""What may be shared, where a reason was given, and the report: on SQLite and on a server alike."""

from __future__ import annotations

from edi_storage.learning import learn
from edi_storage.learning.evidence import report_on
from edi_storage.store import Store
from flows.learned.kinds import kinds
from tests.learning.histories import Attempt, Past, put
from tests.learning.household import live


def test_only_sessions_with_consent_are_listed_and_page_by_page(store: Store) -> None:
    for number, consent in enumerate(("export", "local", "export", "none", "export")):
        put(store, Past(f"s{number}", [Attempt()], consent=consent))
    assert store.database.shared_session_ids() == ["s0", "s2", "s4"]
    assert store.database.shared_session_ids(limit=1) == ["s0"]
    assert store.database.shared_session_ids(after="s2") == ["s4"]


def test_the_newest_sessions_with_a_reason_are_found_until_it_is_taken_back(store: Store) -> None:
    for number in range(5):
        reason = "too strong" if number % 2 else "edges"
        put(store, Past(f"s{number}", [Attempt(verdict="reject", reasons=[reason])]))
    put(store, Past("words", [Attempt(verdict="partial", comment="halos at the border")]))
    database = store.database
    assert database.sessions_with_reason("edges") == ["words", "s4", "s2"]
    assert database.sessions_with_reason("too strong") == ["s3", "s1"]
    assert database.sessions_with_reason("strong") == [], "a reason is a whole one"
    database.save_feedback("s4", {"feedback_type": "accept", "feedback_key": "attempt-1"})
    database.delete_session("words")
    assert database.sessions_with_reason("edges") == ["s2", "s0"]


def test_the_report_is_made_of_either_database(store: Store) -> None:
    live(store, 60)
    report = report_on(store.database, kinds(), learn(store.database))
    assert report.verdicts == 60
    assert report.uplift.learned.n + report.uplift.holdout.n == 40, "the first twenty had no profile yet"
    assert report.calibration.rows == 60
    assert report.next
