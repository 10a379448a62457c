"""What a batch is asked to do: photos, folders of them, and lists (CSV) that say what to do with each."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from edi_storage.errors import InputError
from edi_storage.models import MAX_PROMPT
from edi_storage.record import check_text
from edi_storage.settings import Settings
from flows.engines.wishes import Wishes
from flows.inbox import expanded, find_photo, make_inbox, photos_in

#: What a list is called, and the columns that it may have; the first has to be there.
LIST_SUFFIX: Final = ".csv"
COLUMNS: Final = ("photo", "prompt", "strength", "protect", "region")


@dataclass(frozen=True)
class Job:
    """One photo, what to do with it, and the file of its result besides ("" for none)."""

    photo: str
    prompt: str
    wishes: Wishes
    output: str = ""

    def session_id(self, batch: str) -> str:
        """The session of this photo in a batch; another one when the file was replaced, or something else is asked."""
        try:
            status = Path(self.photo).stat()
            version = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            version = ""
        return f"{batch}-{_digest(self.photo, version, self.prompt, self.wishes.as_options())}"


def jobs_of(named: Sequence[str], settings: Settings, prompt: str, wishes: Mapping[str, Any]) -> list[Job]:
    """The photos meant, each once: files, all photos of a folder, or those of a list; by default all of the inbox.

    prompt, wishes (strength, protect, region): for every photo that no list says something else of. Raises
    InputError, also when there are no photos. One that is not there is kept: it will be listed as failed.
    """
    inbox = make_inbox(settings)
    usual = Wishes.checked(**wishes)
    jobs: list[Job] = []
    for name in named or [str(inbox)]:
        path = Path(_place(name, inbox))
        if is_list(path):
            jobs += _read_list(path, inbox, {"prompt": prompt, **wishes})
        else:
            jobs += [Job(str(photo), prompt, usual) for photo in (photos_in(path) if path.is_dir() else [path])]
    if not jobs:
        where = ", ".join(named) or f"the folder for photos, {inbox}"
        raise InputError(f"There are no photos in {where[:200]}: EDI opens PNG, JPEG and WebP.")
    if not all(job.prompt for job in jobs):
        raise InputError('Say what to do with the photos, such as "make the sky dramatic".')
    return list(dict.fromkeys(jobs))


def is_list(path: Path) -> bool:
    """Whether a path is that of a list of photos, by its name."""
    return path.suffix.lower() == LIST_SUFFIX and not path.is_dir()


def batch_id(named: Sequence[str], settings: Settings, prompt: str, wishes: Wishes, folder: str) -> str:
    """The name of a batch, which follows from what is asked: the same again goes on with the same sessions."""
    places = sorted(str(Path(name).expanduser().absolute()) for name in named or [str(make_inbox(settings))])
    return f"batch-{_digest(places, prompt, wishes.as_options(), folder)}"


def with_outputs(jobs: Sequence[Job], folder: str) -> list[Job]:
    """The jobs with the file of each result in a folder, which is made; "" for none. Raises InputError.

    A file is called like its photo; of photos with the same name, or one that is edited twice, with a few letters more.
    """
    if not folder:
        return list(jobs)
    _make_folder(folder, jobs)
    names = Counter(Path(job.photo).name.lower() for job in jobs)
    photos = Counter(job.photo for job in jobs)

    def name(job: Job) -> str:
        path = Path(job.photo)
        if names[path.name.lower()] == 1:
            return path.name
        what = (job.photo,) if photos[job.photo] == 1 else (job.photo, job.prompt, job.wishes.as_options())
        return f"{path.stem}-{_digest(*what)[:6]}{path.suffix}"

    return [replace(job, output=str(Path(folder) / name(job))) for job in jobs]


def _make_folder(folder: str, jobs: Sequence[Job]) -> None:
    # Started again, the batch would take its own results for photos.
    if any(Path(job.photo).parent == Path(folder) for job in jobs):
        raise InputError(f"{folder} holds the photos themselves: name another folder for the results.")
    try:
        Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error.strerror or error}.") from error


def _place(name: str, inbox: Path) -> str:
    try:
        return find_photo(name, inbox)
    except InputError:
        return str(Path(name).absolute())


def _digest(*what: Any) -> str:
    text = json.dumps(what, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


# --- Lists -------------------------------------------------------------------------------------------


def _read_list(path: Path, inbox: Path, usual: Mapping[str, Any]) -> list[Job]:
    """The photos of a list; what a cell leaves empty is as usual. Raises InputError that names file and line."""
    jobs = []
    for line, row in _rows(path):
        told = {"photo": "", **usual, **{name: cell for name, cell in row.items() if cell}}
        try:
            jobs.append(_job(path.parent, inbox, **told))
        except InputError as error:
            raise InputError(f"{path.name}, line {line}: {error}") from None
    return jobs


def _job(folder: Path, inbox: Path, *, photo: str, prompt: str, **wishes: Any) -> Job:
    """A line of a list that lies in a folder: there a photo is looked for first, then in the inbox."""
    if not photo:
        raise InputError("no photo is named.")
    if not prompt:
        raise InputError("nothing is said of what to do, neither there nor for the whole batch.")
    if len(prompt) > MAX_PROMPT:
        raise InputError(f"the prompt has {len(prompt)} characters: say it in at most {MAX_PROMPT}.")
    beside = (folder / expanded(photo)).absolute()
    # os.path: a name that no file system takes is one that is not there.
    found = str(beside) if os.path.exists(beside) else _place(photo, inbox)
    return Job(found, prompt, Wishes.checked(**wishes))


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a list with the number of their line. Raises InputError."""
    try:
        # utf-8-sig: spreadsheets put a mark at the start.
        text = path.read_text(encoding="utf-8-sig")
        check_text(text)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None
    except ValueError:
        raise InputError(f"{path} is not a list in CSV: save it as CSV in UTF-8.") from None
    first = text.split("\n", 1)[0]
    # In a country that writes 0,5 a spreadsheet writes semicolons.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count))
    try:
        header = [cell.strip().lower() for cell in next(reader, [])]
        _check_header(path, header)
        for cells in reader:
            if len(cells) > len(header):
                why = "more cells than the first line has: put what holds a comma in quotes"
                raise InputError(f"{path.name}, line {reader.line_num}: there are {why}.")
            if any(cell.strip() for cell in cells):
                yield reader.line_num, dict(zip(header, (cell.strip() for cell in cells), strict=False))
    except csv.Error as error:
        raise InputError(f"{path.name}, line {reader.line_num}: this is no CSV ({error}).") from None


def _check_header(path: Path, header: Sequence[str]) -> None:
    wrong = [name for name in header if name not in COLUMNS or header.count(name) > 1]
    if "photo" not in header or wrong:
        found = ", ".join(header)[:200] or "nothing"
        raise InputError(
            f"{path.name} begins with {found}: its first line has to name its columns, each once: "
            f"photo, and where wanted {', '.join(COLUMNS[1:])}."
        )
