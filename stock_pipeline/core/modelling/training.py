"""Walk-forward training: a model per fold for out-of-sample predictions, then the final model and its hold-out.

Every fold and the final model go through the same steps, so that the errors of the folds are those to expect of the
final model. Metrics are defined in ``modelling.evaluation``, what is promoted in ``modelling.promotion``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import polars as pl

from stock_pipeline.core.errors import DataError
from stock_pipeline.core.modelling import families
from stock_pipeline.core.modelling.dataset import KEYS, Panel
from stock_pipeline.core.modelling.evaluation import evaluate
from stock_pipeline.core.modelling.families.base import FittedModel, ModelFamily
from stock_pipeline.core.modelling.progress import Progress, ProgressCallback, TrainingCancelled, silent
from stock_pipeline.core.modelling.settings import TrainingSettings
from stock_pipeline.core.modelling.splits import Fold, hold_out, walk_forward
from stock_pipeline.core.modelling.target import training_target
from stock_pipeline.core.parameters import Parameters

OOS_SCHEMA: dict[str, pl.DataType] = {
    "symbol": pl.String(),
    "session": pl.Date(),
    "fold": pl.Int32(),
    "prediction": pl.Float64(),
    "label": pl.Float64(),
    "label_session": pl.Date(),
}
"""Out-of-sample predictions; fold 0 is the hold-out."""


@dataclass(frozen=True)
class TrainingResult:
    """Everything that training found out.

    Attributes
    ----------
    family, parameters, settings, seed
        What was trained, how.
    oos
        Predictions of all test folds (`OOS_SCHEMA`), sorted by symbol and session.
    fold_metrics
        One row a fold: ``fold, train_start, train_end, test_start, test_end, trained_through`` (newest session that the
        fold's model has seen, labels included), ``train_rows, test_rows, rounds``, and the figures of `evaluate`.
    model
        The final model, fitted on everything before the hold-out, purged.
    importance
        ``feature, importance`` of the final model, largest first; shares that sum to 1.
    trained_through
        Newest session the final model has seen, the sessions that complete its labels included.
    train_start
        First session the final model learnt from.
    train_rows
        Rows the final model learnt from.
    holdout
        Predictions of the final model on the newest sessions (`OOS_SCHEMA`, fold 0); empty without a hold-out.
    folds
        The splits.
    """

    family: str
    parameters: Parameters
    settings: TrainingSettings
    seed: int
    oos: pl.DataFrame
    fold_metrics: pl.DataFrame
    model: FittedModel
    importance: pl.DataFrame
    trained_through: date
    train_start: date
    train_rows: int
    holdout: pl.DataFrame
    folds: list[Fold]


def train_walk_forward(
    dataset: pl.DataFrame | Panel,
    *,
    feature_names: Sequence[str],
    family: str | ModelFamily,
    parameters: Parameters | Mapping[str, Any] | None = None,
    settings: TrainingSettings | None = None,
    seed: int = 0,
    progress: ProgressCallback = silent,
    cancelled: Callable[[], bool] = lambda: False,
) -> TrainingResult:
    """Train one family walk-forward.

    Parameters
    ----------
    dataset
        ``symbol, session, label, label_session`` and the features (see `modelling.dataset.join`); rows whose label has
        not matured are left out. A `Panel` made once serves several families.
    feature_names
        Columns to learn from, in order.
    family
        A name of `families.FAMILIES`, or a family.
    parameters
        The family's parameters; ``None`` for its defaults.
    settings
        How to split, and what to fit to.
    seed
        Seed of everything random.
    progress
        Called after each round of families that have rounds, each fold, and the final model.
    cancelled
        Asked between rounds and folds; ``True`` stops training.

    Returns
    -------
    TrainingResult

    Raises
    ------
    TrainingCancelled
        If ``cancelled`` said so.
    DataError
        If the history is too short or the data set is malformed; the message has the numbers.
    ConfigurationError
        If the family or a parameter is not acceptable.
    """
    settings = settings or TrainingSettings()
    chosen = families.get(family) if isinstance(family, str) else family
    checked = chosen.parse(parameters)
    names = tuple(feature_names)
    if isinstance(dataset, Panel):
        if dataset.names != names:
            raise DataError("the panel was made for other features", value=sorted(set(names) ^ set(dataset.names))[:10])
        panel = dataset
    else:
        others = [c for c in dataset.columns if c not in (*KEYS, *names)] if chosen.baseline else []
        panel = Panel.of(dataset, chosen.inputs([*names, *others], checked))
    _, final, folds = splits_of(panel.sessions(), settings)
    runner = _Runner(panel, chosen, checked, settings, seed, progress, cancelled, len(folds))

    parts, rows = [], []
    for fold in folds:
        model, learnt = runner.fit(fold)
        oos = runner.predict(model, fold)
        metrics = evaluate(oos, horizon=settings.horizon)
        parts.append(oos)
        rows.append({**_describe(panel, fold, learnt, oos.height, model), **metrics})
        runner.report("fold", fold, {k: v for k, v in metrics.items() if v is not None})
    model, learnt = runner.fit(final)
    holdout = runner.predict(model, final) if final.test else pl.DataFrame(schema=OOS_SCHEMA)
    shown = evaluate(holdout, horizon=settings.horizon) if holdout.height else {}
    runner.report("final", final, {k: v for k, v in shown.items() if v is not None})
    importance = model.importance()
    return TrainingResult(
        family=chosen.name,
        parameters=checked,
        settings=settings,
        seed=seed,
        oos=pl.concat(parts).sort("symbol", "session"),
        fold_metrics=pl.DataFrame(rows, infer_schema_length=None),
        model=model,
        importance=pl.DataFrame(
            {"feature": list(importance), "importance": list(importance.values())},
            schema={"feature": pl.String, "importance": pl.Float64},
        ).sort(["importance", "feature"], descending=[True, False]),
        trained_through=panel.known[learnt].max().astype(date),
        train_start=panel.session[learnt].min().astype(date),
        train_rows=len(panel.y[learnt]),
        holdout=holdout,
        folds=folds,
    )


def fit_folds(
    panel: Panel,
    folds: Sequence[Fold],
    family: ModelFamily,
    parameters: Parameters,
    settings: TrainingSettings,
    seed: int,
    cancelled: Callable[[], bool] = lambda: False,
) -> list[pl.DataFrame]:
    """Return the predictions (`OOS_SCHEMA`) of given folds, without metrics, progress or a final model."""
    runner = _Runner(panel, family, parameters, settings, seed, silent, cancelled, len(folds))
    return [runner.predict(runner.fit(fold)[0], fold) for fold in folds]


def splits_of(sessions: Sequence[date], settings: TrainingSettings) -> tuple[list[date], Fold, list[Fold]]:
    """Return the development sessions, the final fold (number 0) and the walk-forward folds of the settings."""
    common = {
        "horizon": settings.horizon,
        "embargo": settings.embargo,
        "validation_fraction": settings.validation_fraction,
    }
    development, final = hold_out(
        sessions,
        holdout_sessions=settings.holdout_sessions,
        train_sessions=settings.train_sessions if settings.window == "rolling" else None,
        **common,  # type: ignore[arg-type]
    )
    folds = walk_forward(
        development,
        folds=settings.folds,
        window=settings.window,
        train_sessions=settings.train_sessions,
        test_sessions=settings.test_sessions,
        **common,  # type: ignore[arg-type]
    )
    return development, final, folds


class _Runner:
    """Fits and predicts folds of one training, and keeps its share of progress."""

    def __init__(
        self,
        panel: Panel,
        family: ModelFamily,
        parameters: Parameters,
        settings: TrainingSettings,
        seed: int,
        progress: ProgressCallback,
        cancelled: Callable[[], bool],
        folds: int,
    ) -> None:
        self.panel, self.family, self.parameters, self.settings = panel, family, parameters, settings
        self.seed, self.progress, self.cancelled, self.folds = seed, progress, cancelled, folds
        self.done, self.share = 0, 0.0

    def fit(self, fold: Fold) -> tuple[FittedModel, slice | np.ndarray]:
        """Fit on a fold's learning part; return the model and the rows that it has learnt from."""
        cut = _cut(fold, self.panel, self.settings.embargo)
        everything = self.panel.learnt_before([*fold.train, *fold.validation], cut)
        if not (self.family.early_stopping and fold.validation):
            return self._fit(fold, everything, None, None), everything
        core = self.panel.learnt_before(fold.train, fold.validation[0])
        held = self.panel.learnt_before(fold.validation, cut)
        model = self._fit(fold, core, held, None)
        if not self.settings.refit:
            return model, everything
        return self._fit(fold, everything, None, max(1, model.rounds or 1)), everything

    def _fit(
        self, fold: Fold, rows: slice | np.ndarray, held: slice | np.ndarray | None, rounds: int | None
    ) -> FittedModel:
        panel, size = self.panel, len(self.panel.y[rows])
        if size < self.settings.min_rows:
            raise DataError(
                f"fold {fold.number} has too few training rows",
                value=size,
                allowed=f"{self.settings.min_rows} or more (min_rows)",
                fix="load more history, lower min_rows or folds",
            )
        # whether a refit follows decides how much of the fold this fit is
        parts = 2 if self.family.early_stopping and fold.validation and self.settings.refit else 1
        base = 0.5 if rounds is not None else 0.0

        def report(done: int, total: int, loss: float | None) -> None:
            if self.cancelled():
                raise TrainingCancelled("training was cancelled", value=f"fold {fold.number} of {self.folds}")
            inside = base + done / max(total, 1) / parts
            self._send("round", fold, done, total, inside, {} if loss is None else {"validation_loss": loss})

        report(0, 1, None)
        return self.family.fit(
            panel.x[rows],
            self._target(rows),
            None if held is None else panel.x[held],
            None if held is None else self._target(held),
            self.parameters,
            self.seed,
            report,
            feature_names=panel.names,
            threads=self.settings.threads,
            rounds=rounds,
        )

    def _target(self, rows: slice | np.ndarray) -> np.ndarray:
        label = self.panel.y[rows]
        if self.family.baseline:
            return label
        session = self.panel.keys["session"][rows]
        return training_target(session, label, self.settings.target, self.settings.winsor)

    def predict(self, model: FittedModel, fold: Fold) -> pl.DataFrame:
        """Return the out-of-sample predictions of a fold's test part."""
        rows = self.panel.at(fold.test)
        x, names = self.panel.x[rows], self.panel.names
        if model.feature_names != names:
            x = x[:, [names.index(n) for n in model.feature_names]]
        prediction = model.predict(x)
        keys = self.panel.keys[rows]
        return keys.with_columns(
            fold=pl.lit(fold.number, pl.Int32), prediction=pl.Series(prediction, dtype=pl.Float64)
        ).select(list(OOS_SCHEMA))

    def report(self, stage: Any, fold: Fold, metrics: Mapping[str, float]) -> None:
        """Report that a fold is done."""
        self.done += 1
        self._send(stage, fold, 0, 0, 0.0, metrics)

    def _send(self, stage: Any, fold: Fold, done: int, total: int, inside: float, metrics: Mapping[str, float]) -> None:
        self.share = max(self.share, min(1.0, (self.done + inside) / (self.folds + 1)))
        self.progress(Progress(stage, self.family.name, fold.number, self.folds, done, total, self.share, metrics))


def _cut(fold: Fold, panel: Panel, embargo: int) -> date:
    """Return the first date that the fold must not have looked at."""
    if not fold.test:
        return (panel.known[-1] + np.timedelta64(1, "D")).astype(date)
    days = np.unique(panel.session)
    place = int(np.searchsorted(days, np.datetime64(fold.test[0], "D")))
    return days[max(0, place - embargo)].astype(date)


def _describe(
    panel: Panel, fold: Fold, learnt: slice | np.ndarray, test_rows: int, model: FittedModel
) -> dict[str, Any]:
    return {
        "fold": fold.number,
        "train_start": panel.session[learnt].min().astype(date),
        "train_end": panel.session[learnt].max().astype(date),
        "test_start": fold.test[0],
        "test_end": fold.test[-1],
        "trained_through": panel.known[learnt].max().astype(date),
        "train_rows": len(panel.y[learnt]),
        "test_rows": test_rows,
        "rounds": model.rounds,
    }
