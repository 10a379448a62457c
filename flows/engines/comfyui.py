"""The editor that lets a ComfyUI server paint: photo and mask go there, a workflow runs, the picture comes back.

What is sent is a copy of `comfyui_side` pixels at most; what comes back is enlarged and laid over the original where
the mask is. Outside the mask every byte stays. A job whose id was saved by an interrupted try is taken up again.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import cv2
import numpy as np

from edi_storage.errors import InputError, SessionGoneError
from edi_storage.models import Intent, Operation
from flows.engines.backends import Backends
from flows.engines.base import EditOutcome, EditRequest, Mask, Pixels, Progress, Variation, Variations, no_progress
from flows.engines.comfyui_jobs import Job, Jobs
from flows.engines.http import Server
from flows.engines.photo import decode_photo, encode, encode_mask
from flows.engines.steps import steps_of
from flows.engines.workflow import Workflow, load_workflow

#: The name under which a job is saved (see `EditRequest.handles`).
HANDLE: Final = "comfyui"
#: Samplers work on blocks of so many pixels.
_BLOCK: Final = 8
#: What comes back may be off by so much in its shape: workflows round to blocks of their own.
_SAME_SHAPE: Final = 0.03
#: What is new needs nearly all of the noise, what only changes its look keeps its structure.
_NEW: Final = ("add", "remove", "transform")


class ComfyUIEditor:
    """See the module. `jobs` and `new_id` are arguments for tests."""

    name = "comfyui"

    def __init__(
        self, backends: Backends, jobs: Jobs | None = None, new_id: Callable[[], str] = lambda: str(uuid.uuid4())
    ) -> None:
        self._backends, self._new_id = backends, new_id
        server = Server("ComfyUI", "EDI_COMFYUI_URL", backends.comfyui_url)
        self._jobs = jobs or Jobs(server, backends.comfyui_seconds)
        self._ran = ""

    @property
    def version(self) -> str:
        """This engine's version, the server's, and which workflow."""
        return f"1{self._ran}"

    def edit(self, request: EditRequest, progress: Progress = no_progress) -> EditOutcome:
        """Run the workflow, or take up the job that an interrupted try has sent.

        Raises EngineError for what may pass, InputError for what will not, such as a workflow that ComfyUI refuses.
        """
        if not self._backends.comfyui_url:
            raise InputError("EDI_EDITOR is comfyui, but EDI_COMFYUI_URL is not set: say where ComfyUI is.")
        workflow = load_workflow(self._backends.comfyui_workflow)
        self._ran = f" (ComfyUI {self._jobs.version()}, workflow {workflow.digest})"
        area = area_of(request)
        sent = shrunk(request.pixels, self._backends.comfyui_side)
        settings = self._settings(request, sent)
        data = self._made_by(request, workflow, settings, sent, area, progress)
        progress(0.95, "laying the result over the photo", {})
        made = decode_photo(data, "What ComfyUI returned").pixels
        pixels = laid_over(request.pixels, sent, made, area, keep_detail=request.intent.edit_type == "color")
        return EditOutcome(pixels, [self._operation(request.intent, workflow, settings)])

    def vary(self, request: EditRequest, count: int, progress: Progress = no_progress) -> Variations:
        """One, whatever `count` is: each is a job of minutes, and a crash is to find the one that was paid for."""
        made = self.edit(request, progress)
        note = f"ComfyUI makes one result, not {count} variations: for those, set EDI_EDITOR=embedded."
        one = Variation(made.pixels, made.operations, "as asked", request.intent)
        return Variations([one], [note] if count > 1 else [])

    def _made_by(
        self,
        request: EditRequest,
        workflow: Workflow,
        settings: dict[str, str | int | float],
        sent: Pixels,
        area: Mask,
        progress: Progress,
    ) -> bytes:
        """The picture of the job, which is sent unless it was before."""
        job = self._saved(request.handles) or self._new_job()
        handles = {HANDLE: {"prompt_id": job.prompt_id, "client_id": job.client_id, "url": self._backends.comfyui_url}}
        progress(0.02, "asking ComfyUI", handles)
        try:
            found = self._jobs.find(job)
            send: Callable[[], None] = lambda: None  # noqa: E731
            if found.where == "unknown":
                if (left := self._jobs.left_behind(job)) is not None and _is_whole(left):
                    return left
                names = self._uploaded(workflow, sent, area)
                filled = workflow.filled(settings | names | {"filename_prefix": f"edi/{job.prefix}"})
                send = partial(self._jobs.send, job, filled)
            if found.where not in ("done", "failed"):
                tell = partial(_tell_part, progress, handles)
                found = self._jobs.follow(job, len(workflow.nodes), tell, send)
            return self._jobs.picture(found)
        except BaseException as error:
            # Ctrl-C, a cancelled run, a deleted session: nobody wants it. A lost lease is another's to take up.
            if not isinstance(error, Exception) or isinstance(error, SessionGoneError):
                self._jobs.cancel(job)
            raise

    def _new_job(self) -> Job:
        return Job(self._new_id(), self._new_id())

    def _saved(self, handles: Mapping[str, Any]) -> Job | None:
        """The job that an earlier try has saved, unless it went to another server or came to a bad end."""
        saved = handles.get(HANDLE)
        if not isinstance(saved, Mapping) or saved.get("url") != self._backends.comfyui_url:
            return None
        ids = [str(saved.get(name, "")) for name in ("prompt_id", "client_id")]
        if not all(re.fullmatch(r"[0-9a-f-]{36}", name) for name in ids):
            return None
        job = Job(*ids)
        return None if self._jobs.find(job).where == "failed" else job

    def _settings(self, request: EditRequest, sent: Pixels) -> dict[str, str | int | float]:
        """What fills the slots, but for the names of the files. The same request, the same settings."""
        prompt, intent = request.prompt, request.intent
        seed = hashlib.sha256(f"{prompt.positive_prompt}\n{prompt.negative_prompt}\n{request.attempt}".encode())
        denoise = 0.6 + 0.4 * intent.strength if intent.edit_type in _NEW else 0.25 + 0.5 * intent.strength
        return {
            "positive": prompt.positive_prompt,
            "negative": prompt.negative_prompt,
            "seed": int.from_bytes(seed.digest()[:4], "big"),
            "denoise": round(denoise, 3),
            "strength": intent.strength,
            "width": int(sent.shape[1]),
            "height": int(sent.shape[0]),
            "checkpoint": self._backends.comfyui_checkpoint,
        }

    def _uploaded(self, workflow: Workflow, sent: Pixels, area: Mask) -> dict[str, str]:
        """Upload what the workflow has slots for, under names that are digests. Returns the names, by slot."""
        if "checkpoint" in workflow.slots and not self._backends.comfyui_checkpoint:
            listed = ", ".join(self._jobs.checkpoints()[:8]) or "none is installed there"
            raise InputError(f"EDI_COMFYUI_CHECKPOINT is not set: name a model that ComfyUI has ({listed}).")
        size = (sent.shape[1], sent.shape[0])
        files = {"image": encode(sent)}
        if "mask" in workflow.slots:
            files["mask"] = encode_mask(np.asarray(cv2.resize(area, size, interpolation=cv2.INTER_AREA), np.float32))
        return {
            slot: self._jobs.upload(f"{hashlib.sha256(data).hexdigest()[:32]}.png", data)
            for slot, data in files.items()
        }

    def _operation(self, intent: Intent, workflow: Workflow, settings: Mapping[str, Any]) -> Operation:
        """What is kept of the edit. It cannot be replayed here, so it names all that it was made with."""
        steps = steps_of(intent)
        whole = any(step.scope == "whole" for step in steps)
        one = intent.target_entities[0] if len(intent.target_entities) == 1 else "image"
        kept = {name: settings[name] for name in ("seed", "denoise", "width", "height", "checkpoint")}
        return Operation(
            name="comfyui", target="image" if whole else one, parameters={"workflow": workflow.digest, **kept}
        )


def area_of(request: EditRequest) -> Mask:
    """Where the picture may change, 0..1: the targets of all steps, without what is protected, inside the region."""
    size = request.pixels.shape[:2]
    masks, parameters = request.masks, request.intent.parameters
    area = np.zeros(size, dtype=np.float32)
    for step in steps_of(request.intent):
        area = np.maximum(area, _area_of_step(step.scope, step.targets, masks, parameters.get("within"), size))
    for name in parameters.get("protect", []):
        area = area * (1 - masks[name]) if name in masks else area
    within = parameters.get("within")
    area = area * masks[within] if within is not None and within in masks else area
    if not area.any():
        raise InputError("Nothing is left that ComfyUI may change: protect less, or ask for another edit.")
    return np.asarray(area, dtype=np.float32)


def _area_of_step(scope: str, targets: tuple[str, ...], masks: Mapping[str, Mask], region: Any, size: Any) -> Mask:
    named = [masks[target] for target in targets if target in masks]
    if scope == "background":
        # The region lies over the others: it is no part of the picture to keep.
        kept = [mask for name, mask in masks.items() if name not in (*targets, region)]
        return np.asarray(1 - np.max(kept, axis=0) if kept else np.ones(size), dtype=np.float32)
    if scope == "whole" or not named:
        return np.ones(size, dtype=np.float32)
    return np.asarray(np.max(named, axis=0), dtype=np.float32)


def shrunk(pixels: Pixels, side: int) -> Pixels:
    """The copy that is sent: the longer side at most `side`, both sides multiples of eight."""
    height, width = pixels.shape[:2]
    scale = min(1.0, side / max(height, width))
    down, across = (max(_BLOCK, round(length * scale / _BLOCK) * _BLOCK) for length in (height, width))
    return np.asarray(cv2.resize(pixels, (across, down), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def laid_over(pixels: Pixels, sent: Pixels, made: Pixels, area: Mask, *, keep_detail: bool) -> Pixels:
    """The original with what was made laid over it where `area` says so.

    keep_detail: only the difference to what was sent is taken, so that the fine detail of the original stays.
    Raises InputError when the shape is another one: then nobody knows what belongs where.
    """
    height, width = pixels.shape[:2]
    if abs(made.shape[1] / made.shape[0] / (width / height) - 1) > _SAME_SHAPE:
        raise InputError(
            f"The workflow returned {made.shape[1]}x{made.shape[0]} pixels for a photo of {width}x{height}: it must "
            "keep the shape of the picture."
        )
    over = _enlarged(made, width, height)
    if keep_detail:
        over = pixels + over - _enlarged(sent, width, height)
    soft = area[..., None]
    mixed = pixels * (1 - soft) + np.clip(over, 0, 255) * soft
    return np.asarray(np.where(soft > 0, np.round(mixed), pixels), dtype=np.uint8)


def _enlarged(pixels: Pixels, width: int, height: int) -> Any:
    return cv2.resize(pixels.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)


def _tell_part(progress: Progress, handles: Mapping[str, Any], part: float, what: str) -> None:
    """Report what the job does as a part of what the editor does."""
    progress(0.05 + 0.85 * part, what, handles)


def _is_whole(data: bytes) -> bool:
    """Whether a picture can be decoded: a server that was killed may have left a part of one."""
    try:
        decode_photo(data)
    except InputError:
        return False
    return True
