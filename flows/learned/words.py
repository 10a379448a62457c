"""What the report says, in plain words, for all places that show it. Shares are whole percent."""

from __future__ import annotations

from typing import Final

from edi_storage.learning.intervals import wilson
from edi_storage.learning.phrases import LEAST_SESSIONS
from edi_storage.learning.report import ENOUGH, STRENGTH, USUAL_LEVEL, Cell, Change, Leaning, Option, Report, kind_of
from edi_storage.learning.uplift import HOLDOUT, LEAST, LEAST_HELD_OUT, Share, Uplift
from flows.words import reason

#: Changes, and edits that will be done otherwise, that are told one by one.
MOST_TOLD: Final = 8
#: Lines of the table.
MOST_CELLS: Final = 40
#: An error is that of luck up to so many times what luck makes on average.
_NEAR: Final = 1.5
#: What stands first, as a word.
STANDING: Final = {
    "too early": "too early to say",
    "not yet proven": "not yet proven",
    "helps": "it helps",
    "harms": "it does harm",
}
_LEVELS: Final = {"1": "much weaker", "2": "weaker", "3": "as usual", "4": "stronger", "5": "much stronger"}

HOW_TO_RATE: Final = (
    "Rate an edit with `edi feedback last accept --rating 5` (or reject, or partial), with the links on its page, or "
    "in the dialog of a run that waits. It counts from the next look on, within the hour."
)
_NOTHING_CHANGED: Final = "Nothing that would be done otherwise: what is new agrees with what was known."
EXPLANATION: Final = (
    "“Usual” is what EDI does before it has learned anything. Accepted counts 1, accepted in part one half, rejected "
    "0. A first try is the first result of a request. About "
    "every tenth edit, chosen at random, is made without learning, so that there is a fair comparison; how likely each "
    "choice was is written down before it is made, and the estimate corrects for it. Ranges are 95 % intervals: the "
    "true value very likely lies inside."
)
#: Which complaints change more than the liking of a way.
OF_COMPLAINTS: Final = (
    "Chosen, or read out of comments. When the same edit is tried again, EDI acts on too strong, too weak, edges, "
    "colour and tone. In the edits that follow, “too strong” and “too weak” move the strength; for all others it is "
    "the rating that counts."
)
#: Of the trend's picture.
OF_TREND: Final = "Each point is a group of rated first tries up to that day; shaded: 95 % intervals."
HOW_COUNTED: Final = "How this is counted"
CELLS: Final = "How you rated each way"
COMING: Final = "What EDI now does instead of the usual"
COMPLAINTS: Final = "Your complaints"
SCORE: Final = "How well EDI's own score predicts your rating"
TREND: Final = "First tries over time"
WORDS: Final = "Words of your requests that stand out"


def title(report: Report) -> str:
    """The headline: does it help?"""
    known = report.uplift
    if not report.verdicts:
        return "Nothing learned yet"
    if known.estimate is None:
        return "Learning has begun; it is too early to say whether it helps"
    match known.proof:
        case "helps":
            return f"Learning helps: about {_more(known.estimate)} of every 100 first tries are accepted"
        case "harms":
            return f"Learning does harm: about {_more(known.estimate)} of every 100 first tries are accepted"
        case _:
            return "Not yet proven that learning helps"


def standing(report: Report) -> list[str]:
    """The sentences below the headline: the interval, and what it rests on."""
    if not report.verdicts:
        return ["Nobody has rated an edit that still counts.", HOW_TO_RATE]
    known = report.uplift
    return [_estimate(report), *_compared(report), *_complaints(report), *_what_to_do(known), *_went_back(report)]


def _estimate(report: Report) -> str:
    known = report.uplift
    if known.estimate is None or known.low is None or known.high is None:
        return _too_early(report.verdicts, known.learned.n, known.holdout.n)
    span = f"between {_signed(known.low)} and {_signed(known.high)} of every 100 (95 % interval)"
    if known.proof == "not yet proven":
        return f"The best estimate is {_more(known.estimate)} accepted, {span}: it may as well be no difference."
    return f"The difference very likely lies {span}, compared with edits made without learning."


