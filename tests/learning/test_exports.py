"""Exports are read back as trainers do, and looked through for what must not be in them."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from PIL import Image

from edi_storage.errors import InputError
from edi_storage.exports import FORMATS, Exported, Format, export
from edi_storage.exports.privacy import KEY_FILE, Pseudonyms, scrubbed
from edi_storage.exports.writers import PARQUET
from edi_storage.recovery import delete_session
from edi_storage.store import Store, open_store
from flows.export_pictures import CleanPictures
from tests import homes
from tests.learning.histories import Attempt, Past, put

SECRET = "write to anna@example.org, or see /home/anna/secret.jpg"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def store(home: Path) -> Any:
    with open_store(homes.settings_of(home)) as opened:
        yield opened


def fill(store: Store) -> None:
    """Of everything something: attempts judged differently, variations, comments, and what must stay at home."""
    retried = [
        Attempt((10, 10, 10), verdict="reject", reasons=["too strong"], comment=f"too dark; {SECRET}"),
        Attempt((90, 90, 90), verdict="accept"),
    ]
    put(store, Past("retried", retried, prompt=f"make the sky dramatic, {SECRET}"))
    colours = ((1, 0, 0), (0, 90, 0), (0, 0, 90), (80, 80, 0))
    put(store, Past("varied", [Attempt(variations=colours, chosen=2, verdict="accept")], photo=(9, 99, 9)))
    put(store, Past("partly", [Attempt(verdict="partial")]))
    put(store, Past("unjudged", [Attempt()]))
    for consent in ("none", "local"):
        put(store, Past(f"{consent}-only", retried, prompt=f"SECRET of {consent}", consent=consent))


def made(store: Store, home: Path, out: Path, format_: Format, *, comments: bool = False) -> Exported:
    return export(store, home, out, format_, CleanPictures(), comments=comments)


def read(out: Path) -> list[dict[str, Any]]:
    """All rows of an export, as a reader of data sets finds them by its card."""
    found: list[dict[str, Any]] = []
    for path in re.findall(r"path: (\S+)", (out / "README.md").read_text()):
        if path.endswith(".parquet"):
            found += pyarrow.parquet.read_table(out / path).to_pylist()
        else:
            found += [json.loads(line) for line in (out / path).read_text().splitlines()]
    return found


def pictures_in(out: Path, rows: list[dict[str, Any]]) -> list[bytes]:
    values = [value for row in rows for value in row.values()]
    inside = [value["bytes"] for value in values if isinstance(value, dict)]
    return inside + [path.read_bytes() for path in (out / "images").glob("*")]


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("comments", [False, True])
def test_an_export_is_read_back_and_tells_nothing_of_whose_it_is(
    store: Store, home: Path, tmp_path: Path, format_: Format, comments: bool
) -> None:
    fill(store)
    out = tmp_path / "out"
    done = made(store, home, out, format_, comments=comments)
    rows = read(out)
    assert sum(done.rows.values()) == len(rows) > 0
    assert done.skipped == 0
    for data in pictures_in(out, rows):
        picture = Image.open(io.BytesIO(data))
        assert picture.size == (48, 32)
        assert not picture.getexif()
        assert set(picture.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    everything = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    everything += json.dumps(rows, default=repr).encode()
    for secret in (b"anna", b"/home", b"Anna", b"SECRET", b"retried", b"varied", b"-only", str(tmp_path).encode()):
        assert secret not in everything, secret
    for path in store.files.list():
        assert path.split("/")[-1][:64].encode() not in everything, "a digest tells whose picture it is"


def test_pairs_are_of_one_session_at_most_three_and_weigh_one(store: Store, home: Path, tmp_path: Path) -> None:
    fill(store)
    made(store, home, tmp_path / "out", "diffusion-dpo")
    weights: dict[str, list[float]] = {}
    for row in read(tmp_path / "out"):
        assert (row["label_0"], row["label_1"]) == (1.0, 0.0)
        assert row["jpg_0"]["bytes"] != row["jpg_1"]["bytes"]
        weights.setdefault(row["session"], []).append(row["weight"])
    assert sorted(weights.values()) == [[pytest.approx(1 / 3)] * 3, [1.0]]


def test_the_better_of_a_pair_is_the_accepted_one(store: Store, home: Path, tmp_path: Path) -> None:
    put(store, Past("a", [Attempt((10, 10, 10), verdict="reject"), Attempt((200, 200, 200), verdict="accept")]))
    made(store, home, tmp_path / "out", "diffusion-dpo")
    (row,) = read(tmp_path / "out")
    better, worse = (Image.open(io.BytesIO(row[name]["bytes"])).getpixel((5, 5)) for name in ("jpg_0", "jpg_1"))
    assert (better, worse) == ((200, 200, 200), (10, 10, 10))


def test_trl_and_kto_speak_of_prompts(store: Store, home: Path, tmp_path: Path) -> None:
    fill(store)
    made(store, home, tmp_path / "trl", "trl")
    (pair,) = read(tmp_path / "trl")
    assert pair["chosen"] == "dramatic sky, try 2\nNot: flat sky"
    assert pair["rejected"] == "dramatic sky, try 1\nNot: flat sky"
    made(store, home, tmp_path / "kto", "kto")
    assert sorted(row["label"] for row in read(tmp_path / "kto")) == [False, True, True], "partial is neither"


def test_magicbrush_has_its_columns_and_a_mask(store: Store, home: Path, tmp_path: Path) -> None:
    fill(store)
    made(store, home, tmp_path / "out", "magicbrush")
    row = read(tmp_path / "out")[0]
    assert list(row) == ["img_id", "turn_index", "source_img", "mask_img", "instruction", "target_img"]
    mask = Image.open(io.BytesIO(row["mask_img"]["bytes"])).convert("L")
    assert (mask.getpixel((5, 5)), mask.getpixel((5, 25))) == (255, 0)


def test_comments_are_only_told_when_asked_for(store: Store, home: Path, tmp_path: Path) -> None:
    fill(store)
    made(store, home, tmp_path / "out", "jsonl")
    assert all("comment" not in row for row in read(tmp_path / "out"))
    made(store, home, tmp_path / "out", "jsonl", comments=True)
    told = [row["comment"] for row in read(tmp_path / "out") if row["comment"]]
    assert told == ["too dark; write to [removed], or see [removed]"]


def test_what_is_deleted_is_gone_after_the_next_run(store: Store, home: Path, tmp_path: Path) -> None:
    fill(store)
    out = tmp_path / "out"
    made(store, home, out, "jsonl")
    before = {row["session"] for row in read(out)}
    pictures = {path.name for path in (out / "images").iterdir()}
    delete_session(store, "varied")
    made(store, home, out, "jsonl")
    assert {row["session"] for row in read(out)} < before, "and the others have the ids that they had"
    assert {path.name for path in (out / "images").iterdir()} < pictures
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "out"], "nothing is left beside it"


def test_a_photo_is_in_one_split_only(store: Store, home: Path, tmp_path: Path) -> None:
    for number in range(40):
        photo = (number % 20 * 12, 0, 0)
        put(store, Past(f"s{number:02}", [Attempt((number, 9, 9), verdict="accept")], photo=photo))
    done = made(store, home, tmp_path / "out", "jsonl")
    splits = {
        name: {json.loads(line)["source"] for line in (tmp_path / "out" / f"{name}.jsonl").read_text().splitlines()}
        for name in done.rows
    }
    assert sum(len(sources) for sources in splits.values()) == 20
    names = Pseudonyms(b"k" * 32)
    assert 60 < sum(names.split(f"{number:064}") == "test" for number in range(1000)) < 140


def test_somebodys_folder_is_left_alone(store: Store, home: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "precious.txt").write_text("precious")
    with pytest.raises(InputError, match="not an earlier export"):
        made(store, home, mine, "jsonl")
    assert [path.name for path in mine.iterdir()] == ["precious.txt"]
    with pytest.raises(InputError, match="name a folder in one that exists"):
        made(store, home, tmp_path / "no" / "out", "jsonl")


def test_a_lost_picture_costs_its_rows_only(store: Store, home: Path, tmp_path: Path) -> None:
    fill(store)
    (lost,) = (item for item in store.database.get_artifacts("partly") if item.kind == "edited")
    store.files.remove(lost.path)
    done = made(store, home, tmp_path / "out", "jsonl")
    assert done.skipped == 1
    assert "partial" not in {row["verdict"] for row in read(tmp_path / "out")}


def test_nothing_to_share_is_an_empty_export(store: Store, home: Path, tmp_path: Path) -> None:
    put(store, Past("mine", [Attempt(verdict="accept")], consent="local"))
    for format_ in FORMATS:
        done = made(store, home, tmp_path / format_, format_)
        assert (done.sessions, done.rows) == (0, {})
        assert sorted(path.name for path in (tmp_path / format_).iterdir()) == ["README.md", "edi-export.json"]


def test_the_key_is_its_owners_and_stays_the_same(store: Store, home: Path) -> None:
    first = Pseudonyms.of_home(home).name("session", "a")
    assert (home / KEY_FILE).stat().st_mode & 0o077 == 0
    assert Pseudonyms.of_home(home).name("session", "a") == first
    assert Pseudonyms(b"x" * 32).name("session", "a") != first
    assert sorted(path.name for path in home.iterdir() if "key" in path.name) == [KEY_FILE]


def test_a_failing_export_leaves_the_earlier_one_and_nothing_else(
    store: Store, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store)
    out = tmp_path / "out"
    made(store, home, out, "jsonl")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    class Failing(CleanPictures):
        def photo(self, data: bytes) -> bytes:
            raise OSError(28, "No space left on device")

    with pytest.raises(Exception, match="No space left"):
        export(store, home, out, "jsonl", Failing())
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "out"]


def test_without_pyarrow_it_is_said_how_to_get_it() -> None:
    code = """
