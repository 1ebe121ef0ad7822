"""Access tokens: JWTs signed with Ed25519, the keys that sign them, and their rotation."""

from __future__ import annotations

import json
import secrets
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from jwt.algorithms import OKPAlgorithm

from stock_pipeline.access.clock import Clock
from stock_pipeline.access.key_files import KeyFolder
from stock_pipeline.access.principal import AccessError

ALGORITHM = "EdDSA"
TYPE = "at+jwt"
AUDIENCE = "stock-pipeline-api"
ISSUER = "stock-pipeline"
LEEWAY = 60
"""Seconds by which clocks of two machines may differ before a token comes from the future."""

_PRIVATE, _RETIRED = ".private.pem", ".retired.json"
_REQUIRED = ["iss", "aud", "sub", "sid", "iat", "nbf", "exp", "jti"]


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token that was verified says.

    Attributes
    ----------
    account_id, session_id
        Whose it is, and from which log-in.
    expires_at
        Seconds since the epoch.
    key_id
        Key that signed it.
    """

    account_id: int
    session_id: str
    expires_at: float
    key_id: str


class Tokens:
    """Signs and verifies access tokens.

    Parameters
    ----------
    keys
        Folder of the signing keys.
    life
        How long a token is good.
    issuer
        Who signs.
    clock
        The present instant.
    """

    def __init__(self, keys: KeyFolder, life: timedelta, *, issuer: str, clock: Clock) -> None:
        self._keys, self._life, self._issuer, self._clock = keys, life, issuer, clock
        self._lock = threading.Lock()
        self._signing: tuple[str, Ed25519PrivateKey] | None = None
        self._public: dict[str, Ed25519PublicKey] = {}
        self._read: list[str] = []

    @property
    def kid(self) -> str:
        """Id of the key that signs at present."""
        return self._signer()[0]

    def issue(self, account_id: int, session_id: str) -> str:
        """Sign a token for a session."""
        kid, private = self._signer()
        now = int(self._clock().timestamp())
        claims = {
            "iss": self._issuer,
            "aud": AUDIENCE,
            "sub": str(account_id),
            "sid": session_id,
            "iat": now,
            "nbf": now,
            "exp": now + int(self._life.total_seconds()),
            "jti": secrets.token_urlsafe(12),
        }
        return jwt.encode(claims, private, algorithm=ALGORITHM, headers={"kid": kid, "typ": TYPE})

    def verify(self, token: str) -> Claims:
        """Verify signature, kind, issuer, audience and times of a token.

        Raises
        ------
        AccessError
            401 ``token-expired`` where nothing but its time is over, else 401 ``token-invalid``.
        """
        try:
            header = jwt.get_unverified_header(token)
            kid = header.get("kid")
            if header.get("alg") != ALGORITHM or header.get("typ") != TYPE or not isinstance(kid, str):
                raise jwt.InvalidTokenError
            claims = jwt.decode(
                token,
                self._public_key(kid),
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=self._issuer,
                options={"require": _REQUIRED, "verify_exp": False, "verify_iat": False, "verify_nbf": False},
            )
            read = Claims(_number(claims["sub"]), _text(claims["sid"]), _instant(claims["exp"]), kid)
            earliest = max(_instant(claims["iat"]), _instant(claims["nbf"]))
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise invalid() from error
        now = self._clock().timestamp()
        if earliest > now + LEEWAY:
            raise invalid()
        if now >= read.expires_at:
            raise AccessError(
                401, "token-expired", "the access token has run out", fix="get a new one with the refresh token"
            )
        return read

    def jwks(self) -> dict[str, Any]:
        """Public keys with which others can verify tokens (RFC 7517), those that were retired included."""
        self._signer()
        self._load()
        return {"keys": [_jwk(kid, key) for kid, key in sorted(self._public.items())]}

    def rotate(self, *, drop_old: bool = False) -> str:
        """Sign with a new key from now on.

        Tokens signed by the one before stay good until they run out, unless `drop_old`: for a key that others know.

        Returns
        -------
        str
            Id of the new key.
        """
        with self._keys.lock():
            now = self._clock()
            for name in self._keys.names(f"*{_PRIVATE}"):
                if not drop_old:
                    self._retire(name, now)
                self._keys.remove(name)
            for name in self._keys.names(f"*{_RETIRED}"):
                if drop_old or datetime.fromisoformat(json.loads(self._keys.read(name))["until"]) <= now:
                    self._keys.remove(name)
            self._make()
        self._load()
        return self.kid

    def refresh(self) -> None:
        """Read the key files again where another process has changed them."""
        if self._signing is not None and self._files() != self._read:
            self._load()

    def _files(self) -> list[str]:
        """Names of the key files; a name never gets another content."""
        return self._keys.names(f"*{_PRIVATE}") + self._keys.names(f"*{_RETIRED}")

    def _retire(self, name: str, now: datetime) -> None:
        public = _private(self._keys.read(name)).public_key()
        until = now + self._life + timedelta(seconds=LEEWAY)
        kid = name.removesuffix(_PRIVATE)
        content = {"key": _jwk(kid, public), "until": until.isoformat()}
        self._keys.write(kid + _RETIRED, json.dumps(content).encode())

    def _make(self) -> None:
        private = Ed25519PrivateKey.generate()
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self._keys.write(secrets.token_hex(8) + _PRIVATE, pem)

    def _signer(self) -> tuple[str, Ed25519PrivateKey]:
        return self._signing or self._load()

    def _public_key(self, kid: str) -> Ed25519PublicKey:
        known = self._public.get(kid)
        if known is None and kid.isalnum() and self._keys.names(f"{kid}.*"):
            self._load()
            known = self._public.get(kid)
        if known is None:
            raise jwt.InvalidKeyError
        return known

    def _load(self) -> tuple[str, Ed25519PrivateKey]:
        with self._lock, self._keys.lock():
            if not self._keys.names(f"*{_PRIVATE}"):
                self._make()
            self._read = self._files()
            now = self._clock()
            public: dict[str, Ed25519PublicKey] = {}
            for name in self._keys.names(f"*{_RETIRED}"):
                content = json.loads(self._keys.read(name))
                if datetime.fromisoformat(content["until"]) > now:
                    public[name.removesuffix(_RETIRED)] = _public(content["key"])
            for name in self._keys.names(f"*{_PRIVATE}"):
                signing = name.removesuffix(_PRIVATE), _private(self._keys.read(name))
                public[signing[0]] = signing[1].public_key()
            self._public, self._signing = public, signing
        return signing


def invalid() -> AccessError:
    """Refuse a token without saying what is wrong with it: that would help who forges one."""
    return AccessError(401, "token-invalid", "the token is not valid", fix="log in again")


def _private(pem: bytes) -> Ed25519PrivateKey:
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise TypeError("a signing key is not an Ed25519 key")
    return key


def _public(jwk: dict[str, Any]) -> Ed25519PublicKey:
    key = OKPAlgorithm.from_jwk(jwk)
    if not isinstance(key, Ed25519PublicKey):
        raise TypeError("a retired key is not an Ed25519 public key")
    return key


def _jwk(kid: str, key: Ed25519PublicKey) -> dict[str, Any]:
    return {**OKPAlgorithm.to_jwk(key, as_dict=True), "kid": kid, "use": "sig", "alg": ALGORITHM}


def _number(value: Any) -> int:
    if not isinstance(value, str) or not value.isascii() or not value.isdigit() or len(value) > 18:
        raise ValueError("not an account")
    return int(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 64:
        raise ValueError("not a session")
    return value


def _instant(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("not an instant")
    return float(value)
