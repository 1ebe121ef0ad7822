"""V9: whatever is wrong anywhere in a configuration, it never becomes settings, and the message names the key."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from stock_pipeline.config import Settings, load_settings
from stock_pipeline.core.errors import ConfigurationError

VALID: dict[str, Any] = {
    "market": {"name": "m", "calendar": "XNYS", "currency": "USD", "history": {"first": 2000, "last": 2020}},
    "source": {"kind": "files", "path": "prices"},
    "models": {"families": ["ridge"], "parameters": {"ridge": {"alpha": 1.0}}, "train": {"folds": 3}},
    "backtests": {"strategies": [{"name": "momentum_rank", "parameters": {"top": 3}}], "costs": {"commission_bps": 5}},
}


def _limited(
    model: type[BaseModel], path: tuple[str, ...] = ()
) -> list[tuple[tuple[str, ...], float | None, float | None]]:
    """Every number with limits in the settings: its key, and a value just beyond each limit."""
    found = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found += _limited(kind, (*path, name))
            continue
        limits = {key: getattr(m, key) for m in field.metadata for key in ("ge", "gt", "le", "lt") if hasattr(m, key)}
        low = limits["ge"] - 1 if "ge" in limits else limits.get("gt")
        high = limits["le"] + 1 if "le" in limits else limits.get("lt")
        if low is not None or high is not None:
            found.append(((*path, name), low, high))
    return found


LIMITED = _limited(Settings)
SECTIONS = sorted({path[:-1] for path, _, _ in LIMITED if path[:-1]})


def _with(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    values = copy.deepcopy(VALID)
    below = values
    for key in path[:-1]:
        below = below.setdefault(key, {})
    below[path[-1]] = value
    return values


@st.composite
def wrong(draw: st.DrawFn) -> tuple[dict[str, Any], str]:
    """A valid configuration with one fault, and the key that the message must name."""
    way = draw(st.sampled_from(["limit", "limit", "kind", "unknown", "name"]))
    if way == "unknown":
        section = draw(st.sampled_from(SECTIONS))
        key = draw(st.from_regex(r"[a-z]{3,12}_no", fullmatch=True))
        return _with((*section, key), draw(st.integers() | st.text(max_size=5))), ".".join((*section, key))
    if way == "name":
        text = draw(st.from_regex(r"[a-z]{4,10}q", fullmatch=True))
        key, value = draw(
            st.sampled_from(
                [
                    ("models.families.0", _with(("models", "families"), [text])),
                    ("features", _with(("features", "sets"), [text])),
                    ("backtests.strategies.0", _with(("backtests", "strategies"), [text])),
                    ("market.calendar", _with(("market", "calendar"), text)),
                    ("models.parameters.ridge", _with(("models", "parameters", "ridge", text), 1)),
                    (
                        "backtests.strategies.0",
                        _with(("backtests", "strategies"), [{"name": "momentum_rank", "parameters": {text: 1}}]),
                    ),
                ]
            )
        )
        return value, key
    path, low, high = draw(st.sampled_from(LIMITED))
    if way == "limit":
        beyond = []
        if low is not None:
            beyond.append(st.integers(math.floor(low) - 10**9, math.floor(low)))
        if high is not None:
            beyond.append(st.integers(math.ceil(high), math.ceil(high) + 10**9))
        value = draw(st.one_of(beyond))
    else:
        value = draw(st.sampled_from(["many", [1], {"a": 1}, float("nan"), float("inf")]))
    return _with(path, value), ".".join(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("v9")


def test_the_unchanged_configuration_is_valid(folder: Path) -> None:
    file = folder / "valid.yaml"
    file.write_text(yaml.safe_dump(VALID))
    assert load_settings(file, environment={}).models.train.folds == 3
    assert len(LIMITED) > 100


@pytest.mark.requirement("V9", "R9.3")
@given(fault=wrong())
def test_invalid_never_applies(folder: Path, fault: tuple[dict[str, Any], str]) -> None:
    values, key = fault
    file = folder / "market.yaml"
    file.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigurationError) as told:
        load_settings(file, environment={})
    # a fault that concerns several keys of a section is told of the section
    names = [line.split(":")[0].removeprefix("  - ") for line in str(told.value).splitlines()[1:]]
    assert any(key == name or key.startswith(f"{name}.") or name.startswith(f"{key}.") for name in names), told.value


@pytest.mark.requirement("V9", "R9.1")
@given(fault=wrong())
def test_invalid_never_applies_by_a_variable(folder: Path, fault: tuple[dict[str, Any], str]) -> None:
    """The same fault as an environment variable over a valid file."""
    values, _ = fault
    file = folder / "file.yaml"
    file.write_text(yaml.safe_dump(VALID))
    variables = {f"STOCK_PIPELINE__{section.upper()}": yaml.safe_dump(values[section]) for section in values}
    with pytest.raises(ConfigurationError):
        load_settings(file, environment=variables)
