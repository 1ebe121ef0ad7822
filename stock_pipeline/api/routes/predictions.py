"""Predictions as they were published, and the symbols that have none."""

from __future__ import annotations

import hashlib
from datetime import date
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import URL

from stock_pipeline.api.answers import Answer, Cursor, entity_tag
from stock_pipeline.api.dependencies import no_repeats, publications, require
from stock_pipeline.api.problems import ProblemError, problem_responses
from stock_pipeline.api.ready import ReadyRoute, keep, respond
from stock_pipeline.api.schemas import PredictionDetail, PredictionPage, UnpredictedList
from stock_pipeline.core.errors import IntegrityError, NotFoundError
from stock_pipeline.storage.publication import FIELDS, Publication, PublicationCache, Sort

router = APIRouter(
    prefix="/api",
    tags=["predictions"],
    route_class=ReadyRoute,
    dependencies=[Depends(require(ReadyRoute.permission)), Depends(no_repeats)],
)

Symbol = Annotated[str, Field(min_length=1, max_length=64)]

_NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "Not Modified: the tag sent is still right"}}


class PredictionQuery(BaseModel):
    """Which predictions, and in which order."""

    model_config = ConfigDict(extra="forbid")

    symbol: list[Symbol] | None = Field(
        None, max_length=1000, description="only these symbols; may be repeated", examples=[["IBM", "AAPL"]]
    )
    session: date | None = Field(None, description="exchange date; the newest where absent")
    min_confidence: float | None = Field(None, ge=0, le=1, allow_inf_nan=False, description="at least this confidence")
    sort: Sort = Field("rank", description="order of the rows; rows without a value come last")
    order: Literal["asc", "desc"] = Field("asc", description="ascending or descending")
    limit: int = Field(100, ge=1, le=1000, description="rows of one page")
    cursor: str | None = Field(None, max_length=300, description="`next_cursor` of the page before")
    format: Literal["json", "csv"] = Field("json", description="JSON, or CSV with the next page in the Link header")


class SessionQuery(BaseModel):
    """Which session."""

    model_config = ConfigDict(extra="forbid")

    session: date | None = Field(None, description="exchange date; the newest where absent")


class NoQuery(BaseModel):
    """No parameters."""

    model_config = ConfigDict(extra="forbid")


@router.get(
    "/predictions",
    summary="Newest predictions, or those of a session",
    response_class=Response,
    responses={
        200: {
            "model": PredictionPage,
            "description": "One page of the publication; `Link` names the next.",
            "content": {"text/csv": {"schema": {"type": "string"}, "example": ",".join(FIELDS)}},
            "headers": {
                "ETag": {"description": "tag of this answer", "schema": {"type": "string"}},
                "Publication-Age": {"description": "seconds since it was published", "schema": {"type": "integer"}},
                "Link": {"description": 'the next page, rel="next"', "schema": {"type": "string"}},
            },
        },
        **_NOT_MODIFIED,
        **problem_responses(400, 404, 410, 422, 503),
    },
)
async def list_predictions(request: Request, query: Annotated[PredictionQuery, Query()]) -> Response:
    """Rows of the current publication, filtered and ordered; older sessions come from the lake.

    Paging stays within the publication of the first page even when a newer one appears meanwhile.
    """
    cache = publications(request)
    question = _question(query)
    cursor = Cursor.decode(query.cursor, question) if query.cursor else None
    publication = await _publication(cache, query.session, cursor)
    offset = cursor.offset if cursor else 0
    answer = _page(publication, query, question, offset, request.url)
    if query.symbol is None and query.min_confidence is None and cursor is None:
        keep(request, publication, answer)
    return respond(request, publication, answer)


