"""Users' own features: loading modules that declare them.

A module declares features with the ``feature`` decorator; nothing of the platform has to be edited.
"""

from __future__ import annotations

import importlib
from importlib import metadata

from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline.core.features import registry

ENTRY_POINTS = "stock_pipeline.features"
"""Group of entry points under which an installed package offers modules of features."""


def load_user_features(dotted_path: str | None = None) -> tuple[str, ...]:
    """Import a module that declares features, or all modules that installed packages offer.

    Parameters
    ----------
    dotted_path
        Importable module, e.g. ``my_company.features``, or the name of an entry point in the group `ENTRY_POINTS`.
        ``None`` loads every entry point of the group.

    Returns
    -------
    tuple of str
        Names of the features that the module (or modules) declare. Loading a module again changes nothing.

    Raises
    ------
    ConfigurationError
        When the module cannot be found or fails, declares a name that is taken, or declares nothing. Nothing of a
        failed module stays registered.
    """
    offered = {point.name: point.value for point in metadata.entry_points(group=ENTRY_POINTS)}
    if dotted_path is None:
        return tuple(name for path in offered.values() for name in _load(path))
    return _load(offered.get(dotted_path, dotted_path))


def _load(path: str) -> tuple[str, ...]:
    with registry.transaction():
        try:
            module = importlib.import_module(path)
        except ConfigurationError:
            raise
        except ModuleNotFoundError as error:
            missing = error.name or path
            what = "The module of user features cannot be found"
            if not (path == missing or path.startswith(f"{missing}.")):
                what = f"The module of user features {path!r} imports a module that cannot be found"
            raise ConfigurationError(
                what,
                value=missing,
                allowed=f"an importable dotted path, or an entry point of the group {ENTRY_POINTS}",
                fix="install the package, or put its folder on PYTHONPATH",
            ) from error
        except Exception as error:
            raise ConfigurationError(
                f"The module of user features {path!r} failed with {type(error).__name__}", value=str(error)
            ) from error
        declared = registry.declared_in(module.__name__)
        if not declared:
            raise ConfigurationError(
                "The module declares no features",
                value=path,
                fix="decorate its functions with stock_pipeline.core.features.feature(...)",
            )
        return declared
