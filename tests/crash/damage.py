"""Ways in which a file comes to harm. Each takes a path and a source of chance, and says what it did."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
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


#: Texts of the database that a person, or the next stage, would believe.
_TEXTS = {
    "sessions": ("naive_prompt", "image_path", "status"),
    "prompts": ("positive_prompt", "negative_prompt"),
    "entities": ("label", "mask_path", "color_hex", "bbox_json"),
    "intents": ("edit_type",),
    "user_feedback": ("comments", "feedback_type"),
    "artifacts": ("path", "sha256"),
    "validations": ("alignment_score",),
    "stage_commits": ("state_delta", "sha256", "finished_at"),
}


def letter(path: Path, rng: random.Random) -> str:
    """One character of a stored text, where it stands in its page: SQLite's own check finds nothing."""
    table = rng.choice(sorted(_TEXTS))
    column = rng.choice(_TEXTS[table])
    with closing(sqlite3.connect(path)) as raw:
        row, text = rng.choice(raw.execute(f"SELECT rowid, {column} FROM {table} ORDER BY rowid").fetchall())
        place = rng.randrange(len(str(text)))
        changed = str(text)[:place] + rng.choice('aZ7"\x1f ') + str(text)[place + 1 :]
        raw.execute("PRAGMA ignore_check_constraints=ON")
        raw.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (changed, row))
        raw.commit()
    return f"letter {place} of {table}.{column} in row {row}: {changed[max(0, place - 5) : place + 6]!r}"


def newer_state(path: Path, rng: random.Random) -> str:
    """As if a later version of EDI had written it."""
    document = json.loads(path.read_bytes())
    which = rng.choice(("format", "schema_version"))
    document["checkpoint"][which] += 1
    document["future"] = {"field": 1}
    path.write_text(json.dumps(document))
    return f"a newer {which}"
