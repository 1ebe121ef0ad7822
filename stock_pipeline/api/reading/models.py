"""Models as the service shows them: versions with their figures and lineage, cards, and people's decisions."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from stock_pipeline.api.problems import ProblemError
from stock_pipeline.api.reading import tables
from stock_pipeline.config import Settings, addresses
from stock_pipeline.core.errors import NotFoundError, PipelineError
from stock_pipeline.observability.logging import get_logger
from stock_pipeline.storage.configured_features import VALIDATED, feature_hash
from stock_pipeline.storage.lake import Lake
from stock_pipeline.storage.model_registry import ModelRegistry, ModelVersion
from stock_pipeline.storage.model_registry.decisions import OtherFeaturesError, promote_by_hand, roll_back

VERSION = r"^(champion|challenger|previous|[1-9][0-9]{0,8})$"
"""How a version is named: by its number or by an alias."""

CARDS: dict[str, tuple[str, str]] = {
    "markdown": ("model_card.md", "text/markdown; charset=utf-8"),
    "html": ("model_card.html", "text/html; charset=utf-8"),
}
"""File and content type of each form of a card."""

_INTERNAL = frozenset(
    {"checksum", "family", "feature_set", "feature_set_hash", "data_version", "code_version", "horizon", "seed"}
    | {"trained_through", "logged_model", "metrics"}
)
"""Tags that are fields of their own."""

_log = get_logger(__name__)


@dataclass(frozen=True)
class Promotion:
    """What a decision changed: the champion before and after it."""

    before: int | None
    champion: ModelVersion


class Models:
    """The model store as the routes use it; every method may be slow.

    Parameters
    ----------
    registry
        The store.
    settings
        The configuration.
    lake
        Says which columns features can be computed from.
    """

    def __init__(self, registry: ModelRegistry, settings: Settings, lake: Lake) -> None:
        self._registry, self._settings, self._lake = registry, settings, lake
        self._deciding = threading.Lock()

    def all(self) -> list[ModelVersion]:
        """All versions, newest first."""
        with _available():
            return self._registry.versions()[::-1] if self._made() else []

    def get(self, version: str) -> ModelVersion:
        """One version, by number or alias.

        Raises
        ------
        ProblemError
            404 ``model-not-found``.
        """
        with _available():
            return self._found(version)

    def metrics(self, version: str) -> dict[str, Any]:
        """Figures of a version: out of sample, on the hold-out, by fold, and what it looks at most."""
        with _available():
            found = self._found(version)
            folds, importance = self._files(found.run_id)
        groups: dict[str, dict[str, float | None]] = {"oos": {}, "holdout": {}}
        for name, value in found.metrics.items():
            group, _, figure = name.rpartition("/")
            groups.setdefault(group or "other", {})[figure] = tables.finite(value)
        return {"version": found.version, "family": found.family, **groups, "folds": folds, "importance": importance}

    def card(self, version: str, form: Literal["markdown", "html"]) -> tuple[ModelVersion, bytes]:
        """The model card that was written when the version was trained.

        Raises
        ------
        ProblemError
            404 ``model-not-found`` or ``card-not-found``.
        """
        with _available(), tempfile.TemporaryDirectory() as scratch:
            found = self._found(version)
            path = self._registry.run_files(found.run_id, scratch) / "card" / CARDS[form][0]
            if not path.is_file():
                raise ProblemError(404, "card-not-found", f"version {found.version} was stored without a card")
            return found, path.read_bytes()

    def promote(self, version: str, *, by: str, reason: str, force: bool) -> Promotion:
        """Make a version champion; see `promote_by_hand`.

        Raises
        ------
        ProblemError
            404 ``model-not-found``, 409 ``other-features`` or ``model-damaged``.
        """
        configured = None
        if self._lake.exists(VALIDATED):
            with tables.stored(VALIDATED):
                configured = feature_hash(self._settings, self._lake)
        with self._deciding, _available(deciding=True):
            found, before = self._found(version), self._registry.champion()
            champion = promote_by_hand(
                self._registry, found.version, by=by, reason=reason, configured=configured, force=force
            )
        return Promotion(before.version if before else None, champion)

    def rollback(self, *, by: str, reason: str) -> Promotion:
        """Make the previous champion champion again.

        Raises
        ------
        ProblemError
            409 ``no-previous-champion`` or ``model-damaged``.
        """
        with self._deciding, _available(deciding=True):
            before = self._registry.champion() if self._made() else None
            try:
                if before is None:
                    raise NotFoundError("there is no champion", fix="train a model first: stock-pipeline run")
                champion = roll_back(self._registry, by=by, reason=reason)
            except NotFoundError as error:
                raise ProblemError(409, "no-previous-champion", str(error)) from error
        return Promotion(before.version if before else None, champion)

    def describe(self, found: ModelVersion) -> dict[str, Any]:
        """A version with its lineage, as `schemas_models.ModelDetail` has it."""
        return {
            **summary(found),
            "metrics": tables.finite(dict(found.metrics)),
            "lineage": {
                "feature_set": found.feature_set,
                "feature_set_hash": found.feature_set_hash,
                "data_version": dict(found.data_version),
                "code_version": found.code_version,
                "checksum": found.checksum,
                "seed": found.seed,
                "trained_through": found.trained_through,
                "run_id": found.run_id,
                "model_id": found.model_id,
            },
            "tags": {name: value for name, value in sorted(found.tags.items()) if name not in _INTERNAL},
            "links": {
                "card": f"/api/models/{found.version}/card",
                "metrics": f"/api/models/{found.version}/metrics",
                "mlflow": self.address(found),
            },
        }

    def address(self, found: ModelVersion) -> str:
        """Page of a version's run in the MLflow UI."""
        return addresses.mlflow_page(self._settings, found.run_path)

    def _found(self, version: str) -> ModelVersion:
        if not self._made():
            raise NotFoundError("there are no models yet", fix="train one first: stock-pipeline run")
        return self._registry.get(version)

    def _made(self) -> bool:
        """Whether there is a model store; opening one that is not there would make it, and take long."""
        file = self._registry.tracking_uri.removeprefix("sqlite:///").split("?")[0]
        return not self._registry.tracking_uri.startswith("sqlite:///") or Path(file).is_file()

    def _files(self, run_id: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        with tempfile.TemporaryDirectory() as scratch:
            folder = self._registry.run_files(run_id, scratch) / "evaluation"
            read = [folder / name for name in ("folds.csv", "importance.csv")]
            return (  # files of older versions may be absent
                tables.rows(pl.read_csv(read[0], try_parse_dates=True)) if read[0].is_file() else [],
                tables.rows(pl.read_csv(read[1])) if read[1].is_file() else [],
            )


def summary(found: ModelVersion) -> dict[str, Any]:
    """A version in a list, as `schemas_models.ModelSummary` has it."""
    shown = ("rank_ic", "rank_ic_t", "hit_rate", "rmse", "long_short_net_bps")
    return {
        "name": found.name,
        "version": found.version,
        "family": found.family,
        "aliases": list(found.aliases),
        "horizon": found.horizon,
        "trained_through": found.trained_through,
        "created_at": found.created_at,
        "feature_set_hash": found.feature_set_hash,
        "figures": {name: tables.finite(found.metrics.get(f"oos/{name}")) for name in shown},
    }


@contextmanager
def _available(*, deciding: bool = False) -> Iterator[None]:
    """Turn what the model store says into problems; one that does not answer is a 503."""
    try:
        yield
    except ProblemError:
        raise
    except NotFoundError as error:
        raise ProblemError(404, "model-not-found", str(error)) from error
    except OtherFeaturesError as error:
        raise ProblemError(409, "other-features", str(error)) from error
    except PipelineError as error:
        if deciding:
            raise ProblemError(409, "model-damaged", str(error)) from error
        _log.error("the model store cannot be read", error=str(error))
        raise ProblemError(503, "model-store-unavailable", "the model store cannot be read; see the log") from error
    except Exception as error:
        _log.error("the model store does not answer", error=f"{type(error).__name__}: {error}"[:1000])
        raise ProblemError(
            503,
            "model-store-unavailable",
            "the model store does not answer; see the log",
            headers={"Retry-After": "30"},
        ) from error
