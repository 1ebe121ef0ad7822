"""The readable ends of runs: what was computed, what came out, and where to look next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from stock_pipeline.cli.console import cell, num, number_of, out, pct, span, table
from stock_pipeline.config import addresses
from stock_pipeline.config.loading import SAMPLE_FILE
from stock_pipeline.core.backtesting.result import BacktestResult
from stock_pipeline.core.prediction.coverage import REGIMES, by_group
from stock_pipeline.orchestration.resources import Platform
from stock_pipeline.orchestration.runner import Outcome
from stock_pipeline.orchestration.training import BASELINES, intervals_table, oos_table, out_of_sample

SHOWN = 20
"""Rows of a table of symbols in a summary."""


def print_runs(outcomes: Sequence[Outcome]) -> None:
    """Print what each run computed, and the checks that failed."""
    rows = [
        [o.job, f"{o.seconds:.1f} s", o.run_id[:8], ", ".join(o.computed) or "nothing new, nothing computed"]
        for o in outcomes
    ]
    if not rows:
        return
    out.print(table("Runs", [("job", "left"), ("time", "right"), ("run", "left"), ("computed", "left")], rows))
    for outcome in outcomes:
        for check in outcome.failed_checks:
            out.print(f"  [yellow]check did not pass[/yellow]  {check}")


def print_summary(platform: Platform, outcomes: Sequence[Outcome]) -> None:
    """Print what the whole pipeline found, honestly, and what can be opened next."""
    out.print()
    _data(platform)
    _models(platform)
    _intervals_and_risk(platform)
    _predictions(platform)
    _backtests(platform)
    print_runs(outcomes)
    _next(platform)


def _data(platform: Platform) -> None:
    lake = platform.lake
    bars, bad = lake.read("market/validated_bars"), lake.read("market/quarantined_bars")
    scores, findings = lake.read("market/quality_scores"), lake.read("market/quality_findings")
    repaired = bars.filter(pl.col("status") == "repaired").height
    rows = [
        ["raw rows", f"{bars.height + bad.height:,}"],
        ["validated", f"{bars.height:,}  ({bars.height - repaired:,} clean, {repaired:,} repaired)"],
        ["quarantined", f"{bad.height:,}"],
        ["findings", f"{findings.height:,}"],
        ["mean quality score", num(scores["score"].mean(), 2) + " of 100"],  # type: ignore[arg-type]
        ["sessions", f"{span(bars)}, {number_of(bars['symbol'].n_unique(), 'symbol')}"],
    ]
    out.print(table("Data", [("", "left"), ("", "left")], rows))


def _models(platform: Platform) -> None:
    from stock_pipeline.core.modelling.evaluation import evaluate

    champion = platform.model_registry.champion()
    families = [f for f in platform.settings.models.families if f not in BASELINES]
    rows = []
    for name in (*families, *BASELINES):
        if not platform.lake.exists(oos_table(name)):
            continue
        oos = out_of_sample(platform, name)
        found = evaluate(oos, horizon=platform.settings.models.horizon)
        label = name + ("  (champion)" if champion and champion.family == name else "")
        rows.append(
            [
                label,
                num(found["rank_ic"], 4),
                num(found["rank_ic_t"], 1),
                pct(found["hit_rate"]),
                pct(found["always_up_hit_rate"]),
                pct(found["skill_zero"], 2),
                num(found["long_short_net_bps"], 1),
                "model" if name in families else "naive",
            ]
        )
    headings = [
        ("forecast", "left"), ("rank IC", "right"), ("t", "right"), ("hit rate", "right"), ("always up", "right"),
        ("skill", "right"), ("long-short, bp", "right"), ("kind", "left"),
    ]  # fmt: skip
    horizon = platform.settings.models.horizon
    caption = (
        f"out of sample, walk-forward, {horizon}-session returns; t by Newey-West; skill = 1 - MSE / MSE of zero; "
        "long-short after costs"
    )
    out.print(table("Models beside naive baselines", headings, rows, caption))
    if champion:
        reasons = champion.tags.get("decision", "")
        for reason in reasons.splitlines():
            out.print(f"  promotion: {reason}", markup=False)


def _intervals_and_risk(platform: Platform) -> None:
    lake, target = platform.lake, platform.settings.predictions.conformal.coverage
    rows = []
    outcomes = lake.read("predictions/outcomes") if lake.exists("predictions/outcomes") else None
    if outcomes is not None and outcomes.height:
        share = float(outcomes["inside"].mean())  # type: ignore[arg-type]
        rows.append(
            [f"{target:.0%} prediction intervals", f"{share:.1%} of {outcomes.height:,} matured outcomes inside"]
        )
    else:
        rows.append([f"{target:.0%} prediction intervals", "no prediction has matured yet"])
    champion = platform.model_registry.champion()
    history = intervals_table(champion.family) if champion else ""
    if champion and lake.exists(history):
        mine = lake.read(history).filter(pl.col("model_version") == str(champion.version))
        found, regimes = by_group(mine, "year"), by_group(mine, "regime")
        markets = dict(zip(regimes["group"], regimes["coverage"], strict=True))
        inside = float((found["coverage"] * found["outcomes"]).sum()) / float(found["outcomes"].sum())
        worst, years = found.sort("coverage").row(0, named=True), found["group"].sort().to_list()
        rows.append(
            [
                "the same, walk-forward",
                f"{inside:.1%} of {found['outcomes'].sum():,} outcomes since {years[0]} inside; "
                f"worst year {worst['group']}: {worst['coverage']:.1%}; in "
                + ", ".join(f"{name} markets {markets[name]:.1%}" for name in REGIMES if name in markets),
            ]
        )
    if lake.exists("risk/var_backtest"):
        tests = lake.read("risk/var_backtest")
        for (level,), part in tests.sort("level").group_by("level", maintain_order=True):
            passed = part.filter(pl.col("kupiec_p") > 0.01).height
            independent = part.filter(pl.col("independence_p") > 0.01).height
            rate = float(part["exceedances"].sum()) / float(part["observations"].sum())
            rows.append(
                [
                    f"value at risk {level:.0%}",
                    f"exceeded on {rate:.2%} of sessions (expected {1 - float(level):.0%}); "  # type: ignore[arg-type]
                    f"Kupiec passed by {passed}, Christoffersen by {independent} of {number_of(part.height, 'symbol')}",
                ]
            )
    out.print(table("Do intervals and risk figures hold?", [("", "left"), ("", "left")], rows))


def _predictions(platform: Platform) -> None:
    lake = platform.lake
    last = lake.last_session("predictions/published")
    if last is None:
        return
    newest = lake.read("predictions/published", start=last).sort("rank")
    rows = [
        [
            str(row["rank"]),
            row["symbol"],
            pct(row["expected_return"], 2),
            f"{pct(row['lower'], 1)} to {pct(row['upper'], 1)}",
            pct(row["confidence"], 0),
            f"{row['model_name']} v{row['model_version']}" + ("" if row["fallback_level"] == 0 else " (fallback)"),
            pct(row["volatility"], 0),
            pct(row["var_95"], 1),
            f"{row['close']:,.2f} {row['currency']}",
            row["prediction_id"],
        ]
        for row in newest.head(SHOWN).iter_rows(named=True)
    ]
    headings = [
        ("rank", "right"), ("symbol", "left"), ("expected", "right"), ("interval", "right"), ("confidence", "right"),
        ("model", "left"), ("volatility", "right"), ("VaR 95 %", "right"), ("close", "right"), ("id", "left"),
    ]  # fmt: skip
    horizon = platform.settings.models.horizon
    caption = None
    if newest.height > SHOWN:
        caption = f"the best {SHOWN} of {newest.height}; `stock-pipeline show predictions` shows more"
    out.print(table(f"Newest predictions: {last}, next {number_of(horizon, 'session')}", headings, rows, caption))
    missing = lake.read("predictions/unpredicted", start=last)
    for row in missing.head(SHOWN).iter_rows(named=True):
        out.print(f"  not predicted: {row['symbol']} - {row['reason']} ({row['detail']})", markup=False)
    if missing.height > SHOWN:
        out.print(f"  and {missing.height - SHOWN} more; see `stock-pipeline show unpredicted`", markup=False)


def _backtests(platform: Platform) -> None:
    if not platform.lake.exists("backtests/summary"):
        return
    rows = [
        [
            row["strategy"],
            pct(row["annual_return"]),
            num(row["sharpe"], 2),
            pct(row["deflated_sharpe"], 0),
            pct(row["max_drawdown"]),
            pct(row["volatility"]),
            num(row["total_costs"], 0),
            num(row["turnover"], 1),
            f"{row['first_session']} to {row['last_session']}",
        ]
        for row in platform.lake.read("backtests/summary").iter_rows(named=True)
    ]
    headings = [
        ("strategy", "left"), ("a year", "right"), ("Sharpe", "right"), ("deflated", "right"), ("drawdown", "right"),
        ("volatility", "right"), ("costs", "right"), ("turnover", "right"), ("period", "left"),
    ]  # fmt: skip
    caption = "after costs; deflated = probability that the Sharpe ratio is above 0 given the number of trials"
    out.print(table("Back-tests beside buy-and-hold", headings, rows, caption))


def print_backtest(result: BacktestResult, report: Path) -> None:
    """Print the figures of one back-test and where its report is."""
    figures = [[name.replace("_", " "), cell(value)] for name, value in result.metrics.items()]
    given = ", ".join(f"{name} {cell(value)}" for name, value in result.parameters.items())
    out.print(f"{result.strategy}: {given or 'no parameters'}", style="bold", markup=False)
    out.print(table("", [("figure", "left"), ("value", "right")], figures))
    costs = ", ".join(f"{kind} {amount:,.0f}" for kind, amount in result.costs.items())
    out.print(f"costs: {costs}", markup=False)
    if result.reconciliation is not None:
        verdict = "agree" if result.reconciliation.agrees else "DIFFER"
        out.print(f"the two ledgers {verdict}; worst relative difference {result.reconciliation.worst:.1e}")
    out.print(f"report: {report}", markup=False, soft_wrap=True)


def _next(platform: Platform) -> None:
    folder = platform.reports
    out.print("\n[bold]What can be opened next[/bold]")
    for what, path in (
        ("data quality", folder / "quality.html"),
        ("Great Expectations", folder / "data_docs" / "index.html"),
        *(("back-test", path) for path in sorted((folder / "backtests").glob("*.html"))),
    ):
        if path.exists():
            out.print(f"  {what:<20} {path}", markup=False, soft_wrap=True)
    file = platform.settings.config_file
    start = "make dev" if file == SAMPLE_FILE else f"stock-pipeline -c {file} dev"
    out.print(f"  {start:<20} starts the web UIs:", markup=False, soft_wrap=True)
    for what, address in (
        ("console and API", f"{addresses.console(platform.settings)}/"),
        ("Dagster", addresses.dagster_page(platform.settings)),
        ("MLflow", addresses.mlflow_page(platform.settings)),
    ):
        out.print(f"    {what:<18} {address}", markup=False)
