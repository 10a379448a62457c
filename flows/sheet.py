"""A contact sheet: the photo and its variations side by side, each with its number and what it is called."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from edi_storage.models import SessionHistory
from edi_storage.variations import variations_of
from flows.album import Album
from flows.engines.base import Pixels
from flows.pictures import shrink

#: Pixels of the longer side, where there is room.
SHEET: Final = 1800

_PAPER: Final = (24, 24, 26)
_INK: Final = (240, 240, 240)


def sheet_of(history: SessionHistory, shown: Album, longest: int) -> Pixels | None:
    """The sheet of a session's variations, at most `longest` pixels a side; None where it has none to show."""
    made = variations_of(history.state.model_dump(mode="json")) if history.state else []
    named = [(f"{n}: {one['words']}", shown.variations[n]) for n, one in enumerate(made, 1) if n in shown.variations]
    if not named:
        return None
    return contact_sheet([("before", shown.before), *named] if shown.before is not None else named, longest)


def contact_sheet(named: Sequence[tuple[str, Pixels]], longest: int) -> Pixels:
    """Pictures of one shape in rows, their names below them; at most `longest` pixels a side."""
    tall, wide = named[0][1].shape[:2]
    columns = _columns(len(named), tall / wide)
    gap = max(4, longest // 160)
    cell = min(wide, (longest - gap * (columns + 1)) // columns)
    small = [(name, shrink(pixels, max(pixels.shape[:2]) * cell // pixels.shape[1])) for name, pixels in named]
    height, text = max(pixels.shape[0] for _, pixels in small), max(12, cell // 28)
    row = height + 2 * text + gap
    size = (gap + columns * (cell + gap), gap + row * math.ceil(len(small) / columns))
    paper = Image.new("RGB", size, _PAPER)
    pen, font = ImageDraw.Draw(paper), ImageFont.load_default(text)
    for number, (name, pixels) in enumerate(small):
        left, top = gap + (number % columns) * (cell + gap), gap + (number // columns) * row
        paper.paste(Image.fromarray(pixels), (left, top))
        pen.text((left, top + pixels.shape[0] + text), name, fill=_INK, font=font, anchor="lm")
    return shrink(np.asarray(paper), longest)


def _columns(count: int, shape: float) -> int:
    """Wide photos stand two or three in a row, so that they are large; tall ones all beside each other."""
    if shape > 1 or count <= 2:
        return count
    return 2 if count <= 4 else 3
