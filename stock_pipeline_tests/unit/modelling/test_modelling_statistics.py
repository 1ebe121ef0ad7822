from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm, t

from stock_pipeline.core.modelling.statistics import diebold_mariano, newey_west_lag, newey_west_mean


def overlapping(seed: int, count: int, horizon: int) -> np.ndarray:
    shocks = np.random.default_rng(seed).standard_normal(count + horizon)
    return np.convolve(shocks, np.ones(horizon), "valid")[:count] + 0.1


@pytest.mark.parametrize(("count", "horizon"), [(500, 1), (500, 5), (1200, 20), (40, 10)])
def test_the_standard_error_is_that_of_statsmodels(count, horizon):
    import statsmodels.api as sm

    values = overlapping(1, count, horizon)
    mine = newey_west_mean(values, horizon)
    assert mine.lag >= horizon - 1
    other = sm.OLS(values, np.ones(count)).fit(cov_type="HAC", cov_kwds={"maxlags": mine.lag, "use_correction": False})
    assert mine.t == pytest.approx(float(other.tvalues[0]), rel=1e-10)
    assert mine.standard_error == pytest.approx(float(other.bse[0]), rel=1e-10)
    assert mine.p_greater == pytest.approx(norm.sf(mine.t), rel=1e-10)


def test_overlap_is_not_taken_for_evidence():
    # 400 series without any mean, of overlapping sums over 10 sessions
    rejections = {"naive": 0, "allowed_for": 0}
    for seed in range(400):
        values = overlapping(seed, 500, 10) - 0.1
        naive = values.mean() / (values.std(ddof=1) / np.sqrt(500))
        rejections["naive"] += naive > 1.645
        test = diebold_mariano(values, 10)
        rejections["allowed_for"] += test.p_greater < 0.05
    assert rejections["naive"] > 80
    assert rejections["allowed_for"] < 50


def test_diebold_mariano_has_the_small_sample_factor():
    values, h = overlapping(3, 100, 4), 4
    plain, corrected = newey_west_mean(values, h), diebold_mariano(values, h)
    factor = np.sqrt((100 + 1 - 2 * h + h * (h - 1) / 100) / 100)
    assert corrected.t == pytest.approx(plain.t * factor)
    assert corrected.p_greater == pytest.approx(t.sf(corrected.t, 99))


def test_what_is_undefined_is_none():
    assert newey_west_mean(np.array([])).mean is None
    assert newey_west_mean(np.array([1.0, 2.0])).t is None
    assert newey_west_mean(np.ones(50)).t is None
    assert newey_west_mean(np.array([1.0, np.nan, 2.0, 0.5, np.nan])).count == 3
    assert newey_west_lag(3, 100) == 1
