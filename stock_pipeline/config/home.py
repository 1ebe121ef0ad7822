"""One home folder holds one market: the folder says whose it is, so that two configurations never mix their tables."""

from __future__ import annotations

from stock_pipeline.config.settings import Settings
from stock_pipeline.core.errors import ConfigurationError

MARKER = "market.txt"


def owner_of_home(settings: Settings) -> str | None:
    """Name of the market that the home folder belongs to; ``None`` where it is new."""
    marker = settings.home / MARKER
    return marker.read_text(encoding="utf-8").strip() if marker.is_file() else None


def check_home(settings: Settings) -> None:
    """Refuse the home folder of another market.

    Raises
    ------
    ConfigurationError
        The folder holds the tables of a market with another name.
    """
    owner = owner_of_home(settings)
    if owner is not None and owner != settings.market.name:
        raise ConfigurationError(
            f"the home folder {settings.home} holds the tables of the market {owner!r}",
            value=settings.market.name,
            fix="give each market a home of its own (the key home), or keep market.name as it was",
        )


def claim_home(settings: Settings) -> None:
    """Check the home folder and write down whose it is."""
    check_home(settings)
    settings.home.mkdir(parents=True, exist_ok=True)
    marker = settings.home / MARKER
    if not marker.exists():
        marker.write_text(settings.market.name + "\n", encoding="utf-8")
