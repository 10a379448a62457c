"""The ways to a Prefect API, with real servers and real kills. Nothing here waits for a fixed time."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from edi_storage.errors import EdiError
from edi_storage.settings import Settings
from flows.child import bound_child, wait_ready
from flows.server import ENVIRONMENT, named_server, prepare_environment, running_server, start_server

ROOT = Path(__file__).parents[2]

#: A child that is ready at once and stays until its standard input ends.
STAYS = "import os; os.write(1, b'ready\\n'); os.read(0, 1)"

#: A process with an embedded server; it says when it is up, and ends when a line comes in.
EMBEDDED = """
import sys
from edi_storage.settings import load_settings
from flows.server import api_for
with api_for(load_settings()) as url:
    from tests.flows.tiny import tick_in_a_task
    tick_in_a_task()
    print(url, flush=True)
    sys.stdin.readline()
"""

#: `edi serve` with small flows.
SERVE = """
import sys
from deployments.serve import Served, serve
from edi_storage.errors import EdiError
from edi_storage.settings import load_settings
try:
    serve(load_settings(), port=int(sys.argv[1]), deployments=[
        Served("wait", "tests.flows.tiny.wait"),
        Served("tick", "tests.flows.tiny.tick", interval=15, alone=True),
    ])
except EdiError as error:
    sys.exit(f"{error}")
"""


def until[T](find: Callable[[], T], seconds: float = 30) -> T:
    """What `find` gives once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := find()):
        assert time.monotonic() < deadline, f"nothing within {seconds} s"
        time.sleep(0.05)
    return found
