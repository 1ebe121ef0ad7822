"""Commands that make things: run, demo, predict, backtest, replay."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated

import typer

from stock_pipeline.cli.app import Context, app
from stock_pipeline.cli.console import Progress, err, out
from stock_pipeline.cli.values import named_values


def _date(moment: datetime | None) -> date | None:
    return moment.date() if moment else None


@app.command()
def run(
    context: typer.Context,
    start: Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First session.")] = None,
    end: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last session.")] = None,
    rebuild: Annotated[bool, typer.Option(help="Compute again what did not change.")] = False,
    retrain: Annotated[bool, typer.Option(help="Train and promote also when there is a champion.")] = False,
    market: Annotated[
        str | None, typer.Option(help="Name of the market, instead of --config: its file is found by market.name.")
    ] = None,
) -> None:
    """Catch up to the newest session: prices, validation, features, risk, predictions, back-tests."""
    from stock_pipeline.cli.summary import print_runs, print_summary
    from stock_pipeline.config import find_market
    from stock_pipeline.config.home import claim_home
    from stock_pipeline.orchestration.runner import Runner

    given: Context = context.obj
    if market is not None:
        given.config = find_market(market)
    settings = given.settings()
    claim_home(settings)
    runner = Runner(settings, Progress(given.quiet))
    outcomes = runner.catch_up(start=_date(start), end=_date(end), rebuild=rebuild, retrain=retrain)
    if any(outcome.computed for outcome in outcomes):
        print_summary(runner.platform, outcomes)
    else:
        print_runs(outcomes)


@app.command()
def demo(context: typer.Context) -> None:
    """Run the whole pipeline on the sample market and show what came out."""
    from stock_pipeline.cli.summary import print_summary
    from stock_pipeline.config.home import claim_home
    from stock_pipeline.config.loading import SAMPLE_FILE, load_settings
    from stock_pipeline.orchestration.runner import Runner

    given: Context = context.obj
    settings = load_settings(given.config or SAMPLE_FILE)
    claim_home(settings)
    err.print("[bold]stock_pipeline[/bold]: the whole pipeline on real sample prices")
    runner = Runner(settings, Progress(given.quiet))
    outcomes = runner.catch_up()
    print_summary(runner.platform, outcomes)


@app.command()
def predict(context: typer.Context, symbols: Annotated[list[str], typer.Argument(help="Symbols.")]) -> None:
    """Predict symbols now with the champion, as a run that the web UI shows; prints what would be published."""
    from stock_pipeline.cli.show import FIRST_COLUMNS, Kind, print_rows
    from stock_pipeline.orchestration.on_request import predict_symbols

    given: Context = context.obj
    predictions, unpredicted = predict_symbols(given.settings(), symbols, Progress(given.quiet))
    if predictions.height:
        print_rows(predictions, "Predictions on request", FIRST_COLUMNS[Kind.predictions])
    if unpredicted.height:
        print_rows(unpredicted, "Not predicted, and why")
    if predictions.is_empty():
        raise typer.Exit(1)


@app.command()
def backtest(
    context: typer.Context,
    strategy: Annotated[str, typer.Argument(help="A registered strategy; `show backtests` lists results.")],
    parameter: Annotated[list[str] | None, typer.Option("--parameter", "-p", help="NAME=VALUE, repeatable.")] = None,
    start: Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First session.")] = None,
    end: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last session.")] = None,
) -> None:
    """Back-test a strategy on the validated bars, with costs and exchange rules; writes its report."""
    from stock_pipeline.cli.summary import print_backtest
    from stock_pipeline.orchestration.on_request import backtest_strategy

    given: Context = context.obj
    result, report = backtest_strategy(
        given.settings(), strategy, named_values(parameter or []), _date(start), _date(end), Progress(given.quiet)
    )
    print_backtest(result, report)


@app.command()
def replay(context: typer.Context, prediction_id: Annotated[str, typer.Argument(help="Id of a prediction.")]) -> None:
    """Compute a published prediction again from the data and the model that it names, and compare bit by bit."""
    from stock_pipeline.orchestration.replay import replay as compute_again

    given: Context = context.obj
    comparison = compute_again(given.settings(), prediction_id)
    out.print(comparison.summary(), markup=False)
    for difference in comparison.differences:
        out.print(
            f"  {difference.field}: stored {difference.stored!r}, computed {difference.recomputed!r}", markup=False
        )
    if not comparison.identical:
        raise typer.Exit(2)
