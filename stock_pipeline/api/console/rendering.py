"""Makes a page from a template: who looks, what the navigation shows them, notices, and the headers of every page."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from stock_pipeline.access.principal import Principal
from stock_pipeline.api.console import figures, navigation
from stock_pipeline.api.console.formatting import FILTERS
from stock_pipeline.api.console.forms import sentence
from stock_pipeline.api.console.notices import Notice, from_address
from stock_pipeline.api.dependencies import service

STATIC = Path(__file__).parent.parent / "static"
_TEMPLATES = Path(__file__).parent.parent / "templates"

SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""No script and no style but our own files; nothing from elsewhere."""

_templates = Environment(
    loader=FileSystemLoader(_TEMPLATES),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
)
_templates.filters.update({**FILTERS, **figures.FILTERS, "sentence": sentence})


@dataclass(frozen=True)
class Visitor:
    """Who looks at a page, for templates.

    Attributes
    ----------
    principal
        Who it is.
    csrf
        Proves that a form is from a page of this session; empty where there is no session to protect.
    """

    principal: Principal
    csrf: str

    @property
    def name(self) -> str:
        """Name of the account."""
        return self.principal.name

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles of the account."""
        return self.principal.roles

    @property
    def logged_in(self) -> bool:
        """Whether there is a session that can be ended."""
        return self.principal.kind == "console"

    def may(self, permission: str) -> bool:
        """Whether a permission is held, and usable in this session."""
        return self.principal.may(permission)


def visitor(request: Request) -> Visitor | None:
    """Who looks; ``None`` on pages that come before a log-in."""
    who: Principal | None = getattr(request.state, "principal", None)
    if who is None:
        return None
    csrf = service(request).access.gate.csrf_token(who) if who.kind == "console" else ""
    return Visitor(who, csrf)


def page(
    request: Request,
    template: str,
    *,
    title: str,
    section: str = "",
    crumbs: Sequence[tuple[str, str | None]] = (),
    notices: Sequence[Notice] = (),
    status: int = 200,
    bare: bool = False,
    **content: Any,
) -> Response:
    """Answer with a page.

    Parameters
    ----------
    request
        The request.
    template
        File below ``templates``.
    title
        Heading and name of the page.
    section
        Key of the entry in the navigation that it belongs to.
    crumbs
        Way to the page: label and address, the last without an address.
    notices
        What is said above the content, after what the address asks for (see `notices`).
    status
        HTTP status.
    bare
        Without who looks and the navigation, as before a log-in.
    content
        What the template shows.
    """
    who = None if bare else visitor(request)
    text = render(
        template,
        title=title,
        section=section,
        crumbs=crumbs,
        notices=[*from_address(request), *notices],
        visitor=who,
        navigation=navigation.entries(service(request), who.principal) if who else (),
        market=service(request).settings.market.name,
        **content,
    )
    # a form must say where it comes from: under no-referrer browsers hide that from us as well
    headers = {
        "Content-Security-Policy": SECURITY_POLICY,
        "Cache-Control": "no-store",
        "Referrer-Policy": "same-origin",
    }
    return HTMLResponse(text, status_code=status, headers=headers)


def render(template: str, **content: Any) -> str:
    """Fill a template; every text in it is escaped."""
    return _templates.get_template(template).render(file=file, **content)


@lru_cache(maxsize=64)
def file(name: str) -> str:
    """Address of a static file; changes with its content, so that no browser keeps an old one."""
    digest = hashlib.blake2b((STATIC / name).read_bytes(), digest_size=6).hexdigest()
    return f"/static/{name}?v={digest}"
