"""Predictions as they were published, and the symbols that have none."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

from stock_pipeline.api.answers import Answer
from stock_pipeline.api.auditing import count_rows
from stock_pipeline.api.dependencies import no_repeats, publications, require
from stock_pipeline.api.paging import MAX_CURSOR, decode
from stock_pipeline.api.problems import ProblemError, problem_responses
from stock_pipeline.api.reading import predictions as reading
from stock_pipeline.api.ready import keep, respond
from stock_pipeline.api.schemas import NoQuery, PredictionColumns, PredictionDetail, PredictionPage, UnpredictedList
from stock_pipeline.core.errors import IntegrityError, NotFoundError
from stock_pipeline.storage.publication import FIELDS, Publication, PublicationCache, Sort

router = APIRouter(prefix="/api", tags=["predictions"])

READ = [Depends(require("predictions:read")), Depends(no_repeats)]

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
    limit: int = Field(100, ge=1, le=10_000, description="rows of one page; one page can hold all symbols")
    cursor: str | None = Field(
        None, min_length=1, max_length=MAX_CURSOR, description="`next_cursor` of the page before"
    )
    format: reading.Format = Field(
        "json",
        description="JSON rows; JSON with one array a field and 7 significant digits, half as large; or CSV with the "
        "next page in the Link header",
    )

    def question(self) -> reading.Question:
        """The question that it asks a publication."""
        return reading.Question(
            symbols=None if self.symbol is None else tuple(self.symbol),
            session=self.session,
            min_confidence=self.min_confidence,
            sort=self.sort,
            descending=self.order == "desc",
            format=self.format,
            limit=self.limit,
        )


class SessionQuery(BaseModel):
    """Which session."""

    model_config = ConfigDict(extra="forbid")

    session: date | None = Field(None, description="exchange date; the newest where absent")


@router.get(
    "/predictions",
    summary="Newest predictions, or those of a session",
    response_class=Response,
    dependencies=READ,
    responses={
        200: {
            "model": PredictionPage | PredictionColumns,
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
    cache, question = publications(request), query.question()
    where: tuple[int, date, int] | None = None
    if query.cursor is not None:
        where = decode(query.cursor, question.filters, tuple[NonNegativeInt, date, NonNegativeInt])
    publication = await _publication(cache, query.session, where)
    parameters = request.query_params.multi_items()
    answer = await run_in_threadpool(_page, request, publication, question, where[2] if where else 0, parameters)
    if where is None:
        keep(request, publication, answer)
    count_rows(request, answer.rows)
    return respond(request, publication, answer)


@router.get(
    "/predictions/{prediction_id}",
    summary="One prediction with its lineage",
    response_class=Response,
    dependencies=READ,
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
    answer = reading.detail(found)
    count_rows(request, 1)
    return respond(request, current, answer)


@router.get(
    "/unpredicted",
    summary="Symbols without a prediction, and why",
    response_class=Response,
    dependencies=READ,
    responses={200: {"model": UnpredictedList}, **_NOT_MODIFIED, **problem_responses(404, 422, 503)},
)
async def list_unpredicted(request: Request, query: Annotated[SessionQuery, Query()]) -> Response:
    """Symbols of the universe that got no prediction in a session."""
    publication = await _publication(publications(request), query.session, None)
    answer = reading.unpredicted(publication)
    count_rows(request, answer.rows)
    return answer.respond(request)


def _page(
    request: Request,
    publication: Publication,
    question: reading.Question,
    offset: int,
    parameters: list[tuple[str, str]],
) -> Answer:
    answer = reading.page(publication, question, offset, parameters)
    answer.choose(request.headers.get("accept-encoding", "").encode("latin-1"))  # compressed here, not on the loop
    return answer


async def _publication(
    cache: PublicationCache, session: date | None, cursor: tuple[int, date, int] | None
) -> Publication:
    current = cache.current
    if current is None:
        raise ProblemError(
            503,
            "no-publication",
            f"there is no publication to serve: {cache.problem}",
            headers={"Retry-After": "30"},
        )
    version = cursor[0] if cursor else current.version
    wanted = cursor[1] if cursor else session or current.session
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
