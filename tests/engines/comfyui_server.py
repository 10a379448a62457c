"""A small server that speaks ComfyUI's protocol, as the real one of version 0.3.64 did in `comfyui_traffic.json`.

It validates, queues, executes one job after the other, caches, tells over the WebSocket, and remembers: a job that is
posted twice is in its history as one that ran twice (`executions`), as with the real one. A job's sampler makes
`STEPS` steps and can be held after some of them (`hold_at`), so that a test can kill whoever waits for it.
The picture that it makes is the uploaded one, darker where the mask is white.
"""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import Callable
from email import message_from_bytes
from email.policy import HTTP
from typing import Any

from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

Json = dict[str, Any]
STEPS = 8
CHECKPOINTS = ["photo.safetensors"]
#: The nodes that this server has, and which inputs must be connected or given.
NODES = {
    "CheckpointLoaderSimple": ["ckpt_name"],
    "LoadImage": ["image"],
    "LoadImageMask": ["image", "channel"],
    "CLIPTextEncode": ["text", "clip"],
    "VAEEncode": ["pixels", "vae"],
    "SetLatentNoiseMask": ["samples", "mask"],
    "KSampler": ["model", "positive", "negative", "latent_image", "seed", "denoise"],
    "VAEDecode": ["samples", "vae"],
    "SaveImage": ["images", "filename_prefix"],
    "PreviewAny": ["source"],
}
OUTPUTS = ("SaveImage", "PreviewAny")


