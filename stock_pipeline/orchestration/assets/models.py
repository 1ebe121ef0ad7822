"""Assets of the group ``models``: one candidate a family, and the champion."""

from typing import Any

import dagster as dg

from stock_pipeline.core.modelling.evaluation import evaluate
from stock_pipeline.orchestration import training
from stock_pipeline.orchestration.checks import models as checks
from stock_pipeline.orchestration.metadata import figures_table, skill_metadata, up_to_date
from stock_pipeline.orchestration.partitions import chosen_families, rebuild
from stock_pipeline.orchestration.progress import Reporter
from stock_pipeline.orchestration.resources import Platform
from stock_pipeline.orchestration.specs import spec

CANDIDATES, CHAMPION = "models/candidates", "models/champion"


def build(platform: Platform) -> list[dg.AssetsDefinition]:
    """The model assets of one configuration."""
    settings = platform.settings
    owner = settings.market.owner
    upstream = [
        "market/validated_bars",
        "market/membership",
        "risk/symbol_risk",
        *(f"features/{name}" for name in settings.features.sets),
    ]
    families = dg.StaticPartitionsDefinition(settings.models.families)

    @dg.multi_asset(
        name="candidates",
        specs=[
            spec(
                CANDIDATES,
                "Model families trained walk-forward with purge and embargo; every version is in MLflow.",
                owner=owner,
                deps=upstream,
                whole=True,
                kinds={"mlflow", "lightgbm", "scikitlearn"},
            )
        ],
        check_specs=checks.CANDIDATE_SPECS,
        partitions_def=families,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def candidates(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        data = training.load(platform)
        wanted = chosen_families(context, settings.models.families)
        stale = [f for f in wanted if rebuild(context) or not training.is_current(platform, data, f)]
        progress = Reporter(context.log.info)
        if stale:
            for name in training.BASELINES:
                training.train_baseline(platform, data, name)
        for family in stale:
            version, _ = training.train_family(platform, data, family, context.log.info, progress)
            context.log.info("%s is registered as version %s", family, version.version)
        oos = {name: training.out_of_sample(platform, name) for name in (*wanted, *training.BASELINES)}
        figures = {name: evaluate(frame, horizon=settings.models.horizon) for name, frame in oos.items()}
        metadata: dict[str, Any] = {
            "out_of_sample": dg.MetadataValue.md(figures_table(figures)),
            "dagster/row_count": data.frame.height,
        }
        metadata |= training.links(platform, wanted)
        if stale:
            metadata |= skill_metadata(oos, figures)
        return dg.MaterializeResult(
            asset_key=CANDIDATES.split("/"),
            metadata=metadata if stale else metadata | up_to_date(None),
            check_results=[*checks.candidates(figures, wanted), checks.covered(platform, wanted)],
        )

    @dg.multi_asset(
        name="champion",
        specs=[
            spec(
                CHAMPION,
                "The model that predicts. Its alias moves only through the promotion rule, never because it is newest.",
                owner=owner,
                deps=[CANDIDATES],
                kinds={"mlflow"},
            )
        ],
        check_specs=checks.CHAMPION_SPECS,
    )
    def champion(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        election = training.elect(platform)
        for reason in election.decision.reasons if election and election.decision else ():
            context.log.info("promotion: %s", reason)
        metadata = checks.election_metadata(platform, election)
        return dg.MaterializeResult(
            asset_key=CHAMPION.split("/"), metadata=metadata, check_results=checks.champion(platform, election)
        )

    return [candidates, champion]
