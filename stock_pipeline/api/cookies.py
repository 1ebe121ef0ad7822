"""The cookies of browsers: that of a session, and that of the way to an identity provider and back."""

from __future__ import annotations

from fastapi import Response
from starlette.requests import HTTPConnection

from stock_pipeline.config import Settings

SESSION, JOURNEY = "stock_pipeline_session", "stock_pipeline_journey"
"""Names of the cookie of a session, and of the one for the way to an identity provider and back."""

_MINUTES = 10
_HOST_ONLY = "__Host-"
"""Browsers take a cookie of this prefix only over HTTPS, for one host and the whole of it."""


def secure(settings: Settings) -> bool:
    """Whether cookies go over HTTPS only: as configured, else in production."""
    wanted = settings.access.secure_cookies
    return settings.environment == "prod" if wanted is None else wanted


def name(settings: Settings, kind: str = SESSION) -> str:
    """Name of a cookie."""
    return (_HOST_ONLY if secure(settings) else "") + kind


def read(request: HTTPConnection) -> str | None:
    """Return the secret of the session cookie, if one was sent."""
    return request.cookies.get(request.app.state.cookie_name)


def set_session(response: Response, settings: Settings, secret: str) -> None:
    """Give the browser its session; the browser forgets it when it closes, the server when it has been idle."""
    response.set_cookie(
        name(settings), secret, path="/", secure=secure(settings), httponly=True, samesite="lax"
    )  # lax: a link from elsewhere opens the console logged in, while forms of foreign pages carry no cookie


def clear_session(response: Response, settings: Settings) -> None:
    """Take the session from the browser."""
    response.delete_cookie(name(settings), path="/", secure=secure(settings), httponly=True, samesite="lax")


def set_journey(response: Response, settings: Settings, secret: str) -> None:
    """Let the browser carry what has to be known when it comes back from an identity provider."""
    response.set_cookie(
        name(settings, JOURNEY),
        secret,
        max_age=_MINUTES * 60,
        path="/",
        secure=secure(settings),
        httponly=True,
        samesite="lax",
    )


def clear_journey(response: Response, settings: Settings) -> None:
    """Take that from the browser."""
    response.delete_cookie(name(settings, JOURNEY), path="/", secure=secure(settings), httponly=True, samesite="lax")
