"""The hive: start runs, answer their questions, and host the colony that moves them.

The front door of floor 4: ``async with Hive(url, workspace=...) as hive``. Everything it
does is an append; whoever has the database can do the same from another process.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from agents.colony import Colony
from agents.forking import Otherwise, fork
from agents.hands.places import Places
from agents.model import Model
from agents.models import open_model
from agents.policy import DEFAULT_POLICY, Policy
from agents.run import ENDS, Run
from agents.tool import Tools
from agents.tools import builtin_tools
from agents.workflows.file import load_workflow
from agents.workflows.workflow import Workflow
from agents.workspaces.workspace import Workspace
from hive_bus import Brain, Bus, Draft, Event, Hand, Record, open_bus
from hive_bus.budget import Budget, HiveBudget
from hive_bus.envelope import encode_event
from hive_bus.events import (
    AgentRegistered,
    AlertRaised,
    ApprovalDenied,
    ApprovalGranted,
    ApprovalRequested,
    TaskRetryRequested,
    WorkflowCancelRequested,
    WorkflowPauseRequested,
    WorkflowRequested,
    WorkflowResumeRequested,
)
from hive_bus.hands.budgets import given_at_start
from hive_bus.limit import Limit
from hive_bus.mirror.settings import NatsSettings
from hive_bus.registry.crew import DRAIN_SECONDS
from hive_bus.registry.registry import HEALTH_SECONDS
from hive_bus.tasks import together
from hive_core_db.records import AppendRequest, Conflict, NotQuiet, WorkEnd, WorkItem
from hive_errors import ModelNotChosen, NotFound, NothingToRetry, NothingWaits, RunEnded, RunExists, RunIdInvalid

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{3,63}")
AS_BEFORE = Otherwise()
Exists = Literal["error", "return"]
Approve = Literal["ask", "all", "none"]


class Hive:
    """A hive on one database. Inside ``async with`` it hosts the colony, unless ``serve=False``.

    When the colony fails (the disk breaks, the log is damaged), the body of ``async with`` is cancelled, and
    the failure is raised: nobody waits for runs that nothing moves.

    Args:
        url: The database; see ``open_bus``. Or ``bus``, an open one, which stays the caller's.
        workspace: The directory that runs work in.
        model: The model of planner, reviewer and drones where a step names none.
        tools: What drones and ``tool`` steps may use; the built-in ones by default.
        brains, hands: A program's own, hosted beside the hive's.
        health_seconds: How often the process looks whether it is well.
        limits: What all processes together may use, by key; see docs/settings.md.
        nats: The NATS server that the live tail comes from; see ``open_bus``.
        budget: What all runs together may use in a period.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        workspace: str | Path = ".",
        model: str = "",
        tools: Tools | None = None,
        policy: Policy = DEFAULT_POLICY,
        open_model: Callable[[str], Model] = open_model,
        brains: Sequence[Brain[Any]] = (),
        hands: Sequence[Hand] = (),
        bus: Bus | None = None,
        serve: bool = True,
        health_seconds: float = HEALTH_SECONDS,
        limits: Mapping[str, Limit] | None = None,
        nats: NatsSettings | str | None = None,
        budget: HiveBudget | None = None,
    ) -> None:
        self.workspace = Path(workspace)
        self.model = model
        self.tools = tools if tools is not None else builtin_tools()
        self._url, self._bus, self.nats = url, bus, nats
        self._policy, self._open, self._brains, self._hands = policy, open_model, brains, hands
        self._serve = serve
        self._health_seconds, self._limits, self._budget = health_seconds, limits, budget
        self._host: Colony | None = None
        self._places = Places()
        self._colony: asyncio.Task[None] | None = None
        self._open_parts = AsyncExitStack()

    @property
    def bus(self) -> Bus:
        """The open bus; only inside ``async with``."""
        if self._bus is None:
            raise RuntimeError("the hive is not open: async with Hive(...) as hive")
        return self._bus

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            if self._bus is None:
                self._bus = await open_bus(self._url, source="hive", nats=self.nats)
                stack.push_async_callback(self._close_bus)
            if self._serve:
                colony = self._host = Colony(
                    self._bus,
                    tools=self.tools,
                    policy=self._policy,
                    open=self._open,
                    extra_brains=self._brains,
                    extra_hands=self._hands,
                    health_seconds=self._health_seconds,
                    limits=self._limits,
                    budget=self._budget,
                )
                tasks = await stack.enter_async_context(together())
                self._colony = tasks.create_task(colony.run(), name="colony")
            self._open_parts = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        colony, self._colony, self._host = self._colony, None, None
        if colony is not None:
            colony.cancel()
        await self._open_parts.__aexit__(kind, error, traceback)

    async def _close_bus(self) -> None:
        bus, self._bus = self._bus, None
        if bus is not None:
            await bus.close()

    async def serve(self) -> None:
        """Wait while the colony serves; returns when it was drained. Raises what it fails with."""
        if self._colony is not None:
            await asyncio.shield(self._colony)

    @property
    def serves(self) -> frozenset[str]:
        """The runs for which something is performed here at this moment."""
        return frozenset() if self._host is None else self._host.hands.load().runs

    async def drain(self, *, within: float = DRAIN_SECONDS) -> bool:
        """Start nothing new here, hand over what others can have at once, and finish what runs; whether all was done in time.

        What is left after ``within`` seconds goes back to the queue when the hive is closed.
        """
        return True if self._host is None else await self._host.drain(within=within)

    async def start(
        self,
        what: str | Path | Workflow,
        *,
        id: str | None = None,  # noqa: A002 - the word people use for it
        if_exists: Exists = "error",
        metadata: Mapping[str, Any] | None = None,
        model: str | None = None,
        approve: Approve = "ask",
        allow_dirty: bool = False,
        max_parallel: int | None = None,
        review: bool = True,
        budget: Budget | None = None,
    ) -> Run:
        """Start a run and return it at once.

        ``what`` is a workflow, a workflow file (it ends in ``.yaml`` or ``.yml``, or holds a ``/``), or a goal in
        words. ``id`` makes the start repeatable: with ``if_exists="return"`` a second start gives the first run.
        ``budget`` is what the run may use; what it says goes before what the workflow says.

        Raises :class:`WorkflowFileError`, :class:`RunExists`, :class:`RunIdInvalid`, :class:`ModelNotChosen`,
        :class:`UncommittedChanges`, :class:`NotARepository`, :class:`WorkspaceMissing`; and, where this hive serves,
        what ``check_model`` raises.
        """
        run_id = _checked_id(id) if id is not None else self.bus.ids.run_id()
        if id is not None and await self.bus.store.log.read_stream(f"{run_id}/run", limit=1):
            return self._existing(run_id, if_exists)
        workflow = self._workflow(what)
        goal = (workflow.goal or "") if workflow is not None else str(what)
        model = model or self.model
        needs_model = workflow is None or any(step.prompt is not None and not step.model for step in workflow.steps)
        if needs_model and not model:
            raise ModelNotChosen(what=f"the goal {goal!r}" if workflow is None else f"workflow {workflow.name!r}")
        if needs_model and self._serve:
            await self.check_model(model)
        body = WorkflowRequested(
            goal=goal,
            name=workflow.name if workflow is not None else "",
            definition=workflow.model_dump(mode="json") if workflow is not None else None,
            workspace=await self._prepare(run_id, workflow, allow_dirty=allow_dirty),
            model=model,
            tools=self._manifests(workflow),
            max_parallel=max_parallel or (workflow.max_parallel if workflow is not None else 8),
            approve=approve,
            review=review,
        )
        written = workflow.budget if workflow is not None and workflow.budget is not None else Budget()
        run = await self._request(run_id, body, metadata, if_exists, written.but(budget or Budget()))
        if workflow is not None:
            await self._warn_of_capabilities(run, workflow)
        return run

    async def fork(
        self,
        name: str,
        *,
        at: str | int | None = None,
        otherwise: Otherwise = AS_BEFORE,
        id: str | None = None,  # noqa: A002 - the word people use for it
        by: str = "",
    ) -> Run:
        """Make a branch of a run as it was ``at`` a moment (a position, ``@12``, a time, a label; its last event).

        Raises :class:`NotFound`, and what ``agents.forking.fork`` raises; where this hive serves, what ``check_model`` does.
        """
        parent = await self.run(name)
        branch = _checked_id(id) if id is not None else self.bus.ids.run_id()
        if self._serve:
            for model in dict.fromkeys(otherwise.models.values()):
                await self.check_model(model)
        moment = None if at is None else str(at)
        await fork(self.bus, self._places, parent.id, at=moment, otherwise=otherwise, branch=branch, by=by)
        return Run(self.bus, branch)

    async def check_model(self, name: str) -> None:
        """Open a model and close it: a wrong name, a missing key or a bad script shows before a run asks for it.

        Raises what opening it raises: :class:`UnknownModel`, :class:`ModelSettingMissing`, :class:`ScriptInvalid`, ...
        """
        model = await asyncio.to_thread(self._open, name)
        await model.aclose()

    async def run(self, name: str) -> Run:
        """The run of that id, unique prefix, or ``@`` for the last. Raises :class:`NotFound`."""
        run_id = await self.bus.resolve(name)
        if not await self.bus.store.log.read_stream(f"{run_id}/run", limit=1):
            raise NotFound(kind="run", name=name, reason="that correlation id belongs to no run")
        return Run(self.bus, run_id)

    async def cancel(self, name: str, *, reason: str = "", by: str = "") -> Run:
        """Ask a run to stop. Raises :class:`RunEnded` when it has."""
        run = await self.run(name)
        end = await run.ended()
        if end is not None:
            raise RunEnded(run=run.id, status=ENDS[end.topic])
        await self._say(run, WorkflowCancelRequested(reason=reason), by)
        return run

    async def pause(self, name: str, *, reason: str = "", by: str = "") -> Run:
        """Ask a run to start nothing new."""
        run = await self.run(name)
        await self._say(run, WorkflowPauseRequested(reason=reason), by)
        return run

    async def resume(self, name: str, *, by: str = "") -> Run:
        """Let a paused run go on."""
        run = await self.run(name)
        await self._say(run, WorkflowResumeRequested(), by)
        return run

    async def retry(self, name: str, task: str | None = None, *, reason: str = "", by: str = "") -> Run:
        """Ask for another try of a failed task, or of all failed tasks. Raises :class:`NothingToRetry`."""
        run = await self.run(name)
        failed = await run.failed_tasks()
        chosen = [one for one in failed if task in {None, one}]
        if not chosen:
            raise NothingToRetry(run=run.id, task=f": task {task!r} has not failed" if task else "")
        for one in chosen:
            await self._say(run, TaskRetryRequested(task_id=one, reason=reason), by)
        return run

    async def waiting(self, run_id: str | None = None) -> list[Record]:
        """The open questions to people, of one run or of all: ``approval.requested`` records, oldest first."""
        return [record for _, record in await self._questions(run_id)]

    async def approve(self, name: str, task: str | None = None, *, by: str = "", comment: str = "") -> Run:
        """Say yes to a run's open questions, or to one task's. Raises :class:`NothingWaits`."""
        return await self._answer(name, task, ApprovalGranted, by=by, comment=comment)

    async def deny(self, name: str, task: str | None = None, *, by: str = "", comment: str = "") -> Run:
        """Say no to a run's open questions, or to one task's. Raises :class:`NothingWaits`."""
        return await self._answer(name, task, ApprovalDenied, by=by, comment=comment)

    # Inside.

    def _workflow(self, what: str | Path | Workflow) -> Workflow | None:
        if isinstance(what, Workflow):
            return what
        if isinstance(what, Path) or is_file(what):
            return load_workflow(what, tools=[tool.spec.name for tool in self.tools])
        return None

    async def _prepare(self, run_id: str, workflow: Workflow | None, *, allow_dirty: bool) -> dict[str, Any]:
        """The workspace facts; a run with prompts fixes the commit it starts from before it is in the log."""
        workspace = Workspace.open(self.workspace)
        facts: dict[str, Any] = {"path": str(workspace.path)}
        if workflow is None or _has_prompts(workflow):
            repository = await self._places.repository(str(workspace.path))
            now = datetime.fromtimestamp(self.bus.now() / 1_000_000, UTC)
            facts["base"] = await repository.begin(run_id, when=now, allow_dirty=allow_dirty)
        return facts

    def _manifests(self, workflow: Workflow | None) -> tuple[dict[str, Any], ...]:
        """What the log must know of the tools: of all that drones may be given, else of those that steps name."""
        named = (
            None if workflow is None or _has_prompts(workflow) else tuple({s.tool for s in workflow.steps if s.tool})
        )
        definitions = self.tools.definitions(named)
        return tuple(one | {"effect": str(self.tools.get(one["name"]).spec.effect)} for one in definitions)

    async def _request(
        self, run_id: str, body: WorkflowRequested, metadata: Mapping[str, Any] | None, exists: Exists, budget: Budget
    ) -> Run:
        new = encode_event(
            body,
            stream=f"{run_id}/run",
            correlation_id=run_id,
            source=self.bus.source,
            event_id=self.bus.ids.event_id(self.bus.now()),
            metadata=metadata,
        )
        events = (new, *given_at_start(self.bus, run_id, budget))
        request = AppendRequest(
            epoch=self.bus.writer.epoch, events=events, expected={f"{run_id}/run": 0}, quiet={run_id: 0}
        )
        verdict = await self.bus.writer.append(request)
        if isinstance(verdict, NotQuiet):
            raise RunIdInvalid(run=run_id, reason="other events have that correlation id already")
        if isinstance(verdict, Conflict):
            return self._existing(run_id, exists)
        return Run(self.bus, run_id)

    async def _warn_of_capabilities(self, run: Run, workflow: Workflow) -> None:
        """Say in the run that a step will wait for an agent that nobody has seen: it may come yet, or be misspelt."""
        wanted = {step.capability: step.id for step in workflow.steps if step.capability and step.prompt is None}
        if not wanted:
            return
        for hand in self._hands:
            for queue in hand.queues:
                wanted.pop(queue.removeprefix("task:"), None)
        async for record in self.bus.read(AgentRegistered.TOPIC):
            for capability in record.data.get("capabilities", ()):
                wanted.pop(capability, None)
        for capability, step in wanted.items():
            message = f"step {step!r} waits for an agent with capability {capability!r}, and none was ever seen here"
            new = encode_event(
                AlertRaised(name="capability", message=f"{message}: `hive agent MODULE:NAME`"),
                stream=f"{run.id}/run",
                correlation_id=run.id,
                source=self.bus.source,
                event_id=self.bus.ids.event_id(self.bus.now()),
            )
            await self.bus.submit(AppendRequest(epoch=self.bus.writer.epoch, events=(new,)))

    def _existing(self, run_id: str, if_exists: Exists) -> Run:
        if if_exists == "return":
            return Run(self.bus, run_id)
        raise RunExists(run=run_id)

    async def _say(self, run: Run, event: Event, by: str) -> None:
        metadata = {"by": by} if by else None
        draft = Draft(event=event, stream=f"{run.id}/run", correlation_id=run.id, metadata=metadata)
        await self.bus.publish(draft)

    async def _questions(self, run_id: str | None) -> list[tuple[WorkItem, Record]]:
        questions = []
        for item in await self.bus.store.work.items(run_id):
            if item.topic == ApprovalRequested.TOPIC and not item.cancel_requested:
                record = await self.bus.get(item.work_id)
                if record is not None:
                    questions.append((item, record))
        return questions

    async def _answer(
        self, name: str, task: str | None, answer: type[ApprovalGranted | ApprovalDenied], *, by: str, comment: str
    ) -> Run:
        run = await self.run(name)
        answered = 0
        for item, record in await self._questions(run.id):
            question = record.event
            assert isinstance(question, ApprovalRequested), question
            if task not in {None, question.task_id, question.approval_id}:
                continue
            now = self.bus.now()
            new = encode_event(
                answer(approval_id=question.approval_id, task_id=question.task_id, by=by, comment=comment),
                stream=record.stream,
                correlation_id=run.id,
                causation_id=record.event_id,
                source=self.bus.source,
                event_id=self.bus.ids.event_id(now),
                occurred_at=now,
            )
            end = WorkEnd(work_id=item.work_id, fence=None)
            await self.bus.submit(AppendRequest(epoch=self.bus.writer.epoch, events=(new,), work=(end,)))
            answered += 1
        if not answered:
            raise NothingWaits(run=run.id, task=f" of task {task!r}" if task else "")
        return run


def is_file(what: str) -> bool:
    """Whether a word means a workflow file: it ends in ``.yaml`` or ``.yml``, or holds a ``/`` and no space."""
    return what.endswith((".yaml", ".yml")) or ("/" in what and not any(c.isspace() for c in what))


def _has_prompts(workflow: Workflow) -> bool:
    return any(step.prompt is not None for step in workflow.steps)


def _checked_id(run_id: str) -> str:
    if not _RUN_ID.fullmatch(run_id):
        raise RunIdInvalid(run=run_id, reason="it needs 4 to 64 letters, digits, '_' or '-'")
    return run_id
