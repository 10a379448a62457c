"""Settings from the environment: what is taken, what is refused in one sentence, and what is never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from edi_storage.errors import InputError
from edi_storage.settings import load_settings
from edi_storage.store import open_store


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDI_HOME", str(tmp_path / "home"))
    for name in ("EDI_DATABASE_URL", "EDI_STORAGE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("url", ["s3://bucket/edi", "https://photos.example/edi", "sftp://host/edi"])
def test_only_folders_are_taken_unless_a_scheme_is_allowed(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDI_STORAGE_URL", url)
    with pytest.raises(InputError, match="is not allowed here"), open_store(load_settings()):
        pass


def test_an_allowed_scheme_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDI_STORAGE_URL", "s3://bucket/edi")
    monkeypatch.setenv("EDI_ALLOWED_SCHEMES", " S3, gs,")
    settings = load_settings()
    assert settings.allowed_schemes == ("s3", "gs")
    with open_store(settings) as store:
        assert store.files.root == "s3://bucket/edi"
        assert store.checkpoints.store is store.files


@pytest.mark.parametrize("secret", ["no-colon", ":no-user", "no-password:", "zoë:secret"])
def test_a_secret_that_is_wrong_is_not_repeated(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDI_AUTH_STRING", secret)
    with pytest.raises(InputError) as refused:
        load_settings()
    assert str(refused.value) == "EDI_AUTH_STRING is not right: it must be user:password, in ASCII."


def test_a_secret_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDI_AUTH_STRING", "me:hush")
    settings = load_settings()
    assert "hush" not in repr(settings) + str(settings) + settings.model_dump_json()
    assert settings.auth_string.get_secret_value() == "me:hush"
