"""What the embedded engines cannot do, told in one sentence each."""

from __future__ import annotations

import re
from typing import Final

from edi_storage.errors import UnsupportedEditError
from flows.engines.lexicon import look_in, pattern
from flows.engines.nouns import nouns

_FRAMING: Final = (
    r"\b(?:crop|cropped|rotate|rotated|resize|flip|mirror|straighten|zoom|upscale|enlarge|uncrop|widen)\b|\bmake (?:it"
    r"|the (?:photo|picture|image)) (?:a |much )?(?:bigger|larger|smaller|wider|square|portrait|landscape)\b"
)
_PAINTERLY: Final = (
    "painting|watercolor|watercolour|oil paint|van gogh|monet|picasso|anime|cartoon|comic|sketch|drawing|"
    "pixel art|in the style of|cyberpunk|ghibli|lego|impressionist|renaissance|3d render|claymation|caricature"
)
#: Words for another scene; where a look is named too ("autumn colours"), the look is what is meant.
_SCENE: Final = (
    r"\b(?:snow|snowing|snowy|rain|raining|winter|autumn|summer|springtime|wearing|calm|calmer|frozen|on fire|flooded|"
    r"empty|ruined|abandoned)\b"
)
_ANOTHER_TIME: Final = (
    r"\b(?:into|to|like|look|looks) (?:it is |it's |it was taken )?(?:a |at |the )?"
    r"(?:night|nighttime|night time|day|daytime|day time|daylight)\b"
)
_PERSON: Final = (
    r"\b(?:smil\w+|laughing|younger|older|thinner|slimmer|skinnier|taller|bald|beard|haircut|hairstyle|makeup"
    r"|make up)\b|\b(?:open|close|opened|closed) (?:\w+ )?eyes\b"
)
_DAMAGE: Final = (
    r"\b(?:noise|denoise|noisy|grain|grainy|scratches|scratch|watermark|red eyes?|motion blur|dust|wrinkles|acne|"
    r"skin smoothing|pimples|chin|blemish|blemishes|dark circles|tattoo|braces)\b"
)
_MENDING: Final = r"\b(?:remove|get rid of|reduce|clean|fix|denoise|less|noisy|grainy|repair|smooth|smoothing)\b"
_SIZE: Final = r"\b(?:bigger|larger|smaller|wider|longer|shorter|taller)$"
_MOVING: Final = r"\b(?:move|shift|relocate|bring closer) (?:the|my|him|her|them|it)\b"
#: "a better sky" may come from a change of the one that is there.
_SKY_MOODS: Final = ("stormy", "golden", "clear", "dramatic")


def refuse(text: str) -> None:
    """Raise UnsupportedEditError when a normalised prompt asks for what no embedded engine can do."""
    if re.search(_FRAMING, text):
        raise UnsupportedEditError(
            "EDI changes light, colour and focus; to crop, turn or resize a photo use an image editor or viewer."
        )
    if re.search(_DAMAGE, text) and re.search(_MENDING, text) and "film grain" not in text:
        raise UnsupportedEditError(
            "EDI changes light, colour and focus; to mend noise, scratches or skin use a retouching program."
        )
    impossible = beyond_us(text)
    if impossible:
        raise UnsupportedEditError(
            f"EDI changes light, colour and focus; {impossible} needs a generative backend "
            "(EDI_EDITOR=comfyui with a ComfyUI server)."
        )


def beyond_us(text: str) -> str | None:
    """What a prompt asks for that only a generative backend can do, in words; None when there is no such thing."""
    if re.search(r"\b(?:replace|swap|substitute|exchange)\b", text) and not _another_backdrop(text):
        return "replacing one thing by another"
    if pattern(_PAINTERLY).search(text):
        return "repainting a photo in another style"
    if re.search(_PERSON, text):
        return "altering what somebody looks like"
    if re.search(_ANOTHER_TIME, text):
        return "changing the time of day"
    if re.search(_MOVING, text):
        return "moving a thing"
    known = look_in(text)
    turn = re.search(r"\b(?:turn|change|transform|convert|morph|make)\b.*\b(?:into|to) (?:an? )(\w+)", text)
    if turn and known is None:
        return "turning one thing into another"
    if re.search(r"\b(?:write|type|caption)\b|\btext that says\b", text):
        return "writing on a photo"
    if _adds(text):
        return "adding a thing that is not in the photo"
    if re.search(_SCENE, text) and known is None:
        return "changing what the scene is"
    if re.search(_SIZE, text) and known is None:
        return "altering the size of a thing"
    return None


def _another_backdrop(text: str) -> bool:
    """A sky or a background for the one that is there, of a kind that can be made."""
    found = re.search(r"\bsky\b.*\b(?:with|by|for)\b(.*)", text)
    look = look_in(found.group(1).strip()) if found else None
    if look is not None and (look[0].parameters.get("mood") in _SKY_MOODS or look[0].action == "recolour"):
        return True
    found = re.search(r"\bbackground\b.*\b(?:with|by|for)\b(.*)", text)
    look = look_in(found.group(1).strip()) if found else None
    return look is not None and look[0].action in ("blur", "recolour", "black_and_white")


def _adds(text: str) -> bool:
    """ "add a dog", "give him a hat"; not "add some warmth", "give it a warm look"."""
    added = re.search(r"\b(?:add|insert|put|place|include|draw|give me|generate|create)\b(.*)", text)
    if added and look_in(added.group().strip()) is None:
        return re.search(r"\b(?:an?|some|two|three|the|my|more)?\s*[a-z]{3,}", added.group(1)) is not None
    given = re.search(r"\bgive (?:him|her|them|me|us|(?:the|my|our) (\w+)) (?:an? |some |more )?[a-z]{3,}", text)
    thing = given is not None and (given.group(1) is None or given.group(1) in nouns())
    return thing and look_in(text) is None
