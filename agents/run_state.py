"""The state of a run, as the queen holds it: frozen values, copied on write.

Owns what a run and its tasks are between two events, and the counters and lists
that let the queen find what to do next without looking at every task: which tasks
need a decision (``todo``), which wait for a free place (``queue``), how many hold
one (``active``), how many have not ended (``open``). It must not know what events mean.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from agents.terms import NO_BRANCH, Terms
from agents.workflows.references import Scope, StepView
from hive_bus.brains.brain import Input

__all__ = ["ENDED", "NOTHING", "Fold", "OpenIntent", "Phase", "Result", "Run", "RunPhase", "Task", "changed"]

Phase = Literal[
    "pending",  # something it needs has not ended
    "skip",  # to be skipped, see ``reason``
    "broken",  # to fail, see ``reason``
    "ask",  # a person must be asked before it starts
    "asking",  # a person is being asked
    "queued",  # may start as soon as there is a place
    "again",  # its next try may start; it kept its place
    "resting",  # its drone's next try waits for the backoff
    "ready",  # a hand has it, or will
    "droning",  # a drone works on it
    "overdue",  # its drone has taken too long
    "stopping",  # its drone was asked to stop
    "returned",  # the try is over: ``result``
    "doubtful",  # a person is asked whether to run again what may have run
    "rerun",  # the person said yes
    "inspect",  # the drone is done and its changes are to be read
    "inspecting",
    "judge",  # the changes are known and a reviewer is to judge them
    "judging",
    "judged",  # the verdict is there: ``verdict``
    "merging",  # approved, and being merged into the run's branch
    "merged",  # the merge returned: ``merge``
    "completed",
    "failed",
    "skipped",
    "cancelled",
]
RunPhase = Literal["new", "asked", "planning", "planned", "running", "finishing", "finished", "ended"]

ENDED: Final = frozenset({"completed", "failed", "skipped", "cancelled"})
_UNDECIDED: Final = frozenset(
    {"skip", "broken", "ask", "again", "overdue", "returned", "rerun", "inspect", "judge", "judged", "merged"}
)
_PLACED: Final = frozenset(
    {"again", "resting", "ready", "droning", "overdue", "stopping", "returned", "inspect", "inspecting"}
    | {"judge", "judging", "judged", "merging", "merged"}
)
_ELSEWHERE: Final = frozenset({"droning", "overdue", "stopping", "judging"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a try, or a step of the queen's own, ended."""

    outcome: str = "completed"
    output: str = ""
    reason: str = ""
    exit_code: int | None = None
    data: Any = None
    commit: str | None = None


NOTHING: Final = Result()


if TYPE_CHECKING:
    from dataclasses import replace as changed
else:

    def changed(value, /, **changes):
        """``dataclasses.replace`` for values without slots: it copies one table, and takes a twentieth of the time."""
        new = object.__new__(type(value))
        object.__setattr__(new, "__dict__", value.__dict__ | changes)
        return new


