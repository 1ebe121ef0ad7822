"""The folder a model is saved in: files, and a manifest with the checksum of each.

Reading verifies every byte before anything is deserialised, and hands the verified bytes on, so that a file cannot
change in between. What the bytes mean belongs to each family; where folders are kept to the model registry.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stock_pipeline.core.errors import IntegrityError

MANIFEST = "manifest.json"
FORMAT = 1
"""Version of the folder layout; a reader refuses any other."""

_RETRAIN = "restore the model from a backup, use another version, or retrain"


def sha256(content: bytes) -> str:
    """Return the SHA-256 of bytes in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def names_hash(names: Sequence[str]) -> str:
    """Return the SHA-256 of an ordered list of feature names."""
    return sha256("\n".join(names).encode())


def render(manifest: Mapping[str, Any]) -> bytes:
    """Write a manifest in its one canonical form, with the checksum of itself."""
    body = {k: v for k, v in manifest.items() if k != "checksum"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return (json.dumps({**body, "checksum": sha256(text.encode())}, sort_keys=True, indent=1) + "\n").encode()


def write(directory: Path, files: Mapping[str, bytes], header: Mapping[str, Any]) -> dict[str, Any]:
    """Write files and their manifest into a folder.

    Parameters
    ----------
    directory
        Made if absent; must not hold another model.
    files
        Content by plain file name.
    header
        What the manifest says beside the files (family, features, parameters, ...); JSON values.

    Returns
    -------
    dict
        The manifest as `read` will return it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    listing = {name: {"bytes": len(content), "sha256": sha256(content)} for name, content in files.items()}
    content = render({**header, "format": FORMAT, "files": listing})
    for name, data in files.items():
        (directory / name).write_bytes(data)
    # the manifest comes last: a folder whose writing was cut off has none and is refused
    (directory / MANIFEST).write_bytes(content)
    return json.loads(content)


def seal(directory: Path, header: Mapping[str, Any]) -> str:
    """Write a manifest over every file that a folder (with its sub-folders) holds.

    Returns
    -------
    str
        SHA-256 of the manifest, which therefore stands for the whole folder.
    """
    names = sorted(p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file())
    contents = {name: (directory / name).read_bytes() for name in names}
    listing = {name: {"bytes": len(data), "sha256": sha256(data)} for name, data in contents.items()}
    manifest = render({**header, "format": FORMAT, "files": listing})
    (directory / MANIFEST).write_bytes(manifest)
    return sha256(manifest)


def read(directory: Path, ignore: frozenset[str] = frozenset()) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Read a folder and verify all of it.

    Parameters
    ----------
    directory
        As written by `write` or `seal`.
    ignore
        Names that may stand in the folder unlisted; they are not read.

    Returns
    -------
    manifest : dict
        As written.
    files : dict
        The verified content of every listed file.

    Raises
    ------
    IntegrityError
        If the manifest is missing, altered or of another format, or a file is missing, altered or not listed; the
        message names the file.
    """
    path = directory / MANIFEST
    manifest = _manifest(path)
    found = {p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file()} - {MANIFEST}
    extra = sorted(found - set(manifest["files"]) - ignore)
    if extra:
        raise IntegrityError("the model folder holds a file that is not in its manifest", value=extra[0], fix=_RETRAIN)
    files = {}
    for name, listed in manifest["files"].items():
        try:
            content = (directory / name).read_bytes()
        except OSError as error:
            raise IntegrityError(
                "a file of the model cannot be read", value=str(directory / name), fix=_RETRAIN
            ) from error
        if len(content) != listed["bytes"] or sha256(content) != listed["sha256"]:
            raise IntegrityError(
                "a file of the model is damaged",
                value=str(directory / name),
                allowed=f"{listed['bytes']} bytes with SHA-256 {listed['sha256']}",
                fix=_RETRAIN,
            )
        files[name] = content
    return manifest, files


def _manifest(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise IntegrityError("the manifest of a model cannot be read", value=str(path), fix=_RETRAIN) from error
    try:
        manifest = json.loads(content)
        intact = isinstance(manifest, dict) and render(manifest) == content
    except ValueError:
        intact = False
    if not intact:
        raise IntegrityError("the manifest of a model is damaged", value=str(path), fix=_RETRAIN)
    if manifest.get("format") != FORMAT:
        raise IntegrityError(
            "the model was saved in another format", value=manifest.get("format"), allowed=str(FORMAT), fix=_RETRAIN
        )
    return manifest
