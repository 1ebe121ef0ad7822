"""Pages for people. They load nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, FileSystemLoader

from stock_pipeline.api.dependencies import publications, require

router = APIRouter(include_in_schema=False, dependencies=[Depends(require("predictions:read"))])

_HERE = Path(__file__).parent.parent
_ROWS = 50
_STYLED = {"Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; frame-ancestors 'none'"}
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


def mount_files(app: FastAPI) -> None:
    """Serve the style of the pages."""
    app.mount("/static", StaticFiles(directory=_HERE / "static"), name="static")


def _words(seconds: float) -> str:
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count != 1 else ''}"
    return "less than a minute"
