"""One's own account: password, sessions, keys of programs, the second factor, and the proof that it is still you."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from starlette.datastructures import FormData

from stock_pipeline.access.permissions import PERMISSIONS
from stock_pipeline.api.console.forms import (
    REFUSALS,
    Fields,
    apart,
    go,
    local_path,
    model,
    refusal,
    refused,
    secret,
    status_of,
    text,
    texts,
)
from stock_pipeline.api.console.notices import Notice
from stock_pipeline.api.console.rendering import page
from stock_pipeline.api.dependencies import principal, require, service
from stock_pipeline.api.routes import account, auth
from stock_pipeline.api.schemas_accounts import (
    KeyRequest,
    PasswordChange,
    Proof,
    SecondFactorCode,
)
from stock_pipeline.api.schemas_admin import NoQuery

router = APIRouter(include_in_schema=False)

_OWN = [Depends(require("account:use"))]
_PROOF = [Depends(require("account:use", while_step_up=True))]
_CRUMBS = [("Account", "/account")]


@router.get("/account", dependencies=_OWN)
def account_page(request: Request) -> Response:
    """Show the account."""
    return _account(request)


@router.post("/account/password", dependencies=[*_OWN, *auth.HASHES])
async def change_password(request: Request, form: Fields) -> Response:
    """Set a new password by the old one."""
    new = secret(form, "new_password")
    if new != secret(form, "again"):
        return await apart(_account, request, [Notice("The two new passwords are not the same.", "bad")], 422)
    try:
        change = model(PasswordChange, old_password=secret(form, "old_password"), new_password=new)
        await apart(auth.change_password, request, change)
    except REFUSALS as error:
        return await refused(error, _account, request)
    return go("/account", done="password-changed")


@router.post("/account/sessions/revoke-others", dependencies=_OWN)
def revoke_others(request: Request) -> Response:
    """End all other sessions."""
    account.revoke_other_sessions(request)
    return go("/account", done="sessions-revoked")


@router.post("/account/sessions/{session_id}/revoke", dependencies=_OWN)
def revoke_session(request: Request, session_id: account.SessionId) -> Response:
    """End one session."""
    account.revoke_own_session(request, session_id)
    return go("/account", done="session-revoked")


@router.post("/account/keys", dependencies=[*_OWN, *auth.HASHES])
async def create_key(request: Request, form: Fields) -> Response:
    """Make a key, and show it this once."""
    try:
        days = int(text(form, "days") or 0)
        until = datetime.now(UTC) + timedelta(days=days) if 0 < days <= 3650 else None
        wanted = model(
            KeyRequest, name=text(form, "name"), scopes=texts(form, "scopes"), expires_at=until, **_proof(form)
        )
        made = await apart(account.create_own_key, request, wanted)
    except (*REFUSALS, ValueError) as error:
        return await refused(error, _account, request)
    return await apart(
        page,
        request,
        "account/key.html",
        title="Your new key",
        crumbs=[*_CRUMBS, ("New key", None)],
        key=made.key,
        name=made.name,
    )


@router.post("/account/keys/{key_id}/revoke", dependencies=_OWN)
def revoke_key(request: Request, key_id: account.KeyId) -> Response:
    """Revoke a key."""
    account.revoke_own_key(request, key_id)
    return go("/account", done="key-revoked")


@router.post("/account/second-factor", dependencies=[*_OWN, *auth.HASHES])
async def begin_second_factor(request: Request, form: Fields) -> Response:
    """Show what the authenticator app needs, as a QR code and as text."""
    try:
        begun = await apart(auth.begin_second_factor, request, model(Proof, **_proof(form)))
    except REFUSALS as error:
        return await refused(error, _account, request)
    return await apart(_second_factor, request, begun.secret, begun.uri)


@router.post("/account/second-factor/confirm", dependencies=_OWN)
async def confirm_second_factor(request: Request, form: Fields) -> Response:
    """Turn the second factor on, once its code shows that the app works."""
    try:
        await apart(auth.confirm_second_factor, request, model(SecondFactorCode, code=text(form, "code")))
    except REFUSALS as error:
        notice = Notice(f"{refusal(error).text} Begin again: the code of the picture before no longer counts.", "bad")
        return await apart(_account, request, [notice], status_of(error))
    return go("/account", done="second-factor-on")


@router.post("/account/second-factor/remove", dependencies=[*_OWN, *auth.HASHES])
async def remove_second_factor(request: Request, form: Fields) -> Response:
    """Turn the second factor off."""
    try:
        await apart(auth.remove_second_factor, request, model(Proof, **_proof(form)))
    except REFUSALS as error:
        return await refused(error, _account, request)
    return go("/account", done="second-factor-off")


@router.get("/account/step-up", dependencies=_PROOF)
def step_up_page(request: Request, next: str = "") -> Response:
    """Ask for the password again."""
    return _step_up(request, next)


@router.post("/account/step-up", dependencies=[*_PROOF, *auth.HASHES])
async def step_up(request: Request, form: Fields) -> Response:
    """Lift the restriction of a session."""
    try:
        await apart(auth.step_up, request, model(Proof, **_proof(form)))
    except REFUSALS as error:
        return await refused(error, _step_up, request, text(form, "next"))
    wanted = local_path(text(form, "next"))
    return go(wanted) if wanted != "/" else go("/account", done="proved")


def _proof(form: FormData) -> dict[str, str | None]:
    return {"password": secret(form, "password") or None, "code": text(form, "code").replace(" ", "") or None}


def _account(request: Request, notices: list[Notice] | None = None, status: int = 200) -> Response:
    who, access = principal(request), service(request).access
    mine = access.accounts.by_id(account.account_id(request))
    return page(
        request,
        "account/account.html",
        title="Your account",
        crumbs=[("Account", None)],
        notices=notices or [],
        status=status,
        mine=mine,
        sessions=account.list_own_sessions(request, NoQuery()).items,
        keys=account.list_own_keys(request, NoQuery()).items,
        scopes=[(name, words) for name, words in PERMISSIONS.items() if who.may(name)],
        least=access.settings.passwords.min_length,
    )


def _second_factor(request: Request, secret: str, uri: str) -> Response:
    groups = " ".join(secret[place : place + 4] for place in range(0, len(secret), 4))
    return page(
        request,
        "account/second_factor.html",
        title="Set up the second factor",
        crumbs=[*_CRUMBS, ("Second factor", None)],
        picture=qr_code(uri),
        secret=groups,
    )


def _step_up(request: Request, wanted: str, notices: list[Notice] | None = None, status: int = 200) -> Response:
    mine: Any = service(request).access.accounts.by_id(account.account_id(request))
    return page(
        request,
        "account/step_up.html",
        title="Is it still you?",
        notices=notices or [],
        status=status,
        next=local_path(wanted),
        mine=mine,
    )


def qr_code(content: str) -> str:
    """A QR code as the address of an SVG picture, which needs no further request."""
    import segno

    drawn = segno.make(content, error="m").svg_inline(scale=6, border=0, dark="#000", light="#fff")
    return "data:image/svg+xml;base64," + base64.b64encode(
        drawn.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).encode()
    ).decode("ascii")
