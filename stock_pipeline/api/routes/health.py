"""Whether the process lives and whether it can answer."""

from __future__ import annotations

import orjson
from fastapi import APIRouter, Depends, Request, Response

from stock_pipeline import __version__
from stock_pipeline.api.dependencies import public, publications
from stock_pipeline.api.problems import ProblemError, problem_responses
from stock_pipeline.api.reading.predictions import info as publication_info
from stock_pipeline.api.schemas import Health, Readiness

router = APIRouter(tags=["health"], dependencies=[Depends(public)])


_NO_STORE = {"Cache-Control": "no-store"}


@router.get("/healthz", summary="The process is alive", response_class=Response, responses={200: {"model": Health}})
async def alive() -> Response:
    """Answer as long as the process does; says nothing about data."""
    return Response(
        orjson.dumps({"status": "ok", "version": __version__}), media_type="application/json", headers=_NO_STORE
    )


@router.get(
    "/readyz",
    summary="The service can answer",
    response_class=Response,
    responses={200: {"model": Readiness}, **problem_responses(503)},
)
async def ready(request: Request) -> Response:
    """Answer 200 where there is a publication and the lake can be read, else 503 with the reason."""
    cache = publications(request)
    current = cache.current
    if current is None:
        raise ProblemError(503, "no-publication", f"there is no publication to serve: {cache.problem}")
    if cache.problem is not None:
        raise ProblemError(
            503,
            "lake-unreadable",
            f"serving the publication of {current.session}, but the lake cannot be read: {cache.problem}",
        )
    body = {
        "status": "ready",
        "publication": publication_info(current),
        "age_seconds": round(current.age(cache.clock()), 1),
    }
    return Response(orjson.dumps(body, option=orjson.OPT_UTC_Z), media_type="application/json", headers=_NO_STORE)
