"""The one report of what was learned, as data: whether it helps, what changed and why, and what comes next.

Three places show it: the terminal, a web page, and the artifact of the flow. None of them computes anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple

from edi_storage.learning.calibration import Calibration, ScoreCount, calibrate
from edi_storage.learning.choice import choose_preset, choose_strength
from edi_storage.learning.intervals import wilson
from edi_storage.learning.phrases import Phrase, Tally, TermCount, phrases
from edi_storage.learning.profile import Profile
from edi_storage.learning.uplift import Judged, Share, Uplift, uplift, with_second
from edi_storage.learning_models import (
    LEVELS,
    FirstVerdict,
    PresetCell,
    ReasonCounts,
    ScoreBin,
    StoredProfile,
    TermCell,
)
from edi_storage.record import Count, Record, Text, Unit, UtcTime

#: Verdicts below which a line is called insufficient.
ENOUGH: Final = 10
#: A change is told from this many points of probability.
_TOLD: Final = 0.10
#: Groups of first tries along the trend, and the least of them in one.
_MOST_POINTS: Final = 12
_LEAST_A_POINT: Final = 20
USUAL_LEVEL: Final = 3
STRENGTH: Final = "strength"


class _Place(NamedTuple):
    """Where something is chosen: a cell, and what of it (a kind of preset, or "strength")."""

    edit_type: str
    label: str
    what: str


@dataclass(frozen=True)
class Kind:
    """Something with several ways to do it: their names, and the one that nobody has to have learned."""

    default: str
    arms: tuple[str, ...]
    #: What each is, where its name does not say it.
    words: Mapping[str, str] = field(default_factory=dict)


_LEVELS: Final = Kind(str(USUAL_LEVEL), tuple(map(str, LEVELS)))


@dataclass(frozen=True)
class Evidence:
    """What the database says, from which the report follows."""

    made_at: datetime
    new_events: int
    watermark: int
    cells: Sequence[PresetCell] = ()
    terms: Sequence[TermCell] = ()
    scores: Sequence[ScoreBin] = ()
    first_tries: Sequence[FirstVerdict] = ()
    active: StoredProfile | None = None
    #: Those before it, the newest first, as far as they are looked at.
    earlier: Sequence[StoredProfile] = ()
    #: The newest version there is: another than the active one where a person went back.
    newest: int | None = None
    #: Sessions that gave a reason, newest first.
    samples: Mapping[str, Sequence[str]] = field(default_factory=dict)
    #: The ways there are to do each kind of thing, by its name ("dramatic sky").
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    threshold: float = 0.80
    is_on: bool = True


class Option(Record):
    """One way to do something: its chance to be chosen, and the verdicts it has in this cell (reward: 0..verdicts)."""

    name: Text
    words: Text = ""
    chance: Unit
    verdicts: float = 0.0
    reward: float = 0.0


class Leaning(Record):
    """What a profile makes of one cell: the way that it favours, beside the default."""

    edit_type: Text
    label: Text
    #: "strength", or the kind of preset.
    what: Text
    favourite: Option
    default: Option
    #: The likeliest of the others, at most two.
    others: list[Option]

    @property
    def differs(self) -> bool:
        """Whether something else than the default is favoured."""
        return self.favourite.name != self.default.name


class Change(Record):
    """What a profile favours now, and with which chance the one before would have chosen it."""

    now: Leaning
    before: Text
    chance_before: Unit


class Cell(Record):
    """How one preset is judged in one cell; `preset` is "" for what was asked for by name. Wilson's bounds, 95 %."""

    edit_type: Text
    label: Text
    preset: Text
    n: Count
    mean: Unit
    low: Unit
    high: Unit
    rating: float | None = None

    @property
    def enough(self) -> bool:
        """Whether there are verdicts enough to say anything."""
        return self.n >= ENOUGH


class TrendPoint(Record):
    """Some first tries that followed each other: those that learning chose for, and those of the holdout."""

    until: UtcTime
    learned: Share
    holdout: Share


class Why(Record):
    """A reason that was given for what was not liked, how often, and some sessions where it was."""

    reason: Text
    count: Count
    sessions: list[Text]


class Report(Record):
    """Everything that is told of the learning."""

    made_at: UtcTime
    new_events: Count
    watermark: Count
    verdicts: Count
    #: Whether edits are done by what was learned (EDI_LEARNING).
    is_on: bool
    profile: Count | None
    #: The one that it came after, and the newest before it that would have done something else.
    profile_parent: Count | None
    profile_before: Count | None
    profile_newest: Count | None
    uplift: Uplift
    changes: list[Change]
    next: list[Leaning]
    cells: list[Cell]
    trend: list[TrendPoint]
    calibration: Calibration
    threshold: Unit
    phrases: list[Phrase]
    reasons: list[Why]

    @property
    def examples(self) -> list[str]:
        """The sessions that are named in it."""
        return [session_id for why in self.reasons for session_id in why.sessions]


