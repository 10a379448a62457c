"""What a prompt says must not change: "except the car", "don't touch the people", "the sky unchanged"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edi_storage.models import EntityData
from flows.engines.lexicon import look_in
from flows.engines.mentions import Mention, mentions, which
from flows.engines.targets import aim_of


@dataclass(frozen=True)
class Spared:
    """The prompt without what it says about keeping, the ids that it keeps, and a thing to keep that is not found."""

    text: str
    ids: frozenset[str]
    missing: str = ""


#: What follows these, to the end of the clause, is about what must stay.
_KEEP: Final = (
    r"(?:\b(?:but|and|while|please)\s+)*(?:\b(?:do not|don't|dont|without|not|never) (?:touch|chang|affect|alter|edit"
    r"|modify|los|mess|ruin|spoil)\w*(?: with)?|\b(?:keep|keeping|leave|leaving|preserve|preserving|protect|protecting"
    r"|maintain|maintaining|spare|sparing)\b|\b(?:never mind|ignore|ignoring|forget)\b)"
)
#: After these only the things themselves are; what comes next is said of the rest.
_EXCEPT: Final = (
    r"(?P<all>\b(?:everything|everywhere|all|anything|everyone)\s+)?(?:\b(?:but|and)\s+)?(?:\bexcept(?: for)?\b"
    r"|\bexcluding\b|\bapart from\b|\bother than\b|\bsave for\b|\baside from\b|\bnot (?:on |in )?(?=(?:the|my|his|her"
    r"|our|their|those|these) )|(?<=everything )but\b|(?<=everywhere )but\b|(?<=all )but\b)"
)
_TRIGGER: Final = re.compile(rf"(?P<keep>{_KEEP})|(?P<except>{_EXCEPT})")
_END: Final = re.compile(
    r"[,;]|\bbut\b|\b(?:and|then) (?=(?:make|turn|add|blur|give|just|only|brighten|darken|lighten|sharpen|remove|set"
    r"|put|desaturate|saturate|warm|cool|everything|increase|reduce|boost|the \w+ (?:more|less|\w+er)))"
)
_UNCHANGED: Final = re.compile(
    r"(?:^|(?<=[,;])|\b(?:and|but|with|while)\b)(?P<what>[^,;]*?)\b(?:untouched|unchanged|intact|unaffected)\b"
)
_IN_COLOUR: Final = re.compile(
    r"(?:\b(?:but|and|while|with)\s+)*(?:"
    r"\b(?:keep|keeping|leave|leaving|with)(?: only| just)? (?P<kept>[^,;]*?) (?:in colou?r|colou?red)\b"
    r"|(?<=and )(?P<too>(?:the|my|his|her|our) [^,;]*?) in colou?r\b"
    r"|\b(?:only|just) (?P<only>[^,;]*?) in colou?r\b|\bcolou?r only (?:on|in|for) (?P<on>[^,;]*))"
)
_JOINED: Final = r"(?:\s|,|\band\b|\bor\b|\bnor\b|\bthe\b|\bmy\b|\bour\b|\bhis\b|\bher\b|\btheir\b|\ball\b|\bboth\b)*"


def spared(text: str, entities: Sequence[EntityData]) -> Spared:
    """Take what a normalised prompt says about keeping out of it."""
    kept: set[str] = set()
    missing: list[str] = []

    def keep(what: str) -> str:
        ids, unknown, rest = _kept_in(what, entities)
        kept.update(ids)
        missing.extend([unknown] if unknown else [])
        return rest

    selective = _IN_COLOUR.search(text)
    already = re.search(r"\bblack and white|\bmonochrome|\bgr[ea]yscale|\bb and w", text) is not None
    if selective and (already or selective["too"] is None):
        keep(next(what for what in selective.groups() if what is not None))
        text = f"{text[: selective.start()]} ; {'' if already else 'black and white'} ; {text[selective.end() :]}"
    for unchanged in list(_UNCHANGED.finditer(text)):
        if not _TRIGGER.search(unchanged["what"]):
            keep(unchanged["what"])
            text = text.replace(unchanged.group(), " ; ", 1)
    done = ""
    while match := _TRIGGER.search(text):
        tail = text[match.end() :]
        end = _END.search(tail)
        what, after = (tail[: end.start()], tail[end.start() :]) if end else (tail, "")
        whole = " everything " if match["except"] and re.search(r"\b(?:all|every\w+|anything) ", match.group()) else " "
        if match["except"]:
            chain, after_chain = _chain(tail, entities)
            what, after = (chain, after_chain) if chain else (what, after)
            after = f" {keep(what)} {after}"
        else:
            keep(what)
            after = f" ; {after}"
        done += f"{text[: match.start()]}{whole}"
        text = after
    rest = re.sub(r"\s+", " ", done + text).strip(" ;,")
    return Spared(rest, frozenset(kept), missing[0] if missing else "")


def _chain(tail: str, entities: Sequence[EntityData]) -> tuple[str, str]:
    """The things named one after the other at the beginning of a text, and what follows them."""
    end = 0
    for mention in mentions(tail, entities):
        if not re.fullmatch(_JOINED if end else r"\s*(?:for |on |in )?(?:\w+ ){0,3}\s*", tail[end : mention.start]):
            break
        following = re.split(r"[,;]|\band\b|\bbut\b", tail[mention.end :])[0]
        if end and look_in(following.strip()) is not None:
            break
        end = mention.end
    return tail[:end], tail[end:]


def _kept_in(what: str, entities: Sequence[EntityData]) -> tuple[set[str], str, str]:
    """The ids of what is named, a thing that is not found, and what the text says beside."""
    what = re.sub(r"\balone\b", " ", what)  # "leave the tower alone"
    named: list[Mention] = mentions(what, entities)
    ids: set[str] = set()
    unknown = ""
    for mention in named:
        found, _ = which(mention, entities)
        if mention.landmark and ids:
            continue
        ids |= {entity.entity_id for entity in found}
        unknown = unknown or ("" if found else mention.word)
    if named:
        return ids, "" if ids else unknown, ""
    look = look_in(what.strip())
    cut = what.find(look[1]) if look is not None and look[0].action not in ("recolour", "cast") else -1
    thing, rest = (what[:cut], what[cut:]) if cut > 0 else (what, "")
    thing = thing.strip()
    if re.match(r"(?:it|them|this|that|everything|all|things)\b", thing):
        return set(), "", rest  # "keep it natural"
    aim = aim_of(thing if re.search(r"\b(?:the|my|a|his|her)\b", thing) else f"the {thing}", entities)
    if aim.kind == "whole" or aim.rest:
        return set(), "", rest
    return set(aim.ids), aim.unknown, rest
