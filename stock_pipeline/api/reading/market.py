"""What the lake knows of a market: quality, risk, and everything about one symbol."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any, TypeVar

import polars as pl

from stock_pipeline.api.problems import ProblemError
from stock_pipeline.api.reading import tables
from stock_pipeline.core.errors import DataError
from stock_pipeline.core.quality import all_rules
from stock_pipeline.core.risk.backtest import kupiec
from stock_pipeline.storage.lake import Lake

BARS, SCORES, FINDINGS = "market/validated_bars", "market/quality_scores", "market/quality_findings"
QUARANTINED = "market/quarantined_bars"
RISK, VAR_BACKTEST = "risk/symbol_risk", "risk/var_backtest"
PUBLISHED, OUTCOMES = "predictions/published", "predictions/outcomes"

NO_BARS = "there are no bars yet"
NO_QUALITY = "no bars have been validated yet"
NO_RISK = "no risk has been computed yet"

Made = TypeVar("Made")

LOW_SCORE = 80.0
"""Scores below this count as low in summaries."""

_PRICES = ("session", "open", "high", "low", "close", "adjusted_close", "volume", "status", "quality_score")
_PREDICTED = (
    "prediction_id", "session", "horizon", "expected_return", "lower", "upper", "confidence", "rank", "model_name",
    "model_version", "fallback_level", "label_session", "realised_return", "inside",
)  # fmt: skip
_RISKS = ("session", "volatility", "var_95", "es_95", "var_99", "es_99", "drawdown")


class Market:
    """The lake's tables in the form of answers; every method may be slow.

    Parameters
    ----------
    lake
        The tables.
    """

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self._lock = threading.Lock()
        self._made: dict[str, tuple[dict[str, int], Any]] = {}

    def _once(self, name: str, of: Sequence[str], make: Callable[[], Made]) -> Made:
        """What ``make`` makes, made again only when one of the tables that it reads is another one."""
        with tables.stored(", ".join(of)):
            versions = self.lake.versions(of)
        with self._lock:
            known = self._made.get(name)
        if known is not None and known[0] == versions:
            found: Made = known[1]
            return found
        found = make()
        with self._lock:
            self._made[name] = (versions, found)
        return found

    # ---------------------------------------------------------------- symbols
    def symbols(self) -> pl.DataFrame:
        """``symbol, first_session, last_session, sessions, currency`` of every symbol with bars, by symbol."""
        tables.version_of(self.lake, BARS, NO_BARS)
        return self._once("symbols", [BARS], self._symbols)

    def _symbols(self) -> pl.DataFrame:
        with tables.stored(BARS):
            return (
                self.lake.scan(BARS, columns=["symbol", "session", "currency"])
                .group_by("symbol")
                .agg(
                    first_session=pl.col("session").min(),
                    last_session=pl.col("session").max(),
                    sessions=pl.len(),
                    currency=pl.col("currency").sort_by("session").last(),
                )
                .sort("symbol")
                .collect()
            )

    def known(self, symbol: str) -> dict[str, Any]:
        """The line of `symbols` about one.

        Raises
        ------
        ProblemError
            404 ``symbol-not-found``.
        """
        found = self.symbols().filter(pl.col("symbol") == symbol)
        if found.is_empty():
            raise ProblemError(
                404, "symbol-not-found", f"there are no bars of {symbol!r}; /api/symbols lists what there is"
            )
        return found.row(0, named=True)

    def symbol(
        self, symbol: str, start: date | None, end: date | None, *, with_risk: bool = True, with_quality: bool = True
    ) -> dict[str, Any]:
        """Everything about one symbol within a range of sessions, as arrays; empty where the reader may not see it."""
        line = self.known(symbol)
        first, last = tables.between(start, end, line["last_session"])
        chosen = {"start": first, "end": last, "symbols": [symbol]}
        predictions = self._predictions(chosen)
        return {
            **line,
            "from": first,
            "to": last,
            "prices": tables.columns(self._prices(chosen)),
            "predictions": tables.columns(predictions),
            "outcomes": _judged(predictions),
            "risk": tables.columns(self._risk_with_losses(chosen)) if with_risk else {},
            "findings": self._findings(chosen) if with_quality else [],
        }

    def _prices(self, chosen: dict[str, Any]) -> pl.DataFrame:
        with tables.stored(BARS):
            bars = self.lake.read(BARS, **chosen).with_columns(adjusted_close=pl.col("close") * pl.col("adj_factor"))
            return _only(bars, _PRICES)

    def _predictions(self, chosen: dict[str, Any]) -> pl.DataFrame:
        published = tables.read_or_empty(self.lake, PUBLISHED, **chosen)
        if published.is_empty():
            return pl.DataFrame(schema=dict.fromkeys(_PREDICTED, pl.Null()))
        outcomes = tables.read_or_empty(self.lake, OUTCOMES, **chosen)
        with tables.stored(PUBLISHED):
            if not outcomes.is_empty():
                matured = outcomes.select("prediction_id", "label_session", "realised_return", "inside")
                published = published.join(matured, on="prediction_id", how="left", maintain_order="left")
            return _only(published.sort("session"), _PREDICTED)

    def _risk_with_losses(self, chosen: dict[str, Any]) -> pl.DataFrame:
        """Risk of each session with the return of the next one, and whether it was worse than the value at risk."""
        risk = tables.read_or_empty(self.lake, RISK, **chosen)
        if risk.is_empty():
            floats = dict.fromkeys((*_RISKS[1:], "next_return"), pl.Float64())
            flags = dict.fromkeys(("exceeded_95", "exceeded_99"), pl.Boolean())
            return pl.DataFrame(schema={"session": pl.Date(), **floats, **flags})
        with tables.stored(BARS):
            # the bar after the range belongs to the last forecast in it
            bars = self.lake.read(
                BARS, start=chosen["start"], symbols=chosen["symbols"], columns=["session", "close", "adj_factor"]
            ).sort("session")
            price = pl.col("close") * pl.col("adj_factor")
            following = bars.select("session", next_return=price.shift(-1) / price - 1)
            found = _only(risk, _RISKS).join(following, on="session", how="left", maintain_order="left")
            return found.with_columns(
                (pl.col("next_return") < -pl.col(f"var_{level}")).alias(f"exceeded_{level}") for level in (95, 99)
            )

    def _findings(self, chosen: dict[str, Any]) -> list[dict[str, Any]]:
        found = tables.read_or_empty(self.lake, FINDINGS, **chosen)
        return [] if found.is_empty() else tables.rows(found.sort("session", descending=True).head(200))

    # ---------------------------------------------------------------- risk
    def newest(self, table: str, nothing: str) -> date:
        """Newest session of a table.

        Raises
        ------
        ProblemError
            404 ``no-data``.
        """
        tables.version_of(self.lake, table, nothing)
        with tables.stored(table):
            found = self.lake.last_session(table)
        if found is None:
            raise ProblemError(404, "no-data", f"{nothing}; run the pipeline first: stock-pipeline run")
        return found

    def has_session(self, table: str, session: date) -> bool:
        """Whether a table has rows of a session."""
        with tables.stored(table):
            return self.lake.scan(table, start=session, end=session).head(1).collect().height > 0

    def risk(self, symbol: str, start: date | None, end: date | None) -> dict[str, Any]:
        """History of one symbol's risk, and how its value at risk did against what followed."""
        newest = self.newest(RISK, NO_RISK)
        line = self.known(symbol)
        first, last = tables.between(start, end, min(newest, line["last_session"]))
        chosen = {"start": first, "end": last, "symbols": [symbol]}
        history = tables.read(self.lake, RISK, **chosen).drop("symbol")
        losses = self._risk_with_losses(chosen).select("session", "next_return", "exceeded_95", "exceeded_99")
        with tables.stored(RISK):
            joined = history.join(losses, on="session", how="left", maintain_order="left")
        return {
            "symbol": symbol,
            "from": first,
            "to": last,
            "history": tables.columns(joined),
            "undefined": tables.undefined_columns(joined),
            "backtest": self.var_backtest([symbol]),
        }

    def var_backtest(self, symbols: Sequence[str] | None) -> list[dict[str, Any]]:
        """Exceedances of the value at risk over the whole history, with Kupiec's and Christoffersen's tests."""
        found = tables.read_or_empty(self.lake, VAR_BACKTEST, symbols=symbols)
        return [] if found.is_empty() else tables.rows(found.sort("symbol", "level"))

    def pooled(self) -> list[dict[str, Any]]:
        """Exceedances of all symbols together, by level, with Kupiec's test.

        The test takes the sessions of all symbols as independent, which they are not: its p-value is too small.
        """
        return self._once("pooled", [VAR_BACKTEST], self._pooled)

    def _pooled(self) -> list[dict[str, Any]]:
        found = tables.read_or_empty(self.lake, VAR_BACKTEST)
        if found.is_empty():
            return []
        with tables.stored(VAR_BACKTEST):
            summed = found.group_by("level").agg(
                pl.col("observations").sum(), pl.col("exceedances").sum(), pl.col("symbol").n_unique().alias("symbols")
            )
            lines = summed.sort("level").to_dicts()
            for line in lines:
                judged = (
                    kupiec(line["observations"], line["exceedances"], line["level"]) if line["observations"] else {}
                )
                line["exceedance_rate"] = line["exceedances"] / line["observations"] if line["observations"] else None
                line["expected_rate"] = 1 - line["level"]
                line["kupiec_p"] = judged.get("p_value")
        return lines

    # ---------------------------------------------------------------- quality
    def quality(self) -> dict[str, Any]:
        """The newest session's scores in figures, and what became of all rows."""
        return self._once("quality", [SCORES, FINDINGS, QUARANTINED, BARS], self._quality)

    def _quality(self) -> dict[str, Any]:
        session = self.newest(SCORES, NO_QUALITY)
        scores = tables.read(self.lake, SCORES, start=session, end=session)
        findings = tables.read_or_empty(self.lake, FINDINGS)
        quarantined = tables.read_or_empty(self.lake, QUARANTINED, columns=["symbol", "session"])
        with tables.stored(SCORES):
            score = scores["score"]
            statuses = self._statuses()
            return {
                "session": session,
                "symbols": scores.height,
                "mean": tables.finite(score.mean()),
                "lowest": tables.finite(score.min()),
                "low": int((score < LOW_SCORE).sum()),
                "low_below": LOW_SCORE,
                "rows": {**statuses, "quarantined": quarantined.height},
                "quarantined_in_session": int((quarantined["session"] == session).sum()) if quarantined.height else 0,
                "findings": findings.height,
                "rules": _by_rule(findings),
            }

    def score_series(self, start: date | None, end: date | None) -> dict[str, Any]:
        """Scores of each session: mean, the level that one symbol in twenty is below, and the lowest."""
        first, last = tables.between(start, end, self.newest(SCORES, NO_QUALITY))
        with tables.stored(SCORES):
            found = (
                self.lake.scan(SCORES, start=first, end=last)
                .group_by("session")
                .agg(
                    symbols=pl.len(),
                    mean=pl.col("score").mean(),
                    low=pl.col("score").quantile(0.05),
                    lowest=pl.col("score").min(),
                )
                .sort("session")
                .collect()
            )
        return {"from": first, "to": last, "sessions": tables.columns(found)}

    def quality_of(self, symbol: str, start: date | None, end: date | None) -> dict[str, Any]:
        """Scores, findings and quarantined rows of one symbol."""
        first, last = tables.between(start, end, self.newest(SCORES, NO_QUALITY))
        chosen = {"start": first, "end": last, "symbols": [symbol]}
        scores = tables.read(self.lake, SCORES, **chosen)
        quarantined = tables.read_or_empty(self.lake, QUARANTINED, **chosen)
        findings = self._findings(chosen)
        if scores.is_empty() and quarantined.is_empty() and not findings:
            self._heard_of(symbol)
        with tables.stored(SCORES):
            shown = scores.sort("session").select("session", "score")
            rows = [] if quarantined.is_empty() else tables.rows(quarantined.sort("session", descending=True).head(200))
            return {
                "symbol": symbol,
                "from": first,
                "to": last,
                "newest": tables.finite(shown["score"][-1]) if shown.height else None,
                "mean": tables.finite(shown["score"].mean()),
                "scores": tables.columns(shown),
                "findings": findings,
                "quarantined": rows,
                "quarantined_rows": quarantined.height,
            }

    def _heard_of(self, symbol: str) -> None:
        with tables.stored(SCORES):
            known = self.lake.scan(SCORES, symbols=[symbol]).head(1).collect().height
        if not known:
            raise ProblemError(404, "symbol-not-found", f"no bar of {symbol!r} was ever judged")

    def _statuses(self) -> dict[str, int]:
        if not self.lake.exists(BARS):
            return {"clean": 0, "repaired": 0}
        counts = self.lake.scan(BARS, columns=["status"]).group_by("status").len().collect()
        found = dict(counts.iter_rows())
        return {name: int(found.get(name, 0)) for name in ("clean", "repaired")}


