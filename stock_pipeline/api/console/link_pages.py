"""What one-time links open: the first administrator, an invitation, a new password; and open registration.

The secret of a link stands behind the # of its address, which no server sees; a script puts it into the form.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from stock_pipeline.api.console.forms import REFUSALS, Fields, apart, go, model, refused, secret, text
from stock_pipeline.api.console.login_pages import own_page_only
from stock_pipeline.api.console.notices import Notice
from stock_pipeline.api.console.rendering import page
from stock_pipeline.api.dependencies import public, service
from stock_pipeline.api.limits import log_in_limit, password_turn
from stock_pipeline.api.problems import ProblemError
from stock_pipeline.api.routes import auth
from stock_pipeline.api.schemas_accounts import PasswordByLink, Registration, SetupRequest

router = APIRouter(include_in_schema=False)

_OPEN = [Depends(public)]
_SENT = [Depends(public), Depends(log_in_limit), Depends(password_turn)]

_FORMS: dict[str, dict[str, Any]] = {
    "setup": {
        "title": "Set up the first administrator",
        "lead": "This service has no accounts yet. Choose the name and password of the one who may do everything.",
        "button": "Make the account", "needs_link": True, "needs_name": True,
    },
    "invitation": {
        "title": "Accept the invitation",
        "lead": "Choose a name and a password.",
        "button": "Make the account", "needs_link": True, "needs_name": True,
    },
    "reset": {
        "title": "Set a new password",
        "lead": "All sessions of the account are ended, and the keys of its programs unless the link keeps them.",
        "button": "Set the password", "needs_link": True, "needs_name": False,
    },
    "register": {
        "title": "Register",
        "lead": "Choose a name and a password.",
        "button": "Make the account", "needs_link": False, "needs_name": True,
    },
}  # fmt: skip


@router.get("/setup", dependencies=_OPEN)
def setup_page(request: Request) -> Response:
    """Ask for the first administrator."""
    return _page(request, "setup")


@router.get("/invitation", dependencies=_OPEN)
def invitation_page(request: Request) -> Response:
    """Ask the invited for name and password."""
    return _page(request, "invitation")


@router.get("/reset", dependencies=_OPEN)
def reset_page(request: Request) -> Response:
    """Ask for a new password."""
    return _page(request, "reset")


@router.get("/register", dependencies=_OPEN)
def register_page(request: Request) -> Response:
    """Ask for name and password, where registration is open."""
    if service(request).settings.access.registration != "open":
        raise ProblemError(404, "registration-closed", "accounts are made by an administrator here")
    return _page(request, "register")


@router.post("/setup", dependencies=_SENT)
async def set_up(request: Request, form: Fields) -> Response:
    """Make the first administrator."""
    return await _send(request, "setup", form)


@router.post("/invitation", dependencies=_SENT)
async def accept(request: Request, form: Fields) -> Response:
    """Make the account of an invitation."""
    return await _send(request, "invitation", form)


@router.post("/reset", dependencies=_SENT)
async def reset(request: Request, form: Fields) -> Response:
    """Set a password by a link."""
    return await _send(request, "reset", form)


@router.post("/register", dependencies=_SENT)
async def register(request: Request, form: Fields) -> Response:
    """Make an account of one's own."""
    return await _send(request, "register", form)


async def _send(request: Request, purpose: str, form: Fields) -> Response:
    own_page_only(request)
    name, link, password = text(form, "name"), text(form, "link"), secret(form, "password")
    if password != secret(form, "again"):
        return await apart(_page, request, purpose, name, [Notice("The two passwords are not the same.", "bad")], 422)
    try:
        if purpose == "setup":
            await apart(auth.set_up, request, model(SetupRequest, link=link, name=name, password=password))
        elif purpose == "reset":
            done = await apart(auth.reset_password, request, model(PasswordByLink, link=link, password=password))
            return go("/login", done="password-set-keys" if done.keys_revoked else "password-set")
        else:
            wanted = model(Registration, name=name, password=password, invitation=link or None)
            await apart(auth.register, request, wanted)
    except REFUSALS as error:
        return await refused(error, _page, request, purpose, name)
    return go("/login", done="account-ready")


def _page(
    request: Request, purpose: str, name: str = "", notices: list[Notice] | None = None, status: int = 200
) -> Response:
    settings = service(request).settings.access.passwords
    words = dict(_FORMS[purpose])
    return page(
        request,
        "account/link.html",
        title=words.pop("title"),
        notices=notices or [],
        status=status,
        purpose=purpose,
        name=name,
        least=settings.min_length,
        **words,
    )
