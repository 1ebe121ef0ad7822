"""Counts wrong passwords and makes further ones wait; the counts are in the database and survive restarts.

An attempt is counted before its password is looked at, and forgotten when it was right: many attempts at the same
moment are no way around the count. Names are kept as digests, and unknown ones are counted like known ones: the answers
tell nobody which accounts there are.

An account has one counter for all networks from which it was never logged in to, and one for each network that it was.
So a stranger who locks the account does not lock out its owner, who is where he always is.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from stock_pipeline.access.abuse_rules import delay_seconds
from stock_pipeline.access.places import network_of, source_of
from stock_pipeline.access.principal import AccessError
from stock_pipeline.config.access import AbuseSettings
from stock_pipeline.storage.database.tables.accounts import AccountRow, KnownDeviceRow, ThrottleRow

FORGOTTEN_AFTER = timedelta(hours=24)
"""A counter without a failure for so long begins anew."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A log-in attempt as the counters see it.

    Attributes
    ----------
    counter
        Key of the counter that it belongs to.
    source
        Key of its address.
    known_network
        Whether the account has been logged in to from its network.
    account_id
        ``None`` for names of nobody.
    """

    counter: str
    source: str
    known_network: bool
    account_id: int | None


def attempt(session: Session, name: str, address: str) -> Attempt:
    """What an attempt counts for."""
    folded = name.casefold()[:200]
    network, digest = network_of(address), _digest(folded)
    account_id = session.scalar(select(AccountRow.id).where(AccountRow.name_key == folded))
    seen = select(KnownDeviceRow.account_id).where(
        KnownDeviceRow.account_id == (account_id or 0), KnownDeviceRow.network == network
    )
    known = session.scalar(seen.limit(1)) is not None
    counter = f"known:{digest}:{network}" if known else f"account:{digest}"
    return Attempt(counter, f"address:{source_of(address)}", known, account_id)


def admit(session: Session, tried: Attempt, now: datetime, settings: AbuseSettings) -> None:
    """Count an attempt, or refuse it.

    A blocked address does not stop log-ins to accounts that know its network: those have their own counters.

    Raises
    ------
    AccessError
        423 ``account-locked`` or 429 ``too-many-attempts``, with ``retry_after``.
    """
    if not tried.known_network:
        blocked = session.scalar(select(ThrottleRow.blocked_until).where(ThrottleRow.key == tried.source))
        if blocked is not None and blocked > now:
            raise _too_many(blocked - now)
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    session.execute(
        dialect.insert(ThrottleRow)
        .values(key=tried.counter, failures=0, last_failure_at=now, blocked_until=None)
        # locks a row that is there: a right password at the same moment cannot remove it before it is read
        .on_conflict_do_update(index_elements=[ThrottleRow.key], set_={"key": tried.counter})
    )
    row = session.scalars(select(ThrottleRow).where(ThrottleRow.key == tried.counter).with_for_update()).one()
    if row.blocked_until is not None and row.blocked_until > now:
        if row.failures >= settings.failures_before_lock:
            raise AccessError(
                423, "account-locked", "too many wrong passwords: no log-in from here for a while",
                fix="wait, log in from where you usually do, or ask an administrator to unlock the account",
                retry_after=_seconds(row.blocked_until - now),
            )  # fmt: skip
        raise _too_many(row.blocked_until - now)
    if row.last_failure_at <= now - FORGOTTEN_AFTER:
        row.failures = 0
    row.failures += 1
    row.last_failure_at = now
    row.blocked_until = now + timedelta(seconds=delay_seconds(row.failures, settings))


def failures(session: Session, tried: Attempt) -> int:
    """Wrong passwords that are counted."""
    return session.scalar(select(ThrottleRow.failures).where(ThrottleRow.key == tried.counter)) or 0


def clear(session: Session, tried: Attempt) -> None:
    """Begin the counter of an attempt anew: it was right."""
    session.execute(delete(ThrottleRow).where(ThrottleRow.key == tried.counter))


def clear_account(session: Session, name: str) -> None:
    """Begin all counters of an account anew."""
    digest = _digest(name.casefold()[:200])
    session.execute(
        delete(ThrottleRow).where(
            or_(ThrottleRow.key == f"account:{digest}", ThrottleRow.key.startswith(f"known:{digest}:"))
        )
    )


def block_address(session: Session, source: str, now: datetime, settings: AbuseSettings) -> None:
    """Refuse log-ins from an address for a while."""
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    until = now + timedelta(minutes=settings.lock_minutes)
    key = f"address:{source}"
    session.execute(
        dialect.insert(ThrottleRow)
        .values(key=key, failures=0, last_failure_at=now, blocked_until=until)
        .on_conflict_do_nothing()
    )
    session.execute(update(ThrottleRow).where(ThrottleRow.key == key).values(last_failure_at=now, blocked_until=until))


def purge(session: Session, now: datetime) -> None:
    """Remove counters that would begin anew anyway."""
    session.execute(
        delete(ThrottleRow).where(
            ThrottleRow.last_failure_at < now - FORGOTTEN_AFTER,
            or_(ThrottleRow.blocked_until.is_(None), ThrottleRow.blocked_until < now),
        )
    )


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:32]


def _seconds(left: timedelta) -> float:
    return float(math.ceil(left.total_seconds()))


def _too_many(left: timedelta) -> AccessError:
    return AccessError(
        429, "too-many-attempts", "too many wrong passwords: the next attempt must wait",
        fix=f"try again in {_seconds(left):g} s", retry_after=_seconds(left),
    )  # fmt: skip
