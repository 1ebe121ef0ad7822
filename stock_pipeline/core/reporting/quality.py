"""The quality report: what was caught, where, what was repaired, and what to do about it.

The judging of rows is in ``core.quality``; this module only shows it.
"""

from __future__ import annotations

import json
from typing import Any

import polars as pl

from stock_pipeline.core.quality import QualityResult, QualityRules, all_rules
from stock_pipeline.core.reporting._figures import COLOURS, labels, styled
from stock_pipeline.core.reporting._html import Page, table, text_of

MAX_POINTS = 1500
MAX_SYMBOLS = 60
_FATES = ("clean", "repaired", "quarantined")


def quality_report(
    result: QualityResult,
    *,
    rules: QualityRules | None = None,
    title: str = "Data quality",
    lead: str = "",
    limit: int = 250,
) -> str:
    """Show a validation as one self-contained HTML page.

    Parameters
    ----------
    result
        What `validate_bars` gave, or the same four tables read from the lake.
    rules
        The settings that were used; names users' rules.
    title, lead
        Heading, and a sentence below it (market, period, data version).
    limit
        Rows shown in the long tables; how many there are in all is stated.

    Returns
    -------
    str
        HTML with its script inside (about 5 MB), usable offline; all text from data is escaped.
    """
    page = Page(title, lead or _period(result))
    page.tiles(_tiles(result))
    if not result.scores.is_empty():
        page.section(
            "Score over time",
            "Mean over symbols, and the level that one symbol in twenty falls below. 100 is a clean, complete, "
            "consistent bar that came in time.",
            page.figure(_score_over_time(result.scores)),
        )
        page.section("Score by symbol and year", *_score_map(page, result.scores))
    if not result.findings.is_empty():
        page.section(
            "Findings by rule",
            "What each rule caught. Quarantined rows are never used; repaired values keep their originals.",
            page.figure(_by_rule(result.findings)),
        )
        page.section(
            "Findings by symbol",
            f"The {_TOP_SYMBOLS} symbols with most quarantined and repaired rows.",
            page.figure(_by_symbol(result.findings)),
        )
        page.section("What to do", "Suggested remedies, most frequent rules first.", _remedies(result.findings, rules))
    page.section("Quarantined rows", _shown(result.quarantined.height, limit), _quarantined(result.quarantined, limit))
    repaired = result.validated.filter(pl.col("status") == "repaired")
    page.section("Repaired values", _shown(repaired.height, limit), _repaired(repaired, limit))
    return page.html()


_TOP_SYMBOLS = 25


def _tiles(result: QualityResult) -> list[tuple[str, str]]:
    counts = result.summary()
    rows = int(counts["rows"])

    def fate(name: str) -> tuple[str, str]:
        share = f" ({counts[name] / rows:.2%})" if rows else ""
        return f"{name}{share}", text_of(int(counts[name]))

    return [
        ("mean score", f"{counts['mean_score']:.2f}"),
        ("rows", text_of(rows)),
        *[fate(name) for name in _FATES],
        ("symbols", text_of(result.scores["symbol"].n_unique())),
        ("sessions", text_of(result.scores["session"].n_unique())),
    ]


def _period(result: QualityResult) -> str:
    if result.scores.is_empty():
        return "No rows."
    first, last = result.scores["session"].min(), result.scores["session"].max()
    return f"Sessions {text_of(first)} to {text_of(last)}."


def _shown(rows: int, limit: int) -> str:
    return f"{rows:,} rows; the newest {limit:,} are shown." if rows > limit else f"{rows:,} rows."


def _score_over_time(scores: pl.DataFrame) -> Any:
    import plotly.graph_objects as go

    daily = (
        scores.group_by("session").agg(mean=pl.col("score").mean(), low=pl.col("score").quantile(0.05)).sort("session")
    )
    if daily.height > MAX_POINTS:
        daily = daily.group_by_dynamic("session", every="1w").agg(pl.col("mean").mean(), pl.col("low").min())
    x = daily["session"].to_list()
    figure = go.Figure()
    figure.add_scatter(x=x, y=daily["low"].round(3).to_list(), name="5 % quantile", line={"color": COLOURS["soft"]})
    figure.add_scatter(x=x, y=daily["mean"].round(3).to_list(), name="mean", line={"color": COLOURS["main"]})
    return styled(figure, y_title="score (0 to 100)")


