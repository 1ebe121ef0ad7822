"""One-time links: an invitation, a new password, a lost second factor, the first administrator.

A link is bound to what its account, its role and whoever made it were at that moment: a new password, another role,
other permissions, a disabled or deleted account end it. So nobody gets by an old link what they could not be given now.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from stock_pipeline.access import policy
from stock_pipeline.access.accounts import mark_of
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
    revoke_keys
        Whether a new password ends the account's API keys.
    """

    purpose: str
    account: str | None
    role: str | None
    expires_at: datetime
    created_by: str
    revoke_keys: bool


class Links:
    """Makes and redeems one-time links."""

    def __init__(self, access: Access) -> None:
        # the first use of the roles writes their defaults, which cannot be done while their state is looked at
        self._access, self._roles = access, access.roles

    def create(
        self,
        purpose: Purpose,
        *,
        account: str | None = None,
        role: str | None = None,
        by: Principal | str,
        hours: float | None = None,
        revoke_keys: bool = True,
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
        revoke_keys
            Whether the new password ends the account's API keys, which whoever knew the old one may have made.

        Raises
        ------
        AccessError
            403 ``forbidden``; 404 ``account-not-found`` or ``role-not-found``; 409 ``own-account``: a stolen session
            would be enough for a new password; 422 ``invalid-link``.
        """
        for_account = purpose in ("reset", "recovery")
        if purpose not in PURPOSES or for_account != (account is not None):
            raise AccessError(422, "invalid-link", "no such link", value=purpose, allowed=", ".join(PURPOSES))
        role = {"setup": ADMINISTRATOR, "invitation": role or self._access.settings.registration_role}.get(purpose)
        maker_id = by.account_id if isinstance(by, Principal) else None
        with Session(reading(self._access.engine)) as session:
            owner_id = None if account is None else self._access.accounts.row(session, account).id
            # before the checks: what changes after them leaves a link that does not work
            stamp = self._stamp(session, owner_id, role, maker_id)
        if role is not None:
            self._roles.check_grant(by, (role,))
        if account is not None:
            self._access.accounts.may_change(by, self._access.accounts.get(account))
        if owner_id is not None and owner_id == maker_id:
            raise AccessError(
                409, "own-account", "a link is for others: one's own password is changed by the old one",
                fix="POST /api/auth/password, or the console's page of your account",
            )  # fmt: skip
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
                    maker_id=maker_id,
                    stamp=stamp,
                    revoke_keys=revoke_keys,
                    expires_at=until,
                )
            )
            detail = {"purpose": purpose, "role": role, "expires_at": until.isoformat()}
            self._access.audit.record(
                "link.create",
                actor=by,
                origin=origin,
                object=("link", purpose) if row is None else ("account", row.name),
                detail=detail if row is None else {**detail, "revoke_keys": revoke_keys},
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
            self._check_unchanged(session, row)
        return Link(row.purpose, account, row.role, row.expires_at, row.created_by, row.revoke_keys)

    def redeem(self, secret: str, *purposes: Purpose, session: Session) -> LinkRow:
        """Use a link up inside a transaction: whoever is first has it, and an abort of the transaction gives it back.

        Raises
        ------
        AccessError
            401 ``link-invalid``: not a link, of another purpose, run out, used, or something has changed since it was
            made; which of them is not said.
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
        self._check_unchanged(session, row)
        return row

    def _check_unchanged(self, session: Session, row: LinkRow) -> None:
        if row.stamp != self._stamp(session, row.account_id, row.role, row.maker_id):
            raise _invalid()

    def _stamp(self, session: Session, account_id: int | None, role: str | None, maker_id: int | None) -> str:
        """Digest of what a link depends on, as a transaction sees it."""
        known = policy.build(policy.lines_of(session))

        def state(account_id: int | None) -> list[object] | None:
            row = None if account_id is None else session.get(AccountRow, account_id)
            if row is None:
                return None
            return [
                row.name_key,
                row.created_at.isoformat(),
                mark_of(row.password_hash),
                row.disabled_at is not None,
                row.totp_confirmed_at is not None,
                sorted(known.of(self._roles.given(session, row.id))),
            ]

        states = [account_id, state(account_id), sorted(known.of((role,))) if role else None, maker_id, state(maker_id)]
        return hashlib.sha256(json.dumps(states).encode()).hexdigest()

    def purge(self) -> None:
        """Forget links that have run out."""
        with Session(self._access.engine) as session, session.begin():
            session.execute(delete(LinkRow).where(LinkRow.expires_at < self._access.clock()))


def _invalid() -> AccessError:
    return AccessError(
        401,
        "link-invalid",
        "the link does not work: it was used, has run out, or the account has changed since",
        fix="ask for a new link",
    )
