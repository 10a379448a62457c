"""Two homes that share a PostgreSQL database and an S3 bucket: what one leaves behind, the other finishes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import s3
from tests.flows.conftest import PALACE, Edi, all_is_well
from tests.postgres import NoServer
from tests.postgres import server as postgres


@pytest.fixture(scope="module")
def shared() -> Iterator[dict[str, str]]:
    """The settings that two machines have in common."""
    try:
        with postgres() as database, s3.server() as files:
            yield {
                **files.environment,
                "EDI_DATABASE_URL": database.url,
                "EDI_STORAGE_URL": f"{files.bucket()}/edi",
                "EDI_ALLOWED_SCHEMES": "s3",
                "EDI_LEASE_SECONDS": "2",
            }
    except NoServer as reason:
        pytest.skip(f"NOT TESTED: PostgreSQL ({reason})")


@pytest.fixture
def machines(shared: dict[str, str], server: str, tmp_path: Path) -> tuple[Edi, Edi]:
    settings = {**shared, "PREFECT_API_URL": server}
    return Edi(tmp_path / "one", settings), Edi(tmp_path / "two", settings)


def test_one_machine_dies_and_the_other_finishes_its_session(machines: tuple[Edi, Edi]) -> None:
    one, two = machines
    one.killed("begin", "edit", "edit", str(PALACE), "make it warmer", "--session-id", "killed")
    assert two.json("show", "killed")["sessions"][0]["status"] == "in_progress"
    resumed = two.json("resume", "killed")
    assert resumed["status"] == "completed"
    assert resumed["restored_stages"][:3] == ["upload", "analysis", "intent"]
    for edi in machines:
        commits = edi.json("show", "killed")["stage_commits"]
        assert len(commits) == len({(commit["stage"], commit["iteration"]) for commit in commits}) == 10
        assert all_is_well(edi)


def test_an_installation_moves_to_shared_servers(
    machines: tuple[Edi, Edi], shared: dict[str, str], server: str, tmp_path: Path
) -> None:
    """The steps of the README, from one machine to many."""
    from tests import databases

    here = {"PREFECT_API_URL": server, "EDI_DATABASE_URL": "", "EDI_STORAGE_URL": ""}
    alone = Edi(tmp_path / "alone", here)
    alone.json("edit", str(PALACE), "make it warmer", "--session-id", "moved")
    new = {**shared, "EDI_DATABASE_URL": databases.make(shared["EDI_DATABASE_URL"])}
    moving = Edi(alone.home, {**shared, **here})
    bucket = shared["EDI_STORAGE_URL"] + "-moved"
    rows = moving.json("db", "copy-to", new["EDI_DATABASE_URL"])["tables"]
    assert rows["sessions"] == {"copied": 1, "there": 0}
    files = moving.json("storage", "copy-to", bucket)
    assert files["copied"] > 10
    assert moving.json("storage", "copy-to", bucket) == {"url": bucket, "copied": 0, "there": files["copied"]}

    there = Edi(tmp_path / "elsewhere", {"PREFECT_API_URL": server, **new, "EDI_STORAGE_URL": bucket})
    after = there.json("show", "moved")
    assert after["sessions"] == alone.json("show", "moved")["sessions"]
    assert after["state"]["edited_image_path"].startswith(bucket)
    assert all_is_well(there)
    assert there.json("fork", "moved", "--from", "refinement", "--strength", "0.2")["status"] == "completed"
