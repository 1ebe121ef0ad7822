"""What exactly a model is fitted to: the raw label, or its part relative to the other symbols of the session.

Everything here is learnt from the rows passed in, so calling it inside a fold uses that fold alone. Labels themselves
are made in ``modelling.labels``; predictions are always in units of the label.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl

TargetKind = Literal["raw", "demeaned", "rank"]


def training_target(session: pl.Series, label: np.ndarray, kind: TargetKind, winsor: float) -> np.ndarray:
    """Turn the labels of training rows into what a model is fitted to.

    Parameters
    ----------
    session
        Session of each row.
    label
        Shape (rows,), float64, no NaN.
    kind
        ``raw``: the label. ``demeaned``: the label minus its mean over the session's rows, plus the mean of all
        labels. ``rank``: the normal score of the label's rank in its session (Blom, *Statistical Estimates and
        Transformed Beta-Variables*, 1958: (r - 3/8) / (n + 1/4)), times the mean standard deviation over sessions,
        plus the mean of all labels; so the unit stays that of the label. With fewer than 3 symbols a session on
        average there is nothing to be relative to: raw.
    winsor
        Labels beyond this quantile on either side are set to it first; 0 for none.

    Returns
    -------
    numpy.ndarray
        Shape (rows,), float64.
    """
    if winsor > 0:
        low, high = np.quantile(label, [winsor, 1.0 - winsor])
        label = np.clip(label, low, high)
    if kind == "raw" or len(session) < 3 * session.n_unique():
        return label
    frame = pl.DataFrame({"session": session, "label": label})
    mean = float(label.mean())
    if kind == "demeaned":
        relative = pl.col("label") - pl.col("label").mean().over("session")
        return mean + frame.select(relative).to_series().to_numpy()

    from scipy.special import ndtri

    ranked = frame.select(
        place=pl.col("label").rank("average").over("session"),
        size=pl.len().over("session"),
        spread=pl.col("label").std(ddof=0).over("session"),
    ).to_numpy()
    score = ndtri((ranked[:, 0] - 0.375) / (ranked[:, 1] + 0.25))
    return mean + score * float(ranked[:, 2].mean())
