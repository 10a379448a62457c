"""What the report says, in plain words, for all places that show it. Shares are whole percent."""

from __future__ import annotations

from typing import Final

from edi_storage.learning.phrases import LEAST_SESSIONS
from edi_storage.learning.report import ENOUGH, STRENGTH, USUAL_LEVEL, Cell, Change, Leaning, Option, Report
from edi_storage.learning.uplift import LEAST, LEAST_HELD_OUT, Share, Uplift

#: Changes, and edits that will be done otherwise, that are told one by one.
MOST_TOLD: Final = 8
#: Lines of the table: with enough verdicts, and with too few.
MOST_CELLS: Final = 40
_MOST_FEW: Final = 6
#: Reasons that are named on the first screen.
_MOST_COMPLAINTS: Final = 3
#: An error is that of luck up to so many times what luck makes on average.
_NEAR: Final = 1.5
#: What stands first, as a word.
STANDING: Final = {
    "too early": "too early to say",
    "not yet proven": "not yet proven",
    "helps": "proven to help",
    "harms": "does harm",
}
_LEVELS: Final = {"1": "much weaker", "2": "weaker", "3": "as usual", "4": "stronger", "5": "much stronger"}

HOW_TO_RATE: Final = (
    "Rate an edit with `edi feedback last accept --rating 5` (or reject, or partial), in the dialog of a run that "
    "waits, or by running the deployment `record-feedback`. It counts from the next look on."
)
_NOTHING_CHANGED: Final = "Nothing that would be done otherwise: what is new agrees with what was known."
EXPLANATION: Final = (
    "Acceptance counts an accept as 1, a partial as one half and a reject as 0. Every tenth edit is made as if "
    "nothing had been learned, so that there is something honest to compare with; the estimate also uses the "
    "probability of every choice, which was written down before it was made. Ranges are 95 % intervals."
)


def title(report: Report) -> str:
    """The headline: does it help?"""
    known = report.uplift
    if not report.verdicts:
        return "Nothing learned yet"
    if known.estimate is None:
        return "Learning has begun; it is too early to say whether it helps"
    match known.proof:
        case "helps":
            return f"Learning helps: {_more(known.estimate)} in 100 first tries accepted"
        case "harms":
            return f"Learning does harm: {_more(known.estimate)} in 100 first tries accepted"
        case _:
            return "Not yet proven that learning helps"


def standing(report: Report) -> list[str]:
    """The sentences below the headline: the interval, and what it rests on."""
    if not report.verdicts:
        return ["Nobody has rated an edit that still counts.", HOW_TO_RATE]
    known = report.uplift
    return [_estimate(known), *_compared(known), *_complaints(report), *_what_to_do(known), *_went_back(report)]


def _estimate(known: Uplift) -> str:
    if known.estimate is None or known.low is None or known.high is None:
        return _too_early(known.learned.n, known.holdout.n)
    span = f"between {_signed(known.low)} and {_signed(known.high)} in 100 (95 % interval)"
    if known.proof == "not yet proven":
        return f"The best estimate is {_more(known.estimate)} accepted, {span}: it may as well be no difference."
    return f"The true difference lies {span}, compared with edits made without learning."


def _too_early(learned: int, held_out: int) -> str:
    """Why there is no estimate: only edits that were made since there was a profile can show what it is worth."""
    needed = (
        f"{LEAST} first tries made since then are rated, {LEAST_HELD_OUT} of them made as if nothing had been learned, "
        "to compare with"
    )
    if not learned + held_out:
        return (
            "The edits you have rated so far were made before EDI had learned anything. They shape the next edits; "
            f"whether that helps can be told once {needed}."
        )
    return (
        f"Whether what EDI has learned helps can be told once {needed}. So far there are {learned + held_out}, "
        f"{held_out or 'none'} of them made as if nothing had been learned."
    )


def _compared(known: Uplift) -> list[str]:
    if not known.holdout.n or not known.learned.n:
        return []
    return [
        f"With learning, {share(known.learned)} of {known.learned.n} rated first tries were accepted; without it, in "
        f"the holdout, {share(known.holdout)} of {known.holdout.n}"
        + (". The estimate also evens out which edits these happened to be." if known.estimate is not None else ".")
    ]


def _complaints(report: Report) -> list[str]:
    if not report.reasons:
        return []
    told = ", ".join(f"{why.reason} ({_times(why.count)})" for why in report.reasons[:_MOST_COMPLAINTS])
    return [f"What you complained about most: {told}."]


