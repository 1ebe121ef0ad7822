"""The gate: changes count at once, also those of other processes; keys, tickets and the forms of the console."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from stock_pipeline.access import gate as module
from stock_pipeline.access import versions
from stock_pipeline.access.facade import Access
from stock_pipeline.access.permissions import ADMINISTRATOR
from stock_pipeline.access.policy import Policy
from stock_pipeline.access.principal import AccessError, Principal
from stock_pipeline_tests.accounts import HOME_ADDRESS, OTHER_PASSWORD, PASSWORD, Clock, access_for, kind
from stock_pipeline_tests.waiting import wait_until

pytestmark = pytest.mark.requirement("R8.1", "R8.3")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def access(database: Engine, tmp_path: Path, clock: Clock):
    made = access_for(database, tmp_path, clock)
    made.accounts.create("root", password=PASSWORD, roles=(ADMINISTRATOR,), by="test")
    made.accounts.create("ana", password=PASSWORD, roles=("analyst",), by="test")
    yield made
    made.gate.stop()


def bearer(access: Access, name: str = "ana") -> str:
    tokens = access.logins.log_in(name, PASSWORD, origin=HOME_ADDRESS).tokens
    assert tokens
    return tokens.access_token


class Statements:
    """Counts what a database is asked."""

    def __init__(self, engine: Engine) -> None:
        self.count = 0
        event.listen(engine, "before_cursor_execute", self._one)

    def _one(self, *_: object) -> None:
        self.count += 1


def shut_out(access: Access, token: str) -> bool:
    """Whether the account of a token is known to be disabled."""
    try:
        access.gate.authenticate(token)
    except AccessError as error:
        return error.kind == "account-disabled"
    return False


@pytest.mark.parametrize("threaded", [False, True])
def test_changes_of_this_process_count_with_the_next_request(access: Access, threaded: bool) -> None:
    if threaded:
        access.gate.start()
    token = bearer(access)
    assert access.gate.authenticate(token).may("backtests:create")
    access.roles.withdraw("ana", "analyst", by="test")
    assert access.gate.authenticate(token).permissions == frozenset()
    access.roles.assign("ana", "operator", by="test")
    assert access.gate.authenticate(token).may("tasks:operate")
    access.roles.change("operator", permissions=["models:promote"], by="test")
    assert not access.gate.authenticate(token).may("tasks:operate")
    access.accounts.disable("ana", by="test")
    assert kind(access.gate.authenticate, token) == "account-disabled"


def test_a_request_asks_the_database_nothing_while_nothing_changes(access: Access) -> None:
    access.gate.start()
    token, cookie = bearer(access), access.logins.log_in("ana", PASSWORD, kind="console", origin=HOME_ADDRESS).cookie
    _, key = access.keys.create("ana", "job", ["predictions:read"])
    assert cookie
    access.gate.stop()
    access.gate._look()
    access.gate._thread = threading.current_thread()  # as if it watched, without its own questions
    access.gate._checked = time.monotonic() + 3600
    for credential in (token, key):
        access.gate.authenticate(credential)
    access.gate.authenticate_cookie(cookie)
    asked = Statements(access.engine)
    for _ in range(100):
        for credential in (token, key):
            access.gate.authenticate(credential)
        access.gate.still_valid(access.gate.authenticate_cookie(cookie))
    access.gate._thread = None
    assert asked.count == 0


@pytest.mark.slow
def test_a_change_of_another_process_is_noticed(access: Access, tmp_path: Path) -> None:
    access.gate.start()
    token = bearer(access)
    access.gate.authenticate(token)
    code = (
        "import sys; from pathlib import Path\n"
        "from stock_pipeline.storage.database import open_database\n"
        "from stock_pipeline_tests.accounts import access_for\n"
        "access = access_for(open_database(sys.argv[1], migrate=False), Path(sys.argv[2]))\n"
        "access.accounts.get('ana'); print('ready', flush=True); sys.stdin.readline()\n"
        "access.accounts.disable('ana', by='other'); print('done', flush=True)\n"
    )
    address = access.engine.url.render_as_string(hide_password=False)
    with subprocess.Popen(
        [sys.executable, "-c", code, address, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin
        assert other.stdout
        assert other.stdout.readline() == "ready\n"
        access.gate.authenticate(token)
        other.stdin.write("\n")
        other.stdin.flush()
        assert other.stdout.readline() == "done\n"
        wait_until(lambda: shut_out(access, token))
        assert kind(access.gate.authenticate, token) == "account-disabled"
    assert module._EVERY <= 0.1  # a look takes milliseconds: together under a fifth of a second


def test_a_change_of_another_connection_is_seen_by_the_watching_thread(
    access: Access, database: Engine, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    access.gate.start()
    token = bearer(access)
    access.gate.authenticate(token)
    other = access_for(database, tmp_path, clock)
    monkeypatch.setattr(versions, "_committed", lambda _session: None)  # as if another process did it
    other.accounts.disable("ana", by="other")
    wait_until(lambda: shut_out(access, token))


def test_without_the_thread_each_request_looks_itself(
    access: Access, database: Engine, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = bearer(access)
    access.gate.authenticate(token)
    other = access_for(database, tmp_path, clock)
    monkeypatch.setattr(versions, "_committed", lambda _session: None)
    other.roles.withdraw("ana", "analyst", by="other")
    assert access.gate.authenticate(token).permissions == frozenset()


def test_nobody_is_let_in_on_old_knowledge_when_the_database_is_gone(
    access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    access.gate.start()
    token = bearer(access)
    access.gate.authenticate(token)
    noticed = threading.Event()

    def gone(_engine: Engine) -> int:
        noticed.set()
        raise OperationalError("select", {}, Exception("gone"))

    monkeypatch.setattr(module, "_STALE", 3600.0)
    monkeypatch.setattr(versions, "current", gone)
    assert noticed.wait(120)  # a look that had begun before is over
    access.gate.authenticate(token)  # for a moment
    access.gate._checked -= module._STALE + 1
    with pytest.raises(OperationalError):
        access.gate.authenticate(token)
    monkeypatch.undo()
    access.gate.authenticate(token)


def test_what_was_read_before_a_change_is_not_kept_after_it(access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    access.gate.start()
    token, real = bearer(access), access.roles.as_of

    def changed_meanwhile(session: Session, version: int) -> Policy:
        found = real(session, version)
        monkeypatch.setattr(access.roles, "as_of", real)
        change = threading.Thread(target=access.roles.withdraw, args=("ana", "analyst"), kwargs={"by": "test"})
        change.start()
        change.join()
        return found

    monkeypatch.setattr(access.roles, "as_of", changed_meanwhile)
    access.gate.authenticate(token)  # overlaps with the change: either answer is right
    assert access.gate.authenticate(token).permissions == frozenset()


def test_a_look_that_another_one_overtakes_forgets_nothing(access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    token, real = bearer(access), versions.current
    views = []

    def overtaken(engine: Engine) -> int:
        monkeypatch.setattr(versions, "current", real)
        found = real(engine)
        other = threading.Thread(target=access.gate.authenticate, args=(token,))  # looks as well, and sees the same
        other.start()
        other.join()
        views.append(access.gate._view)
        return found

    monkeypatch.setattr(versions, "current", overtaken)
    assert [access.gate._look()] == [access.gate._view] == views


def test_memory_is_bounded(access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 10)
    access.gate.start()
    session = access.logins.log_in("ana", PASSWORD, origin=HOME_ADDRESS).session
    for _ in range(50):
        access.gate.authenticate(access.tokens.issue(session.account_id, session.id))
        cookie = access.logins.log_in("ana", PASSWORD, kind="console", origin=HOME_ADDRESS).cookie
        access.gate.authenticate_cookie(cookie or "")
    view = access.gate._view
    assert max(len(view.bearers), len(view.cookies), len(view.entries)) <= 10
    for wrong in range(50):
        for ask in (access.gate.authenticate, access.gate.authenticate_cookie):
            assert kind(ask, f"wrong-{wrong}") in ("token-invalid", "session-revoked")
    assert max(len(view.bearers), len(view.cookies)) <= 10


@pytest.mark.parametrize(
    "text", ["x" * 5000, "spk_", "spk__", "spk_abc_def", "spk_\x00_x", "spk_é_x", "spk_%_x", "\ud800"]
)
def test_credentials_that_are_none(access: Access, text: str) -> None:
    assert kind(access.gate.authenticate, text) == "token-invalid"
    assert kind(access.gate.authenticate_cookie, text) in ("session-revoked", "token-invalid")
    assert kind(access.tickets.redeem, text) == "ticket-invalid"
    assert kind(access.logins.refresh, text) == "token-invalid"


def test_a_token_that_is_remembered_runs_out_to_the_second(access: Access, clock: Clock) -> None:
    token = bearer(access)
    access.gate.authenticate(token)
    clock.forward(minutes=14, seconds=59)
    access.gate.authenticate(token)
    clock.forward(seconds=1)
    assert kind(access.gate.authenticate, token) == "token-expired"


def test_a_token_is_good_for_its_own_session_only(access: Access) -> None:
    ana = access.logins.log_in("ana", PASSWORD, origin=HOME_ADDRESS)
    root = access.logins.log_in("root", PASSWORD, origin=HOME_ADDRESS)
    console = access.logins.log_in("ana", PASSWORD, kind="console", origin=HOME_ADDRESS)
    for account_id, session_id in (
        (ana.account.id, root.session.id),
        (ana.account.id, console.session.id),
        (ana.account.id + 100, ana.session.id),
    ):
        assert kind(access.gate.authenticate, access.tokens.issue(account_id, session_id)) == "token-invalid"
    assert kind(access.gate.authenticate, access.tokens.issue(ana.account.id, "no-session")) == "session-revoked"


def test_a_dropped_signing_key_is_refused_at_once_and_a_rotated_one_is_not(access: Access) -> None:
    access.gate.start()
    token = bearer(access)
    access.gate.authenticate(token)
    access.rotate_keys("test")
    access.gate.authenticate(token)
    access.rotate_keys("test", drop_old=True)
    assert kind(access.gate.authenticate, token) == "token-invalid"
    access.gate.authenticate(bearer(access))


# ------------------------------------------------------------------------------------------------------- keys
def test_a_key_holds_its_scopes_and_never_more_than_its_account(access: Access) -> None:
    me = access.gate.authenticate(bearer(access))
    key, text = access.keys.create("ana", "nightly", ["predictions:read", "backtests:create"], by=me)
    assert text.startswith(f"spk_{key.id}_")
    who = access.gate.authenticate(text)
    assert (who.name, who.kind, who.session_id) == ("ana", "api_key", key.id)
    assert who.permissions == {"predictions:read", "backtests:create"}
    access.roles.assign("ana", "viewer", by="test")
    access.roles.withdraw("ana", "analyst", by="test")
    assert access.gate.authenticate(text).permissions == {"predictions:read"}
    access.roles.assign("ana", "administrator", by="test")
    assert access.gate.authenticate(text).permissions == {"predictions:read", "backtests:create"}


def test_nobody_makes_a_key_that_may_more_than_they(access: Access) -> None:
    me = access.gate.authenticate(bearer(access))
    _, narrow = access.keys.create("ana", "narrow", ["predictions:read", "account:use"], by=me)
    for by, scopes in (
        (me, ["users:manage"]),
        (me, ["predictions:read", "nonsense"]),
        (me, []),
        ("test", ["users:manage"]),
    ):
        assert kind(access.keys.create, "ana", "more", scopes, by=by) == "invalid-scopes"
    key = access.gate.authenticate(narrow)
    assert kind(access.keys.create, "ana", "more", ["backtests:create"], by=key) == "forbidden"


def test_keys_end_are_revoked_and_cannot_be_guessed(access: Access, clock: Clock) -> None:
    until = clock.now + timedelta(days=1)
    key, text = access.keys.create("ana", "a", ["predictions:read"], until)
    lasting, other = access.keys.create("ana", "b", ["predictions:read"])
    for wrong in (text[:-1] + ("A" if text[-1] != "A" else "B"), f"spk_{key.id}_", f"spk_{lasting.id}_{text[-43:]}"):
        assert kind(access.gate.authenticate, wrong) == "token-invalid"
    access.gate.authenticate(text)
    clock.now = until
    assert kind(access.gate.authenticate, text) == "token-expired"
    access.gate.authenticate(other)
    assert {k.name: k.last_used_at for k in access.keys.list("ana")} == {"a": until - timedelta(days=1), "b": until}
    access.keys.revoke(lasting.id, by="test")
    assert kind(access.gate.authenticate, other) == "session-revoked"
    assert kind(access.keys.revoke, "0" * 12, by="test") == kind(access.keys.get, "\x00") == "key-not-found"
    assert kind(access.keys.create, "ana", "late", ["predictions:read"], until) == "invalid-key"
    for name in ("", " \x00 ", "x" * 65):
        assert kind(access.keys.create, "ana", name, ["predictions:read"]) == "invalid-key"


# ------------------------------------------------------------------------------------------------------- tickets
def test_a_ticket_works_once_within_its_seconds_with_the_rights_of_the_moment(access: Access, clock: Clock) -> None:
    me = access.gate.authenticate(bearer(access))
    _, key = access.keys.create("ana", "stream", ["events:read"])
    ticket, of_key = access.tickets.issue(me), access.tickets.issue(access.gate.authenticate(key))
    assert access.tickets.redeem(of_key).permissions == {"events:read"}
    access.roles.assign("ana", "operator", by="test")
    assert access.tickets.redeem(ticket).may("tasks:operate")
    assert kind(access.tickets.redeem, ticket) == "ticket-invalid"
    late, orphan = access.tickets.issue(me), access.tickets.issue(me)
    access.sessions.revoke(me.session_id or "", "test", by="test")
    assert kind(access.tickets.redeem, orphan) == "session-revoked"
    clock.forward(seconds=30)
    assert kind(access.tickets.redeem, late) == "ticket-invalid"
    assert kind(access.tickets.issue, Principal("system", "system")) == "no-session"


def test_of_many_who_use_a_ticket_exactly_one_gets_in(access: Access) -> None:
    ticket, told, start = access.tickets.issue(access.gate.authenticate(bearer(access))), [], threading.Barrier(6)

    def one() -> None:
        start.wait()
        try:
            told.append(access.tickets.redeem(ticket).name)
        except Exception as error:
            told.append(getattr(error, "kind", repr(error)))

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(told) == ["ana", *["ticket-invalid"] * 5]


# ------------------------------------------------------------------------------------------------------- the rest
def test_a_form_belongs_to_one_session(access: Access, tmp_path: Path) -> None:
    first, second = (
        access.gate.authenticate_cookie(
            access.logins.log_in("ana", PASSWORD, kind="console", origin=HOME_ADDRESS).cookie or ""
        )
        for _ in range(2)
    )
    token = access.gate.csrf_token(first)
    access.gate.check_csrf(first, token)
    access_for(access.engine, tmp_path).gate.check_csrf(first, token)  # another process of the same installation
    for principal, given in ((second, token), (first, ""), (first, None), (first, token[:-1]), (first, "é\ud800")):
        assert kind(access.gate.check_csrf, principal, given) == "csrf"


def test_who_asks_without_a_log_in(access: Access, clock: Clock) -> None:
    assert access.gate.anonymous() is None
    assert kind(access.gate.still_valid, Principal("anonymous", "anonymous")) == "token-missing"
    open_ = access_for(access.engine, access.home, clock, anonymous_role="viewer")
    who = open_.gate.anonymous()
    assert who
    assert who.may("predictions:read")
    assert not who.may("account:use")
    assert open_.tickets.redeem(open_.tickets.issue(who)) == who
    open_.roles.change("viewer", permissions=["risk:read"], by="test")
    assert open_.gate.still_valid(who).permissions == {"risk:read"}


def test_a_long_connection_notices_what_becomes_of_its_account(access: Access) -> None:
    me = access.gate.authenticate(bearer(access))
    assert access.gate.still_valid(me) == me
    access.roles.assign("ana", "operator", by="test")
    assert access.gate.still_valid(me).may("tasks:operate")
    access.accounts.set_password("ana", OTHER_PASSWORD, by="test")
    assert kind(access.gate.still_valid, me) == "session-revoked"
    system = Principal("nightly", "system")
    assert access.gate.still_valid(system) is system


def test_uses_that_the_thread_collects_are_written_at_the_end(access: Access, clock: Clock) -> None:
    access.gate.start()
    done = access.logins.log_in("ana", PASSWORD, origin=HOME_ADDRESS)
    assert done.tokens
    clock.forward(minutes=2)
    access.gate.authenticate(done.tokens.access_token)
    access.gate.stop()
    assert access.sessions.list(done.account.id)[0].last_used_at == clock.now
