"""What keeps an export from telling whose it is: ids that only this installation can make, and text without names."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from edi_storage.files import StorageError

#: In EDI_HOME. Whoever has it can tell which session an exported id stands for; without it nobody can.
KEY_FILE: Final = "export.key"
_KEY_BYTES: Final = 32
_ID_CHARACTERS: Final = 20
#: Of a hundred source pictures, so many are in the split `test`.
_TEST_SHARE: Final = 10

#: What does not belong into shared text: paths (two or more parts, or from a home or a drive), addresses.
_TELLING: Final = re.compile(
    r"""\b(?:https?|ftp|file)://\S+                        # web addresses
    | [\w.+-]+@[\w-]+(?:\.[\w-]+)+                         # mail addresses
    | (?<![\w/])~?(?:/[^\s/"'<>|]+){2,}/?                  # /home/me/photo.jpg, ~/photos/a.jpg
    | (?<!\w)~/[^\s"'<>|]+                                 # ~/photo.jpg
    | \b[A-Za-z]:[\\/][^\s"'<>|]+ | \\\\[^\s"'<>|]+        # C:\photos\a.jpg, \\server\share
    | (?<!\w)[^\s"'<>|/\\]+\.(?:jpe?g|png|webp|heic|tiff?|raw|dng)\b   # holiday-with-anna.jpg
    | (?<![\w#])\+?\d[\d ()-]{7,}\d                        # telephone numbers
    """,
    re.IGNORECASE | re.VERBOSE,
)
REMOVED: Final = "[removed]"


def scrubbed(text: str) -> str:
    """The text with "[removed]" for paths, names of pictures, web and mail addresses and telephone numbers."""
    return _TELLING.sub(REMOVED, text)


class Pseudonyms:
    """Ids by HMAC-SHA-256 with this installation's key: the same at every export, and of no use to anybody else."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def of_home(cls, home: Path) -> Pseudonyms:
        """With the key of this EDI_HOME, which is made, for its owner only, when there is none. Raises StorageError."""
        return cls(_read_key(home / KEY_FILE))

    def name(self, kind: str, value: str) -> str:
        """The id of a `value` of this kind ("session", "picture")."""
        return self._digest(kind, value).hex()[:_ID_CHARACTERS]

    def split(self, source_sha256: str) -> str:
        """ "train" or "test", by the source picture: no picture is in both, however often it was edited."""
        return "test" if int.from_bytes(self._digest("split", source_sha256)[:4]) % 100 < _TEST_SHARE else "train"

    def _digest(self, kind: str, value: str) -> bytes:
        return hmac.new(self._key, f"{kind}:{value}".encode(), hashlib.sha256).digest()


def _read_key(path: Path) -> bytes:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _make_key(path)
        key = bytes.fromhex(path.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it does not hold a key"
        raise StorageError(f"The key for exported ids cannot be used ({reason}): {path}.") from error
    if len(key) != _KEY_BYTES:
        raise StorageError(f"The key for exported ids cannot be used (it does not hold a key): {path}.")
    return key


def _make_key(path: Path) -> None:
    """Whole and under its name at once, also when two exports start at the same time."""
    temp = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    with open(os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(secrets.token_bytes(_KEY_BYTES).hex())
        file.flush()
        os.fsync(file.fileno())
    with suppress(FileExistsError):
        os.link(temp, path)
    temp.unlink()
