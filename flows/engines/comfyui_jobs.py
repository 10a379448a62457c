"""ComfyUI's protocol: send a job once, find it again, follow it, fetch what it made, or call it off.

A job carries an id of our making, which is saved before it is sent. ComfyUI would run the same id twice, so whoever
comes back after a crash looks in its queue and its history before sending anything.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, Final, Literal, Self
from urllib.parse import urlencode

from websockets.exceptions import WebSocketException
from websockets.sync.client import connect
from websockets.sync.connection import Connection

from edi_storage.errors import EngineError, InputError
from flows.engines.http import MOST_PICTURE, Answer, Server, excerpt

#: Seconds between two looks at queue and history: the WebSocket tells sooner, if there is one.
_POLL: Final = 1.0
#: Seconds that the server may be out of reach while it works for us, for example while it is started again.
_PATIENCE: Final = 30.0
#: Seconds that calling a job off may take: whoever pressed Ctrl-C waits for it.
_GOODBYE: Final = 3.0
#: Called with (fraction 0..1, what is being done).
Tell = Callable[[float, str], None]


@dataclass(frozen=True)
class Job:
    """The id of a job, and that of the listener whom ComfyUI tells about it."""

    prompt_id: str
    client_id: str

    @property
    def prefix(self) -> str:
        """The beginning of the names of its pictures. Of its own, or an equal workflow would return older ones."""
        return f"edi-{self.prompt_id}"


@dataclass(frozen=True)
class Found:
    """Where a job is. `entry` is what the history says of one that has ended, `ahead` how many are before it."""

    where: Literal["unknown", "pending", "running", "done", "failed"]
    entry: Mapping[str, Any] | None = None
    ahead: int = 0


class Jobs:
    """The jobs of one server. `seconds` a job may run; `clock` gives seconds, `sleep` waits for some."""

    def __init__(
        self,
        server: Server,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.server, self._seconds = server, seconds
        self._clock, self._sleep = clock, sleep

    # --- Sending ---------------------------------------------------------------------------------------

    def version(self) -> str:
        """The server's version. Raises EngineError when it is not there, InputError when it is something else."""
        stats = self.server.get("/system_stats", seconds=10).json()
        system = stats.get("system") if isinstance(stats, dict) else None
        if not isinstance(system, dict):
            raise InputError(f"What answers at {self.server.url} is no ComfyUI: check EDI_COMFYUI_URL.")
        return str(system.get("comfyui_version", "unknown"))[:40]

    def checkpoints(self) -> list[str]:
        """The names of the models that the server has; empty where it does not say."""
        info = self.server.get("/object_info/CheckpointLoaderSimple").json()
        with suppress(KeyError, IndexError, TypeError):
            listed = info["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0]
            return [str(name) for name in listed]
        return []

    def upload(self, name: str, data: bytes) -> str:
        """Upload a PNG to the folder `edi` of ComfyUI's inputs; the same name again replaces it. Returns its name."""
        answer = self.server.upload("/upload/image", name, data, subfolder="edi", overwrite="true")
        stored = answer.json()
        if answer.status != 200 or not isinstance(stored, dict) or "name" not in stored:
            raise InputError(f"ComfyUI did not take the picture ({answer.status}): {excerpt(answer.body)}")
        return "/".join(part for part in (str(stored.get("subfolder", "")), str(stored["name"])) if part)

    def send(self, job: Job, workflow: Mapping[str, Any]) -> None:
        """Put the job into the queue. Raises InputError when ComfyUI refuses the workflow, saying which node."""
        body = {"prompt": workflow, "client_id": job.client_id, "prompt_id": job.prompt_id}
        answer = self.server.post("/prompt", body)
        if answer.status != 200:
            raise InputError(f"ComfyUI refuses the workflow: {_refusal(answer)}")

    # --- Finding ---------------------------------------------------------------------------------------

    def find(self, job: Job) -> Found:
        """Where the job is. The queue first: a job leaves it for the history, never the other way."""
        queue = self.server.get("/queue").json()
        queue = queue if isinstance(queue, dict) else {}
        if job.prompt_id in _ids(queue.get("queue_running")):
            return Found("running")
        pending = sorted(queue.get("queue_pending") or [], key=_number)
        if job.prompt_id in (ids := _ids(pending)):
            return Found("pending", ahead=ids.index(job.prompt_id) + len(queue.get("queue_running") or []))
        history = self.server.get(f"/history/{job.prompt_id}").json()
        entry = history.get(job.prompt_id) if isinstance(history, dict) else None
        if not isinstance(entry, dict):
            return Found("unknown")
        failed = (entry.get("status") or {}).get("status_str") == "error"
        return Found("failed" if failed else "done", entry)

    def left_behind(self, job: Job) -> bytes | None:
        """The picture of a job that the server has forgotten, as it does when it is started again."""
        return self._view(f"{job.prefix}_00001_.png", "edi", "output")

    # --- Following -------------------------------------------------------------------------------------

    def follow(self, job: Job, nodes: int, tell: Tell, send: Callable[[], None] = lambda: None) -> Found:
        """Follow a job of so many nodes to its end; `send` sends it, once somebody listens to what is told of it.

        Raises EngineError when the server is gone or has forgotten it, InputError when it runs too long; it is called
        off then.
        """
        with _Listener(self.server.url, job) as listener:
            send()
            state, reached, running_since = _Steps(nodes), self._clock(), None
            while True:
                try:
                    found = self.find(job)
                    reached = self._clock()
                except EngineError:
                    if self._clock() - reached > _PATIENCE:
                        raise
                    self._sleep(_POLL)
                    continue
                if found.where in ("done", "failed"):
                    return found
                if found.where == "unknown":
                    raise EngineError("ComfyUI has forgotten the job, as it does when it is started again.")
                if found.where == "running":
                    running_since = self._clock() if running_since is None else running_since
                    self._check_time(job, running_since)
                tell(state.fraction, _told(found, state))
                self._listen(listener, state, tell)

    def _check_time(self, job: Job, since: float) -> None:
        if self._clock() - since > self._seconds:
            self.cancel(job)
            raise InputError(
                f"The job ran for more than {self._seconds:g} s and was called off: raise EDI_COMFYUI_SECONDS, or "
                "lower EDI_COMFYUI_SIDE."
            )

    def _listen(self, listener: _Listener, state: _Steps, tell: Tell) -> None:
        """Take in what the WebSocket says until it is time for another look."""
        until = self._clock() + _POLL
        while (left := until - self._clock()) > 0:
            if not listener.open:
                self._sleep(left)
                return
            message = listener.next(left)
            if message is None:
                continue
            if _is_over(message):
                return
            if state.take(message):
                tell(state.fraction, state.told)

    def cancel(self, job: Job) -> None:
        """Call a job off, waiting or running. Never raises: this is done on the way out."""
        with suppress(Exception):
            self.server.post("/queue", {"delete": [job.prompt_id]}, seconds=_GOODBYE)
            # Older servers interrupt whatever runs, so only when it is ours.
            if self.find(job).where == "running":
                self.server.post("/interrupt", {"prompt_id": job.prompt_id}, seconds=_GOODBYE)

    # --- Fetching --------------------------------------------------------------------------------------

    def picture(self, found: Found) -> bytes:
        """The first picture that a job has saved. Raises InputError, or EngineError for a failure that may pass."""
        entry = found.entry or {}
        if found.where == "failed":
            raise _failure(entry)
        for output in _outputs(entry):
            kinds = sorted(output.get("images") or [], key=lambda image: image.get("type") != "output")
            for image in kinds:
                data = self._view(str(image["filename"]), str(image.get("subfolder", "")), str(image.get("type", "")))
                if data is None:
                    raise EngineError(f"ComfyUI has lost the picture {image['filename']} that it made.")
                return data
        raise InputError("The workflow ended without a picture: it needs a SaveImage node.")

    def _view(self, filename: str, subfolder: str, kind: str) -> bytes | None:
        answer = self.server.get(
            "/view", seconds=120, most=MOST_PICTURE, filename=filename, subfolder=subfolder, type=kind
        )
        return answer.body if answer.status == 200 else None


class _Steps:
    """How far a job is, from the messages about it."""

    def __init__(self, nodes: int) -> None:
        self._nodes = max(1, nodes)
        self._done: set[str] = set()
        self._node, self._part = "", 0.0
        self.told = "ComfyUI works"

    @property
    def fraction(self) -> float:
        """0..1: nodes that are done, and the part of the one at work."""
        return min(1.0, (len(self._done) + self._part) / self._nodes)

    def take(self, message: Mapping[str, Any]) -> bool:
        """Take in one message; whether it said anything new."""
        data, kind = message["data"], message.get("type")
        if kind == "execution_cached":
            self._done |= {str(node) for node in data.get("nodes") or []}
        elif kind == "executing" and data.get("node") is not None:
            self._done |= {self._node} - {""}
            self._node, self._part = str(data["node"]), 0.0
        elif kind == "progress":
            value, most = data.get("value"), data.get("max")
            if not (isinstance(value, int | float) and isinstance(most, int | float) and most > 0):
                return False
            self._part = min(1.0, value / most)
            self.told = f"ComfyUI works: step {value:g} of {most:g}"
        else:
            return False
        return True


class _Listener:
    """The WebSocket of one job. Without one, as behind some proxies, everything still works, by asking."""

    def __init__(self, url: str, job: Job) -> None:
        self._url = f"ws{url.removeprefix('http')}/ws?{urlencode({'clientId': job.client_id})}"
        self._prompt_id = job.prompt_id
        self._socket: Connection | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with suppress(OSError, WebSocketException, TimeoutError):
            # No proxy, as for all requests; 16 MB: previews come along, and are let pass by.
            self._socket = self._stack.enter_context(
                connect(self._url, open_timeout=5, close_timeout=1, max_size=16 << 20, proxy=None)
            )
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError, WebSocketException):
            self._stack.close()

    @property
    def open(self) -> bool:
        return self._socket is not None

    def next(self, seconds: float) -> dict[str, Any] | None:
        """The next message about the job, waited for so long; None for anything else."""
        assert self._socket is not None
        try:
            text = self._socket.recv(timeout=seconds)
        except TimeoutError:
            return None
        except (OSError, WebSocketException):
            self._socket = None
            return None
        with suppress(ValueError, RecursionError):
            message = json.loads(text) if isinstance(text, str) else None
            data = message.get("data") if isinstance(message, dict) else None
            # Messages about jobs of others, and older ones of ours, come too.
            if isinstance(data, dict) and data.get("prompt_id") == self._prompt_id:
                return message
        return None


