"""The terms of a branch: what goes on otherwise from where it was forked.

Owns how the words of ``workflow.forked`` add up over forks of forks, and what is blocked in a branch: whatever is
not safe to repeat may have been done in the parent. It must not know what a brain does with them. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hive_bus.effects import EffectClass
from hive_bus.events.workflow import WorkflowForked

__all__ = ["NO_BRANCH", "Terms"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """``models`` and ``prompts`` are by role, ``""`` is every role; None and empty leave what was."""

    branch: bool = False
    models: Mapping[str, str] = field(default_factory=dict)
    prompts: Mapping[str, str] = field(default_factory=dict)
    max_parallel: int | None = None
    review: bool | None = None
    approve: str | None = None
    unsafe: bool = False

    def under(self, forked: WorkflowForked) -> Terms:
        """The terms of a branch of a run with these terms: its own words come first; permission for what is unsafe is not inherited."""
        return Terms(
            branch=True,
            models={**({} if "" in forked.models else self.models), **forked.models},
            prompts={**({} if "" in forked.prompts else self.prompts), **forked.prompts},
            max_parallel=self.max_parallel if forked.max_parallel is None else forked.max_parallel,
            review=self.review if forked.review is None else forked.review,
            approve=self.approve if forked.approve is None else forked.approve,
            unsafe="unsafe" in forked.allow,
        )

    def model(self, role: str, before: str) -> str:
        """The model of a role."""
        return self.models.get(role) or self.models.get("") or before

    def prompt(self, role: str, before: str) -> str:
        """The system prompt of a role."""
        return self.prompts.get(role) or self.prompts.get("") or before

    def blocks(self, effect: EffectClass | str | None) -> bool:
        """Whether effects of this class may not happen; of a tool that says nothing the worst is thought."""
        return self.branch and not self.unsafe and EffectClass(effect or EffectClass.UNSAFE) is EffectClass.UNSAFE

    def marked(self, tools: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        """The manifests, those that are blocked marked so."""
        return tuple({**tool, "blocked": True} if self.blocks(tool.get("effect")) else tool for tool in tools)


NO_BRANCH = Terms()
