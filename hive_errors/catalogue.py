"""The catalogue of errors, written from the classes; what docs/errors.md holds."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from dataclasses import fields

import hive_errors
from hive_errors.base import HiveError

_OPENING = """\
# Errors

Every error of the hive is a subclass of `hive_errors.HiveError`. It carries its facts as typed fields, a `code` that never changes its
meaning, `retryable` (the same call may succeed later, without a change), one sentence, and a hint. All of them pickle.
This page is written by `python -m hive_errors`.
"""


def catalogue() -> str:
    """Return the catalogue as Markdown, one section for each floor's file, in order of the codes."""
    sections = []
    for name in sorted(module.name for module in pkgutil.iter_modules(hive_errors.__path__)):
        if name in ("__main__", "base", "catalogue"):
            continue
        module = importlib.import_module(f"hive_errors.{name}")
        errors = sorted(_errors_of(module.__name__), key=lambda error: (error.code, error.__name__))
        title = inspect.cleandoc(module.__doc__ or name).splitlines()[0]
        sections.append(
            "\n".join([f"## hive_errors.{name}", "", title, "", *(line for error in errors for line in _entry(error))])
        )
    return "\n".join([_OPENING, *sections])


def _errors_of(module: str) -> Iterator[type[HiveError]]:
    for _, value in inspect.getmembers(importlib.import_module(module), inspect.isclass):
        if issubclass(value, HiveError) and value.__module__ == module:
            yield value


def _entry(error: type[HiveError]) -> Iterator[str]:
    yield f"### {error.code} `{error.__name__}`"
    yield ""
    yield inspect.cleandoc(error.__doc__ or "")
    yield ""
    if facts := [f"`{field.name}`" for field in fields(error)]:
        yield f"- facts: {', '.join(facts)}"
    yield f"- retryable: {'yes' if error.retryable else 'no'}"
    if error.hint:
        yield f"- try: {error.hint}"
    yield ""
