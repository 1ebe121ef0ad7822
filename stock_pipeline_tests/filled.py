"""Fills the requests of an OpenAPI document with what it gives as examples."""

from __future__ import annotations

import re
from typing import Any


def body_of(document: dict[str, Any], operation: dict[str, Any]) -> Any:
    """A body that an operation accepts; ``None`` where it takes none."""
    if "requestBody" not in operation:
        return None
    return value_of(document, operation["requestBody"]["content"]["application/json"]["schema"])


def query_of(document: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any]:
    """The query parameters that an operation cannot do without."""
    return {
        parameter["name"]: value_of(document, parameter["schema"] | {"examples": parameter.get("examples", [])})
        for parameter in operation.get("parameters", [])
        if parameter["in"] == "query" and parameter.get("required")
    }


def path_of(path: str, values: dict[str, str], other: str = "nobody") -> str:
    """A path with its parameters filled."""
    return re.sub(r"\{(\w+)(?::\w+)?\}", lambda found: values.get(found[1], other), path)


def value_of(document: dict[str, Any], schema: dict[str, Any]) -> Any:
    """One value of a schema: its first example, else the least that it takes."""
    if "$ref" in schema:
        return value_of(document, document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]])
    if schema.get("examples"):
        return schema["examples"][0]
    for known in ("const", "default"):
        if known in schema:
            return schema[known]
    if "enum" in schema:
        return schema["enum"][0]
    for choice in ("anyOf", "oneOf", "allOf"):
        if choice in schema:
            return value_of(document, schema[choice][0])
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        needed = schema.get("required", [])
        return {name: value_of(document, part) for name, part in schema.get("properties", {}).items() if name in needed}
    if kind == "array":
        return [value_of(document, schema["items"])] * schema.get("minItems", 0)
    return {"integer": schema.get("minimum", 1), "number": schema.get("minimum", 1), "boolean": True, "null": None}.get(
        str(kind), "x" * max(1, schema.get("minLength", 1))
    )
