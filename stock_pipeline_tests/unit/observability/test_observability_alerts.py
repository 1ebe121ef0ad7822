"""What an alert must be, and how alerts of one problem become one notice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline.observability.alerts import Alert, Notice, compose

NOW = datetime(2024, 3, 1, 22, 0, tzinfo=UTC)


def alert(number: int = 0, **changes) -> Alert:
    fields = {
        "kind": "check_failure",
        "severity": "warning",
        "title": "bars have gaps",
        "body": f"body {number}",
        "fingerprint": "check:bars",
        "source_key": f"k{number}",
        "created_at": NOW + timedelta(minutes=number),
        **changes,
    }
    return Alert(**fields)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"severity": "fatal"}, "info, warning, error, critical"),
        ({"created_at": datetime(2024, 1, 1)}, "no time zone"),
        ({"fingerprint": ""}, "needs a fingerprint"),
        ({"source_key": ""}, "needs a fingerprint"),
    ],
)
def test_an_alert_that_could_not_be_handled_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        alert(**changes)


def test_many_alerts_are_one_notice_of_the_worst_severity() -> None:
    alerts = [alert(number, severity="critical" if number == 2 else "warning") for number in range(9)]
    notice = compose(alerts, recovered=False)
    assert (notice.severity, notice.count, notice.title) == ("critical", 9, "bars have gaps (9 times)")
    assert "body 8" in notice.body
    assert "body 3" not in notice.body
    assert "9 alerts since 2024-03-01 22:00:00 UTC; the last 5" in notice.body


def test_one_alert_is_told_with_its_labels_and_remedy() -> None:
    notice = compose([alert(labels={"asset": "market/raw_bars"}, remedy="fetch again")], recovered=False)
    assert notice == Notice(
        "warning",
        "bars have gaps",
        "body 0\nasset: market/raw_bars\nWhat to do: fetch again",
        "check:bars",
        1,
        False,
    )


def test_secrets_in_texts_do_not_leave_the_house() -> None:
    notice = compose([alert(title="https://u:pw1234@h refused", body="token=pw1234")], recovered=False)
    assert "pw1234" not in notice.title + notice.body