def report_of(evidence: Evidence) -> Report:
    """The report that this evidence gives; the same evidence gives the same one."""
    verdicts = sum(cell.count for cell in evidence.cells)
    now = _leanings(evidence.active, evidence)
    before, changes = _last_changes(now, evidence)
    return Report(
        made_at=evidence.made_at,
        new_events=evidence.new_events,
        watermark=evidence.watermark,
        verdicts=verdicts,
        is_on=evidence.is_on,
        profile=evidence.active.version if evidence.active else None,
        profile_parent=evidence.earlier[0].version if evidence.earlier else None,
        profile_before=before,
        profile_newest=evidence.newest,
        uplift=uplift(_judged(evidence.first_tries, evidence.kinds)),
        changes=changes,
        next=[leaning for leaning in now if leaning.differs],
        cells=_cells(evidence.cells),
        trend=_trend(evidence.first_tries),
        calibration=calibrate(_score_counts(evidence.scores), evidence.threshold),
        threshold=evidence.threshold,
        phrases=phrases(_term_counts(evidence.terms, evidence.cells), verdicts),
        reasons=_reasons(evidence),
    )


# --- Whether it helps ---------------------------------------------------------------------------------


def _judged(first_tries: Iterable[FirstVerdict], kinds: Mapping[str, Kind]) -> Iterable[Judged]:
    for made in first_tries:
        kind = kinds.get(kind_of(made.preset))
        default = kind.default if kind else made.preset
        if default not in made.probabilities:
            continue  # of an engine that is not there any more
        chosen = Judged(made.edit_type, made.label, made.preset, default, made.probabilities, made.holdout, made.reward)
        levels = made.strength_probabilities
        yield with_second(chosen, str(made.strength), str(USUAL_LEVEL), levels) if len(levels) > 1 else chosen


def kind_of(preset: str) -> str:
    """The kind of a preset: "dramatic sky" of "dramatic sky: stormy"."""
    return preset.rpartition(": ")[0]


