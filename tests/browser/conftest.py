"""A person with a browser in front of a real `edi serve`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.chromium import chromium, missing
from tests.browser.photos import small_photo
from tests.browser.ui import Ui
from tests.flows.control import Control, serving

#: Where this is set, as in CI, tests that cannot be done for want of a browser fail.
NEEDED = "EDI_NEED_BROWSER"


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    """A running `edi serve` of these tests' own, where there is a browser to look at it."""
    if why := missing():
        message = f"NOTHING OF THE UI IS TESTED: {why} (Debian: apt-get install chromium)"
        if os.environ.get(NEEDED):
            pytest.fail(message)
        pytest.skip(message)
    with serving(tmp_path_factory.mktemp("browsed")) as control:
        yield control


@pytest.fixture
def ui(served: Control) -> Iterator[Ui]:
    """A browser of its own for each test; at the end, its pages must have asked for nothing beyond this machine."""
    with chromium() as (page, asked_beyond):
        yield Ui(page, announced(served))
        assert asked_beyond == []


def announced(served: Control) -> str:
    """The address of the server, from the ready lines."""
    said = (served.home / "serve.log").read_text()
    found = re.search(r"The control room: +(http\S+)/v2/dashboard", said)
    assert found, said
    return found[1]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return small_photo(tmp_path)
