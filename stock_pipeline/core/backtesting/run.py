"""One call from a strategy's name to a finished backtest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stock_pipeline.core.backtesting.curves import equity_frame, monthly_table, positions_frame
from stock_pipeline.core.backtesting.data import MarketData, Matrix, Panel
from stock_pipeline.core.backtesting.execution import execute
from stock_pipeline.core.backtesting.fills import COST_KINDS, Execution, fills_frame, unfilled_frame
from stock_pipeline.core.backtesting.ledger import Ledger, keep_accounts
from stock_pipeline.core.backtesting.lookahead import validate_no_lookahead
from stock_pipeline.core.backtesting.membership import member_targets
from stock_pipeline.core.backtesting.metrics import overfitting_metrics, relative_metrics, return_metrics, trade_metrics
from stock_pipeline.core.backtesting.notes import method_notes
from stock_pipeline.core.backtesting.replay import Reconciliation, reconcile, replay
from stock_pipeline.core.backtesting.result import BacktestResult
from stock_pipeline.core.backtesting.settings import BacktestSettings
from stock_pipeline.core.backtesting.sizing import size, target_matrix
from stock_pipeline.core.backtesting.strategies import Strategy, build
from stock_pipeline.core.backtesting.trades import round_trips
from stock_pipeline.core.errors import DataError
from stock_pipeline.core.parameters import Parameters


@dataclass(frozen=True)
class Simulation:
    """Fills, both ledgers and figures of one matrix of weights, before they are turned into frames."""

    execution: Execution
    ledger: Ledger
    reconciliation: Reconciliation | None
    returns: NDArray[np.float64]
    trades: pl.DataFrame
    metrics: dict[str, float | None]
    costs: dict[str, float]


def run_backtest(
    strategy: str | Strategy,
    parameters: Parameters | dict[str, Any] | None,
    bars: pl.DataFrame,
    *,
    predictions: pl.DataFrame | None = None,
    settings: BacktestSettings | None = None,
    benchmark: pl.DataFrame | None = None,
    membership: pl.DataFrame | None = None,
    second_ledger: bool = True,
) -> BacktestResult:
    """Backtest a strategy on stored bars.

    Parameters
    ----------
    strategy
        A built-in name, ``package.module:Class``, or a strategy object (then ``parameters`` must be ``None``).
    parameters
        Parameters of the strategy; missing ones take their defaults.
    bars
        Raw bars with ``adj_factor`` (`core.market.bars`); sessions before ``settings.start`` are look-back.
    predictions
        Out-of-sample predictions ``symbol, session, prediction`` (optionally ``trained_through``).
    settings
        Everything else; the defaults when ``None``.
    benchmark
        ``session, close`` of a benchmark; a column ``benchmark`` of the bars is used when ``None``.
    membership
        ``symbol, start, end`` of the point-in-time universe: only members are bought, and who leaves is sold. Give the
        bars of all symbols, members or not: they are the past of those who join and the exit of those who leave.
    second_ledger
        Whether vectorbt books the fills as well. Publishable results need it.

    Returns
    -------
    BacktestResult
        The same inputs give the same result, bit for bit.

    Raises
    ------
    ConfigurationError
        For an unknown strategy, a parameter out of range, or settings that the data or the exchange do not allow.
    DataError
        When the bars or predictions cannot be used.
    LookAheadError
        When the strategy's decisions change with later data, or a prediction was not out of sample.
    """
    settings = settings or BacktestSettings()
    chosen = strategy if isinstance(strategy, Strategy) else build(strategy, parameters)
    data = MarketData.from_bars(bars, predictions if chosen.needs_predictions else None, membership)
    if settings.end is not None:
        data = data.until(settings.end)
    decided = chosen.targets(data)
    validate_no_lookahead(chosen, data, cuts=settings.lookahead_cuts, seed=settings.seed, targets=decided)
    targets = member_targets(decided, data)
    panel = data.panel
    first = 0 if settings.start is None else int(np.searchsorted(np.array(panel.sessions), settings.start))  # type: ignore[call-overload]
    panel = panel.slice(first, len(panel.sessions))
    if len(panel.sessions) < 2:
        raise DataError(
            "fewer than two sessions are left to test on",
            value=f"{settings.start} to {settings.end}",
            allowed=f"{data.sessions[0]} to {data.sessions[-1]}" if data.sessions else None,
        )
    weights = size(target_matrix(targets, panel), panel, settings.portfolio, settings.sessions_per_year)
    reference = benchmark_closes(benchmark, bars, panel)
    simulation = simulate(panel, weights, settings, benchmark=reference, second_ledger=second_ledger)
    execution = simulation.execution
    return BacktestResult(
        strategy=chosen.name,
        description=chosen.description,
        parameters=chosen.parameters.model_dump(mode="json"),
        settings=settings,
        equity=equity_frame(panel, execution, simulation.ledger, reference, settings.portfolio.capital),
        fills=fills_frame(execution.fills, panel),
        unfilled=unfilled_frame(execution.unfilled, panel),
        trades=simulation.trades,
        positions=positions_frame(panel, simulation.ledger),
        monthly=monthly_table(panel, simulation.returns),
        metrics=simulation.metrics,
        costs=simulation.costs,
        reconciliation=simulation.reconciliation,
        notes=method_notes(panel, settings, simulation.execution),
        symbols=tuple(panel.symbols),
        ruined=None if execution.ruined is None else panel.sessions[execution.ruined],
        drawdown_stops=tuple(panel.sessions[t] for t in execution.pauses),
    )


def simulate(
    panel: Panel,
    weights: Matrix,
    settings: BacktestSettings,
    *,
    benchmark: NDArray[np.float64] | None = None,
    second_ledger: bool = True,
) -> Simulation:
    """Execution, ledgers and figures of a matrix of target weights (NaN: no decision), without a strategy.

    Parameters
    ----------
    panel, weights
        Dense data and weights of the same shape.
    settings
        Costs, rules, portfolio.
    benchmark
        Closes of a benchmark, shape (sessions,).
    second_ledger
        Whether vectorbt books the fills as well.
    """
    capital = settings.portfolio.capital
    execution = execute(panel, weights, settings)
    fills = execution.fills
    ledger = keep_accounts(fills, execution.borrow, panel, capital)
    checked = None
    if second_ledger:
        checked = reconcile(ledger, replay(fills, execution.borrow, ledger, panel, capital), panel)
    returns = equity_returns(ledger.equity, capital)
    trades = round_trips(fills, panel)
    costs = {kind: float(getattr(fills, kind).sum()) for kind in COST_KINDS}
    costs["borrow"] = float(execution.borrow.sum())
    costs["total"] = sum(costs.values())
    year, rate = settings.sessions_per_year, settings.risk_free
    metrics = return_metrics(returns, sessions_per_year=year, risk_free=rate)
    if benchmark is not None:
        relative = np.concatenate([[np.nan], benchmark[1:] / benchmark[:-1] - 1.0])
        metrics |= relative_metrics(returns, relative, sessions_per_year=year, risk_free=rate)
    metrics |= trade_metrics(trades)
    metrics |= activity_metrics(execution, ledger, year)
    metrics |= overfitting_metrics(returns, settings.trials, settings.trials_sharpe_variance)
    metrics["final_equity"] = float(ledger.equity[-1])
    return Simulation(execution, ledger, checked, returns, trades, metrics, costs)


def equity_returns(equity: NDArray[np.float64], capital: float) -> NDArray[np.float64]:
    """Return of each session; the first one is measured from the capital. After ruin returns are 0."""
    before = np.concatenate([[capital], equity[:-1]])
    alive = np.minimum.accumulate(before) > 0
    return np.where(alive, equity / np.where(alive, before, 1.0) - 1.0, 0.0)


def activity_metrics(execution: Execution, ledger: Ledger, sessions_per_year: int) -> dict[str, float | None]:
    """``turnover`` (half the traded value a year, over mean equity), ``exposure`` (mean gross value over equity),
    ``time_in_market`` (share of sessions with a position), ``fills, unfilled_orders``.
    """
    fills = execution.fills
    equity, years = ledger.equity, len(ledger.equity) / sessions_per_year
    gross = np.abs(ledger.values).sum(axis=1)
    solvent = bool((equity > 0).all())
    traded = float(np.abs(fills.units * fills.price).sum())
    return {
        "turnover": traded / 2 / float(equity.mean()) / years if solvent else None,
        "exposure": float((gross / equity).mean()) if solvent else None,
        "time_in_market": float((gross > 0).mean()),
        "fills": float(len(fills)),
        "unfilled_orders": float(len(execution.unfilled.row)),
    }


def benchmark_closes(benchmark: pl.DataFrame | None, bars: pl.DataFrame, panel: Panel) -> NDArray[np.float64] | None:
    """Closes of the benchmark on the panel's sessions, the last one of up to ten days before where it has none."""
    if benchmark is None:
        if "benchmark" not in bars.columns:
            return None
        benchmark = bars.select("session", close="benchmark").drop_nulls().unique("session", keep="first")
    missing = [c for c in ("session", "close") if c not in benchmark.columns]
    if missing:
        raise DataError("the benchmark lacks columns", value=missing, allowed="session, close")
    known = benchmark.select("session", pl.col("close").cast(pl.Float64)).drop_nulls().sort("session")
    sessions = pl.DataFrame({"session": pl.Series(panel.sessions, dtype=pl.Date)})
    return sessions.join_asof(known, on="session", tolerance="10d")["close"].fill_null(np.nan).to_numpy()