def _trend(first_tries: Sequence[FirstVerdict]) -> list[TrendPoint]:
    size = max(_LEAST_A_POINT, -(-len(first_tries) // _MOST_POINTS))
    groups = [first_tries[start : start + size] for start in range(0, len(first_tries), size)]
    if len(groups) > 1 and len(groups[-1]) < _LEAST_A_POINT:
        last = groups.pop()
        groups[-1] = [*groups[-1], *last]
    return [
        TrendPoint(until=group[-1].created_at, learned=_share(group, False), holdout=_share(group, True))
        for group in groups
    ]


def _share(group: Sequence[FirstVerdict], holdout: bool) -> Share:
    rewards = [made.reward for made in group if made.holdout == holdout]
    return Share.of(sum(rewards), len(rewards))


# --- What changed, and what comes next ----------------------------------------------------------------


def _leanings(stored: StoredProfile | None, evidence: Evidence) -> list[Leaning]:
    """What a profile makes of each cell in which something was judged, those with most verdicts first."""
    if stored is None:
        return []
    profile = Profile(stored.profile)
    return [_leaning(profile, place, evidence.kinds) for place in _places(evidence)]


def _places(evidence: Evidence) -> list[_Place]:
    counts: dict[_Place, int] = {}
    for cell in evidence.cells:
        kind = kind_of(cell.preset)
        for what, there in ((kind, kind in evidence.kinds), (STRENGTH, cell.strength)):
            if there and cell.count:
                place = _Place(cell.edit_type, cell.label, what)
                counts[place] = counts.get(place, 0) + cell.count
    return sorted(counts, key=lambda place: (-counts[place], place))


def _leaning(profile: Profile, place: _Place, kinds: Mapping[str, Kind]) -> Leaning:
    kind = _LEVELS if place.what == STRENGTH else kinds[place.what]
    chances = _chances(profile, place, kind)
    favourite = max(chances, key=lambda arm: (chances[arm], arm == kind.default))
    tallies = profile.strengths if place.what == STRENGTH else profile.presets

    def option(arm: str) -> Option:
        verdicts, reward = tallies.cells.get((place.edit_type, place.label, arm), (0.0, 0.0))
        words = kind.words.get(arm, "")
        return Option(name=arm, words=words, chance=min(1.0, chances[arm]), verdicts=verdicts, reward=reward)

    return Leaning(
        edit_type=place.edit_type,
        label=place.label,
        what=place.what,
        favourite=option(favourite),
        default=option(kind.default),
        others=[option(arm) for arm in sorted(chances, key=lambda arm: -chances[arm]) if arm != favourite][:2],
    )


def _chances(profile: Profile, place: _Place, kind: Kind) -> dict[str, float]:
    """With which chance the next edit is done in each way: by the very choice that it will be made with."""
    where = (place.edit_type, place.label)
    if place.what == STRENGTH:
        return choose_strength(profile, *where, LEVELS, USUAL_LEVEL, seed=0).probabilities
    return choose_preset(profile, *where, kind.arms, kind.default, seed=0).probabilities


def _last_changes(now: Sequence[Leaning], evidence: Evidence) -> tuple[int | None, list[Change]]:
    """The newest earlier profile from which the present one differs, and in what.

    Most looks add a few verdicts that change nothing: then it is the last change that a person wants to know.
    """
    if not evidence.earlier:
        return None, _changes(now, None, evidence.kinds)
    for stored in evidence.earlier:
        if found := _changes(now, Profile(stored.profile), evidence.kinds):
            return stored.version, found
    return evidence.earlier[-1].version, []


def _changes(now: Sequence[Leaning], before: Profile | None, kinds: Mapping[str, Kind]) -> list[Change]:
    """Where a profile before favoured something else, or the same less or more clearly; the largest change first.

    Before the first profile everything was as the default.
    """
    found = []
    for leaning in now:
        place = _Place(leaning.edit_type, leaning.label, leaning.what)
        favoured, chances = leaning.default.name, {leaning.default.name: 1.0}
        if before is not None:
            kind = _LEVELS if place.what == STRENGTH else kinds[place.what]
            favoured = _leaning(before, place, kinds).favourite.name
            chances = _chances(before, place, kind)
        was = min(1.0, chances.get(leaning.favourite.name, 0.0))
        if favoured != leaning.favourite.name or abs(leaning.favourite.chance - was) >= _TOLD:
            found.append(Change(now=leaning, before=favoured, chance_before=was))
    return sorted(found, key=lambda change: -abs(change.now.favourite.chance - change.chance_before))


# --- What people said ---------------------------------------------------------------------------------


def _cells(cells: Iterable[PresetCell]) -> list[Cell]:
    """By edit type, label and preset, whatever the strength; most verdicts first."""
    sums: dict[tuple[str, str, str], list[float]] = {}
    for cell in cells:
        total = sums.setdefault((cell.edit_type, cell.label, cell.preset), [0.0] * 4)
        added = (cell.count, cell.reward, cell.rating_sum, cell.rating_count)
        total[:] = [old + new for old, new in zip(total, added, strict=True)]
    found = []
    for (edit_type, label, preset), (n, reward, stars, rated) in sums.items():
        if n > 0:
            low, high = wilson(reward, n)
            rating = stars / rated if rated else None
            line = Cell(
                edit_type=edit_type,
                label=label,
                preset=preset,
                n=int(n),
                mean=reward / n,
                low=low,
                high=high,
                rating=rating,
            )
            found.append(line)
    return sorted(found, key=lambda cell: (-cell.n, cell.edit_type, cell.label, cell.preset))


def _score_counts(bins: Iterable[ScoreBin]) -> list[ScoreCount]:
    return [ScoreCount(one.score / 100, one.accepted + one.partial + one.rejected, one.accepted) for one in bins]


def _term_counts(terms: Iterable[TermCell], cells: Iterable[PresetCell]) -> list[TermCount]:
    totals: dict[tuple[str, str, str], Tally] = {}
    for cell in cells:
        key = (cell.edit_type, cell.label, cell.preset)
        old = totals.get(key, Tally())
        totals[key] = Tally(old.accepted + cell.accepted, old.partial + cell.partial, old.rejected + cell.rejected)
    return [
        TermCount(
            term.term,
            Tally(term.accepted, term.partial, term.rejected),
            totals.get((term.edit_type, term.label, term.preset), Tally()),
        )
        for term in terms
    ]


def _reasons(evidence: Evidence) -> list[Why]:
    found = [
        Why(reason=name.replace("_", " "), count=count, sessions=list(evidence.samples.get(name.replace("_", " "), ())))
        for name in ReasonCounts.model_fields
        if (count := sum(getattr(cell, name) for cell in evidence.cells)) > 0
    ]
    return sorted(found, key=lambda why: (-why.count, why.reason))
