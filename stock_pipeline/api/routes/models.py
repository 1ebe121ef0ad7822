"""Models: versions, figures, lineage and cards, and the two decisions that people take about them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from stock_pipeline.api import paging
from stock_pipeline.api.answers import Answer, entity_tag, json_answer
from stock_pipeline.api.auditing import audit
from stock_pipeline.api.dependencies import no_repeats, principal, require, service
from stock_pipeline.api.problems import ProblemError, problem_responses
from stock_pipeline.api.reading.files import scripted_policy
from stock_pipeline.api.reading.models import CARDS, VERSION, Promotion, summary
from stock_pipeline.api.schemas import NoQuery
from stock_pipeline.api.schemas_models import (
    CardQuery,
    ModelDecision,
    ModelDetail,
    ModelMetrics,
    ModelQuery,
    ModelSummary,
    PromoteModel,
    RollBack,
)

router = APIRouter(prefix="/api/models", tags=["models"], dependencies=[Depends(no_repeats)])

READ = [Depends(require("models:read"))]
PROMOTE = [Depends(require("models:promote"))]
NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "Not Modified: the tag sent is still right"}}

NONE = NoQuery()

Version = Annotated[str, Path(pattern=VERSION, description="number or alias", examples=["champion", "4"])]


@router.get(
    "",
    summary="Versions of models, newest first",
    response_class=Response,
    dependencies=READ,
    responses={200: {"model": paging.Page[ModelSummary]}, **NOT_MODIFIED, **problem_responses(400, 422, 503)},
)
def list_models(request: Request, query: Annotated[ModelQuery, Query()]) -> Response:
    """Every registered version with its aliases and the figures that matter most."""
    question = query.question()
    after = None if query.cursor is None else paging.decode(query.cursor, question, int)
    versions = service(request).models.all()
    if query.usable is not None:
        champion = next((one for one in versions if "champion" in one.aliases), None)
        wanted = None if champion is None else champion.feature_set_hash
        versions = [one for one in versions if (one.feature_set_hash == wanted) == query.usable]
    chosen = [
        one
        for one in versions
        if (query.family is None or one.family == query.family)
        and (query.alias is None or query.alias in one.aliases)
        and (after is None or one.version < after)
    ]
    page, following = paging.cut(chosen, query.limit, question, lambda one: one.version)
    return json_answer({"items": [summary(one) for one in page], "next_cursor": following}).respond(request)


@router.post(
    "/rollback",
    summary="Go back to the previous champion",
    dependencies=PROMOTE,
    responses=problem_responses(409, 422, 503),
)
def rollback_model(request: Request, wanted: RollBack, query: Annotated[NoQuery, Query()] = NONE) -> ModelDecision:
    """Make the previous champion champion again; it takes effect with the next scoring."""
    models = service(request).models
    try:
        done = models.rollback(by=principal(request).name, reason=wanted.reason)
    except ProblemError as error:
        audit(request, "model.rollback", result="failed", detail={"reason": wanted.reason, "problem": error.kind})
        raise
    return _decided(request, "model.rollback", done, wanted.reason)


@router.get(
    "/{version}",
    summary="One version with its lineage",
    response_class=Response,
    dependencies=READ,
    responses={200: {"model": ModelDetail}, **NOT_MODIFIED, **problem_responses(404, 422, 503)},
)
def get_model(request: Request, version: Version, query: Annotated[NoQuery, Query()]) -> Response:
    """A version by its number or alias: figures, what made it, decisions about it, and where to read on."""
    models = service(request).models
    return json_answer(models.describe(models.get(version))).respond(request)


@router.get(
    "/{version}/metrics",
    summary="Figures of a version",
    response_class=Response,
    dependencies=READ,
    responses={200: {"model": ModelMetrics}, **NOT_MODIFIED, **problem_responses(404, 422, 503)},
)
def get_model_metrics(request: Request, version: Version, query: Annotated[NoQuery, Query()]) -> Response:
    """Figures on data that the model has not seen, by fold as well, and what it looks at most."""
    return json_answer(service(request).models.metrics(version)).respond(request)


@router.get(
    "/{version}/card",
    summary="The model card",
    response_class=Response,
    dependencies=READ,
    responses={
        200: {
            "description": "The card.",
            "content": {
                "text/markdown": {"schema": {"type": "string"}, "example": "# Model card: lightgbm on us_tech"},
                "text/html": {"schema": {"type": "string"}},
            },
        },
        **NOT_MODIFIED,
        **problem_responses(404, 422, 503),
    },
)
def get_model_card(request: Request, version: Version, query: Annotated[CardQuery, Query()]) -> Response:
    """What the model is, how well it does beside naive baselines, and its limits."""
    found, body = service(request).models.card(version, query.format)
    headers = {"Content-Disposition": f'inline; filename="model-{found.version}-{CARDS[query.format][0]}"'}
    if query.format == "html":
        headers["Content-Security-Policy"] = scripted_policy(body.decode("utf-8", "replace"))
    return Answer(body, CARDS[query.format][1], entity_tag(body), headers).respond(request)


@router.post(
    "/{version}/promote",
    summary="Make a version champion",
    dependencies=PROMOTE,
    responses=problem_responses(404, 409, 422, 503),
)
def promote_model(
    request: Request, version: Version, wanted: PromoteModel, query: Annotated[NoQuery, Query()] = NONE
) -> ModelDecision:
    """Make a version champion by hand, for example after an alarm was looked into.

    Its files are verified first, and a version that was trained on other features than are configured is refused. The
    next scoring uses it.
    """
    detail = {"reason": wanted.reason, "force": wanted.force}
    try:
        done = service(request).models.promote(
            version, by=principal(request).name, reason=wanted.reason, force=wanted.force
        )
    except ProblemError as error:
        audit(
            request,
            "model.promote",
            object=("model", version),
            result="failed",
            detail={**detail, "problem": error.kind},
        )
        raise
    return _decided(request, "model.promote", done, wanted.reason, force=wanted.force)


def _decided(request: Request, action: str, done: Promotion, reason: str, **detail: Any) -> ModelDecision:
    audit(
        request,
        action,
        object=("model", str(done.champion.version)),
        before={"champion": done.before},
        after={"champion": done.champion.version},
        detail={"reason": reason, **detail},
    )
    described = service(request).models.describe(done.champion)
    return ModelDecision(before=done.before, champion=ModelDetail.model_validate(described))
