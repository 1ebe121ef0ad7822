"""What routes are given: who is asking, checked against the permission that they declare, and the service's parts.

Each route declares one of `require`, `public` or `authenticated_inside`; the OpenAPI document shows it as
``x-permission``. Credentials are looked for here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection

from stock_pipeline.access.gate import Gate
from stock_pipeline.access.limits import RouteClass
from stock_pipeline.access.principal import AccessError, Principal
from stock_pipeline.api import cookies
from stock_pipeline.api.client import origin
from stock_pipeline.api.problems import ProblemError
from stock_pipeline.api.service import Service
from stock_pipeline.storage.publication import PublicationCache

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""

PUBLIC = "public"

Proof = TypeVar("Proof")


async def authenticate(request: HTTPConnection) -> Principal:
    """Find out who is asking, from a token, an API key or the console's cookie.

    What the gate has in memory is answered at once; for what it has not, a thread asks the database.

    A cookie alone does not let a request change anything: a browser sends it along whatever page asked. Such a request
    carries the session's CSRF token as well, see `check_csrf`.

    Raises
    ------
    AccessError
        401 without a valid proof; 429 after too many invalid ones from the same address; 503 while the database does
        not answer.
    """
    bearer, key, cookie = _credentials(request)
    gate = service(request).access.gate
    if bearer is not None and key is not None:
        raise AccessError(401, "token-invalid", "two proofs were sent", fix="send Authorization or X-API-Key")
    if bearer is not None:
        scheme, _, token = bearer.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise AccessError(401, "token-invalid", "the header is not of the form `Authorization: Bearer <token>`")
        return await _known(gate.known_bearer, gate.authenticate, token.strip(), origin(request))
    if key is not None:
        return await _known(gate.known_bearer, gate.authenticate, key, origin(request))
    if cookie is not None:
        return await _known(gate.known_cookie, gate.authenticate_cookie, cookie, origin(request))
    someone = gate.known_anonymous()
    if someone is None and gate.admits_anonymous:
        someone = await run_in_threadpool(gate.anonymous)
    if someone is None:
        raise AccessError(
            401, "token-missing", "this needs a log-in", fix="send `Authorization: Bearer <token>` or `X-API-Key`"
        )
    return someone


async def still_valid(gate: Gate, who: Principal) -> Principal:
    """The same principal with what it may do now; see `Gate.still_valid`."""
    return await _known(gate.known_valid, gate.still_valid, who)


async def _known(
    known: Callable[[Proof], Principal | None], find_out: Callable[..., Principal], proof: Proof, *more: Any
) -> Principal:
    found = known(proof)
    return await run_in_threadpool(find_out, proof, *more) if found is None else found


async def authorise(request: Request, permission: str, *, while_step_up: bool = False) -> Principal:
    """Let a request pass only with a permission; who asks is left in ``request.state.principal``.

    Parameters
    ----------
    request
        The request.
    permission
        What the route needs.
    while_step_up
        Whether a session that must prove itself again may come here: it can do so nowhere else.

    Raises
    ------
    AccessError
        401, 403, 429 or 503.
    """
    # whoever looked for a ready answer has asked before the route does: one request is judged and counted once
    refused: Exception | None = getattr(request.state, "refused", None)
    if refused is not None:
        raise refused
    known: Principal | None = getattr(request.state, "principal", None)
    if known is not None and known.may(permission):
        return known
    method = request.scope["method"]
    who = await authenticate(request)
    access = service(request).access
    klass: RouteClass = "read" if method in SAFE else "write"
    if access.settings.redis is None:
        access.limits.check(who, origin(request), klass)
    else:  # Redis answers over the network: nobody else waits meanwhile
        await run_in_threadpool(access.limits.check, who, origin(request), klass)
    if who.kind == "console" and method not in SAFE:
        await check_csrf(request, who)
    if not who.may(permission):
        raise await _refusal(request, who, permission)
    if who.step_up and not while_step_up and method not in SAFE:
        raise _step_up()
    request.state.principal = who
    return who


async def check_csrf(request: Request, who: Principal) -> None:
    """Refuse a changing request of a browser unless it proves that a page of this service made it.

    Raises
    ------
    AccessError
        403 without the session's token in ``X-CSRF-Token``, or the field ``csrf_token`` of a form.
    """
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise AccessError(403, "csrf", "another site asked for this")
    token = request.headers.get("x-csrf-token")
    if token is None and _is_form(request):
        field = (await request.form()).get("csrf_token")
        token = field if isinstance(field, str) else None
    service(request).access.gate.check_csrf(who, token or "")


def require(permission: str, *, while_step_up: bool = False) -> Callable[..., Any]:
    """Return a dependency that lets a request pass only with a permission; see `authorise`."""

    async def check(request: Request) -> None:
        await authorise(request, permission, while_step_up=while_step_up)

    check.permission = permission  # type: ignore[attr-defined]
    return check


async def public() -> None:
    """Declare that a route is for everybody; a dependency like `require`."""


public.permission = PUBLIC  # type: ignore[attr-defined]


def authenticated_inside(permission: str) -> Callable[..., Any]:
    """Return a dependency that declares a permission which the route checks itself, as WebSockets do."""

    async def declared() -> None:
        return None

    declared.permission = permission  # type: ignore[attr-defined]
    declared.inside = True  # type: ignore[attr-defined]
    return declared


def principal(request: Request) -> Principal:
    """Return who is asking; only in routes that declare `require`."""
    who: Principal = request.state.principal
    return who


def service(request: HTTPConnection) -> Service:
    """Return what the routes work with."""
    parts: Service = request.app.state.service
    return parts


def publications(request: Request) -> PublicationCache:
    """Return the cache of publications; called by routes, because a dependency costs more than the answer."""
    cache: PublicationCache = request.app.state.publications
    return cache


def no_repeats_but(*lists: str) -> Callable[..., Any]:
    """Return a dependency that refuses parameters given twice, except these: which one counts would be a guess."""

    async def check(request: Request) -> None:
        names = [name for name, _ in request.query_params.multi_items()]
        for name in dict.fromkeys(names):
            if name not in lists and names.count(name) > 1:
                errors = [{"parameter": name, "message": "given more than once", "value": None}]
                raise ProblemError(422, "invalid-parameters", f"{name}: given more than once", errors=errors)

    return check


no_repeats = no_repeats_but("symbol")
"""The dependency of most routes."""


def _credentials(request: HTTPConnection) -> tuple[str | None, str | None, str | None]:
    bearer = key = None
    cookie = False
    for name, value in request.scope["headers"]:
        if name == b"authorization":
            if bearer is not None:
                raise AccessError(401, "token-invalid", "the header Authorization was sent twice")
            bearer = value.decode("latin-1")
        elif name == b"x-api-key":
            if key is not None:
                raise AccessError(401, "token-invalid", "the header X-API-Key was sent twice")
            key = value.decode("latin-1")
        elif name == b"cookie":
            cookie = True
    return bearer, key, cookies.read(request) if cookie else None


def _is_form(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind in ("application/x-www-form-urlencoded", "multipart/form-data")


async def _refusal(request: Request, who: Principal, permission: str) -> AccessError:
    """Why somebody may not: nobody is logged in, the session holds back what the account has, or it has not got it."""
    if who.kind == "anonymous":
        return AccessError(401, "token-missing", f"without a log-in there is no permission {permission}")
    access = service(request).access
    if who.kind in ("token", "console") and permission in await run_in_threadpool(
        access.roles.permissions_of, who.roles
    ):
        if who.step_up:
            return _step_up()
        return AccessError(
            403,
            "second-factor-required",
            f"the permission {permission} needs a log-in with a second factor",
            fix="POST /api/auth/second-factor to set one up, then log in with its code",
        )
    await run_in_threadpool(access.watch.refused, who, permission, origin(request))
    return AccessError(403, "forbidden", f"{who.name} lacks the permission {permission}")


def _step_up() -> AccessError:
    return AccessError(
        403,
        "step-up-required",
        "this session must prove itself again before it may change anything",
        fix="POST /api/auth/step-up with the password, or log in again",
    )
