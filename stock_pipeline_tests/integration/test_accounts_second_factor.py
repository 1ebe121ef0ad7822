"""The second factor: codes that count once, the policy that asks for them, and sessions that must prove themselves."""

from __future__ import annotations

import threading
from pathlib import Path

import pyotp
import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from stock_pipeline.access.audit import AuditFilter
from stock_pipeline.access.facade import Access
from stock_pipeline.access.permissions import PERMISSIONS, READS
from stock_pipeline.access.principal import Origin
from stock_pipeline.core.errors import IntegrityError
from stock_pipeline.storage.database.tables.accounts import AccountRow
from stock_pipeline_tests.accounts import HOME_ADDRESS, OTHER_PASSWORD, PASSWORD, Clock, access_for, kind, refusal

pytestmark = pytest.mark.requirement("R8.1")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def access(database: Engine, tmp_path: Path, clock: Clock) -> Access:
    made = access_for(database, tmp_path, clock)
    made.accounts.create("root", password=PASSWORD, roles=("administrator",), by="test")
    made.accounts.create("ana", password=PASSWORD, roles=("analyst",), by="test")
    return made


def set_up(access: Access, clock: Clock, name: str = "ana") -> pyotp.TOTP:
    """Give an account a second factor; the code of this moment is used up."""
    secret, _ = access.second_factor.begin(name)
    totp = pyotp.TOTP(secret)
    access.second_factor.confirm(name, totp.at(clock.now))
    return totp


def log_in(access: Access, code: str | None = None, name: str = "ana", **options):
    return access.logins.log_in(name, PASSWORD, code=code, origin=HOME_ADDRESS, **options)


def test_a_second_factor_counts_once_it_is_confirmed(access: Access, clock: Clock) -> None:
    assert kind(access.second_factor.confirm, "ana", "123456") == "second-factor-not-begun"
    secret, address = access.second_factor.begin("ana")
    assert address.startswith("otpauth://totp/Stock%20pipeline:ana?secret=" + secret)
    log_in(access)  # not asked for yet
    wrong = f"{(int(pyotp.TOTP(secret).at(clock.now)) + 1) % 10**6:06}"
    for code in (wrong, "", "12345", "１２３４５６", "abcdef", "1234567"):
        assert kind(access.second_factor.confirm, "ana", code) == "invalid-code"
    again, _ = access.second_factor.begin("ana")
    assert again != secret
    assert kind(access.second_factor.confirm, "ana", pyotp.TOTP(secret).at(clock.now)) == "invalid-code"
    access.second_factor.confirm("ana", pyotp.TOTP(again).at(clock.now))
    assert access.accounts.get("ana").second_factor
    assert kind(access.second_factor.begin, "ana") == "second-factor-exists"
    error = refusal(log_in, access)
    assert (error.status, error.kind) == (401, "second-factor-required")


def test_a_code_is_asked_for_after_the_right_password_only(access: Access, clock: Clock) -> None:
    totp = set_up(access, clock)
    clock.forward(seconds=60)
    wrong = refusal(access.logins.log_in, "ana", "wrong", code=totp.at(clock.now), origin=HOME_ADDRESS)
    assert wrong.kind == "invalid-credentials"
    assert str(wrong) == str(refusal(access.logins.log_in, "nobody", "wrong", origin=HOME_ADDRESS))
    assert log_in(access, totp.at(clock.now)).session.second_factor


def test_a_code_is_good_once_within_a_step_of_its_time(access: Access, clock: Clock) -> None:
    patient = {"failures_before_delay": 50, "failures_before_lock": 60}
    access = access_for(access.engine, access.home, clock, abuse=patient)
    totp = set_up(access, clock)
    assert kind(log_in, access, totp.at(clock.now)) == "invalid-credentials"  # confirmed the factor
    clock.forward(minutes=10)
    moment = int(clock.now.timestamp())
    early, late, previous, following = (totp.at(moment + 30 * step) for step in (2, -2, -1, 1))
    for code in (early, late):
        assert kind(log_in, access, code) == "invalid-credentials"
    log_in(access, previous)
    log_in(access, totp.at(clock.now))
    clock.forward(seconds=2)
    assert kind(log_in, access, totp.at(clock.now)) == "invalid-credentials"
    log_in(access, f"{following[:3]} {following[3:]}")
    assert kind(log_in, access, previous) == "invalid-credentials"


