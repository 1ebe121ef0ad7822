"""Log-in with a company's own identity provider: OpenID Connect, authorisation code with PKCE.

An identity is known by issuer and subject, never by a name: who logs in for the first time gets an account of their
own, also where a local account has the same name. What has to be remembered between leaving for the provider and coming
back (state, nonce, the PKCE verifier) travels in an encrypted cookie of ten minutes.
"""

from __future__ import annotations

import hmac
import json
import math
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cryptography.fernet import Fernet, InvalidToken
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError as DatabaseIntegrityError
from sqlalchemy.orm import Session

from stock_pipeline.access.accounts import NAME, RESERVED, Account, key_of
from stock_pipeline.access.logins import LogIn
from stock_pipeline.access.principal import AccessError, Origin, Principal
from stock_pipeline.access.secret_text import LONGEST, printable
from stock_pipeline.config.access import OidcSettings
from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline.observability.logging import get_logger
from stock_pipeline.storage.database import reading
from stock_pipeline.storage.database.tables.accounts import AccountRow

if TYPE_CHECKING:
    from stock_pipeline.access.facade import Access

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"]
"""Signatures with a key pair; none, and none by a shared secret."""

_LIFE = 600
_LEEWAY = 60
_TIMEOUT = 10.0
_FRESH = 3600.0
_AT_ONCE = 8
"""Codes that are exchanged at a time: a provider that is silent must not take every thread of the service."""

_LOOK_AGAIN = 10.0
"""Seconds after which the keys are fetched anew for one that is not known, and whatever could not be had is asked for
anew: neither a forger nor a provider that is down must make us a flood."""

_LARGEST = 1_000_000
_SECOND_FACTORS = frozenset({"mfa", "otp", "hwk", "swk", "fpt", "face", "sms"})
"""Values of ``amr`` (RFC 8176) that say that the provider has asked for a second factor."""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class OidcStart:
    """Where to send the browser, and what it must bring back.

    Attributes
    ----------
    address
        Of the provider.
    cookie
        For a cookie with HttpOnly and SameSite=Lax of ten minutes.
    """

    address: str
    cookie: str = field(repr=False)


