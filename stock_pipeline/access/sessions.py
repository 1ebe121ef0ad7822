"""Sessions: one for each log-in, with its device, its ends and its refresh tokens."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from stock_pipeline.access import versions
from stock_pipeline.access.principal import AccessError, Origin, Principal
from stock_pipeline.access.secret_text import digest, new_secret, printable
from stock_pipeline.storage.database import reading
from stock_pipeline.storage.database.tables.accounts import AccountRow, RefreshTokenRow, SessionRow, TicketRow

if TYPE_CHECKING:
    from stock_pipeline.access.facade import Access

KEPT = timedelta(days=30)
"""How long sessions that are over can still be looked up."""

SessionKind = Literal["token", "console"]


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """One log-in, as its owner sees it.

    Attributes
    ----------
    id, account_id, kind
        Which, whose, and whether a browser's (``console``) or a client's (``token``).
    created_at, last_used_at, expires_at
        Its instants; last use is written at most once a minute.
    address, device, user_agent
        From where, the device in words and what it said it was.
    second_factor, step_up
        Whether a second factor was given, and whether it must prove itself again.
    """

    id: str
    account_id: int
    kind: str
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    address: str
    device: str
    user_agent: str
    second_factor: bool
    step_up: bool


class Sessions:
    """Makes, lists and ends sessions."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def list(self, account_id: int) -> list[SessionInfo]:
        """Sessions of an account that are open, the last used first."""
        now = self._access.clock()
        query = (
            select(SessionRow)
            .where(SessionRow.account_id == account_id, SessionRow.revoked_at.is_(None), SessionRow.expires_at > now)
            .order_by(SessionRow.last_used_at.desc(), SessionRow.id)
        )
        with Session(reading(self._access.engine)) as session:
            found = [row for row in session.scalars(query) if self.ends(row) > now]
            return [info(row) for row in found]

    def open(
        self,
        session: Session,
        account_id: int,
        kind: SessionKind,
        origin: Origin,
        *,
        second_factor: bool,
        step_up: bool,
    ) -> tuple[SessionRow, str]:
        """Make a session inside a transaction, always with a new id and secret.

        Returns
        -------
        tuple
            Its row, and its secret: of the cookie, or the first refresh token.
        """
        now = self._access.clock()
        secret = new_secret("spr_") if kind == "token" else self._access.seals.seal(new_secret("spc_"))
        row = SessionRow(
            id=str(uuid.uuid4()),
            account_id=account_id,
            kind=kind,
            secret_hash=digest(secret) if kind == "console" else None,
            created_at=now,
            last_used_at=now,
            expires_at=now + timedelta(days=self._access.settings.session_days),
            address=origin.address[:64],
            user_agent=printable(origin.user_agent)[:300],
            second_factor_at=now if second_factor else None,
            step_up=step_up,
        )
        session.add(row)
        session.flush()
        if kind == "token":
            self.add_refresh_token(session, row, secret)
        return row, secret

    def add_refresh_token(self, session: Session, row: SessionRow, secret: str) -> None:
        """Add a link to the chain of a session's refresh tokens; it never outlives the session."""
        now = self._access.clock()
        until = min(now + timedelta(days=self._access.settings.refresh_days), row.expires_at)
        session.add(RefreshTokenRow(hash=digest(secret), session_id=row.id, issued_at=now, expires_at=until))

    def ends(self, row: SessionRow) -> datetime:
        """When a session ends if it is not used again."""
        settings = self._access.settings
        if row.kind == "console":
            idle = timedelta(hours=settings.console_idle_hours)
        else:
            idle = timedelta(days=settings.refresh_days)
        return min(row.expires_at, row.last_used_at + idle)

    def owner(self, session_id: str) -> int:
        """Account of a session.

        Raises
        ------
        AccessError
            404 ``session-not-found``.
        """
        with Session(reading(self._access.engine)) as session:
            account_id = session.scalar(select(SessionRow.account_id).where(SessionRow.id == session_id))
        if account_id is None:
            raise AccessError(404, "session-not-found", "there is no such session")
        return account_id

    def revoke(self, session_id: str, reason: str, by: Principal | str, origin: Origin | None = None) -> bool:
        """End a session; its tokens and cookie are refused from now on. Returns whether it was open."""
        with Session(self._access.engine) as session, session.begin():
            ended = self.end(session, SessionRow.id == session_id, reason)
            if ended:
                self._access.audit.record(
                    "session.revoke",
                    actor=by,
                    origin=origin,
                    object=("session", session_id),
                    detail={"reason": reason},
                    session=session,
                )
        return bool(ended)

    def revoke_all(
        self,
        account_id: int,
        except_: str | None = None,
        *,
        reason: str = "revoked",
        by: Principal | str = "system",
        origin: Origin | None = None,
    ) -> int:
        """End all sessions of an account, or all but one; returns how many."""
        condition = SessionRow.account_id == account_id
        if except_ is not None:
            condition &= SessionRow.id != except_
        with Session(self._access.engine) as session, session.begin():
            ended = self.end(session, condition, reason)
            if ended:
                self._access.audit.record(
                    "session.revoke",
                    actor=by,
                    origin=origin,
                    object=("account", self._name_of(session, account_id)),
                    detail={"reason": reason, "sessions": ended},
                    session=session,
                )
        return ended

    def end(self, session: Session, condition, reason: str) -> int:
        """End sessions inside a transaction; returns how many were open.

        The version grows first: all changes take their locks in one order (version, rows, audit), so none waits for one
        that waits for it.
        """
        now = self._access.clock()
        versions.bump(session)
        ended = session.execute(
            update(SessionRow)
            .where(condition, SessionRow.revoked_at.is_(None))
            .values(revoked_at=now, revoked_reason=reason[:60])
            .execution_options(synchronize_session=False)
        ).rowcount  # type: ignore[attr-defined]
        return int(ended)

    def _name_of(self, session: Session, account_id: int) -> str:
        return session.scalar(select(AccountRow.name).where(AccountRow.id == account_id)) or str(account_id)

    def purge(self) -> None:
        """Forget what has been over for long: sessions with their refresh tokens, and tickets."""
        now = self._access.clock()
        with Session(self._access.engine) as session, session.begin():
            over = (SessionRow.expires_at < now - KEPT) | (SessionRow.revoked_at < now - KEPT)
            session.execute(delete(SessionRow).where(over).execution_options(synchronize_session=False))
            session.execute(delete(RefreshTokenRow).where(RefreshTokenRow.expires_at < now - KEPT))
            session.execute(delete(TicketRow).where(TicketRow.expires_at < now))


