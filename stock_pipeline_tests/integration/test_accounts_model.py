"""Whatever happens to accounts, sessions, keys and roles, in any order: the gate says what a simple model says."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Engine

from stock_pipeline.access.facade import Access
from stock_pipeline.access.permissions import PERMISSIONS, ROLES
from stock_pipeline.access.principal import AccessError
from stock_pipeline_tests.accounts import HOME_ADDRESS, OTHER_PASSWORD, PASSWORD, Clock, access_for, kind

pytestmark = [pytest.mark.requirement("R8.1", "R8.3", "V8"), pytest.mark.slow]

NAMES = ("ana", "bob")
GIVEN = ("viewer", "analyst", "operator", "desk")
PATIENT = {"address_failures": 100_000, "stuffing_accounts": 10_000, "failures_before_delay": 100}
"""All examples share one database and one address: their wrong log-ins must not add up to an attack."""

NEVER = timedelta(days=36_500)
CHOICE = st.integers(0, 10**6)


@dataclass
class Login:
    """A session or key as the model knows it."""

    account: str
    kind: str
    ends: datetime
    idle: timedelta
    used: datetime
    renewed: datetime
    alive: bool = True
    gone: bool = False
    tokens: list[tuple[str, datetime]] = field(default_factory=list)
    refresh: list[str] = field(default_factory=list)
    secret: str = ""
    id: str = ""
    scopes: frozenset[str] = frozenset()


class Gate(RuleBasedStateMachine):
    """Does things to a real database, and the same to a model."""

    access: Access
    watching: Access
    """The same database as another process sees it that watches from a thread."""
    clock: Clock
    serial = itertools.count()

    @initialize()
    def begin(self) -> None:
        self.mark = f"-{next(self.serial)}"
        if self.access.roles.get("desk").own != ("predictions:read",):
            self.access.roles.change("desk", permissions=["predictions:read"], by="system")
        self.desk = {"predictions:read"}
        self.enabled: dict[str, bool] = {}
        self.roles: dict[str, set[str]] = {}
        self.password: dict[str, str] = {}
        self.logins: list[Login] = []
        for name in NAMES:
            self.make(name)

    def make(self, name: str) -> None:
        self.access.accounts.create(name + self.mark, password=PASSWORD, roles=("viewer",), by="test")
        self.enabled[name], self.roles[name], self.password[name] = True, {"viewer"}, PASSWORD

    def may(self, name: str) -> frozenset[str]:
        held: set[str] = set()
        for role in self.roles[name]:
            if role == "desk":
                held |= self.desk
            parent: str | None = role
            while parent in ROLES:
                held |= set(ROLES[parent][1])
                parent = ROLES[parent][0]
        return frozenset(held)

    # ------------------------------------------------------------------------------------------- what happens
    @rule(name=st.sampled_from(NAMES), kind_=st.sampled_from(["token", "console"]))
    def log_in(self, name: str, kind_: str) -> None:
        if name not in self.enabled or not self.enabled[name]:
            assert kind(self.attempt, name, kind_) == "invalid-credentials"
            self.access.watch.forget(name + self.mark)
            return
        done = self.attempt(name, kind_)
        now = self.clock.now
        idle = timedelta(days=14) if done.tokens else timedelta(hours=12)
        login = Login(name, kind_, now + timedelta(days=90), idle, now, now, id=done.session.id)
        if done.tokens:
            login.tokens.append((done.tokens.access_token, now + timedelta(minutes=15)))
            login.refresh.append(done.tokens.refresh_token)
        else:
            login.secret = done.cookie or ""
        self.logins.append(login)

    def attempt(self, name: str, kind_: str):
        password = self.password.get(name, PASSWORD)
        return self.access.logins.log_in(name + self.mark, password, kind=kind_, origin=HOME_ADDRESS)  # type: ignore[arg-type]

    @precondition(lambda self: any(login.refresh for login in self.logins))
    @rule(which=CHOICE, old=st.booleans())
    def refresh(self, which: int, old: bool) -> None:
        renewable = [login for login in self.logins if login.refresh]
        login = renewable[which % len(renewable)]
        reused = old and len(login.refresh) > 1
        token = login.refresh[which % (len(login.refresh) - 1)] if reused else login.refresh[-1]
        now, pair, answer = self.clock.now, None, "renewed"
        try:
            pair = self.access.logins.refresh(token)
        except AccessError as error:
            answer = error.kind
        if login.gone:
            assert answer == "token-invalid"
        elif reused:
            assert answer == "token-reused"
            login.alive = False
        elif not self.enabled[login.account]:
            assert answer == "account-disabled"
        elif not login.alive:
            assert answer == "session-revoked"
        elif now >= min(login.ends, login.renewed + timedelta(days=14)):
            assert answer == "token-expired"
        else:
            assert answer == "renewed"
            assert pair
            login.used = login.renewed = now
            login.refresh.append(pair.refresh_token)
            login.tokens.append((pair.access_token, now + timedelta(minutes=15)))

    @precondition(lambda self: any(login.kind != "api_key" for login in self.logins))
    @rule(which=CHOICE)
    def revoke(self, which: int) -> None:
        sessions = [login for login in self.logins if login.kind != "api_key"]
        login = sessions[which % len(sessions)]
        assert self.access.sessions.revoke(login.id, "test", by="test") == (login.alive and not login.gone)
        login.alive = False

    @rule(name=st.sampled_from(NAMES), keep=CHOICE)
    def revoke_all(self, name: str, keep: int) -> None:
        mine = [x for x in self.logins if x.account == name and x.kind != "api_key" and not x.gone]
        if name in self.enabled:
            kept = mine[keep % len(mine)] if mine and keep % 2 else None
            account = self.access.accounts.get(name + self.mark)
            self.access.sessions.revoke_all(account.id, except_=kept.id if kept else None)
            for login in mine:
                login.alive = login.alive and login is kept

    @rule(name=st.sampled_from(NAMES))
    def disable(self, name: str) -> None:
        if name in self.enabled:
            self.access.accounts.disable(name + self.mark, by="test")
            self.enabled[name] = False
            self.end(name)

    @rule(name=st.sampled_from(NAMES))
    def enable(self, name: str) -> None:
        if name in self.enabled:
            self.access.accounts.enable(name + self.mark, by="test")
            self.enabled[name] = True
        else:
            self.make(name)

    @rule(name=st.sampled_from(NAMES), new=st.sampled_from([PASSWORD, OTHER_PASSWORD]))
    def set_password(self, name: str, new: str) -> None:
        if name in self.enabled:
            self.access.accounts.set_password(name + self.mark, new, by="test")
            self.password[name] = new
            self.end(name)

    @rule(name=st.sampled_from(NAMES))
    def delete(self, name: str) -> None:
        if name in self.enabled:
            self.access.accounts.delete(name + self.mark, by="test")
            del self.enabled[name]
            for login in self.logins:
                login.gone = login.gone or login.account == name

    @rule(name=st.sampled_from(NAMES), role=st.sampled_from(GIVEN), give=st.booleans())
    def role(self, name: str, role: str, give: bool) -> None:
        if name in self.enabled:
            if give:
                self.access.roles.assign(name + self.mark, role, by="test")
                self.roles[name].add(role)
            else:
                self.access.roles.withdraw(name + self.mark, role, by="test")
                self.roles[name].discard(role)

    @rule(permissions=st.sets(st.sampled_from(sorted(PERMISSIONS)), max_size=4))
    def change_role(self, permissions: set[str]) -> None:
        self.access.roles.change("desk", permissions=permissions, by="system")
        self.desk = permissions

    @rule(name=st.sampled_from(NAMES), scopes=st.sets(st.sampled_from(sorted(PERMISSIONS)), min_size=1, max_size=3))
    def make_key(self, name: str, scopes: set[str]) -> None:
        if name not in self.enabled:
            return
        if not scopes <= self.may(name):
            assert kind(self.access.keys.create, name + self.mark, "key", scopes) == "invalid-scopes"
            return
        now = self.clock.now
        until = now + timedelta(days=3)
        key, text = self.access.keys.create(name + self.mark, "key", scopes, until)
        self.logins.append(
            Login(name, "api_key", until, NEVER, now, now, secret=text, id=key.id, scopes=frozenset(scopes))
        )

    @precondition(lambda self: any(login.kind == "api_key" and not login.gone for login in self.logins))
    @rule(which=CHOICE)
    def revoke_key(self, which: int) -> None:
        keys = [login for login in self.logins if login.kind == "api_key" and not login.gone]
        self.access.keys.revoke(keys[which % len(keys)].id, by="test")
        keys[which % len(keys)].alive = False

    @rule(minutes=st.sampled_from([1, 7, 15, 60, 11 * 60, 13 * 60, 24 * 60, 5 * 24 * 60, 15 * 24 * 60, 91 * 24 * 60]))
    def wait(self, minutes: int) -> None:
        self.clock.forward(minutes=minutes)

    def end(self, name: str) -> None:
        for login in self.logins:
            if login.account == name and login.kind != "api_key":
                login.alive = False

    # ------------------------------------------------------------------------------------------- what must hold
    @invariant()
    def the_gate_says_what_the_model_says(self) -> None:
        for login in getattr(self, "logins", []):
            for token, until in login.tokens[-3:]:
                expected = "token-expired" if self.clock.now >= until else self.expected(login)
                self.ask("authenticate", token, expected, login)
            if login.secret:
                name = "authenticate" if login.kind == "api_key" else "authenticate_cookie"
                self.ask(name, login.secret, self.expected(login), login)

    def expected(self, login: Login) -> str | frozenset[str]:
        if login.gone:
            return "token-invalid" if login.kind == "api_key" else "session-revoked"
        if not self.enabled[login.account]:
            return "account-disabled"
        if not login.alive:
            return "session-revoked"
        if self.clock.now >= min(login.ends, login.used + login.idle):
            return "token-expired" if login.kind == "api_key" else "session-revoked"
        held = self.may(login.account)
        return held & login.scopes if login.kind == "api_key" else held

    def ask(self, method: str, credential: str, expected: str | frozenset[str], login: Login) -> None:
        for access in (self.access, self.watching):
            try:
                answer: str | frozenset[str] = getattr(access.gate, method)(credential).permissions
            except AccessError as error:
                answer = error.kind
            assert answer == expected, (login, self.clock.now)
        if isinstance(expected, frozenset) and self.clock.now - login.used >= timedelta(minutes=1):
            login.used = self.clock.now


def test_the_gate_says_what_the_model_says(database: Engine, tmp_path: Path) -> None:
    clock = Clock()
    access, watching = (access_for(database, tmp_path, clock, abuse=PATIENT) for _ in range(2))
    access.roles.create("desk", None, [], by="system")
    machine = type("Machine", (Gate,), {"access": access, "watching": watching, "clock": clock})
    watching.gate.start()
    try:
        run_state_machine_as_test(machine, settings=settings(max_examples=100, stateful_step_count=10, deadline=None))
    finally:
        watching.gate.stop()
