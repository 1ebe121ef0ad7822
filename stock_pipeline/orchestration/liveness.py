"""Finds runs that are recorded as started although their process is gone.

Dagster's own launcher for one machine cannot tell: after a power cut, a kill or a restart of the services such a run
would hold its place in the queue until its time limit. Only runs whose process must be on this machine are judged.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import dagster as dg
import psutil

from stock_pipeline.observability.logging import get_logger
from stock_pipeline.storage.database import away

_log = get_logger(__name__)

HOST = "stock_pipeline/host"
"""Run tag: the machine on which the command line runs it."""

_BY_LAUNCHER = ".dagster/grpc_info"
_SLACK = 2.0
"""Seconds by which a process may seem younger than the event that it wrote itself."""

MESSAGE = "its process is gone: it was killed, or the machine or the services were restarted"


def lost_runs(instance: dg.DagsterInstance) -> Iterator[dg.DagsterRun]:
    """Started runs of this machine whose process does not exist any more."""
    local_launcher = type(instance.run_launcher).__name__ == "DefaultRunLauncher"
    statuses = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
    for run in instance.get_runs(dg.RunsFilter(statuses=statuses)):
        here = run.tags.get(HOST) == socket.gethostname() or (local_launcher and _BY_LAUNCHER in run.tags)
        if here and _process_is_gone(run, instance):
            yield run


def stop_worker_run(instance: dg.DagsterInstance, run_id: str) -> bool:
    """End a run that was handed to the workers: one that none has begun, or whose worker has not heard of its end.

    Dagster's web server refuses to; without workers such a run begins within seconds and then ends itself.

    Returns
    -------
    bool
        ``False`` where the broker is away.
    """
    if type(instance.run_launcher).__name__ != "WorkerLauncher":
        return True
    try:
        instance.run_launcher.terminate(run_id)
    except Exception as error:  # whatever else is to be done must not wait for the broker
        _log.warning("a run of a worker could not be ended and will be tried again", run=run_id, error=str(error)[:300])
        return False
    return True


def fail_lost_runs(instance: dg.DagsterInstance) -> list[str]:
    """Record lost runs as failed, so that the queue goes on, they are retried where that was asked for, and an alert
    tells; returns their ids.
    """
    failed = []
    for run in lost_runs(instance):
        fresh = instance.get_run_by_id(run.run_id)
        if fresh is not None and not fresh.is_finished:
            instance.report_run_failed(fresh, MESSAGE)
            failed.append(run.run_id)
    return failed


def _process_is_gone(run: dg.DagsterRun, instance: dg.DagsterInstance) -> bool:
    """Whether the process that announced itself in the run's events has ended; unknown counts as alive."""
    try:
        records = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT).records
    except Exception as error:
        if away(error):  # so it is for all runs
            raise
        return False  # a damaged run must not keep the others from being judged; the relay tells of it
    for record in reversed(records):
        event = record.event_log_entry.get_dagster_event()
        found = (event.engine_event_data.metadata or {}).get("pid")
        if found is None:
            continue
        try:
            process = psutil.Process(int(str(found.value)))
            # the number may belong to another process by now: one that started after the event
            return process.status() == psutil.STATUS_ZOMBIE or (
                process.create_time() > record.event_log_entry.timestamp + _SLACK
            )
        except psutil.NoSuchProcess:
            return True
    return False
