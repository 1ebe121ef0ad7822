"""Backtests: strategies, execution under exchange rules, two ledgers, figures and their statistics.

`run.run_backtest` is the one call; `strategies` says what to hold, `execution` what could be traded, `ledger` and
`replay` keep the accounts twice, `metrics` and `overfitting` judge them, `lookahead` catches strategies that cheat. How
results look belongs to ``core.reporting``; rules and levies of exchanges to ``core.market.exchange_rules``.
"""
