"""Trade the ranking of a model's predictions, out of sample only."""

from __future__ import annotations

from typing import ClassVar

import polars as pl
from pydantic import Field

from stock_pipeline.core.backtesting.data import MarketData
from stock_pipeline.core.backtesting.strategies.protocol import Strategy
from stock_pipeline.core.backtesting.strategies.ranking import rank_targets
from stock_pipeline.core.backtesting.strategies.schedule import Schedule, decision_sessions
from stock_pipeline.core.errors import ConfigurationError, DataError, LookAheadError
from stock_pipeline.core.parameters import Parameters


class ModelRankParameters(Parameters):
    """Parameters of `ModelRank`."""

    top: int = Field(default=5, ge=1, le=5000, description="Names held long.")
    bottom: int = Field(default=0, ge=0, le=5000, description="Names held short; 0 for long only.")
    rebalance: Schedule = Field(default="weekly", description="How often the ranking is traded.")
    gross: float = Field(default=1.0, gt=0, le=5, description="Sum of absolute weights.")
    minimum_prediction: float | None = Field(
        default=None, description="Long names must be predicted above this return."
    )


class ModelRank(Strategy):
    """Hold the best predicted names, optionally short the worst.

    Every prediction must have been out of sample on its date: with a column ``trained_through`` (last date the model
    had seen, labels included) a row whose date is not later is refused.
    """

    name: ClassVar[str] = "model_rank"
    description: ClassVar[str] = "Hold the names a model ranked best out of sample, optionally short the worst."
    needs_predictions: ClassVar[bool] = True
    Parameters: ClassVar[type[Parameters]] = ModelRankParameters

    def targets(self, data: MarketData) -> pl.DataFrame:
        """See `Strategy.targets`."""
        p = self.parameters
        predictions = out_of_sample(data.predictions)
        known = predictions.join(data.bars.select("symbol", "session"), on=["symbol", "session"], how="semi")
        known = data.members(known)
        sessions = known["session"].unique().sort().to_list()
        scores = known.filter(pl.col("session").is_in(decision_sessions(sessions, p.rebalance))).select(
            "session", "symbol", score="prediction"
        )
        targets = rank_targets(scores, top=p.top, bottom=p.bottom, gross=p.gross)
        if p.minimum_prediction is None:
            return targets
        targets = targets.join(scores, on=["session", "symbol"], how="left")
        weak = (pl.col("weight") > 0) & (pl.col("score") <= p.minimum_prediction)
        return (
            targets.with_columns(weight=pl.when(weak).then(0.0).otherwise("weight"))
            .drop("score")
            .sort("session", "symbol")
        )


def out_of_sample(predictions: pl.DataFrame | None) -> pl.DataFrame:
    """Check predictions before they are traded.

    Returns
    -------
    polars.DataFrame
        ``symbol, session, prediction`` without nulls.

    Raises
    ------
    ConfigurationError
        When there are none.
    DataError
        When a column is missing, a key is repeated or a prediction is not a number.
    LookAheadError
        When a model had seen the date that it predicts from.
    """
    if predictions is None or predictions.height == 0:
        raise ConfigurationError(
            "model_rank needs out-of-sample predictions, and there are none", fix="train a model, or give predictions"
        )
    missing = [c for c in ("symbol", "session", "prediction") if c not in predictions.columns]
    if missing:
        raise DataError("the predictions lack columns", value=missing, allowed="symbol, session, prediction")
    if "trained_through" in predictions.columns:
        leaked = predictions.filter(pl.col("trained_through") >= pl.col("session")).sort("session", "symbol")
        if leaked.height:
            row = leaked.row(0, named=True)
            raise LookAheadError(
                f"the prediction of {row['symbol']} on {row['session']} is by a model trained through "
                f"{row['trained_through']}",
                allowed="models trained on earlier dates only",
                fix="use the out-of-sample predictions of the walk-forward training",
            )
    out = predictions.select("symbol", "session", pl.col("prediction").cast(pl.Float64)).drop_nulls()
    if out.filter(~pl.col("prediction").is_finite()).height:
        raise DataError("a prediction is not a finite number")
    if out.select(pl.struct("symbol", "session").is_duplicated().any()).item():
        raise DataError(
            "a symbol has two predictions in one session", fix="choose one model, or average the folds beforehand"
        )
    return out
