"""The state machine of tasks as a function, and as the documentation tells it."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from stock_pipeline.storage.tasks.states import ALLOWED, ENDED, STATES, WISHES, derive, may, refuse

PAGE = Path(__file__).resolve().parents[3] / "docs" / "concepts" / "tasks.md"
STATUSES = ("NOT_STARTED", "QUEUED", "STARTING", "STARTED", "CANCELING", "CANCELED", "SUCCESS", "FAILURE")


@pytest.mark.requirement("V2")
def test_the_documentation_states_the_same_transitions() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    table = {state: set(re.findall(r"`(\w+)`", follows)) for state, follows, _ in rows}
    assert {state: table[state] for state in STATES} == {state: set(ALLOWED[state]) for state in STATES}
    wishes = {state: set(re.findall(r"`(\w+)`", asked)) for state, _, asked in rows}
    for state in STATES:
        expected = {wish for wish, states in WISHES.items() if state in states}
        assert wishes[state] == expected | ({"delete"} if state in ENDED else set())


@pytest.mark.requirement("V2")
def test_every_status_and_wish_has_a_state_and_every_state_occurs() -> None:
    found = {
        (status, asked, again): derive(status, asked, again)
        for status, asked, again in itertools.product(STATUSES, (None, "pause", "cancel", "resume"), (False, True))
    }
    assert set(found.values()) == set(STATES)
    assert found["CANCELED", "pause", False] == "paused"
    assert found["CANCELED", None, False] == "canceled"
    assert found["FAILURE", None, True] == "retrying"
    assert found["FAILURE", "cancel", False] == "canceled", "some launchers call a stopped run failed"
    assert found["SUCCESS", "cancel", False] == "succeeded", "it was quicker"
    with pytest.raises(ValueError, match="UNHEARD"):
        derive("UNHEARD", None, False)


@pytest.mark.requirement("V2")
def test_a_refusal_says_when_it_would_be_granted() -> None:
    assert not may("resume", "running")
    assert "allowed: paused" in str(refuse("resume", "running", "t"))
    assert "allowed: canceled, succeeded, failed" in str(refuse("delete", "running", "t"))
    for wish, states in WISHES.items():
        for state in states:
            assert may(wish, state)
