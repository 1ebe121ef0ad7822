"""Sensors: they collect what went wrong into the durable outbox, and deliver what is due.

They are plain sensors, not run-status sensors: a plain sensor keeps its cursor when it fails, so nothing is lost while
the metadata database or a sink is down. What was seen already is recognised by its source key.
"""

from datetime import UTC, datetime, timedelta

import dagster as dg

from stock_pipeline.observability.alerts import Alert, build_sinks
from stock_pipeline.orchestration import alerting
from stock_pipeline.orchestration.resources import Platform

BATCH = 500
OVERLAP = timedelta(minutes=2)
"""Runs are looked at again for so long: the clocks of several writers need not agree to the second."""


def build(platform: Platform) -> list[dg.SensorDefinition]:
    """The sensors of one configuration; running unless the market has ended."""
    running = dg.DefaultSensorStatus.RUNNING
    stopped = dg.DefaultSensorStatus.STOPPED
    live = running if platform.settings.market.history.last is None else stopped

    @dg.sensor(
        name="collect_alerts",
        minimum_interval_seconds=60,
        default_status=running,
        description="Failed runs and failed checks of every ended run become alerts, also where the run succeeded.",
    )
    def collect_alerts(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        since = datetime.fromisoformat(context.cursor) if context.cursor else datetime.now(UTC) - timedelta(days=1)
        ended = dg.RunsFilter(statuses=list(alerting.ENDED), updated_after=since - OVERLAP)
        records = context.instance.get_run_records(ended, limit=BATCH, order_by="update_timestamp", ascending=True)
        new = sum(collect(platform, record, context.instance) for record in records)
        if records:
            context.update_cursor(max(since, records[-1].update_timestamp).isoformat())
        return dg.SkipReason(f"{len(records)} runs looked at, {new} new alerts")

    @dg.sensor(
        name="watch_freshness",
        minimum_interval_seconds=1800,
        default_status=live,
        description="Raises an alert when the newest bars are older than the exchange calendar allows.",
    )
    def watch_freshness(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        return dg.SkipReason(freshness(platform, datetime.now(UTC)))

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

    return [collect_alerts, watch_freshness, deliver_alerts]


def collect(platform: Platform, record: dg.RunRecord, instance: dg.DagsterInstance) -> int:
    """Put the alerts of one ended run into the outbox; returns how many were new."""
    run, outbox = record.dagster_run, platform.alert_outbox
    at = record.update_timestamp.replace(tzinfo=record.update_timestamp.tzinfo or UTC)
    new = 0
    if run.status == dg.DagsterRunStatus.FAILURE:
        new += outbox.enqueue(alerting.run_failure(run, instance, at))
    for fingerprint, passed, alert in alerting.check_verdicts(run, instance):
        if passed:
            outbox.resolve(fingerprint, alert.created_at)
        else:
            new += outbox.enqueue(alert)
    return new


def _calendar_end(platform: Platform, now: datetime) -> None:
    """Say long before that the exchange calendar ends, and that it is over once it was renewed."""
    name = platform.calendar.name
    warning = platform.calendar.warn_before_end(now.date())
    if warning is None:
        platform.alert_outbox.resolve(f"calendar:{name}", now)
        return
    platform.alert_outbox.enqueue(
        Alert(
            kind="calendar_ends",
            severity="warning",
            title=f"the exchange calendar {name} ends on {platform.calendar.last}",
            body=warning,
            fingerprint=f"calendar:{name}",
            source_key=f"calendar:{name}:{platform.calendar.last}:{now:%Y-%m}",
            created_at=now,
            remedy="update the package; until then the nightly run takes every weekday for a session",
        )
    )


def freshness(platform: Platform, now: datetime) -> str:
    """Raise or resolve the alert about stale bars; returns what was found."""
    calendar, allowed = platform.calendar, platform.settings.schedules.stale_after_sessions
    _calendar_end(platform, now)
    newest = platform.lake.last_session("market/validated_bars")
    if newest is None:
        return "there are no bars yet"
    expected = calendar.latest_closed(min(now, calendar.close_utc(calendar.last)))
    behind = len(calendar.sessions(newest, expected)) - 1 if expected > newest else 0
    fingerprint = f"stale:{platform.settings.market.name}"
    if behind < allowed:
        platform.alert_outbox.resolve(fingerprint, now)
        return f"the newest bars are of {newest}, {behind} sessions behind"
    platform.alert_outbox.enqueue(
        Alert(
            kind="stale_data",
            severity="error",
            title=f"{platform.settings.market.name}: bars are {behind} sessions old",
            body=f"the newest validated bars are of {newest}; {expected} has closed",
            fingerprint=fingerprint,
            source_key=f"stale:{platform.settings.market.name}:{expected}",
            created_at=now,
            labels={"newest": str(newest), "expected": str(expected)},
            remedy="look at the last nightly run and at the vendor; then run `stock-pipeline run`",
        )
    )
    return f"stale: {behind} sessions behind"
