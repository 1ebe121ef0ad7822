"""Values that are typed as ``NAME=VALUE``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from stock_pipeline.config.layers import parse_yaml
from stock_pipeline.core.errors import ConfigurationError


def named_values(pairs: Sequence[str]) -> dict[str, Any]:
    """Read ``NAME=VALUE`` pairs; values are YAML, so numbers, booleans and lists keep their types.

    Raises
    ------
    ConfigurationError
        A pair has no name or no ``=``, or its value is not YAML.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator or not name.strip():
            raise ConfigurationError("a parameter must be NAME=VALUE", value=pair, allowed="such as -p fast=20")
        try:
            values[name.strip()] = parse_yaml(text)
        except yaml.YAMLError as error:
            raise ConfigurationError(
                f"the value of the parameter {name.strip()} cannot be read", value=text, allowed="a YAML value"
            ) from error
    return values
