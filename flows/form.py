"""The fields of the forms in Prefect's UI, in a photographer's words: title, description, limits.

An empty text or 0 stands for "nothing": an optional field would get a toggle between two types.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, get_args

from pydantic import Field, WithJsonSchema
from pydantic.fields import FieldInfo
from pydantic.json_schema import SkipJsonSchema

from edi_storage import models
from edi_storage.errors import InputError
from edi_storage.models import MAX_ATTEMPTS, MAX_PROMPT, MAX_VARIATIONS, FeedbackType, Reason
from flows.engines.area import MAX_REGION
from flows.engines.wishes import MAX_PROTECT, STRENGTHS

#: The words for what may be done with a verdict in the runs of earlier versions; None leaves it to EDI_CONSENT.
CONSENTS: Final[Mapping[str, models.Consent | None]] = {
    "": None,
    "as set up": None,
    "learn nothing": "none",
    "stays here": "local",
    "may be shared": "export",
}


def consent_of(given: str, usual: models.Consent) -> models.Consent:
    """What a person consents to (none, local or export); `usual` where they leave it to the settings.

    Raises InputError.
    """
    text = given.strip().lower()
    if text in CONSENTS:
        return CONSENTS[text] or usual
    for name in get_args(models.Consent):
        if name == text:
            meant: models.Consent = name
            return meant
    raise InputError(f"The consent is {given[:40]!r}: say none, local or export.")


#: A session's id, or nothing.
SESSION_NAME: Final = "^([A-Za-z0-9][A-Za-z0-9_-]{0,63})?$"

#: A batch's id, or nothing; the ids of its sessions are longer.
BATCH_ID = "^([A-Za-z0-9][A-Za-z0-9_-]{0,39})?$"


def shown(title: str, description: str, **limits: Any) -> Any:
    """A field of a form. Prefect puts the parameter's name in the place of a plain title, but leaves extras alone."""
    return Field(json_schema_extra={"title": title, "description": description}, **limits)


def words_of(field: Any) -> tuple[str, str]:
    """The title and the description of a field of this module, for a form that is not Prefect's."""
    (words,) = (more.json_schema_extra for more in field.__metadata__ if isinstance(more, FieldInfo))
    assert isinstance(words, dict)
    return str(words["title"]), str(words["description"])


#: Leaves a field out of a form; scripts give it all the same.
NOT_SHOWN: Final = SkipJsonSchema()  # type: ignore[type-arg]

