"""Walk-forward splits over unique dates, purged and embargoed, and the final hold-out.

Splitting is by session, never by row: on a panel of many symbols a gap of five rows puts training and test on the same
day. The exact purge of single rows whose label completes late (halted symbols) is done by ``modelling.training``, on
``label_session``; here the dates alone are cut, so that both hold.

Source of purge and embargo: M. Lopez de Prado, *Advances in Financial Machine Learning* (2018), sections 7.4.1-7.4.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import Literal

from stock_pipeline.core.errors import ConfigurationError, DataError

MIN_TRAIN_SESSIONS = 20
"""Fewer training sessions than this are refused, whatever is asked for."""


@dataclass(frozen=True)
class Fold:
    """One walk-forward step: three disjoint, ascending lists of sessions, in the order train, validation, test.

    Attributes
    ----------
    number
        From 1, in time order; the hold-out fold has number 0.
    train, validation, test
        Sessions. ``validation`` is the newest part of what may be learnt from (for early stopping) and may be empty.
    """

    number: int
    train: list[date]
    validation: list[date]
    test: list[date]


def walk_forward(
    sessions: Sequence[date],
    *,
    folds: int,
    horizon: int,
    embargo: int,
    window: Literal["expanding", "rolling"] = "expanding",
    train_sessions: int | None = None,
    test_sessions: int | None = None,
    validation_fraction: float = 0.15,
) -> list[Fold]:
    """Cut sessions into consecutive test blocks, each with everything before it (or a rolling window) to learn from.

    A label of a decision at session index i is complete at index i + horizon + 1 (next-open execution), so between the
    last session learnt from and the first test session lie ``horizon + 1 + embargo`` unused ones; likewise between
    training and validation.

    Parameters
    ----------
    sessions
        Unique ascending dates.
    folds
        Number of test blocks.
    horizon, embargo
        In sessions.
    window
        ``expanding`` learns from all sessions before; ``rolling`` from the newest ``train_sessions`` of them.
    train_sessions
        Sessions before the first test block (expanding) or the length of the window (rolling), the purged gap not
        counted. Default: what remains when all blocks are as long as the first training part.
    test_sessions
        Length of a test block. Default: the sessions after the first training part, divided equally; what does not
        divide goes to the first training part.
    validation_fraction
        Share of the learning sessions kept, at their end, for early stopping; 0 for none.

    Returns
    -------
    list of Fold
        ``folds`` folds in time order; the test blocks are contiguous and end at the last session.

    Raises
    ------
    ConfigurationError
        If a number is out of range.
    DataError
        If dates are not unique and ascending, or the history is too short; the message has the numbers.
    """
    days = _checked(sessions)
    _check_numbers(folds=folds, horizon=horizon, embargo=embargo, fraction=validation_fraction)
    if window not in ("expanding", "rolling"):
        raise ConfigurationError("unknown training window", value=window, allowed="expanding, rolling")
    gap = horizon + 1 + embargo
    block, first_test = _layout(len(days), folds, gap, train_sessions, test_sessions)
    length = train_sessions or (first_test - gap)

    result = []
    for number in range(1, folds + 1):
        start = first_test + (number - 1) * block
        learn_end = start - gap
        learn_start = max(0, learn_end - length) if window == "rolling" else 0
        train, validation = _validation(days[learn_start:learn_end], horizon, validation_fraction)
        result.append(Fold(number, train, validation, days[start : start + block]))
    return result


def hold_out(
    sessions: Sequence[date],
    *,
    holdout_sessions: int,
    horizon: int,
    embargo: int,
    train_sessions: int | None = None,
    validation_fraction: float = 0.15,
) -> tuple[list[date], Fold]:
    """Set the newest sessions aside: nothing, not even the choice of parameters, looks at them before the end.

    Parameters
    ----------
    sessions
        Unique ascending dates.
    holdout_sessions
        How many of the newest sessions; 0 for none.
    horizon, embargo
        In sessions; the final model is purged against the hold-out exactly like a fold.
    train_sessions
        Only the newest this many learning sessions (rolling window); ``None`` for all.
    validation_fraction
        See `walk_forward`.

    Returns
    -------
    development : list of date
        The sessions before the hold-out, for `walk_forward`.
    final : Fold
        Number 0: what the final model learns from, and the hold-out as its test part.
    """
    days = _checked(sessions)
    _check_numbers(folds=1, horizon=horizon, embargo=embargo, fraction=validation_fraction)
    if holdout_sessions < 0:
        raise ConfigurationError("holdout_sessions is negative", value=holdout_sessions, allowed="0 or more")
    cut = len(days) - holdout_sessions
    learn_end = cut - (horizon + 1 + embargo) if holdout_sessions else cut
    if learn_end < MIN_TRAIN_SESSIONS:
        raise DataError(
            f"history is too short: {len(days)} sessions with labels leave {max(learn_end, 0)} to learn from before a "
            f"hold-out of {holdout_sessions} sessions and a gap of {cut - learn_end}",
            allowed=f"at least {MIN_TRAIN_SESSIONS} sessions to learn from",
            fix="load more history or lower holdout_sessions",
        )
    start = max(0, learn_end - train_sessions) if train_sessions else 0
    train, validation = _validation(days[start:learn_end], horizon, validation_fraction)
    return days[:cut], Fold(0, train, validation, days[cut:])


def _layout(total: int, folds: int, gap: int, train_sessions: int | None, test_sessions: int | None) -> tuple[int, int]:
    """Return the length of a test block and the index of the first test session."""
    if test_sessions is not None:
        block = test_sessions
    elif train_sessions is not None:
        block = (total - train_sessions - gap) // folds
    else:
        block = total // (folds + 1)
    first_test = total - block * folds
    wanted = train_sessions or MIN_TRAIN_SESSIONS
    if block < 1 or first_test - gap < max(wanted, MIN_TRAIN_SESSIONS):
        raise DataError(
            f"history is too short: {total} sessions for {folds} folds of {max(block, 0)} test sessions leave "
            f"{max(first_test - gap, 0)} training sessions before the first test, after a gap of {gap} "
            "(horizon + 1 + embargo)",
            allowed=f"at least {max(wanted, MIN_TRAIN_SESSIONS)} training sessions and 1 test session a fold",
            fix="load more history, or lower folds, test_sessions, train_sessions or embargo",
        )
    return block, first_test


def _validation(learn: list[date], horizon: int, fraction: float) -> tuple[list[date], list[date]]:
    size = round(len(learn) * fraction)
    train = learn[: max(0, len(learn) - size - horizon - 1)] if size else learn
    if size and len(train) < MIN_TRAIN_SESSIONS:
        return learn, []
    return train, learn[len(learn) - size :] if size else []


def _checked(sessions: Sequence[date]) -> list[date]:
    days = list(sessions)
    if not days:
        raise DataError("there are no sessions to split", fix="check that labels exist for the chosen horizon")
    for before, after in pairwise(days):
        if not before < after:
            raise DataError(
                "sessions must be unique and ascending", value=(before, after), fix="pass sorted unique dates"
            )
    return days


def _check_numbers(*, folds: int, horizon: int, embargo: int, fraction: float) -> None:
    if folds < 1:
        raise ConfigurationError("too few folds", value=folds, allowed="1 or more")
    if horizon < 1:
        raise ConfigurationError("the horizon is too short", value=horizon, allowed="1 session or more")
    if embargo < 0:
        raise ConfigurationError("the embargo is negative", value=embargo, allowed="0 or more sessions")
    if not 0 <= fraction < 0.9:
        raise ConfigurationError("validation_fraction is out of range", value=fraction, allowed="0 <= fraction < 0.9")
