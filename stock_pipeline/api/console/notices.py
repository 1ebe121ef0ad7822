"""What pages say after something was done. An address names a notice, never its text: no link puts words here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fastapi import Request

Tone = Literal["info", "good", "warn", "bad"]


@dataclass(frozen=True)
class Notice:
    """One notice above the content of a page."""

    text: str
    tone: Tone = "info"
    title: str = ""


_DONE = {
    "logged-out": Notice("You are logged out.", "good"),
    "expired": Notice("Your session has ended. Log in to go on.", "warn"),
    "account-ready": Notice("The account is ready. Log in with it.", "good"),
    "password-set": Notice("The new password is set. Log in with it.", "good"),
    "password-set-keys": Notice(
        "The new password is set, and the keys of programs are revoked. Log in and make new ones where you need them.",
        "good",
    ),
    "password-changed": Notice(
        "Your password is changed; your other sessions were ended. Keys of programs stay in force.", "good"
    ),
    "proved": Notice("Thank you: this session may change things again.", "good"),
    "session-revoked": Notice("The session is ended.", "good"),
    "sessions-revoked": Notice("All other sessions are ended.", "good"),
    "key-revoked": Notice("The key is revoked: it opens nothing any more.", "good"),
    "second-factor-on": Notice("The second factor is on: each log-in asks for a code.", "good"),
    "second-factor-off": Notice("The second factor is off.", "warn"),
    "user-created": Notice("The account is created.", "good"),
    "user-changed": Notice("The account is changed, with effect from now.", "good"),
    "user-deleted": Notice("The account is deleted.", "good"),
    "role-changed": Notice("The role is changed, with effect from now, also for those who are logged in.", "good"),
    "role-deleted": Notice("The role is deleted.", "good"),
    "promoted": Notice("The version is the champion now. The next scoring uses it.", "good"),
    "rolled-back": Notice("The version before is the champion again. The next scoring uses it.", "good"),
    "alert-resolved": Notice("The alert is marked as over.", "good"),
    "task-created": Notice("The task is in the queue. This page follows it live.", "good"),
    "task-asked": Notice("Asked for. The state below changes as soon as it has happened.", "info"),
    "task-deleted": Notice("The task and its runs are deleted.", "good"),
}


def from_address(request: Request) -> list[Notice]:
    """The notice that the address of a request names, if any."""
    found = _DONE.get(request.query_params.get("done", ""))
    return [found] if found else []