Photo = Annotated[
    str,
    shown(
        "Photo",
        "Name of a photo in the folder for photos (the page /edi shows what is in it), or its path on the machine "
        "that edits. PNG, JPEG or WebP. It is never changed.",
        min_length=1,
    ),
]
Prompt = Annotated[
    str,
    shown(
        "What to do",
        "In your own words: 'make the sky dramatic', 'warmer, but keep the house as it is', 'blur the background'.",
        min_length=1,
        max_length=MAX_PROMPT,
    ),
]
BatchPrompt = Annotated[
    str,
    shown(
        "What to do",
        "With each of the photos, in your own words: 'make the sky dramatic'. May be empty when a list says it for "
        "every photo.",
        max_length=MAX_PROMPT,
    ),
]
#: A choice of words in the form; scripts that call the flow itself may also give a number up to 1.
Strength = Annotated[
    str | float,
    WithJsonSchema({"type": "string", "enum": list(STRENGTHS)}),
    shown("How strong", "'as the prompt says' listens to words such as 'a bit' or 'very'."),
]
Protect = Annotated[
    str,
    shown(
        "What to protect",
        "Things in the photo that must not change, with commas between: 'the car, people'. Empty: nothing "
        "in particular.",
        max_length=MAX_PROTECT,
    ),
]
Region = Annotated[
    str,
    shown(
        "Only inside this region",
        "Left, top, width and height in percent of the picture: '0,0,100,40' is the upper two fifths, "
        "'50,0,50,100' the right half. Nothing outside of it changes. Empty: the whole picture.",
        max_length=MAX_REGION,
    ),
]
Mask = Annotated[
    str,
    shown(
        "Only where this mask is white",
        "Name of a picture in the folder for photos, or its path, with the proportions of the photo: white where the "
        "photo may change, black where not. Empty: no mask.",
    ),
]
Review = Annotated[
    models.Review,
    shown(
        "Who judges the result",
        "unsure: EDI, and you where it is not sure. ask: you, every attempt. auto: EDI alone.",
    ),
]
Attempts = Annotated[
    int,
    shown("Attempts", "1 to 3. A weak result is tried again, each time from the original.", ge=1, le=MAX_ATTEMPTS),
]
Variations = Annotated[
    int,
    shown(
        "Variations",
        "1 to 4. With more than one you choose which you like best, or blend them; with 'auto' above, the one that "
        "measures best is taken.",
        ge=1,
        le=MAX_VARIATIONS,
    ),
]
Output = Annotated[
    str,
    shown(
        "Write the result to",
        "A file to write besides, ending in .png, .jpg or .webp. Empty: it is kept with the session only.",
    ),
]
Overwrite = Annotated[bool, shown("Replace that file", "If the file above is there already.")]
Strip = Annotated[
    bool,
    shown(
        "Leave out camera and time",
        "The file above names the camera, when and how the photo was taken, and its copyright (never the place, or "
        "whose camera it was). Switched on, it names nothing.",
    ),
]
Blend = Annotated[
    str,
    shown(
        "Or blend them",
        "One variation with parts of others, such as '1, sky from 3'. Empty: the choice above as it is.",
        max_length=200,
    ),
]
Photos = Annotated[
    list[str],
    shown(
        "Photos",
        "Folders, names of photos in the folder for photos, or paths; or a list.csv with a column photo, and where "
        "wanted prompt, strength, protect and region. Empty: every photo in that folder.",
    ),
]
OutputFolder = Annotated[
    str,
    shown(
        "Write the results to",
        "A folder; each result has the name of its photo. Empty: they are kept with the sessions only.",
    ),
]
Workers = Annotated[
    int,
    shown(
        "At the same time",
        "Photos edited side by side, as far as the memory is enough. 0: as many as this machine is good for.",
        ge=0,
        le=64,
    ),
]
BatchName = Annotated[
    str,
    shown(
        "Batch",
        "Empty: a name that follows from the fields above, so that the same batch again does only what is left. "
        "A new name does it all anew.",
        pattern=BATCH_ID,
    ),
]

Verdict = Annotated[
    FeedbackType,
    shown(
        "Your verdict",
        "accept: keep it. partial: keep it, right in part. reject: not what you wanted; an edit that waits for your "
        "verdict is then tried again.",
    ),
]
Rating = Annotated[int, shown("Stars", "1 (poor) to 5 (excellent). 0: no rating.", ge=0, le=5)]
Reasons = Annotated[
    list[Reason],
    shown(
        "What was wrong",
        "One or several; empty if nothing was. edges: one sees where it begins. tone: too light or too dark. artifact: "
        "spots, halos or other traces. The next attempt heeds them. Against wrong region and artifact that does not "
        "help much: edit the original again, and say what to protect or where.",
    ),
]
Comment = Annotated[str, shown("Comment", "In your own words.", max_length=2000)]
SessionToRate = Annotated[
    str,
    shown("Session", "Its id, or the first letters of it. Empty: the newest session that has a result.", max_length=64),
]

SessionToAnswer = Annotated[
    str, shown("Session", "Its id, or the first letters of it. Empty: the newest that asks something.", max_length=64)
]
Answer = Annotated[
    str,
    shown(
        "Your answer",
        "The number of a choice, or several: 1,2. Where variations are to choose from, also a blend, such as '1, sky "
        "from 3'.",
        min_length=1,
        max_length=200,
    ),
]

Limit = Annotated[
    int, shown("At most", "So many sessions are continued in one run, the oldest first.", ge=1, le=10_000)
]
Keep = Annotated[int, shown("Copies to keep", "Older dated copies in the folder backups are deleted.", ge=1, le=1000)]
