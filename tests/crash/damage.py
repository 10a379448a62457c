"""Ways in which a file comes to harm. Each takes a path and a source of chance, and says what it did."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

Damage = Callable[[Path, random.Random], str]

PAGE = b"<!DOCTYPE html><html><body>502 Bad Gateway</body></html>\n"


def flip(path: Path, rng: random.Random) -> str:
    """One bit, anywhere."""
    data = bytearray(path.read_bytes())
    place, bit = rng.randrange(len(data)), rng.randrange(8)
    data[place] ^= 1 << bit
    path.write_bytes(data)
    return f"bit {bit} of byte {place}"


def truncate(path: Path, rng: random.Random) -> str:
    """Cut anywhere but at 0."""
    data = path.read_bytes()
    size = rng.randrange(1, len(data))
    path.write_bytes(data[:size])
    return f"cut to {size} of {len(data)} bytes"


def empty(path: Path, _: random.Random) -> str:
    path.write_bytes(b"")
    return "emptied"


def delete(path: Path, _: random.Random) -> str:
    path.unlink()
    return "deleted"


def html(path: Path, _: random.Random) -> str:
    """What a download that failed leaves under the name."""
    path.write_bytes(PAGE * 200)
    return "a page of HTML"


def folder(path: Path, _: random.Random) -> str:
    path.unlink()
    path.mkdir()
    return "a folder"


def zeros(path: Path, rng: random.Random) -> str:
    """A stretch of zeros, as a file system may leave where data was never written."""
    data = bytearray(path.read_bytes())
    start = rng.randrange(len(data)) & ~0xFFF
    data[start : start + 4096] = bytes(len(data[start : start + 4096]))
    path.write_bytes(data)
    return f"zeros from {start}"


def newer_state(path: Path, rng: random.Random) -> str:
    """As if a later version of EDI had written it."""
    document = json.loads(path.read_bytes())
    which = rng.choice(("format", "schema_version"))
    document["checkpoint"][which] += 1
    document["future"] = {"field": 1}
    path.write_text(json.dumps(document))
    return f"a newer {which}"
