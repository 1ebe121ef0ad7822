"""People's decisions about models: a version made champion by hand, and the way back; each names who and why.

What the pipeline decides by itself goes through its gate in ``core.modelling.promotion``.
"""

from __future__ import annotations

from stock_pipeline.core.errors import PipelineError
from stock_pipeline.storage.model_registry.registry import ModelRegistry
from stock_pipeline.storage.model_registry.types import ModelVersion


class OtherFeaturesError(PipelineError):
    """A version cannot predict what is configured now: it was trained on other features."""


def promote_by_hand(
    registry: ModelRegistry,
    version: int,
    *,
    by: str,
    reason: str | None = None,
    configured: str | None = None,
    force: bool = False,
) -> ModelVersion:
    """Make a version champion; the next scoring uses it.

    Parameters
    ----------
    registry
        The model store.
    version
        Which one.
    by, reason
        Who decides and why; both are kept with the version.
    configured
        Hash of the configured features; ``None`` where there are no bars yet, so that it is not known.
    force
        Promote a version of other features all the same, for a configuration that is about to change. Until then the
        ladder of fallbacks predicts.

    Raises
    ------
    NotFoundError
        There is no such version.
    IntegrityError
        A file of it is damaged.
    OtherFeaturesError
        It was trained on other features than are configured.
    """
    found = registry.get(version)
    if configured is not None and found.feature_set_hash != configured and not force:
        raise OtherFeaturesError(
            f"version {version} was trained on other features than are configured",
            value=found.feature_set_hash,
            allowed=configured,
            fix="train a model on the configured features, or force it",
        )
    registry.load(version)
    registry.tag(version, "acknowledged_by", by)
    if reason:
        registry.tag(version, "promoted_because", reason)
    return registry.promote(version)


def roll_back(registry: ModelRegistry, *, by: str | None, reason: str) -> ModelVersion:
    """Make the previous champion champion again; the one that goes keeps who sent it and why.

    Raises
    ------
    NotFoundError
        There is no previous champion.
    IntegrityError
        A file of it is damaged.
    """
    leaving = registry.champion()
    back = registry.rollback(reason)
    if leaving is not None and by is not None:
        registry.tag(leaving.version, "rolled_back_by", by)
    return back
