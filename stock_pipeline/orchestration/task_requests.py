"""Requests for work as run configuration, and what is checked of them before work begins."""

import json
from collections.abc import Sequence
from datetime import date
from typing import Any, TypeVar

import dagster as dg
import polars as pl
from pydantic import Field, ValidationError

from stock_pipeline.config.explaining import faults_of
from stock_pipeline.config.tasks import BacktestRequest, PredictRequest
from stock_pipeline.core.backtesting.settings import BacktestSettings
from stock_pipeline.core.backtesting.strategies import build as build_strategy
from stock_pipeline.core.errors import ConfigurationError, NotFoundError
from stock_pipeline.core.parameters import Parameters
from stock_pipeline.orchestration import inputs, scoring
from stock_pipeline.orchestration.resources import Platform

Request = TypeVar("Request", bound=Parameters)


class PredictConfig(dg.Config):
    """What is to be predicted."""

    symbols: list[str] = Field(description="symbols of the market")


class BacktestConfig(dg.Config):
    """What is to be back-tested."""

    strategy: str = Field(description="name of a registered or configured strategy")
    parameters: str = Field("{}", description="its parameters as JSON; the defaults where left out")
    start: str | None = Field(None, description="first session of the account, ISO")
    end: str | None = Field(None, description="last session of the account, ISO")


def predict_request(config: PredictConfig) -> PredictRequest:
    """The request of a run's configuration.

    Raises
    ------
    ConfigurationError
        It is not acceptable.
    """
    return _validated(PredictRequest, {"symbols": config.symbols})


def backtest_request(config: BacktestConfig) -> BacktestRequest:
    """The request of a run's configuration.

    Raises
    ------
    ConfigurationError
        It is not acceptable.
    """
    try:
        parameters = json.loads(config.parameters)
    except ValueError as error:
        raise ConfigurationError(
            "the strategy's parameters are not JSON", value=config.parameters[:200], allowed='such as {"fast": 20}'
        ) from error
    values = {"strategy": config.strategy, "parameters": parameters, "start": config.start, "end": config.end}
    return _validated(BacktestRequest, values)


def check_known(platform: Platform, symbols: Sequence[str]) -> None:
    """Check that there are bars of all symbols.

    Raises
    ------
    NotFoundError
        There are no bars, or a symbol is unknown.
    """
    _check_bars(platform)
    known = set(platform.lake.read(inputs.VALIDATED, columns=["symbol"])["symbol"].unique().to_list())
    unknown = sorted(set(symbols) - known)
    if unknown:
        raise NotFoundError("there are no bars of these symbols", value=unknown, allowed=_some(sorted(known)))


def check_backtest(
    platform: Platform, strategy: str, parameters: dict[str, Any], start: date | None, end: date | None
) -> None:
    """Check that a back-test can be begun.

    Raises
    ------
    NotFoundError
        There are no bars.
    ConfigurationError
        Strategy, parameters or dates are not acceptable.
    """
    _check_bars(platform)
    backtest_settings(platform, start, end)
    build_strategy(strategy, parameters)


def backtest_settings(platform: Platform, start: date | None, end: date | None) -> BacktestSettings:
    """The configured settings of back-tests with the dates that were asked for.

    Raises
    ------
    ConfigurationError
        It would end before it starts.
    """
    asked = {name: day for name, day in (("start", start), ("end", end)) if day is not None}
    chosen = platform.settings.backtest.model_copy(update=asked)
    if chosen.start is not None and chosen.end is not None and chosen.start >= chosen.end:
        raise ConfigurationError(
            "the back-test would end before it starts",
            value=f"{chosen.start} to {chosen.end}",
            fix="correct --from or --to",
        )
    return chosen


def predict_now(platform: Platform, symbols: Sequence[str]) -> tuple[pl.DataFrame, pl.DataFrame, str]:
    """Predictions of symbols for the newest session, the reasons of those without one, and who predicted."""
    data = scoring.load_data(platform)
    newest = data.bars["session"].max()
    assert isinstance(newest, date)
    choice = scoring.choose_rung(platform, data, [newest])
    history = scoring.current(platform).filter(pl.col("session") < newest)
    scored = scoring.score_sessions(platform, data, choice, [newest], history=history)
    extra = scoring.score_sessions(platform, data, choice, [newest], history=history, symbols=symbols)
    wanted = pl.col("symbol").is_in(list(symbols))
    predictions = scored.predictions.filter(wanted)
    unpredicted = pl.concat([scored.unpredicted.filter(wanted), extra.unpredicted.filter(wanted)]).unique(
        ["symbol", "session"], keep="first", maintain_order=True
    )
    missing = unpredicted.join(predictions, on=["symbol", "session"], how="anti", maintain_order="left")
    return predictions.sort("rank"), missing, choice.name


def _validated(model: type[Request], values: dict[str, Any]) -> Request:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigurationError("the request is not acceptable: " + "; ".join(faults_of(error))) from error


def _check_bars(platform: Platform) -> None:
    if not platform.lake.exists(inputs.VALIDATED):
        raise NotFoundError("there are no bars yet", fix="run `stock-pipeline run` first")


def _some(names: Sequence[str], count: int = 20) -> str:
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")
