"""What counts as abuse: pure functions of audit entries and thresholds. What is done about it is in ``abuse``.

Each rule slides a window over the entries, oldest first, and says when its threshold was reached. One subject is told
of once an hour at most for each rule: the hour is in the key of the finding.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from stock_pipeline.access.audit_entry import AuditEntry
from stock_pipeline.access.places import distance_km, place_of, source_of
from stock_pipeline.config.access import AbuseSettings, Place
from stock_pipeline.observability.alerts import Severity

LOG_IN, REFUSAL, READ = "session.log_in", "permission.check", "data.read"
"""Actions that the rules read."""

TOLD = (
    "brute_force", "address_failures", "credential_stuffing", "distributed_stuffing", "probing", "bulk_reads",
)  # fmt: skip
"""Rules that are applied to the trail again and again; the others are applied to what happens."""

HOUR, TEN_MINUTES = timedelta(hours=1), timedelta(minutes=10)
LEAST_KM = 100.0
"""Places nearer than this are no journey: networks are known only roughly."""

Rule = Literal[
    "brute_force", "address_failures", "credential_stuffing", "distributed_stuffing", "new_device",
    "impossible_travel", "bulk_reads", "probing", "token_reuse",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """Something odd.

    Attributes
    ----------
    rule
        Which rule found it.
    subject
        Account or address.
    severity
        Of the alert.
    what
        What was seen, in numbers.
    at
        When the threshold was reached.
    step_up
        Whether sessions of the subject must prove themselves again.
    labels
        Short facts.
    event
        Tells findings of one subject apart where each of them counts, such as several new devices.
    """

    rule: Rule
    subject: str
    severity: Severity
    what: str
    at: datetime
    step_up: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    event: str = ""

    @property
    def key(self) -> str:
        """The same for the same thing: rule, subject, what it was about, and hour."""
        about = f":{self.event}" if self.event else ""
        return f"abuse:{self.rule}:{self.subject}{about}:{self.at:%Y-%m-%dT%H}"


def delay_seconds(failures: int, settings: AbuseSettings) -> float:
    """How long the next attempt must wait after so many wrong passwords: 0, then 1, 2, 4 ... 60 s, then the lock."""
    if failures >= settings.failures_before_lock:
        return settings.lock_minutes * 60.0
    if failures < settings.failures_before_delay:
        return 0.0
    return float(min(2 ** min(failures - settings.failures_before_delay, 10), 60))


def address_failures(entries: Iterable[AuditEntry], settings: AbuseSettings) -> list[Finding]:
    """One address fails too often within an hour."""
    reached = _crossings(_failed(entries), _source, HOUR, settings.address_failures, lambda window: window.count)
    return [
        Finding(
            "address_failures", address, "warning", f"{window.count} failed log-ins from {address} within an hour", at,
            labels={"address": address},
        )
        for address, at, window in reached
    ]  # fmt: skip


def credential_stuffing(entries: Iterable[AuditEntry], settings: AbuseSettings) -> list[Finding]:
    """One address fails on many accounts within an hour."""
    reached = _crossings(_failed(entries), _source, HOUR, settings.stuffing_accounts, lambda window: window.accounts)
    return [
        Finding(
            "credential_stuffing", address, "error",
            f"log-ins from {address} failed on {window.accounts} accounts within an hour", at,
            labels={"address": address},
        )
        for address, at, window in reached
    ]  # fmt: skip


def distributed_stuffing(entries: Iterable[AuditEntry], settings: AbuseSettings) -> list[Finding]:
    """Many addresses fail on many accounts within ten minutes: of both twice as many as one address may fail on."""
    reached = _crossings(
        _failed(entries),
        lambda _: "all",
        TEN_MINUTES,
        2 * settings.stuffing_accounts,
        lambda window: min(window.accounts, window.sources),
    )
    return [
        Finding(
            "distributed_stuffing", "all", "critical",
            f"log-ins from {window.sources} addresses failed on {window.accounts} accounts within ten minutes", at,
        )
        for _, at, window in reached
    ]  # fmt: skip


def probing(entries: Iterable[AuditEntry], settings: AbuseSettings) -> list[Finding]:
    """One account asks again and again for what it may not do, within ten minutes."""
    refused = (entry for entry in entries if entry.action == REFUSAL and entry.result == "refused")
    reached = _crossings(refused, _actor, TEN_MINUTES, settings.probing_refusals, lambda window: window.count)
    return [
        Finding(
            "probing", actor, "warning",
            f"{actor} was refused {window.count} times within ten minutes: {', '.join(window.objects)[:300]}", at,
            step_up=True, labels={"account": actor},
        )
        for actor, at, window in reached
    ]  # fmt: skip


def bulk_reads(entries: Iterable[AuditEntry], settings: AbuseSettings, timezone: str) -> list[Finding]:
    """One account reads very many rows within an hour, outside office hours of the exchange."""
    zone, (start, end) = ZoneInfo(timezone), settings.office_hours
    outside = (entry for entry in entries if entry.action == READ and not start <= entry.at.astimezone(zone).hour < end)
    reached = _crossings(outside, _actor, HOUR, settings.bulk_rows, lambda window: window.rows)
    return [
        Finding(
            "bulk_reads", actor, "warning",
            f"{actor} read {window.rows:,} rows within an hour, at {at.astimezone(zone):%H:%M} {timezone}", at,
            labels={"account": actor},
        )
        for actor, at, window in reached
    ]  # fmt: skip


def brute_force(entries: Iterable[AuditEntry], settings: AbuseSettings) -> list[Finding]:
    """Wrong passwords for one account in a row, as many as lock it, without a good log-in in between."""
    rows: dict[str, int] = {}
    found = []
    for entry in entries:
        if entry.action != LOG_IN or entry.object_id is None:
            continue
        name = entry.object_id
        if entry.result != "refused":
            rows.pop(name, None)
            continue
        rows[name] = rows.get(name, 0) + 1
        if rows[name] == settings.failures_before_lock:
            what = f"{rows[name]} wrong passwords in a row for {name}"
            found.append(Finding("brute_force", name, "error", what, entry.at, labels={"account": name}))
    return found


def impossible_travel(
    account: str,
    address: str,
    at: datetime,
    earlier: Iterable[AuditEntry],
    places: Sequence[Place],
    settings: AbuseSettings,
) -> Finding | None:
    """A log-in so soon after one from far away that nobody travels so fast.

    Parameters
    ----------
    account, address, at
        The log-in.
    earlier
        Good log-ins of the account before it.
    places
        Networks whose location is known; log-ins from elsewhere say nothing.
    settings
        The speed that is possible.
    """
    here = place_of(address, places)
    if here is None:
        return None
    for entry in sorted(earlier, key=lambda entry: entry.at, reverse=True):
        there = place_of(entry.address, places)
        if there is None:
            continue
        distance, hours = distance_km(here, there), max((at - entry.at) / HOUR, 0.0)
        if distance < LEAST_KM or distance <= settings.travel_kmh * hours:
            return None
        journey = f"from {here.name} {hours * 60:.0f} minutes after {there.name}, {distance:,.0f} km away"
        return Finding(
            "impossible_travel", account, "error", f"{account} logged in {journey}", at, step_up=True,
            labels={"account": account, "from": there.name, "to": here.name}, event=f"{there.name}>{here.name}",
        )  # fmt: skip
    return None


class _Window:
    """The entries of one subject within a length of time, counted as they come and go."""

    def __init__(self) -> None:
        self.entries: deque[AuditEntry] = deque()
        self._accounts: Counter[str | None] = Counter()
        self._sources: Counter[str] = Counter()
        self.rows = 0

    def add(self, entry: AuditEntry, length: timedelta) -> None:
        self.entries.append(entry)
        self._count(entry, 1)
        while self.entries[0].at <= entry.at - length:
            self._count(self.entries.popleft(), -1)

    def _count(self, entry: AuditEntry, sign: int) -> None:
        self.rows += sign * _rows_of(entry)
        for counter, value in ((self._accounts, entry.object_id), (self._sources, _source(entry))):
            counter[value] += sign  # type: ignore[index]
            if not counter[value]:  # type: ignore[index]
                del counter[value]  # type: ignore[arg-type]

    @property
    def count(self) -> int:
        return len(self.entries)

    @property
    def accounts(self) -> int:
        return len(self._accounts)

    @property
    def sources(self) -> int:
        return len(self._sources)

    @property
    def objects(self) -> list[str]:
        return sorted(str(name) for name in self._accounts)


def _crossings(
    entries: Iterable[AuditEntry],
    key: Callable[[AuditEntry], str],
    length: timedelta,
    threshold: int,
    measure: Callable[[_Window], int],
) -> Iterator[tuple[str, datetime, _Window]]:
    """Each time that a subject's window first reaches the threshold: the subject, when, and the window at that time."""
    windows: dict[str, _Window] = {}
    above: set[str] = set()
    for entry in entries:
        subject = key(entry)
        window = windows.setdefault(subject, _Window())
        window.add(entry, length)
        if measure(window) < threshold:
            above.discard(subject)
        elif subject not in above:
            above.add(subject)
            yield subject, entry.at, window


def _failed(entries: Iterable[AuditEntry]) -> Iterable[AuditEntry]:
    return (entry for entry in entries if entry.action == LOG_IN and entry.result == "refused" and entry.address)


def _source(entry: AuditEntry) -> str:
    return source_of(entry.address or "")


def _actor(entry: AuditEntry) -> str:
    return entry.actor


def _rows_of(entry: AuditEntry) -> int:
    rows = (entry.detail or {}).get("rows", 0)
    return rows if isinstance(rows, int) and not isinstance(rows, bool) else 0
