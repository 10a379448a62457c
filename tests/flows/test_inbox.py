"""The inbox: dropping a photo there and naming it is enough."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edi_storage.errors import InputError
from edi_storage.settings import Settings
from flows.inbox import find_photo, inbox_of, make_inbox, photos_in
from tests.flows.conftest import PALACE


@pytest.fixture
def inbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return make_inbox(Settings(home=tmp_path / "home"))


def test_the_inbox_is_private_and_made_once(tmp_path: Path, inbox: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    assert make_inbox(settings) == inbox == inbox_of(settings)
    assert inbox.stat().st_mode & 0o077 == 0


def test_a_bare_name_is_found_in_the_inbox_and_where_a_person_is_here_before_it(tmp_path: Path, inbox: Path) -> None:
    shutil.copy(PALACE, inbox / "beach.jpg")
    for here in (False, True):
        assert find_photo("beach.jpg", inbox, here=here) == str(inbox / "beach.jpg")
    assert find_photo("beach.jpg\n", inbox) == str(inbox / "beach.jpg"), "a form's field takes several lines"
    shutil.copy(PALACE, tmp_path / "here" / "beach.jpg")
    assert find_photo("beach.jpg", inbox) == str(inbox / "beach.jpg"), "a server's folder is nobody's"
    assert find_photo("beach.jpg", inbox, here=True) == str(tmp_path / "here" / "beach.jpg")
    (inbox / "beach.jpg").unlink()
    assert find_photo("beach.jpg", inbox) == str(tmp_path / "here" / "beach.jpg")


@pytest.mark.parametrize("name", ["sub/beach.jpg", "./beach.jpg", "../beach.jpg", "/nowhere/beach.jpg"])
def test_a_path_is_never_looked_up_in_the_inbox(inbox: Path, name: str) -> None:
    shutil.copy(PALACE, inbox / "beach.jpg")
    assert find_photo(name, inbox) == str(Path(name).absolute())


def test_an_unknown_name_is_answered_with_the_folder_and_five_of_its_photos(inbox: Path) -> None:
    with pytest.raises(InputError, match="That folder is empty: drop a photo there"):
        find_photo("beach.jpg", inbox)
    for name in ("1.jpg", "2.PNG", "3.webp", "4.jpeg", "5.jpg", "6.jpg", "notes.txt", ".hidden.jpg"):
        (inbox / name).touch()
    with pytest.raises(InputError) as refused:
        find_photo("beach.jpg", inbox)
    there = "1.jpg, 2.PNG, 3.webp, 4.jpeg, 5.jpg and 1 more."
    assert str(refused.value) == f"There is no photo 'beach.jpg' in the folder for photos, {inbox}. There: {there}"
    with pytest.raises(InputError, match=f"in {Path.cwd()} or in the folder for photos"):
        find_photo("beach.jpg", inbox, here=True)
    with pytest.raises(InputError, match=r"Do you mean '3.webp'\?"):
        find_photo("33.webp", inbox)


@pytest.mark.parametrize("name", ["", " ", "\n", "a\x00b.jpg", "\udcff.jpg", "x" * 5000, "~nobody-here.jpg"])
def test_what_is_no_name_is_refused_in_a_sentence(inbox: Path, name: str) -> None:
    with pytest.raises(InputError):
        find_photo(name, inbox)


def test_the_photos_of_a_folder_are_listed_by_name_and_a_missing_folder_has_none(inbox: Path) -> None:
    (inbox / "folder.jpg").mkdir()
    for name in ("b.jpg", "a.png", "c.gif"):
        (inbox / name).touch()
    assert [path.name for path in photos_in(inbox)] == ["a.png", "b.jpg"]
    assert photos_in(inbox / "nowhere") == []
