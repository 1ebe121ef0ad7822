"""Whether a request for a task makes sense, found out without computing anything.

A request that is well formed may still ask for symbols, strategies, parameters or families that do not exist. Saying so
at once is kinder than a run that fails minutes later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

import polars as pl

from stock_pipeline.api.problems import ProblemError
from stock_pipeline.config import Settings
from stock_pipeline.config.tasks import BackfillRequest, BacktestRequest, PredictRequest, TrainRequest
from stock_pipeline.core.backtesting import strategies
from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline.core.parameters import Parameters
from stock_pipeline.storage.lake import Lake
from stock_pipeline.storage.publication import PublicationCache

BARS = "market/validated_bars"
MAX_DEPTH = 8
"""Nesting of a strategy's parameters; no strategy needs more."""

_SHOWN = 20


class RequestChecks:
    """Checks of one market.

    Parameters
    ----------
    settings
        The configuration.
    lake
        The tables.
    publications
        The newest publication: its symbols are known without a look into the tables.
    """

    def __init__(self, settings: Settings, lake: Lake, publications: PublicationCache) -> None:
        self._settings, self._lake, self._publications = settings, lake, publications
        self._checks: dict[str, Callable[[Any], None]] = {
            "predict": self._predict,
            "backtest": self._backtest,
            "train": self._train,
            "backfill": self._backfill,
        }

    def check(self, kind: str, request: Parameters) -> None:
        """Refuse what cannot be done.

        Raises
        ------
        ProblemError
            422 ``invalid-parameters`` with the parameter and what is allowed; 409 ``no-data`` before the first run.
        """
        check = self._checks.get(kind)
        if check is not None:
            check(request)

    def newest(self) -> date | None:
        """Session of the newest publication, where there is one."""
        current = self._publications.current
        return None if current is None else current.session

    def strategy_names(self) -> list[str]:
        """Strategies that may be asked for: those of the platform and those of the configuration."""
        configured = [strategy.name for strategy in self._settings.backtests.strategies]
        return [*strategies.names(), *sorted(set(configured) - set(strategies.names()))]

    def _predict(self, request: PredictRequest) -> None:
        self._needs_bars()
        current = self._publications.current
        known = set() if current is None else set(current.frame["symbol"].to_list())
        missing = [symbol for symbol in request.symbols if symbol not in known]
        if not missing:
            return
        rows = self._lake.scan(BARS, symbols=missing, columns=["symbol"]).select(pl.col("symbol").unique()).collect()
        unknown = sorted(set(missing) - set(rows["symbol"].to_list()))
        if unknown:
            listed = ", ".join(unknown[:_SHOWN]) + (
                f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
            )
            raise _refused("symbols", f"the market has no bars of these symbols: {listed}", listed)

    def _backtest(self, request: BacktestRequest) -> None:
        allowed = self.strategy_names()
        if request.strategy not in allowed:
            # a dotted path would be imported: only those that the configuration names are
            raise _refused("strategy", f"there is no such strategy; allowed: {', '.join(allowed)}", request.strategy)
        if _depth(request.parameters) > MAX_DEPTH:
            raise _refused("parameters", f"nested deeper than {MAX_DEPTH} levels", None)
        try:
            strategies.build(request.strategy, dict(request.parameters))
        except ConfigurationError as error:
            raise _refused("parameters", f"{error.what}; allowed: {error.allowed}", error.value) from error
        chosen = self._settings.backtests
        start, end = request.start or chosen.start, request.end or chosen.end
        if start is not None and end is not None and start >= end:
            raise _refused("start", f"the account would end ({end}) before it starts ({start})", start)
        self._needs_bars()

    def _train(self, request: TrainRequest) -> None:
        configured: Sequence[str] = self._settings.models.families
        for family in request.families or ():
            if family not in configured:
                raise _refused("families", f"not a configured family; allowed: {', '.join(configured)}", family)

    def _backfill(self, request: BackfillRequest) -> None:
        history = self._settings.market.history
        if request.end is not None and request.end.year < history.first:
            raise _refused("end", f"the market's history begins in {history.first}", request.end)
        if history.last is not None and request.start is not None and request.start.year > history.last:
            raise _refused("start", f"the market's history ends in {history.last}", request.start)

    def _needs_bars(self) -> None:
        if not self._lake.exists(BARS):
            raise ProblemError(
                409, "no-data", "there are no bars yet; start a task of the kind backfill, or run `stock-pipeline run`"
            )


def _refused(parameter: str, message: str, value: Any) -> ProblemError:
    shown = None if value is None else str(value)[:200]
    errors = [{"parameter": f"parameters.{parameter}", "message": message, "value": shown}]
    return ProblemError(422, "invalid-parameters", f"{parameter}: {message}", errors=errors)


def _depth(value: Any) -> int:
    """Levels of nesting, counted only as far as it matters."""
    depth, layer = 0, [value]
    while layer and depth <= MAX_DEPTH:
        layer = [
            inner
            for outer in layer
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        depth += 1
    return depth
