"""Sentences that stand below every result: how it was made and what it leaves out."""

from __future__ import annotations

import numpy as np

from stock_pipeline.core.backtesting.data import Panel
from stock_pipeline.core.backtesting.fills import Execution
from stock_pipeline.core.backtesting.market_view import market_view
from stock_pipeline.core.backtesting.settings import BacktestSettings


def method_notes(panel: Panel, settings: BacktestSettings, execution: Execution) -> tuple[str, ...]:
    """Notes on method and limits, chosen by what was actually used."""
    view = market_view(panel, settings)
    costs, portfolio = settings.costs, settings.portfolio
    moment = "open" if view.at_open else "close"
    notes = [
        f"A decision is made after the close of a session and executed at the {moment} of the next one.",
        "Positions are kept in adjusted units: splits change nothing; dividends are reinvested without cost or "
        "tax. Orders are rounded to lots, charged and limited at the raw prices and share counts of the day.",
        f"Costs: commission {100 * costs.commission_rate:g} % (at least {costs.commission_minimum:g} an order), "
        f"slippage {costs.slippage_bps:g} basis points a fill, exchange rules {view.rules.name}.",
        "Idle cash earns nothing.",
        "The symbols are those of the data given: where they were chosen because they did well later, every figure is "
        "too high, that of buy and hold included.",
    ]
    if (execution.borrow > 0).any():
        notes.append(
            f"Short positions pay {100 * costs.borrow_rate:g} % a year; whether shares could be borrowed is not known."
        )
    if portfolio.stop_loss or portfolio.trailing_stop or portfolio.take_profit:
        notes.append(
            "Stops are filled at their level, or at the open when a session opens beyond it; real stops can be worse."
            if view.at_open
            else "Stops look at the close and are executed at the next one."
        )
    if settings.execution.max_participation is not None:
        notes.append("The share of volume is taken of the volume of the session itself, known only at its end.")
    if view.up is not None and bool(np.all(panel.factor == 1.0)):
        notes.append("The bars carry no adjustment factors: ex-dates look like falls, and may look like price limits.")
    if settings.trials > 1 and settings.trials_sharpe_variance is None:
        notes.append(
            "The variance of the trials is unknown; the deflated Sharpe ratio takes that of trials without skill."
        )
    if not np.isfinite(panel.close[-1]).all() and not view.delisted:
        notes.append("Some symbols end before the last session; their positions stay at the last close.")
    return tuple(notes)
