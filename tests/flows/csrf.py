"""What a client of `edi serve` sends with every change, so that a web page cannot make a browser send it."""

from __future__ import annotations

import json
import urllib.request
import uuid
from functools import cache


@cache
def csrf_headers(api: str) -> dict[str, str]:
    """The headers that let this process change things at `api`."""
    client = str(uuid.uuid4())
    with urllib.request.urlopen(f"{api}/csrf-token?client={client}", timeout=30) as answer:
        token = json.load(answer)["token"]
    return {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": client}
