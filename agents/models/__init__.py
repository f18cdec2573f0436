"""The implementations of the model port, one file each, and the door that opens one by name.

This module owns what a model's name means; it imports an implementation only when it is asked for.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from agents.model import Model
from hive_errors import ModelNotInstalled, ModelSettingInvalid, ModelSettingMissing, UnknownModel

__all__ = ["DEFAULT_TIMEOUT", "open_model"]

DEFAULT_TIMEOUT: Final = 600.0
"""Seconds that a model may stay silent before the attempt counts as failed."""

_SUGGESTED: Final = (
    "scripted",
    "claude-sonnet-5-5",
    "claude-opus-5-5",
    "claude-haiku-5-5",
    "anthropic:claude-sonnet-5-5",
)


def open_model(
    name: str,
    *,
    script: Path | None = None,
    environ: Mapping[str, str] | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> Model:
    """Open a model by its name; the implementation is imported only now.

    That import takes a second for Claude's client: on a running loop, call this in a thread.

    Args:
        name: ``scripted`` (with ``script``), ``scripted:FILE``, ``claude-...`` or ``anthropic:NAME``.
        script: The file of answers for ``scripted``.
        environ: Where ``ANTHROPIC_API_KEY`` and ``ANTHROPIC_BASE_URL`` are looked up; the process's by default.
        timeout: Seconds that the model may stay silent.

    Raises:
        UnknownModel: No implementation knows the name.
        ModelSettingMissing: A key or a script file is missing.
        ModelSettingInvalid: The key or the server's address cannot be right.
        ModelNotInstalled: The provider's client is not installed.
        ScriptInvalid: The script cannot be read.
    """
    kind, _, rest = name.partition(":")
    if kind == "scripted":
        return _open_scripted(name, Path(rest) if rest else script)
    if kind == "anthropic" and rest:
        return _open_anthropic(name, os.environ if environ is None else environ, timeout)
    if name.startswith("claude-"):
        return _open_anthropic(name, os.environ if environ is None else environ, timeout)
    close = difflib.get_close_matches(name, _SUGGESTED, n=1)
    raise UnknownModel(name=name, suggestion=f"did you mean {close[0]!r}? otherwise " if close else "")


def _open_scripted(name: str, script: Path | None) -> Model:
    if script is None:
        raise ModelSettingMissing(
            name=name, setting="a script file", remedy="name the file of answers: scripted:answers.yaml"
        )
    from agents.models.scripted import ScriptedModel, load_script

    return ScriptedModel(load_script(script))


def _open_anthropic(name: str, environ: Mapping[str, str], timeout: float) -> Model:
    key = environ.get("ANTHROPIC_API_KEY", "").strip()
    if not key:
        raise ModelSettingMissing(
            name=name,
            setting="ANTHROPIC_API_KEY",
            remedy="export ANTHROPIC_API_KEY=... (any value will do for a local server at ANTHROPIC_BASE_URL)",
        )
    # What cannot stand in a header would be refused with a message that shows it.
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ModelSettingInvalid(name=name, setting="ANTHROPIC_API_KEY", reason="has characters that no key has")
    base_url = environ.get("ANTHROPIC_BASE_URL", "").strip() or None
    if base_url is not None and not base_url.startswith(("http://", "https://")):
        raise ModelSettingInvalid(name=name, setting="ANTHROPIC_BASE_URL", reason="must begin with http:// or https://")
    try:
        from agents.models.anthropic import AnthropicModel
    except ModuleNotFoundError as error:
        raise ModelNotInstalled(name=name, package=str(error.name), extra="claude") from error
    model = name.removeprefix("anthropic:")
    return AnthropicModel(api_key=key, model=model, base_url=base_url, timeout=timeout)
