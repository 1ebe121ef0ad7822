"""Backup of single model versions: a zip with every file, tag and checksum, and its way back into a registry.

Backups of the whole home folder (database and artifacts together) are made elsewhere; this is for moving one model.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from stock_pipeline.core.errors import IntegrityError, NotFoundError
from stock_pipeline.core.modelling.families import package
from stock_pipeline.storage.model_registry import bundle
from stock_pipeline.storage.model_registry.registry import ModelRegistry
from stock_pipeline.storage.model_registry.types import ModelVersion

_RECORD = "version.json"
_DESCRIPTION = (
    "family",
    "feature_set",
    "feature_set_hash",
    "data_version",
    "code_version",
    "horizon",
    "trained_through",
    "seed",
)


def export_version(registry: ModelRegistry, alias_or_version: str | int, path: Path | str) -> Path:
    """Write a verified version with the artifacts of its run into a zip.

    Parameters
    ----------
    registry
        Where the version is.
    alias_or_version
        Which one.
    path
        The zip to write; replaced if it exists.

    Returns
    -------
    pathlib.Path
        The zip.

    Raises
    ------
    IntegrityError
        If the stored version is damaged: nothing is written then.
    """
    info = registry.get(alias_or_version)
    registry.load(info.version)
    run = registry.client.get_run(info.run_id)
    record = {
        "name": info.name,
        "version": info.version,
        "aliases": list(info.aliases),
        "checksum": info.checksum,
        "created_at": info.created_at.isoformat(),
        "metrics": dict(info.metrics),
        "tags": dict(info.tags),
        "run_tags": {k: v for k, v in run.data.tags.items() if not k.startswith("mlflow.")},
        "run_parameters": dict(run.data.params),
    }
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        content = {_RECORD: json.dumps(record, sort_keys=True, indent=1).encode()}
        model = registry.locate(info, scratch)
        content |= {
            f"bundle/{p.relative_to(model).as_posix()}": p.read_bytes()
            for p in _files(model)
            if p.name != "registered_model_meta"
        }
        artifacts = registry.run_files(info.run_id, scratch)
        content |= {f"run/{p.relative_to(artifacts).as_posix()}": p.read_bytes() for p in _files(artifacts)}
        listing = {n: {"bytes": len(c), "sha256": package.sha256(c)} for n, c in content.items()}
        manifest = package.render({"format": package.FORMAT, "files": listing})
        partial = target.with_name(target.name + ".partial")
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in {package.MANIFEST: manifest, **content}.items():
                archive.writestr(name, data)
        partial.replace(target)
    return target


def import_version(registry: ModelRegistry, path: Path | str) -> ModelVersion:
    """Bring an exported version into a registry, as its next version and without aliases.

    Parameters
    ----------
    registry
        Where to; it may be empty.
    path
        A zip of `export_version`.

    Returns
    -------
    ModelVersion
        The new version; its tag ``imported_from`` names the old one.

    Raises
    ------
    NotFoundError
        If there is no such file.
    IntegrityError
        If it is not such a zip, or anything in it is damaged, missing or added: nothing is registered then.
    """
    source = Path(path)
    if not source.is_file():
        raise NotFoundError("there is no such backup", value=str(source))
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "archive"
        _unpack(source, root)
        _, files = package.read(root)
        record: Mapping[str, Any] = json.loads(files[_RECORD])
        folder = root / "bundle"
        bundle.open_verified(folder, record["checksum"], f"the backup {source.name}")
        origin = f"{record['name']} version {record['version']}"
        return _register(registry, record, folder, root / "run", origin)


def _register(
    registry: ModelRegistry, record: Mapping[str, Any], folder: Path, artifacts: Path, origin: str
) -> ModelVersion:
    from mlflow.entities import Param

    client, tags = registry.client, record["tags"]
    run = client.create_run(registry.experiment_id, run_name=f"imported: {origin}", tags=record["run_tags"])
    run_id = run.info.run_id
    client.log_batch(run_id, params=[Param(k, v) for k, v in record["run_parameters"].items()])
    if artifacts.is_dir():
        client.log_artifacts(run_id, str(artifacts))
    description = {k: json.loads(tags[k]) if k == "data_version" else tags[k] for k in _DESCRIPTION}
    kept = {k: v for k, v in tags.items() if k not in ("replaced", "rolled_back_at", "rolled_back_because")}
    version = registry.create_version(
        folder, record["checksum"], description, {**kept, "imported_from": origin}, record["metrics"], run_id
    )
    client.set_terminated(run_id, "FINISHED")
    return version


def _unpack(source: Path, root: Path) -> None:
    """Unpack without trusting names; damage that the zip format notices is damage too."""
    try:
        with zipfile.ZipFile(source) as archive:
            for name in archive.namelist():
                parts = PurePosixPath(name).parts
                if not parts or ".." in parts or name.startswith("/") or "\\" in name or ":" in name:
                    raise IntegrityError("a backup names a file outside itself", value=name)
                target = root.joinpath(*parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(name))
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise IntegrityError("the backup of a model is damaged", value=str(source), fix="use another backup") from error
    except Exception as error:
        # zlib and lzma raise exceptions of their own for damaged streams; a damaged header may name any of the two
        if type(error).__module__ not in ("zlib", "_lzma"):
            raise
        raise IntegrityError("the backup of a model is damaged", value=str(source), fix="use another backup") from error


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())