def test_of_many_log_ins_with_one_code_exactly_one_succeeds(access: Access, clock: Clock) -> None:
    totp = set_up(access, clock)
    clock.forward(minutes=5)
    code, answers, start = totp.at(clock.now), [], threading.Barrier(3)

    def one() -> None:
        start.wait()
        try:
            log_in(access, code)
            answers.append("in")
        except Exception as error:
            answers.append(getattr(error, "kind", repr(error)))

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == ["in", "invalid-credentials", "invalid-credentials"]


def test_a_right_password_without_a_code_leaves_a_trace_and_is_no_failed_log_in(access: Access, clock: Clock) -> None:
    set_up(access, clock)
    before = len(access.audit.entries(AuditFilter(action="session.log_in"), None, 10))
    assert kind(log_in, access) == "second-factor-required"
    (entry,) = access.audit.entries(AuditFilter(action="session.code_asked"), None, 10)
    assert (entry.object_id, entry.address, entry.result) == ("ana", HOME_ADDRESS.address, "refused")
    assert len(access.audit.entries(AuditFilter(action="session.log_in"), None, 10)) == before


def test_wrong_codes_lock_like_wrong_passwords(access: Access, clock: Clock) -> None:
    totp = set_up(access, clock)
    told = []
    for _ in range(12):
        clock.forward(minutes=10)
        told.append(kind(log_in, access, f"{(int(totp.at(clock.now)) + 7) % 10**6:06}"))
        if told[-1] == "account-locked":
            break
        assert kind(log_in, access) in ("second-factor-required", "too-many-attempts", "account-locked")
    assert told[-1] == "account-locked"


def test_the_secret_is_encrypted_with_a_key_that_is_not_in_the_database(
    access: Access, clock: Clock, database: Engine, tmp_path: Path
) -> None:
    secret, _ = access.second_factor.begin("ana")
    access.second_factor.confirm("ana", pyotp.TOTP(secret).at(clock.now))
    with Session(database) as session:
        stored = session.scalar(select(AccountRow.totp_secret).where(AccountRow.name == "ana"))
    assert stored
    assert secret.encode() not in stored
    clock.forward(minutes=5)
    elsewhere = access_for(database, tmp_path / "elsewhere", clock)
    elsewhere.audit.files = access.audit.files
    with pytest.raises(IntegrityError, match="cannot be read with the key in the home folder"):
        log_in(elsewhere, pyotp.TOTP(secret).at(clock.now))


def test_a_lost_device_is_recovered_by_a_link_of_an_administrator(access: Access, clock: Clock) -> None:
    totp = set_up(access, clock)
    clock.forward(minutes=5)
    tokens = log_in(access, totp.at(clock.now)).tokens
    access.logins.reset_password(access.links.create("reset", account="ana", by="root"), OTHER_PASSWORD)
    error = refusal(access.logins.log_in, "ana", OTHER_PASSWORD, origin=HOME_ADDRESS)
    assert error.kind == "second-factor-required"  # a new password alone does not take it away
    link = access.links.create("recovery", account="ana", by="root")
    access.logins.reset_password(link, PASSWORD)
    assert not log_in(access).session.second_factor
    assert tokens
    assert kind(access.gate.authenticate, tokens.access_token) == "session-revoked"
    actions = [entry.action for entry in access.audit.entries()]
    assert "account.second_factor_off" in actions


