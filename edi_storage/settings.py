"""Settings from the environment, prefix `EDI_`. Read at the edges only (command line, flows), then passed on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from edi_storage.errors import InputError
from edi_storage.models import Consent


def _home() -> Path:
    return Path("~/.edi")


def _server_url(value: str) -> str:
    """An http(s) address without its last slash. No password in it: addresses are shown, keys are not."""
    if not value:
        return value
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("it must be the address of a server, such as http://127.0.0.1:8188")
    if parts.username or parts.password:
        raise ValueError("it must not hold a user or a password")
    _ = parts.port  # raises ValueError when it is none
    return value.rstrip("/")


TaskRunnerName = Literal["threads", "processes", "dask", "ray"]

ServerUrl = Annotated[str, AfterValidator(_server_url)]

#: Settings whose value is not repeated when it is wrong: it may hold a password.
_NEVER_SHOWN = ("EDI_AUTH_STRING", "EDI_CHAT_KEY", "EDI_CHAT_URL", "EDI_COMFYUI_URL")


class Settings(BaseSettings):
    """Where things are and how patient EDI is. Every field can be set as EDI_<FIELD>."""

    model_config = SettingsConfigDict(env_prefix="EDI_", env_ignore_empty=True, frozen=True)

    home: Path = Field(default_factory=_home, description="Folder for everything EDI keeps")
    database_url: str = Field("", description="SQLAlchemy URL; by default a SQLite file in EDI_HOME")
    storage_url: str = Field("", description="Folder or fsspec URL of checkpoints, masks and edited pictures")
    allowed_schemes: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="URL schemes that EDI_STORAGE_URL may use beside a folder, with commas between: s3"
    )
    auth_string: SecretStr = Field(
        SecretStr(""), description="user:password that `edi serve` asks for; without it, it serves this machine only"
    )
    autosave_seconds: Annotated[float, Field(gt=0, le=3600)] = Field(
        5.0, description="Seconds between autosaves of a stage, at most 3600"
    )
    lease_seconds: Annotated[float, Field(ge=2, le=86_400)] = Field(
        30.0,
        description="Seconds without a sign of life, 2 to 86400, after which another process may take a session over",
    )
    max_attempts: Annotated[int, Field(ge=1, le=3)] = Field(3, description="Edits tried before the best one is kept")
    max_recovery_attempts: Annotated[int, Field(ge=1)] = Field(
        5, description="Resumes without progress before a session ends as failed"
    )
    resume_seconds: Annotated[float, Field(ge=10, le=86_400)] = Field(
        60.0, description="Seconds between two looks of `edi serve` for interrupted sessions, 10 to 86400"
    )
    review: Literal["auto", "unsure", "ask"] = Field(
        "unsure",
        description="auto: decide by score; unsure: ask a person, if there is one, at 0.6-0.8; ask: always ask",
    )
    review_hours: Annotated[float, Field(gt=0, le=8760)] = Field(
        72.0,
        description="Hours that an answer is waited for, at most 8760; `edi serve` then does as EDI_UNANSWERED says",
    )
    unanswered: Literal["keep", "fail"] = Field(
        "keep", description="keep: go on with the likeliest choice and the best attempt; fail: end the session"
    )
    task_runner: TaskRunnerName = Field(
        "threads", description="What runs the photos of a batch: threads, processes, dask or ray"
    )
    learning: Literal["on", "off"] = Field(
        "on", description="off: every edit is done as if nothing had been learned from feedback"
    )
    consent: Consent = Field(
        "local",
        description="What may be done with your verdicts: none (nothing), local (learn from them here), export (share "
        "them in exports too)",
    )
    analyzer: str = Field(
        "embedded", description="Engine that finds entities: embedded, sam; with commas, the first that works"
    )
    reasoner: str = Field(
        "embedded", description="Engine that understands prompts and refines them: embedded, ollama, openai; likewise"
    )
    editor: str = Field("embedded", description="Engine that edits: embedded, comfyui; likewise")
    validator: str = Field("embedded", description="Engine that measures the result: embedded")
    comfyui_url: ServerUrl = Field("", description="Where ComfyUI is: http://127.0.0.1:8188")
    comfyui_workflow: Path | None = Field(
        None, description="A workflow of your own, exported in ComfyUI's API format, with slots such as {{image}}"
    )
    comfyui_checkpoint: str = Field("", description="The model that the packaged workflow loads, as ComfyUI lists it")
    comfyui_side: Annotated[int, Field(ge=64, le=8192)] = Field(
        1024, description="Pixels of the longer side of what is sent to ComfyUI, 64 to 8192"
    )
    comfyui_seconds: Annotated[float, Field(gt=0, le=86_400)] = Field(
        900.0, description="Seconds that a job of ComfyUI may run, at most 86400; waiting in its queue does not count"
    )
    chat_url: ServerUrl = Field(
        "", description="Where Ollama (http://127.0.0.1:11434) or an OpenAI-compatible server is, without /v1"
    )
    chat_model: str = Field("", description="The model to talk to, as its server lists it")
    chat_key: SecretStr = Field(SecretStr(""), description="The key that the server asks for, if it does")
    chat_seconds: Annotated[float, Field(gt=0, le=3600)] = Field(
        60.0, description="Seconds that an answer may take, at most 3600"
    )
    sam_model: Path | None = Field(None, description="Folder of a SAM 2 model, as transformers saves it")
    grounding_model: Path | None = Field(None, description="Folder of a Grounding DINO model, as transformers saves it")

    @field_validator("allowed_schemes", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [part.strip().lower() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("chat_key")
    @classmethod
    def _fits_a_header(cls, value: SecretStr) -> SecretStr:
        if not (value.get_secret_value().isascii() and (value.get_secret_value() or "x").isprintable()):
            raise ValueError("it must be printable ASCII, as it is sent in a header")
        return value

    @field_validator("auth_string")
    @classmethod
    def _has_two_parts(cls, value: SecretStr) -> SecretStr:
        user, _, password = value.get_secret_value().partition(":")
        if value.get_secret_value() and not (user and password and value.get_secret_value().isascii()):
            raise ValueError("it must be user:password, in ASCII")
        return value

    def model_post_init(self, context: Any, /) -> None:
        """Fill in what follows from EDI_HOME."""
        try:
            home = self.home.expanduser().absolute()
        except RuntimeError:
            raise InputError(f"EDI_HOME is {str(self.home)!r}: nobody knows that home folder; write it out.") from None
        object.__setattr__(self, "home", home)
        object.__setattr__(self, "database_url", self.database_url or f"sqlite:///{home / 'edi_sessions.db'}")
        object.__setattr__(self, "storage_url", self.storage_url or str(home / "sessions"))


def load_settings() -> Settings:
    """The settings of this process; InputError names the variable that is wrong."""
    try:
        settings = Settings()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = "EDI_" + ".".join(str(part) for part in first["loc"]).upper()
        # A secret is not shown, however wrong it is.
        given = "not right" if name in _NEVER_SHOWN else repr(first["input"])
        raise InputError(f"{name} is {given}: {first['msg'].removeprefix('Value error, ')}.") from error
    if settings.storage_url.lower().startswith("memory://"):
        raise InputError("EDI_STORAGE_URL is in memory, which keeps nothing: give a folder, such as /home/me/sessions.")
    return settings
