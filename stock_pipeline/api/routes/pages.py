"""Pages for people: the newest predictions, and the reference of the service. They load nothing from elsewhere."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, FileSystemLoader

from stock_pipeline.api.dependencies import publications

router = APIRouter(include_in_schema=False)

_HERE = Path(__file__).parent.parent
_ROWS = 50
_STYLED = {"Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; frame-ancestors 'none'"}
_SCRIPTED = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'"
    )
}

_templates = Environment(loader=FileSystemLoader(_HERE / "templates"), autoescape=True)
_templates.filters["percent"] = lambda value: "–" if value is None else f"{value * 100:+.2f} %"
_templates.filters["share"] = lambda value: "–" if value is None else f"{value * 100:.2f} %"
_templates.filters["number"] = lambda value: "–" if value is None else f"{value:.2f}"


@router.get("/")
async def newest(request: Request) -> Response:
    """Show the best-ranked predictions of the current publication, or why there is none."""
    cache = publications(request)
    publication = cache.current
    rows = []
    if publication is not None:
        positions = publication.select(sort="rank")[:_ROWS]
        rows = publication.frame[positions.tolist()].to_dicts()
    text = _templates.get_template("index.html").render(
        publication=publication,
        age=None if publication is None else _words(publication.age(cache.clock())),
        rows=rows,
        problem=cache.problem,
    )
    return HTMLResponse(text, headers={"Cache-Control": "no-cache", **_STYLED})


@router.get("/docs")
async def reference(request: Request) -> Response:
    """Show the interactive reference; script and style come from this service."""
    page = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title=f"{request.app.title}: reference",
        swagger_js_url="/reference/swagger-ui-bundle.js",
        swagger_css_url="/reference/swagger-ui.css",
        swagger_favicon_url="/static/icon.svg",
    )
    page.headers.update(_SCRIPTED)
    return page


def mount_files(app: FastAPI) -> None:
    """Serve the style of the pages, and the reference's script and style from the package that carries them."""
    carrier = find_spec("fastapi_offline")
    if carrier is None or carrier.origin is None:
        raise RuntimeError("the package fastapi-offline is not installed: pip install fastapi-offline")
    app.mount("/static", StaticFiles(directory=_HERE / "static"), name="static")
    app.mount("/reference", StaticFiles(directory=Path(carrier.origin).parent / "static"), name="reference")


def _words(seconds: float) -> str:
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count != 1 else ''}"
    return "less than a minute"
