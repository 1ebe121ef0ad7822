"""V3: the backtest's accounts hold together, costs only cost, and an independent simulation gives the same."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from backtests_reference import Reference
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stock_pipeline.core.backtesting.data import MarketData
from stock_pipeline.core.backtesting.execution import execute
from stock_pipeline.core.backtesting.fills import COST_KINDS
from stock_pipeline.core.backtesting.ledger import keep_accounts
from stock_pipeline.core.backtesting.run import simulate
from stock_pipeline.core.backtesting.settings import (
    BacktestSettings,
    CostSettings,
    ExecutionSettings,
    PortfolioSettings,
)

SYMBOLS = ["SH600000", "SH688012", "SZ000001", "SZ300015"]


def maybe(strategy):
    return st.none() | strategy


@st.composite
def settings_cases(draw, rules=None):
    rules = draw(st.sampled_from(["none", "US", "CN"])) if rules is None else rules
    return BacktestSettings(
        costs=CostSettings(
            commission_rate=draw(st.sampled_from([0.0, 0.0003, 0.005])),
            commission_minimum=draw(st.sampled_from([0.0, 5.0, 60.0])),
            commission_per_share=draw(st.sampled_from([0.0, 0.01])),
            slippage_bps=draw(st.sampled_from([0.0, 5.0, 40.0])),
            borrow_rate=draw(st.sampled_from([0.0, 0.3])),
        ),
        execution=ExecutionSettings(
            rules=rules,
            unfilled=draw(st.sampled_from(["cancel", "carry"])),
            max_participation=draw(maybe(st.sampled_from([0.05, 0.5]))),
            minimum_trade_weight=draw(st.sampled_from([0.0, 0.05])),
            flatten_at_end=draw(st.booleans()),
            delisting_sessions=draw(maybe(st.integers(1, 4))),
            delisting_recovery=draw(st.sampled_from([1.0, 0.3])),
            shorting="allowed",
        ),
        portfolio=PortfolioSettings(
            capital=draw(st.sampled_from([3_000.0, 40_000.0, 1_000_000.0])),
            max_gross=draw(st.sampled_from([1.0, 2.0])),
            stop_loss=draw(maybe(st.sampled_from([0.02, 0.08]))),
            trailing_stop=draw(maybe(st.sampled_from([0.03, 0.1]))),
            take_profit=draw(maybe(st.sampled_from([0.03, 0.15]))),
            drawdown_stop=draw(maybe(st.sampled_from([0.03, 0.1]))),
            drawdown_pause=draw(maybe(st.integers(1, 5))),
        ),
    )


@st.composite
def markets(draw):
    """Random bars with gaps, halts, moves to the price limits, factor jumps, and random sparse targets."""
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    n = draw(st.integers(5, 30))
    symbols = SYMBOLS[: draw(st.integers(1, 4))]
    opens = draw(st.booleans())
    start = draw(st.sampled_from([date(2008, 9, 10), date(2015, 7, 25), date(2020, 8, 14), date(2023, 8, 20)]))
    days = [start + timedelta(days=int(d)) for d in np.cumsum(rng.choice([1, 1, 1, 3], n))]
    bars = {}
    for s in symbols:
        close, factor = float(rng.uniform(3, 60)), 1.0
        gone = rng.integers(3, n + 8)
        for t in range(n):
            if t >= gone or (t and rng.random() < 0.08) or (s != symbols[0] and t == 0 and rng.random() < 0.3):
                continue
            if rng.random() < 0.05:
                jump = float(rng.choice([1.01, 2.0, 1.5]))
                factor, close = factor * jump, round(close / jump, 2)
            kind = rng.random()
            move = rng.choice([0.1, -0.1, 0.2, -0.2]) if kind < 0.15 else rng.normal(0, 0.03)
            open_ = max(round(close * (1 + move) + 1e-9, 2), 0.05)
            close = max(round(open_ * float(np.exp(rng.normal(0, 0.02))), 2), 0.05)
            high = round(max(open_, close) * (1 + abs(rng.normal(0, 0.01))), 2)
            low = max(round(min(open_, close) * (1 - abs(rng.normal(0, 0.01))), 2), 0.01)
            volume = 0.0 if rng.random() < 0.08 else float(rng.integers(50, 40_000))
            bars[t, s] = {"open": open_, "high": high, "low": low, "close": close, "volume": volume, "factor": factor}
    short = draw(st.booleans())
    targets: dict[int, dict[str, float]] = {}
    for t in range(n):
        if rng.random() < 0.35:
            chosen = [s for s in symbols if rng.random() < 0.7]
            weights = rng.choice([0.0, 0.3, 0.5, 1.0], len(chosen)) / max(1, len(chosen) / 2)
            signs = rng.choice([1, -1], len(chosen)) if short else np.ones(len(chosen))
            if chosen:
                targets[t] = {s: float(w * g) for s, w, g in zip(chosen, weights, signs, strict=True)}
    return {"days": days, "symbols": symbols, "bars": bars, "opens": opens, "targets": targets}


def panel_of(market):
    rows = [
        {
            "symbol": s,
            "session": market["days"][t],
            **{k: v for k, v in bar.items() if k != "factor"},
            "adj_factor": bar["factor"],
        }
        for (t, s), bar in market["bars"].items()
    ]
    frame = pl.DataFrame(rows)
    return MarketData.from_bars(frame if market["opens"] else frame.drop("open", "high", "low")).panel


def case(market):
    """Panel, weight matrix, and the market restricted to what the panel shows (sessions and symbols with a bar)."""
    panel = panel_of(market)
    rows = {d: i for i, d in enumerate(panel.sessions)}
    old = {t: rows[d] for t, d in enumerate(market["days"]) if d in rows}
    weights = np.full((len(panel.sessions), len(panel.symbols)), np.nan)
    targets = {}
    for t, wanted in market["targets"].items():
        if t in old:
            known = {s: w for s, w in wanted.items() if s in panel.symbols}
            targets[old[t]] = known
            for s, w in known.items():
                weights[old[t], panel.symbols.index(s)] = w
    shown = {
        "days": panel.sessions,
        "symbols": panel.symbols,
        "opens": market["opens"],
        "bars": {(old[t], s): b for (t, s), b in market["bars"].items()},
    }
    return panel, weights, shown, targets


@pytest.mark.requirement("V3", "R3.3", "R3.4")
@settings(max_examples=250)
@given(markets(), settings_cases())
def test_equals_an_independent_simulation(market, chosen):
    panel, weights, shown, targets = case(market)
    expected = Reference(shown, targets, chosen)
    result = execute(panel, weights, chosen)
    ledger = keep_accounts(result.fills, result.borrow, panel, chosen.portfolio.capital)
    scale = np.abs(expected.equity).max()
    got = [(int(t), panel.symbols[c]) for t, c in zip(result.fills.row, result.fills.column, strict=True)]
    assert sorted(got) == sorted((t, s) for t, s, _, _ in expected.fills)
    np.testing.assert_allclose(ledger.cash, expected.cash, rtol=0, atol=1e-9 * scale)
    np.testing.assert_allclose(ledger.equity, expected.equity, rtol=0, atol=1e-9 * scale)
    for kind in COST_KINDS:
        np.testing.assert_allclose(getattr(result.fills, kind).sum(), expected.kinds[kind], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(result.borrow.sum(), expected.kinds["borrow"], rtol=1e-9, atol=1e-9)


@pytest.mark.requirement("V3", "R3.3")
@settings(max_examples=100)
@given(markets(), settings_cases())
def test_both_ledgers_agree_and_accounts_balance(market, chosen):
    panel, weights, _, _ = case(market)
    simulation = simulate(panel, weights, chosen)
    ledger, execution = simulation.ledger, simulation.execution
    fills, capital = execution.fills, chosen.portfolio.capital
    scale = np.abs(ledger.equity).max()
    assert simulation.reconciliation.agrees, simulation.reconciliation.worst
    # Cash and positions are equity; the loop's running account is what the ledgers say.
    np.testing.assert_allclose(ledger.cash + ledger.values.sum(axis=1), ledger.equity, rtol=0, atol=1e-9 * scale)
    np.testing.assert_allclose(execution.equity, ledger.equity, rtol=0, atol=1e-9 * scale)
    np.testing.assert_allclose(execution.cash, ledger.cash, rtol=0, atol=1e-9 * scale)
    # Equity changes by price moves of what is held, less costs.
    reference = fills.price - np.sign(fills.units) * np.where(
        fills.units != 0, fills.slippage / np.maximum(np.abs(fills.units), 1e-300), 0
    )
    gain = np.nansum(ledger.units[-1] * np.nan_to_num(panel.mark[-1, ledger.columns])) - (fills.units * reference).sum()
    costs = fills.fees.sum() + fills.slippage.sum() + execution.borrow.sum()
    assert ledger.equity[-1] - capital == pytest.approx(gain - costs, abs=1e-9 * scale)
    # Round trips add up to the same.
    assert simulation.trades["pnl"].sum() - execution.borrow.sum() == pytest.approx(
        ledger.equity[-1] - capital, abs=1e-8 * scale
    )
    # Cash is never borrowed by a long-only account without leverage.
    if chosen.portfolio.max_gross == 1.0 and not (weights < 0).any():
        assert ledger.cash.min() >= -1e-9 * scale


@pytest.mark.requirement("V3", "R3.3")
@settings(max_examples=100)
@given(markets(), settings_cases(), st.floats(0, 0.02), st.floats(0, 50))
def test_costs_only_cost(market, chosen, more, minimum):
    """The same fills under a higher commission never leave more equity, in any session."""
    panel, weights, _, _ = case(market)
    execution = execute(panel, weights, chosen)
    fills = execution.fills
    cheap = keep_accounts(fills, execution.borrow, panel, chosen.portfolio.capital)
    value = np.abs(fills.units * fills.price)
    dearer = type(fills)(**{**fills.__dict__, "commission": np.maximum(fills.commission + more * value, minimum)})
    dear = keep_accounts(dearer, execution.borrow, panel, chosen.portfolio.capital)
    assert (dear.equity <= cheap.equity + 1e-9 * np.abs(cheap.equity).max()).all()


@pytest.mark.requirement("V3", "R3.1")
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(markets(), settings_cases(), st.data())
def test_the_past_does_not_depend_on_the_future(market, chosen, data):
    """Cutting the bars after a session leaves every fill up to it as it was."""
    panel, weights, _, _ = case(market)
    chosen = chosen.model_copy(update={"execution": chosen.execution.model_copy(update={"flatten_at_end": False})})
    stop = data.draw(st.integers(1, len(panel.sessions)))
    whole = execute(panel, weights, chosen).fills
    part = execute(panel.slice(0, stop), weights[:stop], chosen).fills
    before = whole.row < stop
    for name in ("row", "column", "units", "price", "commission", "reason"):
        np.testing.assert_array_equal(getattr(whole, name)[before], getattr(part, name))
