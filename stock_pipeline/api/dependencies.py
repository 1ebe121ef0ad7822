"""What routes are given: the publication cache, and who is asking.

Accounts do not exist yet: everybody is the anonymous reader. Each route already names the permission that it needs, so
that access control is added here, in `authorise`, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Request

from stock_pipeline.access.principal import Principal
from stock_pipeline.api.problems import ProblemError
from stock_pipeline.api.service import Service
from stock_pipeline.storage.publication import PublicationCache

ANONYMOUS = Principal("anonymous", "anonymous", permissions=frozenset({"predictions:read"}))

Authenticate = Callable[[Request], Principal]
"""Finds out who is asking; raises `ProblemError` 401 where that cannot be."""


def anonymous(request: Request) -> Principal:
    """Everybody is the anonymous reader."""
    return ANONYMOUS


def authorise(request: Request, permission: str) -> None:
    """Let a request pass only with a permission; who asks is left in ``request.state.principal``."""
    authenticate: Authenticate = request.app.state.authenticate
    who = authenticate(request)
    if not who.may(permission):
        raise ProblemError(403, "forbidden", f"{who.name} lacks the permission {permission}")
    request.state.principal = who


def require(permission: str) -> Callable[..., object]:
    """Return a dependency that calls `authorise`."""

    async def check(request: Request) -> None:
        authorise(request, permission)

    return check


def service(request: Request) -> Service:
    """Return what the routes work with."""
    parts: Service = request.app.state.service
    return parts


def publications(request: Request) -> PublicationCache:
    """Return the cache of publications; called by routes, because a dependency costs more than the answer."""
    cache: PublicationCache = request.app.state.publications
    return cache


async def no_repeats(request: Request) -> None:
    """Refuse a query parameter that is given twice, except ``symbol``: which one counts would be a guess."""
    names = [name for name, _ in request.query_params.multi_items()]
    for name in dict.fromkeys(names):
        if name != "symbol" and names.count(name) > 1:
            errors = [{"parameter": name, "message": "given more than once", "value": None}]
            raise ProblemError(422, "invalid-parameters", f"{name}: given more than once", errors=errors)
