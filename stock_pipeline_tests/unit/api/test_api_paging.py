"""Cursors: what comes back, and what is refused."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stock_pipeline.api.paging import MAX_CURSOR, cut, decode, encode
from stock_pipeline.api.problems import ProblemError

PARTS = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
)


@pytest.mark.requirement("A6")
@given(position=st.one_of(PARTS, st.lists(PARTS, max_size=3)), asked=st.dictionaries(st.text("abc"), st.integers(0, 9)))
def test_a_position_comes_back_for_its_question_alone(position, asked) -> None:
    text = encode(asked, position)
    assert decode(text, dict(reversed(asked.items())), object) == position
    with pytest.raises(ProblemError, match="other filters"):
        decode(text, {**asked, "more": 1}, object)


@pytest.mark.requirement("A6")
@given(st.one_of(st.text(max_size=60), st.binary(max_size=60).map(bytes.hex)))
def test_any_text_is_a_cursor_or_a_problem(text: str) -> None:
    with pytest.raises(ProblemError) as caught:
        decode(text, {}, int)
    assert (caught.value.status, caught.value.kind) == (400, "invalid-cursor")


@pytest.mark.parametrize("position", [2**63, "a\0b", "x" * 600, [1, [2]], {"a": 1}, "word", None, True, 1.5])
def test_what_a_database_could_not_compare_with_is_refused(position) -> None:
    with pytest.raises(ProblemError, match="damaged"):
        decode(encode({}, position), {}, int)


def test_positions_are_of_the_type_that_the_list_names() -> None:
    assert decode(encode({}, [date(2024, 1, 2), "IBM"]), {}, tuple[date, str]) == (date(2024, 1, 2), "IBM")
    with pytest.raises(ProblemError):
        decode(encode({}, ["2024-13-02", "IBM"]), {}, tuple[date, str])
    with pytest.raises(ProblemError):
        decode("A" * (MAX_CURSOR + 1), {}, int)


def test_the_last_page_has_no_cursor() -> None:
    rows = list(range(7))
    page, following = cut(rows[:4], 3, {"a": 1}, lambda row: row)
    assert page == [0, 1, 2]
    assert following is not None
    after = decode(following, {"a": 1})
    assert cut(rows[after + 1 :][:5], 4, {"a": 1}, lambda row: row) == ([3, 4, 5, 6], None)
