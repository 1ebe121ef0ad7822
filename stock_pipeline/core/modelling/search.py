"""Hyper-parameter search that cannot see a test fold.

Parameters that were chosen by looking at a session must not be tested on it. Since walk-forward training parts contain
the test blocks before them, searching on their validation parts would leak: so the search works on the learning part of
the first fold alone, with a walk-forward of its own inside it, and every session that it looks at lies before the
first test session (purged and embargoed).

The sampler is Optuna's TPE (Bergstra et al., *Algorithms for Hyper-Parameter Optimization*, NeurIPS 2011). The number
of trials is returned, as the deflated Sharpe ratio and the promotion rule need it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

import numpy as np
import polars as pl
from pydantic import Field

from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline.core.modelling import families
from stock_pipeline.core.modelling.dataset import Panel
from stock_pipeline.core.modelling.evaluation import evaluate
from stock_pipeline.core.modelling.progress import Progress, ProgressCallback, TrainingCancelled, silent
from stock_pipeline.core.modelling.settings import TrainingSettings
from stock_pipeline.core.modelling.splits import walk_forward
from stock_pipeline.core.modelling.training import fit_folds, splits_of
from stock_pipeline.core.parameters import Parameters


class SearchSettings(Parameters):
    """How parameters are searched."""

    trials: int = Field(default=20, ge=1, le=1_000, description="Parameter sets to try, the defaults among them.")
    folds: int = Field(default=3, ge=1, le=20, description="Walk-forward blocks inside the first training part.")
    objective: Literal["rank_ic", "skill_zero"] = Field(default="rank_ic", description="What is maximised.")


@dataclass(frozen=True)
class SearchResult:
    """What the search found.

    Attributes
    ----------
    parameters
        The best parameters by the mean objective over the inner folds.
    trials
        ``trial, objective, spread`` (standard deviation over inner folds), ``parameters`` (JSON), in the order tried;
        trial 0 is the family's defaults.
    count
        Number of trials.
    looked_at
        First and last session whose row or label the search has used.
    """

    parameters: Parameters
    trials: pl.DataFrame
    count: int
    looked_at: tuple[date, date]


def search(
    dataset: pl.DataFrame | Panel,
    *,
    feature_names: Sequence[str],
    family: str,
    training: TrainingSettings | None = None,
    settings: SearchSettings | None = None,
    base: Parameters | Mapping[str, Any] | None = None,
    seed: int = 0,
    progress: ProgressCallback = silent,
    cancelled: Callable[[], bool] = lambda: False,
) -> SearchResult:
    """Search the parameters of a family before it is trained walk-forward.

    Parameters
    ----------
    dataset, feature_names, family, seed, progress, cancelled
        As for `train_walk_forward`; progress comes once a trial.
    training
        The settings that the training will use: they say where the first test block begins.
    settings
        How to search.
    base
        Parameters to start from; what the family does not tune keeps these values.

    Returns
    -------
    SearchResult

    Raises
    ------
    ConfigurationError
        If the family has nothing to tune.
    DataError
        If the first training part is too short for the inner folds; the message has the numbers.
    """
    import optuna

    training, settings = training or TrainingSettings(), settings or SearchSettings()
    chosen = families.get(family)
    start = chosen.parse(base)
    if not chosen.tunable:
        raise ConfigurationError("this model family has nothing to tune", value=family)
    panel = dataset if isinstance(dataset, Panel) else Panel.of(dataset, chosen.inputs(list(feature_names), start))
    inner, panel = _inside(panel, training, settings)
    records: list[dict[str, Any]] = []

    def objective(trial: optuna.Trial) -> float:
        if cancelled():
            raise TrainingCancelled("the search was cancelled", value=f"trial {trial.number} of {settings.trials}")
        drawn = {} if trial.number == 0 else chosen.suggest(trial)
        parameters = chosen.parse({**start.model_dump(), **drawn})
        parts = fit_folds(panel, inner, chosen, parameters, training, seed, cancelled)
        scores = [evaluate(oos, horizon=training.horizon)[settings.objective] for oos in parts]
        # a model that has no opinion ranks nothing: 0, not undefined
        values = np.array([0.0 if s is None else s for s in scores])
        records.append(
            {
                "trial": trial.number,
                "objective": float(values.mean()),
                "spread": float(values.std()),
                "parameters": parameters.model_dump_json(),
            }
        )
        shown: dict[str, float] = {settings.objective: float(values.mean())}
        done = trial.number + 1
        progress(Progress("trial", family, done, settings.trials, done, settings.trials, done / settings.trials, shown))
        return float(values.mean())

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
        study.optimize(objective, n_trials=settings.trials, catch=())
    finally:
        optuna.logging.set_verbosity(verbosity)
    trials = pl.DataFrame(records)
    # the first of equals: nothing is gained by leaving the defaults
    best = trials.sort("objective", "trial", descending=[True, False]).row(0, named=True)
    parameters = chosen.parameter_model.model_validate_json(best["parameters"])
    span = (panel.session.min().astype(date), panel.known.max().astype(date))
    return SearchResult(parameters, trials, len(records), span)


def _inside(panel: Panel, training: TrainingSettings, settings: SearchSettings) -> tuple[list[Any], Panel]:
    """Return the inner folds and the panel cut to what the first fold may learn from."""
    _, _, folds = splits_of(panel.sessions(), training)
    first = folds[0]
    days = panel.sessions()
    cut = days[max(0, days.index(first.test[0]) - training.embargo)]
    learn = [d for d in days if first.train[0] <= d <= [*first.train, *first.validation][-1]]
    part = panel.take(panel.learnt_before(learn, cut))
    inner = walk_forward(
        part.sessions(),
        folds=settings.folds,
        horizon=training.horizon,
        embargo=training.embargo,
        validation_fraction=training.validation_fraction,
    )
    return inner, part
