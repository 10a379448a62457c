"""The tables of looks: which words ask for which action, and which say how much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from edi_storage.models import EditType
from flows.engines.paints import COLOURS


@dataclass(frozen=True)
class Look:
    """What a phrase asks for: the action, its sign or other parameters, and how sure the phrase alone makes it."""

    action: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    certainty: float = 0.92


EDIT_TYPES: Final[Mapping[str, EditType]] = {
    "exposure": "color",
    "contrast": "color",
    "saturation": "color",
    "warmth": "color",
    "recolour": "color",
    "tint": "color",
    "dramatic": "style",
    "dramatic_sky": "style",
    "enhance": "style",
    "sharpen": "style",
    "clarity": "style",
    "vignette": "style",
    "black_and_white": "style",
    "sepia": "style",
    "preset": "style",
    "tones": "color",
    "blur": "transform",
    "fill": "transform",
    "remove": "remove",
}

#: Actions whose parameter `direction` is +1 or -1, so that "less", "reduce" and "too" can turn them round.
SIGNED: Final = frozenset({"exposure", "contrast", "saturation", "warmth", "sharpen"})

_UP, _DOWN = {"direction": 1}, {"direction": -1}


def _mood(name: str) -> dict[str, Any]:
    return {"mood": name}


def _preset(name: str) -> Look:
    return Look("preset", {"name": name}, 0.93)


#: Phrases by look. A word stands for itself only; inflections are listed, so that nothing matches by accident.
PHRASES: Final[tuple[tuple[str, Look], ...]] = (
    (
        "dramatic|drama|dramatically|more dramatic|epic|intense|ominous|brooding|powerful|add clouds|more clouds|"
        "bring out the clouds|more dramatically",
        Look("dramatic", _mood("dramatic")),
    ),
    (
        "stormy|storm|stormier|thunderstorm|threatening|menacing|overcast|rainy|about to rain|gloomy|gloomier|cloudy|"
        "cloudier|grey and gloomy|rain clouds|storm clouds",
        Look("dramatic", _mood("stormy")),
    ),
    (
        "golden hour|sunset|sunrise|golden|golden light|sunset colors|sunset colours|sunset light|evening|evening "
        "light|sundown|dusk|dawn|twilight|late afternoon|sunrise colours|sunrise colors",
        Look("dramatic", _mood("golden")),
    ),
    (
        "clear|cloudless|clear blue|blue and clear|no clouds|without clouds|fair weather",
        Look("dramatic", _mood("clear")),
    ),
    (
        "brighter|brighten|brightens|brightened|brightening|brightness|bright|brighten up|lighter|lighten|lightened|"
        "lighten up|lightening|light up|more light|illuminate|exposure|lit|visible|more visible|easier to see|hard to "
        "see|lift|open up|open it up|open them up|overexposed|over exposed|blown out|luminous|brightest",
        Look("exposure", _UP),
    ),
    (
        "darker|darken|darkens|darkened|darkening|dark|dim|dimmer|darkness|underexposed|under exposed|in the shade|"
        "in shade|in shadow|in the shadow|in the shadows",
        Look("exposure", _DOWN),
    ),
    (
        "lift the shadows|open up the shadows|lighten the shadows|brighten the shadows|raise the shadows|brighter "
        "shadows|lighter shadows|shadow detail|bring up the shadows|fill light|softer shadows",
        Look("tones", {"area": "shadows", **_UP}),
    ),
    (
        "deepen the shadows|darken the shadows|darker shadows|deeper shadows",
        Look("tones", {"area": "shadows", **_DOWN}),
    ),
    (
        "bring down the highlights|lower the highlights|reduce the highlights|recover the highlights|"
        "tone down the highlights|pull back the highlights|softer highlights|darken the highlights",
        Look("tones", {"area": "highlights", **_DOWN}),
    ),
    (
        "brighter highlights|raise the highlights|boost the highlights|brighten the highlights",
        Look("tones", {"area": "highlights", **_UP}),
    ),
    ("contrast|contrasts|contrasty|punchy|punchier|punch|more depth|harsh", Look("contrast", _UP)),
    ("flat|flatter|low contrast|softer|soften|softened", Look("contrast", _DOWN, 0.8)),
    (
        "vivid|more vivid|vivider|vibrant|vibrance|vibrancy|colorful|colourful|saturated|saturate|saturation|richer|"
        "rich|lively|livelier|bolder|colors pop|colours pop|color pop|colour pop|more color|more colour|more colors|"
        "more colours|lush|lusher|punchier colors|punchier colours|intense colors|intense colours|stronger colours|"
        "stronger colors|brighter colors|brighter colours|deeper colours|deeper colors|bold colours|bold colors",
        Look("saturation", _UP),
    ),
    (
        "muted|mute|desaturate|desaturated|desaturating|pale|paler|washed out|fade|faded|fading|pastel|pastels|dull|"
        "duller|less color|less colour|less colors|less colours|softer colours|softer colors",
        Look("saturation", _DOWN),
    ),
    (
        "warmer|warm|warmth|warm up|warming|warms|cozy|cozier|cosy|cosier|sunnier|sunny|toasty",
        Look("warmth", _UP),
    ),
    ("cooler|cool|colder|cold|cool down|cooling|chilly|icy|wintry|frosty|bluish cast", Look("warmth", _DOWN)),
    (
        "blur|blurs|blurred|blurry|blurring|blurrier|out of focus|defocus|defocused|unfocused|fuzzy",
        Look("blur"),
    ),
    (
        "bokeh|portrait mode|depth of field|shallow depth of field|shallow focus|wide aperture",
        Look("blur", {"falloff": "depth"}),
    ),
    ("softer focus|soft focus", Look("blur", {}, 0.65)),
    (
        "sharpen|sharper|sharp|sharpened|sharpening|sharpness|crisp|crisper|crispy|focus|in focus|unsharp",
        Look("sharpen", _UP),
    ),
    (
        "clarity|hdr|clearer|more detail|more details|detailed|texture|more texture|structure|dehaze|haze|hazy|fog|"
        "foggy|misty|clear up|more definition|clear it up|remove the haze|remove the fog|clear up the fog|clear up "
        "the haze",
        Look("clarity"),
    ),
    (
        "vignette|vignetting|dark corners|darken the corners|darken the edges|darker corners|darker edges|dark edges|"
        "dark border",
        Look("vignette"),
    ),
    (
        "black and white|black white|b and w|bw|monochrome|monochromatic|grayscale|greyscale|noir|gray scale|"
        "grey scale|desaturate completely|no color|no colour|without color|without colour|colorless|colourless|"
        "no colors|no colours|black and white photo",
        Look("black_and_white"),
    ),
    ("sepia", Look("sepia")),
    (
        "vintage|retro|old photo|old photograph|old picture|old fashioned|antique|nostalgic|old timey|old school|aged|"
        "seventies|70s|60s|polaroid",
        _preset("vintage"),
    ),
    ("cinematic|movie|movie like|like a movie|film still|blockbuster|teal and orange|hollywood", _preset("cinematic")),
    ("moody|moodier|dark moody|dark and moody|moody look", _preset("moody")),
    ("airy|bright airy|light and airy|bright and airy|dreamy airy", _preset("airy")),
    ("matte|matt", _preset("matte")),
    ("film|filmic|film look|analog|analogue|kodak|35mm|film grain", _preset("film")),
    (
        "remove|removed|removing|removes|delete|deleted|erase|get rid of|take out|take away|eliminate|hide|edit out|"
        "photoshop out|wipe out",
        Look("remove"),
    ),
    (
        "better|nicer|improve|improved|enhance|enhanced|fix|fixed|beautiful|prettier|pretty|professional|amazing|"
        "awesome|good|great|stunning|perfect|cooler looking|interesting|magic|nice|more|touch up|retouch|do something|"
        "edit|pop|pops|popping|pop out|stand out|stands out|attractive|boring|clean up|clean it up|less distracting|"
        "distracting|shinier|shiny|delicious|tasty|appetizing|life|more life|enhancement|enhancements|wow|special|"
        "impressive|fresh|fresher|gorgeous|lovely|lovelier|glow|glowing|striking|bring out|noticeable|eye catching",
        Look("enhance", {}, 0.45),
    ),
)
#: Shapes of phrases, each with its look: what stands between the words is free.
SHAPES: Final[tuple[tuple[str, Look], ...]] = (
    (
        r"\b(?:boost|increase|enhance|intensify|strengthen|deepen|raise|bring out|pump up|crank up|bump up|turn up)"
        r"(?: \w+)? colou?rs?\b",
        Look("saturation", _UP),
    ),
    (
        r"\b(?:tone|turn|dial|bring) down(?: the| its| all the)? (?:colou?rs?|blues|reds|greens|yellows|oranges"
        r"|pinks)\b|\b(?:tone|turn|dial|bring)(?: the| its)? (?:colou?rs?|blues|reds|greens|yellows|oranges"
        r"|pinks) (?:back )?down\b",
        Look("saturation", _DOWN),
    ),
    (r"\b(?:cool|cooler|cooled) \w+ (?:down|off)\b", Look("warmth", _DOWN)),
    (
        r"\bautumn(?:al)? (?:colou?rs?|tones?|look)\b|\bfall colou?rs\b",
        Look("tint", {"color": COLOURS["orange"]}, 0.85),
    ),
    (
        r"\b(?:prettier|better|nicer|improve the|fix the|enhance the|good|great) colou?rs?\b",
        Look("saturation", _UP, 0.6),
    ),
    (
        r"\b(?:improve|fix|better|enhance|nicer|correct|adjust|balance)(?: the)? (?:light|lighting|exposure|levels)\b",
        Look("exposure", _UP, 0.6),
    ),
    (
        r"\bshadows (?:are|look) (?:way |much )?too (?:deep|dark|black|strong|heavy)\b",
        Look("tones", {"area": "shadows", **_UP}),
    ),
    (
        r"\bhighlights (?:are|look) (?:way |much )?too (?:bright|strong|hot|harsh)\b",
        Look("tones", {"area": "highlights", **_DOWN}),
    ),
    (r"\badd (?:some |more |a (?:bit|little|touch|splash) (?:of )?)?colou?rs?\b", Look("saturation", _UP)),
    (r"\bcolou?rs? (?:\w+ )?(?:stronger|bolder|deeper|intense|more intense)\b", Look("saturation", _UP)),
    (r"\bcolou?rs? (?:\w+ )?(?:weaker|softer|gentler|less intense)\b", Look("saturation", _DOWN)),
    (rf"\bbring out(?= the (?:(?:{'|'.join(COLOURS)})s?|colou?rs?)\b)", Look("saturation", _UP)),
    (
        r"\b(?:take|pull|get|edit|photoshop|cut)(?= (?:[\w']+ ){1,4}(?:out|off|away)\b)|\bcut out\b"
        r"|^no(?= \w+(?: please)?$)|\blose(?= (?:the|that|those|this|my)\b)",
        Look("remove"),
    ),
)

#: How strong: the first that is found wins, so longer phrases stand first.
STRENGTHS: Final[tuple[tuple[str, float], ...]] = (
    ("a tiny bit|tiny bit|ever so slightly|barely|a hint of|a hint|hardly|very slightly|very subtle|very subtly", 0.2),
    (
        "a little bit|a little|a bit|slightly|slight|subtly|subtle|a touch|somewhat|a tad|tad|gently|gentle|softly|"
        "lightly|a smidge|a notch|little bit|touch of|not too much|kind of|a wee bit|mildly|mild|small amount",
        0.35,
    ),
    (
        "as much as possible|extremely|insanely|super|ultra|completely|totally|maximum|crazy|incredibly|max|fully|"
        "to the max|hugely",
        1.0,
    ),
    (
        "very much|a lot more|a lot|much more|much|very|really|strongly|strong|way|far|heavily|significantly|lots|"
        "loads|a whole lot|considerably|drastically|tons|noticeably|so much|dramatically",
        0.85,
    ),
)
DEFAULT_STRENGTH: Final = 0.6
#: "but not too much" limits every step to this.
LIMITED: Final = 0.35
