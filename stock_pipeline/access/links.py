"""One-time links: an invitation, a new password, a lost second factor, the first administrator."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from stock_pipeline.access.permissions import ADMINISTRATOR
from stock_pipeline.access.principal import AccessError, Origin, Principal
from stock_pipeline.access.secret_text import LONGEST, digest, new_secret
from stock_pipeline.storage.database import reading
from stock_pipeline.storage.database.tables.accounts import AccountRow, LinkRow

if TYPE_CHECKING:
    from stock_pipeline.access.facade import Access

Purpose = Literal["setup", "invitation", "reset", "recovery"]
"""First administrator; a new account; a new password; a new password without the second factor that was lost."""

PURPOSES: tuple[Purpose, ...] = ("setup", "invitation", "reset", "recovery")


@dataclass(frozen=True, slots=True)
class Link:
    """What a link is for.

    Attributes
    ----------
    purpose
        One of `PURPOSES`.
    account
        Name of the account whose password it sets; ``None`` for a new account.
    role
        Role of a new account.
    expires_at
        Until when it works.
    created_by
        Who made it.
    """

    purpose: str
    account: str | None
    role: str | None
    expires_at: datetime
    created_by: str


class Links:
    """Makes and redeems one-time links."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def create(
        self,
        purpose: Purpose,
        *,
        account: str | None = None,
        role: str | None = None,
        by: Principal | str,
        hours: float | None = None,
        origin: Origin | None = None,
    ) -> str:
        """Make the secret of a link; it is shown this once.

        Parameters
        ----------
        purpose
            What it is for.
        account
            Name of an account: needed for ``reset`` and ``recovery``, an older link of it stops to work.
        role
            Role of a new account: for ``invitation``.
        by, origin
            Who makes it, and from where.
        hours
            How long it works; ``access.link_hours`` by default.

        Raises
        ------
        AccessError
            403 ``forbidden``; 404 ``account-not-found`` or ``role-not-found``; 422 ``invalid-link``.
        """
        for_account = purpose in ("reset", "recovery")
        if purpose not in PURPOSES or for_account != (account is not None):
            raise AccessError(422, "invalid-link", "no such link", value=purpose, allowed=", ".join(PURPOSES))
        role = {"setup": ADMINISTRATOR, "invitation": role or self._access.settings.registration_role}.get(purpose)
        if role is not None:
            self._access.roles.check_grant(by, (role,))
        if account is not None:
            self._access.accounts.may_change(by, self._access.accounts.get(account))
        secret, now = new_secret("spl_"), self._access.clock()
        until = now + timedelta(hours=self._access.settings.link_hours if hours is None else hours)
        with Session(self._access.engine) as session, session.begin():
            row = self._access.accounts.row(session, account) if account is not None else None
            if row is not None:
                session.execute(delete(LinkRow).where(LinkRow.account_id == row.id, LinkRow.used_at.is_(None)))
            session.add(
                LinkRow(
                    hash=digest(secret),
                    purpose=purpose,
                    account_id=None if row is None else row.id,
                    role=role,
                    created_at=now,
                    created_by=(by.name if isinstance(by, Principal) else by)[:64],
                    expires_at=until,
                )
            )
            self._access.audit.record(
                "link.create",
                actor=by,
                origin=origin,
                object=("link", purpose) if row is None else ("account", row.name),
                detail={"purpose": purpose, "role": role, "expires_at": until.isoformat()},
                session=session,
            )
        return secret

    def address(self, purpose: Purpose, secret: str, base: str | None = None) -> str:
        """Where a person opens a link; the secret stands behind the ``#``, which no server is sent."""
        root = (self._access.settings.public_url or base or "http://127.0.0.1:8000").rstrip("/")
        page = "reset" if purpose == "recovery" else purpose
        return f"{root}/{page}#{secret}"

    def look(self, secret: str) -> Link:
        """What a link is for, without using it up.

        Raises
        ------
        AccessError
            401 ``link-invalid``.
        """
        with Session(reading(self._access.engine)) as session:
            found = session.execute(
                select(LinkRow, AccountRow.name)
                .outerjoin(AccountRow, AccountRow.id == LinkRow.account_id)
                .where(LinkRow.hash == digest(secret[:LONGEST]))
            ).one_or_none()
        if found is None or found[0].used_at is not None or found[0].expires_at <= self._access.clock():
            raise _invalid()
        row, account = found
        return Link(row.purpose, account, row.role, row.expires_at, row.created_by)

    def redeem(self, secret: str, *purposes: Purpose, session: Session) -> LinkRow:
        """Use a link up inside a transaction: whoever is first has it, and an abort of the transaction gives it back.

        Raises
        ------
        AccessError
            401 ``link-invalid``: not a link, of another purpose, run out or used; which of them is not said.
        """
        now, hashed = self._access.clock(), digest(secret[:LONGEST])
        used = session.execute(
            update(LinkRow)
            .where(
                LinkRow.hash == hashed,
                LinkRow.used_at.is_(None),
                LinkRow.expires_at > now,
                LinkRow.purpose.in_(purposes),
            )
            .values(used_at=now)
            .execution_options(synchronize_session=False)
        )
        row = session.get(LinkRow, hashed) if used.rowcount == 1 else None  # type: ignore[attr-defined]
        if row is None:
            raise _invalid()
        return row

    def purge(self) -> None:
        """Forget links that have run out."""
        with Session(self._access.engine) as session, session.begin():
            session.execute(delete(LinkRow).where(LinkRow.expires_at < self._access.clock()))


def _invalid() -> AccessError:
    return AccessError(
        401, "link-invalid", "the link does not work: it was used or has run out", fix="ask for a new link"
    )