class Oidc:
    """Log-in with one identity provider."""

    def __init__(self, access: Access, settings: OidcSettings) -> None:
        self._access, self._settings = access, settings
        self._metadata, self._jwks = _Document(), _Document()
        self._exchanges = threading.BoundedSemaphore(_AT_ONCE)
        self._silent = -math.inf
        """When a code could not be exchanged last because the provider said nothing."""

    def begin(self, redirect_uri: str, after: str = "/") -> OidcStart:
        """Begin a log-in.

        Parameters
        ----------
        redirect_uri
            Address of this service to which the provider sends the browser back.
        after
            Page to go on to; the caller has made sure that it is one of this service.

        Raises
        ------
        AccessError
            503 ``identity-provider-unavailable``.
        """
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        with self._client(redirect_uri) as client:
            address, _ = client.create_authorization_url(
                self._known_metadata()["authorization_endpoint"], state=state, code_verifier=verifier, nonce=nonce
            )
        after = after if len(after) <= 1000 else "/"  # a cookie has little room
        kept = json.dumps({"state": state, "nonce": nonce, "verifier": verifier, "after": after})
        cookie = self._cipher.encrypt_at_time(kept.encode(), int(self._access.clock().timestamp()))
        return OidcStart(address, cookie.decode())

    def finish(
        self, answer: Mapping[str, str], cookie: str, redirect_uri: str, origin: Origin | None = None
    ) -> tuple[LogIn, str]:
        """Finish a log-in with what the provider sent along.

        Parameters
        ----------
        answer
            Query of the request with which the browser came back.
        cookie
            Of `begin`.
        redirect_uri
            The same as at the beginning.
        origin
            From where.

        Returns
        -------
        tuple
            A console session, and the page to go on to.

        Raises
        ------
        AccessError
            401 ``invalid-credentials`` for whatever does not fit together, 401 ``account-disabled``,
            503 ``identity-provider-unavailable``.
        """
        origin = origin or Origin()
        try:
            kept = self._kept(cookie)
            claims = self._claims(answer, kept, redirect_uri)
        except AccessError as error:
            self._refused(origin, error)
            raise
        account = self._account(claims, origin)
        if account.disabled:
            disabled = AccessError(401, "account-disabled", "the account is disabled", fix="ask an administrator")
            self._refused(origin, disabled)
            raise disabled
        proved = not _SECOND_FACTORS.isdisjoint(str(value) for value in claims.get("amr") or ())
        return self._access.logins.enter(account, "console", origin, second_factor=proved), kept["after"]

    # ---------------------------------------------------------------- the provider's answer
    def _kept(self, cookie: str) -> dict[str, str]:
        now = int(self._access.clock().timestamp())
        try:
            if len(cookie) > LONGEST:
                raise InvalidToken
            kept: dict[str, str] = json.loads(self._cipher.decrypt_at_time(cookie.encode(), _LIFE, now))
        except (InvalidToken, UnicodeEncodeError) as error:
            raise _wrong("the log-in was not begun in this browser, or too long ago") from error
        return kept

    def _claims(self, answer: Mapping[str, str], kept: dict[str, str], redirect_uri: str) -> dict[str, Any]:
        """Claims of the ID token that the provider gives for the code, once all about it was checked."""
        given = answer.get("state", "").encode("utf-8", "backslashreplace")
        if not hmac.compare_digest(given, kept["state"].encode()):
            raise _wrong("the answer belongs to another log-in")
        if answer.get("iss", self._settings.issuer) != self._settings.issuer:
            raise _wrong("the answer is of another provider")
        if "error" in answer or not answer.get("code"):
            raise _wrong("the provider refused")
        token = self._exchange(answer["code"], kept["verifier"], redirect_uri)
        return self._verified(token, kept["nonce"])

    def _exchange(self, code: str, verifier: str, redirect_uri: str) -> dict[str, Any]:
        from authlib.integrations.base_client import OAuthError
        from requests import RequestException

        silent = time.monotonic() - self._silent < _LOOK_AGAIN
        if silent or not self._exchanges.acquire(blocking=False):
            raise _unavailable()
        try:
            with self._client(redirect_uri) as client:
                token: dict[str, Any] = client.fetch_token(
                    self._known_metadata()["token_endpoint"],
                    grant_type="authorization_code",
                    code=code,
                    code_verifier=verifier,
                    allow_redirects=False,
                )
        except OAuthError as error:
            raise _wrong("the provider did not accept the code") from error
        except (RequestException, ValueError) as error:
            self._silent = time.monotonic()
            raise _unavailable() from error
        finally:
            self._exchanges.release()
        return token

    def _verified(self, token: Mapping[str, Any], nonce: str) -> dict[str, Any]:
        from authlib.oidc.core import CodeIDToken
        from joserfc import jwt
        from joserfc.errors import JoseError

        settings, text = self._settings, token.get("id_token")
        if not isinstance(text, str):
            raise _wrong("the provider sent no ID token")
        try:
            for again in (False, True):
                keys = self._key_set(text, again=again)
                if keys is not None:
                    break
            if keys is None:
                raise _wrong("the ID token is signed with an unknown key")
            read = jwt.decode(text, keys, algorithms=ALGORITHMS)
            claims = CodeIDToken(
                read.claims,
                read.header,
                options={
                    "iss": {"essential": True, "value": settings.issuer},
                    "aud": {"essential": True, "value": settings.client_id},
                    "sub": {"essential": True},
                },
                params={
                    "nonce": nonce,
                    "client_id": settings.client_id,
                    "access_token": token.get("access_token"),
                },
            )
            claims.validate(now=int(self._access.clock().timestamp()), leeway=_LEEWAY)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise _wrong("the ID token is not valid") from error
        subject = claims["sub"]
        if not isinstance(subject, str) or not 1 <= len(subject) <= 255 or printable(subject) != subject:
            raise _wrong("the ID token names nobody")
        return dict(claims)

    def _key_set(self, text: str, *, again: bool) -> Any:
        """Keys of the provider, ``None`` where the one that signed is not among them (yet)."""
        from joserfc import jws
        from joserfc.jwk import KeySet

        document = self._known_jwks(again=again)
        kid = jws.extract_compact(text.encode()).headers().get("kid")
        listed = [key for key in document.get("keys", []) if key.get("use", "sig") == "sig" and key.get("kty") != "oct"]
        if kid is not None and kid not in {key.get("kid") for key in listed}:
            return None
        return KeySet.import_key_set({"keys": listed})

    # ---------------------------------------------------------------- accounts
    def _account(self, claims: Mapping[str, Any], origin: Origin) -> Account:
        access, identity = self._access, (self._settings.issuer, claims["sub"])
        for _ in range(5):
            found = self._find(identity)
            if found is not None:
                return access.accounts.by_id(found)
            name = self._free_name(claims)
            try:
                with Session(access.engine) as session, session.begin():
                    by, role = Principal(name, "anonymous"), self._settings.role
                    access.accounts.add(session, name, None, (role,), by, origin, oidc=identity)
            except DatabaseIntegrityError:
                continue  # somebody else took the name, or the same person came twice at once
        found = self._find(identity)
        if found is None:
            raise AccessError(409, "account-exists", "no free name was found for the account", fix="try again")
        return access.accounts.by_id(found)

    def _find(self, identity: tuple[str, str]) -> int | None:
        with Session(reading(self._access.engine)) as session:
            return session.scalar(
                select(AccountRow.id).where(
                    AccountRow.oidc_issuer == identity[0], AccountRow.oidc_subject == identity[1]
                )
            )

    def _free_name(self, claims: Mapping[str, Any]) -> str:
        """A name like the one that the provider knows, with a number where it is taken."""
        wanted = next(
            (str(claims[key]) for key in ("preferred_username", "email", "name") if claims.get(key)), "account"
        )
        name = re.sub(r"[^A-Za-z0-9._@-]+", "-", wanted).lstrip("._@-")[:56]
        if not NAME.fullmatch(name) or name.casefold() in RESERVED:
            name = "account"
        with Session(reading(self._access.engine)) as session:
            for number in range(1, 10_000):
                candidate = name if number == 1 else f"{name}-{number}"
                if session.scalar(select(AccountRow.id).where(AccountRow.name_key == key_of(candidate))) is None:
                    return candidate
        return f"{name[:40]}-{secrets.token_hex(6)}"

    # ---------------------------------------------------------------- talking to the provider
    def _client(self, redirect_uri: str) -> Any:
        try:
            from authlib.integrations.requests_client import OAuth2Session
        except ImportError as error:
            raise ConfigurationError(
                "log-in with an identity provider needs a package that is not installed",
                value="authlib",
                fix="pip install 'stock-pipeline[oidc]'",
            ) from error
        return OAuth2Session(
            self._settings.client_id,
            self._settings.client_secret,
            scope="openid profile email",
            redirect_uri=redirect_uri,
            code_challenge_method="S256",
            default_timeout=_TIMEOUT,
        )

    def _known_metadata(self) -> dict[str, Any]:
        return self._metadata.get(self._fetch_metadata, _FRESH)

    def _fetch_metadata(self) -> dict[str, Any]:
        issuer = self._settings.issuer
        document = _get(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if document.get("issuer") != issuer:
            raise ConfigurationError(
                "the identity provider calls itself by another address than access.oidc.issuer",
                value=str(document.get("issuer"))[:200],
                allowed=issuer,
            )
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            _check_address(document.get(name))
        return document

    def _known_jwks(self, *, again: bool) -> dict[str, Any]:
        address = self._known_metadata()["jwks_uri"]
        # who comes so far has logged in at the provider: worth waiting for
        return self._jwks.get(lambda: _get(address), _LOOK_AGAIN if again else _FRESH, wait=_TIMEOUT)

    @property
    def _cipher(self) -> Fernet:
        return Fernet(self._access.key_files.obtain("oidc.key", Fernet.generate_key))

    def _refused(self, origin: Origin, error: AccessError) -> None:
        self._access.audit.record(
            "session.log_in",
            actor="anonymous",
            origin=origin,
            object=("identity_provider", self._settings.issuer[:200]),
            result="refused",
            detail={"reason": error.what},
        )


class _Document:
    """A document of the provider. One thread at a time fetches it, and while it cannot be had the last one holds."""

    def __init__(self) -> None:
        self._fetching = threading.Lock()
        self._last: tuple[float, dict[str, Any]] | None = None
        self._failed = -math.inf

    def get(self, fetch: Callable[[], dict[str, Any]], fresh: float, *, wait: float = 0.0) -> dict[str, Any]:
        """The document.

        Parameters
        ----------
        fetch
            Fetches it.
        fresh
            Seconds for which it holds.
        wait
            Seconds to wait for another thread that fetches it, instead of being content with the last one: only for
            those who have proved more than that they can ask.

        Raises
        ------
        AccessError
            503 ``identity-provider-unavailable``: there is none, and it cannot be had, or another thread tries.
        """
        last = self._last
        if last is not None and time.monotonic() - last[0] <= fresh:
            return last[1]
        if time.monotonic() - self._failed < _LOOK_AGAIN or not self._fetching.acquire(timeout=wait):
            return self._without()
        try:
            if self._last is last and time.monotonic() - self._failed >= _LOOK_AGAIN:
                self._last = time.monotonic(), fetch()
        except AccessError:
            self._failed = time.monotonic()
        except Exception:
            self._failed = time.monotonic()
            raise
        finally:
            self._fetching.release()
        return self._without()

    def _without(self) -> dict[str, Any]:
        if self._last is None:
            raise _unavailable()
        return self._last[1]


def _get(address: str) -> dict[str, Any]:
    """A JSON document of the provider."""
    import httpx

    _check_address(address)
    try:
        answer = httpx.get(address, timeout=_TIMEOUT, follow_redirects=False)
        answer.raise_for_status()
        if len(answer.content) > _LARGEST:
            raise ValueError("too large")
        document = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        _log.warning("the identity provider does not answer", address=address, error=type(error).__name__)
        raise _unavailable() from error
    if not isinstance(document, dict):
        raise _unavailable()
    return document


def _check_address(address: Any) -> None:
    """Refuse to speak to a provider in clear, except on this machine."""
    parts = urlsplit(address) if isinstance(address, str) else urlsplit("")
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if not (parts.scheme == "https" or (parts.scheme == "http" and local)):
        raise ConfigurationError(
            "an address of the identity provider is not safe", value=str(address)[:200], allowed="https://..."
        )


def _wrong(what: str) -> AccessError:
    return AccessError(401, "invalid-credentials", f"the log-in did not succeed: {what}", fix="begin again")


def _unavailable() -> AccessError:
    return AccessError(
        503, "identity-provider-unavailable", "the identity provider does not answer", fix="try again later"
    )
