"""How much memory a process took at its peak; `python -m tests.peak COMMAND ...` runs a command and prints its bytes.

To what a process took the kernel adds what the process took that started it, as long as it was its copy. So a large
process, as pytest is, asks this small one to start what is to be measured.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

#: Of a Mac these are bytes.
_UNIT = 1 if sys.platform == "darwin" else 1024


def own_peak() -> int:
    """Bytes that this process has taken at its peak."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def main() -> int:
    process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=sys.stderr)
    _, status, used = os.wait4(process.pid, 0)
    print(used.ru_maxrss * _UNIT)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
