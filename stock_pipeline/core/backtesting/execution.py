"""The execution model: targets become fills, session by session, under the rules of the exchange.

One session
-----------
1. Borrow cost of short positions held overnight is charged on their value at the previous close.
2. Positions without a bar for too long are written off at their last close ("delisted").
3. The targets decided at the previous session, and orders carried over, are executed at the open (or at the close,
   where there are no opens): position wanted = weight x equity at the execution prices, rounded to lots; no fill when
   the symbol is halted or stands at the price limit in the order's direction; at most a share of the session's volume;
   opening orders cut in one proportion when the account could not carry them. Reductions are made before openings.
4. Price stops act on the session's high and low (`stops`), with the same costs and limits; shares bought in the same
   session cannot be sold where the rules say so. With execution at the close, stops look at the close and are executed
   at the next one.
5. At the close the account is valued, and the drawdown stop is checked; it flattens at the next execution and, when
   its pause is over, the last targets are issued again.

An exit forced by a stop is tried every session until it is done, and targets for that symbol are ignored meanwhile.
A symbol that was stopped out stays out until the strategy decides about it again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stock_pipeline.core.backtesting.account import Account
from stock_pipeline.core.backtesting.data import Matrix, Panel
from stock_pipeline.core.backtesting.fills import BLOCKS, REASONS, Execution, Recorder
from stock_pipeline.core.backtesting.market_view import Charges, admit, market_view
from stock_pipeline.core.backtesting.orders import fit_buying_power, order_shares, round_lots, split_order
from stock_pipeline.core.backtesting.settings import BacktestSettings
from stock_pipeline.core.backtesting.stops import stop_fills
from stock_pipeline.core.errors import ConfigurationError

Vector = NDArray[np.float64]
_R = {name: code for code, name in enumerate(REASONS)}
_B = {name: code for code, name in enumerate(BLOCKS)}
_CARRIED = np.array([name in ("halted", "limit_up", "limit_down", "volume") for name in BLOCKS])


def execute(panel: Panel, weights: Matrix, settings: BacktestSettings) -> Execution:
    """Run the execution model.

    Parameters
    ----------
    panel
        Dense data.
    weights
        Target weights decided at each session's close, NaN for no decision, shape (sessions, symbols).
    settings
        Costs, rules, portfolio.

    Raises
    ------
    ConfigurationError
        When a target is short and the rules forbid it, or the settings ask for prices that the data has not.
    """
    return _Loop(panel, weights, settings).run()


class _Loop:
    def __init__(self, panel: Panel, weights: Matrix, settings: BacktestSettings) -> None:
        self.panel, self.weights, self.settings = panel, weights, settings
        self.market = market_view(panel, settings)
        self.charges = Charges(settings.costs, self.market.rules, panel)
        if not self.market.rules.shorting and settings.execution.shorting == "rules" and (weights < 0).any():
            t, s = (int(x[0]) for x in np.nonzero(weights < 0))
            raise ConfigurationError(
                f"the {self.market.rules.name} rules allow no short position, but {panel.symbols[s]} is one on "
                f"{panel.sessions[t]}",
                value=float(weights[t, s]),
                allowed="weights >= 0",
                fix="use a long-only strategy or set execution.shorting to allowed",
            )
        self.portfolio = settings.portfolio
        self.account = Account(self.portfolio.capital, len(panel.symbols))
        self.stops = any(
            x is not None for x in (self.portfolio.stop_loss, self.portfolio.trailing_stop, self.portfolio.take_profit)
        )
        self.ranges = panel.close, panel.close, panel.close
        if self.stops and self.market.at_open:
            if panel.open is None or panel.high is None or panel.low is None:
                raise ConfigurationError(
                    "price stops need highs and lows, and the bars have none", fix="drop the stops"
                )
            self.ranges = panel.open, panel.high, panel.low
        shape = len(panel.symbols)
        self.pending = np.full(shape, np.nan)
        self.desired = np.full(shape, np.nan)
        self.forced = np.zeros(shape, dtype=bool)
        self.reason = np.zeros(shape, dtype=np.int64)
        self.recorder = Recorder()
        self.decisions = np.asarray(np.isfinite(weights).any(axis=1))
        self.peak = self.portfolio.capital
        self.paused: float | None = None
        self.ruined: int | None = None
        self.pauses: list[int] = []

    def run(self) -> Execution:
        n = len(self.panel.sessions)
        cash, equity, borrow = np.empty(n), np.empty(n), np.zeros(n)
        for t in range(n):
            if t and self.account.held.size:
                borrow[t] = self._borrow(t)
            if t in self.market.delisted:
                self._delist(t, self.market.delisted[t])
            if t:
                self._decide(t - 1)
            if t == n - 1 and self.settings.execution.flatten_at_end:
                self._force(self.account.held, "end")
                self.pending[~self.forced] = np.nan
            self.account.new_session()
            due = np.flatnonzero(np.isfinite(self.pending))
            idle = due[(self.pending[due] == 0) & (self.account.units[due] == 0)]
            if idle.size:
                self.pending[idle] = np.nan
                self.forced[idle] = False
                due = np.flatnonzero(np.isfinite(self.pending))
            if due.size:
                self._orders(t, due)
            if self.stops and self.account.held.size:
                self._stops(t)
            equity[t] = self._close(t)
            cash[t] = self.account.cash
        fills, unfilled = self.recorder.done()
        return Execution(fills, unfilled, borrow, cash, equity, self.ruined, tuple(self.pauses))

    def _borrow(self, t: int) -> float:
        held = self.account.held
        short = np.minimum(self.account.units[held], 0.0)
        if not short.any():
            return 0.0
        value = -float(short @ self.panel.mark[t - 1, held])
        cost = value * self.settings.costs.borrow_rate * self.market.days[t] / 365.0
        self.account.cash -= cost
        return cost

    def _delist(self, t: int, columns: NDArray[np.int64]) -> None:
        self.pending[columns] = np.nan
        self.forced[columns] = False
        gone = columns[self.account.units[columns] != 0]
        if gone.size:
            units = -self.account.units[gone]
            price = self.panel.mark[t, gone] * self.settings.execution.delisting_recovery
            zero = np.zeros(len(gone))
            self._book(t, 0, gone, units, price, zero, zero, zero, zero, np.full(len(gone), _R["delisted"]))

    def _decide(self, r: int) -> None:
        """Take over the decisions dated row ``r`` for execution in the next row."""
        if self.decisions[r]:
            new: NDArray[np.int64] = np.flatnonzero(np.isfinite(self.weights[r]))
            free = new[~self.forced[new]]
            self.desired[new] = self.weights[r, new]
            if self.paused is None:
                self.pending[free] = self.weights[r, free]
                self.reason[free] = _R["target"]
        if self.paused is not None and r >= self.paused:
            self.paused = None
            self.peak = self.account.equity(self.panel.mark[r])
            again = np.flatnonzero(np.isfinite(self.desired) & ~self.forced)
            self.pending[again] = self.desired[again]
            self.reason[again] = _R["target"]

    def _force(self, columns: NDArray[np.int64], reason: str | NDArray[np.int64]) -> None:
        self.pending[columns] = 0.0
        self.forced[columns] = True
        self.reason[columns] = _R[reason] if isinstance(reason, str) else reason

    def _orders(self, t: int, columns: NDArray[np.int64]) -> None:
        market, account, execution = self.market, self.account, self.settings.execution
        weight, factor = self.pending[columns], self.panel.factor[t, columns]
        raw = market.price[t, columns] / factor
        lots = market.minimum[columns], market.step[columns]
        held = account.units[columns] * factor
        equity = account.equity(market.price[t])
        # A symbol without any bar so far is halted below; its price must only not be NaN until then.
        raw = np.where(np.isfinite(raw), raw, 1.0)
        target = np.where(weight == 0, 0.0, weight * max(equity, 0.0) / raw)
        order = order_shares(held, target, *lots)
        if execution.minimum_trade_weight > 0:
            small = (np.abs(order) * raw < execution.minimum_trade_weight * equity) & (weight != 0)
            order = np.where(small, 0.0, order)
        wanted = order.copy()
        order, block = self._admit(t, columns, raw, order, np.zeros(len(columns)))
        fitted = fit_buying_power(
            held,
            order,
            raw,
            *lots,
            equity=equity,
            gross=account.gross(market.price[t]),
            leverage=self.portfolio.max_gross,
            cost=lambda x: self.charges.total(t, x, raw),
        )
        # Every fully invested account is cut by its own costs; only more than that is worth a record.
        block = np.where(np.abs(fitted) < 0.99 * np.abs(order), _B["buying_power"], block)
        self._missed(t, columns, wanted, fitted, block)
        keep = _CARRIED[block] & (self.forced[columns] | (execution.unfilled == "carry"))
        reason = self.reason[columns]
        done = columns[~keep]
        self.pending[done] = np.nan
        self.forced[done] = False
        self._fill(t, 0, columns, fitted, raw, held, reason)

    def _admit(
        self, t: int, columns: NDArray[np.int64], raw: Vector, order: Vector, used: Vector
    ) -> tuple[Vector, NDArray[np.int64]]:
        volume = None if self.panel.volume is None else self.panel.volume[t, columns]
        return admit(self.market, self.settings.execution.max_participation, t, columns, raw, order, volume, used)

    def _stops(self, t: int) -> None:
        account, market = self.account, self.market
        held = account.held[~self.forced[account.held]]
        held = held[market.tradable[t, held]]
        if not held.size:
            return
        side = np.sign(account.units[held])
        first, high, low = (x[t, held] for x in self.ranges)
        price, reason = stop_fills(side, account.entry[held], account.best[held], first, high, low, self.portfolio)
        hit = np.isfinite(price)
        if not hit.any():
            return
        columns, price, reason, side = held[hit], price[hit], reason[hit], side[hit]
        if not market.at_open:
            self._force(columns, reason)
            self.desired[columns] = 0.0
            return
        factor = self.panel.factor[t, columns]
        position = account.units[columns] * factor
        order = -position
        block = np.zeros(len(columns), dtype=np.int64)
        if market.rules.sell_next_session:
            fresh = np.minimum(account.bought[columns] * factor, np.abs(position))
            fresh = np.where(side > 0, fresh, 0.0)
            rest = -side * round_lots(np.abs(position) - fresh, market.minimum[columns], market.step[columns])
            order = np.where(fresh > 0, rest, order)
            block = np.where((fresh > 0) & (order == 0), _B["bought_today"], block)
        admitted, refused = self._admit(t, columns, price / factor, order, account.traded[columns] * factor)
        order, block = admitted, np.where(refused != 0, refused, block)
        block = np.where((block == 0) & (np.abs(order) < np.abs(position)), _B["bought_today"], block)
        self._missed(t, columns, -position, order, block)
        filled = order != 0
        self.desired[columns[filled]] = 0.0
        self.pending[columns[filled]] = np.nan
        self._fill(t, 1, columns, order, price / factor, position, reason)

    def _fill(
        self, t: int, stage: int, columns: NDArray[np.int64], shares: Vector, raw: Vector, held: Vector, reason: NDArray
    ) -> None:
        """Charge and book signed raw orders: reductions first, then openings, each in the order of symbols."""
        some = shares != 0
        if not some.any():
            return
        columns, shares, raw, held, reason = columns[some], shares[some], raw[some], held[some], reason[some]
        _, opening = split_order(held, shares)
        order = np.argsort(opening != 0, kind="stable")
        columns, shares, raw, held, reason = columns[order], shares[order], raw[order], held[order], reason[order]
        factor = self.panel.factor[t, columns]
        filled = self.charges.slipped(raw, shares)
        fees = self.charges.fees(t, shares, filled)
        units = np.where(shares == -held, -self.account.units[columns], shares / factor)
        slippage = np.abs(shares) * np.abs(filled - raw)
        self._book(t, stage, columns, units, filled * factor, *fees, slippage, reason)

    def _book(
        self,
        t: int,
        stage: int,
        columns: NDArray[np.int64],
        units: Vector,
        price: Vector,
        commission: Vector,
        duty: Vector,
        transfer: Vector,
        slippage: Vector,
        reason: NDArray[np.int64],
    ) -> None:
        factor = self.panel.factor[t, columns]
        self.recorder.fill(
            row=np.full(len(columns), t),
            column=columns,
            stage=np.full(len(columns), stage),
            units=units,
            price=price,
            shares=units * factor,
            raw_price=price / factor,
            commission=commission,
            stamp_duty=duty,
            transfer_fee=transfer,
            slippage=slippage,
            reason=reason,
        )
        closes = units == -self.account.units[columns]
        self.account.apply(columns, units, price, commission + duty + transfer, closes)

    def _missed(
        self, t: int, columns: NDArray[np.int64], wanted: Vector, filled: Vector, block: NDArray[np.int64]
    ) -> None:
        short = (block != 0) & (wanted != filled)
        if short.any():
            self.recorder.miss(
                row=np.full(int(short.sum()), t),
                column=columns[short],
                wanted=wanted[short],
                filled=filled[short],
                block=block[short],
            )

    def _close(self, t: int) -> float:
        account, panel = self.account, self.panel
        if self.stops and account.held.size:
            account.follow(self.ranges[1][t], self.ranges[2][t])
        equity = account.equity(panel.mark[t])
        self.peak = max(self.peak, equity)
        if self.ruined is None and equity <= 0:
            self.ruined = t
            self._out(t, "drawdown_stop", np.inf)
        limit = self.portfolio.drawdown_stop
        if limit is not None and self.paused is None and equity <= self.peak * (1.0 - limit):
            pause = self.portfolio.drawdown_pause
            self.pauses.append(t)
            self._out(t, "drawdown_stop", np.inf if pause is None else t + pause)
        return equity

    def _out(self, t: int, reason: str, until: float) -> None:
        self.pending[~self.forced] = np.nan
        self._force(self.account.held, reason)
        self.paused = until
