"""Turns what Dagster recorded of a run into alerts; enqueuing and sending belong to the outbox."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg

from stock_pipeline.observability.alerts import Alert

ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE)


def run_failure(run: dg.DagsterRun, instance: dg.DagsterInstance, at: datetime) -> Alert:
    """Alert of a failed run, with the step and the innermost cause where the events tell them.

    A run that died without a step event (killed, out of memory) is a failure too.
    """
    step, cause = "no step", "the run ended without a step failure: it was killed, or its process died"
    failures = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records
    if failures:
        event = failures[0].event_log_entry.get_dagster_event()
        error = event.step_failure_data.error
        while error is not None and error.cause is not None:
            error = error.cause
        step, cause = event.step_key or step, error.message.strip() if error else cause
    return Alert(
        kind="run_failure",
        severity="error",
        title=f"{run.job_name} failed at {step}",
        body=cause[:2000],
        fingerprint=f"run_failure:{run.job_name}:{step}",
        source_key=f"run_failure:{run.run_id}",
        created_at=at,
        labels={"run": run.run_id, "job": run.job_name},
        remedy="open the run in the Dagster web UI; after the cause is mended, re-execute it from failure",
    )


def check_verdicts(run: dg.DagsterRun, instance: dg.DagsterInstance) -> Iterator[tuple[str, bool, Alert]]:
    """Every check that was evaluated in a run: its fingerprint, whether it passed, and the alert if it did not."""
    records = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION).records
    for record in records:
        entry = record.event_log_entry
        found = entry.get_dagster_event().asset_check_evaluation_data
        name = f"{found.asset_key.to_user_string()}:{found.check_name}"
        severe = found.severity == dg.AssetCheckSeverity.ERROR
        facts = "; ".join(f"{key}: {value.value}" for key, value in found.metadata.items() if _short(value.value))
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
                remedy="look at the check's metadata on the asset's page and at the quality report",
            ),
        )


def _short(value: object) -> bool:
    return isinstance(value, int | float | str) and len(str(value)) < 200
