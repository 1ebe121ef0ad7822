"""Assets of the group ``predictions``: scored, published behind a gate, and judged once outcomes are known."""

from collections.abc import Iterator

import dagster as dg
import polars as pl

from stock_pipeline.core.prediction.outcomes import mature
from stock_pipeline.core.prediction.publish import may_publish
from stock_pipeline.core.prediction.score import PREDICTION_SCHEMA, UNPREDICTED_SCHEMA
from stock_pipeline.orchestration import inputs, scoring
from stock_pipeline.orchestration.checks import predictions as checks
from stock_pipeline.orchestration.metadata import (
    frame_metadata,
    outcome_metadata,
    publication_metadata,
    task_result,
    up_to_date,
)
from stock_pipeline.orchestration.resources import Platform
from stock_pipeline.orchestration.specs import COLUMNS, spec

PUBLISHED, OUTCOMES = "predictions/published", "predictions/outcomes"
SCORED, UNPREDICTED = scoring.SCORED, scoring.UNPREDICTED


def build(platform: Platform) -> list[dg.AssetsDefinition]:
    """The prediction assets of one configuration."""
    settings = platform.settings
    owner = settings.market.owner
    upstream = [
        inputs.VALIDATED,
        inputs.MEMBERSHIP,
        scoring.RISK,
        *(f"features/{name}" for name in settings.features.sets),
    ]

    @dg.multi_asset(
        name="scored",
        specs=[
            spec(
                SCORED,
                "Predictions with interval, confidence and risk by the champion, or by the next rung of the ladder.",
                owner=owner,
                deps=[*upstream, "models/champion"],
                schema=scoring.SCORED_SCHEMA,
                columns=COLUMNS,
            ),
            spec(
                UNPREDICTED,
                "Members of the universe without a prediction, each with its reason.",
                owner=owner,
                deps=[*upstream, "models/champion"],
                schema=UNPREDICTED_SCHEMA,
            ),
        ],
        check_specs=checks.SCORED_SPECS,
    )
    def scored(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        data = scoring.load_data(platform)
        sessions = scoring.sessions_to_score(platform, data)
        lake, before = platform.lake, scoring.current(platform)
        if sessions:
            history = before.filter(pl.col("session") < min(sessions))
            found, choices = scoring.score_all(platform, data, sessions, history=history)
            for failure in choices[-1].failures:
                context.log.warning("%s cannot predict: %s", failure.rung, failure)
            versions = scoring.store(platform, found.predictions, found.unpredicted, sessions)
            count, rung = found.predictions.height, choices[-1].name
            context.log.info("scored %s sessions, %s predictions by the %s", len(sessions), count, rung)
        else:
            versions = lake.versions([SCORED, UNPREDICTED])
        now = scoring.current(platform)
        for table, frame in ((UNPREDICTED, lake.read(UNPREDICTED)), (SCORED, now)):
            metadata = frame_metadata(frame, version=versions[table]) if sessions else up_to_date(versions[table])
            yield dg.MaterializeResult(
                asset_key=table.split("/"),
                metadata=metadata,
                check_results=checks.scored(now) if table == SCORED else [],
            )

    @dg.multi_asset(
        name="published",
        specs=[
            spec(
                PUBLISHED,
                "What readers see. Replaced in one commit, and only when every blocking check of the gate passes.",
                owner=owner,
                deps=[SCORED, UNPREDICTED],
                schema=scoring.SCORED_SCHEMA,
                columns=COLUMNS,
            )
        ],
        check_specs=checks.PUBLISHED_SPECS,
    )
    def published(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        lake, rows = platform.lake, scoring.current(platform)
        verdicts = checks.gate(platform, rows)
        if not may_publish(verdicts):
            yield from checks.gate_results(verdicts)
            failed = [f"{v.name}: {v.message}" for v in verdicts if not v.passed and v.severity == "error"]
            raise dg.Failure(
                "nothing was published, the last good publication stays: " + "; ".join(failed), allow_retries=False
            )
        before = lake.version(PUBLISHED)
        version = lake.replace(PUBLISHED, rows, metadata={"config_version": settings.version})
        newest = rows.filter(pl.col("session") == pl.col("session").max()).sort("rank")
        metadata = frame_metadata(newest, version=version, preview=20) if version != before else up_to_date(version)
        if version != before:
            metadata |= publication_metadata(newest)
        session = newest["session"].max()
        metadata |= task_result(session=str(session), published=newest.height, new=version != before)
        yield dg.MaterializeResult(
            asset_key=PUBLISHED.split("/"), metadata=metadata, check_results=checks.gate_results(verdicts)
        )

    @dg.multi_asset(
        name="outcomes",
        specs=[
            spec(
                OUTCOMES,
                "What became of published predictions, once their horizon has passed.",
                owner=owner,
                deps=[PUBLISHED, inputs.VALIDATED],
                columns=COLUMNS,
            )
        ],
        check_specs=checks.OUTCOME_SPECS,
    )
    def outcomes(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        rows = platform.lake.read(PUBLISHED).select(*PREDICTION_SCHEMA)
        bars = inputs.bars(platform).filter(pl.col("session") >= rows["session"].min())
        found = mature(rows, bars, settings.models.horizon)
        before = platform.lake.version(OUTCOMES)
        version = platform.lake.replace(OUTCOMES, found)
        metadata = frame_metadata(found, version=version) if version != before else up_to_date(version)
        if version != before:
            metadata |= outcome_metadata(found, settings.predictions.conformal.coverage)
        return dg.MaterializeResult(
            asset_key=OUTCOMES.split("/"),
            metadata=metadata,
            check_results=checks.outcomes(platform, found),
        )

    return [scored, published, outcomes]
