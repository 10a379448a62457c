"""One writer at a time for the SQLite database of a Prefect server; ASGI applications around the server's own."""

from __future__ import annotations

import asyncio
import http
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

#: Seconds before what Prefect's database was too busy for is asked again.
BUSY_WAITS: Final = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)

#: What only reads: by its method, or, where a question has a body, by the end of its path.
_READING: Final = ("GET", "HEAD", "OPTIONS")
_QUESTIONS: Final = ("/count", "/filter", "/history", "/lateness", "/paginate")


class OneWriter:
    """Lets Prefect do one request after the other where they write; those that read go on beside them.

    SQLite has one writer. Most of Prefect's transactions read before they write, and are refused where another one has
    written in between: without turns, many clients at once get a fraction of what one gets alone, and some an error.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._turn = asyncio.Lock()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] in _READING or scope["path"].endswith(_QUESTIONS):
            await self._app(scope, receive, send)
            return
        async with self._turn:
            await self._app(scope, receive, send)


class AsksAgain:
    """Asks Prefect again what it answers with 503, as its own client does, and as its pages do not.

    That is the answer of a transaction that SQLite has refused and undone, because another one wrote first. To a person
    who has filled in a form it would say "Unknown error".
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = [message async for message in _whole(receive)]
        for seconds in BUSY_WAITS:
            if await self._is_answered(scope, request, receive, send):
                return
            await asyncio.sleep(seconds)
        await self._app(scope, _replayed(request, receive), send)

    async def _is_answered(self, scope: Any, request: Sequence[Any], receive: Any, send: Any) -> bool:
        busy = False

        async def unless_busy(message: Any) -> None:
            nonlocal busy
            busy = busy or message.get("status") == http.HTTPStatus.SERVICE_UNAVAILABLE
            if not busy:
                await send(message)

        try:
            await self._app(dict(scope), _replayed(request, receive), unless_busy)
        except Exception:
            # Prefect raises again, for the log, what it has answered.
            if not busy:
                raise
        return not busy


async def _whole(receive: Any) -> AsyncIterator[Any]:
    """The messages that make up a request."""
    more = True
    while more:
        message = await receive()
        more = message.get("more_body", False)
        yield message


def _replayed(request: Iterable[Any], receive: Any) -> Callable[[], Awaitable[Any]]:
    """What receives the request once more, and then what comes after it."""
    messages = iter(request)

    async def receive_again() -> Any:
        return next(messages, None) or await receive()

    return receive_again
