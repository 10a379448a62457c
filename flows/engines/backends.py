"""What engines outside of this process need to know. Engines see no settings: the flows hand them this."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Backends:
    """Addresses, models and patience. Empty: not configured, and never contacted."""

    #: Whether the editor may paint what is not in the photo.
    generative: bool = False
    comfyui_url: str = ""
    comfyui_workflow: Path | None = None
    comfyui_checkpoint: str = ""
    #: Pixels of the longer side of what is sent.
    comfyui_side: int = 1024
    #: Seconds that a job may run.
    comfyui_seconds: float = 900.0
    chat_url: str = ""
    chat_model: str = ""
    chat_key: str = field(default="", repr=False)
    #: Seconds that an answer may take.
    chat_seconds: float = 60.0
    sam_model: Path | None = None
    grounding_model: Path | None = None
