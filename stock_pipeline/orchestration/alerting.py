"""Turns what Dagster recorded of a run into alerts; enqueuing and sending belong to the outbox."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg

from stock_pipeline.observability.alerts import Alert
from stock_pipeline.orchestration.causes import cause

ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
LOOK = "look at the check's metadata on the asset's page and at the quality report"


def run_failure(run: dg.DagsterRun, instance: dg.DagsterInstance, at: datetime) -> Alert:
    """Alert of a failed run, with the step and the innermost cause where the events tell them.

    A run that died without a step event (killed, out of memory, over its time limit) is a failure too.
    """
    step, text = "no step", _run_message(run, instance)
    failures = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records
    if failures:
        event = failures[0].event_log_entry.get_dagster_event()
        step, text = event.step_key or step, cause(event.step_failure_data.error).text
    again = run.tags.get("dagster/will_retry") == "true"
    return Alert(
        kind="run_failure",
        severity="warning" if again else "error",
        title=f"{run.job_name} failed at {step}",
        body=text[:2000],
        fingerprint=f"{failure_prefix(run)}{step}",
        source_key=f"run_failure:{run.run_id}",
        created_at=at,
        labels={"run": run.run_id, "job": run.job_name},
        remedy="Dagster starts it again by itself"
        if again
        else "open the run in the Dagster web UI; after the cause is mended, re-execute it from failure",
    )


def unreadable(run: dg.DagsterRun, at: datetime, error: Exception) -> Alert:
    """Alert of an ended run whose events cannot be read, so that nobody knows what its checks have found."""
    return Alert(
        kind="run_failure",
        severity="error",
        title=f"what a run of {run.job_name} did cannot be read",
        body=f"{type(error).__name__}: {error}"[:2000],
        fingerprint=f"{failure_prefix(run)}unreadable",
        source_key=f"run_unreadable:{run.run_id}",
        created_at=at,
        labels={"run": run.run_id, "job": run.job_name},
        remedy="start the job again, and look at the storage of Dagster's events",
    )


def failure_prefix(run: dg.DagsterRun) -> str:
    """What the fingerprints of all failures of a run's job begin with: a later success of the job ends them."""
    return f"run_failure:{run.job_name}:"


def check_verdicts(run: dg.DagsterRun, instance: dg.DagsterInstance) -> Iterator[tuple[str, bool, Alert]]:
    """Every check that was evaluated in a run: its fingerprint, whether it passed, and the alert if it did not."""
    records = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION).records
    for record in records:
        entry = record.event_log_entry
        found = entry.get_dagster_event().asset_check_evaluation_data
        name = f"{found.asset_key.to_user_string()}:{found.check_name}"
        severe = found.severity == dg.AssetCheckSeverity.ERROR
        remedy = found.metadata.get("remedy")
        facts = "; ".join(f"{key}: {value.value}" for key, value in found.metadata.items() if _told(key, value.value))
        yield (
            f"check:{name}",
            found.passed,
            Alert(
                kind="check_failure",
                severity="error" if severe else "warning",
                title=f"check failed: {name}",
                body=found.description or facts or "the check did not pass",
                fingerprint=f"check:{name}",
                source_key=f"check:{name}:{run.run_id}",
                created_at=datetime.fromtimestamp(entry.timestamp, UTC),
                labels={"run": run.run_id, "job": run.job_name, "asset": found.asset_key.to_user_string()},
                remedy=str(remedy.value) if remedy is not None and remedy.value else LOOK,
            ),
        )


def _run_message(run: dg.DagsterRun, instance: dg.DagsterInstance) -> str:
    """What Dagster noted when it declared the run failed."""
    records = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE).records
    for record in records:
        message = record.event_log_entry.get_dagster_event().message
        if message:
            return message
    return "the run ended without a step failure: it was killed, or its process died"


def _told(key: str, value: object) -> bool:
    return key != "remedy" and isinstance(value, int | float | str) and len(str(value)) < 200
