"""What the relay reads out of Dagster's runs and records, in the words of the platform."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster._core.events import JobFailureData
from dagster._core.storage.event_log.base import EventLogCursor

from stock_pipeline.config.launches import KIND, OWNER, STARTED_BY, asked_of, priority_of
from stock_pipeline.orchestration.causes import Cause, cause
from stock_pipeline.storage.tasks import Launched

RESULT = "task_result"
"""Metadata of an output or a materialisation: JSON that becomes part of the task's result."""

STATUSES = {
    dg.DagsterEventType.RUN_ENQUEUED: "QUEUED",
    dg.DagsterEventType.RUN_DEQUEUED: "QUEUED",
    dg.DagsterEventType.RUN_STARTING: "STARTING",
    dg.DagsterEventType.RUN_START: "STARTED",
    dg.DagsterEventType.RUN_CANCELING: "CANCELING",
    dg.DagsterEventType.RUN_CANCELED: "CANCELED",
    dg.DagsterEventType.RUN_SUCCESS: "SUCCESS",
    dg.DagsterEventType.RUN_FAILURE: "FAILURE",
}
FINISHED = frozenset({"SUCCESS", "FAILURE", "CANCELED"})
ACTIVE = frozenset({"STARTING", "STARTED", "CANCELING"})

_WILL_RETRY, _MAX_RETRIES = "dagster/will_retry", "dagster/max_retries"
_SCHEDULE, _SENSOR, _BACKFILL = "dagster/schedule_name", "dagster/sensor_name", "dagster/backfill"


def task_id(run: dg.DagsterRun) -> str:
    """The task of a run: the first run of its chain of repetitions."""
    return run.root_run_id or run.run_id


def launched(record: dg.RunRecord) -> Launched:
    """A run as the store of tasks takes it."""
    run = record.dagster_run
    return Launched(
        run_id=run.run_id,
        kind=_short(run.tags.get(KIND) or "other", 30),
        job=_short(_job(run), 120),
        at=utc(record.create_timestamp),
        owner=_short(run.tags[OWNER], 64) if run.tags.get(OWNER) else None,
        origin=_origin(run.tags),
        priority=priority_of(run.tags),
        parameters=clean(asked_of(run.tags)),
    )


def will_retry(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool | None:
    """Whether Dagster will start a failed run again; ``None`` where it has not decided yet."""
    decided = run.tags.get(_WILL_RETRY)
    if decided is not None:
        return decided == "true"
    try:
        most = int(run.tags.get(_MAX_RETRIES, instance.run_retries_max_retries))
    except ValueError:
        most = 0
    return None if instance.run_retries_enabled and most > 0 else False


def cursor_after(storage_id: int) -> str:
    """Dagster's cursor behind a record."""
    return EventLogCursor.from_storage_id(storage_id).to_string()


def steps_to_execute(instance: dg.DagsterInstance, run: dg.DagsterRun) -> frozenset[str]:
    """The steps that a run is about to do; empty where its plan is not kept."""
    if run.step_keys_to_execute is not None:
        return frozenset(run.step_keys_to_execute)
    if run.execution_plan_snapshot_id is None:
        return frozenset()
    return frozenset(instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id).step_keys_to_execute)


def result_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the result that metadata carries."""
    found = metadata.get(RESULT)
    value = getattr(found, "value", None)
    return clean(dict(value)) if isinstance(value, dict) else {}  # type: ignore[no-any-return]


def figures_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Plain numbers and short texts of metadata."""
    values = {name: getattr(found, "value", None) for name, found in metadata.items()}
    plain = {name: value for name, value in values.items() if isinstance(value, int | float | str)}
    return {name: clean(value) for name, value in plain.items() if len(str(value)) < 200}


def failure_of(event: dg.DagsterEvent) -> dict[str, Any]:
    """Why a step failed: ``cause``, and the ``type`` of the platform's own error where it was one."""
    return _told(cause(event.step_failure_data.error))


def end_of(event: dg.DagsterEvent) -> dict[str, Any]:
    """What Dagster noted when it declared a run failed: the cause of an error outside the steps, where there is one."""
    data = event.event_specific_data
    error = data.error if isinstance(data, JobFailureData) else None
    return _told(Cause(event.message or "", None) if error is None else cause(error))


def _told(found: Cause) -> dict[str, Any]:
    return {"cause": clean(found.text[:2000]), "type": found.kind}


def failed_check(event: dg.DagsterEvent) -> dict[str, Any] | None:
    """A check that stopped the run, named; ``None`` where it passed or only warns."""
    found = event.asset_check_evaluation_data
    if found.passed or found.severity != dg.AssetCheckSeverity.ERROR:
        return None
    remedy = found.metadata.get("remedy")
    told = {
        "check": found.check_name,
        "asset": found.asset_key.to_user_string(),
        "description": (found.description or "")[:500],
        "remedy": str(remedy.value) if remedy is not None and remedy.value else None,
    }
    return {name: clean(value) for name, value in told.items()}


def clean(value: Any) -> Any:
    """JSON that every database takes: no numbers beyond it, no NUL characters."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.replace("\x00", "")
    if isinstance(value, Mapping):
        return {str(clean(name)): clean(found) for name, found in value.items()}
    if isinstance(value, list | tuple):
        return [clean(found) for found in value]
    return value


def utc(moment: datetime | float) -> datetime:
    """An instant with its time zone."""
    if isinstance(moment, datetime):
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return datetime.fromtimestamp(moment, UTC)


def _job(run: dg.DagsterRun) -> str:
    if run.job_name.startswith("__") and run.asset_selection:  # assets that somebody materialises in the web UI
        names = sorted(key.to_user_string() for key in run.asset_selection)
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return run.job_name


def _short(text: str, length: int) -> str:
    """A text of a run, which a person may have written in the web UI, as long as its column."""
    return str(clean(text))[:length]


def _origin(tags: Mapping[str, str]) -> str:
    if STARTED_BY in tags:
        return _short(tags[STARTED_BY], 20)
    if OWNER in tags:
        return "api"
    return "schedule" if {_SCHEDULE, _SENSOR, _BACKFILL} & set(tags) else "dagster"
