"""What the figures of a benchmark were taken on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path


def machine(*packages: str) -> str:
    """The processor, what else it has to do, and the versions of Python and of some packages."""
    name = platform.processor() or platform.machine()
    about = Path("/proc/cpuinfo")
    if about.exists():
        lines = about.read_text().splitlines()
        name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), name)
    told = [name, f"{os.cpu_count()} cores", f"load {os.getloadavg()[0]:.1f}", f"Python {platform.python_version()}"]
    return ", ".join([*told, *(f"{package} {importlib.metadata.version(package)}" for package in packages)])
