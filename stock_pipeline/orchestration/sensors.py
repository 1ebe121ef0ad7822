"""Sensors: they collect what went wrong into the durable outbox, and deliver what is due.

They are plain sensors, not run-status sensors: a plain sensor keeps its cursor when it fails, so nothing is lost while
the metadata database or a sink is down. What was seen already is recognised by its source key.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg

from stock_pipeline.observability.alerts import Alert, build_sinks
from stock_pipeline.orchestration import alerting, watching
from stock_pipeline.orchestration.changed_runs import changed_at, changed_since
from stock_pipeline.orchestration.liveness import fail_lost_runs
from stock_pipeline.orchestration.resources import Platform
from stock_pipeline.storage.database import away


def build(platform: Platform) -> list[dg.SensorDefinition]:
    """The sensors of one configuration; running unless the market has ended."""
    running = dg.DefaultSensorStatus.RUNNING
    stopped = dg.DefaultSensorStatus.STOPPED
    live = running if platform.settings.market.history.last is None else stopped

    @dg.sensor(
        name="collect_alerts",
        minimum_interval_seconds=60,
        default_status=running,
        description="Failed runs, runs whose process is gone and failed checks become alerts, also where the run "
        "succeeded.",
    )
    def collect_alerts(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        lost = fail_lost_runs(context.instance)
        since = datetime.fromisoformat(context.cursor) if context.cursor else datetime.now(UTC) - timedelta(days=1)
        records, _ = changed_since(context.instance, since, alerting.ENDED)
        new = collect_all(platform, records, context.instance)
        if records:
            context.update_cursor(max(since, changed_at(records[-1])).isoformat())
        return dg.SkipReason(f"{len(records)} runs looked at, {new} new alerts, {len(lost)} runs had died")

    @dg.sensor(
        name="watch_market",
        minimum_interval_seconds=1800,
        default_status=live,
        description="Alerts when the newest bars are older than the exchange calendar allows, when the calendar "
        "itself ends soon, and when the disk of the home folder is nearly full.",
    )
    def watch_market(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        now = datetime.now(UTC)
        watching.disk_space(platform, now)
        watching.calendar_end(platform, now)
        return dg.SkipReason(watching.freshness(platform, now))

    @dg.sensor(
        name="deliver_alerts",
        minimum_interval_seconds=60,
        default_status=running,
        description="Sends due alerts to the log and the configured targets, with retries, grouping and recovery.",
    )
    def deliver_alerts(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        sinks = build_sinks(platform.settings.alerts.targets)
        report = platform.alert_outbox.deliver_due(sinks, datetime.now(UTC))
        return dg.SkipReason(f"sent {report.sent or 'nothing'}; failed {report.failed or 'nothing'}")

    @dg.sensor(
        name="watch_workers",
        minimum_interval_seconds=60,
        default_status=running,
        description="Alerts when work waits for a worker and none answers.",
    )
    def watch_workers(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        return dg.SkipReason(f"workers: {watching.workers(platform, context.instance, datetime.now(UTC))}")

    always = [collect_alerts, watch_market, deliver_alerts]
    return always if platform.settings.tasks.workers is None else [*always, watch_workers]


def collect(platform: Platform, record: dg.RunRecord, instance: dg.DagsterInstance) -> int:
    """Put the alerts of one ended run into the outbox; returns how many were new."""
    return collect_all(platform, [record], instance)


def collect_all(platform: Platform, records: Sequence[dg.RunRecord], instance: dg.DagsterInstance) -> int:
    """Put the alerts of ended runs, oldest first, into the outbox; returns how many were new.

    A run may be looked at again later. What it says in favour of a check or a job ends only what was wrong before it.
    """
    outbox, new = platform.alert_outbox, 0
    raised = {alert.fingerprint: alert.created_at for alert in outbox.open_alerts()}

    def over(fingerprint: str, at: datetime) -> None:
        if fingerprint in raised and raised[fingerprint] <= at:
            outbox.resolve(fingerprint, at)
            del raised[fingerprint]

    for record in records:
        run, at = record.dagster_run, changed_at(record)
        failure, verdicts = _told_by(run, instance, at)
        if run.status == dg.DagsterRunStatus.SUCCESS:
            for fingerprint in [name for name in raised if name.startswith(alerting.failure_prefix(run))]:
                over(fingerprint, at)
        if failure is not None and outbox.enqueue(failure):
            new, raised[failure.fingerprint] = new + 1, at
        for fingerprint, passed, alert in verdicts:
            if passed:
                over(fingerprint, alert.created_at)
            elif outbox.enqueue(alert):
                new, raised[fingerprint] = new + 1, alert.created_at
    return new


def _told_by(
    run: dg.DagsterRun, instance: dg.DagsterInstance, at: datetime
) -> tuple[Alert | None, list[tuple[str, bool, Alert]]]:
    """The failure of an ended run and the verdicts of its checks; of a run that cannot be read, that it cannot."""
    try:
        failure = alerting.run_failure(run, instance, at) if run.status == dg.DagsterRunStatus.FAILURE else None
        return failure, list(alerting.check_verdicts(run, instance))
    except Exception as error:
        if away(error):  # nothing is known, and all is asked again
            raise
        return alerting.unreadable(run, at, error), []  # one damaged run must not silence those that follow
