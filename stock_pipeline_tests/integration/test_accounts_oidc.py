"""Log-in with a company's identity provider, against one that runs here: HTTP, PKCE, signed tokens, and forgeries."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import jwt
import pyotp
import pytest
from sqlalchemy import Engine

from stock_pipeline.access import oidc as module
from stock_pipeline.access.audit import AuditFilter
from stock_pipeline.access.facade import Access
from stock_pipeline.access.logins import LogIn
from stock_pipeline.access.principal import Principal
from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline_tests.accounts import HOME_ADDRESS, PASSWORD, Clock, access_for, kind, refusal
from stock_pipeline_tests.identity_provider import CLIENT, SECRET, IdentityProvider, identity_provider

pytestmark = pytest.mark.requirement("R8.1")

BACK = "http://127.0.0.1:8000/api/auth/oidc/callback"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def provider(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[IdentityProvider]:
    monkeypatch.setattr(module, "_TIMEOUT", 120.0)  # a busy machine is not taken for a provider that is silent
    with identity_provider() as running:
        running.now = lambda: clock.now.timestamp()
        yield running


def configured(engine: Engine, home: Path, clock: Clock, provider: IdentityProvider, **settings) -> Access:
    access = access_for(
        engine,
        home,
        clock,
        oidc={"issuer": provider.address, "client_id": CLIENT, "client_secret": "env:SECRET", "role": "analyst"},
        **settings,
    )
    access.settings = access.settings.resolved({"SECRET": SECRET})
    return access


@pytest.fixture
def access(database: Engine, tmp_path: Path, clock: Clock, provider: IdentityProvider) -> Access:
    return configured(database, tmp_path, clock, provider)


@pytest.fixture
def simple(sqlite_database: Engine, tmp_path: Path, clock: Clock, provider: IdentityProvider) -> Access:
    return configured(sqlite_database, tmp_path, clock, provider)


def log_in(access: Access, provider: IdentityProvider, after: str = "/models") -> tuple[LogIn, str]:
    start = access.oidc.begin(BACK, after)
    return access.oidc.finish(provider.authorise(start.address), start.cookie, BACK, HOME_ADDRESS)


def test_the_first_log_in_makes_an_account_and_the_next_finds_it(access: Access, provider: IdentityProvider) -> None:
    first, after = log_in(access, provider)
    assert after == "/models"
    assert (first.account.name, first.account.roles, first.account.has_password) == ("ana", ("analyst",), False)
    assert first.cookie
    who = access.gate.authenticate_cookie(first.cookie)
    assert (who.kind, who.may("backtests:create"), who.second_factor) == ("console", True, False)
    provider.person = {"sub": "u-1", "preferred_username": "ana-after-marriage"}
    second, _ = log_in(access, provider)
    assert second.account.id == first.account.id
    assert second.cookie != first.cookie
    assert kind(access.logins.log_in, "ana", "", origin=HOME_ADDRESS) == "invalid-credentials"
    made = [e for e in access.audit.entries() if e.action == "account.create"]
    assert [entry.after for entry in made] == [{"name": "ana", "roles": ["analyst"], "log_in": "oidc"}]


def test_a_local_account_of_the_same_name_is_not_taken_over(access: Access, provider: IdentityProvider) -> None:
    access.accounts.create("Ana", password=PASSWORD, roles=("administrator",), by="test")
    other = log_in(access, provider)[0].account
    assert (other.name, other.roles) == ("ana-2", ("analyst",))
    provider.person = {"sub": "u-2", "preferred_username": "ANA"}
    assert log_in(access, provider)[0].account.name == "ANA-3"
    assert log_in(access, provider)[0].account.name == "ANA-3"
    assert len(access.accounts.list()) == 3


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"preferred_username": "Ana Lima"}, "Ana-Lima"), ({"email": "ana@example.org"}, "ana@example.org"),
        ({"preferred_username": "../../etc"}, "etc"), ({"preferred_username": "me"}, "account"),
        ({"preferred_username": "<script>alert(1)"}, "script-alert-1-"), ({"name": "安娜"}, "account"),
        ({"preferred_username": "x" * 500}, "x" * 56), ({}, "account"), ({"preferred_username": 7}, "7"),
    ],
)  # fmt: skip
def test_names_of_a_provider_are_made_fit(simple: Access, provider: IdentityProvider, claims: dict, name: str) -> None:
    provider.person = {"sub": "u-9", **claims}
    assert log_in(simple, provider)[0].account.name == name


def test_one_person_who_comes_twice_at_once_gets_one_account(access: Access, provider: IdentityProvider) -> None:
    access.roles.list()
    starts = [access.oidc.begin(BACK) for _ in range(4)]
    answers = [provider.authorise(start.address) for start in starts]
    told: list[object] = []

    def finish(number: int) -> None:
        try:
            told.append(access.oidc.finish(answers[number], starts[number].cookie, BACK, HOME_ADDRESS)[0].account.id)
        except Exception as error:
            told.append(error)

    threads = [threading.Thread(target=finish, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(told)) == 1, told
    assert len(access.accounts.list()) == 1


def test_the_way_there_carries_state_nonce_and_challenge_only(simple: Access, provider: IdentityProvider) -> None:
    first, second = simple.oidc.begin(BACK), simple.oidc.begin(BACK)
    assert first.address.startswith(f"{provider.address}/authorise?")
    asked = parse_qs(urlsplit(first.address).query)
    assert asked["redirect_uri"] == [BACK]
    for name in ("state", "nonce", "code_challenge"):
        assert asked[name] != parse_qs(urlsplit(second.address).query)[name]
        assert asked[name][0] not in first.cookie
        assert asked[name][0].encode() not in base64.urlsafe_b64decode(first.cookie)
    assert SECRET not in first.address + repr(first) + repr(simple.settings)
    assert first.cookie not in repr(first)


def test_an_answer_of_another_log_in_is_refused(simple: Access, provider: IdentityProvider, clock: Clock) -> None:
    mine, other = simple.oidc.begin(BACK), simple.oidc.begin(BACK)
    planted = provider.authorise(other.address)
    for answer, cookie in (
        (planted, mine.cookie),  # somebody else's code and state in my browser
        ({**planted, "state": ""}, mine.cookie),
        ({"code": planted["code"]}, mine.cookie),
        ({**provider.authorise(mine.address), "iss": "https://evil.example"}, mine.cookie),
        ({"error": "access_denied", **provider.authorise(mine.address)}, mine.cookie),
        (provider.authorise(mine.address), ""),
        (provider.authorise(mine.address), "x" * 10_000),
        (provider.authorise(mine.address), mine.cookie[:-8] + "AAAAAAA="),
        (provider.authorise(mine.address), "é\ud800"),
        ({**provider.authorise(mine.address), "state": "\ud800"}, mine.cookie),
    ):
        assert kind(simple.oidc.finish, answer, cookie, BACK) == "invalid-credentials"
    mixed = {"code": planted["code"], "state": provider.authorise(mine.address)["state"]}
    assert kind(simple.oidc.finish, mixed, mine.cookie, BACK) == "invalid-credentials"  # PKCE: the code is another's
    late = simple.oidc.begin(BACK)
    answer = provider.authorise(late.address)
    clock.forward(minutes=11)
    assert kind(simple.oidc.finish, answer, late.cookie, BACK) == "invalid-credentials"
    assert simple.accounts.list() == []
    assert {e.result for e in simple.audit.entries() if e.action == "session.log_in"} == {"refused"}


def test_a_code_works_once(simple: Access, provider: IdentityProvider) -> None:
    start = simple.oidc.begin(BACK)
    answer = provider.authorise(start.address)
    simple.oidc.finish(answer, start.cookie, BACK)
    assert kind(simple.oidc.finish, answer, start.cookie, BACK) == "invalid-credentials"


@pytest.mark.parametrize(
    "change",
    [
        {"iss": "https://evil.example"}, {"iss": None}, {"aud": "another"}, {"aud": ["another"]}, {"aud": None},
        {"aud": [CLIENT, "another"]}, {"azp": "another"}, {"nonce": "another"}, {"nonce": None}, {"exp": 1},
        {"exp": None}, {"iat": 4_000_000_000}, {"iat": None}, {"nbf": 4_000_000_000}, {"sub": None}, {"sub": ""},
        {"sub": "x" * 300}, {"sub": "a\x00b"}, {"sub": 7}, {"at_hash": "AAAA"},
    ],
    ids=str,
)  # fmt: skip
def test_an_id_token_that_says_otherwise_is_refused(simple: Access, provider: IdentityProvider, change: dict) -> None:
    provider.tokens = lambda claims: {k: v for k, v in {**claims, **change}.items() if v is not None}
    provider.sign = lambda claims: raw(claims, provider)
    assert refusal(log_in, simple, provider).status == 401
    assert simple.accounts.list() == []


def raw(claims: dict, provider: IdentityProvider, **header) -> str:
    """A token signed with the provider's key, whatever is in it."""
    head = {"alg": "RS256", "kid": provider.kid, **header}
    signed = ".".join(base64.urlsafe_b64encode(json.dumps(x).encode()).rstrip(b"=").decode() for x in (head, claims))
    signature = jwt.get_algorithm_by_name("RS256").sign(signed.encode(), provider.key)
    return f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def test_id_tokens_with_another_signature_are_refused(simple: Access, provider: IdentityProvider) -> None:
    with identity_provider() as evil:
        evil.new_key()
        forgeries = [
            lambda claims: evil.signed(claims),
            lambda claims: jwt.encode(claims, evil.key, algorithm="RS256", headers={"kid": provider.kid}),
            lambda claims: jwt.encode(claims, None, algorithm="none", headers={"kid": provider.kid}),
            lambda claims: jwt.encode(claims, SECRET * 3, algorithm="HS256", headers={"kid": provider.kid}),
            lambda claims: jwt.encode(claims, SECRET * 3, algorithm="HS256"),
            lambda claims: raw(claims, provider, alg="none"),
            lambda claims: raw(claims, provider, alg="HS256"),
            lambda claims: provider.signed(claims)[:-4] + "AAAA",
            lambda claims: "not.a.token",
            lambda claims: "",
            lambda claims: 7,
        ]
        for forge in forgeries:
            provider.sign = forge  # type: ignore[assignment]
            assert refusal(log_in, simple, provider).status == 401
    provider.sign = provider.signed
    log_in(simple, provider)


