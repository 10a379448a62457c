"""A stage boundary stored by EDI and by others: `python -m tests.benchmarks.peers [--rounds N] [--plot FILE.svg]`.

The sessions are those of `boundary`: ten boundaries, a state that grows from 2 to 40 KB, 25 entities, four prompts, a
validation. Everyone stores them as its documentation has it, set up so that what it has stored survives a power cut
where it has settings for that: SQLite with WAL and synchronous=FULL. (DBOS says nothing of its file: it is measured as
it comes, which is safe, and with WAL as well.) Who stores rows inserts them into EDI's tables (see `rows`), which is
less work than EDI has with its own. All get the same and make of it what they need in their own time.

Each has a process of its own, and they take turns, a session each, since a disk is fast in one second and slow in the
next. What counts are the times relative to EDI's, turn by turn. They depend on the disk all the same: the slower its
sync, the closer they are to the numbers of syncs. `TMPDIR` says which disk. They also depend on how long a process
lives: a commit that makes SQLite's log longer takes longer, and EDI has its log lengthened after the first session.
With `--sessions 60` everybody's log has reached its length most of the time.

The peers are optional: `pip install '.[bench]'`. With strace here the syncs of each are counted too.
"""

from __future__ import annotations

import argparse
import io
import logging
import platform
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from tests.benchmarks import contenders, syncs
from tests.benchmarks.boundary import Contender, edi, fdatasync, timed
from tests.benchmarks.machine import machine

_MODULE: Final = "tests.benchmarks.peers"
_EDI: Final = "edi"
_LANGGRAPH: Final = "langgraph-checkpoint-sqlite"

# --- The table -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Peer:
    """One line of the table."""

    title: str
    stores: str
    make: Contender
    #: What is to be installed for it, if anything.
    package: str = ""
    #: How many times EDI's time it takes at least, if that is promised.
    bar: float | None = None
    #: Whether what it has stored survives a power cut, set up as well as it can be.
    durable: bool = True

    @property
    def version(self) -> str | None:
        """The version that is installed; None when it is not."""
        try:
            return metadata.version(self.package) if self.package else ""
        except metadata.PackageNotFoundError:
            return None

    @property
    def name(self) -> str:
        """The title with the version, if it has one: "LangGraph 3.1.2 put"."""
        first, _, rest = self.title.partition(" ")
        return " ".join(filter(None, (first, self.version, rest))) if self.version else self.title


PEERS: dict[str, Peer] = {
    _EDI: Peer("EDI", "lease, rows, what changed, its digest", edi),
    "sync": Peer("a bare sync", "8 KB, that is all", fdatasync),
    "langgraph-put": Peer("LangGraph put", "state", contenders.langgraph_put, _LANGGRAPH, 1.0),
    "langgraph-rows": Peer(
        "LangGraph put + writes + rows", "state, writes, rows", contenders.langgraph_rows, _LANGGRAPH, 2.3
    ),
    "dbos": Peer("DBOS step + rows", "what changed, rows", contenders.dbos_rows, "dbos", 6.0),
    "dbos-wal": Peer("DBOS step + rows, with WAL", "what changed, rows", contenders.dbos_wal, "dbos"),
    "orm": Peer("naive ORM", "state, rows", contenders.orm, bar=4.0),
    "burr": Peer("Burr save", "state", contenders.burr, "apache-burr"),
    "diskcache": Peer("diskcache", "state", contenders.diskcache, "diskcache"),
    "prefect": Peer("Prefect result storage", "state", contenders.prefect, "prefect", durable=False),
    "joblib": Peer("joblib Memory", "state", contenders.joblib, "joblib", durable=False),
}


@dataclass(frozen=True)
class Found:
    """What was measured of one contender: a boundary in microseconds, and relative to EDI; its syncs, if counted."""

    micros: float
    ratio: float
    syncs: list[int] | None = None


