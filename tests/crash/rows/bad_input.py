"""Bad ids, prompts, feedback, state files and images, known ones and fuzzed ones (Hypothesis).

Each ends in what was asked or in one sentence of EDI's: no traceback, no hang, no gigabytes. What is accepted can be
saved, and read back as the same.
"""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from edi_storage.checkpoints import SessionStateManager
from edi_storage.errors import EdiError, InputError
from edi_storage.models import SessionData, UserFeedback
from edi_storage.recovery import checkpoint_info
from edi_storage.state import fold
from tests.crash.bench import Bench
from tests.crash.work import settings_for
from tests.peak import own_peak
from tests.storage.sessions import SESSION, commits

ID = SESSION.session_id
#: Longer than any one of them may take.
HANG = 10
#: More memory than all of them may use at any moment, with the process itself.
MEMORY = 1536 << 20

Found = tuple[int, list[str]]


def row(bench: Bench) -> None:
    examples = 5000 if bench.full else 150
    work: list[tuple[Callable[..., Found], Any]] = [(known, 0), (fuzz_states, examples), (fuzz_images, examples)]
    for function, count in work:
        with bench.round(function.__name__):
            chance = bench.rng.randrange(1 << 32)
            folder = bench.home()
            tried, wrong = bench.call(function, folder, count, chance, seconds=1800)
            bench.result.rounds += tried - 1
            bench.violation(function.__name__, *wrong)


class _Tries:
    """Tries things and remembers what went wrong, once for each way of going wrong."""

    def __init__(self) -> None:
        self.count = 0
        self.wrong: dict[str, str] = {}

    def __call__(self, what: str, function: Callable[..., object], *arguments: Any, refuse: bool = False) -> bool:
        """Whether it was accepted. `refuse`: it must not be."""
        self.count += 1
        started = time.monotonic()
        signal.alarm(HANG)
        try:
            function(*arguments)
            if refuse:
                self.wrong.setdefault(what, f"{what} was accepted")
            return True
        except EdiError as error:
            if "\n" in str(error) or len(str(error)) > 600:
                self.wrong.setdefault("long", f"{what}: not one sentence: {str(error)[:700]}")
        except BaseException as error:  # noqa: BLE001 - that is what is looked for
            self.wrong.setdefault(f"{type(error).__name__} {str(error)[:40]}", f"{what}: {error!r}")
        finally:
            signal.alarm(0)
            if time.monotonic() - started > HANG:
                self.wrong.setdefault("slow", f"{what} took {time.monotonic() - started:.0f} s")
        return False

    @property
    def found(self) -> Found:
        most = own_peak()
        if most > MEMORY:
            self.wrong["memory"] = f"took {most >> 20} MB"
        return self.count, list(self.wrong.values())


def _limits() -> None:
    def hung(*_: object) -> None:
        raise TimeoutError(f"hung for {HANG} s")

    signal.signal(signal.SIGALRM, hung)
    # Address space, which libraries reserve and do not use: what is really used is looked at in the end.
    resource.setrlimit(resource.RLIMIT_AS, (2 * MEMORY, 2 * MEMORY))
    warnings.simplefilter("ignore")


def _many(examples: int, chance: int, what: st.SearchStrategy[bytes], body: Callable[[bytes], None]) -> None:
    # Nothing is raised in the body, so there is nothing to shrink.
    quiet = settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    seed(chance)(quiet(given(what)(body)))()


# --- Known bad things --------------------------------------------------------------------------------

IDS = ["", ".", "..", "../x", "a/b", "a\\b", "con", "NUL", "a b", "ä", "-x", "x" * 65, "a\n", "a\0", "a.json", "\ud800"]
PROMPTS = ["a\0b", "\ud800", "\udfff tail"]
RATINGS = [0, 6, 4.5, "5", float("nan"), True, 1e9, [], "*" * 10_000]