def _is_over(message: Mapping[str, Any]) -> bool:
    """Whether a message says that its job has ended and stands in the history: "executing no node" comes after that."""
    return message.get("type") == "executing" and message["data"].get("node") is None


def _ids(queued: Any) -> list[str]:
    """The ids in a part of the queue; an entry is [number, id, workflow, ...]."""
    return [str(entry[1]) for entry in queued or [] if isinstance(entry, list) and len(entry) > 1]


def _number(entry: Any) -> float:
    return float(entry[0]) if isinstance(entry, list) and entry else 0.0


def _told(found: Found, state: _Steps) -> str:
    if found.where == "running":
        return state.told
    return f"waiting in ComfyUI's queue, {found.ahead} before it"


def _outputs(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    outputs = entry.get("outputs")
    return [output for output in outputs.values() if isinstance(output, dict)] if isinstance(outputs, dict) else []


def _refusal(answer: Answer) -> str:
    """What the body of a 400 says: the node that is wrong, else the whole."""
    body = answer.json()
    body = body if isinstance(body, dict) else {}
    nodes = body.get("node_errors")
    for name, node in nodes.items() if isinstance(nodes, dict) else ():
        for error in node.get("errors") or [] if isinstance(node, dict) else ():
            where = f"node {name} ({node.get('class_type', '?')})"
            return excerpt(f"{where}: {error.get('message', '')}: {error.get('details', '')}".encode(), 400)
    error = body.get("error")
    if isinstance(error, dict):
        return excerpt(f"{error.get('message', '')} {error.get('details', '')}".encode(), 400)
    return f"{answer.status}: {excerpt(answer.body)}"


def _failure(entry: Mapping[str, Any]) -> EngineError | InputError:
    """Why a job failed. What somebody interrupted is not tried again by itself."""
    for message in (entry.get("status") or {}).get("messages") or []:
        kind, data = (message[0], message[1]) if isinstance(message, list) and len(message) > 1 else ("", {})
        if kind == "execution_interrupted":
            return InputError("The job was interrupted in ComfyUI.")
        if kind == "execution_error" and isinstance(data, dict):
            where = f"node {data.get('node_id', '?')} ({data.get('node_type', '?')})"
            why = f"{data.get('exception_type', '')}: {data.get('exception_message', '')}"
            return EngineError(f"ComfyUI failed at {where}: {excerpt(why.encode(), 400)}")
    return EngineError("ComfyUI failed without saying why: its own log does.")
