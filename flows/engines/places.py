"""Where the things of a photo are: in words, as fractions of the picture, and at how many of its edges."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edi_storage.models import BoundingBox, EntityData
from flows.engines.regions import place_name


def frame(entities: Iterable[EntityData]) -> tuple[int, int]:
    """Width and height of the picture, which the boxes of its entities span."""
    boxes = [entity.bbox for entity in entities if entity.bbox is not None]
    width = max((box.x + box.width for box in boxes), default=1)
    return width, max((box.y + box.height for box in boxes), default=1)


def place_of(entity: EntityData, entities: Sequence[EntityData]) -> str:
    """Where an entity lies, in words, from its box."""
    width, height = frame(entities)
    box = entity.bbox or BoundingBox(x=0, y=0, width=width, height=height)
    across, down = (box.x + box.width / 2) / width, (box.y + box.height / 2) / height
    return place_name(across, down, box.width / width, box.height / height)


def is_inside(entity: EntityData, entities: Sequence[EntityData]) -> bool:
    """Whether a thing lies in the middle of the picture and touches no more than one edge."""
    return entity.label != "sky" and edges(entity, entities) <= 1 and from_centre(entity, entities) < 0.22


def edges(entity: EntityData, entities: Sequence[EntityData]) -> int:
    """How many edges of the picture an entity touches."""
    width, height = frame(entities)
    box = entity.bbox
    if box is None:
        return 4
    near = (box.x <= 0.01 * width, box.y <= 0.01 * height)
    far = (box.x + box.width >= 0.99 * width, box.y + box.height >= 0.99 * height)
    return sum(near) + sum(far)


def centre(entity: EntityData, entities: Sequence[EntityData]) -> tuple[float, float]:
    """The middle of a thing's box, as fractions of the picture's width and height."""
    width, height = frame(entities)
    box = entity.bbox or BoundingBox(x=0, y=0, width=width, height=height)
    return (box.x + box.width / 2) / width, (box.y + box.height / 2) / height


def from_centre(entity: EntityData, entities: Sequence[EntityData]) -> float:
    if entity.bbox is None:
        return 1.0
    across, down = centre(entity, entities)
    return abs(across - 0.5) + abs(down - 0.5)
