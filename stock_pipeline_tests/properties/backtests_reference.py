"""A slow backtest simulator, written from the documented rules one symbol at a time, to judge the real one.

It shares no code with the engine: rates, limits and lots are written out again, positions are plain dictionaries.
"""

from __future__ import annotations

import math
from datetime import date

CN_DUTY = [
    (date(2005, 1, 24), 0.001, 0.001),
    (date(2007, 5, 30), 0.003, 0.003),
    (date(2008, 4, 24), 0.001, 0.001),
    (date(2008, 9, 19), 0.0, 0.001),
    (date(2023, 8, 28), 0.0, 0.0005),
]
CN_TRANSFER = [(date(2015, 8, 1), 0.00002), (date(2022, 4, 29), 0.00001)]


def lot_of(rules: str, symbol: str) -> tuple[float, float]:
    if rules == "none":
        return 0.0, 0.0
    if rules == "US":
        return 1.0, 1.0
    return (200.0, 1.0) if symbol.startswith("SH688") else (100.0, 100.0)


def down_to_lot(shares: float, lot: tuple[float, float]) -> float:
    minimum, step = lot
    if step == 0:
        return shares
    base = minimum % step
    whole = base + math.floor((shares - base) / step + 1e-9) * step
    return max(whole, 0.0) if whole + 1e-9 >= minimum else 0.0


def limit_of(symbol: str, day: date) -> float:
    if symbol.startswith("SH688"):
        return 0.2
    if symbol.startswith("SZ300"):
        return 0.2 if day >= date(2020, 8, 24) else 0.1
    return 0.1


def duty_of(rules: str, day: date, buy: bool) -> float:
    rate = 0.0
    if rules == "CN":
        for start, on_buy, on_sell in CN_DUTY:
            if day >= start:
                rate = on_buy if buy else on_sell
    return rate


def transfer_of(rules: str, day: date) -> float:
    rate = 0.0
    if rules == "CN":
        for start, value in CN_TRANSFER:
            if day >= start:
                rate = value
    return rate