@pytest.mark.parametrize(("policy", "names"), [("administrators", ["root"]), ("everyone", ["root", "ana"])])
def test_without_the_second_factor_that_the_policy_wants_one_may_only_read(
    access: Access, clock: Clock, policy: str, names: list[str]
) -> None:
    strict = access_for(access.engine, access.home, clock, second_factor=policy)
    for name in ("root", "ana"):
        done = log_in(strict, name=name)
        assert done.tokens
        who = strict.gate.authenticate(done.tokens.access_token)
        held = strict.roles.permissions_of(who.roles)
        assert not who.second_factor
        assert who.permissions == (held & (READS | {"account:use"}) if name in names else held)
        _, key = strict.keys.create(name, "job", sorted(who.permissions), by=who)
        assert strict.gate.authenticate(key).permissions == who.permissions
        assert who.may("account:use")
    who = strict.gate.authenticate(log_in(strict, name="root").tokens.access_token)
    secret, _ = strict.second_factor.begin("root")
    strict.second_factor.confirm("root", pyotp.TOTP(secret).at(clock.now), by=who)
    now = strict.gate.still_valid(who)  # the session in which it was confirmed has its second factor
    assert now.second_factor
    assert now.permissions == set(PERMISSIONS)
    clock.forward(minutes=2)
    again = log_in(strict, pyotp.TOTP(secret).at(clock.now), name="root")
    assert strict.gate.authenticate(again.tokens.access_token).permissions == set(PERMISSIONS)
    strict.second_factor.remove("root", by="test")
    assert strict.gate.still_valid(who).permissions == READS | {"account:use"}


def test_a_role_that_becomes_an_administrators_needs_the_second_factor_at_once(access: Access, clock: Clock) -> None:
    strict = access_for(access.engine, access.home, clock, second_factor="administrators")
    who = strict.gate.authenticate(log_in(strict).tokens.access_token)
    assert who.may("backtests:create")
    strict.roles.change("analyst", permissions=["backtests:create", "users:manage"], by="system")
    now = strict.gate.still_valid(who)
    assert not now.may("users:manage")
    assert not now.may("backtests:create")


@pytest.mark.requirement("R8.5")
def test_a_session_from_an_odd_place_may_only_read_until_it_has_proved_itself(access: Access, clock: Clock) -> None:
    log_in(access)
    clock.forward(days=1)
    odd = access.logins.log_in("ana", PASSWORD, origin=Origin("203.0.113.77", "curl/8"))
    assert odd.session.step_up
    assert odd.tokens
    who = access.gate.authenticate(odd.tokens.access_token)
    assert who.step_up
    assert who.permissions == access.roles.permissions_of(who.roles) & (READS | {"account:use"})
    assert kind(access.logins.step_up, who, "wrong") == "invalid-credentials"
    access.logins.step_up(who, PASSWORD, origin=Origin("203.0.113.77", "curl/8"))
    assert access.gate.still_valid(who).may("backtests:create")
    renewed = access.logins.refresh(odd.tokens.refresh_token)
    assert access.gate.authenticate(renewed.access_token).may("backtests:create")


def test_proving_oneself_needs_the_second_factor_too(access: Access, clock: Clock) -> None:
    totp = set_up(access, clock)
    clock.forward(minutes=5)
    log_in(access, totp.at(clock.now))
    clock.forward(minutes=5)
    done = log_in(access, totp.at(clock.now))
    who = access.gate.authenticate(done.tokens.access_token)
    assert kind(access.logins.step_up, who, PASSWORD) == "second-factor-required"
    clock.forward(minutes=5)
    assert access.logins.step_up(who, PASSWORD, totp.at(clock.now)).second_factor
    _, key = access.keys.create("ana", "job", ["predictions:read"])
    assert kind(access.logins.step_up, access.gate.authenticate(key), PASSWORD) == "no-session"
    assert kind(access.logins.log_out, access.gate.authenticate(key)) == "no-session"
