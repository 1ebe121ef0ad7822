"""When work starts by itself: in exchange time, for sessions that have closed, and for nights that were missed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import polars as pl
import pytest

from stock_pipeline.config import Settings, load_settings
from stock_pipeline.config.launches import RANGE_END, RANGE_START
from stock_pipeline.core.market.calendar import SessionCalendar
from stock_pipeline.orchestration import schedules
from stock_pipeline.orchestration.definitions import build_definitions
from stock_pipeline.orchestration.resources import Platform
from stock_pipeline.orchestration.schedules import newest_session
from stock_pipeline_tests.orchestration.conftest import make_market

pytestmark = pytest.mark.requirement("P3")


def platform(folder: Path, calendar: str = "XNYS", **changes: Any) -> Platform:
    market = {"name": "small", "calendar": calendar, "history": {"first": 2016}}
    config = make_market(folder, until="2016-01-05", changes={"market": market, **changes})
    return Platform(load_settings(config, environment={}))


def stored(made: Platform, published: str, bars: str | None = None) -> Platform:
    for table, day in (("predictions/published", published), ("market/validated_bars", bars or published)):
        frame = pl.DataFrame({"symbol": ["A"], "session": [date.fromisoformat(day)], "close": [1.0]})
        made.lake.replace(table, frame)
    return made


def schedule(made: Platform, name: str = "nightly") -> dg.ScheduleDefinition:
    return next(found for found in schedules.build(made) if found.name == name)


def tick(made: Platform, at: str, zone: str = "America/New_York", name: str = "nightly") -> Any:
    """What a schedule answers at a local time; it must be a single request or the reason of a skip."""
    moment = datetime.fromisoformat(at).replace(tzinfo=ZoneInfo(zone))
    data = schedule(made, name).evaluate_tick(dg.build_schedule_context(scheduled_execution_time=moment))
    if data.run_requests:
        (request,) = data.run_requests
        return request
    return data.skip_message


def session_of(request: Any) -> str:
    return str(request.tags["stock_pipeline/session"])


def test_the_night_after_a_session_is_requested(tmp_path: Path) -> None:
    made = stored(platform(tmp_path), "2024-07-02")
    request = tick(made, "2024-07-03T17:30")
    assert session_of(request) == "2024-07-03", "a session with an early close"
    assert (request.tags[RANGE_START], request.tags[RANGE_END]) == ("2024", "2024")


@pytest.mark.parametrize(
    ("at", "published"),
    [
        ("2024-07-04T17:30", "2024-07-03"),  # a holiday
        ("2024-07-06T17:30", "2024-07-05"),  # a Saturday
        ("2024-07-07T17:30", "2024-07-05"),  # a Sunday
        ("2024-07-05T15:30", "2024-07-03"),  # before the close
        ("2024-07-05T19:30", "2024-07-05"),  # the second try of a night that went well
    ],
)
def test_nothing_is_requested_where_nothing_new_has_closed(tmp_path: Path, at: str, published: str) -> None:
    reason = tick(stored(platform(tmp_path), published), at)
    assert isinstance(reason, str)
    assert published in reason


def test_missed_nights_are_caught_up_at_the_next_tick_also_on_a_weekend(tmp_path: Path) -> None:
    made = stored(platform(tmp_path), "2024-07-02")
    request = tick(made, "2024-07-06T17:30")
    assert session_of(request) == "2024-07-05"


def test_missed_nights_over_new_year_ask_for_both_years(tmp_path: Path) -> None:
    made = stored(platform(tmp_path), "2024-12-27")
    request = tick(made, "2025-01-02T17:30")
    assert session_of(request) == "2025-01-02"
    assert (request.tags[RANGE_START], request.tags[RANGE_END]) == ("2024", "2025")
    on_the_eve = tick(made, "2024-12-31T17:30")
    assert (on_the_eve.tags[RANGE_START], on_the_eve.tags[RANGE_END]) == ("2024", "2024")


def test_a_night_whose_publication_failed_is_tried_again(tmp_path: Path) -> None:
    made = stored(platform(tmp_path), published="2024-07-02", bars="2024-07-03")
    first, second = tick(made, "2024-07-03T17:30"), tick(made, "2024-07-03T19:30")
    assert session_of(first) == session_of(second) == "2024-07-03"
    assert first.run_key != second.run_key, "Dagster starts a key only once"


def test_without_any_bars_the_whole_history_is_requested(tmp_path: Path) -> None:
    request = tick(platform(tmp_path), "2024-07-03T17:30")
    assert (request.tags[RANGE_START], request.tags[RANGE_END]) == ("2016", "2024")


def test_a_market_that_has_ended_is_left_alone(tmp_path: Path) -> None:
    market = {"name": "small", "calendar": "XNYS", "history": {"first": 2016, "last": 2021}}
    made = platform(tmp_path, market=market)
    assert "2021" in tick(made, "2024-07-03T17:30")


@pytest.mark.parametrize(
    ("day", "utc_hour"),
    [("2024-03-08", 22), ("2024-03-11", 21), ("2024-11-01", 21), ("2024-11-04", 22)],
)
def test_the_clock_change_moves_the_tick_with_the_exchange(tmp_path: Path, day: str, utc_hour: int) -> None:
    made = stored(platform(tmp_path), "2024-01-03")
    definition = schedule(made)
    assert definition.execution_timezone == "America/New_York"
    assert isinstance(definition.cron_schedule, list)
    assert definition.cron_schedule[0] == "30 17 * * *", "90 minutes after the usual close"
    request = tick(made, f"{day}T17:30")
    assert session_of(request) == day
    moment = datetime.fromisoformat(f"{day}T17:30").replace(tzinfo=ZoneInfo("America/New_York"))
    assert moment.astimezone(UTC).hour == utc_hour


def test_shanghai_in_its_own_time_and_holidays(tmp_path: Path) -> None:
    made = stored(platform(tmp_path, "XSHG"), "2024-02-07")
    definition = schedule(made)
    assert definition.execution_timezone == "Asia/Shanghai"
    assert definition.cron_schedule[0] == "30 16 * * *"
    assert session_of(tick(made, "2024-02-08T16:30", "Asia/Shanghai")) == "2024-02-08"
    stored(made, "2024-02-08")
    for holiday in ("2024-02-09", "2024-02-12", "2024-02-16"):
        assert isinstance(tick(made, f"{holiday}T16:30", "Asia/Shanghai"), str)
    assert session_of(tick(made, "2024-02-19T16:30", "Asia/Shanghai")) == "2024-02-19"


def test_a_market_round_the_clock_closes_at_midnight(tmp_path: Path) -> None:
    made = stored(platform(tmp_path, "24/7"), "2024-06-08")
    assert schedule(made).cron_schedule[0] == "30 1 * * *"
    assert session_of(tick(made, "2024-06-10T01:30", "UTC")) == "2024-06-09", "not the day that has just begun"


def test_a_later_close_that_is_known_already_counts(tmp_path: Path) -> None:
    """Tokyo has closed at 15:30 since 2024-11-05; services that were started before must not fetch too early."""
    close = schedules._usual_close(SessionCalendar("XTKS"), date(2024, 6, 3))
    assert (close.hour, close.minute) == (15, 30)


def test_after_the_end_of_the_calendar_every_weekday_counts(tmp_path: Path) -> None:
    calendar = SessionCalendar("XNYS")
    year = calendar.last.year + 1
    friday = next(date(year, 6, day) for day in range(1, 8) if date(year, 6, day).weekday() == 4)
    evening = datetime(friday.year, friday.month, friday.day, 23, tzinfo=UTC)
    assert newest_session(calendar, evening) == friday
    assert newest_session(calendar, evening.replace(day=friday.day + 2)) == friday
    made = stored(platform(tmp_path), (calendar.last).isoformat())
    request = tick(made, f"{friday}T17:30")
    assert session_of(request) == friday.isoformat()
    stored(made, friday.isoformat())
    assert isinstance(tick(made, f"{friday}T19:30"), str)


def test_weekly_retraining_names_all_families(tmp_path: Path) -> None:
    made = stored(platform(tmp_path), "2024-07-02")
    request = tick(made, "2024-07-06T06:00", name="weekly_retrain")
    assert (request.tags[RANGE_START], request.tags[RANGE_END]) == ("ridge", "lightgbm")
    assert schedule(made, "weekly_retrain").cron_schedule == "0 6 * * 6", "Saturday, when no session is waiting"


def test_schedules_run_by_themselves_only_where_that_is_switched_on(tmp_path: Path) -> None:
    off, on = platform(tmp_path / "off"), platform(tmp_path / "on", schedules={"enabled": True})
    for name in ("nightly", "weekly_retrain", "maintenance"):
        assert schedule(off, name).default_status == dg.DefaultScheduleStatus.STOPPED
        assert schedule(on, name).default_status == dg.DefaultScheduleStatus.RUNNING


def test_what_a_schedule_requests_can_be_run(copy_of_finished: Callable[[], Settings]) -> None:
    """The tags of a request, on the job, in this process: only the requested year is looked at, and it succeeds."""
    from stock_pipeline.orchestration.bootstrap import open_instance

    settings = copy_of_finished()
    made = Platform(settings)
    newest = made.lake.last_session("predictions/published")
    assert newest == date(2021, 6, 30)
    make_market(settings.config_file.parent, until="2021-07-01")
    request = tick(made, "2021-07-01T17:30")
    assert session_of(request) == "2021-07-01"
    with open_instance(settings) as instance:
        job = build_definitions(made).resolve_job_def("nightly")
        result = job.execute_in_process(instance=instance, tags={**job.tags, **request.tags})
    assert result.success
    assert made.lake.last_session("predictions/published") == date(2021, 7, 1)
    assert "published" in tick(made, "2021-07-01T19:30")
