"""How the gate finds out who asks: from memory where it can, else in one look at the database."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, update
from sqlalchemy.orm import Session

from stock_pipeline.access import gate as module
from stock_pipeline.access.facade import Access
from stock_pipeline.access.principal import Principal
from stock_pipeline.storage.database.tables.accounts import SessionRow
from stock_pipeline_tests.accounts import HOME_ADDRESS, PASSWORD, Clock, access_for, kind

pytestmark = pytest.mark.requirement("R8.1", "R8.3")


@pytest.fixture
def access(database: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Access]:
    monkeypatch.setattr(module, "_STALE", 600.0)  # however busy the machine is, the thread looks often enough
    made = access_for(database, tmp_path, Clock(), anonymous_role="viewer")
    made.accounts.create("ana", password=PASSWORD, roles=("analyst",), by="test")
    made.accounts.create("bob", password=PASSWORD, by="test")
    yield made
    made.gate.stop()


@contextmanager
def asked(engine: Engine) -> Iterator[list[str]]:
    """What this thread asks the database meanwhile; ``begin`` where a transaction begins."""
    heard: list[str] = []
    mine = threading.get_ident()

    def began(_connection: object) -> None:
        if threading.get_ident() == mine:
            heard.append("begin")

    def statement(_connection: object, _cursor: object, text: str, *_: object) -> None:
        if threading.get_ident() == mine and not text.startswith("BEGIN"):
            heard.append(text)

    event.listen(engine, "begin", began)
    event.listen(engine, "before_cursor_execute", statement)
    try:
        yield heard
    finally:
        event.remove(engine, "begin", began)
        event.remove(engine, "before_cursor_execute", statement)


def proofs(access: Access) -> tuple[str, str, str]:
    """A token, a key and a cookie of the same account."""
    token = access.logins.log_in("ana", PASSWORD, origin=HOME_ADDRESS).tokens
    cookie = access.logins.log_in("ana", PASSWORD, kind="console", origin=HOME_ADDRESS).cookie
    assert token
    assert cookie
    return token.access_token, access.keys.create("ana", "nightly", ["predictions:read"])[1], cookie


def test_after_a_change_each_proof_is_one_look_at_the_database(access: Access) -> None:
    access.gate.start()
    token, key, cookie = proofs(access)
    gate = access.gate
    asks: list[tuple[Callable[[str], Principal], Callable[[str], Principal | None], str]] = [
        (gate.authenticate, gate.known_bearer, token),
        (gate.authenticate, gate.known_bearer, key),
        (gate.authenticate_cookie, gate.known_cookie, cookie),
    ]
    for find_out, _, proof in asks:
        find_out(proof)
    access.accounts.disable("bob", by="test")
    access.gate.stop()
    access.gate.start()  # it has looked: the thread does not do so in the middle of what follows
    access.roles.permissions_of(["viewer"])  # what roles hold is read once for everybody
    for find_out, known, proof in asks:
        with asked(access.engine) as heard:
            assert known(proof) is None
            assert heard == []
            who = find_out(proof)
        assert [text.split()[0] for text in heard] == ["begin", "SELECT"], heard
        with asked(access.engine) as heard:
            assert known(proof) == who == find_out(proof) == gate.still_valid(who) == gate.known_valid(who)
        assert heard == []
    assert who.may("backtests:create")


def test_nothing_is_known_by_heart_without_the_thread_that_watches(access: Access) -> None:
    token, key, cookie = proofs(access)
    gate = access.gate
    who = gate.authenticate(token)
    gate.authenticate(key)
    gate.authenticate_cookie(cookie)
    anyone = gate.anonymous()
    assert anyone
    assert gate.known_bearer(token) is gate.known_bearer(key) is gate.known_cookie(cookie) is None
    assert gate.known_valid(who) is gate.known_anonymous() is None
    gate.start()
    assert gate.known_anonymous() == gate.known_valid(anyone) == anyone
    system = Principal("nightly", "system")
    assert gate.known_valid(system) is system


def test_what_is_known_runs_out_and_nonsense_is_not_known(access: Access) -> None:
    access.gate.start()
    token, _, cookie = proofs(access)
    who, viewer = access.gate.authenticate(token), access.gate.authenticate_cookie(cookie)
    for wrong in ("", "x" * 5000, "\ud800"):
        assert access.gate.known_bearer(wrong) is access.gate.known_cookie(wrong) is None
    assert access.gate.known_valid(Principal("ana", "token", who.account_id)) is None
    clock = access.clock
    assert isinstance(clock, Clock)
    clock.forward(days=400)
    assert access.gate.known_bearer(token) is access.gate.known_cookie(cookie) is None
    assert access.gate.known_valid(who) is access.gate.known_valid(viewer) is None


def test_an_account_that_is_deleted_meanwhile_is_a_log_in_that_is_over(access: Access) -> None:
    """However the two overlap, the answer is about the log-in, never about an account that is not found."""
    mine = threading.get_ident()
    for name in ("token", "key", "cookie"):
        account = f"gone-{name}"
        access.accounts.create(account, password=PASSWORD, roles=("analyst",), by="test")
        token = access.logins.log_in(account, PASSWORD, origin=HOME_ADDRESS).tokens
        cookie = access.logins.log_in(account, PASSWORD, kind="console", origin=HOME_ADDRESS).cookie
        key = access.keys.create(account, "nightly", ["predictions:read"])[1]
        assert token
        assert cookie
        proof = {"token": token.access_token, "key": key, "cookie": cookie}[name]
        find_out = access.gate.authenticate_cookie if name == "cookie" else access.gate.authenticate

        deletion = threading.Thread(target=access.accounts.delete, args=(account,), kwargs={"by": "test"})

        def delete(*arguments: object, deletion: threading.Thread = deletion) -> None:
            if threading.get_ident() == mine and "JOIN account " in str(arguments[2]) and deletion.ident is None:
                deletion.start()
                deletion.join()

        event.listen(access.engine, "after_cursor_execute", delete)
        try:
            assert find_out(proof).name == account  # it was there when it was looked for
        finally:
            event.remove(access.engine, "after_cursor_execute", delete)
        assert deletion.ident is not None
        assert kind(find_out, proof) in ("session-revoked", "token-invalid")


def test_a_session_is_no_key_because_its_id_is_short(access: Access) -> None:
    done = access.logins.log_in("ana", PASSWORD, kind="console", origin=HOME_ADDRESS)
    assert done.cookie
    with Session(access.engine) as session, session.begin():
        session.execute(update(SessionRow).where(SessionRow.id == done.session.id).values(id="short"))
    who = access.gate.authenticate_cookie(done.cookie)
    access.accounts.disable("bob", by="test")
    assert access.gate.still_valid(who) == who
    assert access.tickets.redeem(access.tickets.issue(who)) == who
    clock = access.clock
    assert isinstance(clock, Clock)
    clock.forward(minutes=2)
    access.gate.authenticate_cookie(done.cookie)
    assert access.sessions.list(done.account.id)[0].last_used_at == clock.now
