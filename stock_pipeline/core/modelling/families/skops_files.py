"""scikit-learn estimators as skops files: no pickle, and only types trusted by name are ever built.

Which types a family may hold is stated by the family; LightGBM has its own text format.
"""

from __future__ import annotations

from typing import Any

from stock_pipeline.core.errors import IntegrityError


def dump(value: Any) -> bytes:
    """Serialise an estimator, or a dictionary of estimators and arrays."""
    import skops.io

    return skops.io.dumps(value)


def load(content: bytes, trusted: tuple[str, ...]) -> Any:
    """Rebuild what `dump` wrote.

    Raises
    ------
    IntegrityError
        If the content asks for a type that is neither known to be safe nor in ``trusted``.
    """
    import skops.io

    unknown = sorted(set(skops.io.get_untrusted_types(data=content)) - set(trusted))
    if unknown:
        raise IntegrityError(
            "a model file asks for types that are not trusted", value=unknown, allowed=", ".join(trusted), fix="retrain"
        )
    return skops.io.loads(content, trusted=list(trusted))


def versions() -> dict[str, str]:
    """Return the version of scikit-learn, on whose internals such files depend."""
    import sklearn

    return {"scikit-learn": sklearn.__version__}
