"""What a feature and a feature set are.

Declaring and finding them belongs to ``registry``; computing them to ``engine``.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline.core.features.panel import INPUTS, Array, Panel

ENGINE_VERSION = 1
"""Part of every feature set's hash: raised when a kernel or the panel changes the bits of any feature."""

CrossSection = Literal["rank", "zscore"]


@dataclass(frozen=True)
class Feature:
    """One feature: a function with everything that is known about it.

    Attributes
    ----------
    name
        Column name; letters, digits and underscores.
    function
        From a `Panel` to float64 values of shape (rows,), NaN where undefined. It may use the panel's operations and
        element-wise NumPy, and nothing that depends on other rows in any other way.
    inputs
        Columns of the bars that it needs, out of `INPUTS`.
    lookback
        Rows of the same symbol before the current one that the value depends on; earlier rows have no value.
    description
        What it measures, with its unit, in one sentence.
    source
        Where the definition is from.
    parameters
        Numbers that tell it from its siblings (windows).
    version
        Raised whenever the definition changes, so that stored values are recomputed and old models refuse new ones.
    cross_section
        ``rank`` or ``zscore``: the function's value is then compared with the other symbols' on the same session.
    origin
        Module that declared it.
    """

    name: str
    function: Callable[[Panel], Array]
    inputs: tuple[str, ...]
    lookback: int
    description: str
    source: str
    parameters: Mapping[str, float] = field(default_factory=dict)
    version: int = 1
    cross_section: CrossSection | None = None
    origin: str = ""

    def __post_init__(self) -> None:
        """Refuse what can never work."""
        if not self.name.isidentifier():
            raise ConfigurationError(
                "A feature's name is not acceptable", value=self.name, allowed="letters, digits and underscores"
            )
        for column in self.inputs:
            if column not in INPUTS:
                raise ConfigurationError(
                    f"Feature {self.name!r} needs an unknown column", value=column, allowed=", ".join(INPUTS)
                )
        if not self.inputs or self.lookback < 0 or self.version < 1:
            raise ConfigurationError(
                f"Feature {self.name!r} is declared wrongly",
                value={"inputs": self.inputs, "lookback": self.lookback, "version": self.version},
                allowed="at least one input, lookback >= 0, version >= 1",
            )
        if not (self.description.strip() and self.source.strip()):
            raise ConfigurationError(f"Feature {self.name!r} has no description or no source")

    @property
    def is_builtin(self) -> bool:
        """Whether the platform itself declares it."""
        return self.origin.startswith("stock_pipeline.core.features.")

    def fingerprint(self) -> dict[str, object]:
        """What identifies the definition, as JSON values: see `FeatureSet.hash`."""
        return {
            "name": self.name,
            "version": self.version,
            "inputs": list(self.inputs),
            "lookback": self.lookback,
            "parameters": dict(sorted(self.parameters.items())),
            "cross_section": self.cross_section,
            "code": None if self.is_builtin else _normalised_source(self),
        }


@dataclass(frozen=True)
class FeatureSet:
    """An ordered choice of features, as `feature_set` makes it.

    Attributes
    ----------
    name
        The sets and features it was made of, joined by ``+``.
    features
        The features in column order.
    """

    name: str
    features: tuple[Feature, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in order."""
        return tuple(f.name for f in self.features)

    @property
    def lookback(self) -> int:
        """Rows of each symbol that are needed before the first row wanted."""
        return max(f.lookback for f in self.features)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Columns of the bars that are needed besides ``symbol``, ``session`` and ``adj_factor``."""
        needed = {c for f in self.features for c in f.inputs}
        return tuple(c for c in INPUTS if c in needed)

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits that change exactly when the values may change.

        SHA-256 over the engine's version and, for every feature in order, name, version, inputs, look-back, parameters
        and kind. Features of the platform are identified by their version number alone (a test holds their values and
        asks for a new version when they change). Users' features add the source of their module without comments,
        docstrings and layout, so that an edit is noticed even when the version was forgotten.
        """
        content = {"engine": ENGINE_VERSION, "features": [f.fingerprint() for f in self.features]}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _normalised_source(feature: Feature) -> str:
    """Digest of a user's module without comments, docstrings and layout; of the bytecode where there is no source.

    The whole module, because a feature may use helpers and constants beside it.
    """
    try:
        tree = ast.parse(inspect.getsource(sys.modules[feature.origin]))
    except (KeyError, OSError, TypeError, SyntaxError):
        code = getattr(feature.function, "__code__", None)
        content = code.co_code if code is not None else repr(type(feature.function)).encode()
        return hashlib.sha256(content).hexdigest()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()
