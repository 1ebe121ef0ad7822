"""Log in and log out."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response

from stock_pipeline.access.principal import AccessError, Principal
from stock_pipeline.api import cookies
from stock_pipeline.api.client import of_own_page, origin
from stock_pipeline.api.console.forms import Fields, apart, go, local_path, secret, sentence, text
from stock_pipeline.api.console.notices import Notice
from stock_pipeline.api.console.rendering import page
from stock_pipeline.api.dependencies import SAFE, check_csrf, public, service
from stock_pipeline.api.limits import log_in_limit, password_turn

router = APIRouter(include_in_schema=False)

_ALL_DATA = '"cache", "storage"'


@router.get("/login", dependencies=[Depends(public)])
async def login_page(request: Request, next: str = "") -> Response:
    """Ask for name and password; whoever is logged in goes on."""
    secret_of_cookie = cookies.read(request)
    if secret_of_cookie:
        try:
            await apart(service(request).access.gate.authenticate_cookie, secret_of_cookie, origin(request))
            return go(local_path(next))
        except AccessError:
            pass
    return await apart(form_page, request, next=next)


@router.post("/login", dependencies=[Depends(public), Depends(log_in_limit), Depends(password_turn)])
async def log_in(request: Request, form: Fields) -> Response:
    """Open a session of the console and go where one wanted to go."""
    own_page_only(request)
    name, wanted = text(form, "name"), text(form, "next")
    access = service(request).access
    try:
        opened = await apart(
            access.logins.log_in,
            name,
            secret(form, "password"),
            code=text(form, "code") or None,
            kind="console",
            origin=origin(request),
        )
    except AccessError as error:
        asked = error.kind == "second-factor-required"
        code = asked or bool(text(form, "code"))
        return await apart(form_page, request, next=wanted, name=name, code=code, error=error)
    response = go(local_path(wanted))
    cookies.set_session(response, service(request).settings, opened.cookie or "")
    return response


@router.post("/logout", dependencies=[Depends(public)])
async def log_out(request: Request) -> Response:
    """End the session on the server and take its cookie from the browser."""
    access = service(request).access
    held = cookies.read(request)
    if held:
        try:
            who: Principal = await apart(access.gate.authenticate_cookie, held, origin(request))
            await check_csrf(request, who)
            await apart(access.logins.log_out, who, origin(request))
        except AccessError as error:
            if error.status != 401:  # the session may go on: that must not look like a log-out
                raise
    response = go("/login", done="logged-out")
    response.headers["Clear-Site-Data"] = _ALL_DATA
    cookies.clear_session(response, service(request).settings)
    return response


def form_page(
    request: Request, *, next: str = "", name: str = "", code: bool = False, error: AccessError | None = None
) -> Response:
    """Show the form, and why the last attempt did not succeed."""
    settings = service(request).settings.access
    notices = []
    if error is not None and error.kind == "second-factor-required":
        notices.append(Notice("Enter the code that your authenticator app shows.", "info"))
    elif error is not None:
        notices.append(Notice(_words(error), "bad"))
    answer = page(
        request,
        "account/login.html",
        title="Log in",
        notices=notices,
        status=error.status if error else 200,
        next=local_path(next),
        name=name,
        ask_code=code,
        open_registration=settings.registration == "open",
        company=settings.oidc.label if settings.oidc else None,
    )
    if error is not None and error.retry_after is not None:
        answer.headers["Retry-After"] = str(max(1, round(error.retry_after)))
    return answer


def own_page_only(request: Request) -> None:
    """Refuse a form that comes from another site, for forms that are sent before there is a session.

    Raises
    ------
    AccessError
        403 ``csrf``.
    """
    if request.method in SAFE:
        return
    site, source = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    foreign = site not in (None, "same-origin", "none") or (source is not None and not of_own_page(request, source))
    if foreign or (site is None and source is None):
        raise AccessError(403, "csrf", "another site sent this form", fix="open the page here and try again")


def _words(error: AccessError) -> str:
    if error.kind == "invalid-credentials":
        return "Name, password or code is not right."
    if error.retry_after is not None:
        minutes = -(-round(error.retry_after) // 60)
        wait = f"{round(error.retry_after)} seconds" if error.retry_after < 90 else f"{minutes} minutes"
        return f"{sentence(str(error))} Try again in {wait}."
    return sentence(str(error))
