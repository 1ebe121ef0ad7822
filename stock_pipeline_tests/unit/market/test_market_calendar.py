"""The calendars say what the exchanges did: holidays, early closes, special sessions, and where knowledge ends."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from stock_pipeline.core.errors import ConfigurationError, DataError
from stock_pipeline.core.market.calendar import SessionCalendar, closures, names


@pytest.fixture(scope="module")
def nyse() -> SessionCalendar:
    return SessionCalendar("XNYS")


def test_sessions_skip_weekends_holidays_and_the_week_of_2001(nyse: SessionCalendar) -> None:
    assert nyse.sessions(date(2001, 9, 10), date(2001, 9, 18)) == [
        date(2001, 9, 10),
        date(2001, 9, 17),
        date(2001, 9, 18),
    ]
    assert not nyse.is_session(date(2023, 11, 23))
    assert nyse.sessions(date(2024, 1, 2), date(2024, 1, 1)) == []


def test_ranges_that_come_from_data_are_cut_to_what_is_known(nyse: SessionCalendar) -> None:
    everything = nyse.sessions(nyse.first, nyse.last)
    assert nyse.known_sessions(date(1900, 1, 1), date(2999, 1, 1)) == everything
    assert nyse.known_sessions(date(2999, 1, 1), date(2999, 2, 1)) == []
    with pytest.raises(DataError):
        nyse.sessions(date(2020, 1, 1), date(2999, 1, 1))


def test_moving_by_sessions(nyse: SessionCalendar) -> None:
    thanksgiving = date(2023, 11, 23)
    assert nyse.next(thanksgiving) == date(2023, 11, 24)
    assert nyse.previous(thanksgiving) == date(2023, 11, 22)
    assert nyse.next(date(2023, 11, 24)) == date(2023, 11, 27)
    assert [nyse.offset(thanksgiving, n) for n in (-1, 0, 1)] == [date(2023, 11, d) for d in (22, 22, 24)]
    assert nyse.offset(date(2023, 11, 24), -1) == date(2023, 11, 22)
    assert nyse.offset(date(2024, 1, 2), 251) == date(2024, 12, 31)


@pytest.mark.parametrize(
    ("name", "day", "close"),
    [
        ("XNYS", date(2024, 1, 10), "2024-01-10T21:00"),
        ("XNYS", date(2024, 7, 10), "2024-07-10T20:00"),  # summer time
        ("XNYS", date(2023, 11, 24), "2023-11-24T18:00"),  # early close
        ("XTKS", date(2024, 11, 1), "2024-11-01T06:00"),
        ("XTKS", date(2024, 11, 6), "2024-11-06T06:30"),  # half an hour longer since 2024-11-05
        ("XSHE", date(2024, 1, 10), "2024-01-10T07:00"),
        ("XLON", date(2023, 12, 22), "2023-12-22T12:30"),  # early close
        ("XNSE", date(2023, 11, 12), "2023-11-12T13:45"),  # the evening session of Diwali, a Sunday
        ("24/7", date(2024, 2, 29), "2024-03-01T00:00"),
    ],
)
def test_closes(name: str, day: date, close: str) -> None:
    assert SessionCalendar(name).close_utc(day) == datetime.fromisoformat(close).replace(tzinfo=UTC)


def test_latest_closed_session_changes_at_the_close(nyse: SessionCalendar) -> None:
    at = datetime(2023, 11, 24, 17, 59, 59, tzinfo=UTC)
    assert nyse.latest_closed(at) == date(2023, 11, 22)
    assert nyse.latest_closed(at.replace(hour=18, minute=0, second=0)) == date(2023, 11, 24)
    assert nyse.latest_closed(datetime(2023, 11, 26, tzinfo=UTC)) == date(2023, 11, 24)
    with pytest.raises(DataError, match="no time zone"):
        nyse.latest_closed(datetime(2023, 11, 24))


def test_special_sessions_of_india_and_former_saturdays_of_korea() -> None:
    india = SessionCalendar("XNSE")
    assert {date(2015, 2, 28), date(2020, 2, 1), date(2024, 1, 20)} <= set(india.weekend_sessions)
    assert india.is_session(date(2013, 11, 14))
    assert not india.is_session(date(2013, 11, 15))
    assert date(1995, 3, 4) in SessionCalendar("XKRX").weekend_sessions


def test_closures_are_the_weekdays_without_a_session(nyse: SessionCalendar) -> None:
    closed = closures("XNYS")
    assert date(2023, 11, 23) in closed
    assert all(day.weekday() < 5 for day in closed)
    assert not set(closed) & set(nyse.sessions(nyse.first, nyse.last))
    assert closures("24/5") == []


def test_unknown_name_suggests_a_known_one() -> None:
    with pytest.raises(ConfigurationError, match=r"'XNY'.*did you mean XNYS") as raised:
        SessionCalendar("XNY")
    assert "XTKS" in (raised.value.allowed or "")
    with pytest.raises(ConfigurationError):
        SessionCalendar("../calendar")


def test_the_end_is_announced_half_a_year_before_and_is_an_error_after() -> None:
    shanghai = SessionCalendar("XSHG")
    last = shanghai.last
    assert shanghai.warn_before_end(date(last.year, 1, 1)) is None
    assert f"ends on {last}" in (shanghai.warn_before_end(date(last.year, 11, 24)) or "")
    with pytest.raises(DataError, match="does not know that day"):
        shanghai.is_session(date(last.year + 1, 1, 4))
    with pytest.raises(DataError, match="newer release"):
        shanghai.latest_closed(datetime(last.year + 1, 2, 1, tzinfo=UTC))


def test_data_older_than_the_calendar_brings_its_own_sessions() -> None:
    tokyo = SessionCalendar("XTKS")
    assert tokyo.first == date(1997, 1, 1)
    with pytest.raises(DataError, match="with_observed"):
        tokyo.sessions(date(1990, 1, 1), date(1998, 1, 1))
    older = tokyo.with_observed([date(1996, 12, 30), date(1996, 12, 27), date(2000, 1, 1)])
    assert older.sessions(date(1996, 12, 27), date(1997, 1, 7))[:3] == [
        date(1996, 12, 27),
        date(1996, 12, 30),
        tokyo.sessions(tokyo.first, date(1997, 1, 31))[0],
    ]
    assert not older.is_session(date(2000, 1, 1))  # the exchange decides where it is known
    assert tokyo.with_observed([date(2000, 1, 4)]) is tokyo


def test_every_listed_calendar_loads() -> None:
    assert {"XNYS", "XNAS", "XSHG", "XSHE", "XTKS", "XNSE", "XBOM", "XLON", "XHKG", "24/7", "24/5"} <= set(names())
    for name in names():
        calendar = SessionCalendar(name)
        day = calendar.latest_closed(datetime(2024, 6, 12, 23, 59, tzinfo=UTC))
        assert calendar.previous(day) < day < calendar.next(day)


def test_agrees_with_exchange_calendars(nyse: SessionCalendar) -> None:
    import exchange_calendars

    oracle = exchange_calendars.get_calendar("XNYS", start="1990-01-01", end="2026-12-31")
    expected = [stamp.date() for stamp in oracle.sessions]
    assert nyse.sessions(date(1990, 1, 1), date(2026, 12, 31)) == expected
    closes = [stamp.to_pydatetime() for stamp in oracle.closes.dt.tz_convert("UTC")]
    assert [nyse.close_utc(day) for day in expected] == closes


def test_agrees_with_real_prices(nyse: SessionCalendar, sample_dir: Path) -> None:
    apple = pl.read_csv(sample_dir / "bars" / "AAPL.csv").get_column("session").str.to_date("%Y-%m-%d").to_list()
    assert nyse.sessions(apple[0], apple[-1]) == apple


def test_agrees_with_a_broad_indian_panel(market_data: Path) -> None:
    days = pl.read_parquet(market_data / "in_nse250.parquet", columns=["date"]).group_by("date").len()
    traded = set(days.filter(pl.col("len") > 100).get_column("date").cast(pl.Date).to_list())
    gap = date(2008, 9, 12)  # the vendor has 7 stocks of 250 on that session
    assert SessionCalendar("XNSE").sessions(min(traded), max(traded)) == sorted({*traded, gap})


def test_needs_no_heavy_import() -> None:
    code = (
        "import sys; from stock_pipeline.core.market.calendar import SessionCalendar; SessionCalendar('XNYS').closures;"
        "print([m for m in ('pandas', 'exchange_calendars', 'polars') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
