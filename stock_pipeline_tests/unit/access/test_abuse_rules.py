"""The rules of abuse against plain computations, and where people are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stock_pipeline.access import abuse_rules as rules
from stock_pipeline.access.audit_entry import AuditEntry
from stock_pipeline.access.places import device_of, distance_km, network_of, place_of, source_of
from stock_pipeline.config.access import AbuseSettings, Place

pytestmark = pytest.mark.requirement("R8.5")
START = datetime(2026, 1, 5, 12, tzinfo=UTC)


def entry(number: int, at: datetime, action: str, **fields: Any) -> AuditEntry:
    values: dict[str, Any] = dict.fromkeys(
        ("object_kind", "object_id", "address", "user_agent", "session_id", "request_id", "run_id", "detail", "before",
         "after"),
    )  # fmt: skip
    values |= {"actor": "anonymous", "actor_kind": "anonymous", "result": "refused", **fields}
    return AuditEntry(sequence=number, at=at, action=action, **values)


@st.composite
def failures(draw: st.DrawFn) -> list[AuditEntry]:
    """Failed and good log-ins of a few accounts and addresses, minutes apart."""
    at, found = START, []
    for number in range(draw(st.integers(0, 60))):
        at += timedelta(minutes=draw(st.integers(0, 12)))
        found.append(
            entry(
                number,
                at,
                "session.log_in",
                object_id=f"user{draw(st.integers(0, 5))}",
                address=f"192.0.2.{draw(st.integers(0, 3))}",
                result=draw(st.sampled_from(["refused", "refused", "refused", "done"])),
            )
        )
    return found


def windows(entries: list[AuditEntry], length: timedelta) -> list[tuple[AuditEntry, list[AuditEntry]]]:
    """Each failure with all failures of the same address within the length before it."""
    failed = [one for one in entries if one.result == "refused"]
    return [
        (
            last,
            [one for one in failed[: place + 1] if one.address == last.address and one.at > last.at - length],
        )
        for place, last in enumerate(failed)
    ]


@given(entries=failures(), threshold=st.integers(2, 10))
def test_an_address_is_found_when_and_only_when_its_window_is_full(entries: list[AuditEntry], threshold: int) -> None:
    settings = AbuseSettings(address_failures=threshold)
    full = {(last.address, last.at) for last, window in windows(entries, rules.HOUR) if len(window) >= threshold}
    found = {(finding.subject, finding.at) for finding in rules.address_failures(entries, settings)}
    assert found <= full
    assert {address for address, _ in full} == {address for address, _ in found}
    for address in {address for address, _ in full}:
        assert min(at for each, at in full if each == address) == min(at for each, at in found if each == address)


@given(entries=failures(), threshold=st.integers(2, 6))
def test_stuffing_counts_accounts_and_not_attempts(entries: list[AuditEntry], threshold: int) -> None:
    settings = AbuseSettings(stuffing_accounts=threshold)
    full = {
        last.address
        for last, window in windows(entries, rules.HOUR)
        if len({one.object_id for one in window}) >= threshold
    }
    assert {finding.subject for finding in rules.credential_stuffing(entries, settings)} == full


@given(entries=failures(), threshold=st.integers(2, 8))
def test_brute_force_counts_in_a_row(entries: list[AuditEntry], threshold: int) -> None:
    settings = AbuseSettings(failures_before_lock=threshold)
    expected = set()
    for name in {one.object_id for one in entries}:
        row = 0
        for one in entries:
            if one.object_id == name:
                row = row + 1 if one.result == "refused" else 0
                if row == threshold:
                    expected.add((name, one.at))
    assert {(finding.subject, finding.at) for finding in rules.brute_force(entries, settings)} == expected


@given(entries=failures(), cut=st.integers(0, 60))
def test_what_was_found_is_found_again_when_more_happens(entries: list[AuditEntry], cut: int) -> None:
    """So that a review now and one later do not tell different stories of the same entries."""
    settings = AbuseSettings(stuffing_accounts=2, address_failures=3)
    for rule in (rules.address_failures, rules.credential_stuffing, rules.distributed_stuffing):
        earlier, later = rule(entries[:cut], settings), rule(entries, settings)
        assert {finding.key for finding in earlier} <= {finding.key for finding in later}


@given(failed=st.integers(0, 5000), before_delay=st.integers(1, 100), before_lock=st.integers(2, 1000))
def test_delays_grow_up_to_a_minute_and_end_in_the_lock(failed: int, before_delay: int, before_lock: int) -> None:
    settings = AbuseSettings(failures_before_delay=before_delay, failures_before_lock=before_lock, lock_minutes=15)
    delay = rules.delay_seconds(failed, settings)
    if failed >= before_lock:
        assert delay == 900
    elif failed < before_delay:
        assert delay == 0
    else:
        assert 1 <= delay <= 60
        assert delay >= rules.delay_seconds(failed - 1, settings)


def test_distances_of_known_cities() -> None:
    london = Place(network="192.0.2.0/24", name="London", latitude=51.5074, longitude=-0.1278)
    new_york = Place(network="192.0.2.0/24", name="New York", latitude=40.7128, longitude=-74.0060)
    sydney = Place(network="192.0.2.0/24", name="Sydney", latitude=-33.8688, longitude=151.2093)
    assert distance_km(london, new_york) == pytest.approx(5570, abs=5)
    assert distance_km(new_york, sydney) == pytest.approx(15_990, abs=15)
    assert distance_km(london, london) == 0
    pole = Place(network="192.0.2.0/24", name="pole", latitude=90, longitude=0)
    other = Place(network="192.0.2.0/24", name="other pole", latitude=-90, longitude=123)
    assert distance_km(pole, other) == pytest.approx(20_015, abs=1)


def test_the_smallest_network_says_where_an_address_is() -> None:
    here = {"latitude": 0.0, "longitude": 0.0}
    places = [
        Place(network="10.0.0.0/8", name="company", **here),
        Place(network="10.1.0.0/16", name="office", **here),
        Place(network="2001:db8::/32", name="six", **here),
    ]
    found = {address: place.name for address in ("10.1.2.3", "10.9.9.9", "::ffff:10.1.0.1", "2001:db8::1")
             if (place := place_of(address, places))}  # fmt: skip
    assert found == {"10.1.2.3": "office", "10.9.9.9": "company", "::ffff:10.1.0.1": "office", "2001:db8::1": "six"}
    assert place_of("192.0.2.1", places) is None
    assert place_of("", places) is place_of(None, places) is place_of("no address", places) is None


def test_networks_sources_and_devices() -> None:
    assert network_of("192.0.2.77") == "192.0.2.0/24"
    assert network_of("::ffff:192.0.2.77") == "192.0.2.0/24"
    assert network_of("2001:db8:1:2::3") == "2001:db8:1::/48"
    assert source_of("2001:db8:1:2::3") == "2001:db8:1:2::/64"
    assert network_of("unix socket " * 20) == ("unix socket " * 20)[:64]
    assert device_of("Firefox/140.0.1 (X11; Linux)") == device_of("Firefox/141.0 (X11; Linux)")
    assert device_of("Firefox/140.0") != device_of("Chrome/140.0")
    assert device_of("\ud800") == device_of("\ud800")
