"""What Prefect costs for each stage: `python -m tests.benchmarks.orchestration [--edits N] [--rounds N]`.

The flow's wall time less the time that its stages took, by stage, with the server that an edit brings along and with
one that runs already. The first version, which stands in the repository's history, does the same edits beside it; the
rounds are interleaved, each in a process of its own, and what counts is the ratio of one run.

Each edit has a photo of another size, and what is told is the mean: the first version's runs ended at a full second
after their start, so that what they cost depends on how long the work takes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.machine import machine

ROOT: Final = Path(__file__).parents[2]

#: The commit that first edited a photo from end to end, under a server that was started for it or ran already.
FIRST: Final = "eead996"

#: The most that a stage may cost with a running server, as a part of what it did in the first version.
MOST: Final = 0.5

KINDS: Final = ("embedded", "running")
VERSIONS: Final = ("first version", "this version")

#: Edits before those that count.
WARM: Final = 3

#: Pixels from the narrowest photo to the widest: their work differs by more than a second.
WIDTHS: Final = (400, 2400)


def measure(kind: str, edits: int) -> None:
    """In a process that was started in the folder of a version: print the milliseconds by stage of each edit."""
    sys.path.insert(0, str(Path.cwd()))
    with tempfile.TemporaryDirectory() as home, contextlib.ExitStack() as stack:
        os.environ["EDI_HOME"] = home
        from edi_storage.settings import load_settings
        from flows.server import api_for, prepare_environment, start_server

        settings = load_settings()
        prepare_environment(settings)
        if kind == "running":
            os.environ["PREFECT_API_URL"] = stack.enter_context(start_server(settings, full=True)).url
        stack.enter_context(api_for(settings))
        # The first edits warm up: the server has its own services to start in these seconds.
        photos = [_photo(Path(home), WIDTHS[0] + (WIDTHS[1] - WIDTHS[0]) * number // edits) for number in range(edits)]
        sys.stdout.write(json.dumps([_edit(photo, settings) for photo in [photos[0]] * WARM + photos][WARM:]))


def _photo(folder: Path, width: int) -> Path:
    from PIL import Image

    path = folder / f"{width}.jpg"
    with Image.open("flows/examples/palace.jpg") as picture:
        picture.resize((width, width * picture.height // picture.width)).save(path, quality=95)
    return path


def _edit(photo: Path, settings: Any) -> float:
    from edi_storage.store import open_store
    from flows.edit import edit_image

    started = time.perf_counter()
    session_id = f"edit-{uuid.uuid4()}"
    edit_image(image_path=str(photo), prompt="make it warmer", session_id=session_id, review="auto")
    wall = time.perf_counter() - started
    with open_store(settings) as store:
        commits = store.database.get_commits(session_id)
    work = sum((commit.finished_at - commit.started_at).total_seconds() for commit in commits)
    return 1000 * (wall - work) / len(commits)


def _in_process(folder: Path, kind: str, edits: int) -> list[float]:
    """Some edits of the version in a folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EDI_", "PREFECT_"))}
    command = [sys.executable, __file__, "--measure", kind, "--edits", str(edits)]
    done = subprocess.run(
        command, cwd=folder, env={**kept, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True, check=True
    )
    measured: list[float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.orchestration", description=__doc__)
    parser.add_argument("--edits", type=int, default=8, help="edits in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", choices=KINDS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        measure(asked.measure, asked.edits)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder) / "first"
        before.mkdir()
        archive = subprocess.run(["git", "archive", FIRST], cwd=ROOT, stdout=subprocess.PIPE, check=True)
        subprocess.run(["tar", "-x", "-C", str(before)], input=archive.stdout, check=True)
        found: dict[tuple[str, str], list[float]] = {(kind, name): [] for kind in KINDS for name in VERSIONS}
        for _ in range(asked.rounds):
            for kind in KINDS:
                for name, where in zip(VERSIONS, (before, ROOT), strict=True):
                    found[kind, name] += _in_process(where, kind, asked.edits)
    means = {key: statistics.mean(times) for key, times in found.items()}
    print(f"{machine('prefect')}; {asked.rounds} rounds of {asked.edits} edits\n")
    print("| milliseconds by stage beside its own work | embedded server | running server |\n|---|---:|---:|")
    for name in VERSIONS:
        print(f"| {name} | {' | '.join(f'{means[kind, name]:.0f}' for kind in KINDS)} |")
    ratios = {kind: means[kind, VERSIONS[1]] / means[kind, VERSIONS[0]] for kind in KINDS}
    print(f"| ratio | {' | '.join(f'{ratios[kind]:.2f}' for kind in KINDS)} |")
    print(f"\nBar: at most {MOST} with a running server.")
    return int(ratios["running"] > MOST)


if __name__ == "__main__":
    sys.exit(main())
