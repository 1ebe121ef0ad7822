"""Turns what validation found into messages for people: the key, the value, what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from stock_pipeline.config.settings import Settings

_SECRET = ("alerts.targets", "storage.")
"""Keys whose values are never shown; whole sections are not shown either, they may hold such keys."""

_INTERNAL = {"config_file", "lake_uri", "mlflow_uri", "artifacts_uri", "metadata_url"}
_ALIASES = {"costs": ("commission_bps",)}


def report(faults: Sequence[str], file: Path) -> str:
    """One message of all faults of a configuration."""
    head = f"the configuration {file} has {len(faults)} fault{'s' if len(faults) > 1 else ''}:"
    return "\n".join([head, *(f"  - {fault}" for fault in faults)])


def faults_of(error: ValidationError) -> list[str]:
    """One line a fault."""
    return [_fault(item) for item in error.errors(include_url=False)]


def _fault(item: Any) -> str:
    path, section = _walk(item["loc"])
    key = ".".join(str(part) for part in path)
    value = item.get("input")
    if item["type"] == "extra_forbidden":
        return f"{key}: there is no such key; {_hint(str(path[-1]), path[-2] if len(path) > 1 else None, section)}"
    if item["type"] == "missing":
        return f"{key}: must be given"
    hidden = isinstance(value, dict | BaseModel) or any(key.startswith(secret) for secret in _SECRET)
    shown = "" if hidden else f" (value {_shown(value)})"
    context = item.get("ctx") or {}
    if item["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"{key}: must hold keys and values below it, such as {key}: {{...}}{shown}"
    if item["type"].startswith("union_tag"):
        kinds = context.get("expected_tags") or "'files', 'yfinance', 'akshare'"
        tag = context.get("tag")
        return f"{key}.kind: must be one of {kinds}" + (f" (value {tag!r})" if tag is not None else "; it is missing")
    if "error" in context:
        text = str(context["error"])
        return (f"{key}: {text}" if key else text) + ("" if repr(value) in text else shown)
    if item["type"] == "string_pattern_mismatch":
        form = next((f.description for m in section if (f := m.model_fields.get(path[-1])) and f.description), None)
        return f"{key}: does not have the right form; allowed: {form or context.get('pattern')}{shown}"
    message = str(item["msg"])
    return f"{key}: {message[0].lower()}{message[1:]}{shown}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _hint(wrong: str, parent: Any, section: list[type[BaseModel]]) -> str:
    known = sorted({n for m in section for n in m.model_fields} - _INTERNAL | set(_ALIASES.get(str(parent), ())))
    near = difflib.get_close_matches(wrong, known, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"allowed: {', '.join(known)}" if known else "remove it"


def _walk(location: Sequence[Any]) -> tuple[list[Any], list[type[BaseModel]]]:
    """Follow a location through the settings models.

    Returns
    -------
    tuple
        The location without the marks that pydantic adds for unions and validators, and the section (or, of a choice
        of vendors, the sections) that its last part stands in.
    """
    path: list[Any] = []
    section: list[type[BaseModel]] = [Settings]
    within = section
    for at, part in enumerate(location):
        within = section
        below = [f.annotation for m in section if (f := m.model_fields.get(part)) is not None] if section else []
        if not below and isinstance(part, str) and section and at < len(location) - 1:
            tagged = [m for m in section if getattr(m.model_fields.get("kind"), "default", None) == part]
            if tagged or part.startswith(("function-", "literal[", "list[")):
                section = tagged or section
                continue
        path.append(part)
        if below:
            section = [model for annotation in below for model in _models_in(annotation)]
    return path, within


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]
