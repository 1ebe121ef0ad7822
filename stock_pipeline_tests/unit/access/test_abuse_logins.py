"""An attack on real log-ins from beginning to end: delayed, locked, told, while the owner goes on working."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from stock_pipeline.access.audit import AuditFilter
from stock_pipeline.access.facade import Access
from stock_pipeline.access.principal import AccessError, Origin
from stock_pipeline.config.access import AccessSettings
from stock_pipeline.storage.outbox import AlertOutbox

SETTINGS = AccessSettings.model_validate({"passwords": {"memory_kib": 8, "passes": 1, "lanes": 1}})
RIGHT = "seven green bicycles"
OFFICE, ATTACKER = Origin("198.51.100.7", "Firefox/140"), Origin("203.0.113.9", "curl/8")


@pytest.mark.requirement("R8.4", "R8.5")
def test_an_attack_on_one_account(database: Engine, tmp_path: Path) -> None:
    now = [datetime(2026, 1, 5, 12, tzinfo=UTC)]
    outbox = AlertOutbox(database)
    access = Access(database, SETTINGS, tmp_path, outbox=outbox, clock=lambda: now[0])
    access.accounts.create("Ann", password=RIGHT, roles=("analyst",), by="test")
    first = access.logins.log_in("ann", RIGHT, origin=OFFICE)
    assert not first.session.step_up

    answers: list[str] = []
    while "account-locked" not in answers:
        try:
            access.logins.log_in("ann", f"wrong guess {len(answers)}", origin=ATTACKER)
        except AccessError as error:
            answers.append(error.kind)
            if error.kind == "too-many-attempts":
                now[0] += timedelta(seconds=error.retry_after or 0)
    assert answers.count("invalid-credentials") == 10
    assert answers.count("too-many-attempts") == 7
    with pytest.raises(AccessError) as locked:  # now even the right password does not help from there
        access.logins.log_in("ann", RIGHT, origin=ATTACKER)
    assert (locked.value.status, locked.value.kind) == (423, "account-locked")
    assert access.accounts.get("ann").locked_until is not None

    again = access.logins.log_in("ANN", RIGHT, origin=OFFICE)  # the owner at the usual place
    assert not again.session.step_up
    access.accounts.unlock("ann", "test")
    elsewhere = access.logins.log_in("ann", RIGHT, origin=ATTACKER)  # or whoever has the password by now
    assert elsewhere.session.step_up

    assert {alert.labels["rule"] for alert in outbox.open_alerts()} == {"brute_force", "new_device"}
    access.watch.review(now[0])
    assert len(outbox.open_alerts()) == 2  # told once
    refused = access.audit.entries(AuditFilter(action="session.log_in", result="refused"))
    assert {entry.object_id for entry in refused} == {"Ann"}
    assert {entry.address for entry in refused} == {ATTACKER.address}
    written = "".join(access.audit.export("jsonl"))
    assert RIGHT not in written
    assert "wrong guess" not in written
    assert access.audit.verify().intact
