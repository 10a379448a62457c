"""Requests to a server that the person configured: that address and no other, with a time limit on everything.

No redirect is followed, and neither proxies nor `.netrc` are looked up in the environment.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from edi_storage.errors import EngineError

#: Seconds to connect: a server that is there answers in milliseconds.
_CONNECT: Final = 5.0
#: Bytes of an answer: a JSON document, and a picture.
MOST_JSON: Final = 16 << 20
MOST_PICTURE: Final = 512 << 20
#: Statuses that may pass: too many requests, and a gateway whose server is being started.
_PASSING: Final = (429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Answer:
    """What came back, whatever its status below 500."""

    status: int
    body: bytes

    def json(self) -> Any:
        """The body as JSON; None when it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


@dataclass(frozen=True)
class Server:
    """A server at `url`. `setting` is where its address comes from, `called` its name in a sentence."""

    called: str
    setting: str
    url: str
    key: str = field(default="", repr=False)

    @property
    def _who(self) -> str:
        """The name at the beginning of a sentence."""
        return self.called[:1].upper() + self.called[1:]

    def get(self, path: str, *, seconds: float = 30.0, most: int = MOST_JSON, **query: str) -> Answer:
        """GET. Raises EngineError, as does `post`, when there is no answer, or one that says "later"."""
        return self._ask("GET", path, seconds, most, params=query)

    def post(self, path: str, body: Mapping[str, Any], *, seconds: float = 30.0) -> Answer:
        """POST a JSON document."""
        return self._ask("POST", path, seconds, MOST_JSON, json=body)

    def upload(self, path: str, name: str, data: bytes, *, seconds: float = 120.0, **form: str) -> Answer:
        """POST a file as the form field `image`, with other fields."""
        return self._ask("POST", path, seconds, MOST_JSON, files={"image": (name, data, "image/png")}, data=form)

    def _ask(self, method: str, path: str, seconds: float, most: int, **content: Any) -> Answer:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        limits = httpx.Timeout(seconds, connect=min(_CONNECT, seconds))
        # Certificates take a tenth of a second to load, and plain http has no use for them.
        tls = self.url.startswith("https:")
        try:
            with (
                httpx.Client(timeout=limits, verify=tls, follow_redirects=False, trust_env=False) as client,
                client.stream(method, self.url + path, headers=headers, **content) as response,
            ):
                answer = Answer(response.status_code, self._body(response, seconds, most))
        except httpx.TimeoutException as error:
            raise EngineError(f"{self._who} at {self.url} did not answer within {seconds:g} s.") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            why = str(error) or type(error).__name__
            raise EngineError(
                f"{self._who} at {self.url} does not answer ({why}): start it, or check {self.setting}."
            ) from error
        return self._checked(answer, path)

    def _body(self, response: httpx.Response, seconds: float, most: int) -> bytes:
        """The whole body. The limits of httpx are for each piece: a server that drips would hold us for ever."""
        until = time.monotonic() + seconds
        body = bytearray()
        for piece in response.iter_bytes():
            body += piece
            if len(body) > most:
                raise EngineError(f"{self._who} at {self.url} sends more than {most >> 20} MB: that is no answer.")
            if time.monotonic() > until:
                raise EngineError(f"{self._who} at {self.url} did not answer within {seconds:g} s.")
        return bytes(body)

    def _checked(self, answer: Answer, path: str) -> Answer:
        if answer.status in _PASSING:
            raise EngineError(f"{self._who} at {self.url} says {answer.status} to {path}: {excerpt(answer.body)}")
        if 300 <= answer.status < 400:
            raise EngineError(
                f"{self._who} at {self.url} sends us elsewhere ({answer.status}), and EDI does not follow: "
                f"set {self.setting} to the address itself."
            )
        return answer


def excerpt(body: bytes, most: int = 200) -> str:
    """The beginning of an answer on one line, for a sentence about it."""
    text = " ".join(body.decode("utf-8", "replace").split())
    printable = "".join(char if char.isprintable() else "?" for char in text)
    return (printable[:most] + " ..." if len(printable) > most else printable) or "(nothing)"
