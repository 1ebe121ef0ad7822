"""Who is given which role, by whom, and that an administrator always remains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, delete, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from stock_pipeline.access import policy, versions
from stock_pipeline.access.audit import Audit
from stock_pipeline.access.policy import ACCOUNT, ROLE, Policy
from stock_pipeline.access.principal import AccessError, Origin, Principal
from stock_pipeline.access.role_reading import RoleReader, account_id_of, is_given, not_found
from stock_pipeline.storage.database import transaction
from stock_pipeline.storage.database.tables.accounts import AccessVersionRow, PolicyRow

_ASSIGN, _WITHDRAW = "role.assign", "role.withdraw"


class RoleGrants(RoleReader):
    """Gives roles to accounts and takes them away.

    Parameters
    ----------
    engine
        The metadata database.
    audit
        Where changes are written down.
    """

    def __init__(self, engine: Engine, audit: Audit) -> None:
        super().__init__(engine)
        self._audit = audit

    def assign(self, account_name: str, role: str, by: Principal | str, *, origin: Origin | None = None) -> None:
        """Give an account a role; nothing happens where it has it.

        Raises
        ------
        AccessError
            403 ``forbidden``: the one who asks may not give it; 404 ``account-not-found`` or ``role-not-found``.
        """
        self._reassign(account_name, by, origin, [(_ASSIGN, role)])

    def withdraw(self, account_name: str, role: str, by: Principal | str, *, origin: Origin | None = None) -> None:
        """Take a role from an account; nothing happens where it has not got it.

        Raises
        ------
        AccessError
            403 ``forbidden``, 404 ``account-not-found`` or ``role-not-found``, 409 ``last-administrator``.
        """
        self._reassign(account_name, by, origin, [(_WITHDRAW, role)])

    def replace(
        self,
        account_name: str,
        roles: Iterable[str],
        by: Principal | str,
        *,
        origin: Origin | None = None,
        session: Session | None = None,
    ) -> None:
        """Give an account these roles instead of those it has: all of the change, or nothing of it.

        Parameters
        ----------
        account_name, roles
            Which account, and all that it shall have.
        by, origin
            Who asks, and from where.
        session
            Transaction that this is a part of; one of its own where ``None``.

        Raises
        ------
        AccessError
            403 ``forbidden``, 404 ``account-not-found`` or ``role-not-found``, 409 ``last-administrator``.
        """
        wanted, had = list(dict.fromkeys(roles)), self.of(account_name)
        new = [(_ASSIGN, role) for role in wanted if role not in had]
        old = [(_WITHDRAW, role) for role in had if role not in wanted]
        self._reassign(account_name, by, origin, [*new, *old], session)

    def check_grant(self, by: Principal | str, roles: Iterable[str], session: Session | None = None) -> None:
        """Refuse to let someone give or take roles that hold more than they do, unless they may manage roles.

        A name instead of a principal is a part of the platform or the command line, which may.

        Parameters
        ----------
        by, roles
            Who, and which roles.
        session
            Transaction that says what roles hold; what is committed does where ``None``.

        Raises
        ------
        AccessError
            403 ``forbidden``, or 404 ``role-not-found``.
        """
        found = self._current() if session is None else policy.build(policy.lines_of(session))
        names = tuple(roles)
        for name in names:
            if name not in found.parents:
                raise not_found(name, found)
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
                raise not_found(role, known)
            session.execute(insert(PolicyRow).values(ptype="g", v0=f"{ACCOUNT}{account_id}", v1=ROLE + role))
        versions.bump(session)

    def forget(self, session: Session, account_id: int) -> None:
        """Take every role from an account that is deleted, within that transaction."""
        lock(session)
        session.execute(delete(PolicyRow).where(is_given(f"{ACCOUNT}{account_id}")))
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

    # ---------------------------------------------------------------- parts
    @contextmanager
    def _changing(self, given: Session | None = None) -> Iterator[tuple[Session, Policy]]:
        with transaction(self._engine, given) as session:
            lock(session)
            yield session, policy.build(policy.lines_of(session))

    def _reassign(
        self,
        account_name: str,
        by: Principal | str,
        origin: Origin | None,
        changes: list[tuple[str, str]],
        given: Session | None = None,
    ) -> None:
        for action, role in changes:
            try:
                self.check_grant(by, [role], given)
            except AccessError as error:
                if error.status == 403 and given is None:  # else whoever began the transaction tells, after it
                    self._refused(action, ("account", account_name), by, origin, error, role)
                raise
        with self._changing(given) as (session, known):
            account_id = account_id_of(session, account_name)
            with self.administrator_remains(session):
                done = [
                    (action, role, *before_and_after)
                    for action, role in changes
                    if (before_and_after := self._change(session, known, account_id, action, role))
                ]
            if done:
                versions.bump(session)
            for action, role, before, after in done:
                self._audit.record(
                    action, actor=by, origin=origin, object=("account", account_name), detail={"role": role},
                    before={"roles": before}, after={"roles": after}, session=session,
                )  # fmt: skip

    def _change(
        self, session: Session, known: Policy, account_id: int, action: str, role: str
    ) -> tuple[list[str], list[str]] | None:
        """Roles before and after one change; ``None`` where it is so already."""
        if role not in known.parents:
            raise not_found(role, known)
        subject, had = f"{ACCOUNT}{account_id}", self.given(session, account_id)
        if (role in had) == (action == _ASSIGN):
            return None
        if action == _ASSIGN:
            session.execute(insert(PolicyRow).values(ptype="g", v0=subject, v1=ROLE + role))
        else:
            session.execute(delete(PolicyRow).where(is_given(subject), PolicyRow.v1 == ROLE + role))
        return list(had), list(self.given(session, account_id))

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


def lock(session: Session) -> None:
    """Let changes of roles and administrators wait for each other until the transaction ends."""
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    session.execute(dialect.insert(AccessVersionRow).values(id=1, value=0).on_conflict_do_nothing())
    session.execute(select(AccessVersionRow.value).where(AccessVersionRow.id == 1).with_for_update())
