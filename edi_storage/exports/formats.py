"""The rows of each format: pure functions from an example to plain values and pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from edi_storage.exports.examples import Example, Result
from edi_storage.exports.privacy import Pseudonyms, scrubbed
from edi_storage.models import Artifact, PromptRecord

Format = Literal["jsonl", "parquet", "trl", "diffusion-dpo", "kto", "magicbrush"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
Row = dict[str, Any]


@dataclass(frozen=True)
class Photo:
    """Stands in a row for a stored photo, which the writer puts in its place, without metadata."""

    artifact: Artifact


@dataclass(frozen=True)
class Masks:
    """Stands in a row for one picture of several masks, white where there was to be a change; None of none."""

    artifacts: tuple[Artifact, ...]


@dataclass(frozen=True)
class Context:
    """What all rows of an export share."""

    names: Pseudonyms
    comments: bool


#: Columns and their kinds: what a row of each format holds, in this order.
_RESULT_COLUMNS: Final = {
    "id": "text",
    "session": "text",
    "instruction": "text",
    "edit_type": "text",
    "labels": "texts",
    "positive_prompt": "text",
    "negative_prompt": "text",
    "preset": "text",
    "strength": "number",
    "attempt": "count",
    "alignment_score": "number",
    "verdict": "text",
    "rating": "count",
    "reasons": "texts",
    "source": "picture",
    "edited": "picture",
}
COLUMNS: Final[dict[Format, dict[str, str]]] = {
    "jsonl": _RESULT_COLUMNS,
    "parquet": _RESULT_COLUMNS,
    "trl": {"prompt": "text", "chosen": "text", "rejected": "text", "weight": "number", "session": "text"},
    "kto": {"prompt": "text", "completion": "text", "label": "truth", "session": "text"},
    "diffusion-dpo": {
        "caption": "text",
        "jpg_0": "picture",
        "jpg_1": "picture",
        "label_0": "number",
        "label_1": "number",
        "source": "picture",
        "weight": "number",
        "session": "text",
    },
    "magicbrush": {
        "img_id": "text",
        "turn_index": "count",
        "source_img": "picture",
        "mask_img": "picture",
        "instruction": "text",
        "target_img": "picture",
    },
}


def columns(format_: Format, *, comments: bool) -> dict[str, str]:
    """The columns of a format; those that tell of each result have the comment too, where that is asked for."""
    with_comment = comments and COLUMNS[format_] is _RESULT_COLUMNS
    return {**COLUMNS[format_], **({"comment": "text"} if with_comment else {})}


def rows(format_: Format, example: Example, context: Context) -> Iterator[Row]:
    """The rows that an example gives; none where nobody said anything."""
    return _MAKERS[format_](example, context)


def _judged(example: Example, context: Context) -> Iterator[Row]:
    session = context.names.name("session", example.session_id)
    for result in example.results:
        if result.liked is None:
            continue
        said = result.said
        yield {
            "id": context.names.name("result", f"{example.session_id}/{result.picture.name}"),
            "session": session,
            "instruction": scrubbed(example.instruction),
            "edit_type": example.edit_type,
            "labels": [scrubbed(label) for label in example.labels],
            **_pair(result.prompt),
            "preset": result.preset,
            "strength": result.strength,
            "attempt": result.attempt,
            "alignment_score": result.score,
            "verdict": result.verdict or ("chosen" if result.preferred else "not chosen"),
            "rating": said.rating if said else None,
            "reasons": list(said.reasons) if said else [],
            "source": Photo(example.source),
            "edited": Photo(result.picture),
            **({"comment": scrubbed(said.comments) if said and said.comments else None} if context.comments else {}),
        }


def _pair(prompt: PromptRecord | None) -> Row:
    return {
        "positive_prompt": scrubbed(prompt.positive_prompt) if prompt else None,
        "negative_prompt": scrubbed(prompt.negative_prompt) if prompt else None,
    }


def _trl(example: Example, context: Context) -> Iterator[Row]:
    """Of refined prompts: pairs of the same words are ties, whatever the pictures."""
    pairs = [(better, worse) for better, worse, _ in example.pairs() if _text(better) != _text(worse)]
    for better, worse in pairs:
        yield {
            "prompt": scrubbed(example.instruction),
            "chosen": _text(better),
            "rejected": _text(worse),
            "weight": 1 / len(pairs),
            "session": context.names.name("session", example.session_id),
        }


def _kto(example: Example, context: Context) -> Iterator[Row]:
    for result in example.results:
        if result.verdict in ("accept", "reject") and result.prompt:
            yield {
                "prompt": scrubbed(example.instruction),
                "completion": _text(result),
                "label": result.verdict == "accept",
                "session": context.names.name("session", example.session_id),
            }


def _text(result: Result) -> str:
    """A refined prompt as one text."""
    if result.prompt is None:
        return ""
    return scrubbed(f"{result.prompt.positive_prompt}\nNot: {result.prompt.negative_prompt}")


def _diffusion_dpo(example: Example, context: Context) -> Iterator[Row]:
    for better, worse, weight in example.pairs():
        yield {
            "caption": scrubbed(example.instruction),
            "jpg_0": Photo(better.picture),
            "jpg_1": Photo(worse.picture),
            "label_0": 1.0,
            "label_1": 0.0,
            "source": Photo(example.source),
            "weight": weight,
            "session": context.names.name("session", example.session_id),
        }


def _magicbrush(example: Example, context: Context) -> Iterator[Row]:
    for result in example.results:
        if result.verdict == "accept":
            yield {
                "img_id": context.names.name("picture", example.source.sha256),
                "turn_index": 1,
                "source_img": Photo(example.source),
                "mask_img": Masks(example.masks),
                "instruction": scrubbed(example.instruction),
                "target_img": Photo(result.picture),
            }


_MAKERS: Final[dict[Format, Callable[[Example, Context], Iterator[Row]]]] = {
    "jsonl": _judged,
    "parquet": _judged,
    "trl": _trl,
    "kto": _kto,
    "diffusion-dpo": _diffusion_dpo,
    "magicbrush": _magicbrush,
}
