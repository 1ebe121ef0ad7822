"""Assets of the group ``backtests``: one result and one report a strategy."""

import dagster as dg

from stock_pipeline.orchestration import backtesting
from stock_pipeline.orchestration.checks import backtests as checks
from stock_pipeline.orchestration.metadata import backtest_metadata, frame_metadata, up_to_date
from stock_pipeline.orchestration.partitions import rebuild
from stock_pipeline.orchestration.progress import Reporter
from stock_pipeline.orchestration.resources import Platform
from stock_pipeline.orchestration.specs import spec

RESULTS = "backtests/results"


def build(platform: Platform) -> list[dg.AssetsDefinition]:
    """The back-test assets of one configuration."""
    settings = platform.settings
    parameters = {strategy.name: strategy.parameters for strategy in settings.backtests.strategies}

    @dg.multi_asset(
        name="backtest_results",
        specs=[
            spec(
                RESULTS,
                "Strategies on real prices after costs, under the exchange's rules, with fills booked in two ledgers.",
                owner=settings.market.owner,
                deps=["market/validated_bars", "market/membership", "market/benchmark", "models/champion"],
                whole=True,
                kinds={"polars", "vectorbt", "html"},
            )
        ],
        check_specs=checks.SPECS,
        partitions_def=dg.StaticPartitionsDefinition(list(parameters)),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def backtest_results(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        prepared = [backtesting.prepare(platform, name, parameters[name]) for name in context.partition_keys]
        for one in filter(backtesting.lacks_predictions, prepared):
            context.log.warning("%s is left out: there is no champion with out-of-sample predictions", one.name)
        prepared = [one for one in prepared if not backtesting.lacks_predictions(one)]
        backtesting.count(platform, prepared)
        stale = [p for p in prepared if rebuild(context) or not backtesting.is_current(platform, p)]
        results = []
        progress = Reporter(context.log.info)
        for number, one in enumerate(stale):
            progress("strategy", number, len(stale), one.name)
            results.append(backtesting.execute(platform, one))
            sharpe = checks.shown(results[-1].metrics.get("sharpe"))
            context.log.info("%s: Sharpe %s after costs", one.name, sharpe)
        computed = [backtesting.deflate(platform, result) for result in results]
        for one, result in zip(stale, computed, strict=True):
            backtesting.keep(platform, one, result)
        backtesting.forget_others(platform, list(parameters))
        if not platform.lake.exists(backtesting.SUMMARY):
            return dg.MaterializeResult(asset_key=RESULTS.split("/"), check_results=checks.evaluate(platform, []))
        summary = platform.lake.read(backtesting.SUMMARY)
        metadata = frame_metadata(
            summary.select("strategy", "annual_return", "sharpe", "max_drawdown", "total_costs", "report")
        )
        if computed:
            metadata |= backtest_metadata(platform.lake, summary, [one.name for one in stale])
        return dg.MaterializeResult(
            asset_key=RESULTS.split("/"),
            metadata=metadata if computed else metadata | up_to_date(None),
            check_results=checks.evaluate(platform, computed),
        )

    return [backtest_results]
