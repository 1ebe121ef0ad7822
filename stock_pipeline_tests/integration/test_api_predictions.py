"""The prediction routes, over a real lake."""

from __future__ import annotations

import csv
import io
from datetime import date

import pytest
from fastapi.testclient import TestClient

from stock_pipeline.api.schemas import PredictionDetail, PredictionPage, UnpredictedList
from stock_pipeline.storage.lake import Lake
from stock_pipeline.storage.publication import PUBLISHED, PublicationCache
from stock_pipeline_tests.api_service import app_for, problem, signed_in
from stock_pipeline_tests.published import SESSIONS, publish, publish_unpredicted


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    made = Lake(tmp_path_factory.mktemp("lake"))
    for number, session in enumerate(SESSIONS):
        publish(made, session, shift=number / 100)
    publish_unpredicted(made, SESSIONS[-1])
    return made


@pytest.fixture(scope="module")
def client(lake: Lake):
    with signed_in(app_for(lake, poll_seconds=60)) as made:
        yield made


@pytest.mark.requirement("A1", "P5", "R1.2")
def test_newest_session_is_the_default_and_best_rank_comes_first(client: TestClient) -> None:
    response = client.get("/api/predictions")
    assert response.status_code == 200
    page = PredictionPage.model_validate(response.json())
    assert page.publication.session == SESSIONS[-1]
    assert page.total == 25
    assert page.unpredicted == 1
    assert [row.rank for row in page.predictions] == list(range(1, 26))
    assert page.predictions[0].expected_return == pytest.approx(0.07)
    assert int(response.headers["publication-age"]) > 0


@pytest.mark.requirement("A1")
def test_an_older_session_comes_from_the_lake(client: TestClient) -> None:
    page = PredictionPage.model_validate(client.get("/api/predictions", params={"session": "2023-06-28"}).json())
    assert page.publication.session == SESSIONS[0]
    assert page.predictions[0].expected_return == pytest.approx(0.05)
    assert page.unpredicted == 0
    body = problem(client.get("/api/predictions", params={"session": "2020-01-01"}), 404, "session-not-published")
    assert "2020-01-01" in body["detail"]


@pytest.mark.requirement("A1")
def test_filters_and_orders(client: TestClient) -> None:
    two = client.get("/api/predictions", params={"symbol": ["S007", "S002", "NOPE"]}).json()
    assert [row["symbol"] for row in two["predictions"]] == ["S002", "S007"]
    sure = client.get("/api/predictions", params={"min_confidence": 0.8}).json()
    assert [row["confidence"] for row in sure["predictions"]] == pytest.approx([1, 0.96, 0.92, 0.88, 0.84, 0.8])
    down = client.get("/api/predictions", params={"sort": "volatility", "order": "desc", "limit": 2}).json()
    assert [row["symbol"] for row in down["predictions"]] == ["S024", "S023"]


@pytest.mark.requirement("A1")
def test_not_a_number_is_null_and_comes_last_in_both_directions(client: TestClient) -> None:
    response = client.get("/api/predictions", params={"symbol": ["S003", "S004"]})
    assert "NaN" not in response.text
    assert "Infinity" not in response.text
    by_symbol = {row["symbol"]: row for row in response.json()["predictions"]}
    assert by_symbol["S003"]["var_95"] is None
    assert by_symbol["S004"]["es_95"] is None
    for order in ("asc", "desc"):
        rows = client.get("/api/predictions", params={"sort": "var_95", "order": order}).json()["predictions"]
        assert rows[-1]["symbol"] == "S003"


@pytest.mark.requirement("A1")
@pytest.mark.parametrize("limit", [1, 4, 7, 25, 1000])
@pytest.mark.parametrize("sort", ["rank", "var_95"])
def test_paging_gives_every_row_exactly_once(client: TestClient, limit: int, sort: str) -> None:
    seen, cursor = [], None
    while True:
        parameters = {"limit": limit, "sort": sort, **({"cursor": cursor} if cursor else {})}
        response = client.get("/api/predictions", params=parameters)
        body = response.json()
        assert body["total"] == 25
        seen += [row["symbol"] for row in body["predictions"]]
        cursor = body["next_cursor"]
        if cursor is None:
            assert "link" not in response.headers
            break
        assert client.get(response.headers["link"].split(">")[0][1:]).status_code == 200
    assert len(seen) == 25
    assert set(seen) == {f"S{number:03d}" for number in range(25)}


@pytest.mark.requirement("A1")
def test_paging_stays_in_its_publication_when_a_new_one_appears(tmp_path) -> None:
    lake = Lake(tmp_path)
    publish(lake, SESSIONS[0])
    cache = PublicationCache(lake)
    with signed_in(app_for(lake, cache=cache, poll_seconds=3600)) as client:
        first = client.get("/api/predictions", params={"limit": 20}).json()
        publish(lake, SESSIONS[0], shift=1.0)
        assert cache.refresh()
        parameters = {"limit": 20, "cursor": first["next_cursor"]}
        second = client.get("/api/predictions", params=parameters).json()
        assert second["publication"] == first["publication"]
        assert all(row["expected_return"] < 1 for row in first["predictions"] + second["predictions"])
        assert len({row["symbol"] for row in first["predictions"] + second["predictions"]}) == 25
        assert client.get("/api/predictions").json()["predictions"][0]["expected_return"] == pytest.approx(1.05)
    # a service that starts later reads the older version from the lake; once that is gone, it says so
    with signed_in(app_for(lake, poll_seconds=60)) as client:
        assert client.get("/api/predictions", params=parameters).json() == second
    lake.vacuum(PUBLISHED, retention_days=0)
    with signed_in(app_for(lake, poll_seconds=60)) as client:
        problem(client.get("/api/predictions", params=parameters), 410, "publication-gone")


