"""What a client of `edi serve` sends with every change, so that a web page cannot make a browser send it."""

from __future__ import annotations

import uuid
from functools import cache

import httpx


@cache
def csrf_headers(api: str) -> dict[str, str]:
    """The headers that let this process change things at `api`."""
    client = str(uuid.uuid4())
    answer = httpx.get(f"{api}/csrf-token", params={"client": client}, timeout=60).raise_for_status()
    return {"Prefect-Csrf-Token": answer.json()["token"], "Prefect-Csrf-Client": client}
