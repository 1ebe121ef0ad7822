"""Versions of models in MLflow: register, find, verify and load, promote and roll back.

The rule by which a version deserves promotion is in ``core.modelling.promotion``; here the aliases move.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import polars as pl

from stock_pipeline.core.errors import ConfigurationError, IntegrityError, NotFoundError
from stock_pipeline.core.modelling.training import TrainingResult
from stock_pipeline.core.reporting.model_card import ModelCard
from stock_pipeline.storage.model_registry import bundle
from stock_pipeline.storage.model_registry.client import mlflow_module, open_client, quiet_missing
from stock_pipeline.storage.model_registry.run import TrainingRun
from stock_pipeline.storage.model_registry.types import (
    ALIASES,
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    LoadedModel,
    ModelMetadata,
    ModelVersion,
)

_TAG_LIMIT = 4_500


class ModelRegistry:
    """All versions of one registered model.

    Parameters
    ----------
    tracking_uri
        MLflow's database or server: ``sqlite:///path/mlflow.db`` (created if absent), ``postgresql://...`` or
        ``http://...``.
    artifact_root
        Folder or URI for files; used when the experiment is created.
    name
        Name of the registered model and of its experiment.
    """

    def __init__(self, tracking_uri: str, artifact_root: str | Path, name: str = "stock_model") -> None:
        self.tracking_uri, self.name = tracking_uri, name
        root = str(artifact_root)
        self.artifact_root = root if "://" in root else Path(root).resolve().as_uri()

    @cached_property
    def client(self) -> Any:
        """The MLflow client; opening it creates database, experiment and registered model where they are missing."""
        client = open_client(self.tracking_uri)
        if quiet_missing(client.get_registered_model, self.name) is None:
            client.create_registered_model(
                self.name, description="Forward returns of stocks, ranked and with intervals."
            )
        return client

    @cached_property
    def experiment_id(self) -> str:
        """The experiment of all training runs.

        MLflow fixes the place of an experiment's files when it is created. When the home folder was moved or restored
        elsewhere, new runs go to a new experiment whose name ends in the new place, never into the old folder.
        """
        for name in (self.name, f"{self.name} in {self.artifact_root.removeprefix('file://')}"):
            found = self.client.get_experiment_by_name(name)
            if found is None:
                return str(self.client.create_experiment(name, artifact_location=self.artifact_root))
            if self._root is None or found.artifact_location == self.artifact_root:
                return str(found.experiment_id)
        raise IntegrityError("MLflow has an experiment of this name in another place", value=name)

    @property
    def _root(self) -> Path | None:
        """The folder of all files, ``None`` where they are not on a local disk."""
        parsed = urlparse(self.artifact_root)
        return Path(unquote(parsed.path)) if parsed.scheme in ("", "file") else None

    def run_path(self, run_id: str) -> str:
        """Return the path of a run below the address of the MLflow UI."""
        return f"#/experiments/{self.experiment_id}/runs/{run_id}"

    # ---------------------------------------------------------------- write

    def training_run(self, family: str, metadata: ModelMetadata, name: str | None = None) -> TrainingRun:
        """Start a run; see `TrainingRun`."""
        return TrainingRun(self, family, metadata, name)

    def register(
        self,
        result: TrainingResult,
        card: ModelCard | None,
        metadata: ModelMetadata,
        *,
        calibrator_json: str | None = None,
        baselines: Mapping[str, pl.DataFrame] | None = None,
        example: pl.DataFrame | None = None,
        extra: Mapping[str, bytes] | None = None,
    ) -> ModelVersion:
        """Log and register a finished training in one go; the parameters are those of `TrainingRun.finish`."""
        with self.training_run(result.family, metadata) as run:
            return run.finish(result, card, calibrator_json, baselines=baselines, example=example, extra=extra)

    def register_model(
        self,
        result: TrainingResult,
        metadata: ModelMetadata,
        *,
        run_id: str,
        metrics: Mapping[str, float],
        example: pl.DataFrame | None,
        extra: Mapping[str, bytes],
    ) -> ModelVersion:
        """Store the final model of a training under an existing run and register it as the next version."""
        description = {
            "family": result.family,
            "feature_set": metadata.feature_set,
            "feature_set_hash": metadata.feature_set_hash,
            "data_version": dict(metadata.data_version),
            "code_version": metadata.code_version,
            "horizon": result.settings.horizon,
            "trained_through": result.trained_through.isoformat(),
            "seed": result.seed,
        }
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "bundle"
            checksum = bundle.write(folder, result.model, example, extra, description)
            return self.create_version(folder, checksum, description, dict(metadata.tags), metrics, run_id)

    def set_alias(self, alias: str, version: int) -> None:
        """Point an alias at a version that exists.

        Raises
        ------
        ConfigurationError
            If the alias is not one of ``champion``, ``challenger``, ``previous``.
        """
        if alias not in ALIASES:
            raise ConfigurationError("unknown alias", value=alias, allowed=", ".join(ALIASES))
        self.get(version)
        self.client.set_registered_model_alias(self.name, alias, str(version))

    def promote(self, version: int) -> ModelVersion:
        """Make a version champion, and the present champion the previous one.

        The version is loaded and verified first. MLflow moves one alias at a time: ``previous`` moves first, so that a
        crash in between leaves the old champion in office, and promoting again completes it.
        """
        self.load(version)
        aliases = self._aliases()
        old = aliases.get(CHAMPION)
        if old is not None and old != version:
            self.client.set_model_version_tag(self.name, str(version), "replaced", str(old))
            self.client.set_registered_model_alias(self.name, PREVIOUS, str(old))
        if old != version:
            self.client.set_registered_model_alias(self.name, CHAMPION, str(version))
        if aliases.get(CHALLENGER) == version:
            self.client.delete_registered_model_alias(self.name, CHALLENGER)
        return self.get(version)

    def rollback(self, reason: str = "") -> ModelVersion:
        """Make the previous champion champion again.

        The one that it had replaced, where known, becomes ``previous``; the version that was rolled back keeps the
        tags ``rolled_back_at`` and ``rolled_back_because`` and loses its alias.

        Raises
        ------
        NotFoundError
            If there is no previous champion.
        """
        aliases = self._aliases()
        back, bad = aliases.get(PREVIOUS), aliases.get(CHAMPION)
        if back is None or back == bad:
            raise NotFoundError("there is no previous champion to go back to", fix="promote a version by its number")
        self.load(back)
        self.client.set_registered_model_alias(self.name, CHAMPION, str(back))
        before = self.get(back).tags.get("replaced")
        if before is not None and int(before) != back:
            self.client.set_registered_model_alias(self.name, PREVIOUS, before)
        else:
            self.client.delete_registered_model_alias(self.name, PREVIOUS)
        if bad is not None:
            self.client.set_model_version_tag(self.name, str(bad), "rolled_back_at", datetime.now(UTC).isoformat())
            self.client.set_model_version_tag(self.name, str(bad), "rolled_back_because", reason[:_TAG_LIMIT])
        return self.get(back)

    def tag(self, version: int, key: str, value: str) -> None:
        """Set a tag of a version (for example its promotion decision)."""
        self.get(version)
        self.client.set_model_version_tag(self.name, str(version), key, value[:_TAG_LIMIT])

    # ---------------------------------------------------------------- read

    def get(self, alias_or_version: str | int) -> ModelVersion:
        """Return a version by number or alias.

        Raises
        ------
        NotFoundError
            If it does not exist.
        """
        aliases = self._aliases()
        wanted = str(alias_or_version)
        number = int(wanted) if wanted.isdigit() else aliases.get(wanted)
        found = None if number is None else quiet_missing(self.client.get_model_version, self.name, str(number))
        if found is None:
            raise NotFoundError(
                f"model {self.name} has no such version or alias",
                value=alias_or_version,
                allowed=", ".join([*sorted(aliases), *(str(v.version) for v in self.versions()[-5:])]) or "none yet",
                fix="train and promote a model first" if not aliases else None,
            )
        return self._version(found, aliases)

    def versions(self) -> list[ModelVersion]:
        """Return all versions, oldest first."""
        aliases = self._aliases()
        found, token = [], None
        while True:
            page = self.client.search_model_versions(f"name='{self.name}'", page_token=token)
            found += list(page)
            token = page.token
            if not token:
                break
        return sorted((self._version(v, aliases) for v in found), key=lambda v: v.version)

    def champion(self) -> ModelVersion | None:
        """Return the champion, ``None`` if there is none."""
        number = self._aliases().get(CHAMPION)
        return None if number is None else self.get(number)

    def load(self, alias_or_version: str | int, *, feature_set_hash: str | None = None) -> LoadedModel:
        """Load a version after verifying every byte of it against the registry.

        Parameters
        ----------
        alias_or_version
            ``champion``, ``challenger``, ``previous`` or a number.
        feature_set_hash
            Hash of the feature set that the caller will pass; ``None`` to accept the model's.

        Raises
        ------
        NotFoundError
            If there is no such version or alias.
        IntegrityError
            If a file is damaged or missing (the message names it), the checksum or signature does not match, or the
            feature set is another one.
        """
        info = self.get(alias_or_version)
        where = f"{self.name} version {info.version}"
        if feature_set_hash is not None and feature_set_hash != info.feature_set_hash:
            raise IntegrityError(
                f"{where} was trained on another feature set",
                value=feature_set_hash,
                allowed=f"{info.feature_set_hash} ({info.feature_set})",
                fix="compute the model's feature set, or retrain",
            )
        with tempfile.TemporaryDirectory() as scratch:
            model, calibrator, manifest = bundle.open_verified(self.locate(info, scratch), info.checksum, where)
        if (manifest["family"], manifest["feature_set_hash"]) != (info.family, info.feature_set_hash):
            raise IntegrityError(
                f"the tags of {where} contradict its files", value=info.family, fix="promote another version"
            )
        return LoadedModel(info, model, calibrator)

    def oos(self, alias_or_version: str | int, table: str = "oos") -> pl.DataFrame:
        """Return the out-of-sample predictions stored with a version (``table="holdout"`` for the hold-out)."""
        info = self.get(alias_or_version)
        with tempfile.TemporaryDirectory() as scratch:
            folder = self.run_files(info.run_id, scratch)
            path = folder / "evaluation" / f"{table}.parquet"
            if not path.is_file():
                raise NotFoundError(f"{self.name} version {info.version} was stored without this table", value=table)
            return pl.read_parquet(path)

    def run_files(self, run_id: str, scratch: str) -> Path:
        """Return the local folder of a run's artifacts, downloading them into ``scratch`` if they are remote."""
        own = None if self._root is None else self._root / run_id / "artifacts"
        if own is not None and own.is_dir():
            return own
        if not self.client.list_artifacts(run_id):
            return Path(scratch) / "nothing"
        return Path(
            mlflow_module().artifacts.download_artifacts(
                run_id=run_id, artifact_path="", dst_path=scratch, tracking_uri=self.tracking_uri
            )
        )

    def locate(self, info: ModelVersion, scratch: str) -> Path:
        """Return the local folder of a version's files, downloading them into ``scratch`` if they are remote."""
        # after a move or a restore the database still names the old place: the own folder comes first
        own = None if self._root is None else self._root / "models" / info.model_id / "artifacts"
        if own is not None and own.is_dir():
            return own
        source = str(self.client.get_logged_model(info.model_id).artifact_location)
        parsed = urlparse(source)
        if parsed.scheme in ("", "file"):
            return Path(unquote(parsed.path))
        mlflow = mlflow_module()
        return Path(
            mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=scratch, tracking_uri=self.tracking_uri)
        )

    # ---------------------------------------------------------------- inside

    def create_version(
        self,
        folder: Path,
        checksum: str,
        description: Mapping[str, Any],
        tags: Mapping[str, str],
        metrics: Mapping[str, float],
        run_id: str,
    ) -> ModelVersion:
        """Upload a bundle as a logged model of a run and create the next version from it."""
        logged = self.client.create_logged_model(
            self.experiment_id,
            name=str(description["family"]),
            source_run_id=run_id,
            model_type=str(description["family"]),
            tags={"checksum": checksum},
        )
        self.client.log_model_artifacts(logged.model_id, str(folder))
        self.client.finalize_logged_model(logged.model_id, "READY")
        texts = {k: v if isinstance(v, str) else json.dumps(v, sort_keys=True) for k, v in description.items()}
        created = self.client.create_model_version(
            self.name,
            source=logged.artifact_location,
            run_id=run_id,
            model_id=logged.model_id,
            tags={
                **tags,
                **texts,
                "checksum": checksum,
                "logged_model": logged.model_id,
                "metrics": json.dumps({k: round(v, 8) for k, v in metrics.items()}, sort_keys=True),
            },
        )
        return self.get(int(created.version))

    def _aliases(self) -> dict[str, int]:
        return {a: int(v) for a, v in self.client.get_registered_model(self.name).aliases.items()}

    def _version(self, found: Any, aliases: Mapping[str, int]) -> ModelVersion:
        tags, number = dict(found.tags), int(found.version)
        missing = [t for t in ("checksum", "family", "feature_set_hash", "logged_model") if t not in tags]
        if missing:
            raise IntegrityError(
                f"{self.name} version {number} was not registered by this platform",
                value=missing,
                fix="remove it in MLflow",
            )
        return ModelVersion(
            name=self.name,
            version=number,
            family=tags["family"],
            horizon=int(tags["horizon"]),
            trained_through=date.fromisoformat(tags["trained_through"]),
            feature_set=tags["feature_set"],
            feature_set_hash=tags["feature_set_hash"],
            seed=int(tags["seed"]),
            data_version=json.loads(tags["data_version"]),
            code_version=tags["code_version"],
            aliases=tuple(sorted(a for a, v in aliases.items() if v == number)),
            metrics=json.loads(tags.get("metrics", "{}")),
            checksum=tags["checksum"],
            created_at=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
            run_id=found.run_id,
            run_path=self.run_path(found.run_id),
            model_id=tags["logged_model"],
            tags=tags,
        )
