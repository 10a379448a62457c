"""What runs the photos of a batch (EDI_TASK_RUNNER): threads, processes, or the workers of a Dask or Ray cluster."""

from __future__ import annotations

import multiprocessing.connection
import os
import threading
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any, Final

from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from edi_storage.errors import InputError
from edi_storage.settings import TaskRunnerName

#: Module, class, and the options by which it does so many photos at a time.
_CLUSTERS: Final[Mapping[str, tuple[str, str, Callable[[int], dict[str, Any]]]]] = {
    "dask": ("prefect_dask", "DaskTaskRunner", lambda n: {"cluster_kwargs": {"n_workers": n, "threads_per_worker": 1}}),
    "ray": ("prefect_ray", "RayTaskRunner", lambda n: {"init_kwargs": {"num_cpus": n, "include_dashboard": False}}),
}


def batch_runner(name: TaskRunnerName, workers: int) -> TaskRunner[Any]:
    """A task runner that does so many photos at a time. Raises InputError where its package is not installed.

    On a cluster the photos, the database and the storage must be reachable from each of its machines.
    """
    if name == "threads":
        _share_cores(workers)
        return ThreadPoolTaskRunner(max_workers=workers)
    if name == "processes":
        return ProcessPoolTaskRunner(max_workers=workers, initializer=partial(_begin_process, workers))
    # Ray would tell its makers how it is used.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    module, made, options = _CLUSTERS[name]
    try:
        runner: TaskRunner[Any] = getattr(import_module(module), made)(**options(workers))
    except ImportError:
        raise InputError(f"EDI_TASK_RUNNER={name} needs what is not installed: pip install '.[{name}]'.") from None
    return runner


def _share_cores(workers: int) -> None:
    """The engines take all cores for each photo; with several photos at a time they would be in each other's way."""
    from flows.engines.bands import share_cores

    share_cores(workers)


def _begin_process(workers: int) -> None:
    """In a worker process: a batch that is killed takes its workers along, and their sessions are resumed later."""
    _share_cores(workers)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
