"""What roles there are, what they hold and who has them."""

from __future__ import annotations

import builtins
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, String, cast, literal, select
from sqlalchemy.orm import Session

from stock_pipeline.access import permissions as defaults
from stock_pipeline.access import policy, versions
from stock_pipeline.access.policy import ACCOUNT, ROLE, Policy
from stock_pipeline.access.principal import AccessError
from stock_pipeline.storage.database import reading
from stock_pipeline.storage.database.tables.accounts import AccountRow, PolicyRow

GOVERNS = frozenset({"users:manage", "roles:manage"})
"""Who holds these is an administrator, whatever the role is called."""


@dataclass(frozen=True, slots=True)
class Role:
    """One role.

    Attributes
    ----------
    name
        Its name.
    parent
        The role that it inherits from.
    own
        What it holds itself.
    permissions
        What it holds with all that it inherits.
    built_in
        Whether every installation has it; such a role cannot be deleted.
    """

    name: str
    parent: str | None
    own: tuple[str, ...]
    permissions: frozenset[str]
    built_in: bool


class RoleReader:
    """Reads roles; the policy is worked out anew only when the version of who may do what has grown.

    Parameters
    ----------
    engine
        The metadata database.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: tuple[int, Policy] | None = None

    def permissions_of(self, roles: Iterable[str]) -> frozenset[str]:
        """What roles hold together, with all that they inherit; unknown ones hold nothing."""
        return self._current().of(roles)

    def get(self, name: str) -> Role:
        """One role; `AccessError` 404 ``role-not-found`` where there is none."""
        found = self._current()
        if name not in found.parents:
            raise not_found(name, found)
        return _role(found, name)

    def of(self, account_name: str) -> tuple[str, ...]:
        """Roles given to an account, sorted; `AccessError` 404 ``account-not-found`` where there is none."""
        with Session(reading(self._engine)) as session:
            return self.given(session, account_id_of(session, account_name))

    def given(self, session: Session, account_id: int) -> tuple[str, ...]:
        """Roles given to an account, as a transaction sees them."""
        rows = session.scalars(select(PolicyRow.v1).where(is_given(f"{ACCOUNT}{account_id}")))
        return tuple(sorted(row.removeprefix(ROLE) for row in rows))

    def given_to_all(self, session: Session) -> dict[int, tuple[str, ...]]:
        """Roles of every account that has any, by the account's id."""
        found: dict[int, builtins.list[str]] = {}
        rows = session.execute(
            select(PolicyRow.v0, PolicyRow.v1).where(PolicyRow.ptype == "g", PolicyRow.v0.startswith(ACCOUNT))
        )
        for v0, v1 in rows:
            found.setdefault(int(v0.removeprefix(ACCOUNT)), []).append(v1.removeprefix(ROLE))
        return {account: tuple(sorted(names)) for account, names in found.items()}

    def list(self) -> builtins.list[Role]:
        """Every role, those that inherit after those that they inherit from."""
        found = self._current()
        return [_role(found, name) for name in sorted(found.parents, key=lambda name: (len(found.chain(name)), name))]

    def administrators(self, session: Session) -> frozenset[int]:
        """Accounts that are enabled and can manage accounts and roles."""
        found = policy.build(policy.lines_of(session))
        enabled = set(session.scalars(select(AccountRow.id).where(AccountRow.disabled_at.is_(None))))
        return frozenset(
            account
            for account, roles in self.given_to_all(session).items()
            if account in enabled and found.of(roles) >= GOVERNS
        )

    def _current(self) -> Policy:
        with Session(reading(self._engine)) as session:
            return self.as_of(session, session.scalar(select(versions.NUMBER)) or 0)

    def as_of(self, session: Session, version: int) -> Policy:
        """The policy as it stands; casbin works it out anew only where a line about roles has changed.

        Parameters
        ----------
        session
            Transaction in which it is read where it is not known.
        version
            Number of changes (`versions.NUMBER`), read in the same transaction.
        """
        known = self._known
        if known is not None and known[0] == version:
            return known[1]
        lines = policy.lines_of(session)
        found = known[1] if known is not None and known[1].lines == lines else policy.build(lines)
        self._known = version, found
        return found


def is_given(subject: Any) -> Any:
    """Condition of the lines that give a subject, a text or an expression, its roles."""
    return (PolicyRow.ptype == "g") & (PolicyRow.v0 == subject)


GIVEN_TO_ACCOUNT = is_given(literal(ACCOUNT) + cast(AccountRow.id, String))
"""Condition of the lines that give the account of a joined row its roles."""


def account_id_of(session: Session, name: str) -> int:
    """Identity of an account; `AccessError` 404 where there is none."""
    found = session.scalar(select(AccountRow.id).where(AccountRow.name_key == name.casefold()))
    if found is None:
        raise AccessError(404, "account-not-found", "there is no such account", value=name[:80])
    return found


def not_found(name: str, known: Policy) -> AccessError:
    """There is no such role, with those that there are."""
    return AccessError(
        404, "role-not-found", "there is no such role", value=name[:80], allowed=", ".join(known.parents)
    )


def _role(found: Policy, name: str) -> Role:
    return Role(
        name, found.parents[name], tuple(sorted(found.own[name])), found.permissions[name], name in defaults.ROLES
    )
