"""Accounts, registration and one-time links, on SQLite and Postgres."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, update
from sqlalchemy.orm import Session

from stock_pipeline.access.facade import Access
from stock_pipeline.access.principal import Principal
from stock_pipeline.storage.database.tables.accounts import LinkRow
from stock_pipeline_tests.accounts import HOME_ADDRESS, OTHER_PASSWORD, PASSWORD, Clock, access_for, kind, refusal

pytestmark = pytest.mark.requirement("R8.1")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def access(database: Engine, tmp_path: Path, clock: Clock) -> Access:
    return access_for(database, tmp_path, clock, registration="invitation")


def with_policy(access: Access, **settings) -> Access:
    return access_for(access.engine, access.home, access.clock, **settings)  # type: ignore[arg-type]


def at_once(work, count: int = 6) -> Counter[str]:
    """What many callers at the same time are told."""
    answers: list[str] = []
    start = threading.Barrier(count)

    def one(number: int) -> None:
        start.wait()
        try:
            work(number)
            answers.append("done")
        except Exception as error:
            answers.append(getattr(error, "kind", repr(error)))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Counter(answers)


@pytest.mark.parametrize(
    "name",
    [
        "", " ", "a b", "-ana", ".", "..", "a/b", "a\\b", "ana\n", "ana\x00", "a" * 65, "аna", "ａｎａ", "an\u200ba",
        "a%b", "<script>", "a'b", "me", "SYSTEM", "anonymous", "command_line", "ana:1",
    ],
)  # fmt: skip
def test_names_that_no_account_may_have(access: Access, name: str) -> None:
    assert kind(access.accounts.create, name, password=PASSWORD, by="test") == "invalid-name"
    assert kind(access.accounts.get, name) == "account-not-found"


def test_upper_and_lower_case_are_one_account(access: Access) -> None:
    made = access.accounts.create("Ana.Lima@example.org", password=PASSWORD, by="test")
    assert kind(access.accounts.create, "ana.lima@EXAMPLE.org", password=PASSWORD, by="test") == "account-exists"
    assert access.accounts.get("ANA.LIMA@EXAMPLE.ORG") == made == access.accounts.by_id(made.id)


def test_accounts_are_listed_in_pages_and_searched(access: Access) -> None:
    for number in range(7):
        access.accounts.create(f"user{number}", by="test")
    access.accounts.create("other.100", by="test")
    first = access.accounts.list(limit=5)
    assert [a.name for a in first] == [f"user{n}" for n in range(5)]
    assert [a.name for a in access.accounts.list(first[-1].id, 5)] == ["user5", "user6", "other.100"]
    assert [a.name for a in access.accounts.list(search="SER6")] == ["user6"]
    for nothing in ("%", "_", "\x00", "\ud800", "'"):
        assert access.accounts.list(search=nothing) == []
    assert first[0].roles == ("viewer",)


def test_of_many_who_take_a_name_exactly_one_gets_it(access: Access) -> None:
    access.roles.list()
    told = at_once(lambda n: access.accounts.create("ana" if n % 2 else "ANA", password=PASSWORD, by="test"))
    assert told == {"done": 1, "account-exists": 5}
    assert len(access.accounts.list()) == 1


def test_a_wrong_part_makes_no_account(access: Access) -> None:
    assert kind(access.accounts.create, "ana", password="short", by="test") == "weak-password"
    assert kind(access.accounts.create, "ana", password=PASSWORD, roles=("boss",), by="test") == "role-not-found"
    assert access.accounts.list() == []


@pytest.mark.requirement("R8.3")
def test_nobody_changes_an_account_that_may_do_more_than_they(access: Access) -> None:
    access.accounts.create("root", password=PASSWORD, roles=("administrator",), by="test")
    access.accounts.create("ana", password=PASSWORD, roles=("viewer",), by="test")
    access.roles.create("helpdesk", "viewer", ["users:read", "users:manage"], by="system")
    helper = Principal("helper", "token", 99, ("helpdesk",), access.roles.permissions_of(["helpdesk"]))
    for act in (
        lambda name: access.accounts.disable(name, helper),
        lambda name: access.accounts.delete(name, helper),
        lambda name: access.accounts.set_password(name, OTHER_PASSWORD, helper),
        lambda name: access.links.create("reset", account=name, by=helper),
        lambda name: access.links.create("recovery", account=name, by=helper),
        lambda name: access.second_factor.remove(name, helper),
        lambda name: access.keys.create(name, "job", ["predictions:read"], by=helper),
    ):
        assert kind(act, "root") == "forbidden"
    assert kind(access.accounts.create, "new", roles=("operator",), by=helper) == "forbidden"
    assert kind(access.links.create, "invitation", role="operator", by=helper) == "forbidden"
    access.accounts.disable("ana", helper)
    access.links.create("reset", account="ana", by=helper)


@pytest.mark.requirement("R8.3")
def test_the_last_administrator_stays(access: Access) -> None:
    access.accounts.create("root", password=PASSWORD, roles=("administrator",), by="test")
    assert kind(access.accounts.disable, "root", "test") == "last-administrator"
    assert kind(access.accounts.delete, "root", "test") == "last-administrator"
    access.accounts.create("second", password=PASSWORD, roles=("administrator",), by="test")
    told = at_once(lambda n: access.accounts.disable("root" if n % 2 else "second", "test"), 2)
    assert told == {"done": 1, "last-administrator": 1}
    assert [a.disabled for a in access.accounts.list()].count(False) == 1


def test_who_may_register(access: Access) -> None:
    link = access.links.create("invitation", role="analyst", by="test")
    closed, open_ = with_policy(access), with_policy(access, registration="open", registration_role="viewer")
    assert kind(closed.logins.register, "ana", PASSWORD) == "registration-closed"
    assert kind(closed.logins.register, "ana", PASSWORD, link) == "registration-closed"
    assert kind(access.logins.register, "ana", PASSWORD) == "registration-closed"
    assert access.logins.register("ana", PASSWORD, link).roles == ("analyst",)
    assert open_.logins.register("bob", PASSWORD).roles == ("viewer",)
    for name in ("ana", "bob"):
        access.logins.log_in(name, PASSWORD, origin=HOME_ADDRESS)


def test_an_invitation_works_once_also_for_many_at_once(access: Access) -> None:
    link = access.links.create("invitation", by="test")
    told = at_once(lambda n: access.logins.register(f"user{n}", PASSWORD, link))
    assert told == {"done": 1, "link-invalid": 5}
    assert len(access.accounts.list()) == 1


def test_a_mistake_does_not_use_an_invitation_up(access: Access) -> None:
    access.accounts.create("ana", by="test")
    link = access.links.create("invitation", by="test")
    assert kind(access.logins.register, "bob", "short", link) == "weak-password"
    assert kind(access.logins.register, "Ana", PASSWORD, link) == "account-exists"
    assert kind(access.logins.register, "a b", PASSWORD, link) == "invalid-name"
    access.logins.register("bob", PASSWORD, link)


def test_the_first_administrator_is_made_by_a_link_and_only_the_first(access: Access) -> None:
    first, second = (access.links.create("setup", by="system") for _ in range(2))
    invitation = access.links.create("invitation", by="system")
    assert kind(access.logins.set_up, "root", PASSWORD, "spl_wrong") == "link-invalid"
    assert kind(access.logins.set_up, "root", PASSWORD, invitation) == "link-invalid"
    told = at_once(lambda n: access.logins.set_up(f"root{n}", PASSWORD, first if n % 2 else second), 2)
    assert told == {"done": 1, "set-up-done": 1}
    assert kind(access.logins.set_up, "other", PASSWORD, second) == "set-up-done"
    assert [a.roles for a in access.accounts.list()] == [("administrator",)]


def test_a_link_for_a_password_works_once_in_its_time_for_its_purpose(access: Access, clock: Clock) -> None:
    access.accounts.create("ana", by="test")
    assert kind(access.logins.log_in, "ana", PASSWORD) == "invalid-credentials"
    link = access.links.create("reset", account="ana", by="test")
    shown = access.links.look(link)
    assert (shown.purpose, shown.account, shown.created_by) == ("reset", "ana", "test")
    assert kind(access.logins.register, "bob", PASSWORD, link) == "link-invalid"
    assert kind(access.logins.reset_password, link, "short") == "weak-password"
    assert kind(access.logins.reset_password, link, "ana ana ana!") == "weak-password"
    assert access.logins.reset_password(link, PASSWORD).account.has_password
    assert kind(access.logins.reset_password, link, OTHER_PASSWORD) == "link-invalid"
    assert kind(access.links.look, link) == "link-invalid"
    late = access.links.create("reset", account="ana", by="test", hours=2)
    clock.forward(hours=2)
    assert kind(access.logins.reset_password, late, OTHER_PASSWORD) == "link-invalid"
    invitation = access.links.create("invitation", by="test")
    assert kind(access.logins.reset_password, invitation, OTHER_PASSWORD) == "link-invalid"
    for text in ("", "x", "\x00", "\ud800", "spl_" + "x" * 10_000):
        assert kind(access.logins.reset_password, text, OTHER_PASSWORD) == "link-invalid"
    access.logins.log_in("ana", PASSWORD, origin=HOME_ADDRESS)


def test_a_newer_link_makes_the_older_one_useless(access: Access) -> None:
    access.accounts.create("ana", by="test")
    old, new = (access.links.create("reset", account="ana", by="test") for _ in range(2))
    assert kind(access.logins.reset_password, old, PASSWORD) == "link-invalid"
    access.logins.reset_password(new, PASSWORD)


def test_of_many_who_use_a_link_exactly_one_sets_the_password(access: Access) -> None:
    access.accounts.create("ana", by="test")
    link = access.links.create("reset", account="ana", by="test")
    told = at_once(lambda n: access.logins.reset_password(link, f"{PASSWORD} {n}"))
    assert told == {"done": 1, "link-invalid": 5}


def test_a_new_password_by_link_ends_every_session(access: Access) -> None:
    access.accounts.create("ana", password=PASSWORD, by="test")
    token = access.logins.log_in("ana", PASSWORD, origin=HOME_ADDRESS).tokens
    cookie = access.logins.log_in("ana", PASSWORD, kind="console", origin=HOME_ADDRESS).cookie
    assert token
    assert cookie
    access.gate.authenticate(token.access_token)
    access.logins.reset_password(access.links.create("reset", account="ana", by="test"), OTHER_PASSWORD)
    assert kind(access.gate.authenticate, token.access_token) == "session-revoked"
    assert kind(access.gate.authenticate_cookie, cookie) == "session-revoked"
    assert kind(access.logins.refresh, token.refresh_token) == "session-revoked"


def test_a_link_stands_behind_the_hash_of_its_address(access: Access) -> None:
    public = with_policy(access, public_url="https://stocks.example.org/")
    assert public.links.address("reset", "spl_x") == "https://stocks.example.org/reset#spl_x"
    assert access.links.address("invitation", "spl_x", "http://127.0.0.1:9000").startswith("http://127.0.0.1:9000/")


def test_links_are_of_known_purposes(access: Access) -> None:
    assert refusal(access.links.create, "party", by="test").kind == "invalid-link"  # type: ignore[arg-type]
    assert refusal(access.links.create, "reset", by="test").kind == "invalid-link"
    assert refusal(access.links.create, "reset", account="nobody", by="test").kind == "account-not-found"
    assert refusal(access.links.create, "invitation", role="boss", by="test").kind == "role-not-found"


def test_wrong_passwords_lock_and_an_administrator_unlocks(access: Access, clock: Clock) -> None:
    access.accounts.create("ana", password=PASSWORD, by="test")
    kinds = []
    for _ in range(10):
        kinds.append(kind(access.logins.log_in, "ana", "wrong", origin=HOME_ADDRESS))
        clock.forward(minutes=10)
    clock.forward(minutes=-10)
    locked = refusal(access.logins.log_in, "ana", PASSWORD, origin=HOME_ADDRESS)
    assert (locked.status, locked.kind) == (423, "account-locked")
    assert locked.retry_after
    assert access.accounts.get("ana").locked_until is not None
    assert access.accounts.unlock("ana", by="test").locked_until is None
    access.logins.log_in("ana", PASSWORD, origin=HOME_ADDRESS)


@pytest.mark.parametrize("keep", [False, True])
def test_a_new_password_by_link_ends_the_keys_unless_the_link_keeps_them(access: Access, keep: bool) -> None:
    access.accounts.create("ana", password=PASSWORD, by="test")
    access.accounts.create("bob", password=PASSWORD, by="test")
    access.logins.log_in("ana", PASSWORD, origin=HOME_ADDRESS)
    keys = [access.keys.create("ana", f"job {number}", ["predictions:read"]) for number in range(3)]
    access.keys.revoke(keys[2][0].id, by="test")
    _, others = access.keys.create("bob", "job", ["predictions:read"])
    link = access.links.create("reset", account="ana", by="test", revoke_keys=not keep)
    assert access.links.look(link).revoke_keys is not keep
    assert access.gate.authenticate(keys[0][1]).name == "ana"  # the link alone ends nothing
    done = access.logins.reset_password(link, OTHER_PASSWORD)
    assert (done.sessions_ended, done.keys_revoked) == (1, 0 if keep else 2)
    for _, key in keys[:2]:
        if keep:
            assert access.gate.authenticate(key).name == "ana"
        else:
            assert kind(access.gate.authenticate, key) == "session-revoked"
    assert access.gate.authenticate(others).name == "bob"
    made, used = (
        next(entry.detail for entry in access.audit.entries() if entry.action == action)
        for action in ("link.create", "account.reset_password")
    )
    assert made is not None
    assert made["revoke_keys"] is not keep
    ended = [] if keep else sorted(key.id for key, _ in keys[:2])
    assert used == {"sessions_ended": 1, "keys_revoked": ended, "keys_kept": keep}


CHANGES = {
    "promoted": lambda access: access.roles.assign("ana", "operator", "test"),
    "demoted": lambda access: access.roles.replace("ana", [], "test"),
    "its role holds more": lambda access: access.roles.change("viewer", permissions=["audit:read"], by="system"),
    "password changed": lambda access: access.accounts.change_password("ana", PASSWORD, OTHER_PASSWORD),
    "password set": lambda access: access.accounts.set_password("ana", OTHER_PASSWORD, "test"),
    "disabled": lambda access: access.accounts.disable("ana", "test"),
    "its maker was disabled": lambda access: access.accounts.disable("boss", "test"),
    "its maker was deleted": lambda access: access.accounts.delete("boss", "test"),
    "its maker was demoted": lambda access: access.roles.replace("boss", ["operator"], "test"),
    "its maker has a new password": lambda access: access.accounts.set_password("boss", OTHER_PASSWORD, "test"),
}


@pytest.mark.requirement("R8.3")
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("purpose", ["reset", "recovery"])
def test_a_link_ends_when_its_account_or_its_maker_changes(access: Access, change: str, purpose) -> None:
    for name, role in (("root", "administrator"), ("boss", "administrator"), ("ana", "viewer")):
        access.accounts.create(name, password=PASSWORD, roles=(role,), by="test")
    boss = access.accounts.get("boss")
    who = Principal("boss", "token", boss.id, boss.roles, access.roles.permissions_of(boss.roles))
    link = access.links.create(purpose, account="ana", by=who)
    assert access.links.look(link).account == "ana"
    CHANGES[change](access)
    assert kind(access.links.look, link) == "link-invalid"
    assert kind(access.logins.reset_password, link, f"{PASSWORD} 3") == "link-invalid"
    by_root = access.links.create(purpose, account="ana", by="test")  # as the account is now, a new one works
    access.logins.reset_password(by_root, f"{PASSWORD} 3")


@pytest.mark.requirement("R8.3")
def test_an_invitation_ends_when_its_role_or_its_maker_changes(access: Access) -> None:
    for name in ("root", "boss"):
        access.accounts.create(name, password=PASSWORD, roles=("administrator",), by="test")
    boss = access.accounts.get("boss")
    who = Principal("boss", "token", boss.id, boss.roles, access.roles.permissions_of(boss.roles))
    first, second = (access.links.create("invitation", role=role, by=who) for role in ("analyst", "viewer"))
    access.roles.change("analyst", permissions=["audit:read"], by="system")
    assert kind(access.logins.register, "ana", PASSWORD, first) == "link-invalid"
    access.accounts.disable("boss", "test")
    assert kind(access.logins.register, "ana", PASSWORD, second) == "link-invalid"


def test_a_link_that_meets_a_change_at_the_same_moment_is_used_before_it_or_not_at_all(access: Access) -> None:
    access.accounts.create("ana", password=PASSWORD, by="test")
    link = access.links.create("reset", account="ana", by="test")
    told = at_once(
        lambda n: (
            access.roles.assign("ana", "operator", "test") if n else access.logins.reset_password(link, OTHER_PASSWORD)
        ),
        2,
    )
    assert told in ({"done": 2}, {"done": 1, "link-invalid": 1})
    looked_for = ("role.assign", "account.reset_password")
    actions = [entry.action for entry in access.audit.entries() if entry.action in looked_for]
    assert actions[0] == "role.assign", "the newest entry is the change"
    assert len(actions) == (2 if told["done"] == 2 else 1)


@pytest.mark.requirement("R8.3")
def test_links_from_before_they_were_bound_are_refused(access: Access, database: Engine) -> None:
    access.accounts.create("ana", password=PASSWORD, by="test")
    link = access.links.create("reset", account="ana", by="test")
    with Session(database) as session, session.begin():
        session.execute(update(LinkRow).values(stamp=""))
    assert kind(access.logins.reset_password, link, OTHER_PASSWORD) == "link-invalid"


@pytest.mark.requirement("R8.3")
def test_nobody_makes_a_link_for_their_own_account(access: Access) -> None:
    root = access.accounts.create("root", password=PASSWORD, roles=("administrator",), by="test")
    for way in ("token", "api_key"):
        who = Principal("root", way, root.id, root.roles, access.roles.permissions_of(root.roles))  # type: ignore[arg-type]
        assert refusal(access.links.create, "reset", account="ROOT", by=who).kind == "own-account"


@pytest.mark.requirement("R8.3")
@pytest.mark.parametrize("change", ["disable", "second factor"])
def test_nobody_changes_an_account_that_is_given_more_at_the_same_moment(access: Access, change: str) -> None:
    access.roles.create("helpdesk", "viewer", ["users:read", "users:manage"], by="system")
    helper = Principal("helper", "token", 99, ("helpdesk",), access.roles.permissions_of(["helpdesk"]))
    ana = access.accounts.create("ana", password=PASSWORD, by="test")
    acts = {"disable": access.accounts.disable, "second factor": access.second_factor.remove}
    waits, told = threading.Event(), []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if threading.current_thread() is helping and statement.startswith(("BEGIN IMMEDIATE", "UPDATE access_version")):
            waits.set()

    helping = threading.Thread(target=lambda: told.append(kind(acts[change], "ana", helper)))
    event.listen(access.engine, "before_cursor_execute", note)
    with Session(access.engine) as session, session.begin():
        access.roles.give(session, ana.id, ["administrator"])
        session.flush()
        helping.start()
        assert waits.wait(120)
    helping.join(120)
    event.remove(access.engine, "before_cursor_execute", note)
    assert told == ["forbidden"]
    assert not access.accounts.get("ana").disabled
