"""Abuse: what is detected, how it is answered, and that it is told once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, insert, select
from sqlalchemy.orm import Session

from stock_pipeline.access import versions
from stock_pipeline.access.abuse import Watch
from stock_pipeline.access.audit import Audit, AuditFilter
from stock_pipeline.access.principal import AccessError, Origin, Principal
from stock_pipeline.config.access import AccessSettings
from stock_pipeline.storage.database.tables.accounts import AccountRow, KnownDeviceRow, SessionRow, ThrottleRow
from stock_pipeline.storage.outbox import AlertOutbox

pytestmark = pytest.mark.requirement("R8.5")
START = datetime(2026, 1, 5, 12, tzinfo=UTC)
HOME = Origin("198.51.100.7", "Mozilla/5.0 Firefox/140.0")
ELSEWHERE = Origin("203.0.113.9", "curl/8.1")
PLACES = [
    {"network": "198.51.100.0/24", "name": "London", "latitude": 51.507, "longitude": -0.128},
    {"network": "203.0.113.0/24", "name": "Tokyo", "latitude": 35.683, "longitude": 139.76},
    {"network": "192.0.2.0/24", "name": "Reading", "latitude": 51.454, "longitude": -0.978},
]


@dataclass
class World:
    """A platform with its own clock."""

    engine: Engine
    home: Path
    now: datetime = START

    def __post_init__(self) -> None:
        self.settings = AccessSettings(places=PLACES)
        self.outbox = AlertOutbox(self.engine)
        self.restart()

    def restart(self) -> None:
        self.audit = Audit(self.engine, self.home, clock=lambda: self.now)
        self.watch = Watch(
            self.engine, self.settings, self.audit, outbox=self.outbox, timezone="America/New_York",
            clock=lambda: self.now,
        )  # fmt: skip

    def account(self, name: str) -> AccountRow:
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            row = AccountRow(name=name, name_key=name.casefold(), created_at=self.now, created_by="test")
            session.add(row)
        return row

    def session_of(self, account: AccountRow, number: str, origin: Origin) -> None:
        with Session(self.engine) as session, session.begin():
            session.execute(
                insert(SessionRow).values(
                    id=number, account_id=account.id, kind="token", created_at=self.now, last_used_at=self.now,
                    expires_at=self.now + timedelta(days=1), address=origin.address, user_agent="", step_up=False,
                )
            )  # fmt: skip

    def wait(self, **length: float) -> None:
        self.now += timedelta(**length)

    def wrong(self, name: str, origin: Origin = ELSEWHERE) -> str | None:
        """A log-in with a wrong password; returns the code where it was refused before the password was looked at."""
        try:
            self.watch.check(name, origin)
        except AccessError as error:
            return error.kind
        self.watch.failed(name, origin)
        return None

    def right(self, account: AccountRow, origin: Origin = HOME):
        self.watch.check(account.name, origin)
        self.watch.proved(account.name, origin)
        finding = self.watch.succeeded(account, origin)
        self.audit.record(
            "session.log_in", actor=Principal(account.name, "token"), origin=origin, object=("account", account.name)
        )
        return finding

    def patient(self, name: str, count: int, origin: Origin = ELSEWHERE) -> None:
        """Wrong passwords, each after the time that it has to wait."""
        for _ in range(count):
            try:
                self.watch.check(name, origin)
            except AccessError as error:
                self.wait(seconds=error.retry_after or 0)
                self.watch.check(name, origin)
            self.watch.failed(name, origin)

    def alerts(self, rule: str) -> list[str]:
        return [alert.body for alert in self.outbox.open_alerts() if alert.labels["rule"] == rule]

    def stepped_up(self) -> set[str]:
        with Session(self.engine) as session:
            return set(session.scalars(select(SessionRow.id).where(SessionRow.step_up.is_(True))))


@pytest.fixture
def world(database: Engine, tmp_path: Path) -> World:
    return World(database, tmp_path / "home")


def refusal(call: Callable[[], None]) -> AccessError:
    with pytest.raises(AccessError) as caught:
        call()
    return caught.value


def test_wrong_passwords_wait_longer_and_longer_and_then_lock(world: World) -> None:
    ann = world.account("ann")
    waits, kinds = [], set()
    for _ in range(10):
        try:
            world.watch.check("ann", ELSEWHERE)
            waits.append(0.0)
        except AccessError as error:
            kinds.add((error.status, error.kind))
            waits.append(error.retry_after)
            world.wait(seconds=(error.retry_after or 0) - 0.001)
            assert world.wrong("ann") == "too-many-attempts"
            world.wait(seconds=0.001)
            world.watch.check("ann", ELSEWHERE)
        world.watch.failed("ann", ELSEWHERE)
    assert kinds == {(429, "too-many-attempts")}
    assert waits == [0, 0, 0, 1, 2, 4, 8, 16, 32, 60]
    locked = refusal(lambda: world.watch.check("ANN", ELSEWHERE))
    assert (locked.status, locked.kind, locked.retry_after) == (423, "account-locked", 900)
    with Session(world.engine) as session:
        assert session.get_one(AccountRow, ann.id).locked_until == world.now + timedelta(minutes=15)
    assert world.alerts("brute_force") == ["10 wrong passwords in a row for ann, from 203.0.113.0/24."]
    world.wait(minutes=15)
    assert world.wrong("ann") is None
    assert world.wrong("ann") == "account-locked"  # each further one locks again


def test_the_counts_survive_a_restart_and_an_unlock_forgets_them(world: World) -> None:
    world.account("ann")
    world.patient("ann", 10)
    world.restart()
    assert world.wrong("ann") == "account-locked"
    world.watch.forget("Ann")
    assert world.wrong("ann") is None


def test_a_right_password_forgets_the_wrong_ones(world: World) -> None:
    ann = world.account("ann")
    world.patient("ann", 5, HOME)
    world.wait(minutes=1)
    world.right(ann)
    with Session(world.engine) as session:
        assert session.scalar(select(func.count()).select_from(ThrottleRow)) == 0
    world.patient("ann", 2, HOME)
    assert world.wrong("ann", HOME) is None


def test_a_stranger_does_not_lock_the_owner_out(world: World) -> None:
    ann = world.account("ann")
    world.right(ann, HOME)
    world.patient("ann", 10, ELSEWHERE)
    assert world.wrong("ann", ELSEWHERE) == "account-locked"
    assert world.wrong("ann", Origin("192.0.2.55")) == "account-locked"  # any network that the account does not know
    assert world.right(ann, HOME) is None
    # and a log-in of the owner does not give the stranger new attempts
    assert world.wrong("ann", ELSEWHERE) == "account-locked"
    # guesses from the owner's own network are counted as well
    world.patient("ann", 10, HOME)
    assert world.wrong("ann", HOME) == "account-locked"


def test_names_of_nobody_are_treated_alike_and_not_written_down(world: World) -> None:
    world.patient("correct horse battery", 10)
    assert world.wrong("correct horse battery") == "account-locked"
    entries = world.audit.entries(AuditFilter(action="session.log_in"))
    assert len(entries) == 10
    assert {entry.result for entry in entries} == {"refused"}
    assert len({entry.object_id for entry in entries}) == 1
    assert "horse" not in repr(world.audit.entries()) + repr(world.outbox.open_alerts())


def test_many_attempts_at_the_same_moment_are_no_way_around_the_count(world: World) -> None:
    world.account("ann")
    barrier, outcomes = threading.Barrier(12), []

    def attempt() -> None:
        barrier.wait()
        try:
            world.watch.check("ann", ELSEWHERE)
            outcomes.append("looked at")
        except AccessError as error:
            outcomes.append(error.kind)

    threads = [threading.Thread(target=attempt) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("looked at") == 3
    assert outcomes.count("too-many-attempts") == 9


def test_one_address_that_fails_on_many_accounts_is_blocked(world: World) -> None:
    names = [f"user{n}" for n in range(8)]
    ann, victim = world.account("ann"), world.account("victim")
    world.right(ann, Origin("203.0.113.200"))
    world.right(victim, ELSEWHERE)
    world.session_of(victim, "stolen", ELSEWHERE)
    world.session_of(ann, "other", HOME)
    version = versions.current(world.engine)
    assert [world.wrong(name) for name in names] == [None] * 8
    assert world.alerts("credential_stuffing") == ["log-ins from 203.0.113.9 failed on 8 accounts within an hour."]
    assert world.wrong("somebody") == "too-many-attempts"
    assert world.stepped_up() == {"stolen"}  # what succeeded from there must prove itself again
    assert versions.current(world.engine) > version
    assert world.wrong("somebody", Origin("192.0.2.1")) is None
    world.right(ann, ELSEWHERE)  # ann's account knows this network: the block does not stop her
    world.wait(minutes=15)
    assert world.wrong("somebody") is None


def test_one_address_that_fails_often_is_blocked(world: World) -> None:
    world.settings = AccessSettings(abuse={"address_failures": 12})
    world.restart()
    world.patient("one", 6)
    world.patient("two", 5)
    assert world.alerts("address_failures") == []
    world.patient("two", 1)
    assert world.alerts("address_failures") == ["12 failed log-ins from 203.0.113.9 within an hour."]
    assert world.wrong("three") == "too-many-attempts"


def test_an_ipv6_network_of_one_subscriber_is_one_address(world: World) -> None:
    for number in range(8):
        world.wrong(f"user{number}", Origin(f"2001:db8:0:1::{number:x}"))
    assert [finding.rule for finding in world.watch.review(world.now)] == ["credential_stuffing"]
    assert world.wrong("other", Origin("2001:db8:0:1::ffff")) == "too-many-attempts"
    assert world.wrong("other", Origin("2001:db8:0:2::1")) is None


def test_many_addresses_that_fail_on_many_accounts_are_told_of(world: World) -> None:
    for number in range(16):
        assert world.wrong(f"user{number}", Origin(f"192.0.{number}.1")) is None
        world.wait(seconds=20)
    told = world.watch.review(world.now)
    assert [finding.rule for finding in told] == ["distributed_stuffing"]
    assert world.watch.review(world.now) == []
    assert world.watch.review(world.now + timedelta(minutes=5)) == []
    assert len(world.alerts("distributed_stuffing")) == 1
    assert len(world.audit.entries(AuditFilter(action="abuse.*"))) == 1


def test_a_new_device_or_network_is_told_of_and_must_prove_itself(world: World) -> None:
    ann = world.account("ann")
    assert world.right(ann, HOME) is None  # the first of all
    assert world.right(ann, Origin("198.51.100.99", "Mozilla/5.0 Firefox/141.0.1")) is None  # an update, same network
    phone = world.right(ann, Origin("198.51.100.7", "Phone/1"))
    assert phone is not None
    assert (phone.rule, phone.step_up, phone.labels["new"]) == ("new_device", True, "device")
    hotel = world.right(ann, Origin("192.0.9.9", "Phone/1"))
    assert hotel is not None
    assert hotel.labels["new"] == "network"
    both = world.right(ann, Origin("192.0.200.1", "Tablet"))
    assert both is not None
    assert both.labels["new"] == "device and network"
    assert world.right(ann, Origin("192.0.9.77", "Phone/2")) is None  # known by now
    assert len(world.alerts("new_device")) == 3
    with Session(world.engine) as session:
        assert session.scalar(select(func.count()).select_from(KnownDeviceRow)) == 4


def test_impossible_travel(world: World) -> None:
    ann = world.account("ann")
    world.right(ann, HOME)
    world.wait(minutes=30)
    assert (
        world.right(ann, Origin("192.0.2.1", HOME.user_agent)).rule == "new_device"
    )  # London to Reading is no journey
    world.wait(hours=1)
    found = world.right(ann, Origin("203.0.113.1", HOME.user_agent))
    assert found.rule == "impossible_travel"
    assert found.labels == {"account": "ann", "from": "Reading", "to": "Tokyo"}
    assert "60 minutes after Reading" in found.what
    world.wait(hours=12)
    assert world.right(ann, HOME) is None  # nearly 9,600 km in twelve hours
    assert len(world.alerts("impossible_travel")) == 1


def test_probing_is_told_of_and_the_sessions_must_prove_themselves(world: World) -> None:
    ann = world.account("ann")
    world.session_of(ann, "s1", HOME)
    who = Principal("ann", "token", ann.id, session_id="s1")
    for number in range(9):
        world.watch.refused(who, "users:manage" if number % 2 else "audit:read", HOME)
        world.wait(seconds=30)
    assert world.stepped_up() == set()
    world.watch.refused(who, "users:manage", HOME)
    assert world.stepped_up() == {"s1"}
    assert world.alerts("probing") == ["ann was refused 10 times within ten minutes: audit:read, users:manage."]
    # a flood does not fill the trail, and says how much was left out
    for _ in range(200):
        world.watch.refused(who, "users:manage", HOME)
    assert len(world.audit.entries(AuditFilter(action="permission.check"), limit=500)) == 20
    world.wait(minutes=11)
    world.watch.refused(who, "users:manage", HOME)
    assert world.audit.entries(limit=1)[0].detail == {"not_written_before": 190}


def test_refusals_that_are_spread_out_are_no_probing(world: World) -> None:
    who = Principal("ann", "token", 1, session_id="s1")
    for _ in range(30):
        world.watch.refused(who, "users:manage", HOME)
        world.wait(minutes=2)
    assert world.watch.review(world.now) == []


@pytest.mark.parametrize(("hour_utc", "found"), [(3, True), (15, False), (10, True), (11, False), (2, False)])
def test_bulk_reads_outside_office_hours(world: World, hour_utc: int, found: bool) -> None:
    """Office hours are 6 to 22 in New York, which is five hours behind UTC in January."""
    world.now = datetime(2026, 1, 6, hour_utc, 0, tzinfo=UTC)
    for _ in range(5):
        world.audit.record("data.read", actor=Principal("ann", "api_key"), detail={"rows": 10_000, "route": "/x"})
        world.wait(minutes=10)
    told = world.watch.review(world.now)
    assert [finding.rule for finding in told] == (["bulk_reads"] if found else [])
    if found:
        assert "ann read 50,000 rows" in world.alerts("bulk_reads")[0]


def test_rows_spread_over_more_than_an_hour_are_no_bulk_read(world: World) -> None:
    world.now = datetime(2026, 1, 6, 4, 0, tzinfo=UTC)
    for _ in range(7):
        world.audit.record("data.read", actor="ann", detail={"rows": 10_000})
        world.wait(minutes=16)
    world.audit.record("data.read", actor="odd", detail={"rows": "many"})
    world.audit.record("data.read", actor="odd", detail={"rows": True})
    assert world.watch.review(world.now) == []


def test_a_token_used_twice_is_told_of_once_for_each_session(world: World) -> None:
    for session in ("s1", "s1", "s2"):
        world.watch.token_reused("ann", session, ELSEWHERE)
    assert len(world.alerts("token_reuse")) == 2


def test_the_review_finds_what_was_not_told_because_the_process_ended(world: World) -> None:
    world.account("ann")
    for _ in range(10):
        world.audit.record(
            "session.log_in", actor="anonymous", object=("account", "ann"), result="refused", origin=ELSEWHERE
        )
    assert [finding.rule for finding in world.watch.review(world.now)] == ["brute_force"]
    assert world.watch.review(world.now) == []


def test_several_processes_that_review_at_once_tell_once(world: World) -> None:
    for number in range(16):
        world.wrong(f"user{number}", Origin(f"192.0.{number}.1"))
    watches = [
        Watch(world.engine, world.settings, world.audit, outbox=world.outbox, clock=lambda: world.now) for _ in range(4)
    ]
    told: list[str] = []
    threads = [
        threading.Thread(target=lambda watch=watch: told.extend(f.rule for f in watch.review(world.now)))
        for watch in watches
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == ["distributed_stuffing"]
    assert len(world.audit.entries(AuditFilter(action="abuse.*"))) == 1
    assert world.audit.verify().intact


def test_old_counters_and_devices_are_removed(world: World) -> None:
    ann = world.account("ann")
    world.right(ann, HOME)
    world.wrong("ann", ELSEWHERE)
    world.wait(days=401)
    world.watch.review(world.now)
    with Session(world.engine) as session:
        assert session.scalar(select(func.count()).select_from(ThrottleRow)) == 0
        assert session.scalar(select(func.count()).select_from(KnownDeviceRow)) == 0
