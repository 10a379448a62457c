"""Engines outside of this process, in whole edits: a kill that costs nothing twice, and what happens without them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edi_storage.errors import EdiError, EngineError
from edi_storage.models import SessionHistory
from edi_storage.settings import load_settings
from edi_storage.store import open_store
from flows.album import Album
from flows.engines.comfyui_jobs import Found, Jobs
from flows.engines.editing import EmbeddedEditor
from flows.engines.reasoning import EmbeddedReasoner
from flows.markdown import session_page
from tests import homes
from tests.engines.chat_server import GOOD, MODEL, Chat
from tests.engines.comfyui_server import ComfyUI
from tests.engines.servers import serving, unused_address
from tests.flows.conftest import PALACE, Edi

DARKER = ("edit", str(PALACE), "make the sky darker", "--session-id", "mine", "--attempts", "1")


@pytest.fixture
def comfy(edi: Edi) -> Iterator[ComfyUI]:
    server = ComfyUI()
    with serving(server.application) as url:
        edi.environment = {
            **edi.environment,
            "EDI_EDITOR": "comfyui",
            "EDI_COMFYUI_URL": url,
            "EDI_COMFYUI_CHECKPOINT": "photo.safetensors",
            "EDI_COMFYUI_SIDE": "256",
        }
        yield server


@contextmanager
def started(edi: Edi, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The `edi` command, running; it is killed at the end of the block if it has not ended."""
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *arguments],
        env={**os.environ, **homes.environment(edi.home), **edi.environment},
        cwd=PALACE.parents[2],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def killed_half_way(edi: Edi, comfy: ComfyUI) -> None:
    """Start the edit, and kill it the hard way while its job is at work."""
    comfy.hold_at = 3
    with started(edi, *DARKER):
        comfy.wait_until_held()


def engines_of(edi: Edi, session_id: str) -> dict[str, list[str]]:
    """Which engine did each stage, with its version."""
    commits = edi.json("show", session_id)["stage_commits"]
    return {commit["stage"]: [commit["engine"], commit["engine_version"]] for commit in commits}


# --- One execution, not two --------------------------------------------------------------------------


def test_a_job_that_runs_on_after_a_kill_is_taken_up_again(edi: Edi, comfy: ComfyUI) -> None:
    killed_half_way(edi, comfy)
    assert len(comfy.running) == 1
    comfy.go_on()
    resumed = edi.json("resume", "mine")
    assert resumed["status"] == "completed"
    assert "edit" not in resumed["restored_stages"]
    assert len(comfy.history) == 1
    assert comfy.executions == list(comfy.history)
    assert comfy.requests.count("POST /prompt") == 1
    engine, version = engines_of(edi, "mine")["edit"]
    assert engine == "comfyui"
    assert version.startswith("1 (ComfyUI 0.3.64, workflow ")
    assert resumed["warnings"] == []


def test_two_kills_and_still_one_execution(edi: Edi, comfy: ComfyUI) -> None:
    killed_half_way(edi, comfy)
    looks = comfy.requests.count("GET /queue")
    with started(edi, "resume", "mine"):
        comfy.wait_for(lambda: comfy.requests.count("GET /queue") > looks + 1)
    comfy.go_on()
    assert edi.json("resume", "mine")["status"] == "completed"
    assert len(comfy.executions) == len(comfy.history) == 1


def test_ctrl_c_calls_the_job_off(edi: Edi, comfy: ComfyUI) -> None:
    comfy.hold_at = 3
    with started(edi, *DARKER) as process:
        comfy.wait_until_held()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    (entry,) = comfy.history.values()
    assert entry["status"]["messages"][-1][0] == "execution_interrupted"
    comfy.go_on()
    assert edi.json("resume", "mine")["status"] == "completed"
    assert len(comfy.executions) == 2  # nobody wanted the first one any more


# --- Fallback, in this process -----------------------------------------------------------------------


@dataclass
class Here:
    """A home in this process, with its settings in the environment."""

    set: Callable[[str, str], None]
    photo: str
    home: Path

    def edit(self, prompt: str = "make the sky darker") -> dict[str, Any]:
        from flows.edit import edit_image

        result: dict[str, Any] = edit_image(image_path=self.photo, prompt=prompt, session_id="mine", max_attempts=1)
        return result

    def history(self) -> SessionHistory:
        with open_store(load_settings()) as store:
            return store.database.load_session("mine")

    def engines(self) -> dict[str, tuple[str, str]]:
        """Which engine did each stage, with its version."""
        return {commit.stage: (commit.engine, commit.engine_version) for commit in self.history().commits}


