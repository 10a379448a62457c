"""What a photo says about itself beside its pixels, and how much of it a written file may carry.

Kept are the camera, the lens, how and when the photo was taken, and the copyright. Everything else is left out: place,
names, serial numbers, comments, thumbnails, and what makers put there in forms of their own.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

from PIL import Image

#: The pointer to the part of EXIF that holds how a photo was taken.
_TAKEN: Final = 0x8769
#: Make, model, time, copyright.
_PICTURE_TAGS: Final = (0x010F, 0x0110, 0x0132, 0x8298)
#: Exposure time, aperture, programme, sensitivity, EXIF version, times (taken, digitised), exposure bias, metering,
#: flash, focal length, mode, white balance, focal length on 35 mm film, lens (range, maker, model).
_TAKEN_TAGS: Final = (
    *(0x829A, 0x829D, 0x8822, 0x8827, 0x9000, 0x9003, 0x9004, 0x9204, 0x9207, 0x9209),
    *(0x920A, 0xA402, 0xA403, 0xA405, 0xA432, 0xA433, 0xA434),
)
#: A name or a time is shorter; what is longer is something else.
_LONGEST: Final = 500
_PNG_START: Final = b"\x89PNG\r\n\x1a\n"
#: Signature and first chunk of a PNG, after which others may stand.
_AFTER_HEADER: Final = 33


def harmless_exif(image: Image.Image) -> bytes | None:
    """The EXIF of a picture without what is private, as a block to write; None where nothing is left of it."""
    exif, kept = image.getexif(), Image.Exif()
    for tag in _PICTURE_TAGS:
        if _is_plain(exif.get(tag)):
            kept[tag] = exif[tag]
    taken = exif.get_ifd(_TAKEN)
    told = {tag: taken[tag] for tag in _TAKEN_TAGS if _is_plain(taken.get(tag))}
    if told:
        kept.get_ifd(_TAKEN).update(told)
    return kept.tobytes() if len(kept) or told else None


def _is_plain(value: object) -> bool:
    if isinstance(value, (str, bytes)):
        return len(value) <= _LONGEST
    if isinstance(value, tuple):
        return len(value) <= 4
    return value is not None


def png_with_exif(data: bytes, exif: bytes) -> bytes:
    """A PNG file with an EXIF block put into it; its pixels stay as they are coded."""
    if not data.startswith(_PNG_START):
        raise ValueError("not a PNG file")
    body = b"eXIf" + exif.removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return data[:_AFTER_HEADER] + chunk + data[_AFTER_HEADER:]


def has_deep_channels(data: bytes) -> bool:
    """Whether these are the bytes of a PNG with 16 bits a channel."""
    return data.startswith(_PNG_START) and data[24:25] == b"\x10"
