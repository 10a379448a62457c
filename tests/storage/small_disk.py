"""A real full disk: a file system of 1 MB, when we may mount one."""

import os
import subprocess
from contextlib import contextmanager

import pytest


@contextmanager
def small_disk(folder):
    """Mount 1 MB at the new folder `folder`; yields what makes it 8 MB. Skips loudly where that is not allowed."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("NOT TESTED: a full disk (needs root to mount a small file system)")
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)], capture_output=True).returncode:
        pytest.skip("NOT TESTED: a full disk (mounting a small file system is not allowed here)")
    try:
        yield lambda: subprocess.run(["mount", "-o", "remount,size=8m", str(folder)], check=True)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
