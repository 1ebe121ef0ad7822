"""The story of single rows: jumps, reversals, gaps, suspensions, duplicates, repairs."""

from __future__ import annotations

import json
from datetime import date, timedelta

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from stock_pipeline.core.errors import DataError
from stock_pipeline.core.market.bars import QUARANTINED_SCHEMA, VALIDATED_SCHEMA
from stock_pipeline.core.quality import FINDINGS_SCHEMA, QualityResult, QualityRules, short_histories, validate_bars
from stock_pipeline_tests.unit.quality.quality_bars import corrupt, sample_bars, sessions_of

RULES = QualityRules()


def judged(raw: pl.DataFrame, rules: QualityRules = RULES) -> QualityResult:
    return validate_bars(raw, sessions=sessions_of(sample_bars()), rules=rules)


def one_symbol() -> pl.DataFrame:
    return sample_bars(("AMZN",), date(2013, 1, 2), date(2015, 6, 30))


def rules_on(result: QualityResult, session: date) -> set[str]:
    return set(result.findings.filter(pl.col("session") == session)["rule"])


@pytest.mark.requirement("R7.1", "R7.2")
def test_tables_have_the_promised_columns_and_the_quarantine_says_why() -> None:
    result = judged(corrupt(sample_bars(), {100: "null close", 200: "swapped"}))
    assert dict(result.validated.schema) == VALIDATED_SCHEMA
    assert dict(result.quarantined.schema) == QUARANTINED_SCHEMA
    assert dict(result.findings.schema) == FINDINGS_SCHEMA
    assert result.quarantined["rules"].to_list() == [["missing_close"]]
    assert result.quarantined["reason"].to_list() == ["the close is missing"]
    counts = result.summary()
    assert (counts["quarantined"], counts["repaired"], counts["rows"]) == (1, 1, sample_bars().height)


@pytest.mark.requirement("R7.2")
def test_a_level_is_quarantined_once_and_accepted_when_confirmed() -> None:
    bars = one_symbol()
    sessions = bars["session"].to_list()
    split = sessions[100]
    halved = pl.when(pl.col("session") >= split)
    raw = bars.with_columns(
        *[halved.then(pl.col(c) / 2).otherwise(pl.col(c)).alias(c) for c in ("open", "high", "low", "close")]
    )
    result = judged(raw)
    assert result.quarantined["session"].to_list() == [split]
    assert result.quarantined["rules"].to_list() == [["split_like_jump"]]
    assert "level_confirmed" in rules_on(result, sessions[101])


@pytest.mark.requirement("R7.2")
def test_a_spike_is_told_by_a_finding_on_the_next_session() -> None:
    bars = one_symbol()
    sessions = bars["session"].to_list()
    raw = bars.with_columns(
        *[
            pl.when(pl.col("session") == sessions[100]).then(pl.col(c) * 1.7).otherwise(pl.col(c)).alias(c)
            for c in ("open", "high", "low", "close")
        ]
    )
    result = judged(raw)
    assert result.quarantined["session"].to_list() == [sessions[100]]
    assert "spike_reverted" in rules_on(result, sessions[101])
    # Seen on the evening itself, with nothing later, the row has the same fate.
    evening = validate_bars(raw.head(101), sessions=sessions[:101], rules=RULES)
    assert evening.quarantined.equals(result.quarantined)


@pytest.mark.requirement("R7.2")
def test_a_wrong_unit_is_held_until_most_recent_closes_share_it() -> None:
    bars = one_symbol()
    sessions = bars["session"].to_list()
    raw = bars.with_columns(
        *[
            pl.when(pl.col("session") >= sessions[100]).then(pl.col(c) * 100).otherwise(pl.col(c)).alias(c)
            for c in ("open", "high", "low", "close")
        ]
    )
    held = judged(raw).quarantined
    assert held["session"].to_list() == sessions[100 : 100 + held.height]
    assert 9 <= held.height <= 11
    assert all("unit_jump" in rules for rules in held["rules"])


@pytest.mark.requirement("R7.2")
def test_alternating_sources_never_confirm_each_other() -> None:
    bars = one_symbol()
    sessions = bars["session"].to_list()
    wrong = [sessions[n] for n in range(100, 112, 2)]
    raw = bars.with_columns(
        *[
            pl.when(pl.col("session").is_in(wrong)).then(pl.col(c) * 2).otherwise(pl.col(c)).alias(c)
            for c in ("open", "high", "low", "close")
        ]
    )
    assert set(wrong) <= set(judged(raw).quarantined["session"])


