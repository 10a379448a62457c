"""The networks that the embedded analyzer looks with. SOURCES.md beside this file says where each comes from.

A network is read when it is first asked for, never at import, and only after its digest was checked: OpenCV reads a
damaged file without a word and then sees nonsense, or ends the process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from threading import local
from typing import Final, Protocol

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


class Network(Protocol):
    """A network that runs on the CPU, for one thread only."""

    def run(self, picture: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """All outputs by name, each channels x height x width.

        picture: height x width x 3, in the values that the network wants.
        """


class _Ncnn:
    """ncnn runs a network in two files: its layers are in NAME.param, their weights in NAME.bin.

    The same picture gives the same bits, with any number of threads.
    """

    def __init__(self, name: str, threads: int) -> None:
        import ncnn

        self._net = ncnn.Net()
        # Most of its layers keep to what they were read with, and say so on standard error.
        self._net.opt.num_threads = threads
        # In 16 bits, which some processors can, it would see other things there.
        for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
            setattr(self._net.opt, option, False)
        for kind, load in ((".param", self._net.load_param), (".bin", self._net.load_model)):
            read(name + kind)
            _succeed(load(str(FOLDER / (name + kind))), f"cannot read {name}{kind}")

    def run(self, picture: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        import ncnn

        extractor = self._net.create_extractor()
        planes = _planes(picture)
        for name in self._net.input_names():
            _succeed(extractor.input(name, ncnn.Mat(planes)), "cannot take the picture")
        outputs = {}
        for name in self._net.output_names():
            status, values = extractor.extract(name)
            _succeed(status, f"cannot compute {name}")
            outputs[name] = np.array(values, dtype=np.float32)
        return outputs


class _TFLite:
    """OpenCV runs a network in one file, NAME.tflite, with as many threads as it has."""

    def __init__(self, name: str, _: int) -> None:
        self._net = cv2.dnn.readNetFromTFLite(np.frombuffer(read(f"{name}.tflite"), np.uint8))

    def run(self, picture: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        names = self._net.getUnconnectedOutLayersNames()
        self._net.setInput(_planes(picture)[None])
        outputs = self._net.forward(names)
        # The network writes its next outputs where these are.
        return {name: np.array(values[0], dtype=np.float32) for name, values in zip(names, outputs, strict=True)}


def _planes(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(picture.transpose(2, 0, 1), dtype=np.float32)


def _succeed(status: int, what: str) -> None:
    """EngineError unless ncnn has said 0; that happens where there is no memory left."""
    if status:
        raise EngineError(f"The network {what} ({status}); is there enough memory?")


_KINDS: Final[Mapping[str, type[_Ncnn | _TFLite]]] = {"nanodet": _Ncnn, "selfie_segmentation": _TFLite}
_of_thread = local()


def network(name: str) -> Network:
    """The network called `name`, read once in each thread that looks, for as many threads as OpenCV has by now.

    Shared, it would let a batch look at one photo at a time: a tenth of an edit, which ten processors would wait for.
    """
    threads = max(1, cv2.getNumThreads())
    known: dict[tuple[str, int], Network] = _of_thread.__dict__.setdefault("known", {})
    if (name, threads) not in known:
        known[name, threads] = _KINDS[name](name, threads)
    return known[name, threads]