def _times(count: float) -> str:
    return "once" if count == 1 else f"{count:.0f} times"


def _what_to_do(known: Uplift) -> list[str]:
    if known.proof == "harms":
        return ["Go back with `edi learn rollback`, or switch it off with EDI_LEARNING=off."]
    return []


def _went_back(report: Report) -> list[str]:
    if report.profile is None or report.profile == report.profile_newest:
        return []
    return [
        f"Profile {report.profile} is used, because you went back to it; new verdicts change the newest, "
        f"{report.profile_newest}: `edi learn activate {report.profile_newest}` uses that."
    ]


def share(known: Share) -> str:
    """A share with its interval: "66 % (62 to 70)"."""
    return f"{percent(known.mean)} ({100 * known.low:.0f} to {100 * known.high:.0f})"


def percent(value: float) -> str:
    """A share of 0..1 in whole percent."""
    return f"{100 * value:.0f} %"


def _more(value: float) -> str:
    points = abs(round(100 * value))
    if points == 0:
        return "no more and no fewer"
    return f"{points} {'more' if value > 0 else 'fewer'}"


def _signed(value: float) -> str:
    points = round(100 * value)
    return f"{points:+d}".replace("-", "\N{MINUS SIGN}") if points else "0"


# --- What changed, and what comes next ----------------------------------------------------------------


def since(report: Report) -> str:
    """Against what the changes are told."""
    if report.profile is None:
        return "No profile yet"
    if report.profile_before is None:
        return f"What changed with profile {report.profile}, the first one"
    return f"What changed since profile {report.profile_before}"


def changes(report: Report) -> list[str]:
    """One sentence for each change; one that says so where there is none."""
    if report.profile is None:
        return ["The first verdicts on edits that could be made in several ways make the first profile."]
    told = [_change(change) for change in report.changes[:MOST_TOLD]]
    left = len(report.changes) - len(told)
    if told and report.profile_before != report.profile_parent:
        told.append(f"Nothing more changed since profile {report.profile_parent}.")
    more = [f"And {left} smaller {'change' if left == 1 else 'changes'}."] if left else []
    return [*told, *more] or [_NOTHING_CHANGED]


def _change(change: Change) -> str:
    now = change.now
    if not now.differs:
        return _back_to_default(change)
    chance = f"in {percent(now.favourite.chance)} of edits (before: {percent(change.chance_before)})"
    return f"{_where(now)}: {_called(now.what, now.favourite.name)} {chance}, {_because(now)}."


def _back_to_default(change: Change) -> str:
    """The default is favoured, more than before or less."""
    now, usual = change.now, _called(change.now.what, change.now.default.name)
    chance, before = percent(now.favourite.chance), f"(before: {percent(change.chance_before)})"
    liked = _liked(now.default)
    if now.favourite.chance < change.chance_before:
        return f"{_where(now)}: {usual} was {liked}; it stays the likeliest, in {chance} of edits {before}."
    return f"{_where(now)}: {usual} again, in {chance} of edits {before}: it was {liked}."


def _because(now: Leaning) -> str:
    favourite, default = now.favourite, now.default
    default_told = f"{_called(now.what, default.name)} was {_liked(default)}"
    if min(favourite.verdicts, default.verdicts) < ENOUGH / 2 or _rate(favourite) <= _rate(default):
        return f"by what is known of edits like these (here it was {_liked(favourite)}, and {default_told})"
    return f"because it was {_liked(favourite)}, and {default_told}"


def _rate(option: Option) -> float:
    return option.reward / option.verdicts if option.verdicts else 0.0


def _liked(option: Option) -> str:
    if not option.verdicts:
        return "never judged"
    if option.verdicts == 1:
        return ("not liked", "half liked", "liked")[round(2 * _rate(option))] + " the one time it was judged"
    return f"liked {percent(_rate(option))} of {_times(option.verdicts)}"


def coming(report: Report) -> list[str]:
    """What the next edit will do otherwise than one that knows nothing."""
    if not report.is_on:
        return ["Nothing: learning is switched off (EDI_LEARNING=off)."]
    if not report.next:
        return [
            "The usual way stays the likeliest for every kind of edit. In the other cases, as often as said above, "
            "another way is tried, to learn whether you like it better."
        ]
    told = [_next(leaning) for leaning in report.next[:MOST_TOLD]]
    left = len(report.next) - len(told)
    return [*told, *([f"And {left} more kinds of edit."] if left else [])]


