"""What stands under ``storage``: where tables, models and metadata are kept.

Everything defaults to the home folder. Opening what is named here belongs to the ``storage`` package.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline.core.parameters import Parameters

ENVIRONMENT_VALUE = "env:"
"""``env:NAME`` instead of a value: it is read from the environment variable NAME, so that no secret is in a file."""

_FOUND = ("lake_uri", "mlflow_uri", "artifacts_uri", "metadata_url")


class StorageSettings(Parameters):
    """Where state is kept; everything defaults to the home folder. Each value may be ``env:NAME``."""

    lake: str | None = Field(None, min_length=1, description="folder or object-store address of the tables")
    options: dict[str, str] = Field({}, description="object-store options")
    mlflow: str | None = Field(
        None,
        pattern=r"^(env:|[a-z0-9+]+://)",
        description="MLflow tracking address, such as sqlite:////data/mlflow.db or http://host:5000",
    )
    artifacts: str | None = Field(None, min_length=1, description="folder or address of model files")
    metadata: str | None = Field(
        None, pattern=r"^(env:|[a-z0-9+]+://)", description="SQLAlchemy address of the metadata database"
    )
    dagster: str | None = Field(
        None,
        pattern=r"^(env:|postgresql\+psycopg2://)",
        description="Postgres of Dagster's runs and events, as postgresql+psycopg2://...; null: SQLite",
    )
    lake_uri: str = ""
    mlflow_uri: str = ""
    artifacts_uri: str = ""
    metadata_url: str = ""

    @model_validator(mode="before")
    @classmethod
    def _found_not_given(cls, value: Any) -> Any:
        given = [name for name in _FOUND if isinstance(value, dict) and value.get(name)]
        if given:
            allowed = ", ".join(name for name in cls.model_fields if name not in _FOUND)
            raise ValueError(f"{given[0]} is worked out, not given; allowed: {allowed}")
        return value

    def resolved(self, folder: Path, home: Path, environment: Mapping[str, str]) -> StorageSettings:
        """Fill the addresses: values from the environment, paths relative to `folder`, defaults below `home`.

        Raises
        ------
        ConfigurationError
            A value is ``env:NAME`` and there is no such variable.
        """

        def given(name: str) -> str | None:
            value: str | None = getattr(self, name)
            return None if value is None else from_variable(value, f"storage.{name}", environment)

        _check_postgres(given("dagster"))
        return self.model_copy(
            update={
                "options": {
                    key: from_variable(value, f"storage.options.{key}", environment)
                    for key, value in self.options.items()
                },
                "lake_uri": _address(given("lake"), folder, home / "lake"),
                "mlflow_uri": given("mlflow") or f"sqlite:///{home / 'mlflow' / 'mlflow.db'}",
                "artifacts_uri": _address(given("artifacts"), folder, home / "mlflow" / "artifacts"),
                "metadata_url": given("metadata") or f"sqlite:///{home / 'metadata.db'}",
            }
        )


def from_variable(value: str, key: str, environment: Mapping[str, str]) -> str:
    """Give the value, or what the environment variable holds that it names as ``env:NAME``.

    Raises
    ------
    ConfigurationError
        The variable is not set.
    """
    if not value.startswith(ENVIRONMENT_VALUE):
        return value
    name = value.removeprefix(ENVIRONMENT_VALUE)
    found = environment.get(name)
    if not found:
        raise ConfigurationError(
            f"{key} names an environment variable that is not set", value=name, fix=f"set {name}, or change {key}"
        )
    return found


def _check_postgres(address: str | None) -> None:
    if address is not None and not address.startswith("postgresql+psycopg2://"):
        raise ConfigurationError(
            "storage.dagster is not the address of a Postgres database",
            value=f"{address.partition('://')[0]}://...",
            allowed="postgresql+psycopg2://user:password@host/database",
        )


def _address(given: str | None, folder: Path, default: Path) -> str:
    if given is None:
        return str(default)
    return given if "://" in given else str((folder / Path(given).expanduser()).resolve())