@pytest.fixture
def here(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> Here:
    photo = tmp_path / "small.png"
    with Image.open(PALACE) as palace:
        palace.resize((240, 160)).save(photo)
    homes.enter(monkeypatch, tmp_path / "home")
    return Here(monkeypatch.setenv, str(photo), tmp_path / "home")


@pytest.fixture
def chat(here: Here) -> Iterator[Chat]:
    server = Chat()
    with serving(server.application) as url:
        here.set("EDI_CHAT_URL", url)
        here.set("EDI_CHAT_MODEL", MODEL)
        here.set("EDI_CHAT_SECONDS", "20")
        here.set("EDI_REASONER", "ollama,embedded")
        yield server


def test_without_its_comfyui_the_embedded_editor_takes_over_with_a_warning(
    here: Here,
) -> None:
    address = unused_address()
    here.set("EDI_EDITOR", "comfyui, embedded")
    here.set("EDI_COMFYUI_URL", address)
    result = here.edit()
    assert result["status"] == "completed"
    assert here.engines()["edit"] == ("embedded", EmbeddedEditor.version)
    (warning,) = result["warnings"]
    assert warning.startswith(f"embedded was used instead of comfyui: ComfyUI at {address} does not answer")
    page = session_page(here.history(), Album(None, None, {}), str)
    assert "Warning: embedded was used instead of comfyui" in page


def test_what_the_embedded_editor_cannot_do_goes_to_the_next_one(here: Here) -> None:
    comfy = ComfyUI()
    with serving(comfy.application) as url:
        here.set("EDI_EDITOR", "embedded,comfyui")
        here.set("EDI_COMFYUI_URL", url)
        here.set("EDI_COMFYUI_CHECKPOINT", "photo.safetensors")
        result = here.edit("add a dragon to the sky")
    assert result["status"] == "completed"
    assert here.engines()["edit"][0] == "comfyui"
    assert result["warnings"][0].startswith("comfyui was used instead of embedded")
    assert result["prompts"][-1]["positive_prompt"].startswith("add a dragon to the sky; ")


def test_a_stage_that_is_tried_again_in_this_process_takes_up_its_job(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import stages

    monkeypatch.setitem(stages.STAGES, "edit", stages.edit.with_options(retry_delay_seconds=0))
    real, failures = Jobs.picture, iter([EngineError("the connection was cut")])

    def cut(jobs: Jobs, found: Found) -> bytes:
        for failure in failures:
            raise failure
        return real(jobs, found)

    monkeypatch.setattr(Jobs, "picture", cut)
    comfy = ComfyUI()
    with serving(comfy.application) as url:
        here.set("EDI_EDITOR", "comfyui")
        here.set("EDI_COMFYUI_URL", url)
        here.set("EDI_COMFYUI_CHECKPOINT", "photo.safetensors")
        assert here.edit()["status"] == "completed"
    assert len(comfy.executions) == 1
    assert comfy.requests.count("POST /prompt") == 1


TROUBLE = {
    "down": "Ollama at http://127.0.0.1:9 does not answer",
    "model missing": "has no model nothing",
    "invalid JSON": "no usable answer",
    "out of range": "confidence is not right",
}


def in_trouble(here: Here, chat: Chat, trouble: str) -> None:
    if trouble == "down":
        here.set("EDI_CHAT_URL", "http://127.0.0.1:9")
    if trouble == "model missing":
        here.set("EDI_CHAT_MODEL", "nothing")
    if trouble == "invalid JSON":
        chat.answers("darker it shall be")
    if trouble == "out of range":
        chat.answers(json.dumps({**GOOD, "confidence": 2.429}))


@pytest.mark.parametrize("trouble", TROUBLE)
def test_without_its_model_the_embedded_reasoner_takes_over_with_a_warning(
    here: Here, chat: Chat, trouble: str
) -> None:
    in_trouble(here, chat, trouble)
    result = here.edit()
    assert result["status"] == "completed"
    engines = here.engines()
    assert engines["intent"] == engines["refinement"] == ("embedded", EmbeddedReasoner.version)
    (warning,) = result["warnings"]
    assert warning.startswith("embedded was used instead of ollama: ")
    assert TROUBLE[trouble] in warning
    assert len(chat.asked) <= 2  # what has failed is not asked again at every stage


@pytest.mark.parametrize("trouble", TROUBLE)
def test_with_the_fallback_off_it_ends_in_one_sentence(
    here: Here, chat: Chat, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import stages

    monkeypatch.setitem(stages.STAGES, "intent", stages.intent.with_options(retry_delay_seconds=0))
    in_trouble(here, chat, trouble)
    here.set("EDI_REASONER", "ollama")
    with pytest.raises(EdiError) as failed:
        here.edit()
    assert TROUBLE[trouble] in str(failed.value)
    assert len(str(failed.value).splitlines()) == 1
    # What may pass is left to be resumed, what will not is not.
    assert here.history().session.status == ("in_progress" if trouble == "down" else "failed")


def test_a_model_that_works_does_intent_and_refinement(here: Here, chat: Chat) -> None:
    result = here.edit()
    engines = here.engines()
    assert engines["intent"] == engines["refinement"] == ("ollama", f"1 ({MODEL})")
    assert result["warnings"] == []
    assert result["prompts"][0]["positive_prompt"] == "the sky darker; keep the building"


# --- What is asked of a person's settings ------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EDI_COMFYUI_URL", "file:///etc/passwd"),
        ("EDI_COMFYUI_URL", "127.0.0.1:8188"),
        ("EDI_CHAT_URL", "http://me:hush@127.0.0.1:11434"),
        ("EDI_CHAT_URL", "http://127.0.0.1:x"),
        ("EDI_CHAT_URL", "ftp://127.0.0.1"),
        ("EDI_CHAT_KEY", "hüsh"),
        ("EDI_CHAT_SECONDS", "0"),
        ("EDI_COMFYUI_SIDE", "1"),
    ],
)
def test_a_setting_that_cannot_be_is_named_and_not_repeated(tmp_path: Path, name: str, value: str) -> None:
    edi = Edi(tmp_path / "home", {name: value})
    refused = edi("sessions", expect=2).stderr
    assert refused.startswith(f"{name} is ") or f"{name} is " in refused
    assert "hush" not in refused
    assert len(refused.strip().splitlines()) == 1


def test_an_engine_that_does_not_exist_is_named_before_anything_is_done(tmp_path: Path) -> None:
    edi = Edi(tmp_path / "home", {"EDI_EDITOR": "comfyui,magic", "PREFECT_API_URL": "http://127.0.0.1:9/api"})
    assert "EDI_EDITOR is 'comfyui,magic'" in edi(*DARKER, expect=2).stderr
    assert edi.json("sessions") == []


def test_a_key_is_not_shown(tmp_path: Path) -> None:
    shown = Edi(tmp_path / "home", {"EDI_CHAT_KEY": "hush"})("config", "--json").stdout
    assert "hush" not in shown


def test_help_imports_no_backend() -> None:
    code = (
        "import sys; sys.argv = ['edi', '--help']\n"
        "from flows.cli import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "print([n for n in ('httpx', 'websockets', 'torch', 'transformers', 'cv2', 'prefect') if n in sys.modules])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PALACE.parents[2]
    )
    assert shown.stdout.strip().endswith("[]")


# --- Doctor ------------------------------------------------------------------------------------------


def looks(edi: Edi, expect: int = 0) -> dict[str, tuple[bool, str]]:
    """What `edi doctor` says of each engine that is not embedded."""
    said = edi.json("doctor", expect=expect)["engines"]
    assert {look["setting"] for look in said} == {"EDI_ANALYZER", "EDI_REASONER", "EDI_EDITOR", "EDI_VALIDATOR"}
    assert all(look["ok"] for look in said if look["engine"] == "embedded")
    return {look["engine"]: (look["ok"], look["message"]) for look in said if look["engine"] != "embedded"}


def test_doctor_looks_at_what_is_configured_and_contacts_nothing_else(tmp_path: Path) -> None:
    comfy, chat = ComfyUI(), Chat()
    with serving(comfy.application) as comfy_url, serving(chat.application) as chat_url:
        addresses = {"EDI_COMFYUI_URL": comfy_url, "EDI_CHAT_URL": chat_url, "EDI_CHAT_MODEL": MODEL}
        edi = Edi(tmp_path / "home", addresses)
        assert looks(edi) == {}
        assert comfy.requests == []
        engines = {"EDI_EDITOR": "comfyui,embedded", "EDI_REASONER": "openai", "EDI_ANALYZER": "sam,embedded"}
        edi.environment = {**addresses, **engines, "EDI_COMFYUI_CHECKPOINT": "photo.safetensors"}
        said = looks(edi, expect=1)
        assert said["comfyui"][0]
        assert said["comfyui"][1].startswith(f"ComfyUI 0.3.64 answers at {comfy_url}")
        assert said["openai"] == (True, f"The server at {chat_url} has the model {MODEL}.")
        assert not said["sam"][0]
        assert comfy.requests == ["GET /system_stats", "GET /object_info/CheckpointLoaderSimple"]


def test_doctor_says_what_is_wrong_in_one_line_each(tmp_path: Path) -> None:
    chat = Chat()
    with serving(chat.application) as url:
        engines = {"EDI_EDITOR": "comfyui", "EDI_REASONER": "ollama,embedded", "EDI_VALIDATOR": "magic"}
        edi = Edi(tmp_path / "home", {**engines, "EDI_CHAT_URL": url, "EDI_CHAT_MODEL": "nothing"})
        lines = edi("doctor", expect=1).stdout.strip().splitlines()
    assert len(lines) == 5
    assert (
        f"EDI_REASONER ollama: not well. The server at {url} has no model nothing; it has: tiny:latest, tiny." in lines
    )
    assert "EDI_EDITOR comfyui: not well. EDI_COMFYUI_URL is not set: say where ComfyUI is." in lines
    assert any(line.startswith("EDI_VALIDATOR magic: not well. EDI_VALIDATOR is 'magic'") for line in lines)
