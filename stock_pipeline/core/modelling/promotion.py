"""The rule by which a model becomes champion: it must be better on data that neither has seen, and not suspiciously so.

The policy, in words:

1. *Alarm first.* Rank IC above 0.1, Sharpe ratio above 3 or a hit rate above 57 % on daily data are what a leak
   looks like. Such a candidate is blocked until a person has looked and says so by name.
2. *Enough evidence.* Fewer sessions than ``min_sessions`` decide nothing.
3. *Better, not newer.* On the same symbols and sessions the candidate's score must exceed that of the best naive
   baseline and of the present champion by ``margin``, with a one-sided Diebold-Mariano test below ``significance``
   (divided by the number of candidates tried: Bonferroni).
4. *Refresh.* A model of the champion's own family and features that has learnt from newer data replaces it unless it is
   significantly worse: a retrained model carries no new claim.
5. *First champion.* Somebody has to begin. If nothing beats the baselines, the best candidate begins and the decision
   says plainly that it does not beat them; with ``allow_baseline_champion`` the best baseline begins instead.

Figures are defined in ``modelling.evaluation``; moving the alias is the registry's part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

import polars as pl
from pydantic import Field

from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline.core.modelling.evaluation import evaluate, ic_series, label_horizon
from stock_pipeline.core.modelling.statistics import MeanTest, diebold_mariano
from stock_pipeline.core.parameters import Parameters

Criterion = Literal["rank_ic", "squared_error"]


class PromotionPolicy(Parameters):
    """When a candidate may become champion."""

    criterion: Criterion = Field(
        default="rank_ic", description="What is compared per session: rank IC, or mean squared error."
    )
    margin: float = Field(
        default=0.0, ge=0, description="By how much the mean score must be better (IC, or relative error)."
    )
    significance: float = Field(
        default=0.05, gt=0, lt=0.5, description="Largest one-sided p-value that counts as better."
    )
    min_sessions: int = Field(default=250, ge=20, description="Fewer common sessions than this decide nothing.")
    allow_refresh: bool = Field(
        default=True, description="Newer data and the same family may replace unless significantly worse."
    )
    allow_baseline_champion: bool = Field(
        default=False, description="If no candidate beats the baselines, the best baseline becomes the first champion."
    )
    max_rank_ic: float = Field(default=0.1, gt=0, description="Too good to be true above this mean rank IC.")
    max_sharpe: float = Field(
        default=3.0, gt=0, description="Too good to be true above this long-short Sharpe ratio, gross."
    )
    max_hit_rate: float = Field(
        default=0.57,
        gt=0.5,
        le=1,
        description="Too good to be true above this hit rate (or 3 points above always-up, if higher).",
    )


@dataclass(frozen=True)
class Contender:
    """Somebody who wants to be, or is, champion, with out-of-sample predictions.

    Attributes
    ----------
    name
        Shown in reasons, for example ``lightgbm`` or ``ridge version 3``.
    oos
        ``symbol, session, prediction, label, label_session``.
    family, feature_set_hash, trained_through
        For the refresh rule; ``None`` where unknown.
    """

    name: str
    oos: pl.DataFrame
    family: str | None = None
    feature_set_hash: str | None = None
    trained_through: date | None = None


@dataclass(frozen=True)
class Comparison:
    """A paired comparison on the rows that both predict; differences are candidate minus other, higher is better."""

    candidate: str
    other: str
    criterion: Criterion
    candidate_score: float | None
    other_score: float | None
    difference: MeanTest
    better: bool
    worse: bool


@dataclass(frozen=True)
class PromotionDecision:
    """What was decided, and why.

    Attributes
    ----------
    promote
        Whether the candidate becomes champion.
    winner
        Who is champion afterwards: the candidate, the present champion, a baseline, or ``None`` (nobody).
    alarm
        Why the result looks too good to be true; empty if it does not.
    reasons
        Sentences for people, in the order in which they were found.
    comparisons
        The paired tests.
    """

    promote: bool
    winner: str | None
    alarm: tuple[str, ...]
    reasons: tuple[str, ...]
    comparisons: tuple[Comparison, ...] = field(default=())


def decide(
    candidate: Contender | pl.DataFrame,
    champion: Contender | pl.DataFrame | None,
    baselines: Mapping[str, pl.DataFrame],
    policy: PromotionPolicy | None = None,
    *,
    trials: int = 1,
    horizon: int | None = None,
    acknowledged_by: str | None = None,
) -> PromotionDecision:
    """Decide about one candidate by the rule of this module.

    Parameters
    ----------
    candidate
        Out-of-sample predictions, with what is known about their model.
    champion
        The present champion, ``None`` if there is none yet.
    baselines
        Out-of-sample predictions of the naive baselines by name, at least one.
    policy
        Limits and switches.
    trials
        How many candidates were tried before this one was chosen; the significance level is divided by it.
    horizon
        Sessions of the labels; found from ``label_session`` where ``None`` (one too many for next-open labels).
    acknowledged_by
        Who has looked into an alarm and found it to be right.

    Returns
    -------
    PromotionDecision

    Raises
    ------
    ConfigurationError
        If no baseline is given or ``trials`` is below 1.
    """
    policy = policy or PromotionPolicy()
    if not baselines:
        raise ConfigurationError("promotion needs naive baselines to compare with", allowed="zero, always_up, momentum")
    if trials < 1:
        raise ConfigurationError("trials is too small", value=trials, allowed="1 or more")
    new = candidate if isinstance(candidate, Contender) else Contender("candidate", candidate)
    old = champion if isinstance(champion, Contender) or champion is None else Contender("champion", champion)

    alarm = too_good_to_be_true(new.oos, policy, horizon=horizon)
    reasons = [f"too good to be true: {a}" for a in alarm]
    present = old.name if old else None
    if alarm and not acknowledged_by:
        reasons.append("blocked until a person has looked for a leak and acknowledges the result by name")
        return PromotionDecision(False, present, tuple(alarm), tuple(reasons))
    if alarm:
        reasons.append(f"the alarm was acknowledged by {acknowledged_by}")

    # the best baseline is found first, so that only one test is made against baselines
    level = policy.significance / trials
    tests = {name: compare(new, Contender(name, oos), policy, level) for name, oos in baselines.items()}
    best = max(tests, key=lambda n: (_value(tests[n].other_score), n))
    against = tests[best]
    comparisons = [against]
    if against.difference.count < policy.min_sessions:
        reasons.append(
            f"only {against.difference.count} common sessions with {best}, not {policy.min_sessions}: not decided"
        )
        if old is None:
            reasons.append("no champion yet: history is too short for any model to be judged")
        return PromotionDecision(False, present, tuple(alarm), tuple(reasons), tuple(comparisons))
    reasons.append(_sentence(against))

    if old is None:
        return _first(new, best, against, policy, alarm, reasons, comparisons)
    duel = compare(new, old, policy, level)
    comparisons.append(duel)
    if duel.difference.count < policy.min_sessions:
        reasons.append(
            f"only {duel.difference.count} common sessions with the champion, {policy.min_sessions} are needed"
        )
        return PromotionDecision(False, old.name, tuple(alarm), tuple(reasons), tuple(comparisons))
    reasons.append(_sentence(duel))
    if against.better and duel.better:
        reasons.append(f"promoted: {new.name} beats {best} and the champion {old.name}")
        return PromotionDecision(True, new.name, tuple(alarm), tuple(reasons), tuple(comparisons))
    if policy.allow_refresh and _newer(new, old) and not duel.worse:
        reasons.append(
            f"promoted as a refresh of {old.name}: same family and features, newer data, not significantly worse"
            + ("" if against.better else f"; it does not beat {best}")
        )
        return PromotionDecision(True, new.name, tuple(alarm), tuple(reasons), tuple(comparisons))
    reasons.append(f"not promoted: {old.name} stays champion")
    return PromotionDecision(False, old.name, tuple(alarm), tuple(reasons), tuple(comparisons))


def best_candidate(candidates: Mapping[str, pl.DataFrame], policy: PromotionPolicy | None = None) -> str:
    """Return the candidate with the best mean score on the sessions that all of them predict.

    The number of candidates belongs into ``trials`` of `decide`.
    """
    policy = policy or PromotionPolicy()
    if not candidates:
        raise ConfigurationError("there are no candidates to choose from")
    scores = {name: session_scores(oos, policy.criterion) for name, oos in candidates.items()}
    common = set.intersection(*(set(s["session"].to_list()) for s in scores.values()))
    kept = {n: s.filter(pl.col("session").is_in(list(common)))["score"].mean() for n, s in scores.items()}
    return max(kept, key=lambda n: (_value(kept[n]), n))


def too_good_to_be_true(
    oos: pl.DataFrame, policy: PromotionPolicy | None = None, *, horizon: int | None = None
) -> list[str]:
    """Return what about these predictions looks like a leak, as phrases with numbers (empty: nothing).

    The limit of the hit rate is ``max_hit_rate`` or 3 points above always-up, whichever is higher, since over long
    horizons rises alone are more frequent than 57 %.
    """
    policy = policy or PromotionPolicy()
    figures = evaluate(oos, horizon=horizon)
    limit = max(policy.max_hit_rate, _value(figures["always_up_hit_rate"], 0.0) + 0.03)
    checks = (
        ("rank IC", figures["rank_ic"], policy.max_rank_ic, "{:.3f}"),
        ("long-short Sharpe ratio", figures["long_short_sharpe"], policy.max_sharpe, "{:.2f}"),
        ("hit rate", figures["hit_rate"], limit, "{:.1%}"),
    )
    return [
        f"{name} of {form.format(value)} is above {form.format(bound)}"
        for name, value, bound, form in checks
        if value is not None and value > bound
    ]


def compare(new: Contender, old: Contender, policy: PromotionPolicy, level: float) -> Comparison:
    """Compare two contenders on the rows that both predict, session by session.

    Where rank correlations are undefined throughout (fewer than 3 symbols), squared errors are compared instead.
    """
    keys = ["symbol", "session"]
    mine = new.oos.join(old.oos.select(keys), on=keys, how="semi")
    theirs = old.oos.join(mine.select(keys), on=keys, how="semi")
    criterion = policy.criterion
    if criterion == "rank_ic" and ic_series(mine)["rank_ic"].null_count() == mine["session"].n_unique():
        criterion = "squared_error" if _few_symbols(mine) else criterion
    pair = (
        session_scores(mine, criterion)
        .join(session_scores(theirs, criterion).rename({"score": "other"}), on="session", how="inner")
        .sort("session")
    )
    test = diebold_mariano((pair["score"] - pair["other"]).to_numpy(), label_horizon(mine))
    other = pair["other"].mean()
    margin = policy.margin * (abs(_value(other, 0.0)) if criterion == "squared_error" else 1.0)
    known = test.mean is not None and test.p_greater is not None
    return Comparison(
        new.name,
        old.name,
        criterion,
        _number(pair["score"].mean()),
        _number(other),
        test,
        better=known and _value(test.mean) > margin and _value(test.p_greater) <= level,
        worse=known and _value(test.mean) < 0 and 1 - _value(test.p_greater) <= policy.significance,
    )


def session_scores(oos: pl.DataFrame, criterion: Criterion) -> pl.DataFrame:
    """Return ``session, score``, higher is better.

    The score is the rank IC (0 where undefined: no opinion), or minus the mean squared error.
    """
    if criterion == "rank_ic":
        return ic_series(oos).select("session", score=pl.col("rank_ic").fill_null(0.0))
    rows = oos.filter(pl.col("label").is_not_null() & pl.col("prediction").is_not_null())
    error = (pl.col("prediction") - pl.col("label")) ** 2
    return rows.group_by("session").agg(score=-error.mean()).sort("session")


def _first(
    new: Contender,
    best: str,
    against: Comparison,
    policy: PromotionPolicy,
    alarm: list[str],
    reasons: list[str],
    comparisons: list[Comparison],
) -> PromotionDecision:
    if against.better:
        reasons.append(f"promoted as first champion: {new.name} beats {best}")
        promote, winner = True, new.name
    elif policy.allow_baseline_champion:
        reasons.append(f"no candidate beats the naive baselines: {best} becomes the first champion")
        promote, winner = False, best
    else:
        reasons.append(f"promoted as first champion although it does not beat {best}")
        promote, winner = True, new.name
    return PromotionDecision(promote, winner, tuple(alarm), tuple(reasons), tuple(comparisons))


def _newer(new: Contender, old: Contender) -> bool:
    same = new.family is not None and new.family == old.family and new.feature_set_hash == old.feature_set_hash
    return bool(same and new.trained_through and old.trained_through and new.trained_through > old.trained_through)


def _few_symbols(oos: pl.DataFrame) -> bool:
    return oos.is_empty() or bool((ic_series(oos)["symbols"] < 3).all())


def _sentence(c: Comparison) -> str:
    what = "rank IC" if c.criterion == "rank_ic" else "mean squared error"
    sign = 1 if c.criterion == "rank_ic" else -1
    p = c.difference.p_greater
    verdict = "better" if c.better else "worse" if c.worse else "not distinguishable"
    return (
        f"{c.candidate} against {c.other}: {what} {sign * _value(c.candidate_score, 0.0):.5f} and "
        f"{sign * _value(c.other_score, 0.0):.5f} over {c.difference.count} sessions, "
        f"one-sided p {'undefined' if p is None else format(p, '.3f')}: {verdict}"
    )


def _value(number: object, default: float = float("-inf")) -> float:
    return default if number is None else float(number)  # type: ignore[arg-type]


def _number(value: object) -> float | None:
    return None if value is None else float(value)  # type: ignore[arg-type]
