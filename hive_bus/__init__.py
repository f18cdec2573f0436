"""The persistent event bus: publish, subscribe, trace and replay, with or without agents.

The public door of floor 3. Names are loaded when first used, so that importing the
package costs next to nothing; the database's packages are loaded by opening one.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hive_bus.agent import Agent
    from hive_bus.blocking import EventBus, get_event_bus
    from hive_bus.brains.brain import Brain, Input
    from hive_bus.brains.host import BrainHost
    from hive_bus.bus import Bus
    from hive_bus.clock import Clock
    from hive_bus.config import Settings, load_settings, tune_process
    from hive_bus.effects import EffectClass, Failure, Intent, WorkPolicy
    from hive_bus.event import Draft, Event, RawEvent
    from hive_bus.factories import (
        AgentEventType,
        SystemEventType,
        TaskEventType,
        WorkflowEventType,
        create_agent_event,
        create_system_event,
        create_task_event,
        create_workflow_event,
    )
    from hive_bus.groups.handler import Context, HandlerGroup, Park, Retry, Skip
    from hive_bus.groups.parking import RetryPolicy
    from hive_bus.hands.hand import Hand, HandContext, hand
    from hive_bus.hands.runner import HandRunner
    from hive_bus.history import Trace, TraceNode
    from hive_bus.limit import Limit
    from hive_bus.opening import open_bus
    from hive_bus.projection import Projection, ProjectionHost, View
    from hive_bus.reading import FROM_BEGINNING, FROM_NOW
    from hive_bus.record import Record
    from hive_bus.registry.crew import Crew
    from hive_bus.registry.enrolment import Enrolment
    from hive_bus.replay.moments import Label, Moment, labels, moment_of, set_label
    from hive_bus.replay.states import keys_at, state_at
    from hive_bus.signals import Signal
    from hive_bus.underway import Underway
    from hive_bus.upcasting import upcaster

__all__ = [
    "FROM_BEGINNING",
    "FROM_NOW",
    "Agent",
    "AgentEventType",
    "Brain",
    "BrainHost",
    "Bus",
    "Clock",
    "Context",
    "Crew",
    "Draft",
    "EffectClass",
    "Enrolment",
    "Event",
    "EventBus",
    "Failure",
    "Hand",
    "HandContext",
    "HandRunner",
    "HandlerGroup",
    "Input",
    "Intent",
    "Label",
    "Limit",
    "Moment",
    "Park",
    "Projection",
    "ProjectionHost",
    "RawEvent",
    "Record",
    "Retry",
    "RetryPolicy",
    "Settings",
    "Signal",
    "Skip",
    "SystemEventType",
    "TaskEventType",
    "Trace",
    "TraceNode",
    "Underway",
    "View",
    "WorkPolicy",
    "WorkflowEventType",
    "create_agent_event",
    "create_system_event",
    "create_task_event",
    "create_workflow_event",
    "get_event_bus",
    "hand",
    "keys_at",
    "labels",
    "load_settings",
    "moment_of",
    "open_bus",
    "set_label",
    "state_at",
    "tune_process",
    "upcaster",
]

_HOMES: Final[dict[str, str]] = {
    name: module
    for module, names in {
        "agent": "Agent",
        "blocking": "EventBus get_event_bus",
        "brains.brain": "Brain Input",
        "bus": "Bus",
        "clock": "Clock",
        "config": "Settings load_settings tune_process",
        "registry.crew": "Crew",
        "effects": "EffectClass Failure Intent WorkPolicy",
        "registry.enrolment": "Enrolment",
        "event": "Draft Event RawEvent",
        "factories": (
            "AgentEventType SystemEventType TaskEventType WorkflowEventType "
            "create_agent_event create_system_event create_task_event create_workflow_event"
        ),
        "hands.hand": "Hand HandContext hand",
        "groups.handler": "Context HandlerGroup Park Retry Skip",
        "hands.runner": "HandRunner",
        "history": "Trace TraceNode",
        "brains.host": "BrainHost",
        "limit": "Limit",
        "opening": "open_bus",
        "replay.moments": "Label Moment labels moment_of set_label",
        "groups.parking": "RetryPolicy",
        "projection": "Projection ProjectionHost View",
        "record": "Record",
        "signals": "Signal",
        "replay.states": "keys_at state_at",
        "reading": "FROM_BEGINNING FROM_NOW",
        "underway": "Underway",
        "upcasting": "upcaster",
    }.items()
    for name in names.split()
}

if not TYPE_CHECKING:  # a type checker that sees `__getattr__` believes in every name

    def __getattr__(name: str) -> object:
        module = _HOMES.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{module}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