import sys
sys.modules["pyarrow"] = None
from edi_storage.exports.writers import load_pyarrow
from edi_storage.errors import InputError
try:
    load_pyarrow()
except InputError as error:
    print(error)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "pip install 'edi-edit[export]'" in told
    assert "jsonl" in told


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("black/white, and/or 50/50 at f/2.8", "black/white, and/or 50/50 at f/2.8"),
        ("like /home/me/a b.jpg", "like [removed] [removed]"),
        (r"as in C:\Users\me\x.png!", "as in [removed]"),
        ("see ~/pics/x or https://a.b/c?d", "see [removed] or [removed]"),
        ("call +49 89 1234567 now", "call [removed] now"),
        ("use #c03020 at 1200 px, 16:9", "use #c03020 at 1200 px, 16:9"),
    ],
)
def test_text_loses_what_tells_and_keeps_the_rest(text: str, left: str) -> None:
    assert scrubbed(text) == left


def test_only_these_need_pyarrow() -> None:
    assert {"jsonl", "trl", "kto"} == {*FORMATS} - PARQUET


def test_an_export_that_is_killed_leaves_the_earlier_one_and_the_next_clears_up(
    store: Store, home: Path, tmp_path: Path
) -> None:
    fill(store)
    out = tmp_path / "out"
    made(store, home, out, "jsonl")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    code = f"""
import os, signal
from pathlib import Path
from edi_storage.exports import export
from edi_storage.settings import load_settings
from edi_storage.store import open_store
from flows.export_pictures import CleanPictures

class Killed(CleanPictures):
    left = 3
    def photo(self, data):
        Killed.left -= 1
        if not Killed.left:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().photo(data)

with open_store(load_settings()) as store:
    export(store, Path({str(home)!r}), Path({str(out)!r}), "jsonl", Killed())
"""
    killed = subprocess.run([sys.executable, "-c", code], env={**os.environ, **homes.environment(home)}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert len(list(tmp_path.iterdir())) == 3, "what the killed one had begun"
    made(store, home, out, "jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "out"]
