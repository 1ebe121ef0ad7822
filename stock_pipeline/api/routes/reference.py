"""The OpenAPI document and the pages that show it. They load nothing from elsewhere and run no inline script."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import orjson
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, FileSystemLoader

from stock_pipeline.api.dependencies import public

router = APIRouter(include_in_schema=False, dependencies=[Depends(public)])

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_FRESH = {"Cache-Control": "no-cache"}

_templates = Environment(loader=FileSystemLoader(Path(__file__).parent.parent / "templates"), autoescape=True)


@router.get("/openapi.json")
def document(request: Request) -> Response:
    """Describe every operation of the API (OpenAPI)."""
    state = request.app.state
    if not hasattr(state, "document"):
        state.document = orjson.dumps(request.app.openapi())
    return Response(state.document, media_type="application/json", headers=_FRESH)


@router.get("/docs")
async def reference(request: Request) -> Response:
    """Show the reference; script and style come from this service."""
    page = _templates.get_template("reference.html").render(title=request.app.title)
    return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY, **_FRESH})


def mount_files(app: FastAPI) -> None:
    """Serve the reference's script and style from the package that carries them."""
    carrier = find_spec("fastapi_offline")
    if carrier is None or carrier.origin is None:
        raise RuntimeError("the package fastapi-offline is not installed: pip install fastapi-offline")
    app.mount("/reference", StaticFiles(directory=Path(carrier.origin).parent / "static"), name="reference")
