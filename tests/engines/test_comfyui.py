"""The ComfyUI editor against a server that speaks its protocol, and that protocol against recorded traffic."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from starlette.responses import RedirectResponse, Response

from edi_storage.errors import EngineError, InputError, LeaseLostError, SessionGoneError
from edi_storage.models import EntityData, Intent, PromptRecord, SceneAnalysis
from flows.engines.backends import Backends
from flows.engines.base import EditRequest
from flows.engines.comfyui import ComfyUIEditor, laid_over, shrunk
from flows.engines.comfyui_jobs import Job, Jobs
from flows.engines.http import Server
from flows.engines.workflow import PACKAGED, load_workflow
from tests.engines.comfyui_server import STEPS, ComfyUI
from tests.engines.conftest import landscape
from tests.engines.servers import serving, unused_address

TRAFFIC = json.loads((Path(__file__).parent / "comfyui_traffic.json").read_text())
ID = "00000000-0000-4000-8000-00000000000"


@dataclass
class Comfy:
    """A server, and an editor for it."""

    server: ComfyUI
    backends: Backends

    @property
    def editor(self) -> ComfyUIEditor:
        return ComfyUIEditor(self.backends)

    def jobs(self, **arguments: Any) -> Jobs:
        return Jobs(Server("ComfyUI", "EDI_COMFYUI_URL", self.backends.comfyui_url), 60, **arguments)


@pytest.fixture
def comfy() -> Iterator[Comfy]:
    server = ComfyUI()
    with serving(server.application) as url:
        yield Comfy(
            server, Backends(comfyui_url=url, comfyui_checkpoint="photo.safetensors", comfyui_side=128, generative=True)
        )


def request(handles: Mapping[str, Any] | None = None, attempt: int = 1, **intent: Any) -> EditRequest:
    """Make the upper half of a small landscape darker."""
    sky = np.zeros((240, 320), np.float32)
    sky[:120] = 1
    entities = [EntityData(entity_id=name, label=name[:-2], confidence=0.9) for name in ("sky_0", "grass_0")]
    fields = {
        "edit_type": "style",
        "action": "dramatic_sky",
        "target_entities": ["sky_0"],
        "preserve_entities": ["grass_0"],
        "confidence": 0.9,
        **intent,
    }
    return EditRequest(
        pixels=landscape(),
        masks={"sky_0": sky, "grass_0": 1 - sky},
        scene=SceneAnalysis(entities=entities, spatial_layout="Sky over grass."),
        intent=Intent.model_validate(fields),
        prompt=PromptRecord(iteration=3, positive_prompt="a dark sky", negative_prompt="flat"),
        attempt=attempt,
        handles=handles or {},
    )


class Watch:
    """Collects what an engine reports; raises `error` at the first report that holds `text`."""

    def __init__(self, text: str = "", error: BaseException | None = None) -> None:
        self.told: list[tuple[float, str]] = []
        self.handles: Mapping[str, Any] = {}
        self._text, self._error = text, error

    def __call__(self, fraction: float, message: str, handles: Mapping[str, Any]) -> None:
        self.told.append((fraction, message))
        self.handles = handles or self.handles
        if self._error is not None and self._text in message:
            raise self._error


# --- The edit ----------------------------------------------------------------------------------------


def test_the_picture_changes_where_the_mask_is_and_nowhere_else(comfy: Comfy) -> None:
    editor, asked, watch = comfy.editor, request(), Watch()
    outcome = editor.edit(asked, watch)
    assert outcome.pixels.shape == asked.pixels.shape
    assert (outcome.pixels[120:] == asked.pixels[120:]).all()
    assert outcome.pixels[:110].mean() < 0.7 * asked.pixels[:110].mean()
    assert editor.name == "comfyui"
    assert editor.version == f"1 (ComfyUI 0.3.64, workflow {load_workflow(None).digest})"
    operation = outcome.operations[0]
    assert (operation.name, operation.target) == ("comfyui", "sky_0")
    assert operation.parameters["checkpoint"] == "photo.safetensors"
    assert len(comfy.server.executions) == 1


def test_the_same_request_makes_the_same_picture_with_the_same_seed(comfy: Comfy) -> None:
    one, two, other = (comfy.editor.edit(request(attempt=attempt)) for attempt in (1, 1, 2))
    assert (one.pixels == two.pixels).all()
    assert one.operations == two.operations
    assert other.operations[0].parameters["seed"] != one.operations[0].parameters["seed"]


def test_progress_comes_over_the_websocket_with_the_id_that_was_saved_before_the_job_was_sent(comfy: Comfy) -> None:
    class LetGo(Watch):
        def __call__(self, fraction: float, message: str, handles: Mapping[str, Any]) -> None:
            super().__call__(fraction, message, handles)
            if "step 2" in message:
                comfy.server.go_on()

    comfy.server.hold_at, watch = 2, LetGo()
    comfy.editor.edit(request(), watch)
    steps = [message for _, message in watch.told if "step" in message]
    assert f"ComfyUI works: step {STEPS} of {STEPS}" in steps
    assert not any("step 0" in message for message in steps)  # those are about another's job
    fractions = [fraction for fraction, _ in watch.told]
    assert fractions == sorted(fractions)
    assert watch.handles["comfyui"]["prompt_id"] == comfy.server.executions[0]
    assert watch.told[0][1] == "asking ComfyUI"
    assert comfy.server.requests.index("GET /queue") < comfy.server.requests.index("POST /prompt")


def test_without_a_websocket_it_works_by_asking(comfy: Comfy) -> None:
    comfy.server.application.router.routes.pop()  # the WebSocket
    assert comfy.editor.edit(request()).pixels.shape == (240, 320, 3)


def test_what_is_protected_stays_and_nothing_changes_outside_the_region(comfy: Comfy) -> None:
    region = np.zeros((240, 320), np.float32)
    region[:, :160] = 1
    asked = request(parameters={"within": "region", "protect": ["grass_0"], "scope": "whole"}, target_entities=[])
    asked = replace(asked, masks={**asked.masks, "region": region})
    edited = comfy.editor.edit(asked).pixels
    changed = (edited != asked.pixels).any(axis=2)
    assert changed[:110, :150].mean() > 0.9
    assert not changed[120:].any()
    assert not changed[:, 160:].any()


def test_a_colour_edit_keeps_the_fine_detail_that_is_lost_in_what_is_sent() -> None:
    random = np.random.default_rng(5)
    pixels = random.integers(60, 200, (256, 256, 3)).astype(np.uint8)
    sent = shrunk(pixels, 64)
    area = np.ones((256, 256), np.float32)
    made = np.clip(sent.astype(int) + 20, 0, 255).astype(np.uint8)
    kept, lost = (laid_over(pixels, sent, made, area, keep_detail=keep) for keep in (True, False))
    assert abs(kept.astype(int) - pixels - 20).max() <= 1
    assert lost.std() < 0.6 * kept.std()


# --- A crash on our side -----------------------------------------------------------------------------


def interrupted(comfy: Comfy, error: BaseException) -> Mapping[str, Any]:
    """Start an edit that ends by `error` while its job is held. Returns the handles that were saved."""
    comfy.server.hold_at = 3
    watch = Watch("step 3", error)
    with pytest.raises(type(error)):
        comfy.editor.edit(request(), watch)
    return watch.handles


def test_a_running_job_is_taken_up_again_and_costs_one_execution(comfy: Comfy) -> None:
    handles = interrupted(comfy, LeaseLostError())  # as little as a kill leaves: the job runs on
    comfy.server.go_on()
    outcome = comfy.editor.edit(request(handles))
    assert outcome.pixels[:110].mean() < 0.7 * request().pixels[:110].mean()
    assert comfy.server.executions == [handles["comfyui"]["prompt_id"]]
    assert comfy.server.requests.count("POST /prompt") == 1


def test_a_job_that_ended_meanwhile_is_only_fetched(comfy: Comfy) -> None:
    handles = interrupted(comfy, LeaseLostError())
    comfy.server.go_on()
    job = Job(handles["comfyui"]["prompt_id"], handles["comfyui"]["client_id"])
    comfy.jobs().follow(job, 10, lambda *_: None)
    sent = len(comfy.server.requests)
    comfy.editor.edit(request(handles))
    assert "POST /upload/image" not in comfy.server.requests[sent:]
    assert len(comfy.server.executions) == 1


def test_a_job_that_a_restarted_server_has_forgotten_is_found_by_its_picture(comfy: Comfy) -> None:
    watch = Watch()
    first = comfy.editor.edit(request(), watch)
    comfy.server.restart()
    again = comfy.editor.edit(request(watch.handles))
    assert (again.pixels == first.pixels).all()
    assert len(comfy.server.executions) == 1


def test_half_a_picture_of_a_killed_server_is_not_taken_for_one(comfy: Comfy) -> None:
    watch = Watch()
    comfy.editor.edit(request(), watch)
    comfy.server.restart()
    name = next(iter(comfy.server.outputs))
    comfy.server.outputs[name] = comfy.server.outputs[name][:200]
    comfy.server._cached.clear()
    comfy.editor.edit(request(watch.handles))
    assert len(comfy.server.executions) == 2


def test_a_failed_job_is_not_taken_up_again(comfy: Comfy) -> None:
    comfy.server.fail = True
    watch = Watch()
    with pytest.raises(EngineError, match=r"failed at node 8 \(KSampler\): RuntimeError: not enough memory"):
        comfy.editor.edit(request(), watch)
    comfy.server.fail = False
    comfy.editor.edit(request(watch.handles))
    assert len(set(comfy.server.executions)) == 2


def test_a_job_at_another_address_is_none_of_this_server(comfy: Comfy) -> None:
    handles = {"comfyui": {"prompt_id": ID + "1", "client_id": ID + "2", "url": "http://other:8188"}}
    comfy.editor.edit(request(handles))
    assert comfy.server.executions != [ID + "1"]


@pytest.mark.parametrize("saved", [None, [], {"prompt_id": "../../queue"}, {"prompt_id": 7, "client_id": None}])
def test_a_damaged_handle_is_no_reason_to_fail(comfy: Comfy, saved: Any) -> None:
    handle = {**saved, "url": comfy.backends.comfyui_url} if isinstance(saved, dict) else saved
    assert comfy.editor.edit(request({"comfyui": handle})).operations


# --- Calling off -------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), SessionGoneError()])
def test_a_cancelled_edit_interrupts_its_job(comfy: Comfy, error: BaseException) -> None:
    handles = interrupted(comfy, error)
    job = Job(handles["comfyui"]["prompt_id"], handles["comfyui"]["client_id"])
    found = comfy.jobs().follow(job, 10, lambda *_: None)
    assert found.where == "failed"
    with pytest.raises(InputError, match="was interrupted in ComfyUI"):
        comfy.jobs().picture(found)


def test_a_lost_lease_leaves_the_job_to_whoever_took_over(comfy: Comfy) -> None:
    interrupted(comfy, LeaseLostError())
    assert "POST /interrupt" not in comfy.server.requests


def test_a_cancelled_edit_leaves_the_queue_without_disturbing_the_job_before_it(comfy: Comfy) -> None:
    comfy.server.hold_at = 2
    first = threading.Thread(target=comfy.editor.edit, args=(request(),), daemon=True)
    first.start()
    comfy.server.wait_until_held()
    with pytest.raises(KeyboardInterrupt):
        comfy.editor.edit(request(attempt=2), Watch("queue, 1 before it", KeyboardInterrupt()))
    assert comfy.server.pending == []
    assert "POST /interrupt" not in comfy.server.requests
    comfy.server.go_on()
    first.join(20)
    assert not first.is_alive()
    assert len(comfy.server.executions) == 1


def test_a_job_that_runs_too_long_is_called_off(comfy: Comfy) -> None:
    comfy.server.hold_at = 2
    times = iter(range(0, 10_000, 50))
    jobs = comfy.jobs(clock=lambda: float(next(times)))
    with pytest.raises(InputError, match="more than 60 s and was called off: raise EDI_COMFYUI_SECONDS"):
        ComfyUIEditor(comfy.backends, jobs).edit(request())
    assert "POST /interrupt" in comfy.server.requests


# --- What can be wrong -------------------------------------------------------------------------------


def test_nothing_is_contacted_unless_it_is_configured() -> None:
    with pytest.raises(InputError, match="EDI_COMFYUI_URL is not set"):
        ComfyUIEditor(Backends()).edit(request())


def test_a_server_that_is_not_there_may_come_back() -> None:
    with pytest.raises(EngineError, match=r"does not answer.*check EDI_COMFYUI_URL"):
        ComfyUIEditor(Backends(comfyui_url=unused_address())).edit(request())


def test_a_model_that_is_missing_is_named_with_those_that_are_there(comfy: Comfy) -> None:
    with pytest.raises(InputError, match=r"EDI_COMFYUI_CHECKPOINT is not set.*\(photo.safetensors\)"):
        ComfyUIEditor(replace(comfy.backends, comfyui_checkpoint="")).edit(request())
    with pytest.raises(InputError, match=r"refuses.*node 1 \(CheckpointLoaderSimple\).*'none' not in"):
        ComfyUIEditor(replace(comfy.backends, comfyui_checkpoint="none")).edit(request())


def test_a_redirect_is_not_followed(comfy: Comfy) -> None:
    comfy.server.refuse = lambda: RedirectResponse("http://127.0.0.1:9/prompt")
    with pytest.raises(EngineError, match="sends us elsewhere"):
        comfy.editor.edit(request())


def test_a_server_error_may_pass_and_says_what_the_server_said(comfy: Comfy) -> None:
    comfy.server.refuse = lambda: Response("Server got itself in trouble", status_code=500)
    with pytest.raises(EngineError, match="says 500 to /prompt: Server got itself in trouble"):
        comfy.editor.edit(request())


def test_a_server_that_forgets_a_running_job_is_told_of_as_such(comfy: Comfy) -> None:
    comfy.server.hold_at = 3

    class Restart(Watch):
        def __call__(self, fraction: float, message: str, handles: Mapping[str, Any]) -> None:
            if "step 3" in message:
                comfy.server.restart()

    with pytest.raises(EngineError, match="has forgotten the job"):
        comfy.editor.edit(request(), Restart())


def test_something_else_at_the_address_is_no_comfyui() -> None:
    async def page(scope: Any, receive: Any, send: Any) -> None:
        await Response("<html>hello</html>")(scope, receive, send)

    with serving(page) as url, pytest.raises(InputError, match="is no ComfyUI: check EDI_COMFYUI_URL"):
        ComfyUIEditor(Backends(comfyui_url=url)).edit(request())


def own_workflow(tmp_path: Path, **changes: Any) -> Path:
    nodes = json.loads(PACKAGED.read_text()) | changes
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({name: node for name, node in nodes.items() if node}))
    return path


def test_a_workflow_without_a_picture_at_its_end_is_told_of(comfy: Comfy, tmp_path: Path) -> None:
    path = own_workflow(tmp_path, **{"10": {"class_type": "PreviewAny", "inputs": {"source": ["9", 0]}}})
    with pytest.raises(InputError, match="ended without a picture: it needs a SaveImage node"):
        ComfyUIEditor(replace(comfy.backends, comfyui_workflow=path)).edit(request())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("not json", "is not JSON"),
        ("[]", "is no workflow"),
        ("{}", "is no workflow"),
        ('{"1": {"class_type": "LoadImage"}}', "is no workflow"),
        ('{"nodes": [], "links": []}', "export it in the API format"),
        ('{"1": {"class_type": "SaveImage", "inputs": {}}}', "has no slot {{image}}"),
        ('{"1": {"class_type": "X", "inputs": {"a": "{{image}}", "b": "{{sede}}"}}}', "slot {{sede}} that EDI"),
        ("[" * 5000, "is not JSON"),
    ],
)
def test_a_workflow_that_cannot_work_is_refused_in_one_sentence(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(InputError) as refused:
        load_workflow(path)
    assert reason in str(refused.value)
    assert "mine.json" in str(refused.value)


def test_a_missing_workflow_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"EDI_COMFYUI_WORKFLOW .*none.json. cannot be read"):
        load_workflow(tmp_path / "none.json")


def test_a_slot_takes_its_own_type_and_a_text_around_it_stays(tmp_path: Path) -> None:
    node = {"class_type": "Note", "inputs": {"text": "please: {{positive}}!", "n": "{{seed}}", "l": [["{{ width }}"]]}}
    workflow = load_workflow(own_workflow(tmp_path, **{"11": node}))
    values: dict[str, str | int | float] = dict.fromkeys(workflow.slots, 7) | {"positive": 'a "quoted" {{seed}}'}
    assert workflow.filled(values)["11"]["inputs"] == {"text": 'please: a "quoted" {{seed}}!', "n": 7, "l": [[7]]}


def test_a_picture_of_another_shape_is_refused() -> None:
    pixels, made = landscape(), np.zeros((128, 128, 3), np.uint8)
    with pytest.raises(InputError, match="returned 128x128 pixels for a photo of 320x240"):
        laid_over(pixels, shrunk(pixels, 128), made, np.ones((240, 320), np.float32), keep_detail=False)


# --- The server of these tests, against the real one -------------------------------------------------


def shape(value: Any) -> Any:
    """What a document is made of, without its values; ids and numbers of nodes as such."""
    if isinstance(value, dict):
        return {"*" if len(key) == 36 or key.isdigit() else key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value[:1]]
    return type(value).__name__


def recorded(path: str, method: str = "GET", status: int = 200) -> list[Any]:
    """The bodies that the real server gave to such requests, the empty ones left out."""
    exchanges = [e for e in TRAFFIC if "request" in e and e["status"] == status]
    return [
        e["body"]
        for e in exchanges
        if e["request"]["method"] == method and e["request"]["path"].startswith(path) and e["body"]
    ]


def test_the_server_of_these_tests_answers_as_the_real_one_did(comfy: Comfy) -> None:
    url = comfy.backends.comfyui_url
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48)).save(buffer, "PNG")
    upload = httpx.post(f"{url}/upload/image", files={"image": ("a.png", buffer.getvalue())}, data={"subfolder": "edi"})
    assert shape(upload.json()) == shape(recorded("/upload", "POST")[0])
    assert httpx.get(f"{url}/history/{ID}1").json() == {}
    assert httpx.get(f"{url}/view", params={"filename": "none.png", "subfolder": "edi"}).status_code == 404
    unknown = {"prompt": {"1": {"class_type": "NoSuch", "inputs": {}}}, "client_id": "c", "prompt_id": ID + "2"}
    refused = httpx.post(f"{url}/prompt", json=unknown)
    assert (refused.status_code, refused.json()) == (400, recorded("/prompt", "POST", 400)[0])
    missing = {"1": {"class_type": "LoadImage", "inputs": {"image": "edi/none.png"}}}
    missing["3"] = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}}  # type: ignore[dict-item]
    wrong = httpx.post(f"{url}/prompt", json={"prompt": missing, "client_id": "c", "prompt_id": ID + "3"}).json()
    real = recorded("/prompt", "POST", 400)[1]
    assert wrong["error"] == real["error"]
    assert wrong["node_errors"]["1"]["errors"][0]["details"] == real["node_errors"]["1"]["errors"][0]["details"]


def test_queue_and_history_are_as_the_real_ones(comfy: Comfy) -> None:
    handles = interrupted(comfy, LeaseLostError())
    name = handles["comfyui"]["prompt_id"]
    running = httpx.get(f"{comfy.backends.comfyui_url}/queue").json()["queue_running"][0]
    real = next(body["queue_running"][0] for body in recorded("/queue") if body["queue_running"])
    assert [type(part) for part in running] == [type(part) for part in real]
    assert running[1] == name
    comfy.server.go_on()
    comfy.editor.edit(request(handles))
    entry = httpx.get(f"{comfy.backends.comfyui_url}/history/{name}").json()[name]
    done = next(iter(recorded("/history")[0].values()))
    assert entry.keys() == done.keys()
    assert shape(entry["outputs"]) == shape(done["outputs"])
    assert entry["status"].keys() == done["status"].keys()
    assert [kind for kind, _ in entry["status"]["messages"]] == [kind for kind, _ in done["status"]["messages"]]


def test_what_the_real_server_said_of_its_failures_is_understood() -> None:
    jobs = Jobs(Server("ComfyUI", "EDI_COMFYUI_URL", ""), 1)
    entries = [next(iter(body.values())) for body in recorded("/history")]
    failed = [entry for entry in entries if entry["status"]["status_str"] == "error"]
    from flows.engines.comfyui_jobs import Found

    with pytest.raises(EngineError, match=r"failed at node 2 \(SlowPass\): RuntimeError: out of memory"):
        jobs.picture(Found("failed", failed[0]))
    with pytest.raises(InputError, match="was interrupted"):
        jobs.picture(Found("failed", failed[1]))