def table(found: Mapping[str, Found]) -> str:
    """What was found, beside what each had to reach; who is not in it was not installed."""
    head = "| contender | stores | ms per boundary | times EDI | bar | met | syncs per boundary |"
    return "\n".join([head, "|---|---|---:|---:|---:|---|---:|", *(_line(name, found.get(name)) for name in PEERS)])


def _line(name: str, found: Found | None) -> str:
    peer = PEERS[name]
    stores = peer.stores if peer.durable else f"{peer.stores}; not durable, nothing syncs it"
    bar = "" if peer.bar is None else f"{peer.bar:g}"
    if found is None:
        return f"| {peer.title} | {stores} | not installed ({peer.package}) | | {bar} | | |"
    measured = f"{found.micros / 1000:.2f} | {found.ratio:.2f} | {bar} | {_met(peer, found)}"
    counted = f"{statistics.mean(found.syncs):.1f}" if found.syncs else "not counted"
    return f"| {peer.name} | {stores} | {measured} | {counted} |"


def _met(peer: Peer, found: Found) -> str:
    return "" if peer.bar is None else "yes" if found.ratio >= peer.bar else "NO"


# --- The plot ------------------------------------------------------------------------------------------


_OURS, _OTHERS, _UNSAFE, _BAR_MARK, _INK = "#1b7f5c", "#8aa1b8", "#d8dee5", "#c2412d", "#30363d"


