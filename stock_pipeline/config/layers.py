"""Merging of configuration layers and reading of environment variables; knows nothing of the keys' meaning."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from stock_pipeline.core.errors import ConfigurationError


class _Loader(yaml.SafeLoader):
    """Safe YAML as people expect it in a list of symbols, and without keys that silently replace each other.

    ``ON`` and ``NO`` are texts (in YAML 1.1 they are booleans), ``000001`` is a text (it would be an octal number).
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that stands twice."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)  # type: ignore[no-untyped-call]
            if key.__hash__ is not None and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key if key.__hash__ is not None else str(key))
        return super().construct_mapping(node, deep)


_BOOL, _INT = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:int"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_BOOL, _INT)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOL, re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(_INT, re.compile(r"^[-+]?(0|[1-9][0-9_]*)$"), list("-+0123456789"))


def parse_yaml(text: str) -> Any:
    """Read YAML text (see `_Loader`).

    Raises
    ------
    yaml.YAMLError
        The text is not YAML, or a key stands twice.
    """
    return yaml.load(text, Loader=_Loader)


ENV_PREFIX = "STOCK_PIPELINE__"
"""``STOCK_PIPELINE__MODELS__HORIZON=10`` sets ``models.horizon``; values are read as YAML."""


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises
    ------
    ConfigurationError
        The file is missing, is not YAML, or is not a mapping of keys to values.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            "cannot read the configuration file",
            value=str(path),
            allowed="a readable YAML file in UTF-8",
            fix=f"write one with `stock-pipeline init` or correct the path ({error})",
        ) from error
    try:
        data = parse_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(
            f"the configuration file {path} is not valid YAML", allowed="YAML", fix=" ".join(str(error).split())
        ) from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigurationError(
            f"the configuration file {path} must hold keys and values", value=type(data).__name__, allowed="a mapping"
        )
    return data


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two nested mappings; the second wins, lists and scalars are replaced whole."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """Turn ``STOCK_PIPELINE__A__B=value`` variables into ``{"a": {"b": value}}``."""
    tree: dict[str, Any] = {}
    for name in sorted(environment):
        if not name.startswith(ENV_PREFIX):
            continue
        keys = [part.lower() for part in name.removeprefix(ENV_PREFIX).split("__")]
        if not all(keys):
            raise ConfigurationError(
                "an environment variable does not name a key", value=name, allowed=f"{ENV_PREFIX}SECTION__KEY"
            )
        try:
            value = parse_yaml(environment[name])
        except yaml.YAMLError:
            value = environment[name]
        branch: dict[str, Any] = {}
        leaf = branch
        for key in keys[:-1]:
            leaf = leaf.setdefault(key, {})
        leaf[keys[-1]] = value
        tree = merge(tree, branch)
    return tree
