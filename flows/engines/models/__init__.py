"""The networks that the embedded analyzer looks with. SOURCES.md beside this file says where each comes from.

A network is read when it is first asked for, never at import, and only after its digest was checked: OpenCV reads a
damaged file without a word and then sees nonsense, or ends the process.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from threading import local
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edi_storage.errors import EngineError

FOLDER: Final = Path(__file__).parent
_DIGESTS: Final = "SHA256SUMS"


def read(name: str, folder: Path = FOLDER) -> bytes:
    """The bytes of a file of this folder whose digest is right. Raises EngineError where it is damaged or missing."""
    try:
        lines = (folder / _DIGESTS).read_text("ascii").splitlines()
        data = (folder / name).read_bytes()
    except (OSError, ValueError) as error:
        raise EngineError(f"The model file {folder / name} cannot be read ({error}); install EDI again.") from error
    digest = hashlib.sha256(data).hexdigest()
    if f"{digest}  {name}" not in lines:
        raise EngineError(f"The model file {folder / name} is damaged: its digest is wrong; install EDI again.")
    return data


class Network:
    """A network that OpenCV runs on the CPU. It runs for one thread only: its outputs stand where the next ones go."""

    def __init__(self, name: str) -> None:
        data = np.frombuffer(read(name), np.uint8)
        read_net = cv2.dnn.readNetFromONNX if name.endswith(".onnx") else cv2.dnn.readNetFromTFLite
        self._net = read_net(data)

    def run(self, picture: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """All outputs by name, for a picture of height x width x 3 in the values that the network wants."""
        blob = np.ascontiguousarray(picture.transpose(2, 0, 1)[None], dtype=np.float32)
        names = self._net.getUnconnectedOutLayersNames()
        self._net.setInput(blob)
        outputs = self._net.forward(names)
        # The network writes its next outputs where these are.
        return {name: np.array(values, dtype=np.float32) for name, values in zip(names, outputs, strict=True)}


_of_thread = local()


def network(name: str) -> Network:
    """The network in the file `name`, read once in each thread that looks.

    Shared, it would let a batch look at one photo at a time: a tenth of an edit, which ten processors would wait for.
    """
    known: dict[str, Network] = _of_thread.__dict__
    if name not in known:
        known[name] = Network(name)
    return known[name]
