"""The model routes, over models that were really trained."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import FastAPI

from stock_pipeline.access.audit import AuditFilter
from stock_pipeline.api.paging import Page
from stock_pipeline.api.schemas_models import ModelDetail, ModelMetrics, ModelSummary
from stock_pipeline.config import Settings
from stock_pipeline_tests.api_finished import all_pages, app_of, clients, copied, taken_away
from stock_pipeline_tests.api_service import problem


@pytest.fixture(scope="module")
def app(finished: Settings, tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    return app_of(copied(finished, tmp_path_factory.mktemp("models") / "market"))


@pytest.fixture(scope="module")
def viewer(app: FastAPI):
    return clients(app, "viewer")[0]


@pytest.mark.requirement("A4", "R4.2")
def test_versions_are_listed_with_aliases_and_pages(app: FastAPI, viewer) -> None:
    registered = app.state.service.model_registry.versions()
    page = Page[ModelSummary].model_validate(viewer.get("/api/models").json())
    assert [one.version for one in page.items] == [one.version for one in reversed(registered)]
    assert [one["version"] for one in all_pages(viewer, "/api/models", limit=1)] == [
        v.version for v in registered[::-1]
    ]
    (champion,) = viewer.get("/api/models", params={"alias": "champion"}).json()["items"]
    assert champion["aliases"] == ["champion"]
    assert {one["family"] for one in viewer.get("/api/models", params={"family": "ridge"}).json()["items"]} == {"ridge"}
    assert (
        viewer.get("/api/models", params={"usable": True}).json()["items"] == viewer.get("/api/models").json()["items"]
    )
    assert viewer.get("/api/models", params={"usable": False}).json()["items"] == []


@pytest.mark.requirement("A4", "R4.2", "R4.3")
def test_a_version_has_its_lineage(app: FastAPI, viewer) -> None:
    known = app.state.service.model_registry.champion()
    detail = ModelDetail.model_validate(viewer.get("/api/models/champion").json())
    assert viewer.get(f"/api/models/{known.version}").json() == viewer.get("/api/models/champion").json()
    assert detail.lineage.checksum == known.checksum
    assert detail.lineage.data_version == dict(known.data_version)
    assert detail.lineage.feature_set_hash == known.feature_set_hash
    assert detail.trained_through == known.trained_through
    assert detail.metrics == pytest.approx(dict(known.metrics))
    assert detail.links.mlflow.endswith(known.run_path)
    for link in (detail.links.card, detail.links.metrics):
        assert viewer.get(link).status_code == 200
    tag = viewer.get("/api/models/champion").headers["etag"]
    assert viewer.get("/api/models/champion", headers={"If-None-Match": tag}).status_code == 304


@pytest.mark.requirement("A4", "R4.4")
def test_figures_and_card(app: FastAPI, viewer) -> None:
    known = app.state.service.model_registry.champion()
    figures = ModelMetrics.model_validate(viewer.get("/api/models/champion/metrics").json())
    assert figures.oos["rank_ic"] == pytest.approx(known.metrics["oos/rank_ic"])
    assert [fold["fold"] for fold in figures.folds] == [1, 2]
    assert figures.importance[0]["importance"] >= figures.importance[-1]["importance"]
    card = viewer.get("/api/models/champion/card")
    assert card.headers["content-type"].startswith("text/markdown")
    assert f"Model card: {known.family} on small" in card.text
    page = viewer.get("/api/models/champion/card", params={"format": "html"})
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["content-security-policy"].startswith("sandbox allow-scripts; default-src 'none'")
    problem(viewer.get("/api/models/champion/card", params={"format": "pdf"}), 422, "invalid-parameters")


@pytest.mark.requirement("A4")
@pytest.mark.parametrize(
    ("version", "status"), [("99", 404), ("previous", 404), ("0", 422), ("best", 422), ("1e3", 422)]
)
def test_unknown_versions(viewer, version: str, status: int) -> None:
    kind = "model-not-found" if status == 404 else "invalid-parameters"
    for below in ("", "/metrics", "/card"):
        problem(viewer.get(f"/api/models/{version}{below}"), status, kind)


@pytest.mark.requirement("A4", "R4.5", "R8.4")
def test_a_person_promotes_and_goes_back(app: FastAPI) -> None:
    viewer, operator = clients(app, "viewer", "operator")
    service = app.state.service
    old = service.model_registry.champion().version
    other = next(one.version for one in service.model_registry.versions() if one.version != old)
    path, reason = f"/api/models/{other}/promote", {"reason": "the alarm was looked into"}
    problem(viewer.post(path, json=reason), 403, "forbidden")
    problem(operator.post(path, json={}), 422, "invalid-parameters")
    problem(operator.post(path, json={**reason, "by": "somebody else"}), 422, "invalid-parameters")
    problem(operator.post("/api/models/99/promote", json=reason), 404, "model-not-found")
    assert service.model_registry.champion().version == old
    done = operator.post(path, json=reason)
    assert done.status_code == 200, done.text
    assert (done.json()["before"], done.json()["champion"]["version"]) == (old, other)
    assert service.model_registry.champion().version == other
    tags = service.model_registry.get(other).tags
    assert (tags["acknowledged_by"], tags["promoted_because"]) == ("the-operator", reason["reason"])
    back = operator.post("/api/models/rollback", json={"reason": "it was worse"})
    assert (back.json()["before"], back.json()["champion"]["version"]) == (other, old)
    assert service.model_registry.get(other).tags["rolled_back_by"] == "the-operator"
    problem(operator.post("/api/models/rollback", json={"reason": "once more"}), 409, "no-previous-champion")
    entries = [e for e in service.access.audit.entries(AuditFilter(), limit=100) if e.action.startswith("model.")]
    found = [(entry.action, entry.result, entry.before, entry.after) for entry in reversed(entries)]
    assert found[0][:2] == ("model.promote", "failed")
    assert found[1:3] == [
        ("model.promote", "done", {"champion": old}, {"champion": other}),
        ("model.rollback", "done", {"champion": other}, {"champion": old}),
    ]
    assert found[3][:2] == ("model.rollback", "failed")


@pytest.mark.requirement("A4", "R4.5")
def test_a_version_of_other_features_is_refused_unless_it_is_forced(finished: Settings, tmp_path: Path) -> None:
    features = {"sets": ["technical"], "exclude": ["rsi_14"]}
    app = app_of(copied(finished, tmp_path / "market", features=features))
    (operator,) = clients(app, "operator")
    reason = {"reason": "for the change of tomorrow"}
    body = problem(operator.post("/api/models/2/promote", json=reason), 409, "other-features")
    assert "other features" in body["detail"]
    assert operator.post("/api/models/2/promote", json={**reason, "force": True}).status_code == 200


@pytest.mark.requirement("A4", "R4.3")
def test_damage_is_said_and_changes_nothing(finished: Settings, tmp_path: Path) -> None:
    settings = copied(finished, tmp_path / "market")
    app = app_of(settings)
    (operator,) = clients(app, "operator")
    registry = app.state.service.model_registry
    champion = registry.champion().version
    other = next(one for one in registry.versions() if one.version != champion)
    folder = settings.home / "mlflow" / "artifacts" / "models" / other.model_id / "artifacts" / "data" / "model"
    victim = next(path for path in folder.iterdir() if path.name.startswith("model."))
    victim.write_bytes(victim.read_bytes()[:-7] + b"damaged")
    problem(operator.post(f"/api/models/{other.version}/promote", json={"reason": "why not"}), 409, "model-damaged")
    assert registry.champion().version == champion
    with taken_away(settings.home / "mlflow" / "artifacts" / other.run_id / "artifacts" / "card"):
        problem(operator.get(f"/api/models/{other.version}/card"), 404, "card-not-found")


@pytest.mark.requirement("A4", "P5")
def test_without_a_model_store_all_else_goes_on(finished: Settings, tmp_path: Path) -> None:
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"this is no database" * 100)
    app = app_of(copied(finished, tmp_path / "market", storage={"mlflow": f"sqlite:///{broken}"}))
    (reader,) = clients(app, "viewer")
    for path in ("/api/models", "/api/models/champion", "/api/models/1/metrics", "/api/models/1/card"):
        problem(reader.get(path), 503, "model-store-unavailable")
    assert reader.get("/api/predictions").status_code == 200