# Task and Run have no slots, unlike other values: they are copied several times for each event.
@dataclass(frozen=True, kw_only=True)
class Task:
    """One task of the plan. ``spec`` is its normalised workflow step.

    ``after`` are the tasks that may repair what it needs; ``waits`` counts what of both has
    not ended. ``hatched_in`` is the run in which its drone was hatched. ``tried`` is the last try that began, ``failures`` are those that failed by
    themselves, ``round`` counts reviews.
    ``base`` is the commit the current try starts from (None: the run's tip), ``commit`` what its
    drone left, ``origin`` where the first of the tries began that build on each other.
    """

    id: str
    index: int
    spec: dict[str, Any]
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    priority: int = 5
    in_integration: bool = False
    phase: Phase = "pending"
    waits: int = 0
    try_number: int = 1
    tried: int = 0
    failures: int = 0
    round: int = 1
    reason: str = ""
    comments: tuple[str, ...] = ()
    delay: float = 0.0
    base: str | None = None
    commit: str | None = None
    origin: str | None = None
    diff: str = ""
    result: Result = NOTHING
    merge: Result = NOTHING
    verdict: str = ""
    question: str = ""
    hatched_in: str = ""
    timer: str = ""
    timed_out: bool = False

    @property
    def kind(self) -> str:
        """``run``, ``prompt`` or ``tool``."""
        return "run" if self.spec.get("run") else "prompt" if self.spec.get("prompt") else "tool"

    @property
    def drone_id(self) -> str:
        """The drone of the current try."""
        return f"{self.id}.{self.try_number}"

    @property
    def built_upon(self) -> str | None:
        """The commit of an earlier try that the current one builds on."""
        return self.base if self.base != self.origin else None

    @property
    def ended(self) -> bool:
        """Whether it has ended, for now: a person may still ask for another try."""
        return self.phase in ENDED


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenIntent:
    """An intent of the queen that has not ended; ``kind`` is its family, ``run`` where it was asked.

    ``delay`` is how many seconds it waits by itself, from ``at`` on (UTC microseconds).
    """

    kind: str
    run: str
    task_id: str = ""
    what: str = ""
    asked_to_end: bool = False
    delay: float = 0.0
    at: int = 0

    def left(self, at: int) -> float:
        """How many seconds of its delay were left at a time.

        The one place where a brain compares two times: both are facts of the log, and nothing is awaited by it.
        """
        return round(max(0.0, self.delay - max(0, at - self.at) / 1_000_000), 3)


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything the queen knows of a run.

    ``views`` is what conditions and placeholders see, ``dependants`` who waits for a task,
    ``repairers`` the prompt tasks that repair one. ``busy`` counts the tasks that somebody works
    on without an intent of the queen's own. ``head`` is the tip of the run's branch.
    ``waking`` are the tasks whose drones were inherited and are to go on, with what is left of their timeouts.
    """

    id: str = ""
    phase: RunPhase = "new"
    goal: str = ""
    name: str = ""
    workspace: dict[str, Any] = field(default_factory=dict)
    model: str = ""
    tools: tuple[dict[str, Any], ...] = ()
    max_parallel: int = 8
    approve: str = "ask"
    review: bool = True
    definition: bool = False
    plan_attempt: int = 0
    plan: tuple[dict[str, Any], ...] = ()
    plan_error: str = ""
    awaits_plan: bool = False
    tasks: dict[str, Task] = field(default_factory=dict)
    views: dict[str, StepView] = field(default_factory=dict)
    dependants: dict[str, tuple[str, ...]] = field(default_factory=dict)
    repairers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    todo: tuple[str, ...] = ()
    queue: tuple[tuple[int, int, str], ...] = ()
    active: int = 0
    open: int = 0
    busy: int = 0
    intents: dict[str, OpenIntent] = field(default_factory=dict)
    answers: dict[str, bool] = field(default_factory=dict)
    retries: tuple[tuple[str, str], ...] = ()
    merging: bool = False
    drones: bool = False
    head: str | None = None
    finish: Result = NOTHING
    cancelling: bool = False
    reason: str = ""
    pause_wanted: bool = False
    over_budget: str = ""
    paused: bool = False
    terms: Terms = NO_BRANCH
    waking: dict[str, float | None] = field(default_factory=dict)

    def put(self, task: Task, **changes: Any) -> Run:
        """The run with this task, and every counter and list that depends on its phase."""
        old = self.tasks.get(task.id)
        tasks = self.tasks.copy()
        tasks[task.id] = task
        was = old.phase if old is not None else None
        now = task.phase
        if was == now:
            return changed(self, tasks=tasks, **changes)
        if was is None or was in ENDED:
            changes["open"] = self.open + (now not in ENDED)
        elif now in ENDED:
            changes["open"] = self.open - 1
        changes["active"] = self.active + (now in _PLACED) - (was in _PLACED)
        changes["busy"] = self.busy + (now in _ELSEWHERE) - (was in _ELSEWHERE)
        if was in _UNDECIDED and now not in _UNDECIDED:
            changes["todo"] = tuple(name for name in self.todo if name != task.id)
        elif now in _UNDECIDED and was not in _UNDECIDED:
            changes["todo"] = (*self.todo, task.id)
        if was == "queued":
            changes["queue"] = tuple(place for place in self.queue if place[2] != task.id)
        elif now == "queued":
            waiting = list(self.queue)
            insort(waiting, (task.priority, task.index, task.id))
            changes["queue"] = tuple(waiting)
        return changed(self, tasks=tasks, **changes)

    def opened(self, intent_id: str, intent: OpenIntent) -> Run:
        """The run with one more open intent."""
        return changed(self, intents={**self.intents, intent_id: intent})

    def closed(self, intent_id: str) -> Run:
        """The run without an intent that has ended."""
        return changed(self, intents={key: kept for key, kept in self.intents.items() if key != intent_id})

    def stale(self, intent_id: str) -> bool:
        """Whether an open intent is the parent's of this branch: what becomes of it there is not known here."""
        intent = self.intents.get(intent_id)
        return intent is not None and intent.run != self.id

    def repaired(self, task_id: str) -> bool:
        """Whether a task that failed was repaired: a prompt step whose condition names it has completed."""
        return any(self.tasks[name].phase == "completed" for name in self.repairers.get(task_id, ()))

    def ancestors(self, task: Task) -> Mapping[str, None]:
        """Everything a task needs, directly or through others, in a defined order."""
        found: dict[str, None] = {}
        waiting = list(reversed(task.needs))
        while waiting:
            need = waiting.pop()
            if need not in found:
                found[need] = None
                waiting.extend(reversed(self.tasks[need].needs))
        return found

    def descendants(self, task: Task) -> Mapping[str, None]:
        """Everything that waits for a task, directly or through others, in a defined order."""
        found: dict[str, None] = {}
        waiting = [task.id]
        while waiting:
            for name in self.dependants.get(waiting.pop(), ()):
                if name not in found:
                    found[name] = None
                    waiting.append(name)
        return found

    @property
    def scope(self) -> Scope:
        """What placeholders may name."""
        return Scope(run_id=self.id, goal=self.goal or None, name=self.name, steps=self.views)

    @property
    def in_git(self) -> bool:
        """Whether drones work in git worktrees, so that there is something to merge."""
        return bool(self.workspace.get("base"))

    @property
    def place(self) -> dict[str, Any]:
        """The workspace; of a branch with the commit at which its integration worktree begins."""
        return {**self.workspace, "tip": self.tip} if self.terms.branch and self.in_git else self.workspace

    @property
    def tip(self) -> str | None:
        """The commit that the next try starts from: the tip of the run's branch, or where the run began."""
        return self.head or self.workspace.get("base")


Fold = Callable[[Run, Any, Input], Run]
"""What an event does to a run: the run, the event's body, and its envelope."""
