"""Roles, and how they are changed at run time.

A change is one transaction: the policy, the version that tells every process, and the audit entry. Changes wait for
each other, so that two of them together cannot do what neither may alone, such as removing the last administrator.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import Engine, delete, func, insert, select
from sqlalchemy.orm import Session

from stock_pipeline.access import permissions as defaults
from stock_pipeline.access import policy, versions
from stock_pipeline.access.audit import Audit
from stock_pipeline.access.permissions import PERMISSIONS
from stock_pipeline.access.policy import ACCOUNT, ROLE, Policy
from stock_pipeline.access.principal import AccessError, Origin, Principal
from stock_pipeline.access.role_grants import RoleGrants, lock
from stock_pipeline.access.role_reading import GOVERNS, Role, not_found
from stock_pipeline.config.access import AccessSettings
from stock_pipeline.storage.database.tables.accounts import AccountRow, LinkRow, PolicyRow

__all__ = ["GOVERNS", "KEEP", "Role", "Roles", "lock"]

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")


class _Keep:
    """Says that something is left as it is."""


KEEP: Final = _Keep()


class Roles(RoleGrants):
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
        super().__init__(engine, audit)
        self._named = () if settings is None else (settings.anonymous_role, settings.registration_role)

    def ensure_defaults(self) -> None:
        """Enter the built-in roles, and permissions that are new in this version; undoes no change made since."""
        if not _defaults_missing(self._current()):
            return
        with self._changing() as (session, before):
            missing = _defaults_missing(before)
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
                raise not_found(name, before)
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
                raise not_found(name, before)
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

    # ---------------------------------------------------------------- parts
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

    def _may_manage(self, by: Principal | str, action: str, name: str, origin: Origin | None) -> None:
        if isinstance(by, Principal) and not by.may("roles:manage"):
            error = AccessError(
                403, "forbidden", "roles:manage is needed to change roles", value=by.name, fix="ask an administrator"
            )
            self._refused(action, ("role", name), by, origin, error, name)
            raise error

    def _users_of(self, session: Session, name: str, known: Policy) -> list[str]:
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


def _defaults_missing(known: Policy) -> list[tuple[str, str, str]]:
    missing: list[tuple[str, str, str]] = []
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


def _state(found: Policy, name: str | None = None) -> dict[str, Any]:
    states = {
        role: {"parent": found.parents[role], "permissions": sorted(found.own[role])}
        for role in found.parents
        if name in (None, role)
    }
    return states if name is None else states[name]
