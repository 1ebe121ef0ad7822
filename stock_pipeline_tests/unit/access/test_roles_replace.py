"""Roles that are replaced: all of the change, or nothing of it."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from stock_pipeline.access.principal import AccessError
from stock_pipeline_tests.api_service import PASSWORD, settings_for


@pytest.mark.requirement("R8.3", "R8.4")
def test_a_refused_replacement_changes_nothing(database: Engine) -> None:
    from stock_pipeline.access.facade import Access

    settings = settings_for()
    access = Access(database, settings.access, settings.home)
    access.accounts.create("ada", password=PASSWORD, roles=("administrator",), by="test")
    with pytest.raises(AccessError) as refused:
        access.roles.replace("ada", ["viewer"], "test")
    assert refused.value.kind == "last-administrator"
    assert access.roles.of("ada") == ("administrator",)
    assert "role.assign" not in [entry.action for entry in access.audit.entries(limit=100)]
    access.accounts.create("eve", password=PASSWORD, roles=("administrator",), by="test")
    access.roles.replace("ada", ["viewer", "analyst"], "test")
    assert sorted(access.roles.of("ada")) == ["analyst", "viewer"]