@pytest.mark.requirement("A1")
def test_damaged_and_foreign_cursors_are_refused(client: TestClient) -> None:
    cursor = client.get("/api/predictions", params={"limit": 5}).json()["next_cursor"]
    for damaged in (cursor[:-3], "x", "ä", "W10", "bnVsbA"):
        problem(client.get("/api/predictions", params={"cursor": damaged}), 400, "invalid-cursor")
    body = problem(client.get("/api/predictions", params={"cursor": cursor, "order": "desc"}), 400, "invalid-cursor")
    assert "other filters" in body["detail"]


@pytest.mark.requirement("A1")
def test_an_answer_that_is_known_is_not_sent_again(client: TestClient) -> None:
    for path in ("/api/predictions", "/api/predictions/2023-06-30.S000.5", "/api/unpredicted"):
        first = client.get(path)
        tag = first.headers["etag"]
        for header in (tag, tag.removeprefix("W/"), f'"other", {tag}', "*"):
            again = client.get(path, headers={"If-None-Match": header})
            assert again.status_code == 304
            assert again.content == b""
            assert again.headers["etag"] == tag
        assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    assert client.get("/api/predictions?limit=1").headers["etag"] != client.get("/api/predictions").headers["etag"]


@pytest.mark.requirement("A1")
def test_csv_has_the_same_rows(client: TestClient) -> None:
    response = client.get("/api/predictions", params={"format": "csv", "limit": 10})
    assert response.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert [row["symbol"] for row in rows] == [f"S{number:03d}" for number in range(10)]
    assert rows[3]["var_95"] == ""
    following = client.get(response.headers["link"].split(">")[0][1:])
    assert next(csv.DictReader(io.StringIO(following.text)))["symbol"] == "S010"


@pytest.mark.requirement("A1")
def test_large_answers_are_compressed_when_the_reader_takes_that(client: TestClient) -> None:
    plain = client.get("/api/predictions", headers={"Accept-Encoding": "identity"})
    packed = client.get("/api/predictions", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"]) / 2
    assert packed.json() == plain.json()
    assert "Accept-Encoding" in packed.headers["vary"]


@pytest.mark.requirement("A1")
@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("limit=0", "limit"),
        ("limit=10001", "limit"),
        ("limit=ten", "limit"),
        ("session=30.06.2023", "session"),
        ("min_confidence=1.1", "min_confidence"),
        ("min_confidence=nan", "min_confidence"),
        ("sort=colour", "sort"),
        ("order=up", "order"),
        ("format=xml", "format"),
        ("symbol=", "symbol.0"),
        ("colour=red", "colour"),
        ("limit=1&limit=2", "limit"),
    ],
)
def test_parameters_that_are_not_accepted_are_named(client: TestClient, query: str, parameter: str) -> None:
    body = problem(client.get(f"/api/predictions?{query}"), 422, "invalid-parameters")
    assert body["errors"][0]["parameter"] == parameter
    assert parameter in body["detail"]


@pytest.mark.requirement("A1")
def test_one_prediction_has_its_lineage(client: TestClient) -> None:
    detail = PredictionDetail.model_validate(client.get("/api/predictions/2023-06-30.S000.5").json())
    assert detail.lineage.feature_set_hash == "c0ffee"
    assert detail.lineage.lake_version == "17"
    assert (detail.lineage.config_version, detail.lineage.code_version, detail.lineage.seed) == (
        "3f2a90b1",
        "0.1.0+abc",
        7,
    )
    assert detail.lineage.publication_version == 2
    older = PredictionDetail.model_validate(client.get("/api/predictions/2023-06-28.S024.5").json())
    assert older.session == date(2023, 6, 28)
    assert older.expected_return == pytest.approx(0.026)


@pytest.mark.requirement("A1")
@pytest.mark.parametrize("name", ["nope", "2023-06-30.S999.5", "' OR 1=1 --", "x" * 200])
def test_an_unknown_prediction_is_not_found(client: TestClient, name: str) -> None:
    problem(client.get(f"/api/predictions/{name}"), 404, "prediction-not-found")


@pytest.mark.requirement("A1", "R1.5")
def test_symbols_without_a_prediction_are_listed_with_the_reason(client: TestClient) -> None:
    found = UnpredictedList.model_validate(client.get("/api/unpredicted").json())
    assert [(row.symbol, row.reason) for row in found.unpredicted] == [("NEW", "too little history")]
    assert client.get("/api/unpredicted", params={"session": "2023-06-28"}).json()["unpredicted"] == []
    problem(client.get("/api/unpredicted", params={"day": "2023-06-28"}), 422, "invalid-parameters")
