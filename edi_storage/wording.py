"""What a person's words say to learning: the stems of a prompt's terms, and the reasons in a comment."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Any, Final

#: Terms kept of one prompt: a pasted page would fill the table otherwise.
_MOST_TERMS: Final = 24
_LONGEST_TERM: Final = 24
#: Words that are in prompts of every kind, so that they tell nothing of one.
_COMMON: Final = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be but by can could do for from get give go has have i if in into is it its just let like "
        "make me my no not of off on or out please shall should so some than that the their them then there these they "
        "this those to too up us very want was we what when where which while who will with would you your",
    )
)
#: What a comment says when it gives a reason that has a chip of its own. "too" must stand right before the word: "very
#: strong" may well be praise.
_SAID: Final[tuple[tuple[str, str], ...]] = (
    (
        "too strong",
        r"too (?:much|strong|intense|heavy|dramatic|vivid|saturated|extreme|harsh|blurry)|over ?done|"
        r"over ?(?:processed|cooked|saturated|sharpened)|over the top|exaggerated|tone it down|less (?:please|of it)",
    ),
    (
        "too weak",
        r"too (?:weak|little|subtle|faint|light|soft|timid)|not (?:\w+ )?enough|not visible|"
        r"(?:barely|hardly|scarcely) (?:visible|any|see|noticeable)|(?:no|(?:can't|cannot) see (?:a|any|the)) "
        r"(?:difference|change|effect)|nothing (?:changed|happened)|(?:stronger|more) please",
    ),
    (
        "wrong region",
        r"wrong (?:place|area|region|part|thing|object|person|one|side)|also changed|"
        r"(?:changed|edited|removed|blurred) the (?:wrong|rest|\w+ (?:too|as well|instead))|"
        r"spill\w*|bled? (?:in|on|over)\w*|"
        r"should (?:not )?have (?:been )?(?:left|kept)|not the (?:sky|person|house|background)",
    ),
    ("edges", r"edges?|halos?|outlines?|fring\w+|borders?|cut ?out|jagged"),
    (
        "colour",
        r"colou?rs?|hues?|tint\w*|greenish|reddish|bluish|yellowish|purple|"
        r"(?:too|looks?|turned) (?:red|green|blue|yellow|orange|pink|magenta|cyan|warm|cold|cool)",
    ),
    (
        "artifact",
        r"artifacts?|artefacts?|nois[ey]\w*|band(?:ing|s)|blocky|blotch\w*|smear\w*|smudg\w+|glitch\w*|pixelated|"
        r"grainy",
    ),
    (
        "tone",
        r"tones?|tonal|contrast|too (?:dark|bright)|(?:over|under) ?exposed|flat|muddy|washed ?out|blown ?out|shadows?|"
        r"highlights?|grey(?:ish)?|gray(?:ish)?",
    ),
)
OTHER: Final = "other"


@cache
def _stemmer() -> Any:
    # Half a second is not spent where no prompt is stemmed.
    import snowballstemmer

    return snowballstemmer.stemmer("english")


def terms_of(prompt: str) -> list[str]:
    """The stems of a prompt's words that mean something, each once and in order of the alphabet; at most 24."""
    words = re.findall(r"[^\W\d_]{3,}", prompt.lower())
    meant = dict.fromkeys(word[:_LONGEST_TERM] for word in words if word not in _COMMON)
    return sorted({str(_stemmer().stemWord(word)) for word in meant})[:_MOST_TERMS]


def reasons_of(comment: str, chips: Iterable[str] = ()) -> list[str]:
    """The reasons that a verdict gives, sorted: its chips, and what its comment says in one of the same words.

    A comment in which no reason is found, beside no chip, is "other"; without a comment there may be none.
    """
    said = " ".join(comment.lower().split())
    found = {*chips, *(reason for reason, words in _SAID if re.search(rf"\b(?:{words})\b", said))}
    return sorted(found) if found or not said else [OTHER]
