"""Passwords: what is refused and why, and how they are hashed."""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Callable

import pytest
from argon2.exceptions import HashingError, VerificationError
from hypothesis import given
from hypothesis import strategies as st

from stock_pipeline.access import passwords as module
from stock_pipeline.access.passwords import Passwords
from stock_pipeline.access.principal import AccessError
from stock_pipeline.config.access import PasswordSettings
from stock_pipeline_tests.accounts import PASSWORD, refusal

pytestmark = pytest.mark.requirement("R8.1")

CHEAP = PasswordSettings(memory_kib=8, passes=1, lanes=1)
SHORT = PasswordSettings(memory_kib=8, passes=1, lanes=1, min_length=8)


@pytest.mark.parametrize(
    ("password", "rule"),
    [
        ("", "too-short"),
        ("elevenchars", "too-short"),
        ("ﬁﬁﬁ", "too-short"),  # six letters once ligatures are resolved
        ("x y" * 100, "too-long"),
        ("blue tunnel\x00 horse", "control-characters"),
        ("blue tunnel\ud800 horse", "control-characters"),
        ("aaaaaaaaaaaaaaaa", "too-simple"),
        ("abababababababab", "too-simple"),
        ("abcdefghijklmnop", "too-simple"),
        ("ZYXWVUTSRQPONM", "too-simple"),
        ("123456789012345", "too-simple"),
        ("qwertyuiopasdf", "too-simple"),
        ("margaret-12345", "contains-name"),
        ("12345!teragram", "contains-name"),
        ("MARGARET rides", "contains-name"),
        ("passwordpassword", "common"),
        ("Password123456!", "common"),
        ("p@ssw0rd!!!!!!", "common"),
        ("123iloveyou12345", "common"),
        ("basketball2024", "common"),
    ],
)
def test_a_weak_password_is_refused_with_the_rule_that_it_breaks(password: str, rule: str) -> None:
    error = refusal(Passwords(CHEAP).check, password, "margaret")
    assert (error.status, error.kind, error.detail) == (422, "weak-password", {"rule": rule})
    assert not password or password not in str(error)
    assert error.value is None


@pytest.mark.parametrize("password", [PASSWORD, "Zq7$kW9!xPl2", "пять серых цапель", "五只灰鹭站在水边的石头上吗是的"])
def test_a_good_password_passes(password: str) -> None:
    Passwords(CHEAP).check(password, "margaret")


def test_a_short_name_forbids_no_words_that_hold_it() -> None:
    Passwords(CHEAP).check("hannover tunnel blue", "ann")
    assert refusal(Passwords(SHORT).check, "ann12345!", "ann").detail == {"rule": "contains-name"}


def test_the_part_before_the_at_sign_counts_as_the_name() -> None:
    error = refusal(Passwords(CHEAP).check, "margaret 2000!", "margaret@example.org")
    assert error.detail == {"rule": "contains-name"}


def test_every_entry_of_the_list_is_refused_whatever_its_case() -> None:
    known = sorted(entry for entry in module._common() if len(entry) >= 8)
    assert len(known) > 5000
    judge = Passwords(SHORT)
    for entry in known[::25]:
        for form in (entry, entry.upper(), entry + "1" if entry[-1].isalpha() else entry):
            assert refusal(judge.check, form, "nobody-here").kind == "weak-password", form


def test_the_hash_is_argon2id_with_the_configured_cost_and_a_salt() -> None:
    judge = Passwords(PasswordSettings(memory_kib=64, passes=2, lanes=2))
    first, second = judge.hash(PASSWORD), judge.hash(PASSWORD)
    assert first.startswith("$argon2id$v=19$m=64,t=2,p=2$")
    assert first != second
    assert judge.verify(PASSWORD, first) == (True, None)
    assert judge.verify(PASSWORD + "x", first) == (False, None)


def test_a_hash_of_another_cost_is_renewed_when_it_is_verified() -> None:
    old = Passwords(CHEAP).hash(PASSWORD)
    right, renewed = Passwords(PasswordSettings(memory_kib=64, passes=2, lanes=1)).verify(PASSWORD, old)
    assert right
    assert renewed is not None
    assert "m=64,t=2,p=1" in renewed
    wrong = Passwords(PasswordSettings(memory_kib=64, passes=2, lanes=1)).verify("not it", old)
    assert wrong == (False, None)


def test_a_password_that_cannot_be_verified_is_not_called_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = Passwords(CHEAP)
    stored = judge.hash(PASSWORD)

    def lacking(*_: object) -> bool:
        raise VerificationError("Memory allocation error")

    monkeypatch.setattr("argon2._password_hasher.verify_secret", lacking)
    with pytest.raises(AccessError, match="Memory allocation error") as refused:
        judge.verify(PASSWORD, stored)
    assert (refused.value.status, refused.value.kind, refused.value.retry_after) == (503, "password-unverified", 5.0)


@pytest.mark.parametrize("ask", [lambda judge: judge.hash(PASSWORD), lambda judge: judge.verify(PASSWORD, None)])
def test_nor_is_a_hash_that_cannot_be_made_a_fault(
    monkeypatch: pytest.MonkeyPatch, ask: Callable[[Passwords], object]
) -> None:
    def lacking(*_: object, **__: object) -> bytes:
        raise HashingError("Memory allocation error")

    monkeypatch.setattr("argon2._password_hasher.hash_secret", lacking)
    with pytest.raises(AccessError, match="Memory allocation error") as refused:
        ask(Passwords(CHEAP))
    assert refused.value.kind == "password-unverified"


def test_a_damaged_hash_is_the_hash_of_no_password() -> None:
    judge = Passwords(CHEAP)
    for damaged in (
        (stored := judge.hash(PASSWORD))[:-3],
        stored.replace("m=", "m=x"),
        stored.replace("t=1", "t=0"),
        "$argon2id$nothing",
        "nothing",
    ):
        assert judge.verify(PASSWORD, damaged) == (False, None)


def test_without_a_stored_hash_the_same_work_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = Passwords(CHEAP)
    judge.verify("x", None)  # makes the hash of nobody
    costs = []
    verify = judge._hasher.verify_and_update
    monkeypatch.setattr(
        judge._hasher,
        "verify_and_update",
        lambda text, stored: costs.append(stored.split("$")[:4]) or verify(text, stored),
    )
    stored = judge.hash(PASSWORD)
    assert judge.verify("wrong", stored) == (False, None)
    assert judge.verify("wrong", None) == (False, None)
    assert judge.verify("the password of nobody", None) == (False, None)
    assert judge.verify("x" * 100_000, stored) == (False, None)
    assert len(costs) == 4
    assert all(cost == costs[0] for cost in costs)


def test_hashing_takes_the_memory_of_a_few_hashes_however_many_log_in(monkeypatch: pytest.MonkeyPatch) -> None:
    judge, at_once, most, lock, release = Passwords(CHEAP), 0, 0, threading.Lock(), threading.Event()

    def slow(_text: bytes) -> str:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        release.wait(0.02)
        with lock:
            at_once -= 1
        return "hash"

    monkeypatch.setattr(judge._hasher, "hash", slow)
    threads = [threading.Thread(target=judge.hash, args=(PASSWORD,)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most <= 4


@given(st.text(min_size=12, max_size=60))
def test_texts_that_look_the_same_are_the_same_password(text: str) -> None:
    judge = Passwords(CHEAP)
    stored = judge.hash(unicodedata.normalize("NFD", text))
    assert judge.verify(unicodedata.normalize("NFC", text), stored)[0]