def test_a_new_key_of_the_provider_is_fetched(simple: Access, provider: IdentityProvider, monkeypatch) -> None:
    log_in(simple, provider)
    log_in(simple, provider)
    assert provider.asked.count("/keys") == 1
    provider.new_key()
    monkeypatch.setattr(module, "_LOOK_AGAIN", 0.0)  # as if ten seconds had passed
    log_in(simple, provider)
    assert provider.asked.count("/keys") == 2


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/token", "/keys"])
def test_a_provider_that_is_down_is_said_to_be(
    simple: Access, provider: IdentityProvider, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOOK_AGAIN", 0.0)  # as if ten seconds passed between the two
    provider.broken = {path}
    error = refusal(log_in, simple, provider)
    assert (error.status, error.kind) == (503, "identity-provider-unavailable")
    provider.broken = set()
    log_in(simple, provider)


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://another.example"},
        {"token_endpoint": "http://another.example/token"},
        {"jwks_uri": "file:///etc/passwd"},
        {"authorization_endpoint": None},
    ],
    ids=str,
)
def test_a_discovery_document_that_points_elsewhere_is_refused(
    simple: Access, provider: IdentityProvider, metadata: dict
) -> None:
    provider.metadata = metadata
    with pytest.raises(ConfigurationError, match="identity provider"):
        simple.oidc.begin(BACK)


