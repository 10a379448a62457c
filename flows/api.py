"""Reading from Prefect's API without Prefect, whose import takes a second: for `edi status` and the ready lines."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import urllib.error
import urllib.parse
import urllib.request
import uuid
from typing import Any

from edi_storage.errors import EdiError
from flows.server import opener

#: A server that takes longer to answer than this is as good as none to a person who asks how things stand.
ANSWER_SECONDS = 5.0


class Api:
    """The API at `url`. Every reading raises EdiError with one sentence when the server does not answer it."""

    def __init__(self, url: str, *, seconds: float = ANSWER_SECONDS) -> None:
        self._url, self._seconds, self._opener = url.rstrip("/"), seconds, opener(url)
        self._headers = {"Content-Type": "application/json", **_who_asks()}
        self._has_token = False

    def get(self, path: str) -> Any:
        """What the API holds at `path`, such as "/deployments/name/FLOW/NAME"."""
        return self._send(path)

    def find(self, path: str, **wanted: Any) -> Any:
        """What a search finds, such as "/flow_runs/filter" with its filters, `sort`, `limit` and `offset`."""
        if not self._has_token:
            self._headers |= self._token()
            self._has_token = True
        return self._send(path, json.dumps(wanted).encode())

    def _send(self, path: str, data: bytes | None = None) -> Any:
        request = urllib.request.Request(f"{self._url}{path}", data, self._headers)  # noqa: S310 - see `answers`
        try:
            with self._opener.open(request, timeout=self._seconds) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                raise EdiError(
                    f"The Prefect server at {self._url} answers {error.code} ({error.reason}) to {path}."
                ) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise EdiError(f"The Prefect server at {self._url} does not answer: {_short(error)}.") from error

    def _token(self) -> dict[str, str]:
        """A search is a POST, and Prefect wants a token with it where CSRF protection is on."""
        client = str(uuid.uuid4())
        with contextlib.suppress(EdiError):
            token = self._send(f"/csrf-token?client={client}")["token"]
            return {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": client}
        return {}


def _who_asks() -> dict[str, str]:
    """The password or key that Prefect's own client would send."""
    if password := os.environ.get("PREFECT_API_AUTH_STRING"):
        return {"Authorization": f"Basic {base64.b64encode(password.encode()).decode()}"}
    if key := os.environ.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    return {}


def _short(error: Exception) -> str:
    return str(getattr(error, "reason", "") or error or type(error).__name__).rstrip(".")
