"""What a failed attempt means: client and socket errors, status codes and headers, as facts of a ``ModelFailure``.

It owns which failures are worth another attempt, and when; it must not wait or retry itself.
"""

from __future__ import annotations

import email.utils
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import anthropic
import httpx2

from agents.models.fold import BrokenStream

__all__ = ["Fault", "fault_of", "is_retryable_kind", "retry_after"]

_RETRYABLE_KINDS: Final = frozenset({"api_error", "overloaded_error", "rate_limit_error", "timeout_error"})
_KIND_OF_STATUS: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why an attempt failed; ``retry_after`` in seconds."""

    kind: str
    reason: str
    retryable: bool
    retry_after: float | None = None
    request_id: str | None = None


def fault_of(error: Exception, *, now: float) -> Fault:
    """The facts of what the client, the socket or the fold raised; ``now`` is Unix time in seconds."""
    match error:
        case BrokenStream():
            return Fault(kind=error.kind, reason=str(error), retryable=error.retryable)
        case anthropic.APIStatusError():
            return _of_status(error, now)
        case anthropic.APITimeoutError() | httpx2.TimeoutException():
            return Fault(kind="timeout_error", reason="the server was silent for too long", retryable=True)
        case anthropic.APIConnectionError(__cause__=httpx2.UnsupportedProtocol() | httpx2.LocalProtocolError()):
            # The client's words may show a header.
            return Fault(
                kind="client_error", reason="the request cannot be sent: look at address and key", retryable=False
            )
        case anthropic.APIConnectionError():
            return Fault(
                kind="connection_error", reason=f"no connection: {_words(error.__cause__ or error)}", retryable=True
            )
        case httpx2.TransportError() | httpx2.StreamError():
            return Fault(kind="connection_error", reason=f"the connection broke: {_words(error)}", retryable=True)
        case httpx2.DecodingError():
            return Fault(kind="malformed_stream", reason=f"the reply cannot be read: {_words(error)}", retryable=True)
        case _:
            return Fault(kind="client_error", reason=_words(error), retryable=False)


def is_retryable_kind(kind: str) -> bool:
    """Whether an error of this type, sent in a stream that had begun, may pass by itself."""
    return kind in _RETRYABLE_KINDS


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Seconds to wait by ``retry-after-ms`` or else ``retry-after`` (seconds or a date); None without either."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return max(0.0, milliseconds / 1000)
    value = headers.get("retry-after")
    seconds = _number(value)
    if seconds is not None:
        return max(0.0, seconds)
    parsed = email.utils.parsedate_tz(value) if value else None
    return max(0.0, email.utils.mktime_tz(parsed) - now) if parsed else None


def _of_status(error: anthropic.APIStatusError, now: float) -> Fault:
    status, headers = error.status_code, error.response.headers
    kind = error.type or _KIND_OF_STATUS.get(status) or ("api_error" if status >= 500 else f"http_{status}")
    said = error.api_message or f"the server answered with HTTP {status}"
    code = f" ({error.error_code})" if error.error_code else ""
    return Fault(
        kind=kind,
        reason=f"HTTP {status} {kind}{code}: {said}",
        retryable=_is_retryable(status, headers.get("x-should-retry")),
        retry_after=retry_after(headers, now=now),
        request_id=error.request_id,
    )


def _is_retryable(status: int, should_retry: str | None) -> bool:
    # The server knows best: a spend limit is a 429 that no wait mends.
    if should_retry in {"true", "false"}:
        return should_retry == "true"
    return status in {408, 409, 429} or status >= 500


def _number(value: str | None) -> float | None:
    try:
        number = float(value) if value is not None else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
