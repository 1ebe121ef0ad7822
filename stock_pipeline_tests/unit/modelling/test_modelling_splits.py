from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stock_pipeline.core.errors import ConfigurationError, DataError
from stock_pipeline.core.modelling.splits import hold_out, walk_forward


def calendar(count: int) -> list[date]:
    return [date(2010, 1, 1) + timedelta(i) for i in range(count)]


@pytest.mark.requirement("R4.1")
@given(
    count=st.integers(60, 1500),
    folds=st.integers(1, 8),
    horizon=st.integers(1, 20),
    embargo=st.integers(0, 15),
    window=st.sampled_from(["expanding", "rolling"]),
    fraction=st.sampled_from([0.0, 0.15, 0.4]),
    sizes=st.tuples(st.none() | st.integers(20, 300), st.none() | st.integers(1, 120)),
)
def test_no_label_reaches_into_what_comes_after_it(count, folds, horizon, embargo, window, fraction, sizes):
    days = calendar(count)
    place = {d: i for i, d in enumerate(days)}
    train_sessions, test_sessions = sizes
    try:
        result = walk_forward(
            days,
            folds=folds,
            horizon=horizon,
            embargo=embargo,
            window=window,
            train_sessions=train_sessions,
            test_sessions=test_sessions,
            validation_fraction=fraction,
        )
    except DataError:
        assume(False)
    assert [f.number for f in result] == list(range(1, folds + 1))
    tests = [d for f in result for d in f.test]
    assert tests == days[-len(tests) :]
    for fold in result:
        first = place[fold.test[0]]
        assert len(fold.train) >= 20
        # a decision of index i has its label at i + horizon + 1 (next-open execution)
        assert place[[*fold.train, *fold.validation][-1]] + horizon + 1 < first - embargo
        if fold.validation:
            assert place[fold.train[-1]] + horizon + 1 < place[fold.validation[0]]
        assert not set(fold.train) & set(fold.validation)
        if window == "rolling" and train_sessions:
            assert (
                place[fold.validation[-1] if fold.validation else fold.train[-1]] - place[fold.train[0]]
                < train_sessions
            )
        if window == "expanding":
            assert fold.train[0] == days[0]


@given(count=st.integers(40, 600), size=st.integers(0, 300), horizon=st.integers(1, 20), embargo=st.integers(0, 10))
def test_the_hold_out_is_out_of_reach(count, size, horizon, embargo):
    days = calendar(count)
    try:
        development, final = hold_out(days, holdout_sessions=size, horizon=horizon, embargo=embargo)
    except DataError:
        assume(False)
    assert development + final.test == days
    assert len(final.test) == size
    if size:
        learnt = [*final.train, *final.validation][-1]
        assert days.index(learnt) + horizon + 1 < count - size - embargo


def test_a_history_that_is_too_short_is_refused_with_the_numbers():
    with pytest.raises(DataError, match=r"100 sessions for 5 folds of 16 test sessions leave 0 training") as error:
        walk_forward(calendar(100), folds=5, horizon=20, embargo=5)
    assert "gap of 26" in str(error.value)
    with pytest.raises(DataError, match="hold-out of 90 sessions"):
        hold_out(calendar(100), holdout_sessions=90, horizon=5, embargo=5)


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"folds": 0}, "folds"),
        ({"horizon": 0}, "horizon"),
        ({"embargo": -1}, "embargo"),
        ({"window": "sliding"}, "window"),
        ({"validation_fraction": 0.95}, "validation_fraction"),
    ],
)
def test_numbers_out_of_range_are_named(wrong, name):
    with pytest.raises(ConfigurationError, match=name):
        walk_forward(calendar(500), **{"folds": 3, "horizon": 5, "embargo": 5, **wrong})


def test_sessions_must_be_unique_and_ascending():
    days = calendar(300)
    for wrong in ([days[0], *days], days[::-1]):
        with pytest.raises(DataError, match="unique and ascending"):
            walk_forward(wrong, folds=2, horizon=1, embargo=0)
    with pytest.raises(DataError, match="no sessions"):
        walk_forward([], folds=2, horizon=1, embargo=0)