def _too_early(ratings: int, learned: int, held_out: int) -> str:
    """Why there is no estimate: only edits that were made since there was a profile can show what it is worth."""
    # Every tenth is made without learning, so that it takes more than the least.
    needed = max(LEAST, round(LEAST_HELD_OUT / HOLDOUT))
    if not learned + held_out:
        yours = "Your rating" if ratings == 1 else f"Your {ratings:,} ratings"
        return f"{yours} will shape the edits that follow. Whether that helps shows after about {needed} more."
    without = f"of them {held_out or 'none'} without"
    return (
        f"Whether it helps shows after about {needed} rated first tries ({LEAST} at least, of them {LEAST_HELD_OUT} "
        f"without learning, to compare with). So far there are {learned + held_out}, {without}."
    )


def _compared(report: Report) -> list[str]:
    known = report.uplift
    if not known.holdout.n or not known.learned.n:
        return []
    told = [
        f"Accepted with learning: {share(known.learned)} of {known.learned.n:,} first tries; without: "
        f"{share(known.holdout)} of {known.holdout.n:,}."
    ]
    if known.estimate is not None:
        plain, fair = (_signed(value) for value in (known.learned.mean - known.holdout.mean, known.estimate))
        told.append(f"The plain difference is {plain}; corrected for the edits not being the same ones, {fair}.")
    return [" ".join(told)]


def not_compared(report: Report) -> str:
    """Ratings that tell nothing of whether learning helps; "" where there are none."""
    others = report.verdicts - report.uplift.learned.n - report.uplift.holdout.n
    if others <= 0:
        return ""
    are = "1 rating is" if others == 1 else f"{others:,} ratings are"
    return f" {are} not compared: of a later try, or from before anything was learned."


def _complaints(report: Report) -> list[str]:
    if not report.reasons:
        return []
    told = ", ".join(f"{reason(why.reason)} ({why.count})" for why in report.reasons)
    return [f"Your complaints: {told}."]


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
        f"Profile {report.profile} is used, because you went back to it; new ratings change the newest, "
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
        return "What changed with your first ratings"
    return f"What changed since profile {report.profile_before}"


def changes(report: Report) -> list[str]:
    """One sentence for each change; one that says so where there is none."""
    if report.profile is None:
        return ["The first ratings of edits that could be made in several ways make the first profile."]
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
    if now.favourite.chance >= change.chance_before:
        return f"{_where(now)}: {usual} again, in {chance} of edits {before}: it was {liked}."
    kept = "One rating is little, so it" if now.default.verdicts == 1 else "It"
    others = ", ".join(f"{_called(now.what, one.name)} {percent(one.chance)}" for one in now.others)
    rest = f"the rest tries others (such as {others}), to learn whether you like one better"
    return f"{_where(now)}: {usual} was {liked}. {kept} stays the main choice, in {chance} of edits {before}; {rest}."


def _because(now: Leaning) -> str:
    favourite, default = now.favourite, now.default
    liked = f"it was {_liked(favourite)}, and {_called(now.what, default.name)} was {_liked(default)}"
    if not favourite.verdicts or _rate(favourite) <= _rate(default):
        return f"by what is known of edits like these (here {liked})"
    enough = min(favourite.verdicts, default.verdicts) >= ENOUGH
    low, _ = wilson(favourite.reward, favourite.verdicts)
    return f"because {liked}" if enough and low > _rate(default) else f"not sure yet: {liked}"


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
            "Nothing as a rule: the usual way is still the main choice for every kind of edit. Other ways are tried "
            "where you have rated something."
        ]
    told = [_next(leaning) for leaning in report.next[:MOST_TOLD]]
    left = len(report.next) - len(told)
    return [*told, *([f"And {left} more kinds of edit."] if left else [])]


def _next(leaning: Leaning) -> str:
    favourite = leaning.favourite
    meaning = f" ({favourite.words})" if favourite.words else ""
    usual = _called(leaning.what, leaning.default.name)
    return (
        f"{_where(leaning)}: {_called(leaning.what, favourite.name)}{meaning} instead of {usual} in "
        f"{percent(favourite.chance)} of edits, {_because(leaning)}."
    )


def _where(leaning: Leaning) -> str:
    if leaning.what == STRENGTH:
        return f"Strength of {edits(leaning.edit_type, leaning.label, '')}"
    return edits(leaning.edit_type, leaning.label, leaning.what)


