"""What all tests share."""

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests import homes

# A shell that starts the tests in the background has it ignored, and so would every process that is to get a Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline: what is timed here is a shared machine's disk, not the code.
settings.register_profile("edi", deadline=None)
settings.load_profile("edi")


@pytest.fixture(scope="session", autouse=True)
def _homes_end() -> Iterator[None]:
    """Leave nothing on the servers of these tests."""
    yield
    homes.end()


@pytest.fixture(autouse=True)
def _where_it_applies(request: pytest.FixtureRequest) -> None:
    """Skip, with its reason, what is marked `sqlite_file` or `local_files` where there are none."""
    kind = request.getfixturevalue("kind") if "kind" in request.fixturenames else ""
    elsewhere = {
        "sqlite_file": "PostgreSQL" if kind == "postgresql" or homes.DATABASES else "",
        "local_files": "S3" if homes.FILES else "",
    }
    for name, where in elsewhere.items():
        marker = request.node.get_closest_marker(name)
        if marker and where:
            pytest.skip(f"NOT TESTED on {where}: {marker.args[0]}")
