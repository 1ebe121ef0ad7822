"""Examples of fields and parameters that mean the same wherever they stand; what is said beside a field comes first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

EXAMPLES: dict[str, Any] = {
    "arm": "champion",
    "backtest": [{"level": 0.95, "sessions": 500, "exceedances": 27, "kupiec_p": 0.69}],
    "below": 80,
    "body": "The newest session is 3 days old.",
    "checksum": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "columns": {"session": ["2023-06-29", "2023-06-30"], "equity": [1_000_000.0, 1_002_310.5]},
    "costs": {"commission": 1520.4, "slippage": 803.1},
    "created_at": "2023-07-01T00:31:04Z",
    "currency": "USD",
    "cursor": "WyI3YjBjMmU0ZDFhOWY4NjM1Iiw0Ml0",
    "description": "closes that jump and come back",
    "end": "2023-06-30",
    "fallback_level": 0,
    "fallback_reason": "the champion could not be loaded",
    "families": ["lightgbm"],
    "findings": [{"session": "2023-06-30", "rule": "price_spike", "severity": "warn"}],
    "fingerprint": "freshness:us_sample",
    "finished_at": "2023-07-01T00:40:12Z",
    "first_session": "2016-01-04",
    "from": "2023-06-01",
    "history": {"session": ["2023-06-30"], "volatility": [0.187], "var_95": [0.0192]},
    "holdout": {"rank_ic": 0.021, "coverage": 0.9},
    "Idempotency-Key": "f3b1c0de-nightly",
    "items": [{"symbol": "IBM", "session": "2023-06-30"}],
    "kind": "freshness",
    "Last-Event-ID": 41,
    "last_session": "2023-06-30",
    "made_at": "2023-07-01T00:31:04Z",
    "min_confidence": 0.6,
    "min_var_95": 0.02,
    "min_volatility": 0.2,
    "mlflow": "http://127.0.0.1:5000/#/experiments/1/runs/8d0c2b1f",
    "model_id": "m-4d1a2b3c",
    "model_name": "us_sample",
    "model_version": "4",
    "newest": "2023-06-30",
    "notes": ["fills at the next open"],
    "parameters": {"fast": 20, "slow": 100},
    "predictions": [{"symbol": "IBM", "expected_return": 0.0021, "rank": 3}],
    "prices": {"session": ["2023-06-30"], "close": [133.81]},
    "publication_id": "8d0c2b1f9a7e6d5c4b3a2918",
    "published_at": "2023-07-01T00:31:04Z",
    "quarantined": [{"session": "2023-06-29", "rules": "high_below_low"}],
    "reason": "the vendor has delivered",
    "remedy": "run `stock-pipeline doctor`",
    "request_id": "5f0c7a3e9d1b4c2f8a6e0d4b7c9f1a23",
    "resolved_at": "2023-07-01T06:02:00Z",
    "risk": {"session": ["2023-06-30"], "var_95": [0.0192]},
    "rule": "price_spike",
    "run_id": "0b0f3f0e-7f62-4a7e-9a55-6d9a0d2f1f11",
    "scores": {"session": ["2023-06-30"], "score": [98.5]},
    "search": "IB",
    "session": "2023-06-30",
    "session_id": "6f1c0e0e-6a5b-4f0e-9d0c-0d7d3a0f3b1a",
    "sessions": 1885,
    "settings": {"execution": {"price": "next_open"}},
    "since": "2023-06-01T00:00:00Z",
    "start": "2018-01-02",
    "strategy": "sma_cross",
    "symbol": "IBM",
    "symbols": ["IBM", "AAPL"],
    "task": "0b0f3f0e-7f62-4a7e-9a55-6d9a0d2f1f11",
    "task_id": "0b0f3f0e-7f62-4a7e-9a55-6d9a0d2f1f11",
    "text": "nightly",
    "to": "2023-06-30",
    "trained_through": "2023-05-31",
    "unpredicted": [{"symbol": "META", "reason": "too little history"}],
    "until": "2023-07-01T00:00:00Z",
}
"""By name."""

OF_A_KIND: dict[tuple[str, str | None], Any] = {
    ("predictions", "object"): {"session": ["2023-06-30"], "expected_return": [0.0021]},
    ("sessions", "object"): {"session": ["2023-06-30"], "mean": [97.4], "low": [91.0]},
    ("symbol", "array"): ["IBM", "AAPL"],
    ("since", "integer"): 41,
    ("symbols", "integer"): 500,
}
"""By name and type, where one name stands for different things."""

_SAID = ("examples", "example", "default", "enum", "const", "$ref")


def has_example(schema: dict[str, Any]) -> bool:
    """Whether a schema says what a value looks like."""
    if any(word in schema for word in _SAID) or schema.get("type") == "boolean":
        return True
    if schema.get("type") == "array":
        return has_example(schema["items"])
    return any(has_example(choice) for choice in _choices(schema) if choice.get("type") != "null")


def complete(document: dict[str, Any]) -> None:
    """Give fields and parameters of an OpenAPI document an example where they have none."""
    for schema in document["components"]["schemas"].values():
        for example in schema.get("examples", []):
            _restore_nulls(document, schema, example)
        if not schema.get("examples"):
            for name, field in schema.get("properties", {}).items():
                _add(name, field)
    for item in document["paths"].values():
        for operation in item.values():
            for parameter in operation.get("parameters", []):
                if "examples" not in parameter and "example" not in parameter:
                    _add(parameter["name"], parameter["schema"])


def _add(name: str, schema: dict[str, Any]) -> None:
    if has_example(schema):
        return
    kinds = [schema.get("type"), *(choice.get("type") for choice in _choices(schema))]
    for kind in kinds:
        if (name, kind) in OF_A_KIND:
            schema["examples"] = [OF_A_KIND[name, kind]]
            return
    if name in EXAMPLES:
        schema["examples"] = [EXAMPLES[name]]


def _restore_nulls(document: dict[str, Any], schema: dict[str, Any], example: Any) -> None:
    """Put back what is null in an example of a model: FastAPI leaves it out of its document."""
    if not isinstance(example, dict):
        return
    fields = schema.get("properties", {})
    for name in schema.get("required", []):
        if name not in example and any(choice.get("type") == "null" for choice in _choices(fields[name])):
            example[name] = None
    for name, value in example.items():
        reference = fields.get(name, {}).get("$ref", "")
        if reference:
            _restore_nulls(document, document["components"]["schemas"][reference.rsplit("/", 1)[1]], value)


def _choices(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for word in ("anyOf", "oneOf", "allOf"):
        yield from schema.get(word, [])
