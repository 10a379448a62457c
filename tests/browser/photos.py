"""The example photo in two sizes."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from tests.flows.conftest import PALACE


def small_photo(folder: Path) -> Path:
    """One that is soon edited."""
    return _palace(folder / "small.jpg", (480, 320))


def large_photo(folder: Path) -> Path:
    """One that takes long enough to be caught in the middle."""
    return _palace(folder / "large.jpg", (2560, 1708))


def _palace(path: Path, size: tuple[int, int]) -> Path:
    with Image.open(PALACE) as palace:
        palace.resize(size).save(path, quality=90)
    return path
