"""The registry: how features are declared, found by name and combined into feature sets.

Definitions of features belong to ``technical``, ``statistical``, ``alpha158`` and users' own modules; computing them
belongs to ``engine``.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline.core.features.definition import CrossSection, Feature, FeatureSet
from stock_pipeline.core.features.panel import Array, Panel

_FEATURES: dict[str, Feature] = {}
_SETS: dict[str, list[str]] = {}


def register(feature: Feature, sets: Sequence[str] = ()) -> Feature:
    """Add a feature to the registry, and to the named sets (which are made when new).

    Raises
    ------
    ConfigurationError
        When the name is taken by another feature or by a set.
    """
    for known, kind in ((_FEATURES, "feature"), (_SETS, "feature set")):
        if feature.name in known:
            where = f" (declared in {_FEATURES[feature.name].origin})" if kind == "feature" else ""
            raise ConfigurationError(
                f"The name is already taken by a {kind}{where}",
                value=feature.name,
                fix=f"rename the feature declared in {feature.origin or 'your module'}",
            )
    for name in sets:
        if name in _FEATURES:
            raise ConfigurationError("A feature set cannot have the name of a feature", value=name)
    _FEATURES[feature.name] = feature
    for name in sets:
        _SETS.setdefault(name, []).append(feature.name)
    return feature


def feature(
    *,
    inputs: Sequence[str],
    lookback: int,
    source: str,
    name: str | None = None,
    description: str | None = None,
    parameters: Mapping[str, float] | None = None,
    version: int = 1,
    cross_section: CrossSection | None = None,
    sets: Sequence[str] = (),
) -> Callable[[Callable[[Panel], Array]], Callable[[Panel], Array]]:
    """Declare the decorated function as a feature.

    ``name`` is the function's name and ``description`` the first line of its docstring unless given; the other
    arguments are the attributes of `Feature`, ``sets`` those of `register`.

    Examples
    --------
    >>> @feature(inputs=["close"], lookback=10, source="Own research", sets=["mine"])
    ... def ten_day_reversal(panel):
    ...     '''Minus the return over ten sessions, as a fraction.'''
    ...     return -panel.growth(panel.close, 10)
    """

    def declare(function: Callable[[Panel], Array]) -> Callable[[Panel], Array]:
        text = description if description is not None else (function.__doc__ or "").strip().split("\n")[0]
        made = Feature(
            name=name or function.__name__,
            function=function,
            inputs=tuple(inputs),
            lookback=lookback,
            description=text,
            source=source,
            parameters=dict(parameters or {}),
            version=version,
            cross_section=cross_section,
            origin=function.__module__,
        )
        register(made, sets)
        return function

    return declare


def get(name: str) -> Feature:
    """Return a feature by name.

    Raises
    ------
    ConfigurationError
        When there is none, with the nearest names.
    """
    if name not in _FEATURES:
        raise _unknown("feature", name, _FEATURES)
    return _FEATURES[name]


def names() -> tuple[str, ...]:
    """Names of all registered features, in order of registration."""
    return tuple(_FEATURES)


def sets() -> dict[str, tuple[str, ...]]:
    """Every feature set's name with the names of its features."""
    return {name: tuple(members) for name, members in _SETS.items()}


def feature_set(names_or_sets: Sequence[str], exclude: Iterable[str] = ()) -> FeatureSet:
    """Combine sets and single features into a feature set.

    Parameters
    ----------
    names_or_sets
        Names of sets (``technical``, ``statistical``, ``alpha158``, users' own) and of features, in the wanted order;
        a feature named twice stands at its first place.
    exclude
        Names of sets and of features to leave out.

    Raises
    ------
    ConfigurationError
        For an unknown name (with the nearest ones), an exclusion that excludes nothing, or when nothing is left.
    """
    if isinstance(names_or_sets, str):
        raise ConfigurationError("Features are given as a list of names", value=names_or_sets, fix=f"[{names_or_sets}]")
    wanted = list(dict.fromkeys(member for name in names_or_sets for member in _expand(name)))
    left_out: list[str] = []
    for name in exclude:
        members = _expand(name)
        if not set(members) & set(wanted):
            raise ConfigurationError(
                "An excluded feature is not among the chosen ones", value=name, fix="remove it from the exclude list"
            )
        left_out.extend(members)
    chosen = tuple(_FEATURES[n] for n in wanted if n not in set(left_out))
    if not chosen:
        raise ConfigurationError("No feature is left", value=list(names_or_sets), fix="name a set, e.g. technical")
    return FeatureSet(name="+".join(names_or_sets), features=chosen)


def declared_in(module: str) -> tuple[str, ...]:
    """Names of the features that a module, or a module below it, declared."""
    return tuple(f.name for f in _FEATURES.values() if f.origin == module or f.origin.startswith(f"{module}."))


@contextmanager
def transaction() -> Iterator[None]:
    """Undo every registration made in the ``with`` block when the block raises."""
    features, members = dict(_FEATURES), {name: list(names) for name, names in _SETS.items()}
    loaded = set(sys.modules)
    try:
        yield
    except BaseException:
        for origin in {f.origin for n, f in _FEATURES.items() if n not in features} - loaded:
            sys.modules.pop(origin, None)  # so that a corrected module is imported anew
        _FEATURES.clear()
        _FEATURES.update(features)
        _SETS.clear()
        _SETS.update(members)
        raise


def _expand(name: str) -> list[str]:
    if name in _SETS:
        return _SETS[name]
    if name in _FEATURES:
        return [name]
    raise _unknown("feature or feature set", name, [*_SETS, *_FEATURES])


def _unknown(kind: str, name: str, known: Iterable[str]) -> ConfigurationError:
    folded = {k.lower(): k for k in known}
    near = [folded[k] for k in difflib.get_close_matches(name.lower(), folded, n=3, cutoff=0.5)]
    return ConfigurationError(
        f"There is no {kind} of this name",
        value=name,
        allowed=f"sets {', '.join(_SETS)}, or any registered feature",
        fix=f"did you mean {', '.join(near)}?" if near else "see the reference page of features for all names",
    )
