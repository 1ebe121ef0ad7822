"""The model card: what a model is, how well it does on data it has not seen beside naive baselines, and its limits.

After Mitchell et al., *Model Cards for Model Reporting*, FAT* 2019. Numbers are computed in ``core.modelling``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from stock_pipeline.core.modelling.evaluation import by_year, calibration, evaluate, ic_series
from stock_pipeline.core.modelling.promotion import PromotionDecision
from stock_pipeline.core.modelling.training import TrainingResult
from stock_pipeline.core.reporting.model_document import Document
from stock_pipeline.core.reporting.model_figures import bars, horizontal_bars, lines

_COLUMNS = (
    ("rank IC", "rank_ic", "{:.4f}"),
    ("IC t", "rank_ic_t", "{:.2f}"),
    ("IC IR", "rank_ic_ir", "{:.3f}"),
    ("hit rate", "hit_rate", "{:.1%}"),
    ("always up", "always_up_hit_rate", "{:.1%}"),
    ("RMSE", "rmse", "{:.5f}"),
    ("skill vs zero", "skill_zero", "{:.2%}"),
    ("long-short bps", "long_short_bps", "{:.1f}"),
    ("after costs", "long_short_net_bps", "{:.1f}"),
)


@dataclass(frozen=True)
class ModelCard:
    """A model card in both forms; ``figures`` holds the SVG files that the Markdown refers to, by name."""

    markdown: str
    html: str
    figures: Mapping[str, str]


def model_card(
    result: TrainingResult,
    baselines: Mapping[str, pl.DataFrame],
    *,
    market: str,
    feature_set: str,
    feature_set_hash: str,
    data_version: Mapping[str, int],
    code_version: str,
    decision: PromotionDecision | None = None,
    trials: int = 1,
    cost_bps: float = 10.0,
) -> ModelCard:
    """Write the card of a training.

    Parameters
    ----------
    result
        Of `train_walk_forward`.
    baselines
        Out-of-sample predictions of the naive baselines on the same folds, by name.
    market, feature_set, feature_set_hash, data_version, code_version
        Where the data and the code come from.
    decision
        What the promotion rule said; ``None`` if it has not been asked.
    trials
        How many models or parameter sets were tried to arrive at this one.
    cost_bps
        Cost of trading 1 unit of value in the long-short figures.

    Returns
    -------
    ModelCard
    """
    settings = result.settings
    horizon = settings.horizon
    shown = evaluate(result.oos, horizon=horizon, cost_bps=cost_bps)
    document, figures = Document(f"Model card: {result.family} on {market}"), {}
    document.paragraph(verdict(shown))

    document.heading("What it is")
    document.table(
        ["", ""],
        [
            ["Family", result.family],
            ["Predicts", f"forward return over {horizon} sessions, bought at the next open"],
            ["Fitted to", f"{settings.target} target, winsorised at {settings.winsor:.1%}"],
            ["Features", f"{len(result.model.feature_names)} ({feature_set}, {feature_set_hash[:12]})"],
            ["Learnt from", f"{result.train_start} to {result.trained_through}, {result.train_rows:,} rows"],
            ["Symbols", str(result.oos["symbol"].n_unique())],
            ["Data", ", ".join(f"{t} version {v}" for t, v in data_version.items()) or "not from the lake"],
            ["Code", code_version],
            ["Seed", str(result.seed)],
            ["Models or parameter sets tried", str(trials)],
        ],
    )

    document.heading("Out of sample, beside the naive baselines")
    document.paragraph(
        f"{settings.folds} walk-forward folds ({settings.window} window), purged of overlapping labels, embargo of "
        f"{settings.embargo} sessions. The t value allows for overlapping labels (Newey-West). Long-short figures are "
        f"per holding period of {horizon} sessions, best against worst fifth, after {cost_bps:g} bps per unit traded."
    )
    others = {name: evaluate(oos, horizon=horizon, cost_bps=cost_bps) for name, oos in baselines.items()}
    rows = [_row(result.family, shown), *(_row(f"baseline: {name}", f) for name, f in others.items())]
    if result.holdout.height:
        rows.append(_row("final model, hold-out", evaluate(result.holdout, horizon=horizon, cost_bps=cost_bps)))
    document.table(["", *(c[0] for c in _COLUMNS)], rows)
    figures["ic_cumulative"] = _cumulative(result, baselines)
    document.figure("ic_cumulative", "Cumulative rank IC", figures["ic_cumulative"])

    document.heading("By fold")
    document.table(
        ["fold", "test from", "to", "rows learnt", "rounds", "rank IC", "hit rate", "skill vs zero"],
        [
            [
                str(f["fold"]),
                str(f["test_start"]),
                str(f["test_end"]),
                f"{f['train_rows']:,}",
                "" if f["rounds"] is None else str(f["rounds"]),
                _text(f["rank_ic"], "{:.4f}"),
                _text(f["hit_rate"], "{:.1%}"),
                _text(f["skill_zero"], "{:.2%}"),
            ]
            for f in result.fold_metrics.iter_rows(named=True)
        ],
    )

    document.heading("By year")
    years = by_year(result.oos, horizon=horizon, cost_bps=cost_bps)
    figures["ic_by_year"] = bars("Mean rank IC by year", [str(y) for y in years["year"]], years["rank_ic"].to_list())
    document.figure("ic_by_year", "Mean rank IC by year", figures["ic_by_year"])
    document.table(["year", *(c[0] for c in _COLUMNS)], [_row(str(y["year"]), y) for y in years.iter_rows(named=True)])

    document.heading("Calibration")
    document.paragraph(
        "Predictions sorted into tenths: what was predicted and what happened on average, in basis points. Regressing "
        f"outcomes on predictions gives the slope {_text(shown['calibration_slope'], '{:.2f}')}; 1 is right, 0 noise."
    )
    bins = calibration(result.oos)
    document.table(
        ["tenth", "rows", "predicted", "happened"],
        [
            [str(b["bin"]), f"{b['rows']:,}", f"{b['prediction_mean'] * 1e4:.1f}", f"{b['label_mean'] * 1e4:.1f}"]
            for b in bins.iter_rows(named=True)
        ],
    )
    figures["calibration"] = lines(
        "Outcome by tenth of the prediction (bps)",
        [
            ("predicted", (bins["prediction_mean"] * 1e4).to_list()),
            ("happened", (bins["label_mean"] * 1e4).to_list()),
        ],
        ("lowest", "highest"),
    )
    document.figure("calibration", "Calibration", figures["calibration"])

    if result.importance.height:
        document.heading("What it looks at")
        top = result.importance.head(20)
        figures["importance"] = horizontal_bars(
            "Share of importance, 20 largest", top["feature"].to_list(), top["importance"].to_list()
        )
        document.figure("importance", "Importance", figures["importance"])

    document.heading("Promotion")
    document.items(["not asked yet"] if decision is None else list(decision.reasons))

    document.heading("Intended use and limits")
    document.items(_limits(horizon))
    return ModelCard(document.markdown(), document.html(), figures)


def verdict(figures: Mapping[str, float | None]) -> str:
    """Say in one sentence what the out-of-sample figures amount to."""
    ic, t = figures["rank_ic"], figures["rank_ic_t"]
    if ic is None or t is None:
        return "There are too few symbols, or predictions are constant: no ranking skill can be measured."
    numbers = f"mean rank IC {ic:.4f}, t {t:.1f}, over {figures['sessions']:,.0f} sessions"
    if t < -2:
        return f"Out of sample this model ranks stocks worse than chance ({numbers})."
    if t < 2:
        return f"Out of sample this model's ranking cannot be told from chance ({numbers})."
    net = figures["long_short_net_bps"]
    paid = "and earns something" if net is not None and net > 0 else "but does not earn anything"
    return f"Out of sample this model ranks stocks better than chance ({numbers}), {paid} after the stated costs."


def _limits(horizon: int) -> list[str]:
    return [
        f"Meant for ranking the symbols of this market over {horizon} sessions, with an interval for each prediction.",
        "A single prediction is far less certain than its rank: always read it with its interval.",
        "Past relations may end; live coverage and rank IC are measured when outcomes mature: watch those.",
        "If the universe was chosen with hindsight (today's survivors), figures are too good.",
        "Market impact is not in the costs. This is no investment advice.",
    ]


def _cumulative(result: TrainingResult, baselines: Mapping[str, pl.DataFrame]) -> str:
    series = []
    for name, oos in {result.family: result.oos, **baselines}.items():
        values = ic_series(oos)["rank_ic"].fill_null(0.0).to_numpy()
        if np.any(values):
            series.append((name, np.cumsum(values).tolist()))
    days = result.oos["session"]
    return lines("Cumulative rank IC", series or [(result.family, [0.0])], (str(days.min()), str(days.max())))


def _row(name: str, figures: Mapping[str, float | None]) -> list[str]:
    return [name, *(_text(figures.get(key), form) for _, key, form in _COLUMNS)]


def _text(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)
