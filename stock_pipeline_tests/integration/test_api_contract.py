"""The OpenAPI document says everything, generators accept it, and the service keeps to it whatever is sent."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from fastapi import FastAPI

from stock_pipeline.access.permissions import PERMISSIONS
from stock_pipeline.api.contract_examples import has_example
from stock_pipeline.storage.lake import Lake
from stock_pipeline_tests.api_service import app_for
from stock_pipeline_tests.filled import body_of, value_of

pytestmark = pytest.mark.requirement("A5", "R8.2")

TYPE = "application/problem+json"
GENERATOR = Path(sys.executable).with_name("openapi-python-client")


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    found: dict[str, Any] = app_for(Lake(tmp_path_factory.mktemp("empty"))).openapi()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def test_the_document_is_valid_openapi_and_is_served(document: dict[str, Any], lone_app: FastAPI) -> None:
    from fastapi.testclient import TestClient
    from openapi_spec_validator import validate

    validate(document)
    served = TestClient(lone_app).get("/openapi.json").json()
    assert set(served["paths"]) == set(document["paths"])


def test_every_operation_says_what_it_is_and_who_may(document: dict[str, Any]) -> None:
    names: Counter[str] = Counter()
    tags = {tag["name"] for tag in document["tags"]}
    schemes = set(document["components"]["securitySchemes"])
    assert schemes == {"bearer", "apiKey", "cookie"}
    for path, method, operation in operations(document):
        place = f"{method} {path}"
        names[operation["operationId"]] += 1
        assert re.fullmatch(r"[a-z]+(_[a-z0-9]+)*", operation["operationId"]), place
        assert operation["summary"], place
        assert len(operation["description"]) > 20, place
        assert set(operation["tags"]) <= tags, place
        permission = operation["x-permission"]
        if permission == "public":
            assert operation["security"] == [], place
        else:
            assert permission in PERMISSIONS, place
            assert [set(proof) for proof in operation["security"]] == [{"bearer"}, {"apiKey"}, {"cookie"}], place
            assert {"401", "403", "429"} <= set(operation["responses"]), place
        assert any(status.startswith("2") for status in operation["responses"]), place
        for status, answer in operation["responses"].items():
            assert answer["description"], (place, status)
            if status >= "4":
                assert list(answer["content"]) == [TYPE], (place, status)
        if "requestBody" in operation:
            assert {"413", "415", "422"} <= set(operation["responses"]), place
    assert [name for name, count in names.items() if count > 1] == []
    assert len(names) >= 60


def test_every_field_and_parameter_has_an_example(document: dict[str, Any]) -> None:
    missing = [
        f"{name}.{field}"
        for name, schema in document["components"]["schemas"].items()
        if not schema.get("examples")
        for field, part in schema.get("properties", {}).items()
        if not has_example(part)
    ]
    missing += [
        f"{method} {path} {parameter['name']}"
        for path, method, operation in operations(document)
        for parameter in operation.get("parameters", [])
        if not (parameter.get("examples") or parameter.get("example") or has_example(parameter["schema"]))
    ]
    assert missing == []


def test_examples_are_what_their_schemas_say(document: dict[str, Any]) -> None:
    faults: list[str] = []

    def check(value: Any, schema: dict[str, Any], place: str) -> None:
        validator = jsonschema.Draft202012Validator({**schema, "components": document["components"]})
        faults.extend(f"{place}: {fault.message}" for fault in validator.iter_errors(value))

    for name, schema in document["components"]["schemas"].items():
        for example in schema.get("examples", []):
            check(example, schema, name)
        for field, part in schema.get("properties", {}).items():
            for example in part.get("examples", []):
                check(example, part, f"{name}.{field}")
        if schema.get("properties"):
            check(value_of(document, schema), schema, name)
    for path, method, operation in operations(document):
        if "requestBody" in operation:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            check(body_of(document, operation), schema, f"{method} {path}")
    assert faults == []


def test_every_reference_leads_somewhere_and_no_schema_is_left_over(document: dict[str, Any]) -> None:
    used = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert used == set(document["components"]["schemas"])
    assert all(re.fullmatch(r"[A-Za-z0-9_]+", name) for name in used)
    assert not [name for name in used if "__" in name], "two models share a name"


@pytest.mark.slow
def test_a_generator_makes_a_client_that_can_be_imported(document: dict[str, Any], tmp_path: Path) -> None:
    source, client = tmp_path / "openapi.json", tmp_path / "generated_client"
    source.write_text(json.dumps(document))
    environment = {**os.environ, "PATH": f"{GENERATOR.parent}{os.pathsep}{os.environ['PATH']}"}
    made = subprocess.run(
        [str(GENERATOR), "generate", "--path", str(source), "--output-path", str(client), "--meta", "none"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    assert "WARNING" not in made.stdout.upper(), made.stdout
    assert "Unable to" not in made.stdout, made.stdout
    code = (
        "import importlib, pkgutil, generated_client as c; "
        "found = [m.name for m in pkgutil.walk_packages(c.__path__, 'generated_client.')]; "
        "[importlib.import_module(name) for name in found]; "
        "from generated_client.api.authentication import log_in; assert callable(log_in.sync); print(len(found))"
    )
    imported = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False
    )
    assert imported.returncode == 0, imported.stderr
    modules = int(imported.stdout)
    assert modules > sum(1 for _ in operations(document))
