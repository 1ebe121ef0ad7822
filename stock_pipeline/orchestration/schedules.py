"""When work starts by itself: after the close of each session, once a week, and maintenance."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg

from stock_pipeline.config.launches import range_tags
from stock_pipeline.core.errors import PipelineError
from stock_pipeline.core.market.calendar import SessionCalendar
from stock_pipeline.orchestration.maintenance import maintenance_job
from stock_pipeline.orchestration.resources import Platform

AGAIN_AFTER_HOURS = (2, 6)
"""Hours after the first attempt at which a night that is not published yet is tried again: vendors are late."""

RETRIES = {"dagster/max_retries": "2"}
"""How often Dagster starts a scheduled run again whose process died; a failed step or check is not repeated blindly."""


def build(platform: Platform) -> list[dg.ScheduleDefinition]:
    """The three schedules, in the exchange's time zone."""
    settings, calendar = platform.settings.schedules, platform.calendar
    status = dg.DefaultScheduleStatus.RUNNING if settings.enabled else dg.DefaultScheduleStatus.STOPPED
    delay = timedelta(minutes=settings.nightly_after_close_minutes)
    at = _usual_close(calendar, datetime.now(UTC).date()) + delay
    times = [at, *(at + timedelta(hours=hours) for hours in AGAIN_AFTER_HOURS)]

    @dg.schedule(
        name="nightly",
        job_name="nightly",
        cron_schedule=[f"{time.minute} {time.hour} * * *" for time in times],
        execution_timezone=calendar.timezone,
        default_status=status,
        description="After the close of each session: new prices to publication. Runs when the newest session that has "
        "closed is not published, so a missed or failed night is caught up at the next tick, on any day.",
    )
    def nightly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        tick = context.scheduled_execution_time.astimezone(UTC)
        session = newest_session(calendar, tick - delay)
        last = platform.settings.market.history.last
        if last is not None and session.year > last:
            return dg.SkipReason(f"the market's history ends with {last} (market.history.last)")
        published = _stored(platform, "predictions/published")
        if published is not None and published >= session:
            return dg.SkipReason(f"{session}, the newest session of {calendar.name} that has closed, is published")
        newest = _stored(platform, "market/validated_bars")
        first = newest.year if newest else platform.settings.market.history.first
        return dg.RunRequest(
            run_key=f"nightly-{session}-{tick:%Y%m%dT%H%M}",
            tags={
                **range_tags(str(min(first, session.year)), str(session.year)),
                **RETRIES,
                "stock_pipeline/session": session.isoformat(),
            },
        )

    @dg.schedule(
        name="weekly_retrain",
        job_name="weekly_retrain",
        cron_schedule=f"0 6 * * {(settings.retrain_weekday + 1) % 7}",
        execution_timezone=calendar.timezone,
        default_status=status,
        description="Train the candidates on all data, promote through the gate, score and publish.",
    )
    def weekly_retrain(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        if _stored(platform, "market/validated_bars") is None:
            return dg.SkipReason("there are no bars to learn from yet")
        families = platform.settings.models.families
        day = context.scheduled_execution_time.date()
        return dg.RunRequest(run_key=f"retrain-{day}", tags={**range_tags(families[0], families[-1]), **RETRIES})

    maintenance = dg.ScheduleDefinition(
        name="maintenance",
        job=maintenance_job(platform),
        cron_schedule="0 9 * * 0",
        execution_timezone=calendar.timezone,
        default_status=status,
        description="Compact and vacuum the lake, forget old runs, their logs and settled alerts.",
    )
    return [nightly, weekly_retrain, maintenance]


def newest_session(calendar: SessionCalendar, instant: datetime) -> date:
    """Newest session that has closed at an instant.

    A calendar that has ended must not stop the nightly work: after its end every weekday counts, and an alert says so.
    """
    day = instant.astimezone(ZoneInfo(calendar.timezone)).date()
    if day <= calendar.last:
        return calendar.latest_closed(instant)
    while day > calendar.last:
        if day.weekday() < 5 and calendar.usual_close_utc(day) <= instant:
            return day
        day -= timedelta(days=1)
    return calendar.sessions(day - timedelta(days=30), day)[-1]


def _stored(platform: Platform, table: str) -> date | None:
    """Newest stored session; ``None`` where there is none, or where the table cannot be read: then the run says why."""
    try:
        return platform.lake.last_session(table)
    except PipelineError:
        return None


def _usual_close(calendar: SessionCalendar, today: date) -> datetime:
    """The latest time of day, exchange time, at which sessions around today close.

    Changes that are known already count from today on, because the services run for months without a restart.
    """
    zone = ZoneInfo(calendar.timezone)
    end = min(today + timedelta(days=365), calendar.last)
    sessions = calendar.sessions(min(today, end) - timedelta(days=21), end)
    closes = [calendar.close_utc(day).astimezone(zone) for day in sessions]
    latest = max((close.hour, close.minute) for close in closes)
    return datetime(2000, 1, 1, *latest)
