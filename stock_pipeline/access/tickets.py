"""Tickets: for one connection to the event stream, because a browser cannot send a token with it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from stock_pipeline.access.principal import AccessError, Origin, Principal
from stock_pipeline.access.secret_text import LONGEST, digest, new_secret
from stock_pipeline.storage.database.tables.accounts import TicketRow

if TYPE_CHECKING:
    from stock_pipeline.access.facade import Access

LIFE = timedelta(seconds=30)
_ANONYMOUS = "anonymous"


class Tickets:
    """Issues and redeems tickets."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def issue(self, principal: Principal) -> str:
        """Make a ticket with the rights of a principal; it lives 30 s and works once."""
        session_id = _ANONYMOUS if principal.kind == "anonymous" else principal.session_id
        if session_id is None:
            raise AccessError(409, "no-session", "a ticket needs a session or an API key")
        secret, now = self._access.seals.seal(new_secret("spt_")), self._access.clock()
        with Session(self._access.engine) as session, session.begin():
            session.execute(delete(TicketRow).where(TicketRow.expires_at < now))
            session.add(TicketRow(hash=digest(secret), session_id=session_id, expires_at=now + LIFE))
        return secret

    def redeem(self, ticket: str, origin: Origin | None = None) -> Principal:
        """Who is behind a ticket, with what they may do now; it is used up.

        Raises
        ------
        AccessError
            401 ``ticket-invalid``, or as for `Gate.authenticate` where the session is over or the address has sent too
            much that is invalid.
        """
        with self._access.limits.proof(origin, sealed=self._access.seals.holds(ticket[:LONGEST])):
            return self._redeemed(ticket)

    def _redeemed(self, ticket: str) -> Principal:
        now, hashed = self._access.clock(), digest(ticket[:LONGEST])
        with Session(self._access.engine) as session, session.begin():
            used = session.execute(
                update(TicketRow)
                .where(TicketRow.hash == hashed, TicketRow.used_at.is_(None), TicketRow.expires_at > now)
                .values(used_at=now)
                .execution_options(synchronize_session=False)
            )
            session_id = None
            if used.rowcount == 1:  # type: ignore[attr-defined]
                session_id = session.scalar(select(TicketRow.session_id).where(TicketRow.hash == hashed))
        if session_id is None:
            raise AccessError(401, "ticket-invalid", "the ticket was used or has run out", fix="get a new one")
        if session_id == _ANONYMOUS:
            return self._access.gate.still_valid(Principal(_ANONYMOUS, "anonymous"))
        return self._access.gate.by_id(session_id)
