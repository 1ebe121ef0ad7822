"""The publication in memory: what it takes, what it refuses, what it keeps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import polars as pl
import pytest

from stock_pipeline.core.errors import NotFoundError
from stock_pipeline.core.prediction.schema import PREDICTION_SCHEMA
from stock_pipeline.storage.lake import Lake
from stock_pipeline.storage.publication import FIELDS, PUBLISHED, PublicationCache, load_publication
from stock_pipeline_tests.published import SESSIONS, predictions, publish, publish_unpredicted


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path)


@pytest.mark.requirement("R1.2")
def test_a_row_of_the_predictions_schema_reaches_readers_whole(lake: Lake) -> None:
    frame = predictions(SESSIONS[0], 1).with_columns(interval_level=pl.lit(0.92), lake_version=pl.lit(17))
    frame = frame.select(pl.col(name).cast(dtype) for name, dtype in PREDICTION_SCHEMA.items())
    before = datetime.now(UTC) - timedelta(seconds=1)
    lake.replace(PUBLISHED, frame)
    publication = load_publication(lake, 0)
    row = orjson.loads(publication.rows[0])
    assert set(row) == set(FIELDS)
    assert set(PREDICTION_SCHEMA) - set(FIELDS) == {"feature_set_hash", "lake_version"}
    assert row["interval_level"] == 0.92
    assert before < publication.published_at < datetime.now(UTC) + timedelta(seconds=1)
    detail = publication.detail(row["prediction_id"])
    assert detail is not None
    assert detail["lineage"]["lake_version"] == 17
    assert publication.detail("nope") is None


def test_nothing_new_is_not_read_again_and_what_is_new_is(lake: Lake) -> None:
    cache = PublicationCache(lake)
    assert not cache.refresh()
    with pytest.raises(NotFoundError, match="nothing has been published"):
        cache.get()
    publish(lake, SESSIONS[0])
    assert cache.refresh()
    first = cache.current
    assert not cache.refresh()
    assert cache.current is first
    publish_unpredicted(lake, SESSIONS[0])
    assert cache.refresh()
    assert cache.current is not None
    assert len(cache.current.unpredicted) == 1
    assert first is not None
    assert cache.current.digest != first.digest


def test_equal_content_has_an_equal_digest(lake: Lake) -> None:
    versions = [publish(lake, SESSIONS[0], shift=shift) for shift in (0.0, 1.0, 0.0)]
    digests = [load_publication(lake, version).digest for version in versions]
    assert digests[0] == digests[2] != digests[1]


def test_a_publication_that_cannot_be_right_is_refused(lake: Lake) -> None:
    publish(lake, SESSIONS[0])
    cache = PublicationCache(lake)
    cache.refresh()
    twice = predictions(SESSIONS[1], 3).with_columns(prediction_id=pl.lit("same"))
    lake.write_sessions(PUBLISHED, twice, start=SESSIONS[1], end=SESSIONS[1])
    assert not cache.refresh()
    assert "share an id" in (cache.problem or "")
    assert cache.current is not None
    assert cache.current.session == SESSIONS[0]


def test_a_table_of_another_form_is_a_problem_and_not_the_end_of_watching(lake: Lake) -> None:
    publish(lake, SESSIONS[0])
    cache = PublicationCache(lake)
    cache.refresh()
    lake.replace(PUBLISHED, predictions(SESSIONS[1], 3).drop("symbol"))
    assert not cache.refresh()
    assert "symbol" in (cache.problem or "")
    assert cache.current is not None
    lake.replace(PUBLISHED, predictions(SESSIONS[1], 3))
    assert cache.refresh()
    assert cache.problem is None


def test_few_other_publications_are_kept(lake: Lake) -> None:
    for session in SESSIONS:
        publish(lake, session)
    cache = PublicationCache(lake, keep=1)
    cache.refresh()
    older = cache.get(SESSIONS[0])
    assert cache.get(SESSIONS[0]) is older
    cache.get(SESSIONS[1])
    assert cache.get(SESSIONS[0]) is not older
    assert cache.get(SESSIONS[0]).digest == older.digest


def test_the_age_is_told_by_the_clock(lake: Lake) -> None:
    publish(lake, SESSIONS[0])
    assert load_publication(lake, 0).age(datetime(2023, 7, 1, 2, tzinfo=UTC)) == 3600
