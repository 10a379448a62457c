"""The named parts of a picture, disjoint: people, other things, the subject by focus, then stuff.

Order is who stands before whom: things before stuff, and a smaller thing before a larger one, because what lies on a
table or sits on a couch is nearer than they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from flows.engines import stuff
from flows.engines.cutting import cut_out, cut_out_small, grow, keep_large, shrink_mask
from flows.engines.detection import Thing, each_once, find_things, look
from flows.engines.focus import find_subject
from flows.engines.people import person_mattes
from flows.engines.regions import Bools, Floats, Picture

#: Below this a detection is not named. Of what the detector is less sure, a third is something else.
_SEEN: Final = 0.5
#: The detector looks a second time, at more pixels, for what is small: of what it sees then more is wrong.
_CLOSER: Final = 576
_SEEN_CLOSER: Final = 0.55
_MOST_THINGS: Final = 5
#: Long side in pixels at which things are cut out.
_CUT_SIDE: Final = 256
#: What the network for people cuts out well too, once something has seen that it is there.
_ALIVE: Final = frozenset(("person", "cat", "dog", "horse", "sheep", "cow", "bird", "bear", "teddy bear"))
#: More than so many of a kind are one part: a crowd, a fleet, a shelf of books.
_MOST_OF_A_KIND: Final = 3
#: A thing or a piece of stuff that covers less of the picture than this is left to its surroundings.
_LEAST_THING: Final = 0.003
_LEAST_STUFF: Final = 0.015
#: A piece of the picture is stuff of the likeliest class from this probability on.
_LIKELY: Final = 0.39
#: Mean probability over its region that a class needs to be named; sky the most, because a false sky is edited most.
_TRUSTED: Final[Mapping[str, float]] = {"sky": 0.6, "vegetation": 0.5, "building": 0.6, "ground": 0.55, "water": 0.55}
#: The rim of sky beside a roof: how many pixels wide at most, how likely sky where it starts and where it is, how far
#: in Lab from the sky nearby, and the step in Lab between neighbours that is an edge.
_RIM: Final = 40
_RIM_FROM: Final = 0.3
_RIM_LIKELY: Final = 0.06
_RIM_COLOUR: Final = 14.0
_RIM_STEP: Final = 5.0


@dataclass(frozen=True)
class Part:
    """A part of the picture: which pixels of the small copy, what it is called, and how sure that is."""

    label: str
    where: Bools
    confidence: float


def find_parts(picture: Picture, at_most: int) -> list[Part]:
    """At most `at_most` named parts that share no pixel."""
    glimpse = look(picture.pixels, stuff.SIDE)
    likely = stuff.probabilities(glimpse, picture.pixels)
    free = np.ones(picture.labels.shape, dtype=bool)
    closer = look(picture.pixels, _CLOSER)
    things = each_once([*find_things(glimpse, _SEEN), *find_things(closer, _SEEN_CLOSER)])
    parts = _things(picture, things, likely, free)
    if not parts and likely[0].max() < _TRUSTED["sky"] and (subject := find_subject(picture)) is not None:
        parts = [Part("subject", subject.where, round(subject.confidence, 3))]
        free[subject.where] = False
    return parts + _stuff(picture, likely, free, at_most - len(parts))


def _things(picture: Picture, things: Sequence[Thing], likely: Floats, free: Bools) -> list[Part]:
    """Things with their regions, smaller boxes first; `free` loses what they take."""
    chosen = [thing for thing in things if not _is_within_one_of_its_kind(thing, things)]
    chosen = sorted(chosen, key=lambda thing: (-thing.confidence * thing.area**0.25, thing.box))[: 3 * _MOST_THINGS]
    people = [thing for thing in chosen if thing.label in _ALIVE]
    mattes = dict(zip(people, person_mattes(picture.pixels, people), strict=True))
    parts = []
    for thing in sorted(chosen, key=lambda thing: (thing.area, thing.box)):
        where = mattes[thing] > 0.5 if thing in mattes else _cut_thing(picture, thing, likely, free)
        where = keep_large(where & free, _LEAST_THING / 4)
        if where.mean() >= _LEAST_THING:
            parts.append(Part(thing.label, where, round(thing.confidence, 3)))
            free[where] = False
    grouped = _grouped(parts)
    kept = sorted(grouped, key=lambda part: (-part.confidence * float(part.where.mean()) ** 0.25, part.label))
    for part in kept[_MOST_THINGS:]:
        free[part.where] = True
    return kept[:_MOST_THINGS]


def _is_within_one_of_its_kind(thing: Thing, things: Sequence[Thing]) -> bool:
    """Whether a larger and surer box of the same kind holds nearly all of this one: a part taken for a whole."""
    for other in things:
        if other.label == thing.label and other.confidence > thing.confidence and other.area > thing.area:
            across = min(thing.box[2], other.box[2]) - max(thing.box[0], other.box[0])
            down = min(thing.box[3], other.box[3]) - max(thing.box[1], other.box[1])
            if max(0.0, across) * max(0.0, down) > 0.85 * thing.area:
                return True
    return False


def _cut_thing(picture: Picture, thing: Thing, likely: Floats, free: Bools) -> Bools:
    """GrabCut in and around the box of a thing; nothing where it finds nearly all or nearly nothing of the box."""
    height, width = free.shape
    left, top, right, bottom = np.round(np.array(thing.box) * [width, height, width, height]).astype(int).tolist()
    across, down = (right - left) // 4 + 4, (bottom - top) // 4 + 4
    around = np.s_[max(0, top - down) : bottom + down, max(0, left - across) : right + across]
    marks = np.full(free.shape, cv2.GC_BGD, dtype=np.uint8)
    marks[top:bottom, left:right] = cv2.GC_PR_FGD
    middle = ((left + right) // 2, (top + bottom) // 2)
    cv2.ellipse(marks, middle, ((right - left) // 4, (bottom - top) // 4), 0, 0, 360, cv2.GC_FGD, -1)
    marks[(likely[0] > 0.8) | ~free] = cv2.GC_BGD
    where = np.zeros(free.shape, dtype=bool)
    where[around] = cut_out_small(picture.pixels[around], np.ascontiguousarray(marks[around]), _CUT_SIDE)
    share = where.sum() / max(1, (right - left) * (bottom - top))
    return where if 0.15 < share < 0.98 else np.zeros(free.shape, dtype=bool)


def _grouped(parts: Sequence[Part]) -> list[Part]:
    """The parts, those of a kind that is seen often as one."""
    counts = Counter(part.label for part in parts)
    result = [part for part in parts if counts[part.label] <= _MOST_OF_A_KIND]
    for label in sorted(label for label, count in counts.items() if count > _MOST_OF_A_KIND):
        members = [part for part in parts if part.label == label]
        where = np.any([part.where for part in members], axis=0)
        result.append(Part(label, where, max(part.confidence for part in members)))
    return result


def _stuff(picture: Picture, likely: Floats, free: Bools, at_most: int) -> list[Part]:
    """The classes of stuff that are sure enough, each as one part of what is still free."""
    per_cell = np.stack([picture.mean(plane) for plane in likely])
    winner = np.where(per_cell.max(axis=0) > _LIKELY, per_cell.argmax(axis=0), -1)
    numbers = np.asarray(picture.paint(winner))
    if (numbers == 0).mean() >= _LEAST_STUFF:
        sky = _cut_sky(picture, numbers == 0, likely[0], likely[1:].max(axis=0))
        numbers = np.where(sky, 0, np.where(numbers == 0, -1, numbers))
    parts = []
    for index, label in enumerate(stuff.CLASSES):
        where = keep_large((numbers == index) & free, _LEAST_STUFF / 5 if label != "sky" else 0.00005)
        if where.mean() >= _LEAST_STUFF and (sure := float(likely[index][where].mean())) >= _TRUSTED[label]:
            parts.append(Part(label, where, round(sure, 3)))
    parts.sort(key=lambda part: (-int(part.where.sum()), part.label))
    return parts[:at_most]


def _cut_sky(picture: Picture, where: Bools, likely: Floats, rivals: Floats) -> Bools:
    """The sky along its edges: GrabCut between what is surely sky and what surely is not, then the gaps in trees."""
    marks = np.full(where.shape, cv2.GC_PR_BGD, dtype=np.uint8)
    marks[where] = cv2.GC_PR_FGD
    marks[shrink_mask(where & (likely > 0.8), 9)] = cv2.GC_FGD
    marks[~grow(where, 25) | (likely < 0.1)] = cv2.GC_BGD
    band = _band(marks)
    cut = marks == cv2.GC_FGD
    # Two rounds, and only the rows where anything is undecided: it is what takes longest of all.
    cut[band] = cut_out(picture.pixels[band], marks[band], rounds=2)
    cut = _with_gaps(picture, cut, likely > 0.25)
    for _ in range(2):  # farther only where nothing else is likelier: not into the crowns of trees
        cut = _with_gaps(picture, cut, (likely > 0.15) & (likely > rivals))
    cut = _up_to_edges(picture, cut, likely)
    horizon = _horizon(picture, cut)
    cut[horizon:] &= likely[horizon:] > 0.7
    return _trusted_pieces(cut, likely)


def _up_to_edges(picture: Picture, where: Bools, likely: Floats) -> Bools:
    """With the rim of sky that the head, which sees coarsely, gave to the roofs, towers and trees before it.

    From what is likely sky outwards, a pixel at a time, over pixels of the colour that the sky has nearby and without
    an edge; at last onto the near side of the edge itself.
    """
    square = np.ones((3, 3), np.uint8)
    smooth = np.asarray(cv2.GaussianBlur(picture.lab, (0, 0), 0.7))
    steps = np.linalg.norm(cv2.morphologyEx(smooth, cv2.MORPH_GRADIENT, square), axis=2)
    sky = (where & (likely > _RIM_FROM)).astype(np.uint8)
    gap = _from_sky_nearby(picture, sky, 24.0)
    alike = ((np.linalg.norm(gap, axis=2) < _RIM_COLOUR) & (likely > _RIM_LIKELY)).astype(np.uint8)
    calm = alike & (steps < _RIM_STEP)
    for _ in range(_RIM):
        sky |= cv2.dilate(sky, square) & calm
    sky |= cv2.dilate(sky, square) & alike
    return np.asarray(where | (sky > 0))


def _horizon(picture: Picture, where: Bools) -> int:
    """The row at which the finding, over at least 0.3 of the width, turns darker at once: haze over a lake, a sea.

    Its height if there is no such row. Rows are compared over 8 pixels after a blur of sigma 2; a step is
    at least 3.5 of L in the median and present in nine columns of ten.
    """
    gap = 4
    lightness = np.asarray(cv2.GaussianBlur(picture.lab[..., 0], (0, 0), 2.0))
    steps = np.zeros(picture.height)
    for row in range(max(gap, picture.height // 10), picture.height - gap):
        both = where[row - gap] & where[row + gap]
        if both.mean() >= 0.3:
            step = (lightness[row - gap] - lightness[row + gap])[both]
            steps[row] = float(np.median(step)) if float((step > 1.2).mean()) > 0.9 else 0.0
    found = int(np.argmax(steps))
    if steps[found] <= 3.5:
        return picture.height
    while steps[found - 1] > 0.4 * steps.max():  # the land begins where the step does
        found -= 1
    return found


def _trusted_pieces(where: Bools, likely: Floats) -> Bools:
    """Without the pieces that the head doubts: a pale lake is alike a pale sky, and stands apart from it."""
    count, numbers = cv2.connectedComponents(where.astype(np.uint8))
    area = np.bincount(numbers.ravel(), minlength=count)
    sure = np.bincount(numbers.ravel(), weights=likely.ravel(), minlength=count) / np.maximum(area, 1)
    kept = (sure > 0.55) | (area < 0.001 * where.size)
    kept[0] = False
    return np.asarray(kept[numbers])


def _band(marks: NDArray[np.uint8]) -> slice:
    """The rows with undecided pixels, and some around them that show what is on either side."""
    rows = np.flatnonzero(np.isin(marks, (cv2.GC_PR_FGD, cv2.GC_PR_BGD)).any(axis=1))
    return slice(max(0, int(rows[0]) - 24), int(rows[-1]) + 25) if len(rows) else slice(0, 0)


def _with_gaps(picture: Picture, where: Bools, maybe: Bools) -> Bools:
    """With the pixels that have the colour which the sky has nearby: under eaves, between branches, past cables."""
    gap = _from_sky_nearby(picture, where, 14.0)
    # Between leaves a sky is often brighter than beside the tree, so that direction counts less.
    gap[..., 0] = np.where(gap[..., 0] > 0, 0.4 * gap[..., 0], gap[..., 0])
    return np.asarray(where | ((np.linalg.norm(gap, axis=2) < 6.5) & maybe))


def _from_sky_nearby(picture: Picture, where: NDArray[np.generic], spread: float) -> Floats:
    """Each pixel's Lab less that of the sky around it (a mean by a Gaussian of `spread` pixels); infinite far off."""
    weight = where.astype(np.float32)
    near = np.asarray(cv2.GaussianBlur(weight, (0, 0), spread))[..., None]
    local = np.asarray(cv2.GaussianBlur(picture.lab * weight[..., None], (0, 0), spread)) / (near + 1e-4)
    return np.where(near > 0.02, picture.lab - local, np.float32(np.inf))
