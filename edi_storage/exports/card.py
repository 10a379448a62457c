"""The data set's card: what is in it, how it came about, and what it must not be taken for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from edi_storage.exports.formats import Format, columns

_WHAT: Final[dict[Format, str]] = {
    "jsonl": "One line for each result that somebody judged; pictures are files in `images/`.",
    "parquet": "One row for each result that somebody judged; pictures are inside.",
    "trl": "Preference pairs of refined prompts, as TRL's DPO trainer reads them: the better and the worse prompt for "
    "the same wish on the same photo.",
    "kto": "Refined prompts with a thumb up or down each, as TRL's KTO trainer reads them. Partial verdicts are "
    "neither, and left out.",
    "diffusion-dpo": "Pairs of pictures for the same wish, as Diffusion-DPO reads them (`jpg_0` is the better one, "
    "`label_0` is 1), with the photo that both were made from.",
    "magicbrush": "Accepted edits in the columns of MagicBrush. `mask_img` is white where there was to be a change; "
    "there is none where the whole picture was meant.",
}

_MEANINGS: Final[dict[str, str]] = {
    "id": "of the result",
    "session": "of the session: the same in every export of this installation, and without its key of no use",
    "instruction": "the wish in the person's own words",
    "edit_type": "color, style, add, remove or transform, as it was understood",
    "labels": "what was to be changed",
    "positive_prompt": "the refined prompt: what to do",
    "negative_prompt": "the refined prompt: what not to do",
    "preset": "the look that was chosen, where there was one to choose",
    "strength": "0 to 1",
    "attempt": "1 is the first; a later one is made when the one before was not liked",
    "alignment_score": "0 to 1, measured: kept what was to be kept, changed what was to be changed",
    "verdict": "accept, partial, reject; for variations also chosen, not chosen",
    "rating": "1 to 5, or none",
    "reasons": "too strong, too weak, wrong region, edges, colour, artifact, tone",
    "comment": "in the person's own words",
    "source": "the photo, JPEG in sRGB without metadata",
    "edited": "the result, likewise",
    "weight": "1 divided by the number of pairs of the session, so that each session counts the same",
    "turn_index": "always 1: every edit starts from the original",
    "img_id": "of the photo",
    "mask_img": "white where there was to be a change",
    "label": "true for accepted, false for rejected",
}


def card(format_: Format, files: Mapping[str, str], counts: Mapping[str, int], *, comments: bool) -> str:
    """The README.md of a data set: its head is what readers of data sets look for."""
    shown = [f"| `{name}` | {_MEANINGS.get(name, '')} |" for name in columns(format_, comments=comments)]
    size = [f"| {split} | {counts[split]} | `{file}` |" for split, file in files.items()]
    return "\n".join(
        [
            *_head(files),
            "# What people preferred among edits of their photos",
            "",
            _WHAT[format_],
            "",
            "Exported by EDI from one installation. Photos are in one split only, chosen by a digest of the original.",
            "",
            "| split | rows | file |",
            "|---|---:|---|",
            *(size or ["| none | 0 | |"]),
            "",
            "| column | what it is |",
            "|---|---|",
            *shown,
            "",
            "## Where it comes from",
            "",
            "Each row is of a session whose owner said that it may be shared (`consent` is `export`). Ids are made "
            "with a key that stays at home. Paths, file names, web and mail addresses and telephone numbers are "
            "taken out of all texts; pictures are encoded anew, without any metadata. "
            f"{_COMMENTS[comments]}",
            "",
            "A session that is deleted, or whose consent is taken back, is gone from the next export; copies that were "
            "given away must be replaced by that.",
            "",
            "## What it is not",
            "",
            "The verdicts are one household's taste, on edits that EDI's engines could make. What was shown to be "
            "judged was chosen in part by what was liked before, so shares of accepted rows are no rates. Photos may "
            "show people: ask them before you publish.",
            "",
        ]
    )


_COMMENTS: Final = {
    True: "Comments are in it, because that was asked for; read them before you share it.",
    False: "Comments are left out.",
}


def _head(files: Mapping[str, str]) -> list[str]:
    if not files:
        return []
    listed = [line for split, file in files.items() for line in (f"      - split: {split}", f"        path: {file}")]
    return ["---", "configs:", "  - config_name: default", "    data_files:", *listed, "---", ""]
