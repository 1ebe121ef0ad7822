"""API keys: long-lived secrets of programs, with scopes."""

from __future__ import annotations

import builtins
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from stock_pipeline.access import versions
from stock_pipeline.access.gate import KEY_PREFIX
from stock_pipeline.access.principal import AccessError, Origin, Principal
from stock_pipeline.access.secret_text import digest, new_secret, printable
from stock_pipeline.storage.database import reading
from stock_pipeline.storage.database.tables.accounts import AccountRow, ApiKeyRow

if TYPE_CHECKING:
    from stock_pipeline.access.facade import Access

MOST = 50
"""Keys that one account may have in force."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key of a program, without its secret.

    Attributes
    ----------
    id, account, name
        Which, whose, and what it is for.
    scopes
        What it may do at most; its account's present permissions limit it further.
    created_at, expires_at, last_used_at, revoked_at
        Its instants.
    """

    id: str
    account: str
    name: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class ApiKeys:
    """Makes, lists and revokes API keys."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def create(
        self,
        account: str,
        name: str,
        scopes: Iterable[str],
        expires_at: datetime | None = None,
        *,
        by: Principal | str | None = None,
        origin: Origin | None = None,
    ) -> tuple[ApiKey, str]:
        """Make a key.

        Parameters
        ----------
        account
            Name of the account that it acts for.
        name
            What it is for.
        scopes
            Permissions, such as ``predictions:read``.
        expires_at
            When it ends; ``None``: when it is revoked.
        by
            Who asks; a key never holds more than they may do at this moment.
        origin
            From where.

        Returns
        -------
        tuple
            The key, and its secret text, which is shown this once.

        Raises
        ------
        AccessError
            422 ``invalid-key`` or ``invalid-scopes``; 409 ``too-many-keys``; 404 ``account-not-found``.
        """
        access, wanted, label = self._access, frozenset(scopes), printable(name).strip()
        owner = access.accounts.get(account)
        held = access.roles.permissions_of(owner.roles)
        if isinstance(by, Principal):
            access.accounts.may_change(by, owner)
            held = held & by.permissions
        excess = wanted - held
        if excess or not wanted:
            raise AccessError(
                422,
                "invalid-scopes",
                "a key may do no more than who makes it" if excess else "a key needs scopes",
                value=", ".join(sorted(scope[:80] for scope in excess)[:20]) or None,
                allowed=", ".join(sorted(held)),
            )
        if not 1 <= len(label) <= 64:
            raise AccessError(422, "invalid-key", "a key needs a name", allowed="1 to 64 characters")
        now = access.clock()
        if expires_at is not None and expires_at <= now:
            raise AccessError(422, "invalid-key", "the key has run out already", value=expires_at.isoformat())
        key_id = secrets.token_hex(6)
        text = access.seals.seal(new_secret(f"{KEY_PREFIX}{key_id}_"))
        with Session(access.engine) as session, session.begin():
            versions.bump(session)
            owner_row = access.accounts.row(session, account)
            in_force = session.scalars(
                select(ApiKeyRow.id).where(ApiKeyRow.account_id == owner_row.id, ApiKeyRow.revoked_at.is_(None))
            )
            if len(in_force.all()) >= MOST:
                raise AccessError(409, "too-many-keys", "the account has too many keys", allowed=str(MOST))
            row = ApiKeyRow(
                id=key_id,
                account_id=owner_row.id,
                name=label,
                secret_hash=digest(text.removeprefix(f"{KEY_PREFIX}{key_id}_")),
                scopes=sorted(wanted),
                created_at=now,
                expires_at=expires_at,
            )
            session.add(row)
            session.flush()
            made = _key(row, owner_row.name)
            access.audit.record(
                "api_key.create",
                actor=by or owner_row.name,
                origin=origin,
                object=("api_key", key_id),
                after={"account": owner_row.name, "name": label, "scopes": sorted(wanted)},
                session=session,
            )
        return made, text

    def list(self, account: str) -> builtins.list[ApiKey]:
        """Keys of an account, the newest first."""
        with Session(reading(self._access.engine)) as session:
            owner = self._access.accounts.row(session, account)
            query = select(ApiKeyRow).where(ApiKeyRow.account_id == owner.id)
            rows = session.scalars(query.order_by(ApiKeyRow.created_at.desc(), ApiKeyRow.id))
            return [_key(row, owner.name) for row in rows]

    def get(self, key_id: str) -> ApiKey:
        """One key; `AccessError` 404 ``key-not-found`` where there is none."""
        with Session(reading(self._access.engine)) as session:
            row, owner = self._row(session, key_id)
            return _key(row, owner.name)

    def revoke(self, key_id: str, by: Principal | str, origin: Origin | None = None) -> ApiKey:
        """End a key; `AccessError` 404 ``key-not-found`` where there is none."""
        access = self._access
        with Session(access.engine) as session, session.begin():
            versions.bump(session)
            row, owner = self._row(session, key_id)
            if row.revoked_at is None:
                row.revoked_at = access.clock()
                session.flush()
                access.audit.record(
                    "api_key.revoke",
                    actor=by,
                    origin=origin,
                    object=("api_key", row.id),
                    detail={"account": owner.name, "name": row.name},
                    session=session,
                )
            return _key(row, owner.name)

    def end(self, session: Session, account_id: int) -> builtins.list[str]:
        """End all keys of an account inside a transaction that has bumped the version; returns which were in force."""
        in_force = (ApiKeyRow.account_id == account_id) & ApiKeyRow.revoked_at.is_(None)
        ids = builtins.list(session.scalars(select(ApiKeyRow.id).where(in_force).order_by(ApiKeyRow.id)))
        session.execute(
            update(ApiKeyRow)
            .where(ApiKeyRow.id.in_(ids))
            .values(revoked_at=self._access.clock())
            .execution_options(synchronize_session=False)
        )
        return ids

    def _row(self, session: Session, key_id: str) -> tuple[ApiKeyRow, AccountRow]:
        row = session.get(ApiKeyRow, key_id) if key_id.isalnum() and key_id.isascii() else None
        if row is None:
            raise AccessError(404, "key-not-found", "there is no such key")
        return row, session.get_one(AccountRow, row.account_id)


def _key(row: ApiKeyRow, account: str) -> ApiKey:
    return ApiKey(
        id=row.id,
        account=account,
        name=row.name,
        scopes=tuple(row.scopes),
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )
