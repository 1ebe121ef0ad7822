"""What the product bears of a slow database or client is more where tests run: here the slow one is the machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

LONG = 600.0


def be_patient(patch: pytest.MonkeyPatch) -> None:
    """Change the limits of the service in this process that a machine which stands still would meet.

    They are looked up here, so that nothing of the service is loaded where no test needs it.
    """
    from stock_pipeline.access import gate
    from stock_pipeline.api.streams import socket

    patch.setattr(gate, "_HANGS", LONG)  # a machine that stands still is not a database that does not answer
    patch.setattr(socket, "LOGIN_SECONDS", LONG)  # a first message that a busy machine brings late is not too late


@pytest.fixture(scope="module", autouse=True)
def patient_limits() -> Iterator[None]:
    """The same for each file of a folder whose ``conftest.py`` names this fixture; tests of the limits set them."""
    with pytest.MonkeyPatch.context() as patch:
        be_patient(patch)
        yield
