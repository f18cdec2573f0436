"""The spans of a run while it is folded, by what names them: the event that began one, a task, a try, a review."""

from __future__ import annotations

from dashboard.views.open_span import Open
from hive_bus import Record


class OpenSpans:
    """The run's span and all those in it; finds the one that an event is about, or opens it."""

    def __init__(self) -> None:
        self.root: Open | None = None
        self.owner: dict[str, Open] = {}
        self.tasks: dict[str, Open] = {}
        self.tries: dict[tuple[str, int], Open] = {}
        self.reviews: dict[str, Open] = {}
        self.plan: Open | None = None

    def near(self, record: Record) -> Open:
        """The span of its drone, its task or its cause, else the run's."""
        assert self.root is not None
        drone = record.stream.removeprefix(f"{record.correlation_id}/drone/")
        if drone != record.stream:
            task, _, number = drone.rpartition(".")
            if number.isdigit():
                return self.attempt(task, int(number), record)
        data = record.data if isinstance(record.data, dict) else {}
        task_id = data.get("task_id")
        if isinstance(task_id, str) and task_id in self.tasks:
            return self.tasks[task_id]
        cause = self.owner.get(record.causation_id or "")
        return cause if cause is not None and cause.kind in ("event", "effect") else self.root

    def task(self, task_id: str, record: Record) -> Open:
        task = self.tasks.get(task_id)
        if task is None:
            task = self.tasks[task_id] = Open("task", task_id, record, self.root, task_id=task_id)
            task.status = "pending"
        return task

    def attempt(self, task_id: str, number: int, record: Record) -> Open:
        made = self.tries.get((task_id, number))
        if made is None:
            parent = self.task(task_id, record)
            made = Open("try", f"try {number}", record, parent, task_id=task_id, try_number=number)
            self.tries[task_id, number] = made
        return made
