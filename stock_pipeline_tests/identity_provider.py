"""A small identity provider (OpenID Connect) on a free port: real HTTP, real signatures, and faults on demand."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from jwt.algorithms import RSAAlgorithm

CLIENT, SECRET = "stock-pipeline", "the client's secret"


class IdentityProvider:
    """What the provider knows, and what it does wrong.

    Attributes
    ----------
    address
        Its issuer.
    person
        Claims of whoever logs in.
    tokens
        Changes the claims of an ID token before it is signed.
    sign
        Signs an ID token; replaced by tests that forge one.
    metadata
        Changes of the discovery document.
    broken
        Paths that answer 500.
    """

    def __init__(self) -> None:
        self.address = ""
        self.person: dict[str, Any] = {"sub": "u-1", "preferred_username": "ana"}
        self.tokens: Callable[[dict[str, Any]], dict[str, Any]] = lambda claims: claims
        self.sign: Callable[[dict[str, Any]], str] = self.signed
        self.metadata: dict[str, Any] = {}
        self.broken: set[str] = set()
        self.asked: list[str] = []
        self.now: Callable[[], float] = time.time
        self._codes: dict[str, dict[str, str]] = {}
        self.key, self.kid = _usual_key(), "usual"

    def new_key(self) -> None:
        """Sign with another key from now on."""
        self.key, self.kid = generate_private_key(65537, 2048), secrets.token_hex(4)

    def signed(self, claims: dict[str, Any]) -> str:
        """An ID token as it should be."""
        return jwt.encode(claims, self.key, algorithm="RS256", headers={"kid": self.kid})

    def authorise(self, address: str) -> dict[str, str]:
        """Log the person in, who came with an address of `Oidc.begin`; gives the query of the way back."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        assert "openid" in asked["scope"].split()
        code = secrets.token_urlsafe(16)
        self._codes[code] = asked
        return {"code": code, "state": asked["state"]}

    def page(self, query: str) -> str:
        """What somebody sees who comes to log in: one link, which leads back."""
        asked = parse_qs(query)
        back = f"{asked['redirect_uri'][0]}?{urlencode(self.authorise(f'{self.address}/authorise?{query}'))}"
        name = html.escape(self.person["preferred_username"])
        head = '<!doctype html><html lang="en"><title>Company</title><link rel="icon" href="data:,">'
        return f'{head}<a href="{html.escape(back)}">Go on as {name}</a>'

    # ---------------------------------------------------------------- what it answers
    def discovery(self) -> dict[str, Any]:
        """The discovery document."""
        return {
            "issuer": self.address,
            "authorization_endpoint": f"{self.address}/authorise",
            "token_endpoint": f"{self.address}/token",
            "jwks_uri": f"{self.address}/keys",
            **self.metadata,
        }

    def keys(self) -> dict[str, Any]:
        """The public key."""
        return {"keys": [{**RSAAlgorithm.to_jwk(self.key.public_key(), as_dict=True), "kid": self.kid, "use": "sig"}]}

    def exchange(self, form: dict[str, str], authorisation: str) -> tuple[int, dict[str, Any]]:
        """Tokens for a code, once, for the client that proves that it began."""
        expected = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        asked = self._codes.pop(form.get("code", ""), None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        right = (
            asked is not None
            and authorisation == f"Basic {expected}"
            and asked["redirect_uri"] == form.get("redirect_uri")
            and asked["code_challenge"] == challenge.rstrip(b"=").decode()
        )
        if not right or asked is None:
            return 400, {"error": "invalid_grant"}
        now = int(self.now())
        claims = {
            "iss": self.address, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": asked["nonce"], **self.person,
        }  # fmt: skip
        return 200, {
            "access_token": secrets.token_urlsafe(16),
            "token_type": "Bearer",
            "id_token": self.sign(self.tokens(claims)),
        }


@cache
def _usual_key() -> RSAPrivateKey:
    """The key of every provider of this process: to make one takes long."""
    return generate_private_key(65537, 2048)


@contextmanager
def identity_provider() -> Iterator[IdentityProvider]:
    """Run a provider for the length of a ``with`` block."""
    provider = IdentityProvider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, query = urlsplit(self.path).path, urlsplit(self.path).query
            if path == "/authorise":
                self._send(200, "text/html; charset=utf-8", provider.page(query).encode())
                return
            answers = {"/.well-known/openid-configuration": provider.discovery, "/keys": provider.keys}
            self._answer(*((200, answers[path]()) if path in answers else (404, {})))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = {name: values[0] for name, values in parse_qs(body).items()}
            self._answer(*provider.exchange(form, self.headers.get("Authorization", "")))

        def _answer(self, status: int, content: dict[str, Any]) -> None:
            path = urlsplit(self.path).path
            provider.asked.append(path)
            body = b"<html>broken</html>" if path in provider.broken else json.dumps(content).encode()
            self._send(500 if path in provider.broken else status, "application/json", body)

        def _send(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128  # five, as usual, are fewer than a browser and a service open at once

    server = Server(("127.0.0.1", 0), Handler)
    provider.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
