"""`edi status`: what runs, what waits, what was interrupted. Read from the database and, when a server runs, its API.

Prefect is not imported: it takes a second, and half of what a person wants to know is in the database.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import typer

from edi_storage.errors import EdiError
from edi_storage.owner import is_gone, no_longer_runs
from edi_storage.settings import Settings, load_settings
from edi_storage.state import Json
from flows.api import Api
from flows.server import is_served, prepare_environment, read_server_file
from flows.terminal import DONE, FAILED, counted, print_json, store

if TYPE_CHECKING:
    from edi_storage.models import Lease, SessionData
    from edi_storage.store import Store

#: Lines of one kind that a person is shown; --json has them all.
SHOWN = 10

#: Sessions, and runs, that are looked at: more than anybody reads.
LOOKED_AT = 200

_SOONEST = "NEXT_SCHEDULED_START_TIME_ASC"


def show_status(as_json: bool) -> None:
    """Print how things stand; exit code 1 when the server that should be there does not answer."""
    settings = load_settings()
    with store() as opened:
        document = {**server_status(settings), **session_status(opened)}
    if as_json:
        print_json(document)
    else:
        typer.echo("\n".join(_lines(document)))
    raise typer.Exit(FAILED if document["server"]["problem"] else DONE)


# --- The server ------------------------------------------------------------------------------------------


def server_status(settings: Settings) -> Json:
    """The server, who runs edits, what runs and what is due, and the schedules; empty where no server answers."""
    prepare_environment(settings)
    info = read_server_file(settings)
    url = os.environ.get("PREFECT_API_URL") or (info.url if info else None)
    server: Json = {
        "running": False,
        "starting": url is None and is_served(settings),
        "url": url.removesuffix("/api") if url else None,
        "pid": info.pid if info else None,
        "since": datetime.fromtimestamp(info.started_at, UTC).isoformat() if info else None,
        "problem": None,
    }
    found: Json = {"workers": [], "running": [], "queue": [], "schedules": []}
    if info:
        found["workers"] = [{"name": "edi serve", "alive": not no_longer_runs(info.runner), "at_once": info.workers}]
    if url:
        try:
            Api(url).get("/health")
            # It is there; what it has to look up may take a while on a busy machine.
            found |= _told_by(Api(url, seconds=30), found["workers"])
            server["running"] = True
        except EdiError as error:
            server["problem"] = str(error)
    return {"home": str(settings.home), "server": server, **found}


def _told_by(api: Api, workers: list[Json]) -> Json:
    from deployments.serve import deployments_for

    names = [served.name for served in deployments_for(load_settings())]
    known = api.find("/deployments/filter", deployments={"name": {"any_": names}}, limit=LOOKED_AT)
    mine = {"any_": [deployment["id"] for deployment in known]}
    busy = {"deployment_id": mine, "state": {"type": {"any_": ["RUNNING", "PENDING"]}}}
    due = {"deployment_id": mine, "state": {"type": {"any_": ["SCHEDULED"]}}}
    running = api.find("/flow_runs/filter", flow_runs=busy, limit=LOOKED_AT)
    queue = api.find("/flow_runs/filter", flow_runs=due, limit=LOOKED_AT, sort=_SOONEST)
    pools = sorted({deployment["work_pool_name"] for deployment in known} - {None})
    return {
        "workers": workers + [worker for pool in pools for worker in _pool_workers(api, pool)],
        "running": [_run(run, run["start_time"]) for run in running],
        # What schedules have planned is no queue: nobody waits for it.
        "queue": [_run(run, run["next_scheduled_start_time"]) for run in queue if "auto-scheduled" not in run["tags"]],
        "schedules": [schedule for deployment in known for schedule in _schedules(api, deployment)],
    }


def _pool_workers(api: Api, pool: str) -> list[Json]:
    """The workers of a work pool; how many runs each takes is its own affair."""
    found = api.find(f"/work_pools/{quote(pool)}/workers/filter", limit=LOOKED_AT)
    return [
        {"name": f"{pool}: {worker['name']}", "alive": worker["status"] == "ONLINE", "at_once": None}
        for worker in found
    ]


def _run(run: Json, time: str | None) -> Json:
    return {"id": run["id"], "name": run["name"], "state": run["state_name"], "time": time}


def _schedules(api: Api, deployment: Json) -> Iterator[Json]:
    planned = {"deployment_id": {"any_": [deployment["id"]]}, "state": {"type": {"any_": ["SCHEDULED"]}}}
    order = "NEXT_SCHEDULED_START_TIME_ASC"
    runs = (
        api.find("/flow_runs/filter", flow_runs=planned, limit=LOOKED_AT, sort=order) if deployment["schedules"] else []
    )
    for plan in deployment["schedules"]:
        mine = [run for run in runs if (run.get("created_by") or {}).get("id") == plan["id"]]
        yield {
            "deployment": deployment["name"],
            "every": _every(plan["schedule"]),
            "active": plan["active"] and not deployment["paused"],
            "next": mine[0]["next_scheduled_start_time"] if mine else None,
        }


def _every(schedule: Json) -> str:
    """How often, in words: of EDI's own schedules, and of what a person made of them."""
    if "interval" not in schedule:
        return str(schedule.get("cron") or schedule.get("rrule"))
    seconds = float(schedule["interval"])
    units = (("week", 604_800), ("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1))
    name, size = next((unit for unit in units if seconds >= unit[1] and seconds % unit[1] == 0), units[-1])
    return f"every {name}" if seconds == size else f"every {seconds / size:g} {name}s"


# --- The sessions ----------------------------------------------------------------------------------------


def session_status(opened: Store) -> Json:
    """What is worked on, what waits for a person, what was interrupted, and when it was last learned and backed up."""
    from edi_storage.housekeeping import last_backup

    found: Json = {"working": [], "waiting": [], "interrupted": []}
    for session, lease in opened.database.unfinished_sessions(LOOKED_AT):
        kind, why = _standing(session, lease)
        found[kind].append(
            {
                "session_id": session.session_id,
                "prompt": session.naive_prompt,
                "why": why,
                "owner": lease.owner if lease else None,
                "lease_until": lease.expires_at.isoformat() if lease else None,
                "resumed": session.recovery_attempts,
            }
        )
    learned, copied = opened.database.last_learned(), last_backup(opened.database)
    return {
        **found,
        "last_learned": learned.isoformat() if learned else None,
        "last_backup": copied.isoformat() if copied else None,
    }


def _standing(session: SessionData, lease: Lease | None) -> tuple[str, str]:
    """Which list a session belongs to, and why."""
    if lease and not is_gone(lease.owner):
        return "working", f"process {_process(lease)} works on it"
    if session.waiting_for:
        return "waiting", {"question": "has a question", "review": "wants your verdict"}[session.waiting_for]
    tried = f", resumed {counted(session.recovery_attempts, 'time')} so far" if session.recovery_attempts else ""
    if lease:
        return "interrupted", f"process {_process(lease)} is gone{tried}"
    return "interrupted", f"nobody works on it{tried}"


def _process(lease: Lease) -> str:
    return lease.owner.split(":")[1] if ":" in lease.owner else lease.owner


# --- What a person reads ---------------------------------------------------------------------------------


def _lines(document: Json) -> Iterator[str]:
    """The status in lines, most urgent first within each part."""
    yield _line("server", _server_line(document["server"]))
    for worker in document["workers"]:
        at_once = f", {counted(worker['at_once'], 'edit')} at once" if worker["at_once"] else ""
        yield _line("worker", f"{worker['name']} is {'alive' if worker['alive'] else 'gone'}{at_once}")
    runs = ((f"{run['name']} ({run['state'].lower()}, {_when(run['time'])})") for run in document["running"])
    yield from _block("running", list(runs), "nothing")
    queued = (f"{run['name']} ({run['state'].lower()}, {_when(run['time'])})" for run in document["queue"])
    yield from _block("queue", list(queued), "empty")
    yield from _block("at work", _sessions(document["working"]), "no session")
    yield from _block("waiting", _sessions(document["waiting"]), "no session waits for you")
    yield from _block("interrupted", _sessions(document["interrupted"]), "no session")
    if document["interrupted"]:
        by_itself = document["server"]["running"] and document["workers"]
        yield _line("", "`edi serve` continues them." if by_itself else "`edi resume --all` continues them.")
    yield from _block("schedules", [_schedule_line(plan) for plan in document["schedules"]], "none while nobody serves")
    yield _line("learned", _when(document["last_learned"]))
    yield _line("backup", _when(document["last_backup"]))


def _line(name: str, text: str) -> str:
    return f"{name:<12} {text}"


def _block(name: str, items: Sequence[str], nothing: str) -> Iterator[str]:
    for number, item in enumerate(items[:SHOWN] or [nothing]):
        yield _line("" if number else name, item)
    if len(items) > SHOWN:
        yield _line("", f"... and {len(items) - SHOWN} more")


def _server_line(server: Json) -> str:
    if server["problem"]:
        return str(server["problem"])
    if server["starting"]:
        return "`edi serve` is starting"
    if not server["running"]:
        return "not running: `edi serve` starts it"
    return f"{server['url']}" + (f" (process {server['pid']}, since {_when(server['since'])})" if server["pid"] else "")


def _sessions(found: Sequence[Json]) -> list[str]:
    return [f"{item['session_id']}  {item['prompt'][:40]!r}: {item['why']}" for item in found]


def _schedule_line(plan: Json) -> str:
    when = f"next {_when(plan['next'])}" if plan["active"] else "off"
    return f"{plan['deployment']:<20} {plan['every']:<16} {when}"


def _when(moment: Any) -> str:
    if not moment:
        return "never"
    local = datetime.fromisoformat(str(moment)).astimezone()
    return f"{local:%H:%M:%S}" if local.date() == datetime.now().astimezone().date() else f"{local:%Y-%m-%d %H:%M}"
