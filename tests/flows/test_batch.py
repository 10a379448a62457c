"""Batches: many photos, a session each, and none of them twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edi_storage.errors import InputError
from edi_storage.settings import Settings
from flows.batch import find_photos, session_id_of
from tests.flows.conftest import PALACE, Edi

PHOTOS = ("a.jpg", "b.png", "c.webp")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three small photos."""
    path = tmp_path / "holiday"
    path.mkdir()
    with Image.open(PALACE) as palace:
        for name in PHOTOS:
            palace.resize((320, 213)).save(path / name)
    return path


def batch(edi: Edi, folder: Path, *more: str, expect: int = 0) -> Any:
    return edi.json("batch", str(folder), "--prompt", "make it warmer", *more, expect=expect)


def commits(edi: Edi) -> dict[str, list[tuple[str, str]]]:
    """When each boundary of each session was done."""
    shown = {session["session_id"]: edi.json("show", session["session_id"]) for session in edi.json("sessions")}
    return {
        name: [(commit["stage"], commit["finished_at"]) for commit in one["stage_commits"]]
        for name, one in shown.items()
    }


def test_one_bad_photo_does_not_stop_the_others_and_again_does_nothing_twice(edi: Edi, folder: Path) -> None:
    (folder / "broken.jpg").write_bytes(PALACE.read_bytes()[:20_000])
    out = folder.parent / "out"
    first = batch(edi, folder, "--output-folder", str(out), expect=1)
    by_photo = {row["photo"]: row for row in first["results"]}
    assert [row["photo"] for row in first["results"]] == ["a.jpg", "b.png", "broken.jpg", "c.webp"]
    for name in PHOTOS:
        assert by_photo[name]["decision"] == "accepted"
        assert by_photo[name]["score"] >= 0.8
    assert (by_photo["broken.jpg"]["decision"], by_photo["broken.jpg"]["score"]) == ("failed", None)
    assert "broken.jpg" in by_photo["broken.jpg"]["error"]
    assert sorted(path.name for path in out.iterdir()) == sorted(PHOTOS)
    done = commits(edi)
    assert len(done) == 4
    again = batch(edi, folder, "--output-folder", str(out), expect=1)
    assert again == first
    assert commits(edi) == done
    (table,) = artifacts(edi, f"batch-{first['batch_id']}")
    assert '"decision": "failed"' in table["data"]
    assert table["description"] == "make it warmer: 4 photos: 3 accepted, 1 failed"


def artifacts(edi: Edi, key: str) -> Any:
    import httpx

    api = edi.environment["PREFECT_API_URL"]
    asked = {"artifacts": {"key": {"any_": [key]}}, "limit": 10, "sort": "CREATED_DESC"}
    found = httpx.post(f"{api}/artifacts/filter", json=asked, timeout=60).raise_for_status().json()
    return found[:1]


def test_a_killed_batch_that_is_started_again_does_every_photo_once(edi: Edi, folder: Path) -> None:
    asked = ("batch", str(folder), "--prompt", "make it warmer", "--workers", "1")
    edi.killed("begin", "completed", *asked)
    edi.killed("commit", "completed", *asked)
    before = commits(edi)
    assert 0 < len(before) < 3
    result = batch(edi, folder, "--workers", "1")
    assert [row["decision"] for row in result["results"]] == ["accepted"] * 3
    after = commits(edi)
    assert len(after) == 3
    for name, done in before.items():
        assert after[name][: len(done)] == done, "a finished stage was run again"
    assert all([stage for stage, _ in done].count("completed") == 1 for done in after.values())


def test_a_photo_that_asks_a_question_waits_and_the_others_are_edited(edi: Edi, folder: Path) -> None:
    result = edi.json("batch", str(folder / "a.jpg"), "--prompt", "make it better", expect=3)
    (row,) = result["results"]
    assert row["decision"] == "waits for you (question)"
    edi.json("resume", row["session"], "--answer", "1")
    (row,) = edi.json("batch", str(folder / "a.jpg"), "--prompt", "make it better")["results"]
    assert row["decision"] == "accepted"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--prompt", "warmer"),
        ("FOLDER",),
        ("FOLDER", "--prompt", "warmer", "--region", "1,2"),
        ("FOLDER", "--prompt", "warmer", "--output-folder", "FOLDER"),
        ("FOLDER/nobody.jpg", "--prompt", "warmer"),
        ("FOLDER", "--prompt", "warmer", "--batch-id", "../up"),
        ("FOLDER", "--prompt", "warmer", "--protect", " " * 600),
    ],
    ids=["empty inbox", "no prompt", "bad region", "results among the photos", "no such photo", "bad id", "long"],
)
def test_bad_input_to_a_batch_is_one_sentence(edi: Edi, folder: Path, arguments: tuple[str, ...]) -> None:
    refused = edi("batch", *(word.replace("FOLDER", str(folder)) for word in arguments), expect=2)
    assert len(refused.stderr.strip().splitlines()) == 1, refused.stderr
    assert edi.json("sessions") == []


def test_photos_are_found_in_folders_and_the_inbox_each_once(tmp_path: Path, folder: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    with pytest.raises(InputError, match="no photos in the inbox"):
        find_photos([], settings)
    (settings.home / "images" / "beach.jpg").write_bytes(PALACE.read_bytes())
    inside = [str(folder / name) for name in PHOTOS]
    beach = str(settings.home / "images" / "beach.jpg")
    assert find_photos([], settings) == [beach]
    assert find_photos([str(folder), inside[0], "beach.jpg"], settings) == [*inside, beach]


def test_a_session_belongs_to_one_batch_and_one_version_of_a_photo(folder: Path) -> None:
    photo = folder / "a.jpg"
    mine = session_id_of("mine", str(photo))
    assert mine == session_id_of("mine", str(photo))
    assert mine != session_id_of("other", str(photo))
    photo.write_bytes(photo.read_bytes() + b"\0")
    assert mine != session_id_of("mine", str(photo))
