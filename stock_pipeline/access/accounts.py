"""Accounts: who there is, whether they may come in, and their passwords."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError as DatabaseIntegrityError
from sqlalchemy.orm import Session

from stock_pipeline.access import versions
from stock_pipeline.access.permissions import VIEWER
from stock_pipeline.access.principal import AccessError, Origin, Principal
from stock_pipeline.access.secret_text import digest, printable
from stock_pipeline.storage.database import reading, transaction
from stock_pipeline.storage.database.tables.accounts import AccountRow, SessionRow

if TYPE_CHECKING:
    from stock_pipeline.access.facade import Access

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
"""Letters, digits and ``._-@``, in ASCII: no two names look the same."""

RESERVED = frozenset({"anonymous", "system", "command_line", "me"})
"""Names that stand for somebody else in the audit trail and in addresses."""


@dataclass(frozen=True, slots=True)
class Account:
    """One person or program that can log in.

    Attributes
    ----------
    id, name, roles
        Which, what it is called, and the roles given to it.
    created_at, last_login_at, password_changed_at
        Its instants.
    disabled
        Whether it may not come in.
    locked_until
        Until when log-ins are refused after too many wrong passwords; ``None`` where they are not.
    has_password, second_factor
        Whether it has a password, and a second factor that was confirmed.
    """

    id: int
    name: str
    roles: tuple[str, ...]
    created_at: datetime
    disabled: bool
    locked_until: datetime | None
    last_login_at: datetime | None
    password_changed_at: datetime | None
    has_password: bool
    second_factor: bool
    password_mark: str = field(default="", repr=False)
    """Changes with the password."""


class Accounts:
    """Makes, finds and changes accounts. Every change is written to the audit trail here."""

    def __init__(self, access: Access) -> None:
        # the first use of the roles writes their defaults, which cannot be done inside a transaction of accounts
        self._access, self._roles = access, access.roles

    def create(
        self,
        name: str,
        *,
        password: str | None = None,
        roles: Sequence[str] = (VIEWER,),
        by: Principal | str,
        origin: Origin | None = None,
    ) -> Account:
        """Make an account; without a password it can log in once a link has given it one.

        Raises
        ------
        AccessError
            403 ``forbidden``: `by` may not give such a role; 404 ``role-not-found``; 409 ``account-exists``;
            422 ``invalid-name`` or ``weak-password``.
        """
        hashed = self.prepare(name, password, roles, by)
        try:
            with Session(self._access.engine) as session, session.begin():
                account_id = self.add(session, name, hashed, roles, by, origin).id
        except DatabaseIntegrityError as error:
            raise self.exists(name) from error
        return self.by_id(account_id)

    def prepare(self, name: str, password: str | None, roles: Sequence[str], by: Principal | str) -> str | None:
        """Check what a new account is made of, and hash its password; nothing is written."""
        check_name(name)
        self._roles.check_grant(by, roles)
        if password is None:
            return None
        self._access.passwords.check(password, name)
        return self._access.passwords.hash(password)

    def add(
        self,
        session: Session,
        name: str,
        hashed: str | None,
        roles: Sequence[str],
        by: Principal | str,
        origin: Origin | None,
        *,
        oidc: tuple[str, str] | None = None,
    ) -> AccountRow:
        """Add an account with its roles inside a transaction, and write down that it was made."""
        versions.bump(session)
        now = self._access.clock()
        issuer, subject = oidc or (None, None)
        row = AccountRow(
            name=name,
            name_key=key_of(name),
            password_hash=hashed,
            password_changed_at=now if hashed else None,
            created_at=now,
            created_by=_name(by)[:64],
            oidc_issuer=issuer,
            oidc_subject=subject,
        )
        session.add(row)
        session.flush()
        self._roles.give(session, row.id, roles)
        self._access.audit.record(
            "account.create",
            actor=by,
            origin=origin,
            object=("account", name),
            after={
                "name": name,
                "roles": sorted(set(roles)),
                "log_in": "oidc" if oidc else "password" if hashed else "none yet",
            },
            session=session,
        )
        return row

    def exists(self, name: str) -> AccessError:
        """The refusal of a name that is taken."""
        return AccessError(
            409, "account-exists", "there is an account of this name", value=name, fix="choose another name"
        )

    def get(self, name: str) -> Account:
        """Find an account by its name, in upper or lower case.

        Raises
        ------
        AccessError
            404 ``account-not-found``.
        """
        with Session(reading(self._access.engine)) as session:
            return self._account(session, self.row(session, name))

    def by_id(self, account_id: int) -> Account:
        """Find an account by its number.

        Raises
        ------
        AccessError
            404 ``account-not-found``.
        """
        with Session(reading(self._access.engine)) as session:
            row = session.get(AccountRow, account_id)
            if row is None:
                raise _missing(account_id)
            return self._account(session, row)

    def list(self, after: int | None = None, limit: int = 100, search: str | None = None) -> list[Account]:
        """Accounts in the order in which they were made.

        Parameters
        ----------
        after
            Number of the last account that is known already.
        limit
            How many at most.
        search
            Part of the name.
        """
        query = select(AccountRow).order_by(AccountRow.id).limit(limit)
        if after is not None:
            query = query.where(AccountRow.id > after)
        if search:
            query = query.where(AccountRow.name_key.contains(key_of(printable(search)), autoescape=True))
        with Session(reading(self._access.engine)) as session:
            given = self._roles.given_to_all(session)
            return [self._account(session, row, given.get(row.id, ())) for row in session.scalars(query)]

    def any_administrator(self) -> bool:
        """Whether there is somebody who can come in and manage accounts and roles."""
        with Session(reading(self._access.engine)) as session:
            return bool(self._roles.administrators(session))

    def change(
        self,
        name: str,
        by: Principal | str,
        origin: Origin | None = None,
        *,
        roles: Sequence[str] | None = None,
        disabled: bool | None = None,
        unlock: bool = False,
    ) -> Account:
        """Change several things of an account: all of them, or nothing.

        Parameters
        ----------
        name
            Which account.
        by, origin
            Who asks, and from where.
        roles
            All that it shall have; as they are where ``None``.
        disabled
            Whether it may not log in; as it is where ``None``.
        unlock
            Forget its wrong passwords.

        Raises
        ------
        AccessError
            403 ``forbidden``, 404 ``account-not-found`` or ``role-not-found``, 409 ``last-administrator``.
        """
        try:
            with transaction(self._access.engine) as session:
                row = self.row_to_change(session, name, by)
                if roles is not None:
                    self._roles.replace(row.name, roles, by, origin=origin, session=session)
                if disabled is not None and disabled != (row.disabled_at is not None):
                    (self.disable if disabled else self.enable)(row.name, by, origin, session)
                if unlock:
                    self.unlock(row.name, by, origin, session)
        except AccessError as error:
            if error.status == 403:
                self._access.audit.record(
                    "account.change", actor=by, origin=origin, object=("account", name[:80]), result="refused",
                    detail={"reason": error.kind},
                )  # fmt: skip
            raise
        if unlock:
            self._access.watch.forget(name)
        return self.get(name)

    def disable(
        self, name: str, by: Principal | str, origin: Origin | None = None, within: Session | None = None
    ) -> Account:
        """Let an account in no more, and end its sessions.

        Raises
        ------
        AccessError
            403 ``forbidden``, 404 ``account-not-found``, 409 ``last-administrator``.
        """
        with self._changing("account.disable", name, by, origin, within) as (session, row):
            with self._roles.administrator_remains(session):
                row.disabled_at = row.disabled_at or self._access.clock()
            self._access.sessions.end(session, SessionRow.account_id == row.id, "account disabled")
            return self._account(session, row)

    def enable(
        self, name: str, by: Principal | str, origin: Origin | None = None, within: Session | None = None
    ) -> Account:
        """Let an account in again.

        Raises
        ------
        AccessError
            403 ``forbidden``, 404 ``account-not-found``.
        """
        with self._changing("account.enable", name, by, origin, within) as (session, row):
            row.disabled_at = None
            return self._account(session, row)

    def unlock(
        self, name: str, by: Principal | str, origin: Origin | None = None, within: Session | None = None
    ) -> Account:
        """Forget the wrong passwords of an account, so that it can log in at once.

        Raises
        ------
        AccessError
            403 ``forbidden``, 404 ``account-not-found``.
        """
        with self._changing("account.unlock", name, by, origin, within) as (session, row):
            row.locked_until = None
            account = self._account(session, row)
        if within is None:
            self._access.watch.forget(name)
        return account

    def delete(self, name: str, by: Principal | str, origin: Origin | None = None) -> None:
        """Remove an account with its sessions, keys, links and roles; the audit trail keeps its name.

        Raises
        ------
        AccessError
            403 ``forbidden``, 404 ``account-not-found``, 409 ``last-administrator``.
        """
        with self._changing("account.delete", name, by, origin) as (session, row):
            with self._roles.administrator_remains(session):
                self._roles.forget(session, row.id)
            session.delete(row)

    def set_password(self, name: str, password: str, by: Principal | str, origin: Origin | None = None) -> None:
        """Give an account a new password, and end all its sessions.

        Raises
        ------
        AccessError
            403 ``forbidden``, 404 ``account-not-found``, 422 ``weak-password``.
        """
        self._store_password("account.set_password", self.get(name).name, password, by, origin, checked=by)

    def change_password(
        self,
        name: str,
        old: str,
        new: str,
        *,
        keep: str | None = None,
        by: Principal | None = None,
        origin: Origin | None = None,
    ) -> None:
        """Change a password by whoever knows the old one, and end the other sessions.

        Parameters
        ----------
        name, old, new
            Account and passwords.
        keep
            Session that goes on: the one in which this was asked.
        by, origin
            Who asks, and from where.

        Raises
        ------
        AccessError
            401 ``invalid-credentials``, 423, 429: as for a log-in; 422 ``weak-password``.
        """
        self._access.logins.prove(name, old, None, origin or Origin(), need_code=False)
        who = by or Principal(name, "anonymous")
        self._store_password("account.change_password", name, new, who, origin, keep=keep)

    def row(self, session: Session, name: str) -> AccountRow:
        """Row of an account inside a transaction; `AccessError` 404 where there is none."""
        row = None
        if NAME.fullmatch(name):
            row = session.scalar(select(AccountRow).where(AccountRow.name_key == key_of(name)))
        if row is None:
            raise _missing(name[:80])
        return row

    def row_to_change(self, session: Session, name: str, by: Principal | str) -> AccountRow:
        """Row of an account that somebody may change, inside a transaction in which it is given no other roles.

        Raises
        ------
        AccessError
            403 ``forbidden``, 404 ``account-not-found``.
        """
        versions.bump(session)  # roles are given and taken under this lock
        row = self.row(session, name)
        self.may_change(by, self._account(session, row), session)
        return row

    def note(
        self,
        session: Session,
        action: str,
        row: AccountRow,
        by: Principal | str,
        origin: Origin | None,
        *,
        detail: dict[str, object] | None = None,
    ) -> None:
        """Write into the audit trail, inside a transaction, what was done to an account."""
        self._access.audit.record(
            action, actor=by, origin=origin, object=("account", row.name), detail=detail, session=session
        )

    def _store_password(
        self,
        action: str,
        name: str,
        password: str,
        by: Principal | str,
        origin: Origin | None,
        *,
        keep: str | None = None,
        checked: Principal | str | None = None,
    ) -> None:
        self._access.passwords.check(password, name)
        hashed = self._access.passwords.hash(password)
        with Session(self._access.engine) as session, session.begin():
            versions.bump(session)
            row = self.row(session, name) if checked is None else self.row_to_change(session, name, checked)
            self.replace_password(session, row, hashed, keep)
            self.note(session, action, row, by, origin)

    def replace_password(self, session: Session, row: AccountRow, hashed: str, keep: str | None = None) -> int:
        """Store a new hash inside a transaction that has bumped the version, and end the sessions of the old one.

        Returns how many sessions were open.
        """
        row.password_hash, row.password_changed_at = hashed, self._access.clock()
        others = SessionRow.account_id == row.id
        if keep is not None:
            others &= SessionRow.id != keep
        return self._access.sessions.end(session, others, "password changed")

    def may_change(self, by: Principal | str, account: Account, session: Session | None = None) -> None:
        """Refuse to let somebody change an account that may do more than they: its password would be a way up.

        One's own account is no exception for an API key, which may hold less than the account.
        """
        own = isinstance(by, Principal) and by.account_id == account.id and by.kind != "api_key"
        if not own:
            self._roles.check_grant(by, account.roles, session)

    @contextmanager
    def _changing(
        self, action: str, name: str, by: Principal | str, origin: Origin | None, within: Session | None = None
    ) -> Iterator[tuple[Session, AccountRow]]:
        """A transaction that changes one account: version first, so that changes wait for each other, audit last."""
        with transaction(self._access.engine, within) as session:
            row = self.row_to_change(session, name, by)
            shown, before = row.name, self._state(session, row)
            yield session, row
            session.flush()
            self._access.audit.record(
                action,
                actor=by,
                origin=origin,
                object=("account", shown),
                before=before,
                after=None if action == "account.delete" else self._state(session, row),
                session=session,
            )

    def _state(self, session: Session, row: AccountRow) -> dict[str, object]:
        return {
            "name": row.name,
            "roles": list(self._roles.given(session, row.id)),
            "disabled": row.disabled_at is not None,
            "locked_until": None if row.locked_until is None else row.locked_until.isoformat(),
        }

    def _account(self, session: Session, row: AccountRow, roles: tuple[str, ...] | None = None) -> Account:
        now = self._access.clock()
        return Account(
            id=row.id,
            name=row.name,
            roles=self._roles.given(session, row.id) if roles is None else roles,
            created_at=row.created_at,
            disabled=row.disabled_at is not None,
            locked_until=row.locked_until if row.locked_until and row.locked_until > now else None,
            last_login_at=row.last_login_at,
            password_changed_at=row.password_changed_at,
            has_password=row.password_hash is not None,
            second_factor=row.totp_confirmed_at is not None,
            password_mark=mark_of(row.password_hash),
        )


def check_name(name: str) -> None:
    """Refuse a name that no account may have.

    Raises
    ------
    AccessError
        422 ``invalid-name``.
    """
    if not NAME.fullmatch(name) or name.casefold() in RESERVED:
        raise AccessError(
            422,
            "invalid-name",
            "no account may have this name",
            value=name[:80],
            allowed="1 to 64 of A-Z a-z 0-9 . _ - @, beginning with a letter or digit; "
            f"none of {', '.join(sorted(RESERVED))}",
        )


def mark_of(password_hash: str | None) -> str:
    """Something that changes with a stored hash and tells nothing of it."""
    return "" if password_hash is None else digest(password_hash)


def key_of(name: str) -> str:
    """A name as it is compared."""
    return name.casefold()[:200]


def _name(by: Principal | str) -> str:
    return by.name if isinstance(by, Principal) else by


def _missing(value: object) -> AccessError:
    return AccessError(404, "account-not-found", "there is no such account", value=value)
