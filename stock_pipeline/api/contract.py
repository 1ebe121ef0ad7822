"""The OpenAPI document: what the routes declare, completed with what is true of all of them."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts

from stock_pipeline.api import contract_examples
from stock_pipeline.api.cookies import name as cookie_name
from stock_pipeline.api.dependencies import PUBLIC
from stock_pipeline.api.problems import MEDIA_TYPE, Problem

_PROBLEM = {"$ref": "#/components/schemas/Problem"}
_REFERENCE = "#/components/schemas/"
_PROOFS: list[dict[str, list[str]]] = [{"bearer": []}, {"apiKey": []}, {"cookie": []}]
_RETRY_AFTER = {
    "Retry-After": {"description": "seconds to wait", "schema": {"type": "integer", "minimum": 1}},
    "RateLimit-Limit": {"description": "requests of the window", "schema": {"type": "integer"}},
    "RateLimit-Remaining": {"description": "requests that are left", "schema": {"type": "integer"}},
    "RateLimit-Reset": {"description": "seconds until there are some again", "schema": {"type": "integer"}},
}
_LOG_IN = {"WWW-Authenticate": {"description": "how to log in", "schema": {"type": "string"}}}
_UNUSED = ("HTTPValidationError", "ValidationError")


def operation_id(route: APIRoute) -> str:
    """Name an operation as its function is named: generated clients call it so."""
    return route.name


def permissions(route: RouteContext) -> list[str]:
    """Permissions that a route declares, or ``public``; empty where it declares nothing."""
    dependant: Dependant | None = getattr(route, "dependant", None)
    return [] if dependant is None else list(dict.fromkeys(_declared(dependant)))


def complete(app: FastAPI) -> None:
    """Make the application's OpenAPI document complete.

    Every operation gets its permission, how to prove who asks, and the problems that any request may meet: those of
    the address and the body, of access and of the limits, and of a database that is away.
    """
    build = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(app, build())
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _completed(app: FastAPI, document: dict[str, Any]) -> dict[str, Any]:
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    problem = Problem.model_json_schema(ref_template=_REFERENCE + "{model}")
    schemas |= problem.pop("$defs", {})
    schemas["Problem"] = problem
    components["securitySchemes"] = _security_schemes(app)
    for route in iter_route_contexts(app.routes):
        operations = document["paths"].get(route.path_format or "", {})
        for method in route.methods or ():
            operation = operations.get(method.lower())
            if operation is not None:
                _complete_operation(method.lower(), operation, permissions(route))
    for name in _UNUSED:
        schemas.pop(name, None)
    _drop_unused(document)
    contract_examples.complete(document)
    return document


def _complete_operation(method: str, operation: dict[str, Any], declared: list[str]) -> None:
    public = declared == [PUBLIC]
    operation["x-permission"] = PUBLIC if public else " ".join(declared)
    operation["security"] = [] if public else _PROOFS
    responses = operation["responses"]
    problems = {400, 422} if "parameters" in operation or "requestBody" in operation else {400}
    if not public:
        problems |= {401, 403, 429}
    if not public or method != "get":
        problems |= {503}  # the database is away, or the machine cannot verify a password
    if "requestBody" in operation:
        problems |= {408, 413, 415}
    for status in sorted(problems):
        responses.setdefault(str(status), {"description": HTTPStatus(status).phrase})
    for name, response in responses.items():
        if name.isdecimal() and int(name) >= 400:
            response["content"] = {MEDIA_TYPE: {"schema": _PROBLEM}}
            response["description"] = response.get("description") or HTTPStatus(int(name)).phrase
    for refused, headers in (("401", _LOG_IN), ("429", _RETRY_AFTER)):
        if refused in responses:
            responses[refused].setdefault("headers", {}).update(headers)
    operation["responses"] = dict(sorted(responses.items()))


def _security_schemes(app: FastAPI) -> dict[str, Any]:
    return {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "an access token of `POST /api/auth/login`, or an API key",
        },
        "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "a key of a program"},
        "cookie": {
            "type": "apiKey",
            "in": "cookie",
            "name": cookie_name(app.state.service.settings),
            "description": "the console's session; requests that change something send `X-CSRF-Token` as well",
        },
    }


def _drop_unused(document: dict[str, Any]) -> None:
    """Leave only schemas that an operation refers to, directly or through another schema."""
    schemas = document["components"]["schemas"]
    reached: set[str] = set()
    waiting = set(_references(document["paths"]))
    while waiting:
        name = waiting.pop()
        reached.add(name)
        waiting |= set(_references(schemas[name])) - reached
    document["components"]["schemas"] = {name: schemas[name] for name in sorted(reached)}


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        reference = part.get("$ref")
        if isinstance(reference, str) and reference.startswith(_REFERENCE):
            yield reference.removeprefix(_REFERENCE)
        for value in part.values():
            yield from _references(value)
    elif isinstance(part, list):
        for value in part:
            yield from _references(value)


def _declared(dependant: Dependant) -> Iterator[str]:
    permission = getattr(dependant.call, "permission", None)
    if isinstance(permission, str):
        yield permission
    for inner in dependant.dependencies:
        yield from _declared(inner)
