"""Models: versions, figures and cards, and the two decisions that people take about them."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from stock_pipeline.api.console.charts import Chart, Series
from stock_pipeline.api.console.forms import REFUSALS, Fields, apart, go, model, refused, text
from stock_pipeline.api.console.notices import Notice
from stock_pipeline.api.console.rendering import page
from stock_pipeline.api.dependencies import principal, service
from stock_pipeline.api.reading.models import summary
from stock_pipeline.api.routes import models
from stock_pipeline.api.schemas_models import PromoteModel, RollBack

router = APIRouter(include_in_schema=False)

FEATURES = 20


@router.get("/models", dependencies=models.READ)
def model_list(request: Request) -> Response:
    """Show all versions, newest first."""
    return _list(request)


@router.post("/models/rollback", dependencies=models.PROMOTE)
async def roll_back(request: Request, form: Fields) -> Response:
    """Make the previous champion champion again."""
    try:
        await apart(models.rollback_model, request, model(RollBack, reason=text(form, "reason")))
    except REFUSALS as error:
        return await refused(error, _list, request)
    return go("/models", done="rolled-back")


@router.get("/models/{version}", dependencies=models.READ)
def model_page(request: Request, version: models.Version) -> Response:
    """Show one version."""
    return _model(request, version)


@router.post("/models/{version}/promote", dependencies=models.PROMOTE)
async def promote(request: Request, version: models.Version, form: Fields) -> Response:
    """Make a version champion."""
    try:
        wanted = model(PromoteModel, reason=text(form, "reason"), force=text(form, "force") == "true")
        await apart(models.promote_model, request, version, wanted)
    except REFUSALS as error:
        return await refused(error, _model, request, version)
    return go(f"/models/{version}", done="promoted")


def _list(request: Request, notices: list[Notice] | None = None, status: int = 200) -> Response:
    rows = [summary(found) for found in service(request).models.all()]
    return page(
        request,
        "models/list.html",
        title="Models",
        section="models",
        notices=notices or [],
        status=status,
        rows=rows,
        has_previous=any("previous" in row["aliases"] for row in rows),
        champion=next((row for row in rows if "champion" in row["aliases"]), None),
        may_decide=principal(request).may("models:promote"),
    )


def _model(request: Request, version: str, notices: list[Notice] | None = None, status: int = 200) -> Response:
    store = service(request).models
    found = store.describe(store.get(version))
    metrics = store.metrics(version)
    return page(
        request,
        "models/model.html",
        title=f"{found['family']} version {found['version']}",
        section="models",
        crumbs=[("Models", "/models"), (f"Version {found['version']}", None)],
        notices=notices or [],
        status=status,
        model=found,
        figures=_beside(metrics["oos"], metrics["holdout"]),
        folds=metrics["folds"],
        fold_chart=_folds(metrics["folds"]),
        importance=_shares(metrics["importance"][:FEATURES]),
        may_decide=principal(request).may("models:promote"),
    )


def _beside(
    oos: dict[str, float | None], holdout: dict[str, float | None]
) -> list[tuple[str, float | None, float | None]]:
    return [(name, oos.get(name), holdout.get(name)) for name in sorted({*oos, *holdout})]


def _folds(folds: list[dict[str, object]]) -> Chart | None:
    """Rank IC of each walk-forward fold, at the end of its test."""
    ends = [
        next((fold[name] for name in ("test_end", "end", "last_session") if fold.get(name)), None) for fold in folds
    ]
    values = [fold.get("rank_ic") for fold in folds]
    if len(folds) < 2 or any(end is None for end in ends) or all(value is None for value in values):
        return None
    return Chart(
        "chart-folds",
        "Rank IC by fold",
        "Bars of the rank information coefficient of each walk-forward fold, by the end of its test period.",
        ends,  # type: ignore[arg-type]
        [Series("Rank IC", values, "bars", 1)],  # type: ignore[arg-type]
        low=True,
    )


def _shares(importance: list[dict[str, object]]) -> list[dict[str, object]]:
    """Each feature with its importance as a share of the largest one."""
    values = [float(row.get("importance") or 0.0) for row in importance]  # type: ignore[arg-type]
    largest = max(values, default=0.0)
    return [
        {**row, "share": value / largest if largest > 0 else None}
        for row, value in zip(importance, values, strict=True)
    ]
