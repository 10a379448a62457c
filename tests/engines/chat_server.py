"""A small server that speaks the chat protocols of Ollama and of OpenAI, and says what a test wants it to say.

The forms of its answers are those that Ollama 0.5 documents (`/api/chat`, `/api/tags`, 404 for a model that is not
there), and those that llama.cpp's server gave (`/v1/chat/completions`; see `test_a_real_llama_is_understood`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

Json = dict[str, Any]
MODEL = "tiny:latest"

GOOD: Json = {
    "edit_type": "color",
    "steps": [{"action": "exposure", "targets": ["sky_0"], "strength": 0.5, "direction": "less"}],
    "confidence": 0.9,
}
PAIR: Json = {"positive_prompt": "the sky darker; keep the building", "negative_prompt": "overexposed"}


class Chat:
    """The server's state. `say` makes the text of each answer out of the conversation so far."""

    def __init__(self) -> None:
        self.asked: list[Json] = []
        self.keys: list[str] = []
        self.say: Callable[[Json], str] = sensible
        self.dies = self.hangs = False
        self.application = Starlette(
            routes=[
                Route("/api/chat", self._ollama, methods=["POST"]),
                Route("/api/tags", self._tags),
                Route("/v1/chat/completions", self._openai, methods=["POST"]),
                Route("/v1/models", self._models),
            ]
        )

    def answers(self, *texts: str) -> None:
        """Give these answers, the last one again and again."""
        left = list(texts)
        self.say = lambda _: left.pop(0) if len(left) > 1 else left[0]

    async def _body(self, request: Request) -> Json:
        body: Json = await request.json()
        self.asked.append(body)
        self.keys.append(request.headers.get("authorization", ""))
        if self.hangs:
            await asyncio.sleep(60)
        return body

    async def _ollama(self, request: Request) -> Response:
        body = await self._body(request)
        if body["model"] not in (MODEL, MODEL.removesuffix(":latest")):
            return JSONResponse({"error": f"model '{body['model']}' not found"}, status_code=404)
        message = {"role": "assistant", "content": self.say(body)}
        return self._sent({"model": body["model"], "message": message, "done": True, "done_reason": "stop"})

    async def _openai(self, request: Request) -> Response:
        body = await self._body(request)
        if self.keys[-1] == "Bearer wrong":
            return JSONResponse({"error": {"message": "Invalid API Key", "code": 401}}, status_code=401)
        if body["model"] != MODEL:
            return JSONResponse({"error": {"message": f"The model `{body['model']}` does not exist"}}, status_code=404)
        message = {"role": "assistant", "content": self.say(body)}
        return self._sent({"object": "chat.completion", "choices": [{"index": 0, "message": message}]})

    def _sent(self, document: Json) -> Response:
        if not self.dies:
            return JSONResponse(document)
        data = json.dumps(document).encode()

        async def half() -> Any:
            yield data[: len(data) // 2]

        return StreamingResponse(half(), headers={"content-length": str(len(data))})

    async def _tags(self, request: Request) -> Response:
        return JSONResponse({"models": [{"name": MODEL, "model": MODEL}]})

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": MODEL, "object": "model"}]})


def sensible(body: Json) -> str:
    """What a good model says: an understanding or a prompt pair, as the schema wants it."""
    schema = body.get("format") or body["response_format"]["json_schema"]["schema"]
    return json.dumps(PAIR if "positive_prompt" in schema["properties"] else GOOD)