def plot(found: Mapping[str, Found], about: str) -> str:
    """The times relative to EDI as bars, the shortest on top, as SVG."""
    from matplotlib.figure import Figure

    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    names = sorted(found, key=lambda name: found[name].ratio)
    figure = Figure(figsize=(9, 1.4 + 0.42 * len(names)), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    axes.set_title("A stage boundary, stored", loc="left", color=_INK, fontsize=13, fontweight="bold")
    bars = axes.barh(names, [found[name].ratio for name in names], height=0.66, color=[_colour(name) for name in names])
    labels = [f"{found[name].ratio:.2f} x, {found[name].micros / 1000:.2f} ms" for name in names]
    over = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    axes.bar_label(bars, labels, padding=6, color=_INK, fontsize=9, bbox=over)
    _mark_bars(axes, names)
    _dress(axes, names)
    figure.supxlabel(about, fontsize=8, color=_INK, x=0.01, ha="left")
    return _svg(figure)


def _colour(name: str) -> str:
    return _OURS if name == _EDI else _OTHERS if PEERS[name].durable else _UNSAFE


def _mark_bars(axes: Any, names: Sequence[str]) -> None:
    """A line where a contender has to reach."""
    for place, name in enumerate(names):
        bar = PEERS[name].bar
        if bar is not None:
            axes.plot([bar, bar], [place - 0.42, place + 0.42], color=_BAR_MARK, linewidth=2)


def _dress(axes: Any, names: Sequence[str]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    axes.invert_yaxis()
    axes.set_yticks(range(len(names)), [PEERS[name].title for name in names], color=_INK)
    axes.tick_params(length=0, colors=_INK)
    axes.margins(x=0.22)
    axes.set_xlim(left=0)
    axes.set_xlabel("time relative to EDI", color=_INK)
    axes.spines[:].set_visible(False)
    axes.axvline(1, color=_OURS, linewidth=1, linestyle=":", zorder=0)
    kinds = {"EDI": _OURS, "durable": _OTHERS, "not durable": _UNSAFE}
    key: list[Any] = [Patch(color=colour, label=kind) for kind, colour in kinds.items()]
    key.append(Line2D([], [], color=_BAR_MARK, linewidth=2, label="should take so long at least"))
    axes.legend(handles=key, frameon=False, labelcolor=_INK, fontsize=9, loc="upper right")


def _svg(figure: Any) -> str:
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "edi"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


# --- Turns ---------------------------------------------------------------------------------------------


def serve(contender: Contender) -> None:
    """Store a session for each line that comes in, and answer with the microseconds of its boundaries."""
    with tempfile.TemporaryDirectory() as folder:
        store = contender(Path(folder))
        for number, _ in enumerate(sys.stdin):
            print(*timed(store, f"s-{number}"), flush=True)


@contextmanager
def _servers(names: Iterable[str]) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """A process for each contender."""
    with ExitStack() as running:
        command = [sys.executable, "-m", _MODULE, "--one"]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        yield {name: running.enter_context(subprocess.Popen([*command, name], **pipes)) for name in names}


def _turn(server: subprocess.Popen[str]) -> list[float]:
    assert server.stdin
    assert server.stdout
    server.stdin.write("go\n")
    server.stdin.flush()
    return [float(micros) for micros in server.stdout.readline().split()]


def measured(names: Sequence[str], rounds: int, sessions: int) -> dict[str, list[list[float]]]:
    """The microseconds of each boundary of each session, by contender; those of one place were one turn."""
    times: dict[str, list[list[float]]] = {name: [] for name in names}
    order, rng = [*names], random.Random(0)
    for _ in range(rounds):
        with _servers(names) as servers:
            for server in servers.values():
                _turn(server)  # makes its files
            for _ in range(sessions):
                rng.shuffle(order)
                for name in order:
                    times[name].append(_turn(servers[name]))
    return times


def _found(times: Mapping[str, list[list[float]]], counts: Mapping[str, list[int]]) -> dict[str, Found]:
    edis = [sum(of_session) for of_session in times[_EDI]]
    found = {}
    for name, of_name in times.items():
        micros = statistics.mean(map(statistics.median, zip(*of_name, strict=True)))
        ratios = [sum(of_session) / of_edi for of_session, of_edi in zip(of_name, edis, strict=True)]
        found[name] = Found(micros, statistics.median(ratios), counts.get(name))
    return found


# --- The command ---------------------------------------------------------------------------------------


def main() -> int:
    options = _options()
    if options.one:
        serve(PEERS[options.one].make)
        return 0
    if options.mark:
        syncs.marked(PEERS[options.mark].make)
        return 0
    here = [name for name, peer in PEERS.items() if peer.version is not None]
    print(f"{machine('sqlalchemy')}; {platform.platform()}\n", flush=True)
    counts = _counts(here)
    if options.syncs:
        return _tell_syncs(counts)
    found = _found(measured(here, options.rounds, options.sessions), counts)
    print(table(found))
    if options.plot:
        options.plot.write_text(plot(found, machine()), encoding="utf-8")
    behind = [peer.title for name, peer in PEERS.items() if name in found and _met(peer, found[name]) == "NO"]
    if behind:
        print(f"\nThese should take longer beside EDI: {', '.join(behind)}.")
    return _tell_syncs(counts) or int(bool(behind))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m {_MODULE}", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="each begins with new files")
    parser.add_argument("--sessions", type=int, default=10, help="of each contender in each round")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the figures too")
    parser.add_argument("--syncs", action="store_true", help="only count the syncs")
    parser.add_argument("--one", choices=PEERS, help="one contender; a session for each line of the input")
    parser.add_argument("--mark", choices=PEERS, help="two sessions of one contender, for strace")
    return parser.parse_args()


def _counts(names: Iterable[str]) -> dict[str, list[int]]:
    """The syncs of each boundary, by contender; empty where strace cannot count them."""
    try:
        return {name: syncs.counted(_MODULE, name) for name in names}
    except syncs.NotTraceable as reason:
        print(f"NOT COUNTED: the syncs ({reason})\n")
        return {}


def _tell_syncs(counts: Mapping[str, list[int]]) -> int:
    """Print the syncs of each boundary; 1 when one of EDI's has more or fewer than one."""
    if counts:
        print("\nSyncs of each of the ten boundaries, in a session that is not the first:")
    for name, of_name in counts.items():
        print(f"  {PEERS[name].title}: {' '.join(map(str, of_name))}")
    return int(any(count != 1 for count in counts.get(_EDI, [])))


if __name__ == "__main__":
    sys.exit(main())
