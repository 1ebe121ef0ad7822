"""Assets of the group ``risk``: volatility, value at risk and expected shortfall of each symbol and session."""

from datetime import date

import dagster as dg
import polars as pl

from stock_pipeline.core.features import with_lookback
from stock_pipeline.core.risk.backtest import risk_backtest
from stock_pipeline.core.risk.symbol_risk import symbol_risk
from stock_pipeline.orchestration import inputs
from stock_pipeline.orchestration.checks import risk as checks
from stock_pipeline.orchestration.derived import derive
from stock_pipeline.orchestration.metadata import risk_metadata
from stock_pipeline.orchestration.partitions import years
from stock_pipeline.orchestration.resources import Platform
from stock_pipeline.orchestration.specs import COLUMNS, spec
from stock_pipeline.storage.code_version import code_version
from stock_pipeline.storage.watermarks import parameters_hash

TABLE, BACKTEST = "risk/symbol_risk", "risk/var_backtest"


def build(platform: Platform) -> list[dg.AssetsDefinition]:
    """The risk table and the back-test of its value at risk."""
    settings = platform.settings

    @dg.multi_asset(
        name="symbol_risk",
        specs=[
            spec(
                TABLE,
                "Risk of each symbol at each session, from returns up to that session.",
                owner=settings.market.owner,
                deps=[inputs.VALIDATED],
                columns=COLUMNS,
            )
        ],
        check_specs=checks.SPECS,
        partitions_def=years(settings.market.history.first, settings.market.history.last),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def symbol_risk_table(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        bars = inputs.bars(platform)

        def rows(start: date, end: date) -> list[pl.DataFrame]:
            needed = with_lookback(bars.filter(pl.col("session") <= end), start, settings.risk.lookback)
            return [symbol_risk(needed, settings.risk, start=start)]

        parameters = parameters_hash(settings.risk.model_dump_json(), code_version("core/risk"))
        metadata = derive(context, platform, TABLE, inputs={"bars": bars}, parameters=parameters, compute=rows)
        if "up_to_date" not in metadata:
            metadata |= risk_metadata(platform.lake, TABLE)
        risk = platform.lake.read(TABLE)
        per_symbol, pooled = risk_backtest(risk, bars)
        platform.lake.replace(BACKTEST, per_symbol)
        return dg.MaterializeResult(
            asset_key=TABLE.split("/"),
            metadata=metadata,
            check_results=[checks.ordered(risk), checks.backtested(per_symbol, pooled)],
        )

    return [symbol_risk_table]
