"""Write the figures of the README from a finished home of the sample market, between its two ``figures`` marks.

    make demo
    .venv/bin/python docs/make_figures.py [--home data/home]

Every figure of the sample market in the documentation stands between these marks and nowhere else.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
BEGIN, END = "<!-- figures: written by docs/make_figures.py -->", "<!-- /figures -->"


def main() -> int:
    """Replace the part between the marks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=ROOT / "data" / "home")
    home = parser.parse_args().home.resolve()
    if not (home / "lake").is_dir():
        sys.stderr.write(f"{home} is not a finished home: run `make demo` first, or give --home\n")
        return 1
    before, rest = README.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    README.write_text(f"{before}{BEGIN}\n{figures(home)}{END}{after}", encoding="utf-8")
    return 0


def figures(home: Path) -> str:
    """The Markdown between the marks."""
    from stock_pipeline.config.loading import SAMPLE_FILE, load_settings
    from stock_pipeline.orchestration.resources import Platform

    platform = Platform(load_settings(SAMPLE_FILE, environment={**os.environ, "STOCK_PIPELINE_HOME": str(home)}))
    return "\n".join(
        (_data(platform), _models(platform), _intervals(platform), _predictions(platform), _tests(platform))
    )


def _data(platform: Any) -> str:
    lake = platform.lake
    bars, bad = lake.read("market/validated_bars"), lake.read("market/quarantined_bars")
    repaired = bars.filter(pl.col("status") == "repaired").height
    score = lake.read("market/quality_scores")["score"].mean()
    return (
        f"**Data.** {bars.height + bad.height:,} raw rows of {bars['symbol'].n_unique()} symbols, "
        f"{bars['session'].min()} to {bars['session'].max()}: {bars.height - repaired:,} clean, {repaired:,} repaired, "
        f"{bad.height:,} quarantined. Mean quality score {score:.2f} of 100.\n"
    )


def _models(platform: Any) -> str:
    from stock_pipeline.core.modelling.evaluation import evaluate
    from stock_pipeline.orchestration import training

    champion, models = platform.model_registry.champion(), platform.settings.models
    families = [name for name in models.families if name not in training.BASELINES]
    rows = []
    for name in (*families, *training.BASELINES):
        oos = training.out_of_sample(platform, name)
        found = evaluate(oos, horizon=models.horizon)
        label = f"**{name}**, champion" if champion is not None and champion.family == name else name
        rows.append(
            [
                label,
                "model" if name in families else "naive",
                _number(found["rank_ic"], 3),
                _number(found["rank_ic_t"], 1),
                _share(found["hit_rate"], 1),
                _share(found["skill_zero"], 2),
                _number(found["long_short_net_bps"], 1),
            ]
        )
    text = (
        f"**Models, out of sample**, {models.horizon} sessions ahead, walk-forward in {models.train.folds} folds.\n\n"
    )
    text += _table(
        ("forecast", "", "rank IC", "t", "hit rate", "skill over zero", "long-short after costs, bp"), rows, left=2
    )
    rises = _share(found["always_up_hit_rate"], 1)
    text += (
        f"\nReturns were positive in {rises} of the cases. `always_up` says the mean return of its training years,\n"
        "also where that is negative. Skill is 1 less the squared error over that of the forecast zero; t is\n"
        "Newey-West's.\n"
    )
    decision = champion.tags.get("decision", "") if champion is not None else ""
    quoted = "\n".join(f"> {reason}  " for reason in decision.splitlines())
    return text + (f"\nThe promotion rule said:\n\n{quoted}\n" if quoted else "")


def _intervals(platform: Any) -> str:
    lake, target = platform.lake, platform.settings.predictions.conformal.coverage
    outcomes, tests = lake.read("predictions/outcomes"), lake.read("risk/var_backtest")
    rows = [
        [
            f"{target:.0%} prediction intervals",
            f"{outcomes['inside'].mean():.1%} of {outcomes.height:,} matured outcomes inside",
        ]
    ]
    rows += _walk_forward(platform, target)
    for (level,), part in tests.sort("level").group_by("level", maintain_order=True):
        rate = part["exceedances"].sum() / part["observations"].sum()
        passed = [part.filter(pl.col(name) > 0.01).height for name in ("kupiec_p", "independence_p")]
        rows.append(
            [
                f"{level:.0%} value at risk",
                f"exceeded in {rate:.2%} of sessions; Kupiec's test passed by {passed[0]}, Christoffersen's by "
                f"{passed[1]} of {part.height} symbols",
            ]
        )
    return "**Intervals and risk.**\n\n" + _table(("", ""), rows, left=2)


def _walk_forward(platform: Any, target: float) -> list[list[str]]:
    from stock_pipeline.core.prediction.coverage import by_group
    from stock_pipeline.orchestration.training import intervals_table

    champion = platform.model_registry.champion()
    if champion is None:
        return []
    history = platform.lake.read(intervals_table(champion.family))
    history = history.filter(pl.col("model_version") == str(champion.version))
    years = by_group(history, "year").sort("coverage")
    regimes = {row["group"]: row["coverage"] for row in by_group(history, "regime").iter_rows(named=True)}
    inside, first = history["inside"].mean(), history["session"].min()
    return [
        [
            f"{target:.0%} intervals, walk-forward since {first.year}",
            f"{inside:.1%} of {history.height:,} outcomes inside; by year {years['coverage'][0]:.1%} to "
            f"{years['coverage'][-1]:.1%}; calm third {regimes['calm']:.1%}, wild third {regimes['wild']:.1%}",
        ]
    ]


def _predictions(platform: Any) -> str:
    last = platform.lake.last_session("predictions/published")
    rows = [
        [
            row["rank"],
            row["symbol"],
            _share(row["expected_return"], 2),
            f"{_share(row['lower'], 1)} to {_share(row['upper'], 1)}",
            _share(row["confidence"], 0),
            _share(row["var_95"], 1),
            f"{row['model_name']} {row['model_version']}",
        ]
        for row in platform.lake.read("predictions/published", start=last).sort("rank").iter_rows(named=True)
    ]
    heads = ("rank", "symbol", "expected", "interval", "confidence", "VaR 95 %, 1 day", "model")
    return f"**Newest predictions**, {last}.\n\n" + _table(heads, rows, left=2)


def _tests(platform: Any) -> str:
    summary = platform.lake.read("backtests/summary")
    rows = [_test_row(row) for row in summary.sort("sharpe", descending=True).iter_rows(named=True)]
    heads = ("strategy", "return a year", "volatility", "Sharpe", "deflated", "drawdown", "turnover a year")
    period = f"{summary['first_session'].min()} to {summary['last_session'].max()}"
    return f"**Backtests after costs**, {period}.\n\n" + _table(heads, rows, left=1)


def _test_row(row: Mapping[str, Any]) -> list[str]:
    return [
        row["strategy"],
        _share(row["annual_return"], 1),
        _share(row["volatility"], 1),
        _number(row["sharpe"], 2),
        _share(row["deflated_sharpe"], 0),
        _share(row["max_drawdown"], 1),
        _number(row["turnover"], 1),
    ]


def _table(heads: Sequence[str], rows: Sequence[Sequence[Any]], *, left: int) -> str:
    marks = ["---" if i < left else "---:" for i in range(len(heads))]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in (heads, marks, *rows)) + "\n"


def _share(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    raise SystemExit(main())