@pytest.mark.requirement("R7.2")
def test_a_factor_explains_a_split() -> None:
    bars = one_symbol()
    split = bars["session"][100]
    after = pl.col("session") >= split
    raw = bars.with_columns(
        *[pl.when(after).then(pl.col(c) / 3).otherwise(pl.col(c)).alias(c) for c in ("open", "high", "low", "close")],
        pl.when(after).then(pl.col("volume") * 3).otherwise(pl.col("volume")).alias("volume"),
        pl.when(after).then(pl.col("adj_factor") * 3).otherwise(pl.col("adj_factor")).alias("adj_factor"),
    )
    result = judged(raw)
    assert result.quarantined.is_empty()
    assert rules_on(result, split) == set()


@pytest.mark.requirement("R7.2")
def test_stale_runs_and_suspensions() -> None:
    bars = one_symbol()
    sessions = bars["session"].to_list()
    frozen = bars.row(99, named=True)
    same = pl.DataFrame(
        [frozen | {"session": s, "known_at": frozen["known_at"] + timedelta(days=20)} for s in sessions[100:107]],
        schema=bars.schema,
    )
    raw = pl.concat([bars.filter(~pl.col("session").is_in(sessions[100:107])), same])
    stale = judged(raw).quarantined
    assert stale["session"].to_list() == sessions[103:107]  # the fifth equal bar and those after it
    price = frozen["close"]
    halted = same.with_columns(open=price, high=price, low=price, close=price, volume=0.0)
    raw = pl.concat([bars.filter(~pl.col("session").is_in(sessions[100:107])), halted])
    result = judged(raw)
    assert result.quarantined["session"].to_list() == sessions[100:107]
    assert {tuple(rules) for rules in result.quarantined["rules"]} == {("suspension",)}


@pytest.mark.requirement("R7.1")
def test_missing_sessions_are_reported_on_the_next_row_and_nothing_is_invented() -> None:
    bars = one_symbol()
    sessions = bars["session"].to_list()
    result = judged(bars.filter(~pl.col("session").is_in(sessions[50:53])))
    finding = result.findings.filter(pl.col("rule") == "missing_sessions").row(0, named=True)
    assert (finding["session"], finding["value"], finding["severity"]) == (sessions[53], 3.0, "warn")
    assert result.validated.height == bars.height - 3
    long = judged(bars.filter(~pl.col("session").is_in(sessions[50:90])))
    restart = long.findings.filter(pl.col("rule") == "short_history")["session"].to_list()
    assert restart == [sessions[0], sessions[90]]


@pytest.mark.requirement("R7.3")
def test_repairs_keep_originals_and_use_earlier_rows_only() -> None:
    bars = one_symbol()
    row = bars.row(100, named=True)
    raw = corrupt(bars, {100: "NaN open"})
    repaired = judged(raw).validated.filter(pl.col("status") == "repaired").row(0, named=True)
    assert json.loads(repaired["repairs"]) == [
        {"field": "open", "rule": "bad_price_field", "method": "median_ratio", "original": "NaN"}
    ]
    assert repaired["low"] <= repaired["open"] <= repaired["high"]
    assert repaired["open"] == pytest.approx(row["open"], rel=0.03)
    assert repaired["close"] == row["close"]
    before = bars.slice(79, 21).with_columns(
        ratio=pl.col("open") * pl.col("adj_factor") / (pl.col("close") * pl.col("adj_factor")).shift(1)
    )
    expected = before["ratio"][1:21].median() * bars["close"][99] * bars["adj_factor"][99] / row["adj_factor"]  # type: ignore[operator]
    assert expected == pytest.approx(row["open"], rel=0.03)
    later = raw.with_columns(
        *[
            pl.when(pl.col("session") > row["session"]).then(pl.col(c) * 1.1).otherwise(pl.col(c)).alias(c)
            for c in ("open", "high", "low", "close")
        ]
    )
    again = judged(later).validated.filter(pl.col("session") == row["session"])
    assert again["open"][0] == repaired["open"]