def edits(edit_type: str, label: str, kind: str) -> str:
    """Which edits: "Brighten (person)"; of no kind "colour edits (person)"; not "Dramatic sky (sky)"."""
    what = f"{kind[:1].upper()}{kind[1:]}" if kind else f"{'colour' if edit_type == 'color' else edit_type} edits"
    on = {"image": "whole picture", "unknown": "anything"}.get(label, label)
    return what if on in kind.split() else f"{what} ({on})"


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
        return [f"This needs 30 rated results; so far there are {found.rows}."]
    at = "; ".join(f"{score:g}: {percent(found.chance(score) or 0.0)}" for score in (0.6, 0.8, 0.95))
    chance = "No more" if found.ece <= found.noise_floor * _NEAR else "More"
    lines = [
        f"EDI scores from 0 to 1 how well a result is what you asked for. Chance that you accept it, by score: {at}.",
        f"These chances are off by {100 * found.ece:.1f} points on average. {chance} than luck explains: with "
        f"{found.rows:,} ratings that is {100 * found.noise_floor:.1f}.",
    ]
    if found.advice:
        lines.append(
            f"Results are accepted by themselves from {report.threshold:.2f} on. From {found.advice.threshold:.2f} on "
            f"would be right at least {percent(found.advice.low)} of the time ({found.advice.accepted} of "
            f"{found.advice.n} so far)."
        )
    else:
        lines.append(f"Results are accepted by themselves from {report.threshold:.2f} on; no better limit is proven.")
    return lines


def cells(report: Report) -> tuple[list[Cell], str]:
    """The cells to show, those of one kind of edit together; and a sentence on the others, "" where there are none."""
    ratings: dict[tuple[str, str, str], int] = {}
    for cell in report.cells:
        ratings[_kind(cell)] = ratings.get(_kind(cell), 0) + cell.n
    ordered = sorted(
        report.cells, key=lambda cell: (-ratings[_kind(cell)], _kind(cell), not cell.enough, -cell.mean, -cell.n)
    )
    left = len(ordered) - MOST_CELLS
    return ordered[:MOST_CELLS], f"And {left} more: edi learn --json has all." if left > 0 else ""


def _kind(cell: Cell) -> tuple[str, str, str]:
    return cell.edit_type, cell.label, kind_of(cell.preset)


def too_few(cell: Cell) -> str:
    """Instead of a share."""
    return f"insufficient ({cell.n} of {ENOUGH})"


def no_phrases(report: Report) -> str:
    """Why no word of a prompt is named."""
    if report.verdicts < LEAST_SESSIONS:
        return f"This needs {LEAST_SESSIONS} ratings; so far there are {report.verdicts}."
    return "None does: with no word are edits liked more or less than others of their kind."


def bar(low: float, mean: float, high: float, width: int = 20) -> str:
    """An interval as text: dots for all of 0..1, shade for the interval, a block for the mean."""
    at = min(width - 1, int(mean * width))
    inside = [low <= (place + 0.5) / width <= high for place in range(width)]
    return "".join("█" if place == at else "▒" if inside[place] else "·" for place in range(width))


def span(mean: float, low: float, high: float) -> str:
    """A share with its interval, of 100: "91 (84 to 95)"."""
    return f"{100 * mean:.0f} ({100 * low:.0f} to {100 * high:.0f})"


def without(report: Report) -> str:
    """What the trend is to be compared with; "" while there is nothing."""
    held_out = report.uplift.holdout
    return f"Without learning, over all this time: {share(held_out)} of {held_out.n}." if held_out.n else ""


def new_events(report: Report) -> str:
    """What this run has added."""
    if not report.new_events:
        return "No new ratings since the last look."
    return f"{report.new_events:,} new {'rating' if report.new_events == 1 else 'ratings'} since the last look."


def stamp(report: Report) -> str:
    """When and of what."""
    profile = f"profile {report.profile}" if report.profile else "no profile yet"
    ratings = f"{report.verdicts:,} {'rating' if report.verdicts == 1 else 'ratings'}"
    return f"{report.made_at:%Y-%m-%d %H:%M} UTC, {ratings}, {profile}"