def _score_map(page: Page, scores: pl.DataFrame) -> tuple[str, str]:
    import plotly.graph_objects as go

    yearly = scores.group_by("symbol", pl.col("session").dt.year().alias("year")).agg(pl.col("score").mean())
    worst = yearly.group_by("symbol").agg(pl.col("score").min()).sort("score", "symbol")["symbol"].to_list()
    shown = worst[:MAX_SYMBOLS]
    text = "Mean score; the worst symbols stand on top."
    if len(worst) > MAX_SYMBOLS:
        text = f"Mean score of the {MAX_SYMBOLS} symbols with the worst year, of {len(worst):,}."
    wide = yearly.filter(pl.col("symbol").is_in(shown)).pivot(on="year", index="symbol", values="score")
    years = sorted(int(name) for name in wide.columns if name != "symbol")
    place = {symbol: number for number, symbol in enumerate(shown)}
    wide = wide.sort(pl.col("symbol").replace_strict(place, return_dtype=pl.Int64), descending=True)
    figure = go.Figure(
        go.Heatmap(
            x=[str(year) for year in years],
            y=labels(wide["symbol"].to_list()),
            z=[[None if v is None else round(v, 2) for v in row] for row in wide.select(map(str, years)).iter_rows()],
            zmin=min(90.0, float(yearly["score"].min() or 0.0)),  # type: ignore[arg-type]
            zmax=100,
            colorscale=[[0, "#cf3f4a"], [0.6, "#f2c14e"], [0.9, "#b7dfc6"], [1, "#2e9e6b"]],
            xgap=1,
            ygap=1,
            colorbar={"title": "score", "thickness": 12},
            hovertemplate="%{y}, %{x}: %{z}<extra></extra>",
        )
    )
    figure.update_yaxes(type="category")
    figure.update_xaxes(type="category")
    return text, page.figure(styled(figure, height=120 + 18 * len(shown)))


def _by_rule(findings: pl.DataFrame) -> Any:
    return _stacked(findings, "rule", findings["rule"].n_unique())


def _by_symbol(findings: pl.DataFrame) -> Any:
    serious = findings.filter(pl.col("severity") != "warn")
    some = (serious if not serious.is_empty() else findings).filter(pl.col("symbol").is_not_null())
    return _stacked(some, "symbol", _TOP_SYMBOLS)


def _stacked(findings: pl.DataFrame, by: str, most: int) -> Any:
    import plotly.graph_objects as go

    totals = findings.group_by(by).len().sort("len", by, descending=[True, False]).head(most)
    order = totals[by].to_list()[::-1]
    counts = findings.group_by(by, "severity").len()
    figure = go.Figure()
    for severity in ("quarantine", "repair", "warn"):
        of = dict(counts.filter(pl.col("severity") == severity).select(by, "len").iter_rows())
        if of:
            figure.add_bar(
                y=labels(order),
                x=[of.get(name, 0) for name in order],
                orientation="h",
                name=severity,
                marker_color=COLOURS[severity],
            )
    figure.update_layout(barmode="stack")
    figure.update_yaxes(type="category")
    return styled(figure, height=110 + 24 * len(order), x_title="findings")


def _remedies(findings: pl.DataFrame, rules: QualityRules | None) -> str:
    own = {rule.name: rule for rule in (rules.user_rules if rules else ())}
    counts = findings.group_by("rule", "severity").agg(pl.len(), pl.col("symbol").n_unique())
    rows = []
    for name, severity, count, symbols in counts.sort("len", "rule", descending=[True, False]).iter_rows():
        rule = all_rules().get(name)
        if rule is not None:
            looks_for, remedy = rule.description, rule.remedy
        else:
            looks_for = own[name].when if name in own else "A rule from the configuration."
            remedy = own[name].reason if name in own else "See the configuration."
        rows.append([name, severity, count, symbols, looks_for, remedy])
    return table(["rule", "action", "findings", "symbols", "looks for", "remedy"], rows)


def _quarantined(quarantined: pl.DataFrame, limit: int) -> str:
    newest = quarantined.sort("session", "symbol", descending=[True, False], nulls_last=True).head(limit)
    rows = (
        [*row[:7], ", ".join(row[7] or []), row[8]]
        for row in newest.select(
            "session", "symbol", "open", "high", "low", "close", "volume", "rules", "reason"
        ).iter_rows()
    )
    return table(["session", "symbol", "open", "high", "low", "close", "volume", "rules", "reason"], rows)


def _repaired(repaired: pl.DataFrame, limit: int) -> str:
    newest = repaired.sort("session", "symbol", descending=[True, False]).head(limit)
    rows = []
    for row in newest.iter_rows(named=True):
        for entry in json.loads(row["repairs"]):
            field = entry["field"]
            original = "missing" if entry["original"] is None else entry["original"]
            rows.append([row["session"], row["symbol"], field, original, row[field], entry["method"], entry["rule"]])
    return table(["session", "symbol", "field", "original", "repaired", "method", "rule"], rows)