def known(folder: Path, _: int, __: int) -> Found:
    _limits()
    tries = _Tries()
    good = SESSION.model_dump()
    for bad in IDS:
        tries(f"id {bad!r}", SessionData.checked, {**good, "session_id": bad}, refuse=True)
    for bad in PROMPTS:
        tries(f"prompt {bad!r}", SessionData.checked, {**good, "naive_prompt": bad}, refuse=True)
    for rating in RATINGS:
        tries("rating", UserFeedback.checked, {"feedback_type": "accept", "rating": rating}, refuse=True)
    _bad_photos(tries, folder)
    manager = SessionStateManager(folder)
    for number, text in enumerate(_bad_states()):
        (folder / f"{ID}.json").write_bytes(text)
        tries(f"state {number}: {text[:30]!r}", manager.load_session_state, ID, refuse=True)
    return tries.found


def _bad_states() -> Iterable[bytes]:
    good = _state()
    yield from (b"", b"null", b"[]", b"{}", b"\xff\xfe{}", b'{"session_id": NaN}', b"[" * 100_000, b"{" * 50)
    yield json.dumps({**good, "intent": {"a": float("inf")}}).encode()
    yield json.dumps({**good, "naive_prompt": "\ud800"}).encode()
    yield json.dumps(good).encode()[:-1] + b', "session_id": "s-1"}'
    yield json.dumps({**good, "session_id": "s-2"}).encode()
    yield json.dumps({**good, "intent": {"n": 10**40}}).encode()
    yield b'{"a": "' + b"x" * (17 << 20) + b'"}'
    yield b'{"a": ' + b"[{}," * 3_000_000 + b"{}" + b"]" * 3_000_000 + b"}"


def _bad_photos(tries: _Tries, folder: Path) -> None:
    from flows.engines.photo import open_photo

    folder.mkdir(parents=True)
    os.mkfifo(folder / "pipe.png")
    (folder / "empty.jpg").touch()
    (folder / "text.png").write_text("not a picture")
    (folder / "drawing.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n")
    (folder / "bomb.png").write_bytes(_bomb())
    (folder / "loop.png").symlink_to(folder / "loop.png")
    paths = [folder, *folder.iterdir(), Path("/dev/zero"), folder / "missing.png", folder / ("x" * 300), Path("a\0b")]
    for path in paths:
        tries(f"photo {path.name}", open_photo, path, refuse=True)


def _bomb() -> bytes:
    """A PNG that says it has 30,000 x 30,000 pixels."""
    header = bytearray(_photos()[0])
    header[16:24] = (30_000).to_bytes(4, "big") * 2
    import zlib

    header[29:33] = zlib.crc32(bytes(header[12:29])).to_bytes(4, "big")
    return bytes(header)


# --- Fuzzed state files ------------------------------------------------------------------------------


def _state() -> dict[str, Any]:
    state = fold(commit.state_delta for commit in commits())
    return {**state, "checkpoint": checkpoint_info(list(commits())[-1]).model_dump(mode="json")}


#: What a parser may stumble over.
_WORDS = [b"NaN", b"-Infinity", b"1e999", b"null", b'"\\ud800"', b'"\\u0000"', b"[[[[", b"9" * 50, b"\xc3\x28", b'"']
_EDIT = st.tuples(st.sampled_from(["cut", "flip", "insert", "copy"]), st.integers(0, 1 << 30), st.integers(0, 1 << 30))


def _edited(data: bytes, edits: Iterable[tuple[str, int, int]]) -> bytes:
    """`data` after some harm."""
    for kind, first, second in edits:
        start = first % (len(data) + 1)
        end = start + second % 64
        if kind == "cut":
            data = data[:start] + data[end:]
        elif kind == "flip":
            flipped = bytes(byte ^ (1 << second % 8) for byte in data[start : start + 1])
            data = data[:start] + flipped + data[start + 1 :]
        elif kind == "insert":
            data = data[:start] + _WORDS[second % len(_WORDS)] + data[start:]
        else:
            data = data[:end] + data[start:]
    return data


