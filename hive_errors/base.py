"""The base of every error: typed fields, one sentence, one hint.

An error class writes the sentence, the caller passes the facts. ``code`` and
``retryable`` are data, so a caller can branch without reading prose. Errors
pickle, because they cross process borders with the results of hands.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar


@dataclass(eq=False, kw_only=True)
class HiveError(Exception):
    """Something went wrong in the hive; the subclass says what.

    Subclasses are ``@dataclass(eq=False, kw_only=True)`` and declare their facts
    as fields. ``sentence`` and ``hint`` are format strings over these fields.
    """

    code: ClassVar[str] = "HIVE-000"
    retryable: ClassVar[bool] = False
    sentence: ClassVar[str] = "{error}"
    hint: ClassVar[str] = ""

    def __post_init__(self) -> None:
        self.args = (self.message,)

    @property
    def facts(self) -> dict[str, Any]:
        """The typed fields of this error, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def message(self) -> str:
        """One sentence that names the field, the value and the reason."""
        return self.sentence.format(**self.facts, error=type(self).__name__)

    @property
    def advice(self) -> str:
        """What to do about it, or an empty string where nothing can be said."""
        return self.hint.format(**self.facts)

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.facts)


def _rebuild(cls: type[HiveError], facts: dict[str, Any]) -> HiveError:
    return cls(**facts)
