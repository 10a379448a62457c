"""The calls of the three usage examples in the document that EDI grew from, unchanged, in a new folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.sqlite_file("the seed's script makes SQLite files")

MODELS = """
from edi_storage import SessionData, SessionState
data = SessionData(
    session_id="session-123", image_path="/path/to/image.jpg", naive_prompt="make sky dramatic", status="in_progress"
)
print("Session data validated:", data.model_dump())
state = SessionState.model_validate_json('''
{
    "session_id": "session-456", "current_stage": "refinement", "image_path": "/path/to/image2.jpg",
    "naive_prompt": "enhance lighting",
    "scene_analysis": {"entities": [], "spatial_layout": "..."},
    "intent": {"target_entities": ["sky_0"], "edit_type": "style", "confidence": 0.85},
    "prompts": {"iteration_0": {"positive": "...", "negative": "..."}},
    "edited_image_path": "/path/to/edited_image2.jpg",
    "validation": {"score": 0.87, "delta": {}}
}''')
print("Session state loaded and validated:", state.model_dump())
"""

DATABASE = """
from edi_storage import EDIDatabase
db = EDIDatabase()
session_data = {
    'id': 'session-789', 'image_path': '/path/to/image3.jpg', 'naive_prompt': 'change background color',
    'status': 'in_progress'
}
session_id = db.save_session(session_data)
print(f"Saved session with ID: {session_id}")
retrieved = db.get_session(session_id)
print(f"Retrieved session: {retrieved}")
prompts = [
    {'iteration': 0, 'positive_prompt': 'change background to blue',
     'negative_prompt': 'keep foreground unchanged', 'quality_score': 0.85},
    {'iteration': 1, 'positive_prompt': 'change background to bright blue',
     'negative_prompt': 'keep foreground unchanged', 'quality_score': 0.92},
]
db.save_prompt_history(session_id, prompts)
print(f"Retrieved prompts: {db.get_prompt_history(session_id)}")
db.save_session_state({'session_id': 'session-789', 'current_stage': 'upload', 'image_path': 'x', 'naive_prompt': 'y'},
                      'state.json')
print(db.load_session_state('state.json')['current_stage'], db.load_session_state('missing.json'))
db.init_db()
"""

STATE = """
from edi_storage import SessionStateManager
manager = SessionStateManager()
state = {
    "session_id": "session-json-123", "current_stage": "refinement", "image_path": "/path/to/image.jpg",
    "naive_prompt": "make sky dramatic",
    "scene_analysis": {
        "entities": [{"id": "sky_0", "label": "sky", "confidence": 0.95},
                     {"id": "mountain_1", "label": "mountain", "confidence": 0.87}],
        "spatial_layout": "sky occupies top half, mountains at horizon"
    },
    "intent": {"target_entities": ["sky_0"], "edit_type": "style", "confidence": 0.85},
    "prompts": {"iteration_0": {"positive": "dramatic sky with storm clouds",
                                "negative": "clear blue sky, no clouds"}},
    "edited_image_path": None, "validation": {}
}
path = manager.save_session_state("session-json-123", state)
print(f"Session state saved to: {path}")
print(f"Session stage: {manager.load_session_state('session-json-123').get('current_stage')}")
manager.update_session_state("session-json-123", {"edited_image_path": "/path/to/edited_image.jpg",
                                                  "validation": {"score": 0.87}})
print(manager.load_session_state("session-json-123")["validation"]["score"])
saver = manager.auto_save_state("session-json-123", state, interval_seconds=1)
saver.stop()
"""


def run(script: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_models_example(tmp_path: Path) -> None:
    printed = run(MODELS, tmp_path)
    assert "'session_id': 'session-123'" in printed
    assert "'edit_type': 'style'" in printed


def test_the_database_example_can_be_run_twice(tmp_path: Path) -> None:
    for _ in range(2):
        printed = run(DATABASE, tmp_path)
        assert "Saved session with ID: session-789" in printed
        assert printed.count("quality_score=") == 2
        assert printed.splitlines()[-1] == "upload {}"
    assert (tmp_path / "edi_sessions.db").exists()


def test_the_state_example(tmp_path: Path) -> None:
    printed = run(STATE, tmp_path)
    assert "Session stage: refinement" in printed
    assert printed.splitlines()[-1] == "0.87"
    saved = json.loads((tmp_path / "sessions" / "session-json-123.json").read_text())
    assert saved["scene_analysis"]["entities"][1]["label"] == "mountain"
