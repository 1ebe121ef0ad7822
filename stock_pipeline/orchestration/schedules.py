"""When work starts by itself: after the close of each session, once a week, and maintenance."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg

from stock_pipeline.orchestration.maintenance import maintenance_job
from stock_pipeline.orchestration.partitions import range_tags
from stock_pipeline.orchestration.resources import Platform


def build(platform: Platform) -> list[dg.ScheduleDefinition]:
    """The three schedules, in the exchange's time zone."""
    settings, calendar = platform.settings.schedules, platform.calendar
    zone = ZoneInfo(calendar.timezone)
    status = dg.DefaultScheduleStatus.RUNNING if settings.enabled else dg.DefaultScheduleStatus.STOPPED
    delay = timedelta(minutes=settings.nightly_after_close_minutes)
    hour, minute = _after_close(platform, delay)

    @dg.schedule(
        name="nightly",
        job_name="nightly",
        cron_schedule=f"{minute} {hour} * * *",
        execution_timezone=calendar.timezone,
        default_status=status,
        description="After the close of each session: new prices to publication; missed nights are caught up.",
    )
    def nightly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        tick = context.scheduled_execution_time.astimezone(zone)
        session = (tick - delay).date()
        # a calendar that has ended must not stop the nightly work: every weekday counts, and an alert says why
        is_session = calendar.is_session(session) if session <= calendar.last else session.weekday() < 5
        if not is_session:
            return dg.SkipReason(f"{session} is not a session of {calendar.name}")
        newest = platform.lake.last_session("market/validated_bars")
        first = newest.year if newest else settings_first_year(platform)
        last = platform.settings.market.history.last or session.year
        return dg.RunRequest(
            run_key=f"nightly-{session}",
            tags={**range_tags(str(min(first, last)), str(last)), "stock_pipeline/session": session.isoformat()},
        )

    @dg.schedule(
        name="weekly_retrain",
        job_name="weekly_retrain",
        cron_schedule=f"0 6 * * {(settings.retrain_weekday + 1) % 7}",
        execution_timezone=calendar.timezone,
        default_status=status,
        description="Train the candidates on all data, promote through the gate, score and publish.",
    )
    def weekly_retrain(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        families = platform.settings.models.families
        day = context.scheduled_execution_time.date()
        return dg.RunRequest(run_key=f"retrain-{day}", tags=range_tags(families[0], families[-1]))

    maintenance = dg.ScheduleDefinition(
        name="maintenance",
        job=maintenance_job(platform),
        cron_schedule="0 9 * * 0",
        execution_timezone=calendar.timezone,
        default_status=status,
        description="Compact and vacuum the lake, drop old runs, logs and reports.",
    )
    return [nightly, weekly_retrain, maintenance]


def settings_first_year(platform: Platform) -> int:
    """First year of the market's partitions."""
    return platform.settings.market.history.first


def _after_close(platform: Platform, delay: timedelta) -> tuple[int, int]:
    """Hour and minute, exchange time, at which the regular close plus the delay has passed."""
    calendar = platform.calendar
    today = min(datetime.now(UTC).date(), calendar.last)
    zone = ZoneInfo(calendar.timezone)
    recent = calendar.sessions(today - timedelta(days=21), today)
    closes = [calendar.close_utc(day).astimezone(zone) for day in recent]
    latest = max((close.hour, close.minute) for close in closes)
    at = datetime(2000, 1, 1, *latest) + delay
    return at.hour, at.minute
