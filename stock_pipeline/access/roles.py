"""Roles: what they hold, who has them, and how both are changed at run time.

A change is one transaction: the policy, the version that tells every process, and the audit entry. Changes wait for
each other, so that two of them together cannot do what neither may alone, such as removing the last administrator.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Engine, delete, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from stock_pipeline.access import permissions as defaults
from stock_pipeline.access import policy, versions
from stock_pipeline.access.audit import Audit
from stock_pipeline.access.permissions import PERMISSIONS
from stock_pipeline.access.policy import ACCOUNT, ROLE, Policy
from stock_pipeline.access.principal import AccessError, Origin, Principal
from stock_pipeline.config.access import AccessSettings
from stock_pipeline.storage.database import reading
from stock_pipeline.storage.database.tables.accounts import AccessVersionRow, AccountRow, LinkRow, PolicyRow

GOVERNS = frozenset({"users:manage", "roles:manage"})
"""Who holds these is an administrator, whatever the role is called."""

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")


class _Keep:
    """Says that something is left as it is."""


KEEP: Final = _Keep()


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


class Roles:
    """The roles of one metadata database.

    Parameters
    ----------
    engine
        The metadata database.
    audit
        Where changes are written down.
    settings
        Roles that the configuration names are in use.
    """

    def __init__(self, engine: Engine, audit: Audit, settings: AccessSettings | None = None) -> None:
        self._engine, self._audit = engine, audit
        self._named = () if settings is None else (settings.anonymous_role, settings.registration_role)
        self._known: tuple[int, Policy] | None = None

    # ---------------------------------------------------------------- reading
    def permissions_of(self, roles: Iterable[str]) -> frozenset[str]:
        """What roles hold together, with all that they inherit; unknown ones hold nothing."""
        return self._current().of(roles)

    def get(self, name: str) -> Role:
        """One role; `AccessError` 404 ``role-not-found`` where there is none."""
        found = self._current()
        if name not in found.parents:
            raise _not_found(name, found)
        return _role(found, name)

    def of(self, account_name: str) -> tuple[str, ...]:
        """Roles given to an account, sorted; `AccessError` 404 ``account-not-found`` where there is none."""
        with Session(reading(self._engine)) as session:
            return self.given(session, _account_id(session, account_name))

    def given(self, session: Session, account_id: int) -> tuple[str, ...]:
        """Roles given to an account, as a transaction sees them."""
        rows = session.scalars(select(PolicyRow.v1).where(_is_given(f"{ACCOUNT}{account_id}")))
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

    # ---------------------------------------------------------------- changing
    def ensure_defaults(self) -> None:
        """Enter the built-in roles, and permissions that are new in this version; undoes no change made since."""
        if not self._defaults_missing(self._current()):
            return
        with self._changing() as (session, before):
            missing = self._defaults_missing(before)
            if not missing:
                return  # another process has entered them meanwhile
            for ptype, v0, v1 in missing:
                session.execute(insert(PolicyRow).values(ptype=ptype, v0=v0, v1=v1))
            versions.bump(session)
            self._audit.record(
                "role.defaults",
                actor="system",
                object=("roles", "defaults"),
                before=_state(before),
                after=_state(policy.build(policy.lines_of(session))),
                session=session,
            )

    def create(
        self,
        name: str,
        parent: str | None,
        permissions: Iterable[str],
        by: Principal | str,
        *,
        origin: Origin | None = None,
    ) -> Role:
        """Make a role.

        Parameters
        ----------
        name
            Small letters, digits, ``-`` and ``_``; at most 40.
        parent
            Role that it inherits from.
        permissions
            What it holds besides.
        by, origin
            Who does it, from where.

        Raises
        ------
        AccessError
            403 ``forbidden``, 409 ``role-exists``, 422 ``invalid-role-name``, ``unknown-role``, ``unknown-permission``
            or ``role-too-deep``.
        """
        wanted = _checked(permissions)
        if not _NAME.fullmatch(name):
            raise AccessError(
                422, "invalid-role-name", "not a name of a role", value=name[:80],
                allowed="a small letter, then at most 39 small letters, digits, - or _",
            )  # fmt: skip
        self._may_manage(by, "role.create", name, origin)
        with self._changing() as (session, before):
            if name in before.parents:
                raise AccessError(409, "role-exists", "there is such a role", value=name, fix="change it")
            session.execute(insert(PolicyRow).values(ptype="r", v0=ROLE + name, v1=""))
            self._write(session, name, parent, wanted, before)
            self._told(session, "role.create", name, before, by, origin)
        return self.get(name)

    def change(
        self,
        name: str,
        parent: str | _Keep | None = KEEP,
        permissions: Iterable[str] | None = None,
        by: Principal | str = "system",
        *,
        origin: Origin | None = None,
    ) -> Role:
        """Change what a role inherits from or holds itself; effective at once, also for issued tokens.

        Parameters
        ----------
        name
            The role.
        parent
            The role that it inherits from from now on, `KEEP` for the present one.
        permissions
            All that it holds itself from now on; the present ones where ``None``.
        by, origin
            Who does it, from where.

        Raises
        ------
        AccessError
            403 ``forbidden``, 404 ``role-not-found``, 409 ``role-cycle`` or ``last-administrator``, 422
            ``unknown-role``, ``unknown-permission`` or ``role-too-deep``.
        """
        wanted = None if permissions is None else _checked(permissions)
        self._may_manage(by, "role.change", name, origin)
        with self._changing() as (session, before):
            if name not in before.parents:
                raise _not_found(name, before)
            new_parent = before.parents[name] if isinstance(parent, _Keep) else parent
            with self.administrator_remains(session):
                self._write(session, name, new_parent, before.own[name] if wanted is None else wanted, before)
            self._told(session, "role.change", name, before, by, origin)
        return self.get(name)

    def delete(self, name: str, by: Principal | str, *, origin: Origin | None = None) -> None:
        """Delete a role that nobody has.

        Raises
        ------
        AccessError
            403 ``forbidden``, 404 ``role-not-found``, 409 ``built-in-role`` or ``role-in-use``.
        """
        self._may_manage(by, "role.delete", name, origin)
        with self._changing() as (session, before):
            if name not in before.parents:
                raise _not_found(name, before)
            if name in defaults.ROLES:
                raise AccessError(
                    409, "built-in-role", "every installation has this role", value=name, fix="change what it holds"
                )
            users = self._users_of(session, name, before)
            if users:
                raise AccessError(
                    409, "role-in-use", "the role is in use", value=name,
                    fix=f"first withdraw it from: {', '.join(users[:10])}", detail={"users": users[:10]},
                )  # fmt: skip
            session.execute(delete(PolicyRow).where(PolicyRow.v0 == ROLE + name))
            self._told(session, "role.delete", name, before, by, origin)

    def assign(self, account_name: str, role: str, by: Principal | str, *, origin: Origin | None = None) -> None:
        """Give an account a role; nothing happens where it has it.

        Raises
        ------
        AccessError
            403 ``forbidden``: the one who asks may not give it; 404 ``account-not-found`` or ``role-not-found``.
        """
        self._reassign(account_name, by, origin, "role.assign", role)

    def withdraw(self, account_name: str, role: str, by: Principal | str, *, origin: Origin | None = None) -> None:
        """Take a role from an account; nothing happens where it has not got it.

        Raises
        ------
        AccessError
            403 ``forbidden``, 404 ``account-not-found`` or ``role-not-found``, 409 ``last-administrator``.
        """
        self._reassign(account_name, by, origin, "role.withdraw", role)

    # ---------------------------------------------------------------- for changes of accounts
    def check_grant(self, by: Principal | str, roles: Iterable[str]) -> None:
        """Refuse to let someone give or take roles that hold more than they do, unless they may manage roles.

        A name instead of a principal is a part of the platform or the command line, which may.

        Raises
        ------
        AccessError
            403 ``forbidden``, or 404 ``role-not-found``.
        """
        found, names = self._current(), tuple(roles)
        for name in names:
            if name not in found.parents:
                raise _not_found(name, found)
        if isinstance(by, str) or by.may("roles:manage"):
            return
        more = sorted(found.of(names) - by.permissions)
        if more or not by.may("users:manage"):
            raise AccessError(
                403, "forbidden", "you cannot give or take what you do not hold yourself", value=", ".join(names),
                allowed="roles that hold no more than your own, with users:manage; any role with roles:manage",
                fix="ask an administrator", detail={"permissions": more},
            )  # fmt: skip

    def give(self, session: Session, account_id: int, roles: Iterable[str]) -> None:
        """Give a new account its roles, within the transaction that makes it.

        Raises
        ------
        AccessError
            404 ``role-not-found``.
        """
        lock(session)
        known = policy.build(policy.lines_of(session))
        for role in sorted(set(roles)):
            if role not in known.parents:
                raise _not_found(role, known)
            session.execute(insert(PolicyRow).values(ptype="g", v0=f"{ACCOUNT}{account_id}", v1=ROLE + role))
        versions.bump(session)

    def forget(self, session: Session, account_id: int) -> None:
        """Take every role from an account that is deleted, within that transaction."""
        lock(session)
        session.execute(delete(PolicyRow).where(_is_given(f"{ACCOUNT}{account_id}")))
        versions.bump(session)

    @contextmanager
    def administrator_remains(self, session: Session) -> Iterator[None]:
        """Refuse what is done in the ``with`` block if an enabled administrator was there before and none is after.

        Raises
        ------
        AccessError
            409 ``last-administrator``; the transaction must be rolled back.
        """
        lock(session)
        had = self.administrators(session)
        yield
        session.flush()
        if had and not self.administrators(session):
            raise AccessError(
                409, "last-administrator", "nobody would be left who can manage accounts and roles",
                fix="first make someone else an administrator",
            )  # fmt: skip

    def administrators(self, session: Session) -> frozenset[int]:
        """Accounts that are enabled and can manage accounts and roles."""
        found = policy.build(policy.lines_of(session))
        enabled = set(session.scalars(select(AccountRow.id).where(AccountRow.disabled_at.is_(None))))
        return frozenset(
            account
            for account, roles in self.given_to_all(session).items()
            if account in enabled and found.of(roles) >= GOVERNS
        )

    # ---------------------------------------------------------------- parts
    def _current(self) -> Policy:
        """The policy as it stands; casbin works it out anew only where a line about roles has changed."""
        version, known = versions.current(self._engine), self._known
        if known is not None and known[0] == version:
            return known[1]
        with Session(reading(self._engine)) as session:
            lines = policy.lines_of(session)
        found = known[1] if known is not None and known[1].lines == lines else policy.build(lines)
        self._known = version, found
        return found

    @contextmanager
    def _changing(self) -> Iterator[tuple[Session, Policy]]:
        with Session(self._engine) as session, session.begin():
            lock(session)
            yield session, policy.build(policy.lines_of(session))

    def _defaults_missing(self, known: Policy) -> builtins.list[tuple[str, str, str]]:
        missing: builtins.list[tuple[str, str, str]] = []
        for name, (parent, held) in defaults.ROLES.items():
            role = ROLE + name
            if name not in known.parents:
                missing.append(("r", role, ""))
                missing += [("g", role, ROLE + parent)] if parent else []
            for permission in held:
                if ("d", role, permission) not in known.lines:
                    missing.append(("d", role, permission))
                    missing += [("p", role, permission)] if ("p", role, permission) not in known.lines else []
        return missing

    def _write(self, session: Session, name: str, parent: str | None, wanted: frozenset[str], before: Policy) -> None:
        if parent is not None:
            if parent not in before.parents:
                raise AccessError(
                    422, "unknown-role", "there is no such role to inherit from", value=parent[:80],
                    allowed=", ".join(before.parents),
                )  # fmt: skip
            if name in before.chain(parent):
                raise AccessError(
                    409, "role-cycle", "a role cannot inherit from itself",
                    value=" > ".join([name, *before.chain(parent)]),
                )  # fmt: skip
            below = max((len(before.chain(role)) - len(before.chain(name)) for role in before.parents
                         if name in before.chain(role)), default=0)  # fmt: skip
            if len(before.chain(parent)) + 1 + below > policy.DEEPEST:
                raise AccessError(
                    422, "role-too-deep", "too many roles inherit one from another", value=name,
                    allowed=f"chains of {policy.DEEPEST}",
                )  # fmt: skip
        role = ROLE + name
        session.execute(delete(PolicyRow).where(PolicyRow.v0 == role, PolicyRow.ptype.in_(("p", "g"))))
        lines = [("p", permission) for permission in sorted(wanted)] + ([("g", ROLE + parent)] if parent else [])
        for ptype, v1 in lines:
            session.execute(insert(PolicyRow).values(ptype=ptype, v0=role, v1=v1))

    def _told(
        self, session: Session, action: str, name: str, before: Policy, by: Principal | str, origin: Origin | None
    ) -> None:
        after = policy.build(policy.lines_of(session))
        versions.bump(session)
        self._audit.record(
            action,
            actor=by,
            origin=origin,
            object=("role", name),
            before=_state(before, name) if name in before.parents else None,
            after=_state(after, name) if name in after.parents else None,
            session=session,
        )

    def _reassign(self, account_name: str, by: Principal | str, origin: Origin | None, action: str, role: str) -> None:
        try:
            self.check_grant(by, [role])
        except AccessError as error:
            self._refused(action, ("account", account_name), by, origin, error, role)
            raise
        with self._changing() as (session, known):
            if role not in known.parents:
                raise _not_found(role, known)
            account_id = _account_id(session, account_name)
            subject, had = f"{ACCOUNT}{account_id}", self.given(session, account_id)
            if (role in had) == (action == "role.assign"):
                return
            with self.administrator_remains(session):
                if action == "role.assign":
                    session.execute(insert(PolicyRow).values(ptype="g", v0=subject, v1=ROLE + role))
                else:
                    session.execute(delete(PolicyRow).where(_is_given(subject), PolicyRow.v1 == ROLE + role))
            versions.bump(session)
            self._audit.record(
                action, actor=by, origin=origin, object=("account", account_name), detail={"role": role},
                before={"roles": had}, after={"roles": self.given(session, account_id)}, session=session,
            )  # fmt: skip

    def _may_manage(self, by: Principal | str, action: str, name: str, origin: Origin | None) -> None:
        if isinstance(by, Principal) and not by.may("roles:manage"):
            error = AccessError(
                403, "forbidden", "roles:manage is needed to change roles", value=by.name, fix="ask an administrator"
            )
            self._refused(action, ("role", name), by, origin, error, name)
            raise error

    def _refused(
        self,
        action: str,
        object: tuple[str, str],
        by: Principal | str,
        origin: Origin | None,
        error: AccessError,
        role: str,
    ) -> None:
        detail = {"role": role, "reason": error.kind}
        self._audit.record(action, actor=by, origin=origin, object=object, result="refused", detail=detail)

    def _users_of(self, session: Session, name: str, known: Policy) -> builtins.list[str]:
        holders = session.scalars(
            select(PolicyRow.v0).where(
                PolicyRow.ptype == "g", PolicyRow.v1 == ROLE + name, PolicyRow.v0.startswith(ACCOUNT)
            )
        )
        ids = [int(holder.removeprefix(ACCOUNT)) for holder in holders]
        accounts = session.scalars(select(AccountRow.name).where(AccountRow.id.in_(ids)).order_by(AccountRow.name))
        links = session.scalar(
            select(func.count()).select_from(LinkRow).where(LinkRow.role == name, LinkRow.used_at.is_(None))
        )
        return [
            *(f"account {account}" for account in accounts),
            *(f"role {role}" for role, parent in known.parents.items() if parent == name),
            *([f"{links} open invitations"] if links else []),
            *(["the configuration"] if name in self._named else []),
        ]


def lock(session: Session) -> None:
    """Let changes of roles and administrators wait for each other until the transaction ends."""
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    session.execute(dialect.insert(AccessVersionRow).values(id=1, value=0).on_conflict_do_nothing())
    session.execute(select(AccessVersionRow.value).where(AccessVersionRow.id == 1).with_for_update())


def _checked(permissions: Iterable[str]) -> frozenset[str]:
    wanted = frozenset(permissions)
    unknown = sorted(wanted - PERMISSIONS.keys())
    if unknown:
        raise AccessError(
            422, "unknown-permission", "there are no such permissions",
            value=", ".join(name[:80] for name in unknown[:20]),
            allowed=", ".join(PERMISSIONS), detail={"unknown": unknown[:20]},
        )  # fmt: skip
    return wanted


def _is_given(subject: str) -> Any:
    return (PolicyRow.ptype == "g") & (PolicyRow.v0 == subject)


def _account_id(session: Session, name: str) -> int:
    found = session.scalar(select(AccountRow.id).where(AccountRow.name_key == name.casefold()))
    if found is None:
        raise AccessError(404, "account-not-found", "there is no such account", value=name[:80])
    return found


def _not_found(name: str, known: Policy) -> AccessError:
    return AccessError(
        404, "role-not-found", "there is no such role", value=name[:80], allowed=", ".join(known.parents)
    )


def _role(found: Policy, name: str) -> Role:
    return Role(
        name, found.parents[name], tuple(sorted(found.own[name])), found.permissions[name], name in defaults.ROLES
    )


def _state(found: Policy, name: str | None = None) -> dict[str, Any]:
    states = {
        role: {"parent": found.parents[role], "permissions": sorted(found.own[role])}
        for role in found.parents
        if name in (None, role)
    }
    return states if name is None else states[name]