@router.get(
    "/predictions/{prediction_id}",
    summary="One prediction with its lineage",
    response_class=Response,
    responses={200: {"model": PredictionDetail}, **_NOT_MODIFIED, **problem_responses(404, 422, 503)},
)
async def get_prediction(
    request: Request,
    prediction_id: Annotated[str, Path(min_length=1, max_length=200, examples=["2023-06-30.IBM.5"])],
    query: Annotated[NoQuery, Query()],
) -> Response:
    """One published prediction of any session, with everything that made it."""
    cache = publications(request)
    current = await _publication(cache, None, None)
    found = current.detail(prediction_id)
    if found is None:
        found = await run_in_threadpool(cache.find, prediction_id)
    if found is None:
        raise ProblemError(404, "prediction-not-found", f"no prediction {prediction_id!r} has been published")
    body = orjson.dumps(found, default=str, option=orjson.OPT_UTC_Z)
    return Answer(body, "application/json", entity_tag(body)).respond(request)


@router.get(
    "/unpredicted",
    summary="Symbols without a prediction, and why",
    response_class=Response,
    responses={200: {"model": UnpredictedList}, **_NOT_MODIFIED, **problem_responses(404, 422, 503)},
)
async def list_unpredicted(request: Request, query: Annotated[SessionQuery, Query()]) -> Response:
    """Symbols of the universe that got no prediction in a session."""
    publication = await _publication(publications(request), query.session, None)
    head = _head(publication)
    body = b'{"publication":%b,"total":%d,"unpredicted":[%b]}' % (
        head,
        len(publication.unpredicted),
        b",".join(publication.unpredicted),
    )
    return Answer(body, "application/json", entity_tag("unpredicted", publication.digest, head)).respond(request)


def publication_info(publication: Publication) -> dict[str, Any]:
    """Describe a publication as `schemas.PublicationInfo` does."""
    return {
        "session": publication.session,
        "version": publication.version,
        "published_at": publication.published_at,
        "digest": publication.digest,
    }


async def _publication(cache: PublicationCache, session: date | None, cursor: Cursor | None) -> Publication:
    current = cache.current
    if current is None:
        raise ProblemError(
            503,
            "no-publication",
            f"there is no publication to serve: {cache.problem}",
            headers={"Retry-After": "30"},
        )
    version = cursor.version if cursor else current.version
    wanted = cursor.session if cursor else session or current.session
    if (version, wanted) == (current.version, current.session):
        return current
    try:
        return await run_in_threadpool(cache.get, wanted, version)
    except (NotFoundError, IntegrityError) as error:
        if cursor is not None:
            raise ProblemError(
                410, "publication-gone", "the publication of this cursor is gone; begin again without a cursor"
            ) from error
        if isinstance(error, IntegrityError):
            raise
        raise ProblemError(404, "session-not-published", f"nothing was published for the session {wanted}") from error


def _question(query: PredictionQuery) -> str:
    symbols = None if query.symbol is None else sorted(set(query.symbol))
    parts = (symbols, query.session, query.min_confidence, query.sort, query.order, query.format)
    return hashlib.blake2b(orjson.dumps(parts, default=str), digest_size=8).hexdigest()


def _page(publication: Publication, query: PredictionQuery, question: str, offset: int, url: URL) -> Answer:
    positions = publication.select(
        symbols=query.symbol,
        min_confidence=query.min_confidence,
        sort=query.sort,
        descending=query.order == "desc",
    )
    page = positions[offset : offset + query.limit]
    following: str | None = None
    headers: dict[str, str] = {}
    if offset + len(page) < len(positions):
        cursor = Cursor(publication.version, publication.session, question, offset + len(page))
        following = cursor.encode()
        url = url.include_query_params(cursor=following)
        headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'
    head = _head(publication)
    tag = entity_tag(publication.digest, head, question, query.limit, offset)
    if query.format == "csv":
        text = publication.frame[page.tolist()].select(FIELDS).write_csv()
        headers["Content-Disposition"] = f'attachment; filename="predictions-{publication.session}.csv"'
        return Answer(text.encode(), "text/csv; charset=utf-8", tag, headers)
    body = b'{"publication":%b,"total":%d,"unpredicted":%d,"next_cursor":%b,"predictions":[%b]}' % (
        head,
        len(positions),
        len(publication.unpredicted),
        orjson.dumps(following),
        b",".join(publication.rows[position] for position in page),
    )
    return Answer(body, "application/json", tag, headers)


def _head(publication: Publication) -> bytes:
    return orjson.dumps(publication_info(publication), option=orjson.OPT_UTC_Z)
