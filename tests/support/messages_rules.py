"""What the real Messages API refuses with 400, as a function of the request's body; the strict test server asks it.

Stricter than kind: what this lets pass, the API takes; the orphaned ``tool_use`` is the mistake that bricks sessions.
"""

from __future__ import annotations

import re
from typing import Any, Final

__all__ = ["complaint_about"]

_FIELDS: Final = frozenset(
    [
        "cache_control",
        "container",
        "diagnostics",
        "inference_geo",
        "max_tokens",
        "messages",
        "metadata",
        "model",
        "output_config",
        "service_tier",
        "speed",
        "stop_sequences",
        "stream",
        "system",
        "thinking",
        "tool_choice",
        "tools",
    ]
)
_TOOL_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_TOOL_USE_ID: Final = re.compile(r"[a-zA-Z0-9_-]+")


def complaint_about(body: Any) -> str | None:
    """Why the API would refuse this body, or None."""
    if not isinstance(body, dict):
        return "the body must be a JSON object"
    for name in ("model", "messages", "max_tokens"):
        if name not in body:
            return f"{name}: Field required"
    if unknown := sorted(body.keys() - _FIELDS):
        return f"{unknown[0]}: Extra inputs are not permitted"
    if not isinstance(body["max_tokens"], int) or body["max_tokens"] < 1:
        return "max_tokens: must be greater than or equal to 1"
    if not body["messages"]:
        return "messages: at least one message is required"
    return _about_tools(body.get("tools", [])) or _about_messages(body["messages"])


def _about_tools(tools: list[dict[str, Any]]) -> str | None:
    names = [tool.get("name", "") for tool in tools]
    for tool, name in zip(tools, names, strict=True):
        if not _TOOL_NAME.fullmatch(name):
            return f"tools: the name {name!r} does not match the pattern"
        if tool.get("input_schema", {}).get("type") != "object":
            return f"tools.{name}.input_schema.type: Field required"
    return "tools: Tool names must be unique." if len(set(names)) < len(names) else None


def _about_messages(messages: list[dict[str, Any]]) -> str | None:
    if messages[0].get("role") != "user":
        return "messages: first message must use the user role"
    asked: set[str] = set()
    pending: list[str] = []
    for place, message in enumerate(messages):
        blocks = _blocks(message)
        if message.get("role") not in {"user", "assistant", "system"}:
            return f"messages.{place}.role: unexpected role {message.get('role')!r}"
        if not blocks:
            return f"messages.{place}: all messages must have non-empty content"
        complaint = _about_results(place, blocks, pending)
        if complaint:
            return complaint
        pending = [block.get("id", "") for block in blocks if block.get("type") == "tool_use"]
        for block in blocks:
            if block.get("type") == "text" and not block.get("text"):
                return f"messages.{place}: text content blocks must be non-empty"
        for name in pending:
            if not _TOOL_USE_ID.fullmatch(name):
                return f"messages.{place}: tool_use.id does not match the pattern"
            if name in asked:
                return f"messages.{place}: `tool_use` ids must be unique"
            asked.add(name)
    return _orphans(len(messages) - 1, pending) if pending else None


def _about_results(place: int, blocks: list[dict[str, Any]], pending: list[str]) -> str | None:
    results = [block.get("tool_use_id", "") for block in blocks if block.get("type") == "tool_result"]
    for name in results:
        if name not in pending:
            return f"messages.{place}: unexpected `tool_use_id` found in `tool_result` blocks: {name}"
    if len(set(results)) < len(results):
        return f"messages.{place}: each tool_use must have a single result"
    if missing := [name for name in pending if name not in results]:
        return _orphans(place - 1, missing)
    if any(block.get("type") != "tool_result" for block in blocks[: len(results)]):
        return f"messages.{place}: `tool_result` blocks must come first"
    return None


def _orphans(place: int, names: list[str]) -> str:
    return f"messages.{place}: `tool_use` ids were found without `tool_result` blocks immediately after: {', '.join(names)}"


def _blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return content or []
