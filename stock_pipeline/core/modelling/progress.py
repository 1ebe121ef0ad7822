"""How training says where it is, and how it is stopped.

Where the messages go (log, MLflow, Dagster) is decided by whoever passes the callback.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from stock_pipeline.core.errors import PipelineError


class TrainingCancelled(PipelineError):
    """Somebody asked training to stop; nothing of it is kept."""


@dataclass(frozen=True)
class Progress:
    """One message of training.

    Attributes
    ----------
    stage
        ``round`` (inside a fit), ``fold`` (a fold is done, with its metrics), ``final`` (the final model is done) or
        ``trial`` (a trial of the search is done).
    family
        Name of the model family.
    fold, folds
        Which fold, of how many; fold 0 is the final model.
    round, rounds
        Boosting rounds or trees done in this fit, of at most how many; 0 of 0 where a family has none.
    share
        Share of the whole training that is done, in [0, 1], never falling.
    metrics
        Figures of the fold or round, by name.
    """

    stage: Literal["round", "fold", "final", "trial"]
    family: str
    fold: int
    folds: int
    round: int = 0
    rounds: int = 0
    share: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


ProgressCallback = Callable[[Progress], None]
"""Called from the training thread; an exception it raises stops training and reaches the caller."""

RoundCallback = Callable[[int, int, float | None], None]
"""Called inside a fit with rounds done, rounds at most, and the validation loss where there is one."""


def silent(progress: Progress) -> None:
    """Report nothing."""


def no_rounds(done: int, total: int, loss: float | None) -> None:
    """Report no rounds."""
