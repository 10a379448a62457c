"""`python -m tests.benchmarks.editing`: a dramatic sky on 12 megapixels, by the engines and by a plain OpenCV script.

Each round runs both, one after the other, each in a process of its own; the table shows medians over the rounds. The
wall time is what a person waits; the processor time says how much of it was work (another program may have had the
processors). The peak of memory is that of the whole process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import cv2
import numpy as np

from tests.benchmarks.machine import machine
from tests.peak import own_peak

EXAMPLE: Final = Path(__file__).parents[2] / "flows" / "examples" / "palace.jpg"
PROMPT: Final = "make the sky dramatic"
#: 4240 x 2830, in the proportions of the example.
SIZE: Final = (4240, 2830)
#: The bars: seconds of engine time on 2 cores, and megabytes.
MOST_SECONDS, MOST_MEGABYTES = 4.0, 1200
#: What counts as engine time; reading and writing files is beside it.
ENGINE_PARTS: Final = ("analysis", "intent", "edit", "validation")
PARTS: Final = ("read", *ENGINE_PARTS, "write")

Times = dict[str, tuple[float, float]]
T = TypeVar("T")


class _Clock:
    """Takes the wall and processor seconds of each part."""

    def __init__(self) -> None:
        self.times: Times = {}

    def __call__(self, part: str, work: Callable[[], T]) -> T:
        wall, processor = time.perf_counter(), time.process_time()
        result = work()
        self.times[part] = (time.perf_counter() - wall, time.process_time() - processor)
        return result


def make_photo(path: Path) -> None:
    """Write the example, enlarged to 12 megapixels, with the grain of a sensor, as a JPEG."""
    small = cv2.imread(str(EXAMPLE))
    assert small is not None
    large = cv2.resize(small, SIZE, interpolation=cv2.INTER_CUBIC)
    grain = np.random.default_rng(0).normal(0, 3, large.shape[:2]).astype(np.float32)
    grain = cv2.GaussianBlur(grain, (0, 0), 0.7)
    cv2.imwrite(str(path), np.clip(large + grain[..., None], 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 95])


def run_engines(photo_path: Path, output: Path) -> Times:
    """What `edi edit` has its engines do, in their order."""
    from edi_storage.models import SceneAnalysis
    from flows import engines
    from flows.engines.base import EditRequest, ValidationRequest
    from flows.engines.photo import encode_edited, open_photo

    clock = _Clock()
    photo = clock("read", lambda: open_photo(photo_path))
    found = clock("analysis", lambda: engines.analyzer().analyze(photo.pixels))
    scene = SceneAnalysis(entities=[one.entity for one in found.detections], spatial_layout=found.spatial_layout)
    masks = {one.entity.entity_id: one.mask for one in found.detections}
    reasoner = engines.reasoner()
    intent = clock("intent", lambda: reasoner.understand(PROMPT, scene))
    prompt = reasoner.refine(PROMPT, scene, intent, 3)
    request = EditRequest(photo.pixels, masks, scene, intent, prompt, 1)
    edited = clock("edit", lambda: engines.editor().edit(request))
    judged = ValidationRequest(photo.pixels, edited.pixels, masks, scene, intent, edited.operations)
    result = clock("validation", lambda: engines.validator().validate(judged))
    assert any(delta.verdict == "modified" for delta in result.deltas), "no dramatic sky was made"
    clock("write", lambda: output.write_bytes(encode_edited(photo, edited.pixels)))
    return clock.times


def run_plain(photo_path: Path, output: Path) -> Times:
    """The plain script, part by part."""
    from tests.benchmarks import plain

    clock = _Clock()
    pixels = clock("read", lambda: cv2.cvtColor(cv2.imread(str(photo_path)), cv2.COLOR_BGR2RGB))  # type: ignore[arg-type]
    mask = clock("analysis", lambda: plain.find_sky(pixels))
    edited = clock("edit", lambda: plain.make_dramatic(pixels, mask))
    inside, outside = clock("validation", lambda: plain.measure(pixels, edited, mask))
    assert inside > 5 > outside, "no dramatic sky was made"
    clock("write", lambda: cv2.imwrite(str(output), cv2.cvtColor(edited, cv2.COLOR_RGB2BGR)))
    return clock.times


RUNNERS: Final = {"engines": run_engines, "plain script": run_plain}


def run_here(runner: str, photo: Path, output: Path) -> None:
    """In a process of its own: run one of both and print its times and its peak of memory."""
    times = RUNNERS[runner](photo, output)
    sys.stdout.write(json.dumps({"times": times, "megabytes": own_peak() / 1024**2}))


def _in_a_process(runner: str, photo: Path, output: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.benchmarks.editing", "--run", runner, str(photo), str(output)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def table(runs: dict[str, list[dict[str, Any]]]) -> str:
    """Medians of both, part by part, as Markdown."""
    lines = [
        "| part | engines, s | of the processors, s | plain script, s | of the processors, s | engines / plain |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for part in (*PARTS, "engine time"):
        parts = ENGINE_PARTS if part == "engine time" else (part,)
        ours, plain = (_medians(runs[name], parts) for name in RUNNERS)
        ratio = f"{ours[0] / plain[0]:.2f}" if plain[0] else ""
        mean = f"{plain[0]:.2f} | {plain[1]:.2f}" if plain[0] else " | "
        lines.append(f"| {part} | {ours[0]:.2f} | {ours[1]:.2f} | {mean} | {ratio} |")
    peaks = [statistics.median(run["megabytes"] for run in runs[name]) for name in RUNNERS]
    lines.append(f"| peak memory, MB | {peaks[0]:.0f} | | {peaks[1]:.0f} | | {peaks[0] / peaks[1]:.2f} |")
    return "\n".join(lines)


def _medians(runs: list[dict[str, Any]], parts: tuple[str, ...]) -> tuple[float, float]:
    """Median over the runs of the wall and processor seconds of these parts together."""
    sums = [[sum(run["times"].get(part, (0.0, 0.0))[kind] for part in parts) for run in runs] for kind in (0, 1)]
    return statistics.median(sums[0]), statistics.median(sums[1])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.editing", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--run", nargs=3, metavar=("WHAT", "PHOTO", "OUTPUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run_here(options.run[0], Path(options.run[1]), Path(options.run[2]))
        return 0
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in RUNNERS}
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / "photo.jpg"
        make_photo(photo)
        for _ in range(options.rounds):
            for name, found in runs.items():
                found.append(_in_a_process(name, photo, Path(folder) / "edited.png"))
    seconds, _ = _medians(runs["engines"], ENGINE_PARTS)
    megabytes = statistics.median(run["megabytes"] for run in runs["engines"])
    print(f'"{PROMPT}" on {SIZE[0]} x {SIZE[1]} pixels, medians of {options.rounds} rounds.')
    print(f"{machine('numpy', 'pillow')}, OpenCV {cv2.__version__}.\n")
    print(table(runs))
    print(
        f"\nEngine time {seconds:.2f} s (bar: {MOST_SECONDS:g} s), peak {megabytes:.0f} MB (bar: {MOST_MEGABYTES} MB)."
    )
    return 0 if seconds < MOST_SECONDS and megabytes < MOST_MEGABYTES else 1


if __name__ == "__main__":
    raise SystemExit(main())
