"""Who is asking, and how a refusal is said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from stock_pipeline.core.errors import PipelineError

PrincipalKind = Literal["token", "console", "api_key", "anonymous", "command_line", "system"]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking, with what they may do at this moment.

    Attributes
    ----------
    name
        Account name; ``anonymous`` without a log-in.
    kind
        How they came in.
    account_id
        ``None`` for those without an account.
    roles
        Roles given to the account, not those that follow by inheritance.
    permissions
        What it may do, such as ``predictions:read``; for a key no more than its scopes.
    session_id
        Session or key that can be revoked.
    second_factor
        Whether a second factor was given in this session.
    step_up
        Whether the session must prove itself again before it may do more than read.
    """

    name: str
    kind: PrincipalKind
    account_id: int | None = None
    roles: tuple[str, ...] = ()
    permissions: frozenset[str] = field(default_factory=frozenset)
    session_id: str | None = None
    second_factor: bool = False
    step_up: bool = False

    def may(self, permission: str) -> bool:
        """Whether it has a permission."""
        return permission in self.permissions


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request comes from.

    Attributes
    ----------
    address
        Address of the client.
    user_agent
        What it says it is.
    request_id
        Finds the request in the logs.
    """

    address: str = ""
    user_agent: str = ""
    request_id: str | None = None


class AccessError(PipelineError):
    """A log-in, token or action is refused.

    Parameters
    ----------
    status
        HTTP status that it means: 400, 401, 403, 404, 409, 422, 423, 429 or 503.
    kind
        Stable code of the reason, such as ``invalid-credentials``, ``token-expired``, ``forbidden``.
    what, value, allowed, fix
        See `PipelineError`.
    retry_after
        Seconds after which trying again makes sense.
    detail
        Further facts for the answer.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        what: str,
        *,
        value: Any = None,
        allowed: str | None = None,
        fix: str | None = None,
        retry_after: float | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(what, value=value, allowed=allowed, fix=fix)
        self.status, self.kind, self.retry_after, self.detail = status, kind, retry_after, dict(detail or {})