def _next(leaning: Leaning) -> str:
    favourite = leaning.favourite
    meaning = f" ({favourite.words})" if favourite.words else ""
    usual = _called(leaning.what, leaning.default.name)
    return (
        f"{_where(leaning)}: {_called(leaning.what, favourite.name)}{meaning} in {percent(favourite.chance)} of edits, "
        f"rather than {usual}, {_because(leaning)}."
    )


def _where(leaning: Leaning) -> str:
    if leaning.what == STRENGTH:
        return f"Strength of {edits(leaning.edit_type, leaning.label, '')}"
    return edits(leaning.edit_type, leaning.label, leaning.what)


def edits(edit_type: str, label: str, kind: str) -> str:
    """Which edits: "Brighten (person)"; of no kind "color edits of person"."""
    on = {"image": "whole picture", "unknown": "anything"}.get(label, label)
    return f"{kind[:1].upper()}{kind[1:]} ({on})" if kind else f"{edit_type} edits of {on}"


def way(preset: str) -> str:
    """How it was done: "soft" of "brighten: soft"; "as asked" where the person named it."""
    return preset.rpartition(": ")[2] or "as asked"


def level(strength: int) -> str:
    """A strength level in words: "stronger"."""
    return _LEVELS.get(str(strength), str(strength))


def _called(what: str, name: str) -> str:
    if what == STRENGTH:
        return "the usual strength" if int(name) == USUAL_LEVEL else level(int(name))
    return f"“{way(name)}”"


# --- Smaller things -----------------------------------------------------------------------------------


def calibration(report: Report) -> list[str]:
    """What the score is worth."""
    found = report.calibration
    if found.method == "none" or found.ece is None or found.noise_floor is None:
        return [f"Nothing is said of the score before 30 rated results; there are {found.rows}."]
    at = "; ".join(f"{score:g} means {percent(found.chance(score) or 0.0)}" for score in (0.6, 0.8, 0.95))
    chance = "no more" if found.ece <= found.noise_floor * _NEAR else "more"
    lines = [
        f"Chance that you accept a result by its alignment score: {at}.",
        f"These chances are off by {100 * found.ece:.1f} points on average, {chance} than luck alone explains with "
        f"{found.rows} verdicts ({100 * found.noise_floor:.1f}).",
    ]
    if found.advice:
        lines.append(
            f"Accepting by itself from {found.advice.threshold:.2f} on, instead of {report.threshold:.2f}, would be "
            f"right at least {percent(found.advice.low)} of the time ({found.advice.accepted} of {found.advice.n} "
            "so far)."
        )
    else:
        lines.append(f"No other threshold than {report.threshold:.2f} is recommended: none is proven to be as good.")
    return lines


def cells(report: Report) -> tuple[list[Cell], str]:
    """The cells to show, those that say something first; and a sentence on the others, "" where there are none."""
    enough = [cell for cell in report.cells if cell.enough][:MOST_CELLS]
    few = [cell for cell in report.cells if not cell.enough][:_MOST_FEW]
    left = len(report.cells) - len(enough) - len(few)
    return [*enough, *few], f"And {left} more: edi learn --json has all." if left else ""


def no_phrases(report: Report) -> str:
    """Why no word of a prompt is named."""
    if report.verdicts < LEAST_SESSIONS:
        return f"Looked for from {LEAST_SESSIONS} verdicts on; there are {report.verdicts}."
    return "No word of your prompts stands out."


def bar(low: float, mean: float, high: float, width: int = 20) -> str:
    """An interval as text: dots for all of 0..1, shade for the interval, a block for the mean."""
    at = min(width - 1, int(mean * width))
    inside = [low <= (place + 0.5) / width <= high for place in range(width)]
    return "".join("█" if place == at else "▒" if inside[place] else "·" for place in range(width))


def new_events(report: Report) -> str:
    """What this run has added."""
    if not report.new_events:
        return "No new verdicts since the last look."
    new = "1 verdict is" if report.new_events == 1 else f"{report.new_events} verdicts are"
    return f"{new} new (one that was changed counts twice)."


def stamp(report: Report) -> str:
    """When and of what."""
    profile = f"profile {report.profile}" if report.profile else "no profile yet"
    verdicts = f"{report.verdicts:,} {'verdict' if report.verdicts == 1 else 'verdicts'}"
    return f"{report.made_at:%Y-%m-%d %H:%M} UTC, {verdicts}, {profile}"