def test_a_disabled_account_stays_out(access: Access, provider: IdentityProvider) -> None:
    access.accounts.create("root", password=PASSWORD, roles=("administrator",), by="test")
    name = log_in(access, provider)[0].account.name
    access.accounts.disable(name, by="test")
    assert kind(log_in, access, provider) == "account-disabled"
    newest = access.audit.entries(AuditFilter(action="session.log_in"), None, 1)[0]
    assert (newest.result, newest.detail) == ("refused", {"reason": "the account is disabled"})


def test_a_second_factor_of_the_provider_counts_and_ones_own_can_be_given_later(
    simple: Access, provider: IdentityProvider, clock: Clock
) -> None:
    strict = configured(simple.engine, simple.home, clock, provider, second_factor="everyone")
    provider.person = {"sub": "u-1", "preferred_username": "ana", "amr": ["pwd", "otp"]}
    done = log_in(strict, provider)[0]
    assert strict.gate.authenticate_cookie(done.cookie or "").may("backtests:create")
    provider.person = {"sub": "u-1", "preferred_username": "ana", "amr": ["pwd"]}
    who = strict.gate.authenticate_cookie(log_in(strict, provider)[0].cookie or "")
    assert not who.may("backtests:create")
    assert kind(strict.logins.step_up, who, "") == "no-proof"
    secret, _ = strict.second_factor.begin("ana")
    strict.second_factor.confirm("ana", pyotp.TOTP(secret).at(clock.now))
    clock.forward(minutes=5)
    assert kind(strict.logins.step_up, who, "", "000000") == "invalid-credentials"
    strict.logins.step_up(who, "", pyotp.TOTP(secret).at(clock.now))
    assert strict.gate.still_valid(who).may("backtests:create")


def test_without_a_password_a_log_in_just_now_is_proof_enough_and_later_a_code(
    simple: Access, provider: IdentityProvider, clock: Clock
) -> None:
    def session(access: Access) -> Principal:
        return access.gate.authenticate_cookie(log_in(access, provider)[0].cookie or "")

    who = session(simple)
    assert simple.logins.confirm(who, None).name == who.name
    clock.forward(minutes=10)
    assert kind(simple.logins.confirm, who, None) == "no-proof"
    assert kind(simple.logins.confirm, who, "a password that it never had") == "no-proof"
    who = session(simple)
    assert kind(simple.logins.step_up, who, None) == "no-proof", "a log-in that looked odd does not prove itself"
    totp = pyotp.TOTP(simple.second_factor.begin(who.name)[0])
    simple.second_factor.confirm(who.name, totp.at(clock.now), by=who)
    assert kind(simple.logins.confirm, who, None, "000000") == "invalid-credentials"
    clock.forward(minutes=5)
    simple.logins.confirm(who, None, totp.at(clock.now))


def test_without_a_provider_there_is_no_such_log_in(sqlite_database: Engine, tmp_path: Path) -> None:
    access = access_for(sqlite_database, tmp_path)
    with pytest.raises(Exception, match="no identity provider is configured"):
        access.oidc  # noqa: B018