def _states() -> st.SearchStrategy[bytes]:
    whole = _state()
    text = json.dumps(whole).encode()
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
    fields = st.dictionaries(st.sampled_from(sorted(whole)), values, max_size=3)
    harmed = st.lists(_EDIT, max_size=4).map(lambda edits: _edited(text, edits))
    replaced = fields.map(lambda changed: json.dumps({**whole, **changed}).encode("utf-8", "surrogatepass"))
    return harmed | replaced | st.binary(max_size=200)


def fuzz_states(folder: Path, examples: int, chance: int) -> Found:
    """As a live state, as a checkpoint, and as a file of the person's own."""
    from edi_storage.database import EDIDatabase

    _limits()
    tries, manager = _Tries(), SessionStateManager(folder)
    info = checkpoint_info(list(commits())[-1])
    state = fold(commit.state_delta for commit in commits())
    checkpoint = Path(manager.write_checkpoint(state, info))
    live = folder / f"{ID}.json"

    with EDIDatabase(settings_for(folder).database_url) as database:

        def body(data: bytes) -> None:
            live.write_bytes(data)
            checkpoint.write_bytes(data)
            if tries("live state", manager.load_session_state, ID):
                tries("save what was read", _saves_the_same, manager)
            tries("findings", manager.checkpoint_findings, ID)
            tries("valid checkpoints", manager.valid_checkpoints, ID)
            tries("state file", database.load_session_state, str(live))

        _many(examples, chance, _states(), body)
    return tries.found


def _saves_the_same(manager: SessionStateManager) -> None:
    first = manager.load_session_state(ID) or {}
    manager.save_session_state(ID, first)
    again = manager.load_session_state(ID) or {}
    changed = [key for key in first if key != "last_updated" and first[key] != again.get(key)]
    if changed:
        raise AssertionError(f"{changed} changed by saving")


# --- Fuzzed images -----------------------------------------------------------------------------------


def _photos() -> list[bytes]:
    """Small whole pictures of every kind that is opened."""
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 4), dtype=np.uint8)
    rgba = Image.fromarray(pixels)
    turned = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    kinds: list[tuple[Any, str, dict[str, Any]]] = [
        (rgba, "PNG", {}),
        (rgba.convert("RGB"), "JPEG", {"exif": turned}),
        (rgba.convert("RGB"), "JPEG", {"progressive": True}),
        (rgba.convert("P"), "PNG", {}),
        (rgba.convert("CMYK"), "JPEG", {}),
        (Image.fromarray(pixels[..., 0].astype(np.uint16) * 257), "PNG", {}),
        (rgba, "WEBP", {}),
    ]
    found = []
    for image, kind, options in kinds:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        found.append(buffer.getvalue())
    return found


def fuzz_images(folder: Path, examples: int, chance: int) -> Found:
    from flows.engines.photo import decode_photo, encode_edited

    _limits()
    tries = _Tries()

    def round_trip(data: bytes) -> None:
        photo = decode_photo(data)
        again = decode_photo(encode_edited(photo, photo.pixels))
        if (again.pixels != photo.pixels).any():
            raise AssertionError("another picture after saving")

    def body(data: bytes) -> None:
        tries("image", _only_input_errors, round_trip, data)

    photos = st.sampled_from(_photos())
    harmed = st.builds(_edited, photos, st.lists(_EDIT, max_size=5))
    _many(examples, chance, harmed | st.binary(max_size=300), body)
    return tries.found


def _only_input_errors(function: Callable[[bytes], None], data: bytes) -> None:
    """A bad picture is the fault of what was given (exit code 2), not of EDI."""
    try:
        function(data)
    except InputError:
        raise
    except EdiError as error:
        raise AssertionError(f"not an InputError: {error!r}") from error
