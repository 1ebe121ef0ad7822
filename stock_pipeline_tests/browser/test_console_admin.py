"""Users, roles and the audit trail for administrators, and nothing of them for everybody else."""

from __future__ import annotations

import pytest

from stock_pipeline_tests.browser.visits import PASSWORD, Visits, loaded

pytestmark = [pytest.mark.slow]


@pytest.mark.requirement("A5", "R8.2", "R8.3")
def test_an_administrator_makes_an_account_and_changes_what_it_may_do(visits: Visits) -> None:
    visits.allow_refusals(401)  # the page of the account that is disabled may be about to follow events
    page = visits.page("ada", "/users")
    form = page.locator("form[action='/users'][method=post]")
    form.get_by_label("Name").fill("greta")
    form.get_by_label("Role").select_option("viewer")
    form.get_by_label("Password").fill(PASSWORD)
    form.get_by_role("button", name="Make the account").click()
    page.get_by_role("heading", name="greta", level=1).wait_for()
    greta = visits.page("greta", "/backtests")
    assert greta.get_by_role("link", name="Start a back-test").count() == 0

    page.get_by_label("analyst").check()
    page.get_by_role("button", name="Save the roles").click()
    page.get_by_text("with effect from now").wait_for()
    loaded(page)  # a script asks before something final
    greta.reload()
    greta.get_by_role("link", name="Start a back-test").wait_for()

    page.get_by_role("button", name="Disable").click()
    page.get_by_role("dialog").get_by_role("button", name="Disable").click()
    page.locator(".badge", has_text="disabled").first.wait_for()
    greta.reload()
    assert greta.url.startswith(f"{visits.address}login"), "the session is over at once"

    page.goto(f"{visits.address}users")
    form.get_by_label("Name").fill("hugo")
    form.get_by_role("button", name="Make the account").click()
    link = page.locator("#secret").inner_text()
    assert link.startswith(f"{visits.address}reset#")
    fresh = visits.page(None, None)
    fresh.goto(link)
    for label in ("Password", "Password again"):
        fresh.get_by_label(label, exact=True).fill(PASSWORD)
    fresh.get_by_role("button", name="Set the password").click()
    fresh.get_by_text("The new password is set").wait_for()
    visits.service.access.logins.log_in("hugo", PASSWORD)


@pytest.mark.requirement("R8.3", "A5")
def test_a_role_is_made_changed_and_deleted(visits: Visits) -> None:
    page = visits.page("ada", "/roles")
    page.get_by_label("Name").fill("watcher")
    page.get_by_label("Builds on").select_option("viewer")
    page.locator("input[value='audit:read']").check()
    page.get_by_role("button", name="Make the role").click()
    page.get_by_role("heading", name="watcher", level=1).wait_for()
    assert "audit:read" in visits.service.access.roles.get("watcher").permissions
    page.locator("input[value='audit:read']").uncheck()
    page.get_by_role("button", name="Save").click()
    page.get_by_text("The role is changed").wait_for()
    loaded(page)  # a script asks before something final
    assert "audit:read" not in visits.service.access.roles.get("watcher").permissions
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.get_by_text("The role is deleted").wait_for()


@pytest.mark.requirement("R8.4", "A6")
def test_the_audit_trail_is_searched_verified_and_taken_along(visits: Visits) -> None:
    page = visits.page("ada", "/audit")
    page.get_by_label("Action").fill("session.log_in")
    page.wait_for_url("**action=session.log_in*")
    actions = set(page.locator("#results tbody td.mono.break").all_inner_texts())
    assert actions == {"session.log_in"}
    page.get_by_label("Who").fill("nobody")
    page.get_by_text("No entry matches").wait_for()
    page.get_by_role("button", name="Verify").click()
    page.get_by_text("entries are as they were written").wait_for()
    with page.expect_download() as download:
        page.get_by_role("link", name="JSON Lines").click()
    assert '"session.log_in"' in download.value.path().read_text()


@pytest.mark.requirement("R8.2")
def test_a_viewer_sees_nothing_of_it(visits: Visits) -> None:
    visits.expect_refusals(*[403] * 6)
    page = visits.page("vera", "/")
    shown = page.get_by_role("navigation", name="Main").inner_text()
    assert "Predictions" in shown
    for word in ("Users", "Roles", "Audit"):
        assert word not in shown
    for path in ("users", "users/ada", "roles", "roles/viewer", "audit", "backtests/new"):
        answer = page.goto(visits.address + path)
        assert answer is not None
        assert answer.status == 403, path
        page.get_by_role("heading", name="You may not do this").wait_for()
