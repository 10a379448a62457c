"""The pictures of one session, small: what its artifact and its web page show. Each file is decoded once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from edi_storage.errors import EdiError
from edi_storage.models import SessionHistory
from edi_storage.store import Store
from edi_storage.variations import variations_of
from flows.engines.base import Mask, Pixels
from flows.engines.photo import decode_mask, decode_photo
from flows.pictures import shrink, shrink_mask
from flows.words import attempts_of

T = TypeVar("T")

#: Small copies (`Pixels`, `Mask`) by the path of the stored file. Stored files never change, so copies stay true.
Copies = MutableMapping[str, Any]

#: Pictures as text (see `pictures.data_uri`) by what they show; those of a run are true as long as it lasts.
Drawn = MutableMapping[Hashable, str]

#: Pixels of the longer side of the copies that a run keeps.
SMALL: Final = 560


def keep_picture(copies: Copies, path: str, pixels: Pixels) -> None:
    """Keep a small copy of a picture that is at hand, so that it need not be decoded to be shown."""
    copies[path] = shrink(pixels, SMALL)


def keep_mask(copies: Copies, path: str, mask: Mask) -> None:
    """As `keep_picture`, for a mask."""
    copies[path] = shrink_mask(mask, SMALL)


@dataclass(frozen=True)
class Album:
    """Small copies of a session's pictures. What is not there yet, or cannot be read any more, is None or left out."""

    before: Pixels | None
    after: Pixels | None
    masks: dict[str, Mask] = field(default_factory=dict)  # by entity id
    deltas: dict[int, Pixels] = field(default_factory=dict)  # what changed, by attempt
    variations: dict[int, Pixels] = field(default_factory=dict)  # of the first attempt, by number
    drawn: Drawn = field(default_factory=dict)

    def draw(self, what: Hashable, draw: Callable[[], str]) -> str:
        """The picture `what` as text, drawn unless an earlier page of the same run has it already."""
        if what not in self.drawn:
            self.drawn[what] = draw()
        return self.drawn[what]


def album(
    store: Store, history: SessionHistory, longest: int, copies: Copies | None = None, drawn: Drawn | None = None
) -> Album:
    """The album of a session, its pictures at most `longest` pixels a side.

    `copies` holds what an earlier album of the same `longest` has decoded, and gets what this one does; `drawn` what
    its pages have drawn.
    """
    known: Copies = {} if copies is None else copies
    image = history.state.scene_analysis.get("image", {}) if history.state else {}

    def photo(data: bytes) -> Pixels:
        return shrink(decode_photo(data).pixels, longest)

    def mask(data: bytes) -> Mask:
        return shrink_mask(decode_mask(data), longest)

    masks = {e.entity_id: _copy(store, e.mask_path, mask, known) for e in history.entities}
    paths = {number: attempt.get("delta_image_path") for number, attempt in attempts_of(history).items()}
    deltas = {number: _copy(store, path, photo, known) for number, path in paths.items()}
    made = variations_of(history.state.model_dump(mode="json")) if history.state else []
    variations = {number: _copy(store, one["path"], photo, known) for number, one in enumerate(made, 1)}
    return Album(
        _copy(store, image.get("path"), photo, known),
        _copy(store, history.state.edited_image_path if history.state else None, photo, known),
        {name: found for name, found in masks.items() if found is not None},
        {number: found for number, found in deltas.items() if found is not None},
        {number: found for number, found in variations.items() if found is not None},
        {} if drawn is None else drawn,
    )


def _copy(store: Store, path: str | None, decode: Callable[[bytes], T], known: Copies) -> T | None:
    if not path:
        return None
    if path not in known:
        try:
            known[path] = decode(store.files.read(path))
        except EdiError:
            return None
    copy: T = known[path]
    return copy