class Reference:
    """Simulates; `cash` and `equity` are lists by session, `fills` are (session index, symbol, shares, raw price)."""

    def __init__(self, market: dict, targets: dict, settings) -> None:
        self.days: list[date] = market["days"]
        self.bars: dict[tuple[int, str], dict] = market["bars"]
        self.symbols: list[str] = market["symbols"]
        self.targets, self.settings = targets, settings
        self.at_open = market["opens"]
        self.rules = settings.execution.rules
        self.cash_now = settings.portfolio.capital
        self.units: dict[str, float] = dict.fromkeys(self.symbols, 0.0)
        self.entry: dict[str, float] = {}
        self.best: dict[str, float] = {}
        self.bought: dict[str, float] = {}
        self.traded: dict[str, float] = {}
        self.fills: list[tuple[int, str, float, float]] = []
        self.cash: list[float] = []
        self.equity: list[float] = []
        self.kinds = dict.fromkeys(("commission", "stamp_duty", "transfer_fee", "slippage", "borrow"), 0.0)
        self.run()

    # prices ---------------------------------------------------------------------------------------------------------
    def last_bar(self, t: int, symbol: str) -> dict | None:
        while t >= 0:
            if (t, symbol) in self.bars:
                return self.bars[t, symbol]
            t -= 1
        return None

    def mark(self, t: int, symbol: str) -> float:
        bar = self.last_bar(t, symbol)
        return math.nan if bar is None else bar["close"] * bar["factor"]

    def factor(self, t: int, symbol: str) -> float:
        bar = self.last_bar(t, symbol)
        return 1.0 if bar is None else bar["factor"]

    def at(self, t: int, symbol: str) -> float:
        bar = self.bars.get((t, symbol))
        if bar is None:
            return self.mark(t - 1, symbol)
        return bar["open" if self.at_open else "close"] * bar["factor"]

    def blocked(self, t: int, symbol: str, order: float, raw: float) -> bool:
        bar = self.bars.get((t, symbol))
        if bar is None or bar["volume"] == 0:
            return True
        previous = self.last_bar(t - 1, symbol)
        if self.rules != "CN" or previous is None:
            return False
        reference = previous["close"] * previous["factor"] / bar["factor"]
        limit = limit_of(symbol, self.days[t])
        up = math.floor(reference * (1 + limit) * 100 + 0.5 + 1e-9) / 100
        down = math.floor(reference * (1 - limit) * 100 + 0.5 + 1e-9) / 100
        return raw >= up - 0.005 if order > 0 else raw <= down + 0.005

    # costs ----------------------------------------------------------------------------------------------------------
    def charges(self, t: int, shares: float, raw: float) -> dict[str, float]:
        if shares == 0:
            return dict.fromkeys(("commission", "stamp_duty", "transfer_fee", "slippage"), 0.0)
        costs = self.settings.costs
        price = raw * (1 + math.copysign(costs.slippage_bps / 1e4, shares))
        value = abs(shares) * price
        commission = costs.commission_rate * value + costs.commission_per_share * abs(shares)
        return {
            "commission": max(commission, costs.commission_minimum),
            "stamp_duty": value * duty_of(self.rules, self.days[t], shares > 0),
            "transfer_fee": value * transfer_of(self.rules, self.days[t]),
            "slippage": abs(shares) * abs(price - raw),
        }

    # booking --------------------------------------------------------------------------------------------------------
    def book(self, t: int, symbol: str, shares: float, raw: float, whole: bool) -> None:
        charges = self.charges(t, shares, raw)
        price = raw * (1 + math.copysign(self.settings.costs.slippage_bps / 1e4, shares))
        factor = self.factor(t, symbol)
        before = self.units[symbol]
        units = -before if whole else shares / factor
        adjusted = price * factor
        after = 0.0 if whole else before + units
        self.cash_now -= units * adjusted + charges["commission"] + charges["stamp_duty"] + charges["transfer_fee"]
        for kind, value in charges.items():
            self.kinds[kind] += value
        if before == 0 or before * after < 0:
            self.entry[symbol] = self.best[symbol] = adjusted
        elif before * units > 0:
            self.entry[symbol] = (self.entry[symbol] * abs(before) + adjusted * abs(units)) / abs(after)
        self.units[symbol] = after
        self.bought[symbol] = self.bought.get(symbol, 0.0) + max(units, 0.0)
        self.traded[symbol] = self.traded.get(symbol, 0.0) + abs(units)
        self.fills.append((t, symbol, shares, price))

    def value(self, price) -> float:
        return self.cash_now + sum(u * price(s) for s, u in self.units.items() if u != 0)

    # the day --------------------------------------------------------------------------------------------------------
    def run(self) -> None:
        portfolio, execution = self.settings.portfolio, self.settings.execution
        pending: dict[str, float] = {}
        forced: set[str] = set()
        desired: dict[str, float] = {}
        paused_until: float | None = None
        ruined = False
        peak = portfolio.capital
        n = len(self.days)
        for t in range(n):
            if t:
                short = -sum(min(u, 0.0) * self.mark(t - 1, s) for s, u in self.units.items() if u < 0)
                cost = short * self.settings.costs.borrow_rate * (self.days[t] - self.days[t - 1]).days / 365.0
                self.cash_now -= cost
                self.kinds["borrow"] += cost
            if execution.delisting_sessions is not None:
                for s in self.symbols:
                    rows = [r for r in range(t + 1) if (r, s) in self.bars]
                    if rows and t - rows[-1] == execution.delisting_sessions:
                        pending.pop(s, None)
                        forced.discard(s)
                        if self.units[s]:
                            self.cash_now += self.units[s] * self.mark(t, s) * execution.delisting_recovery
                            self.fills.append((t, s, -self.units[s] * self.factor(t, s), math.nan))
                            self.units[s] = 0.0
            if t:
                new = self.targets.get(t - 1, {})
                for s, w in new.items():
                    desired[s] = w
                    if s not in forced and paused_until is None:
                        pending[s] = w
                if paused_until is not None and t - 1 >= paused_until:
                    paused_until = None
                    peak = self.value(lambda s, t=t: self.mark(t - 1, s))
                    for s, w in desired.items():
                        if s not in forced:
                            pending[s] = w
            if t == n - 1 and execution.flatten_at_end:
                pending = {s: 0.0 for s in self.symbols if self.units[s] or s in forced}
                forced = set(pending)
            self.bought, self.traded = {}, {}
            self.orders(t, pending, forced)
            if any(x is not None for x in (portfolio.stop_loss, portfolio.trailing_stop, portfolio.take_profit)):
                self.stops(t, pending, forced, desired)
                for s, u in self.units.items():
                    bar = self.bars.get((t, s))
                    if u and bar:
                        high = bar["high" if self.at_open else "close"] * bar["factor"]
                        low = bar["low" if self.at_open else "close"] * bar["factor"]
                        self.best[s] = max(self.best[s], high) if u > 0 else min(self.best[s], low)
            equity = self.value(lambda s, t=t: self.mark(t, s))
            self.cash.append(self.cash_now)
            self.equity.append(equity)
            peak = max(peak, equity)
            out: float | None = None
            if not ruined and equity <= 0:
                ruined, out = True, math.inf
                if portfolio.drawdown_stop is None or paused_until is not None:
                    pass
            elif (
                portfolio.drawdown_stop is not None
                and paused_until is None
                and equity <= peak * (1 - portfolio.drawdown_stop)
            ):
                out = math.inf if portfolio.drawdown_pause is None else t + portfolio.drawdown_pause
            if out is not None:
                for s in list(pending):
                    if s not in forced:
                        del pending[s]
                for s, u in self.units.items():
                    if u:
                        pending[s] = 0.0
                        forced.add(s)
                paused_until = out

    def orders(self, t: int, pending: dict[str, float], forced: set[str]) -> None:
        execution, portfolio = self.settings.execution, self.settings.portfolio
        if not pending:
            return
        equity = self.value(lambda s: self.at(t, s))
        gross = sum(abs(u) * self.at(t, s) for s, u in self.units.items() if u)
        plan: list[list] = []
        for s in sorted(pending):
            w, factor = pending[s], self.factor(t, s)
            raw = self.at(t, s) / factor
            lot = lot_of(self.rules, s)
            held = self.units[s] * factor
            if math.isnan(raw):
                if w != 0 and not (execution.unfilled == "carry" or s in forced):
                    del pending[s]
                elif w == 0:
                    del pending[s]
                    forced.discard(s)
                continue
            target = 0.0 if w == 0 else w * max(equity, 0.0) / raw
            if target == 0:
                order = -held
            elif held * target < 0:
                order = -held + math.copysign(down_to_lot(abs(target), lot), target)
            else:
                change = target - held
                if abs(change) <= 1e-9 * max(abs(target), abs(held)):
                    change = 0.0
                order = math.copysign(min(down_to_lot(abs(change), lot), abs(change)), change)
            if abs(order) * raw < execution.minimum_trade_weight * equity and w != 0:
                order = 0.0
            carried = False
            if order != 0 and self.blocked(t, s, order, raw):
                order, carried = 0.0, True
            elif order != 0 and execution.max_participation is not None:
                cap = execution.max_participation * self.bars[t, s]["volume"]
                if abs(order) > cap:
                    cut = math.copysign(down_to_lot(cap, lot), order)
                    order, carried = cut, True
            plan.append([s, held, order, raw, lot, carried])
        closing = {}
        opening = {}
        for s, held, order, _raw, _lot, _c in plan:
            part = math.copysign(min(abs(order), abs(held)), order) if held * order < 0 else 0.0
            closing[s], opening[s] = part, order - part
        base = gross - sum(abs(closing[s]) * raw for s, _h, _o, raw, _l, _c in plan)
        total = lambda orders: sum(  # noqa: E731
            sum(self.charges(t, orders[s], raw).values()) for s, _h, _o, raw, _l, _c in plan
        )
        result = dict(closing)
        ratio, limit = 1.0, portfolio.max_gross
        if any(opening.values()):
            for _ in range(30):
                part = {
                    s: opening[s]
                    if ratio == 1.0
                    else math.copysign(down_to_lot(abs(opening[s]) * ratio, lot), opening[s])
                    for s, _h, _o, _r, lot, _c in plan
                }
                trial = {s: closing[s] + part[s] for s in part}
                value = sum(abs(part[s]) * raw for s, _h, _o, raw, _l, _c in plan)
                spent = total(trial)
                room = limit * (equity - spent) - base
                if value <= room + 1e-12 * max(abs(equity), 1.0):
                    result = trial
                    break
                if value <= 0 or room <= 0 or ratio < 1e-6:
                    break
                without = total(closing)
                available = limit * (equity - without) - base
                ratio *= (
                    min(available / (value + limit * (spent - without)), 1 - 1e-9)
                    if available > 1e-9 * abs(equity)
                    else 0.0
                )
        for s, _held, order, _raw, _lot, carried in plan:
            cut = abs(result[s]) < 0.99 * abs(order)
            if not (carried and not cut and (s in forced or execution.unfilled == "carry")):
                del pending[s]
                forced.discard(s)
        first = [p for p in plan if opening[p[0]] == 0 or result[p[0]] == closing[p[0]]]
        for s, held, _order, raw, _lot, _c in first + [p for p in plan if p not in first]:
            if result[s] != 0:
                self.book(t, s, result[s], raw, result[s] == -held)

    def stops(self, t: int, pending: dict[str, float], forced: set[str], desired: dict[str, float]) -> None:
        portfolio = self.settings.portfolio
        for s in self.symbols:
            u, bar = self.units[s], self.bars.get((t, s))
            if u == 0 or s in forced or bar is None or bar["volume"] == 0:
                continue
            f = bar["factor"]
            o, h, low = (bar[k if self.at_open else "close"] * f for k in ("open", "high", "low"))
            entry, best = self.entry[s], self.best[s]
            stops = []
            price = None
            if u > 0:
                if portfolio.stop_loss is not None:
                    stops.append(entry - portfolio.stop_loss * entry)
                if portfolio.trailing_stop is not None:
                    stops.append(best - portfolio.trailing_stop * best)
                if stops and low <= max(stops):
                    price = min(o, max(stops))
                if portfolio.take_profit is not None:
                    goal = entry + portfolio.take_profit * entry
                    if o >= goal or (h >= goal and price is None):
                        price = max(o, goal)
            else:
                if portfolio.stop_loss is not None:
                    stops.append(entry + portfolio.stop_loss * entry)
                if portfolio.trailing_stop is not None:
                    stops.append(best + portfolio.trailing_stop * best)
                if stops and h >= min(stops):
                    price = max(o, min(stops))
                if portfolio.take_profit is not None:
                    goal = entry - portfolio.take_profit * entry
                    if o <= goal or (low <= goal and price is None):
                        price = min(o, goal)
            if price is None:
                continue
            if not self.at_open:
                pending[s] = 0.0
                forced.add(s)
                desired[s] = 0.0
                continue
            position = u * f
            order = -position
            lot = lot_of(self.rules, s)
            if self.rules == "CN" and u > 0:
                fresh = min(self.bought.get(s, 0.0) * f, position)
                if fresh > 0:
                    order = -down_to_lot(position - fresh, lot)
            if order == 0 or self.blocked(t, s, order, price / f):
                continue
            share = self.settings.execution.max_participation
            if share is not None:
                cap = max(share * bar["volume"] - self.traded.get(s, 0.0) * f, 0.0)
                if abs(order) > cap:
                    order = math.copysign(down_to_lot(cap, lot), order)
            if order == 0:
                continue
            desired[s] = 0.0
            pending.pop(s, None)
            self.book(t, s, order, price / f, order == -position)
