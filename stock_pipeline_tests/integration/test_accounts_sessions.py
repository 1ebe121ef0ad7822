"""Log-in, renewal, log-out and the sessions that come of them, on SQLite and Postgres."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from stock_pipeline.access.facade import Access
from stock_pipeline.access.principal import Origin
from stock_pipeline.storage.database.tables.accounts import AccountRow, RefreshTokenRow, SessionRow
from stock_pipeline_tests.accounts import HOME_ADDRESS, OTHER_PASSWORD, PASSWORD, Clock, access_for, kind, refusal

pytestmark = pytest.mark.requirement("R8.1")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def access(database: Engine, tmp_path: Path, clock: Clock) -> Access:
    made = access_for(database, tmp_path, clock)
    made.accounts.create("Ana", password=PASSWORD, roles=("analyst",), by="test")
    return made


def everything(engine: Engine) -> str:
    """All that the database holds, as one text."""
    from stock_pipeline.storage.database.tables.base import Base

    with engine.connect() as connection:
        return "\n".join(
            str(row) for table in Base.metadata.sorted_tables for row in connection.execute(select(table)).all()
        )


def test_a_log_in_gives_tokens_that_the_gate_accepts_until_the_log_out(access: Access) -> None:
    done = access.logins.log_in("ANA", PASSWORD, origin=HOME_ADDRESS)
    assert done.tokens is not None
    assert done.tokens.expires_in == 900
    assert done.cookie is None
    who = access.gate.authenticate(done.tokens.access_token)
    assert (who.name, who.kind, who.roles, who.session_id) == ("Ana", "token", ("analyst",), done.session.id)
    assert who.may("backtests:create")
    assert not who.may("users:read")
    access.logins.log_out(who)
    assert kind(access.gate.authenticate, done.tokens.access_token) == "session-revoked"
    assert kind(access.logins.refresh, done.tokens.refresh_token) == "session-revoked"
    assert [entry.action for entry in access.audit.entries()][:2] == ["session.log_out", "session.log_in"]


def test_whatever_is_wrong_the_answer_is_the_same(access: Access, clock: Clock) -> None:
    access.accounts.create("Bob", password=PASSWORD, by="test")
    access.accounts.disable("bob", by="test")
    access.accounts.create("Cleo", by="test")  # has no password yet
    tried = [
        ("ana", "wrong"), ("ana", ""), ("ana", PASSWORD.upper()), ("ana", "x" * 100_000), ("nobody", PASSWORD),
        ("bob", PASSWORD), ("cleo", ""), ("cleo", PASSWORD), ("", ""), ("a\x00b", "x"), ("\ud800", "\ud800"),
        ("ana' or '1'='1", "x"), ("x" * 10_000, "x"), ("an%", PASSWORD), ("аna", PASSWORD),
    ]  # fmt: skip
    errors = []
    for place, (name, password) in enumerate(tried):
        errors.append(refusal(access.logins.log_in, name, password, origin=Origin(f"198.51.{place}.7")))
        clock.forward(minutes=10)
    assert {(e.status, e.kind, str(e), e.retry_after) for e in errors} == {
        (401, "invalid-credentials", str(errors[0]), None)
    }


def test_an_unknown_name_costs_the_same_hash(access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []
    verify = access.passwords.verify
    monkeypatch.setattr(access.passwords, "verify", lambda text, stored: seen.append(stored) or verify(text, stored))
    for name in ("ana", "nobody", "\x00"):
        refusal(access.logins.log_in, name, "wrong", origin=HOME_ADDRESS)
    assert seen[0] is not None
    assert seen[1:] == [None, None]  # verified against the hash of nobody


def test_nothing_secret_is_stored_or_shown(access: Access, database: Engine, clock: Clock) -> None:
    token = access.logins.log_in("ana", PASSWORD, origin=HOME_ADDRESS)
    console = access.logins.log_in("ana", PASSWORD, kind="console", origin=HOME_ADDRESS)
    key, text = access.keys.create("ana", "job", ["predictions:read"])
    link = access.links.create("reset", account="ana", by="test")
    ticket = access.tickets.issue(access.gate.authenticate(text))
    secret, _ = access.second_factor.begin("ana")
    assert token.tokens is not None
    stored = everything(database)
    shown = repr((token, console, key, token.tokens))
    for hidden in (
        PASSWORD,
        token.tokens.access_token,
        token.tokens.refresh_token,
        console.cookie,
        text,
        link,
        ticket,
        secret,
    ):
        assert hidden
        assert hidden not in stored
        assert hidden not in shown
        assert hidden[-20:] not in stored  # without the prefix of its kind


def test_each_log_in_has_a_new_session_and_secret(access: Access) -> None:
    planted = access.logins.log_in("ana", PASSWORD, kind="console", origin=HOME_ADDRESS)
    again = access.logins.log_in("ana", PASSWORD, kind="console", origin=HOME_ADDRESS)
    assert planted.cookie
    assert again.cookie
    assert planted.cookie != again.cookie
    assert planted.session.id != again.session.id
    access.logins.log_out(access.gate.authenticate_cookie(again.cookie))
    access.gate.authenticate_cookie(planted.cookie)  # the other one is not touched
    assert kind(access.gate.authenticate_cookie, again.cookie) == "session-revoked"


def test_secrets_of_one_kind_are_no_good_in_another_place(access: Access) -> None:
    token = access.logins.log_in("ana", PASSWORD, origin=HOME_ADDRESS).tokens
    cookie = access.logins.log_in("ana", PASSWORD, kind="console", origin=HOME_ADDRESS).cookie
    _, key = access.keys.create("ana", "job", ["predictions:read"])
    assert token
    assert cookie
    for _ in range(2):  # also once all of them are remembered
        access.gate.authenticate(token.access_token)
        access.gate.authenticate_cookie(cookie)
        access.gate.authenticate(key)
        assert kind(access.gate.authenticate, cookie) == "token-invalid"
        assert kind(access.gate.authenticate, token.refresh_token) == "token-invalid"
        for text in (token.access_token, token.refresh_token, key, "x"):
            assert kind(access.gate.authenticate_cookie, text) == "session-revoked"
        assert kind(access.logins.refresh, token.access_token) == "token-invalid"
        assert kind(access.logins.refresh, cookie) == "token-invalid"
    assert kind(access.gate.authenticate, "") == kind(access.gate.authenticate_cookie, "") == "token-missing"
    assert kind(access.logins.refresh, "") == "token-missing"


def test_a_refresh_token_is_good_once_and_its_second_use_ends_the_session(access: Access) -> None:
    done = access.logins.log_in("ana", PASSWORD, origin=HOME_ADDRESS)
    other = access.logins.log_in("ana", PASSWORD, origin=HOME_ADDRESS)
    assert done.tokens
    assert other.tokens
    first = access.logins.refresh(done.tokens.refresh_token)
    second = access.logins.refresh(first.refresh_token)
    assert len({done.tokens.refresh_token, first.refresh_token, second.refresh_token}) == 3
    error = refusal(access.logins.refresh, done.tokens.refresh_token, Origin("203.0.113.9"))
    assert (error.status, error.kind) == (401, "token-reused")
    for pair in (done.tokens, first, second):
        assert kind(access.gate.authenticate, pair.access_token) == "session-revoked"
    assert kind(access.logins.refresh, second.refresh_token) == "session-revoked"
    access.gate.authenticate(other.tokens.access_token)  # another session of the same account goes on
    told = {entry.action for entry in access.audit.entries()}
    assert {"session.token_reuse", "abuse.token_reuse"} <= told


def test_of_many_renewals_with_one_token_exactly_one_wins(access: Access, database: Engine) -> None:
    tokens = access.logins.log_in("ana", PASSWORD, origin=HOME_ADDRESS).tokens
    assert tokens
    answers: list[str] = []
    start = threading.Barrier(8)

    def renew() -> None:
        start.wait()
        try:
            access.logins.refresh(tokens.refresh_token)
            answers.append("won")
        except Exception as error:
            answers.append(getattr(error, "kind", repr(error)))

    threads = [threading.Thread(target=renew) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(answers) == {"won": 1, "token-reused": 7}
    with Session(database) as session:
        assert len(session.scalars(select(RefreshTokenRow)).all()) == 2


def test_a_refresh_token_runs_out_when_it_is_not_used(access: Access, clock: Clock) -> None:
    tokens = access.logins.log_in("ana", PASSWORD, origin=HOME_ADDRESS).tokens
    assert tokens
    clock.forward(days=13)
    tokens = access.logins.refresh(tokens.refresh_token)
    clock.forward(days=13)
    tokens = access.logins.refresh(tokens.refresh_token)
    clock.forward(days=14)
    assert kind(access.logins.refresh, tokens.refresh_token) == "token-expired"
    assert kind(access.logins.refresh, tokens.refresh_token) == "token-expired"  # asking did not use it up


def test_a_session_has_an_end_however_much_it_is_used(access: Access, clock: Clock) -> None:
    tokens = access.logins.log_in("ana", PASSWORD, origin=HOME_ADDRESS).tokens
    console = access.logins.log_in("ana", PASSWORD, kind="console", origin=HOME_ADDRESS)
    assert tokens
    assert console.cookie
    for _ in range(18 * 24 * 5 // 11):
        clock.forward(hours=11)
        access.gate.authenticate_cookie(console.cookie)
        if clock.now.hour < 11:
            tokens = access.logins.refresh(tokens.refresh_token)
            access.gate.authenticate(tokens.access_token)
    clock.now = console.session.expires_at
    assert kind(access.gate.authenticate_cookie, console.cookie) == "session-revoked"
    assert kind(access.logins.refresh, tokens.refresh_token) == "token-expired"
    assert access.sessions.list(console.account.id) == []


def test_an_idle_browser_is_logged_out(access: Access, clock: Clock) -> None:
    cookie = access.logins.log_in("ana", PASSWORD, kind="console", origin=HOME_ADDRESS).cookie
    assert cookie
    for _ in range(5):
        clock.forward(hours=11)
        access.gate.authenticate_cookie(cookie)
    clock.forward(hours=12)
    assert kind(access.gate.authenticate_cookie, cookie) == "session-revoked"
    clock.forward(hours=-2)
    access.gate.authenticate_cookie(cookie)


def test_sessions_are_listed_with_device_address_and_last_use(access: Access, clock: Clock) -> None:
    begun = clock.now
    done = access.logins.log_in("ana", PASSWORD, origin=HOME_ADDRESS)
    assert done.tokens
    strange = Origin("2001:db8::1", "curl/8.5.0\r\nX: \x00" + "y" * 5000)
    access.logins.log_in("ana", PASSWORD, kind="console", origin=strange)
    clock.forward(minutes=5)
    access.gate.authenticate(done.tokens.access_token)
    listed = access.sessions.list(done.account.id)
    assert [(one.kind, one.device, one.address) for one in listed] == [
        ("token", "Firefox on Linux", "192.0.2.10"),
        ("console", "curl", "2001:db8::1"),
    ]
    assert [one.last_used_at for one in listed] == [clock.now, begun]
    assert "\x00" not in listed[1].user_agent
    assert "\n" not in listed[1].user_agent


def test_last_use_is_written_at_most_once_a_minute(access: Access, database: Engine, clock: Clock) -> None:
    done = access.logins.log_in("ana", PASSWORD, origin=HOME_ADDRESS)
    assert done.tokens

    def last_use():
        with Session(database) as session:
            return session.get_one(SessionRow, done.session.id).last_used_at

    begun = clock.now
    for seconds in (20, 20, 19):
        clock.forward(seconds=seconds)
        access.gate.authenticate(done.tokens.access_token)
        assert last_use() == begun
    clock.forward(seconds=1)
    access.gate.authenticate(done.tokens.access_token)
    assert last_use() == clock.now


def test_one_session_or_all_others_can_be_revoked(access: Access) -> None:
    first, second, third = (access.logins.log_in("ana", PASSWORD, origin=HOME_ADDRESS) for _ in range(3))
    assert access.sessions.revoke(second.session.id, "lost telephone", by="ana")
    assert not access.sessions.revoke(second.session.id, "again", by="ana")
    assert second.tokens
    assert kind(access.gate.authenticate, second.tokens.access_token) == "session-revoked"
    assert access.sessions.revoke_all(first.account.id, except_=first.session.id, by="ana") == 1
    assert [one.id for one in access.sessions.list(first.account.id)] == [first.session.id]
    assert third.tokens
    assert kind(access.logins.refresh, third.tokens.refresh_token) == "session-revoked"


def test_a_new_password_ends_the_other_sessions(access: Access) -> None:
    here = access.logins.log_in("ana", PASSWORD, kind="console", origin=HOME_ADDRESS)
    there = access.logins.log_in("ana", PASSWORD, origin=HOME_ADDRESS)
    assert here.cookie
    assert there.tokens
    assert kind(access.accounts.change_password, "ana", "wrong", OTHER_PASSWORD) == "invalid-credentials"
    assert kind(access.accounts.change_password, "ana", PASSWORD, "short") == "weak-password"
    access.accounts.change_password("ana", PASSWORD, OTHER_PASSWORD, keep=here.session.id)
    access.gate.authenticate_cookie(here.cookie)
    assert kind(access.gate.authenticate, there.tokens.access_token) == "session-revoked"
    assert kind(access.logins.refresh, there.tokens.refresh_token) == "session-revoked"
    assert kind(access.logins.log_in, "ana", PASSWORD, origin=HOME_ADDRESS) == "invalid-credentials"
    access.logins.log_in("ana", OTHER_PASSWORD, origin=HOME_ADDRESS)
    access.accounts.set_password("ana", PASSWORD, by="test")
    assert kind(access.gate.authenticate_cookie, here.cookie) == "session-revoked"


def test_a_disabled_account_is_out_at_once_and_old_sessions_do_not_come_back(access: Access) -> None:
    done = access.logins.log_in("ana", PASSWORD, origin=HOME_ADDRESS)
    _, key = access.keys.create("ana", "job", ["predictions:read"])
    assert done.tokens
    access.gate.authenticate(done.tokens.access_token)
    access.accounts.disable("ANA", by="test")
    assert kind(access.gate.authenticate, done.tokens.access_token) == "account-disabled"
    assert kind(access.gate.authenticate, key) == "account-disabled"
    assert kind(access.logins.refresh, done.tokens.refresh_token) == "account-disabled"
    access.accounts.enable("ana", by="test")
    assert kind(access.gate.authenticate, done.tokens.access_token) == "session-revoked"
    access.gate.authenticate(key)


def test_a_deleted_account_leaves_nothing_behind(access: Access, database: Engine) -> None:
    done = access.logins.log_in("ana", PASSWORD, origin=HOME_ADDRESS)
    _, key = access.keys.create("ana", "job", ["predictions:read"])
    link = access.links.create("reset", account="ana", by="test")
    access.accounts.delete("ana", by="test")
    assert done.tokens
    assert kind(access.gate.authenticate, done.tokens.access_token) == "session-revoked"
    assert kind(access.gate.authenticate, key) == "token-invalid"
    assert kind(access.logins.refresh, done.tokens.refresh_token) == "token-invalid"
    assert kind(access.logins.reset_password, link, OTHER_PASSWORD) == "link-invalid"
    again = access.accounts.create("ana", password=OTHER_PASSWORD, roles=(), by="test")
    assert again.roles == ()
    assert kind(access.gate.authenticate, done.tokens.access_token) == "session-revoked"


def test_costs_that_were_raised_are_paid_at_the_next_log_in(access: Access, database: Engine, tmp_path: Path) -> None:
    dearer = access_for(database, tmp_path, passwords={"memory_kib": 64, "passes": 2, "lanes": 1})
    dearer.logins.log_in("ana", PASSWORD, origin=HOME_ADDRESS)
    with Session(database) as session:
        assert "m=64,t=2,p=1" in (session.scalar(select(AccountRow.password_hash)) or "")
    access.logins.log_in("ana", PASSWORD, origin=HOME_ADDRESS)


def test_the_password_may_not_change_between_its_proof_and_the_session(access: Access) -> None:
    proved = access.logins.prove("ana", PASSWORD, None, HOME_ADDRESS)
    access.accounts.set_password("ana", OTHER_PASSWORD, by="test")
    assert kind(access.logins.enter, proved, "token", HOME_ADDRESS, second_factor=False) == "invalid-credentials"


def test_an_account_that_is_deleted_during_its_log_in_stays_out(access: Access) -> None:
    proved = access.logins.prove("ana", PASSWORD, None, HOME_ADDRESS)
    access.accounts.delete("ana", by="test")
    assert kind(access.logins.enter, proved, "token", HOME_ADDRESS, second_factor=False) == "invalid-credentials"


def test_what_is_over_for_long_is_forgotten(access: Access, database: Engine, clock: Clock) -> None:
    access.logins.log_in("ana", PASSWORD, origin=HOME_ADDRESS)
    access.links.create("reset", account="ana", by="test")
    clock.forward(days=121)
    kept = access.logins.log_in("ana", PASSWORD, origin=HOME_ADDRESS)
    access.purge()
    with Session(database) as session:
        assert [row.id for row in session.scalars(select(SessionRow))] == [kept.session.id]
        assert [row.session_id for row in session.scalars(select(RefreshTokenRow))] == [kept.session.id]