def _by_rule(findings: pl.DataFrame) -> list[dict[str, Any]]:
    if findings.is_empty():
        return []
    known = all_rules()
    counted = (
        findings.group_by("rule", "severity")
        .agg(rows=pl.len(), symbols=pl.col("symbol").n_unique(), newest=pl.col("session").max())
        .sort("rows", "rule", descending=[True, False])
    )
    lines = counted.to_dicts()
    for line in lines:
        rule = known.get(line["rule"])
        line["description"] = rule.description if rule else None
        line["remedy"] = rule.remedy if rule else None
    return lines


def _judged(predictions: pl.DataFrame) -> dict[str, Any]:
    """How the predictions with a known outcome did."""
    if "realised_return" not in predictions.columns or predictions["realised_return"].dtype == pl.Null:
        return {"known": 0, "coverage": None, "hit_rate": None, "mean_error": None}
    known = predictions.filter(pl.col("realised_return").is_not_null())
    if known.is_empty():
        return {"known": 0, "coverage": None, "hit_rate": None, "mean_error": None}
    product = known["realised_return"] * known["expected_return"]
    signed = product.filter(product != 0)
    return {
        "known": known.height,
        "coverage": tables.finite(known["inside"].mean()),
        "hit_rate": tables.finite((signed > 0).mean()) if signed.len() else None,
        "mean_error": tables.finite((known["realised_return"] - known["expected_return"]).mean()),
    }


def _only(frame: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """These columns; null where an older table lacks one."""
    if "session" not in frame.columns:
        raise DataError("the table has no sessions", value=frame.columns)
    return frame.select(pl.col(name) if name in frame.columns else pl.lit(None).alias(name) for name in names)
