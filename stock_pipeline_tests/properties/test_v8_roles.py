"""Roles against a plain model: whatever is changed in whatever order, everybody may do exactly what the model says."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from stock_pipeline.access import permissions as defaults
from stock_pipeline.access import versions
from stock_pipeline.access.audit import Audit
from stock_pipeline.access.permissions import PERMISSIONS
from stock_pipeline.access.principal import AccessError, Principal
from stock_pipeline.access.roles import GOVERNS, KEEP, Roles
from stock_pipeline.storage.database import open_database
from stock_pipeline.storage.database.tables.accounts import AccountRow

pytestmark = pytest.mark.requirement("V8", "R8.2", "R8.3")

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
ACCOUNTS = ("ann", "bob", "viewer")  # the last is named like a role
OWN_ROLES = ("quant", "clerk", "auditor", "base")
names = st.sampled_from((*defaults.ROLES, *OWN_ROLES))
permissions = st.frozensets(st.sampled_from([*PERMISSIONS, "users:manage", "roles:manage"]), max_size=5)
accounts = st.sampled_from(ACCOUNTS)


class Model:
    """Roles as plain sets."""

    def __init__(self) -> None:
        self.parents: dict[str, str | None] = {name: parent for name, (parent, _) in defaults.ROLES.items()}
        self.own: dict[str, frozenset[str]] = {name: frozenset(held) for name, (_, held) in defaults.ROLES.items()}
        self.given: dict[str, set[str]] = {"ann": {"administrator"}, "bob": {"viewer"}, "viewer": set()}
        self.disabled: set[str] = set()

    def chain(self, name: str | None) -> list[str]:
        found = []
        while name is not None:
            found.append(name)
            name = self.parents[name]
        return found

    def of(self, roles: set[str]) -> frozenset[str]:
        return frozenset(held for role in roles for each in self.chain(role) for held in self.own[each])

    def administrators(self) -> set[str]:
        return {name for name, roles in self.given.items() if name not in self.disabled and self.of(roles) >= GOVERNS}


class RolesMachine(RuleBasedStateMachine):
    """Changes roles by two processes in turn, and compares with the model after each step."""

    opened: Callable[[], tuple[Engine, Path]]

    @initialize()
    def begin(self) -> None:
        self.engine, home = type(self).opened()
        self.audit = Audit(self.engine, home)
        self.processes = [Roles(self.engine, self.audit), Roles(self.engine, self.audit)]
        self.turn, self.model = 0, Model()
        self.changes = 1
        self.roles.ensure_defaults()
        with Session(self.engine) as session, session.begin():
            for name in ACCOUNTS:
                row = AccountRow(name=name, name_key=name, created_at=NOW, created_by="test")
                session.add(row)
                session.flush()
                self.roles.give(session, row.id, self.model.given[name])

    @property
    def roles(self) -> Roles:
        self.turn += 1
        return self.processes[self.turn % 2]

    def teardown(self) -> None:
        if hasattr(self, "engine"):
            checked = self.audit.verify()
            assert checked.intact
            assert checked.entries == self.changes
            self.engine.dispose()

    def attempt(self, refusal: str | None, call: Callable[[], object], *, changes: bool = True) -> bool:
        """Do it, and see that it is refused exactly when the model says so; returns whether it was done."""
        version = versions.current(self.engine)
        seen = None
        try:
            call()
        except AccessError as error:
            seen = error.kind
        assert seen == refusal
        if seen is not None:
            assert versions.current(self.engine) == version
            return False
        assert (versions.current(self.engine) > version) == changes
        self.changes += changes
        return True

    def remains(self, change: Callable[[], None]) -> str | None:
        """Whether a change would remove the last administrator; the model is put back."""
        before = self.model
        had = before.administrators()
        self.model = Model.__new__(Model)
        self.model.parents, self.model.own = dict(before.parents), dict(before.own)
        self.model.given = {name: set(roles) for name, roles in before.given.items()}
        self.model.disabled = set(before.disabled)
        change()
        has, self.model = self.model.administrators(), before
        return "last-administrator" if had and not has else None

    @rule(name=names, parent=st.none() | names, held=permissions)
    def create(self, name: str, parent: str | None, held: frozenset[str]) -> None:
        model = self.model
        refusal = None
        if name in model.parents:
            refusal = "role-exists"
        elif parent is not None and parent not in model.parents:
            refusal = "unknown-role"
        elif parent is not None and len(model.chain(parent)) >= 8:
            refusal = "role-too-deep"
        if self.attempt(refusal, lambda: self.roles.create(name, parent, held, "test")):
            model.parents[name], model.own[name] = parent, held

    @rule(name=names, parent=st.none() | names | st.just("-"), held=st.none() | permissions)
    def change(self, name: str, parent: str | None, held: frozenset[str] | None) -> None:
        model = self.model
        to = model.parents.get(name) if parent == "-" else parent
        wanted = model.own.get(name, frozenset()) if held is None else held

        def apply() -> None:
            self.model.parents[name], self.model.own[name] = to, wanted

        refusal = None
        if name not in model.parents:
            refusal = "role-not-found"
        elif to is not None and to not in model.parents:
            refusal = "unknown-role"
        elif to is not None and name in model.chain(to):
            refusal = "role-cycle"
        elif to is not None and self.depth_with(name, to) > 8:
            refusal = "role-too-deep"
        else:
            refusal = self.remains(apply)
        given = KEEP if parent == "-" else parent
        if self.attempt(refusal, lambda: self.roles.change(name, given, held, "test")):
            apply()

    def depth_with(self, name: str, parent: str) -> int:
        below = [len(self.model.chain(role)) for role in self.model.parents if name in self.model.chain(role)]
        return len(self.model.chain(parent)) + 1 + max(below) - len(self.model.chain(name))

    @rule(name=names)
    def delete(self, name: str) -> None:
        model = self.model
        refusal = None
        if name not in model.parents:
            refusal = "role-not-found"
        elif name in defaults.ROLES:
            refusal = "built-in-role"
        elif name in model.parents.values() or any(name in roles for roles in model.given.values()):
            refusal = "role-in-use"
        if self.attempt(refusal, lambda: self.roles.delete(name, "test")):
            del model.parents[name], model.own[name]

    @rule(account=accounts, name=names)
    def assign(self, account: str, name: str) -> None:
        refusal = None if name in self.model.parents else "role-not-found"
        has = name in self.model.given[account]
        if self.attempt(refusal, lambda: self.roles.assign(account, name, "test"), changes=not has):
            self.model.given[account].add(name)

    @rule(account=accounts, name=names)
    def withdraw(self, account: str, name: str) -> None:
        has = name in self.model.given[account]
        refusal = "role-not-found"
        if name in self.model.parents:
            refusal = self.remains(lambda: self.model.given[account].discard(name))
        if self.attempt(refusal, lambda: self.roles.withdraw(account, name, "test"), changes=has):
            self.model.given[account].discard(name)

    @rule(giver=accounts, account=accounts, name=names)
    def assign_by_somebody(self, giver: str, account: str, name: str) -> None:
        """Nobody gives what he does not hold; a refused attempt is written down."""
        model = self.model
        held = model.of(model.given[giver])
        who = Principal(giver, "token", permissions=held)
        has = name in model.given[account]
        if name not in model.parents:
            refusal = "role-not-found"
        elif "roles:manage" in held or ("users:manage" in held and model.of({name}) <= held):
            refusal = None
        else:
            refusal = "forbidden"
        if self.attempt(refusal, lambda: self.roles.assign(account, name, who), changes=not has):
            model.given[account].add(name)
        elif refusal == "forbidden":
            self.changes += 1  # the entry of the refusal

    @rule(account=accounts)
    def disable_or_enable(self, account: str) -> None:
        disable = account not in self.model.disabled
        refusal = self.remains(lambda: self.model.disabled.add(account)) if disable else None
        seen = None
        try:
            with Session(self.engine) as session, session.begin(), self.roles.administrator_remains(session):
                row = session.query(AccountRow).filter_by(name=account).one()
                row.disabled_at = NOW if disable else None
        except AccessError as error:
            seen = error.kind
        assert seen == refusal
        if seen is None:
            (self.model.disabled.add if disable else self.model.disabled.discard)(account)

    @invariant()
    def everybody_may_do_what_the_model_says(self) -> None:
        if not hasattr(self, "engine"):
            return
        for roles in self.processes:
            assert {role.name: role.permissions for role in roles.list()} == {
                name: self.model.of({name}) for name in self.model.parents
            }
        ids = dict(zip(ACCOUNTS, range(1, len(ACCOUNTS) + 1), strict=True))
        with Session(self.engine) as session:
            given = self.roles.given_to_all(session)
            assert {name: set(given.get(ids[name], ())) for name in ACCOUNTS} == self.model.given
            assert self.roles.administrators(session) == {ids[name] for name in self.model.administrators()}
        for roles in self.model.given.values():
            assert self.roles.permissions_of(roles) == self.model.of(roles)

    @invariant()
    def there_is_an_administrator(self) -> None:
        if hasattr(self, "engine"):
            assert self.model.administrators()


def test_roles_are_what_the_model_says(migrated_file: Path, tmp_path: Path) -> None:
    def opened() -> tuple[Engine, Path]:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        shutil.copyfile(migrated_file, folder / "metadata.db")
        return open_database(folder / "metadata.db", migrate=False), folder

    machine = type("OnSqlite", (RolesMachine,), {"opened": staticmethod(opened)})
    run_state_machine_as_test(machine, settings=settings(max_examples=100, stateful_step_count=10))


def test_the_same_on_postgres(postgres_address: str, tmp_path: Path) -> None:
    def opened() -> tuple[Engine, Path]:
        engine = open_database(postgres_address, migrate=False)
        with engine.begin() as connection:
            tables = "account, casbin_rule, audit_entry, audit_head, access_version"
            connection.exec_driver_sql(f"TRUNCATE {tables} RESTART IDENTITY CASCADE")
        return engine, Path(tempfile.mkdtemp(dir=tmp_path))

    machine = type("OnPostgres", (RolesMachine,), {"opened": staticmethod(opened)})
    run_state_machine_as_test(machine, settings=settings(max_examples=5, stateful_step_count=10))