class ComfyUI:
    """The server's state. `hold_at`: the step after which a sampler waits for `go_on`; `fail`: samplers fail."""

    def __init__(self) -> None:
        self.inputs: dict[str, bytes] = {}
        self.outputs: dict[str, bytes] = {}
        self.pending: list[list[Any]] = []
        self.running: list[list[Any]] = []
        self.history: Json = {}
        #: The id of each job whose sampler was run, once for every time.
        self.executions: list[str] = []
        #: Method and path of every request.
        self.requests: list[str] = []
        self.hold_at: int | None = None
        self.fail = False
        #: What it answers to a POST of a job in place of taking it.
        self.refuse: Callable[[], Response] | None = None
        self._held, self._asked = threading.Event(), threading.Event()
        self._interrupted: set[str] = set()
        self._cached: set[str] = set()
        self._listeners: dict[str, WebSocket] = {}
        self._number = 0
        self._worker: asyncio.Task[None] | None = None
        self.application = Starlette(
            routes=[
                Route("/system_stats", self._stats),
                Route("/object_info/{name}", self._info),
                Route("/upload/image", self._upload, methods=["POST"]),
                Route("/prompt", self._prompt, methods=["POST"]),
                Route("/queue", self._queue),
                Route("/queue", self._change_queue, methods=["POST"]),
                Route("/interrupt", self._interrupt, methods=["POST"]),
                Route("/history/{prompt_id}", self._history),
                Route("/view", self._view),
                WebSocketRoute("/ws", self._listen),
            ]
        )

    # --- For tests -------------------------------------------------------------------------------------

    def wait_until_held(self, seconds: float = 60) -> None:
        """Until a job waits at `hold_at`."""
        assert self._held.wait(seconds), "no job came so far"

    def wait_for(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        """Until a request has made `condition` true."""
        until = time.monotonic() + seconds
        while not condition():
            left = until - time.monotonic()
            assert left > 0, "the requests that were waited for did not come"
            self._asked.wait(left)
            self._asked.clear()

    def go_on(self) -> None:
        """Let the job that is held, and all later ones, run to their end."""
        self.hold_at = None

    def restart(self) -> None:
        """As a restart of the real server does: queue and history are empty, the pictures are there."""
        self.pending, self.running, self.history = [], [], {}

    # --- HTTP ------------------------------------------------------------------------------------------

    def _note(self, request: Request) -> None:
        self.requests.append(f"{request.method} {request.url.path}")
        self._asked.set()

    async def _stats(self, request: Request) -> Response:
        self._note(request)
        return JSONResponse({"system": {"os": "posix", "comfyui_version": "0.3.64"}, "devices": [{"name": "cpu"}]})

    async def _info(self, request: Request) -> Response:
        self._note(request)
        if request.path_params["name"] != "CheckpointLoaderSimple":
            return JSONResponse({})
        inputs = {"required": {"ckpt_name": [CHECKPOINTS, {"tooltip": "The name of the checkpoint."}]}}
        return JSONResponse({"CheckpointLoaderSimple": {"input": inputs, "output": ["MODEL", "CLIP", "VAE"]}})

    async def _upload(self, request: Request) -> Response:
        self._note(request)
        head = f"Content-Type: {request.headers['content-type']}\n\n".encode()
        form = message_from_bytes(head + await request.body(), policy=HTTP)
        parts = {part.get_param("name", header="content-disposition"): part for part in form.iter_parts()}
        subfolder = parts["subfolder"].get_payload(decode=True).decode() if "subfolder" in parts else ""
        name = parts["image"].get_filename()
        self.inputs[f"{subfolder}/{name}"] = parts["image"].get_payload(decode=True)
        return JSONResponse({"name": name, "subfolder": subfolder, "type": "input"})

    async def _prompt(self, request: Request) -> Response:
        self._note(request)
        if self.refuse is not None:
            return self.refuse()
        body = await request.json()
        error, node_errors = self._faults(body["prompt"])
        if error:
            return JSONResponse({"error": {**error, "extra_info": {}}, "node_errors": node_errors}, status_code=400)
        outputs = [name for name, node in body["prompt"].items() if node["class_type"] in OUTPUTS]
        entry = [self._number, body["prompt_id"], body["prompt"], {"client_id": body["client_id"]}, outputs]
        self._number += 1
        self.pending.append(entry)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return JSONResponse({"prompt_id": entry[1], "number": entry[0], "node_errors": {}})

    def _faults(self, prompt: Json) -> tuple[Json | None, Json]:
        """What is wrong with a workflow, in the words of the real server."""
        for name, node in prompt.items():
            kind = node["class_type"]
            if kind not in NODES:
                message = f"Cannot execute because node {kind} does not exist."
                return {"type": "invalid_prompt", "message": message, "details": f"Node ID '#{name}'"}, {}
        if not any(node["class_type"] in OUTPUTS for node in prompt.values()):
            return {"type": "prompt_no_outputs", "message": "Prompt has no outputs", "details": ""}, {}
        errors = {name: found for name, node in prompt.items() if (found := self._node_faults(node))}
        if not errors:
            return None, {}
        message = "Prompt outputs failed validation"
        return {"type": "prompt_outputs_failed_validation", "message": message, "details": ""}, errors

    def _node_faults(self, node: Json) -> Json | None:
        kind, inputs, found = node["class_type"], node["inputs"], []
        missing = [name for name in NODES[kind] if name not in inputs]
        found += [("required_input_missing", "Required input is missing", name) for name in missing]
        if kind in ("LoadImage", "LoadImageMask") and inputs.get("image") not in self.inputs:
            details = f"image - Invalid image file: {inputs.get('image')}"
            found.append(("custom_validation_failed", "Custom validation failed for node", details))
        if kind == "CheckpointLoaderSimple" and inputs.get("ckpt_name") not in CHECKPOINTS:
            details = f"ckpt_name: '{inputs.get('ckpt_name')}' not in {CHECKPOINTS}"
            found.append(("value_not_in_list", "Value not in list", details))
        if not found:
            return None
        errors = [{"type": t, "message": m, "details": d, "extra_info": {}} for t, m, d in found]
        return {"errors": errors, "dependent_outputs": [], "class_type": kind}

    async def _queue(self, request: Request) -> Response:
        self._note(request)
        return JSONResponse({"queue_running": self.running, "queue_pending": self.pending})

    async def _change_queue(self, request: Request) -> Response:
        self._note(request)
        called_off = (await request.json()).get("delete", [])
        self.pending = [entry for entry in self.pending if entry[1] not in called_off]
        return Response()

    async def _interrupt(self, request: Request) -> Response:
        self._note(request)
        wanted = (await request.json()).get("prompt_id")
        self._interrupted |= {entry[1] for entry in self.running if wanted in (None, entry[1])}
        return Response()

    async def _history(self, request: Request) -> Response:
        self._note(request)
        name = request.path_params["prompt_id"]
        return JSONResponse({name: self.history[name]} if name in self.history else {})

    async def _view(self, request: Request) -> Response:
        self._note(request)
        query = request.query_params
        data = self.outputs.get(f"{query.get('subfolder')}/{query.get('filename')}")
        return Response(status_code=404) if data is None else Response(data, media_type="image/png")

    # --- The WebSocket ---------------------------------------------------------------------------------

    async def _listen(self, socket: WebSocket) -> None:
        await socket.accept()
        client = socket.query_params["clientId"]
        self._listeners[client] = socket
        await socket.send_json({"type": "status", "data": {"status": {"exec_info": {}}, "sid": client}})
        try:
            while True:
                await socket.receive()
        except (WebSocketDisconnect, RuntimeError):
            self._listeners.pop(client, None)

    async def _tell(self, client: str, kind: str, data: Json) -> None:
        socket = self._listeners.get(client)
        if socket is None:
            return
        try:
            if kind == "progress":
                await socket.send_bytes(b"\x00\x00\x00\x01\x00\x00\x00\x01a preview")
                # What belongs to a job of somebody else comes along.
                await socket.send_json({"type": kind, "data": {**data, "prompt_id": "another", "value": 0}})
            await socket.send_json({"type": kind, "data": data})
        except (WebSocketDisconnect, RuntimeError):
            self._listeners.pop(client, None)

    # --- The work --------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while self.pending:
            entry = self.pending.pop(0)
            self.running = [entry]
            messages: list[Any] = []
            outputs, status = {}, "success"
            try:
                outputs = await self._execute(entry, messages)
            except _Ended as end:
                status = "error"
                messages.append([end.kind, {"prompt_id": entry[1], **end.data}])
                await self._tell(entry[3]["client_id"], end.kind, {"prompt_id": entry[1], **end.data})
            done = {"status_str": status, "completed": status == "success", "messages": messages}
            if self.running:  # unless it was "restarted"
                self.history[entry[1]] = {"prompt": entry, "outputs": outputs, "status": done, "meta": {}}
            self.running = []
            await self._tell(entry[3]["client_id"], "executing", {"node": None, "prompt_id": entry[1]})

    async def _execute(self, entry: list[Any], messages: list[Any]) -> Json:
        _, job, prompt, extra, wanted = entry
        client = extra["client_id"]

        async def say(kind: str, **data: Any) -> None:
            if kind.startswith("execution"):
                messages.append([kind, {"prompt_id": job, **data, "timestamp": int(time.time() * 1000)}])
            await self._tell(client, kind, {"prompt_id": job, **data})

        await say("execution_start")
        cached = [name for name in prompt if _signature(prompt, name) in self._cached]
        await say("execution_cached", nodes=cached)
        outputs: Json = {}
        for name in sorted(prompt, key=int):
            node = prompt[name]
            if name not in cached:
                await say("executing", node=name, display_node=name)
                if node["class_type"] == "KSampler":
                    await self._sample(job, name, say)
            if name in wanted and node["class_type"] == "SaveImage":
                outputs[name] = {"images": [self._save(node, prompt)]}
            self._cached.add(_signature(prompt, name))
        await say("execution_success")
        return outputs

    async def _sample(self, job: str, name: str, say: Any) -> None:
        self.executions.append(job)
        for step in range(1, STEPS + 1):
            await say("progress", value=step, max=STEPS, node=name)
            until = time.monotonic() + 90  # a test that forgets to let it go must fail, not hang
            while self.hold_at is not None and step >= self.hold_at and time.monotonic() < until:
                self._held.set()
                self._check_interrupted(job, name)
                await asyncio.sleep(0.01)
            self._check_interrupted(job, name)
            await asyncio.sleep(0)
        if self.fail:
            fault = {"exception_message": "not enough memory\n", "exception_type": "RuntimeError", "traceback": []}
            raise _Ended("execution_error", {"node_id": name, "node_type": "KSampler", "executed": [], **fault})

    def _check_interrupted(self, job: str, name: str) -> None:
        if job in self._interrupted:
            raise _Ended("execution_interrupted", {"node_id": name, "node_type": "KSampler", "executed": []})

    def _save(self, node: Json, prompt: Json) -> Json:
        subfolder, _, prefix = node["inputs"]["filename_prefix"].rpartition("/")
        filename = f"{prefix}_00001_.png"
        images = {n["class_type"]: n["inputs"]["image"] for n in prompt.values() if "image" in n["inputs"]}
        picture = Image.open(io.BytesIO(self.inputs[images["LoadImage"]])).convert("RGB")
        mask = Image.open(io.BytesIO(self.inputs[images["LoadImageMask"]])).convert("L")
        darker = picture.point([round(value * 0.55) for value in range(256)] * 3)
        buffer = io.BytesIO()
        Image.composite(darker, picture, mask).save(buffer, "PNG")
        self.outputs[f"{subfolder}/{filename}"] = buffer.getvalue()
        return {"filename": filename, "subfolder": subfolder, "type": "output"}


class _Ended(Exception):
    """A job came to a bad end; the message that tells of it."""

    def __init__(self, kind: str, data: Json) -> None:
        super().__init__(kind)
        self.kind, self.data = kind, data


def _signature(prompt: Json, name: str) -> str:
    """What a node computes: equal signatures, equal results, as in the real server's cache."""
    inputs = {
        key: _signature(prompt, value[0]) if isinstance(value, list) else value
        for key, value in prompt[name]["inputs"].items()
    }
    return repr((prompt[name]["class_type"], sorted(inputs.items())))
