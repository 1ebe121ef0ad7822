"""Assets of the group ``features``: one table a feature set."""

from collections.abc import Iterator
from datetime import date

import dagster as dg
import polars as pl

from stock_pipeline.core.features import FeatureSet, compute_batches
from stock_pipeline.orchestration.assets.market import BENCHMARK, VALIDATED
from stock_pipeline.orchestration.checks import features as checks
from stock_pipeline.orchestration.derived import derive
from stock_pipeline.orchestration.inputs import bars_with_benchmark, chosen_feature_sets, usable_features
from stock_pipeline.orchestration.partitions import window, years
from stock_pipeline.orchestration.resources import Platform
from stock_pipeline.orchestration.specs import spec
from stock_pipeline.storage.watermarks import parameters_hash


def build(platform: Platform) -> list[dg.AssetsDefinition]:
    """One asset for each configured feature set."""
    return [_feature_asset(platform, name, chosen) for name, chosen in chosen_feature_sets(platform.settings).items()]


def _feature_asset(platform: Platform, name: str, chosen: FeatureSet) -> dg.AssetsDefinition:
    settings = platform.settings
    table = f"features/{name}"
    schema = {"symbol": pl.String(), "session": pl.Date(), **{f.name: pl.Float32() for f in chosen.features}}

    @dg.multi_asset(
        name=f"features_{name}",
        specs=[
            spec(
                table,
                f"{len(chosen.features)} features of the set {name!r}; each depends only on bars up to its session.",
                owner=settings.market.owner,
                deps=[VALIDATED, BENCHMARK],
                schema=schema,
                columns={f.name: f.description for f in chosen.features},
            )
        ],
        check_specs=checks.specs(table),
        partitions_def=years(settings.market.history.first, settings.market.history.last),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def features(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        bars = bars_with_benchmark(platform)
        usable = usable_features(chosen, bars, settings.features.missing_columns)

        def rows(start: date, end: date) -> Iterator[pl.DataFrame]:
            return compute_batches(bars.filter(pl.col("session") <= end), usable, start)

        parameters = parameters_hash(usable.hash)
        metadata = derive(context, platform, table, inputs={"bars": bars}, parameters=parameters, compute=rows)
        metadata |= {"feature_set_hash": usable.hash, "features": len(usable.features)}
        first, last = window(context, settings.market.history)
        inside = bars.filter(pl.col("session").is_between(first, last))
        found = checks.evaluate(table, platform.lake.read(table, start=first, end=last), inside)
        return dg.MaterializeResult(asset_key=table.split("/"), metadata=metadata, check_results=found)

    return features
