"""How many photos are edited side by side: one for each processor and one more, as long as the memory is enough."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import psutil
from PIL import Image

from flows.engines.bands import processors

#: While one waits for the disk, another one computes: with one more than there are processors none of them is idle.
_MORE: Final = 1
#: Bytes of memory that the edit of a photo takes at its peak, for each pixel (about 46 of them, 60 for more than one
#: attempt) and apart from those, in a process of its own.
_OF_A_PIXEL: Final = 60
_OF_A_PHOTO: Final = 400_000_000
#: What a container may use, and what it does (cgroup v2).
_CONTAINER: Final = Path("/sys/fs/cgroup")


def side_by_side(photos: Iterable[str], wanted: int) -> tuple[int, str]:
    """How many of these photos are edited at the same time, and why not more ("" when as many as wanted).

    wanted: so many, or 0 for what this machine is good for. The largest photo counts: they may meet.
    """
    paths = list(photos)
    most = max(1, min(wanted or processors() + _MORE, len(paths)))
    free = _free_memory()
    needed = _OF_A_PHOTO + _OF_A_PIXEL * max(map(_pixels, paths), default=0)
    fit = max(1, free // needed)
    if fit >= most:
        return most, ""
    return fit, f"the largest photo takes about {_size(needed)} of memory, and {_size(free)} are free"


def _free_memory() -> int:
    """Bytes that this process may still take without the machine having to swap."""
    free = int(psutil.virtual_memory().available)
    try:
        allowed, used, parts = ((_CONTAINER / f"memory.{name}").read_text() for name in ("max", "current", "stat"))
        # Of what is used, copies of files are given back where they are in the way.
        copies = dict(line.split() for line in parts.splitlines()).get("inactive_file", "0")
        return max(0, min(free, int(allowed) - int(used) + int(copies)))
    except (OSError, ValueError):  # no container, or one that may take what there is ("max")
        return free


def _pixels(photo: str) -> int:
    """Of its header only; 0 for what is not there or no photo: it will be listed as failed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(photo) as image:
                return image.width * image.height
    except Exception:  # noqa: BLE001 - decoders raise anything on damaged data
        return 0


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
