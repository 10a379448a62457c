"""`python -m tests.quality.contact_sheet FILE.png --photos FOLDER`: edits to look at, on photos that no test uses.

One row for each photo: the original, what was found in it, the edit with its score, and the picture of what it changed
(`flows.engines.heat`). The photos come from Debian packages, unpacked anywhere below FOLDER
(`dpkg-deb -x PACKAGE.deb FOLDER`); none of them is part of the repository.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from edi_storage.errors import EdiError
from edi_storage.models import SceneAnalysis
from flows import engines
from flows.engines.base import EditRequest, Pixels, ValidationRequest
from flows.engines.heat import delta_picture
from flows.engines.photo import open_photo
from flows.pictures import labelled, shrink
from flows.words import formula

#: Package, photo, prompt.
ROWS: Final = (
    ("palapeli-data", "castle-maintenon.jpg", "make the sky stormy, keep the castle"),
    ("opencv-doc", "leuvenB.jpg", "make the sky dramatic"),
    ("kphotoalbum", "skagen_2.jpg", "golden hour sky"),
    ("lomiri-wallpapers-16.04", "Dragonfly_by_Bolly.jpg", "make the sky dramatic"),
    ("kphotoalbum", "spiff.jpg", "blur the background"),
    ("kphotoalbum", "donna.jpg", "make the background black and white"),
    ("palapeli-data", "european-honey-bee.jpg", "make it more vivid"),
    ("palapeli-data", "cincinnati-bridge.jpg", "give it a cinematic look"),
    ("lomiri-wallpapers-16.04", "seeding_by_Clements_Engelhardt.jpg", "make it look vintage"),
    ("opencv-doc", "messi5.jpg", "blur the background a lot"),
    ("opencv-doc", "orange.jpg", "make the orange blue"),
    ("lomiri-wallpapers-20.04", "Kleiber_by_Lukas_Baubkus.jpg", "remove the bird"),
)
_WIDTH, _LINE = 420, 22


def make_sheet(folder: Path, largest: int = 1600) -> Image.Image:
    """The sheet of all rows. Raises FileNotFoundError for a photo that is not below `folder`."""
    rows = [_row(_find(folder, package, name), prompt, largest) for package, name, prompt in ROWS]
    sheet = Image.new("RGB", (4 * _WIDTH, sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def _find(folder: Path, package: str, name: str) -> Path:
    for path in sorted(folder.rglob(name)):
        return path
    raise FileNotFoundError(f"There is no {name} below {folder}: unpack the Debian package {package} there.")


def _row(path: Path, prompt: str, largest: int) -> Image.Image:
    pixels = np.ascontiguousarray(shrink(open_photo(path).pixels, largest))
    found = engines.analyzer().analyze(pixels)
    scene = SceneAnalysis(entities=[one.entity for one in found.detections], spatial_layout=found.spatial_layout)
    masks = {one.entity.entity_id: one.mask for one in found.detections}
    shown = labelled(shrink(pixels, 2 * _WIDTH), dict(enumerate(masks.values(), 1)))
    told = ", ".join(f"{number} {name}" for number, name in enumerate(masks, 1))
    try:
        made, done = _edit(pixels, scene, masks, prompt)
        pictures = [pixels, shown, *made]
    except EdiError as error:
        pictures, done = [pixels, shown], str(error)
    return _labelled_row(pictures, f'"{prompt}": {done}', told)


def _edit(pixels: Pixels, scene: SceneAnalysis, masks: dict[str, np.ndarray], prompt: str) -> tuple[list[Pixels], str]:
    """The edit and what it changed, and in words what was done with which score."""
    reasoner = engines.reasoner()
    intent = reasoner.understand(prompt, scene)
    if intent.needs_answer:
        intent = reasoner.understand(prompt, scene, 1)
    record = reasoner.refine(prompt, scene, intent, 3)
    outcome = engines.editor().edit(EditRequest(pixels, masks, scene, intent, record, 1))
    asked = ValidationRequest(pixels, outcome.pixels, masks, scene, intent, outcome.operations)
    deltas = engines.validator().validate(asked).deltas
    done = ", ".join(f"{one.name} on {one.target}" for one in outcome.operations)
    shown = delta_picture(asked.pair, masks, deltas)
    return [outcome.pixels, shown], f"{done}. Alignment {formula(deltas)}."


def _labelled_row(pictures: list[Pixels], above: str, below: str) -> Image.Image:
    height = round(_WIDTH * pictures[0].shape[0] / pictures[0].shape[1])
    row = Image.new("RGB", (4 * _WIDTH, height + 2 * _LINE), "white")
    for number, pixels in enumerate(pictures):
        picture = Image.fromarray(pixels).resize((_WIDTH - 4, height - 4), Image.Resampling.LANCZOS)
        row.paste(picture, (number * _WIDTH + 2, _LINE + 2))
    draw, font = ImageDraw.Draw(row), ImageFont.load_default(13)
    draw.text((4, 4), above[:220], fill="black", font=font)
    draw.text((4, height + _LINE + 2), below[:220], fill="#444444", font=font)
    return row


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.quality.contact_sheet", description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE.png")
    parser.add_argument("--photos", type=Path, required=True, metavar="FOLDER")
    options = parser.parse_args()
    try:
        make_sheet(options.photos).save(options.file)
    except FileNotFoundError as error:
        parser.error(str(error))
    print(f"Wrote {options.file}: {len(ROWS)} rows of original, entities, edit and delta.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
