"""What is watched beside the runs: stale bars, the end of the exchange calendar, a disk that fills up, workers."""

from __future__ import annotations

import shutil
from datetime import date, datetime, timedelta

import dagster as dg

from stock_pipeline.core.market.calendar import SessionCalendar
from stock_pipeline.observability.alerts import Alert
from stock_pipeline.observability.redaction import redact_text
from stock_pipeline.orchestration.resources import Platform
from stock_pipeline.orchestration.schedules import newest_session

GIB = 2**30
LOW_DISK, FULL_DISK = 5 * GIB, 1 * GIB
"""Free bytes of the home folder's disk at which people are warned, and at which a night may not be stored."""


def freshness(platform: Platform, now: datetime) -> str:
    """Raise or resolve the alert about stale bars; returns what was found."""
    calendar, allowed = platform.calendar, platform.settings.schedules.stale_after_sessions
    newest = platform.lake.last_session("market/validated_bars")
    if newest is None:
        return "there are no bars yet"
    expected = newest_session(calendar, now)
    behind = _sessions_between(calendar, newest, expected)
    name = platform.settings.market.name
    if behind < allowed:
        platform.alert_outbox.resolve(f"stale:{name}", now)
        return f"the newest bars are of {newest}, {behind} sessions behind"
    platform.alert_outbox.enqueue(
        Alert(
            kind="stale_data",
            severity="error",
            title=f"{name}: bars are {behind} sessions old",
            body=f"the newest validated bars are of {newest}; {expected} has closed",
            fingerprint=f"stale:{name}",
            source_key=f"stale:{name}:{expected}",
            created_at=now,
            labels={"newest": str(newest), "expected": str(expected)},
            remedy="look at the last nightly run and at the vendor; then run `stock-pipeline run`",
        )
    )
    return f"stale: {behind} sessions behind"


def _sessions_between(calendar: SessionCalendar, after: date, until: date) -> int:
    """Sessions later than `after` up to `until`; beyond the calendar's end every weekday counts."""
    known = [day for day in calendar.known_sessions(after, until) if day > after] if after < until else []
    first = max(after, calendar.last)
    later = (first + timedelta(days=n) for n in range(1, (until - first).days + 1))
    return len(known) + sum(day.weekday() < 5 for day in later)


def calendar_end(platform: Platform, now: datetime) -> None:
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


def disk_space(platform: Platform, now: datetime, free: int | None = None) -> None:
    """Say that the disk fills up while there is still room to say it.

    Parameters
    ----------
    free
        Free bytes; those of the home folder's disk where ``None``.
    """
    home, outbox = platform.settings.home, platform.alert_outbox
    left = shutil.disk_usage(home).free if free is None else free
    if left >= LOW_DISK:
        outbox.resolve("disk:home", now)
        return
    full = left < FULL_DISK
    since = _since(platform, "disk:home", now)
    outbox.enqueue(
        Alert(
            kind="disk_space",
            severity="error" if full else "warning",
            title=f"{left / GIB:.1f} GiB are left on the disk of the home folder",
            body=f"{home} needs room for every night; when the disk is full, nothing new is stored or published",
            fingerprint="disk:home",
            source_key=f"disk:home:{'full' if full else 'low'}:{since}:{now:%Y-%m-%d}",
            created_at=now,
            remedy="free some space, or lower schedules.keep_runs_days and start the job `maintenance`",
        )
    )


def workers(platform: Platform, instance: dg.DagsterInstance, now: datetime) -> str:
    """Say that runs wait for a worker and none is there, or that the broker is away, and that it is over once a worker
    answers; returns what was found.

    Only where `tasks.workers` is configured.
    """
    from kombu.exceptions import OperationalError

    from stock_pipeline.orchestration.worker_launcher import WorkerLauncher

    launcher = instance.run_launcher
    assert isinstance(launcher, WorkerLauncher)
    market, outbox = platform.settings.market.name, platform.alert_outbox
    fingerprint = f"workers:{market}"
    try:
        names = launcher.workers()
    except OperationalError as error:
        away, title = "broker", f"{market}: the broker cannot be reached, so no work is handed to workers"
        found = f"the broker cannot be reached: {redact_text(str(error))}"
        remedy = "start the Redis of tasks.workers.broker, or see why this machine does not reach it"
    else:
        if names:
            outbox.resolve(fingerprint, now)
            return f"there are {len(names)}: {', '.join(names)}"
        waiting = instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTING]))
        if not waiting:
            return "none answers; 0 runs wait for one"
        away, title = "worker", f"{market}: no worker answers, and work waits for one"
        found = f"none answers; {waiting} runs wait for one"
        remedy = "start `stock-pipeline worker` on a machine that reaches the broker"
    outbox.enqueue(
        Alert(
            kind="no_worker",
            severity="error",
            title=title,
            body=f"{found}; they begin by themselves once it is over",
            fingerprint=fingerprint,
            source_key=f"{fingerprint}:{away}:{_since(platform, fingerprint, now)}:{now:%Y-%m-%dT%H}",
            created_at=now,
            remedy=remedy,
        )
    )
    return found


def _since(platform: Platform, fingerprint: str, now: datetime) -> str:
    """When what a fingerprint tells began: it is told again when it comes back, and not twice while it lasts."""
    alerts = platform.alert_outbox.open_alerts()
    return f"{min((one.created_at for one in alerts if one.fingerprint == fingerprint), default=now):%Y-%m-%dT%H:%M:%S}"