def info(row: SessionRow) -> SessionInfo:
    """A session as its owner sees it."""
    return SessionInfo(
        id=row.id,
        account_id=row.account_id,
        kind=row.kind,
        created_at=row.created_at,
        last_used_at=row.last_used_at,
        expires_at=row.expires_at,
        address=row.address,
        device=device(row.user_agent),
        user_agent=row.user_agent,
        second_factor=row.second_factor_at is not None,
        step_up=row.step_up,
    )


_BROWSERS = (
    ("Edg", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"), ("Safari/", "Safari"),
    ("curl/", "curl"), ("python-httpx", "Python httpx"), ("python-requests", "Python requests"), ("Python", "Python"),
)  # fmt: skip
_SYSTEMS = (
    ("Android", "Android"), ("iPhone", "iPhone"), ("iPad", "iPad"), ("Windows", "Windows"), ("Mac OS", "macOS"),
    ("CrOS", "ChromeOS"), ("Linux", "Linux"),
)  # fmt: skip


def device(user_agent: str) -> str:
    """A device in words, such as ``Firefox on Linux``."""
    browser = next((name for mark, name in _BROWSERS if mark in user_agent), None)
    system = next((name for mark, name in _SYSTEMS if mark in user_agent), None)
    if browser and system:
        return f"{browser} on {system}"
    return browser or system or user_agent[:60] or "unknown"
