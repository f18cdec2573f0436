"""Agents: processes of your own that follow topics and take work.

``agent = Agent("mailer")``; functions are added with ``@agent.on``, ``@agent.task`` and
``@agent.hand``. Every ``on`` function is a group of its own, so adding one does not
disturb the others. Run as many processes of an agent as you like: they share the
records and the work.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from hive_bus.bus import Bus
from hive_bus.clock import Clock
from hive_bus.effects import Failure, Intent
from hive_bus.event import Event
from hive_bus.events.task import TaskReady, TaskReturned
from hive_bus.groups.dispatch import Key
from hive_bus.groups.handler import Handler, HandlerGroup
from hive_bus.groups.member import PARTITIONS
from hive_bus.groups.parking import RetryPolicy
from hive_bus.hands.hand import FunctionHand, Hand, HandContext, Performer
from hive_bus.hands.load import Load
from hive_bus.hands.runner import HandRunner
from hive_bus.limit import Limit
from hive_bus.reading import FROM_BEGINNING, Start
from hive_bus.registry.crew import Crew
from hive_bus.registry.enrolment import Enrolment, code_digest
from hive_bus.registry.registry import HEALTH_SECONDS
from hive_bus.topics import check_pattern
from hive_errors import AgentInvalid, AgentNotLoaded

TaskFunction = Callable[[TaskReady, HandContext], Awaitable[Any] | Any]
H = TypeVar("H", bound=Handler)
T = TypeVar("T", bound=TaskFunction)
P = TypeVar("P", bound=Performer)
HealthCheck = Callable[[], Awaitable[str | None]]
C = TypeVar("C", bound=HealthCheck)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """One ``on`` function: its group is ``agent/<agent>/<name>``."""

    name: str
    patterns: tuple[str, ...]
    handler: Handler
    key: Key
    partitions: int
    start: Start
    commit: Literal["page", "each"]
    retry: RetryPolicy | None


class Agent:
    """A named set of functions that follow topics, take tasks or perform intents.

    ``version``, ``specialisation`` (what it is for, in words) and ``labels`` are told to people, in ``agent.registered``.
    """

    def __init__(
        self, name: str, *, version: str = "", specialisation: str = "", labels: dict[str, str] | None = None
    ) -> None:
        if not name or "/" in name:
            raise AgentInvalid(agent=name, part="its name", reason="it is empty or holds a '/'")
        self.name = name
        self.version = version
        self.labels = dict(labels or {})
        self.subscriptions: list[Subscription] = []
        self.hands: list[Hand] = []
        self.capabilities: list[str] = []
        self.specialisation = specialisation
        self._modules: set[str] = set()
        self._health: HealthCheck | None = None

    def on(
        self,
        *what: type[Event] | str,
        key: Key = "stream",
        start: Start = FROM_BEGINNING,
        commit: Literal["page", "each"] = "page",
        retry: RetryPolicy | None = None,
        partitions: int = PARTITIONS,
        name: str | None = None,
    ) -> Callable[[H], H]:
        """Call ``async def function(record, ctx) -> None | Retry | Skip | Park`` for records of these topics.

        ``what`` are event classes or patterns (``"order.*"``). ``key`` is what is kept in order:
        ``stream``, ``correlation``, or a function of the record. A new group begins at ``start``,
        once; ``name`` (default: the function's) names it for ever. Raises :class:`AgentInvalid`,
        :class:`InvalidTopic`.
        """
        patterns = tuple(self._pattern(item) for item in what)

        def register(function: H) -> H:
            chosen = name or function.__name__
            self._check(chosen, function, patterns)
            subscription = Subscription(
                name=chosen,
                patterns=patterns,
                handler=function,
                key=key,
                partitions=partitions,
                start=start,
                commit=commit,
                retry=retry,
            )
            self.subscriptions.append(subscription)
            self._modules.add(function.__module__)
            return function

        return register

    def task(self, *, capability: str, concurrency: int = 8) -> Callable[[T], T]:
        """Perform tasks of a capability: ``async def function(task: TaskReady, ctx) -> TaskReturned | str | dict | None``.

        A text is the task's output, a dict its data; a :class:`Failure` or an exception fails the
        attempt. At most ``concurrency`` run side by side in a process. Raises :class:`AgentInvalid`.
        """
        if not capability or " " in capability:
            raise AgentInvalid(
                agent=self.name, part=f"capability {capability!r}", reason="it is empty or holds a space"
            )
        if capability in self.capabilities:
            raise AgentInvalid(agent=self.name, part=f"capability {capability!r}", reason="another function has it")

        def register(function: T) -> T:
            self.capabilities.append(capability)
            self._modules.add(function.__module__)
            self.hands.append(
                FunctionHand(TaskReady, _task(function), queues=(f"task:{capability}",), concurrency=concurrency)
            )
            return function

        return register

    def hand(self, intent: type[Intent], *, queues: tuple[str, ...] = (), concurrency: int = 8) -> Callable[[P], P]:
        """Perform an intent: ``async def function(intent, ctx) -> result event | Failure``."""

        def register(function: P) -> P:
            self.hands.append(FunctionHand(intent, function, queues=queues, concurrency=concurrency))
            self._modules.add(function.__module__)
            return function

        return register

    def health(self, function: C) -> C:
        """Ask ``async def function() -> str | None`` now and then what is wrong with the agent; None: it is well."""
        self._health = function
        return function

    def crew(
        self, bus: Bus, *, health_seconds: float = HEALTH_SECONDS, limits: Mapping[str, Limit] | None = None
    ) -> Crew:
        """The agent as one process runs it; ``limits`` are what all processes together may use. Raises :class:`AgentInvalid` when there is nothing to do."""
        if not self.subscriptions and not self.hands:
            raise AgentInvalid(agent=self.name, part="its set of functions", reason="it is empty")
        hands = HandRunner(bus, self.hands, worker=self.name, limits=limits) if self.hands else None
        return Crew(
            bus,
            [self.enrolment(load=None if hands is None else hands.load)],
            [*self.groups(bus), *([] if hands is None else [hands])],
            beside=[] if hands is None else [Clock(bus, on_ready=hands.wake)],
            health_seconds=health_seconds,
        )

    async def run(self, bus: Bus, *, limits: Mapping[str, Limit] | None = None) -> None:
        """Follow and work until cancelled. Raises :class:`AgentInvalid` when there is nothing to do."""
        await self.crew(bus, limits=limits).run()

    def groups(self, bus: Bus) -> list[HandlerGroup]:
        """One member for each ``on`` function."""
        return [
            HandlerGroup(
                bus,
                subscription.handler,
                group=f"agent/{self.name}/{subscription.name}",
                patterns=subscription.patterns,
                key=subscription.key,
                partitions=subscription.partitions,
                start=subscription.start,
                commit=subscription.commit,
                retry=subscription.retry,
            )
            for subscription in self.subscriptions
        ]

    def enrolment(self, *, load: Callable[[], Load] | None = None) -> Enrolment:
        """What the registry says of it."""
        intents = (hand.intent.TOPIC for hand in self.hands if hand.intent is not TaskReady)
        return Enrolment(
            name=self.name,
            capabilities=(*self.capabilities, *intents),
            specialisation=self.specialisation,
            version=self.version,
            digest=code_digest(*sorted(self._modules)),
            labels=self.labels,
            concurrency=sum(hand.concurrency for hand in self.hands),
            follows=tuple(sorted({pattern for one in self.subscriptions for pattern in one.patterns})),
            load=load,
            health=self._health,
        )

    def _pattern(self, item: type[Event] | str) -> str:
        if isinstance(item, str):
            return check_pattern(item)
        if not item.TOPIC:
            raise AgentInvalid(
                agent=self.name,
                part=item.__name__,
                reason="the class has no topic: class X(Event, topic='family.word')",
            )
        return item.TOPIC

    def _check(self, name: str, function: Callable[..., Any], patterns: tuple[str, ...]) -> None:
        part = f"function {name!r}"
        if not patterns:
            raise AgentInvalid(agent=self.name, part=part, reason="it names no topic: @agent.on('order.*')")
        if not inspect.iscoroutinefunction(function):
            raise AgentInvalid(agent=self.name, part=part, reason="it is not an async function")
        if any(known.name == name for known in self.subscriptions):
            raise AgentInvalid(agent=self.name, part=part, reason="another function has that name; pass name=...")


def load(target: str) -> Agent:
    """The agent that ``MODULE:NAME`` means; modules are looked for in the current directory first.

    Raises :class:`AgentNotLoaded`, which says what is wrong.
    """
    module_name, separator, name = target.partition(":")
    if not separator or not module_name or not name:
        raise AgentNotLoaded(target=target, reason="it is not of the form MODULE:NAME")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as problem:
        missing = problem.name or ""
        if module_name == missing or module_name.startswith(missing + "."):
            raise AgentNotLoaded(target=target, reason=f"there is no module {missing!r} in {here}") from problem
        raise AgentNotLoaded(
            target=target, reason=f"{module_name} needs {missing!r}, which is not installed"
        ) from problem
    except Exception as problem:
        reason = f"importing {module_name} raised {type(problem).__name__}: {problem}"
        raise AgentNotLoaded(target=target, reason=reason) from problem
    found = getattr(module, name, None)
    if isinstance(found, Agent):
        return found
    agents = sorted(known for known, value in vars(module).items() if isinstance(value, Agent))
    there = f"; it has {', '.join(agents)}" if agents else "; it has no agent at all"
    if found is None:
        raise AgentNotLoaded(target=target, reason=f"{module_name} has no {name!r}{there}")
    raise AgentNotLoaded(target=target, reason=f"{name!r} is a {type(found).__name__}, not an Agent{there}")


def _task(function: TaskFunction) -> Performer:
    """A function that performs tasks, as a hand performs intents."""

    async def perform(task: TaskReady, ctx: HandContext) -> Event | Failure:
        outcome = function(task, ctx)
        if inspect.isawaitable(outcome):
            outcome = await outcome
        match outcome:
            case TaskReturned() | Failure():
                return outcome
            case None:
                return TaskReturned(task_id=task.task_id, try_number=task.try_number, attempts=ctx.attempt)
            case str():
                return TaskReturned(
                    task_id=task.task_id, try_number=task.try_number, output=outcome, attempts=ctx.attempt
                )
            case dict():
                return TaskReturned(
                    task_id=task.task_id, try_number=task.try_number, data=outcome, attempts=ctx.attempt
                )
        shown = type(outcome).__name__
        return Failure(reason=f"the function returned a {shown}, not TaskReturned, str, dict, Failure or None")

    return perform
