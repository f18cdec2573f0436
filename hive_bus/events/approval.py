"""Approvals: how a brain asks a person. A decision that comes before the question is not lost."""

from __future__ import annotations

from pydantic import ConfigDict

from hive_bus.effects import Cancelled, CancelRequested, Intent, WorkPolicy
from hive_bus.event import Event
from hive_bus.events.base import Fact


class ApprovalRequested(
    Intent, topic="approval.requested", results=("approval.granted", "approval.denied", "approval.expired")
):
    """A person must decide. ``reason`` is ``step`` (the workflow says so) or ``unknown`` (an effect may have run)."""

    model_config = ConfigDict(frozen=True, extra="allow")

    approval_id: str
    task_id: str = ""
    question: str = ""
    reason: str = "step"
    expires_in: float | None = None

    def work(self) -> WorkPolicy:
        """Waits for a person."""
        return WorkPolicy(labels=("approval",), waits_for="person", total_timeout=self.expires_in)

    def due(self) -> Event:
        """Nobody decided in time."""
        return ApprovalExpired(approval_id=self.approval_id, task_id=self.task_id)


class ApprovalGranted(Fact, topic="approval.granted"):
    """A person said yes."""

    approval_id: str = ""
    task_id: str = ""
    by: str = ""
    comment: str = ""


class ApprovalDenied(Fact, topic="approval.denied"):
    """A person said no."""

    approval_id: str = ""
    task_id: str = ""
    by: str = ""
    comment: str = ""


class ApprovalExpired(Fact, topic="approval.expired"):
    """Nobody decided in time; it counts as no."""

    approval_id: str = ""
    task_id: str = ""


class ApprovalCancelled(Cancelled, topic="approval.cancelled"):
    """The question is moot."""


class ApprovalCancelRequested(CancelRequested, topic="approval.cancel_requested"):
    """The brain no longer wants the answer."""
