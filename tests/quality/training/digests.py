"""The digests of the model files, written anew after a conversion or a training."""

from __future__ import annotations

import hashlib

from flows.engines import models

#: The files that are read as data.
KINDS = (".param", ".bin", ".tflite", ".npz")


def write() -> None:
    """Write SHA256SUMS for every network and head in the folder."""
    files = sorted(path for path in models.FOLDER.iterdir() if path.suffix in KINDS)
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (models.FOLDER / "SHA256SUMS").write_text("".join(lines), "ascii")


if __name__ == "__main__":
    write()