@pytest.mark.requirement("R7.3")
def test_no_estimate_across_a_suspension() -> None:
    bars = one_symbol()
    sessions = bars["session"].to_list()
    raw = corrupt(bars, {100: "NaN open"}).filter(pl.col("session") != sessions[99])
    repaired = judged(raw).validated.filter(pl.col("status") == "repaired").row(0, named=True)
    assert repaired["open"] is None
    assert json.loads(repaired["repairs"])[0]["method"] == "removed"


@pytest.mark.requirement("R7.3")
def test_volume_is_the_median_of_earlier_sessions() -> None:
    bars = one_symbol()
    result = judged(corrupt(bars, {100: "missing volume"}))
    row = result.validated.filter(pl.col("status") == "repaired").row(0, named=True)
    earlier = bars.slice(80, 20)
    shares = (earlier["volume"] / earlier["adj_factor"]).median()
    assert row["volume"] == pytest.approx(shares * row["adj_factor"])  # type: ignore[operator]


@pytest.mark.requirement("R7.2")
def test_the_revision_learnt_last_wins_and_the_first_stays_on_record() -> None:
    bars = one_symbol()
    result = judged(corrupt(bars, {100: "revision"}))
    assert result.quarantined["rules"].to_list() == [["superseded"]]
    kept = result.validated.filter(pl.col("amount") == 100)
    assert kept["known_at"][0] > bars["known_at"][100]
    copies = judged(corrupt(bars, {100: "copy"}))
    assert copies.quarantined["rules"].to_list() == [["duplicate"]]
    assert copies.validated.height == bars.height
    torn = judged(corrupt(bars, {100: "conflict"}))
    assert torn.quarantined.height == 2
    assert torn.validated.height == bars.height - 1


@pytest.mark.requirement("R7.4")
def test_scores_follow_the_formula() -> None:
    bars = one_symbol()
    result = judged(corrupt(bars, {100: "null close", 200: "NaN open"}))
    scores = dict(result.scores.select("session", "score").iter_rows())
    sessions = bars["session"].to_list()
    assert scores[sessions[150]] == 100
    assert scores[sessions[200]] == pytest.approx(100 * (1 - 0.5 * 0.25 - 0.25 * 0.25))  # one field gone, one repaired
    assert scores[sessions[100]] == pytest.approx(50)
    late = bars.with_columns(known_at=pl.col("known_at") + pl.duration(days=12))
    scored = judged(late).scores["score"][150]
    days = (late["known_at"][150].date() - sessions[150]).days
    assert scored == pytest.approx(90 + 10 * (1 - (days - 3) / 27))
    assert result.scores["score"].is_between(0, 100).all()


@pytest.mark.requirement("R1.5")
def test_short_histories_are_listed_with_the_reason() -> None:
    bars = pl.concat([one_symbol(), sample_bars(("NFLX",)).head(3)])
    validated = judged(bars).validated
    short = short_histories(validated, minimum=252)
    assert short["symbol"].to_list() == ["NFLX"]
    assert short["message"].to_list() == ["3 accepted sessions, 252 are needed"]


@pytest.mark.requirement("R7.1")
def test_the_form_is_checked_first() -> None:
    bars = one_symbol()
    with pytest.raises(DataError, match="lack a required column"):
        judged(bars.drop("close"))
    with pytest.raises(DataError, match=r"wrong type.*session"):
        judged(bars.with_columns(pl.col("session").cast(pl.String)))
    with pytest.raises(DataError, match=r"wrong type.*close"):
        judged(bars.with_columns(pl.col("close").cast(pl.String)))
    with pytest.raises(DataError, match="no sessions"):
        validate_bars(bars, sessions=[], rules=RULES)
    closes = judged(bars.select("symbol", "session", pl.col("close").cast(pl.Float32)))
    assert closes.validated.height == bars.height
    assert closes.validated["open"].is_null().all()
    empty = judged(bars.head(0))
    assert empty.summary()["rows"] == 0


@pytest.mark.requirement("R7.2")
def test_batches_of_symbols_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = corrupt(sample_bars(), {100: "copy", 300: "swapped", 700: "half", 1300: "no session"})
    raw = raw.with_columns(symbol=pl.when(pl.col("amount") == 900).then(None).otherwise(pl.col("symbol")))
    whole = judged(raw)
    monkeypatch.setattr("stock_pipeline.core.quality.validate.BATCH_ROWS", 400)
    parts = judged(raw)
    for name in ("validated", "quarantined", "findings", "scores"):
        assert_frame_equal(getattr(whole, name), getattr(parts, name), check_exact=True)
