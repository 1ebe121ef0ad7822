"""Predictions that somebody asks for outside the schedule."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Path, Query, Request, Response

from stock_pipeline.api.answers import json_answer
from stock_pipeline.api.auditing import count_rows
from stock_pipeline.api.dependencies import no_repeats, require, service
from stock_pipeline.api.problems import ProblemError, problem_responses
from stock_pipeline.api.reading.files import locate
from stock_pipeline.api.reading.tables import stored
from stock_pipeline.api.schemas import NoQuery
from stock_pipeline.api.schemas_backtests import RequestedPredictions
from stock_pipeline.api.schemas_tasks import TASK_ID, TaskInfo
from stock_pipeline.api.table_answers import NOT_MODIFIED
from stock_pipeline.api.task_views import ACCEPTED, start_task
from stock_pipeline.config.tasks import PredictRequest

router = APIRouter(prefix="/api/predictions", tags=["predictions"], dependencies=[Depends(no_repeats)])


@router.post(
    "",
    summary="Ask for predictions of chosen symbols",
    status_code=202,
    response_class=Response,
    dependencies=[Depends(require("predictions:request"))],
    responses={202: {"model": TaskInfo, **ACCEPTED[202]}, **problem_responses(409, 422, 429, 503)},
)
async def request_predictions(request: Request, wanted: PredictRequest, query: Annotated[NoQuery, Query()]) -> Response:
    """Start a task that predicts symbols for the newest session with the best model that can be used.

    Nothing is published: the result is at `/api/predictions/requests/{task_id}` once the task has succeeded.
    """
    return await start_task(request, "predict", wanted)


@router.get(
    "/requests/{task_id}",
    summary="Predictions that were asked for",
    response_class=Response,
    dependencies=[Depends(require("predictions:read"))],
    responses={200: {"model": RequestedPredictions}, **NOT_MODIFIED, **problem_responses(404, 422, 503)},
)
def get_requested_predictions(
    request: Request,
    task_id: Annotated[str, Path(pattern=r"^[A-Za-z0-9-]{1,36}$", examples=[TASK_ID])],
    query: Annotated[NoQuery, Query()],
) -> Response:
    """What a prediction task has made; not found until it has succeeded."""
    found = read_requested(request, task_id)
    if found is None:
        detail = f"the task {task_id} has made no predictions yet; /api/tasks/{task_id} says how far it is"
        raise ProblemError(404, "predictions-not-ready", detail)
    return json_answer(found, rows=len(found["predictions"])).respond(request)


def read_requested(request: Request, task_id: str) -> dict[str, Any] | None:
    """What a prediction task has made, counted as read; ``None`` where there is nothing yet."""
    try:
        path = locate(service(request).reports / "predictions", f"{task_id}.json", frozenset({".json"}))
    except ProblemError:
        return None
    with stored(f"the predictions of the task {task_id}"):
        found: dict[str, Any] = orjson.loads(path.read_bytes())
        rows = len(found["predictions"])
    count_rows(request, rows)
    return found
