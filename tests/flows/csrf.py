"""What a client of `edi serve` sends with every change, so that a web page cannot make a browser send it."""

from __future__ import annotations

import uuid
from functools import cache

import httpx

from tests.waiting import PATIENCE


@cache
def csrf_headers(api: str) -> dict[str, str]:
    """The headers that let this process change things at `api`; none, where it asks for none."""
    client = str(uuid.uuid4())
    answer = httpx.get(f"{api}/csrf-token", params={"client": client}, timeout=PATIENCE)
    if answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
        return {}
    return {"Prefect-Csrf-Token": answer.raise_for_status().json()["token"], "Prefect-Csrf-Client": client}
