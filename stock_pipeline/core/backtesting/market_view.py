"""The market as orders meet it: execution prices, who trades, price limits, lots, and what an order costs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stock_pipeline.core.backtesting.data import Matrix, Panel
from stock_pipeline.core.backtesting.fills import BLOCKS
from stock_pipeline.core.backtesting.orders import cap_orders
from stock_pipeline.core.backtesting.settings import BacktestSettings, CostSettings
from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline.core.market.exchange_rules import ExchangeRules, rules

Vector = NDArray[np.float64]
_HALTED, _LIMIT_UP, _LIMIT_DOWN, _VOLUME = (BLOCKS.index(x) for x in ("halted", "limit_up", "limit_down", "volume"))


@dataclass(frozen=True)
class MarketView:
    """Arrays that the loop reads, of shape (sessions, symbols) unless said otherwise.

    Parameters
    ----------
    at_open
        Whether orders are filled at the open (then stops act inside the session) or at the close.
    price
        Adjusted execution price, the last known close where there is none (NaN before the first bar).
    tradable
        Whether a symbol can be traded: it has an execution price, and its volume is unknown or above zero.
    up, down
        Raw prices at the limit, or ``None`` where the market has none. The reference is the previous close divided by
        the change of the adjustment factor, as exchanges do on ex-dates.
    minimum, step
        Lots, shape (symbols,).
    delisted
        Rows and columns at which a symbol has had no bar for the allowed number of sessions.
    days
        Calendar days since the previous session, shape (sessions,).
    """

    rules: ExchangeRules
    at_open: bool
    price: Matrix
    tradable: NDArray[np.bool_]
    up: Matrix | None
    down: Matrix | None
    minimum: Vector
    step: Vector
    delisted: dict[int, NDArray[np.int64]]
    days: Vector


def market_view(panel: Panel, settings: BacktestSettings) -> MarketView:
    """Prepare the market for a run.

    Raises
    ------
    ConfigurationError
        When execution at the open is asked for and there are no opens, or stops that act inside a session and there
        are no highs and lows, or the rules are unknown.
    """
    execution = settings.execution
    if execution.price == "open" and panel.open is None:
        raise ConfigurationError(
            "orders cannot be filled at the open, because the bars have none",
            value=execution.price,
            allowed="auto or close",
        )
    at_open = panel.open is not None and execution.price != "close"
    source = panel.open if at_open and panel.open is not None else panel.close
    market = rules(execution.rules)
    present = np.isfinite(source)
    tradable = present if panel.volume is None else present & ~(panel.volume == 0)
    before = np.vstack([np.full((1, panel.mark.shape[1]), np.nan), panel.mark[:-1]])
    up = down = None
    limits = market.limit_array(panel.symbols, panel.sessions, panel.special)
    if limits is not None:
        reference = before / panel.factor
        tick = market.tick
        up = np.floor(reference * (1 + limits) / tick + 0.5 + 1e-9) * tick
        down = np.floor(reference * (1 - np.minimum(limits, 1.0)) / tick + 0.5 + 1e-9) * tick
        down[np.isinf(limits)] = -np.inf
    minimum, step = market.lot_arrays(panel.symbols)
    if execution.fractional is not None:
        whole = 0.0 if execution.fractional else 1.0
        minimum, step = (minimum * whole, step * whole) if execution.fractional or step.any() else (step + 1, step + 1)
    days = np.array(panel.sessions, dtype="datetime64[D]")
    elapsed = np.concatenate([[0.0], np.diff(days).astype(float)])
    return MarketView(
        market,
        at_open,
        np.where(present, source, before),
        tradable,
        up,
        down,
        minimum,
        step,
        _delistings(np.isfinite(panel.close), execution.delisting_sessions),
        elapsed,
    )


def _delistings(present: NDArray[np.bool_], after: int | None) -> dict[int, NDArray[np.int64]]:
    if after is None or present.all():
        return {}
    rows = np.arange(present.shape[0])[:, None]
    last = np.maximum.accumulate(np.where(present, rows, -1), axis=0)
    at, columns = np.nonzero((rows - last == after) & (last >= 0))
    return {int(t): columns[at == t] for t in np.unique(at)}


def admit(
    market: MarketView,
    share: float | None,
    t: int,
    columns: NDArray[np.int64],
    raw: Vector,
    order: Vector,
    volume: Vector | None,
    used: Vector,
) -> tuple[Vector, NDArray[np.int64]]:
    """What the exchange lets through of signed raw orders of one session.

    Parameters
    ----------
    market, t, columns
        The market, and the session and symbols of the orders.
    share
        Largest share of the volume, or ``None``.
    raw, order, volume, used
        Raw price, signed order, the session's volume (``None`` or NaN: unknown) and shares traded in it already, each
        of shape (orders,).

    Returns
    -------
    order : numpy.ndarray
        0 where the symbol is halted or stands at the limit in the order's direction; cut to the share of volume.
    block : numpy.ndarray
        Codes of `BLOCKS`.
    """
    active = order != 0
    block = np.where(active & ~market.tradable[t, columns], _HALTED, 0)
    if market.up is not None and market.down is not None:
        half = market.rules.tick / 2
        free = active & (block == 0)
        block = np.where(free & (order > 0) & (raw >= market.up[t, columns] - half), _LIMIT_UP, block)
        block = np.where(free & (order < 0) & (raw <= market.down[t, columns] + half), _LIMIT_DOWN, block)
    order = np.where(block != 0, 0.0, order)
    if share is not None and volume is not None:
        cap = np.where(np.isfinite(volume), share * volume, np.inf) - used
        cut = cap_orders(order, cap, market.minimum[columns], market.step[columns])
        block = np.where(cut != order, _VOLUME, block)
        order = cut
    return order, block


class Charges:
    """What orders cost: commission with a minimum, stamp duty and transfer fee by side and date, slippage."""

    def __init__(self, costs: CostSettings, market: ExchangeRules, panel: Panel) -> None:
        self._costs = costs
        self._slip = costs.slippage_bps / 1e4
        self._levies = market.levy_arrays(panel.sessions)
        for name, override in (("duty_buy", costs.buy_levy), ("duty_sell", costs.sell_levy)):
            if override is not None:
                self._levies[name] = np.full(len(panel.sessions), override)

    def slipped(self, price: Vector, order: Vector) -> Vector:
        """Price after slippage, against the direction of the order."""
        return price * (1.0 + np.sign(order) * self._slip)

    def fees(self, t: int, shares: Vector, price: Vector) -> tuple[Vector, Vector, Vector]:
        """Commission, stamp duty and transfer fee of signed orders (raw shares) at raw fill prices."""
        size = np.abs(shares)
        value = size * price
        costs = self._costs
        commission = np.maximum(
            costs.commission_rate * value + costs.commission_per_share * size, costs.commission_minimum
        )
        buy = shares > 0
        duty = value * np.where(buy, self._levies["duty_buy"][t], self._levies["duty_sell"][t])
        transfer = value * np.where(buy, self._levies["transfer_buy"][t], self._levies["transfer_sell"][t])
        return np.where(size > 0, commission, 0.0), duty, transfer

    def total(self, t: int, shares: Vector, price: Vector) -> Vector:
        """All costs of signed orders, slippage from the given raw price included."""
        filled = self.slipped(price, shares)
        commission, duty, transfer = self.fees(t, shares, filled)
        return commission + duty + transfer + np.abs(shares) * np.abs(filled - price)
