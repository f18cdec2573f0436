"""The world outside the hive in the chaos test: what was done, as files that outlive every process; and the seeded plans.

One file for each intent. An unsafe effect adds a line to its file, whatever it finds there. A
reconcilable one asks its world to make the file: the world knows its keys and refuses a second
one, and the refusal is kept, for whoever asked should have known.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal

from agents.workflows.workflow import Workflow

EFFECTS = ("pure", "idempotent", "reconcilable", "unsafe")
LONGEST_EFFECT = 2.0
LEASE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Act:
    """One thing that was done: under which key, by which attempt of which process, and when (UTC microseconds)."""

    key: str
    attempt: int
    worker: str
    time: int


@dataclass(frozen=True, slots=True)
class World:
    """A directory with one directory for each effect class, and the refusals."""

    directory: Path

    def prepare(self) -> None:
        """Make the directories."""
        for name in (*EFFECTS, "refused"):
            (self.directory / name).mkdir(parents=True)

    def act(self, effect: str, act: Act) -> bool:
        """Do it; False when the world knows the key already and refuses."""
        if effect == "reconcilable" and not self._make(act):
            self._add("refused", act)
            return False
        if effect != "reconcilable":
            self._add(effect, act)
        return True

    def knows(self, key: str) -> bool:
        """Whether a reconcilable effect has happened."""
        return (self.directory / "reconcilable" / key).exists()

    def acts(self, kind: str) -> list[Act]:
        """Everything that was done of a class, or refused, by key, in order."""
        found = []
        for path in sorted((self.directory / kind).iterdir()):
            for line in path.read_text().splitlines():
                attempt, worker, time = line.split()
                # A process may be stopped between looking at the clock and linking the file: the system knows when that was.
                linked = path.stat().st_ctime_ns // 1000 if kind == "reconcilable" else 0
                found.append(Act(path.name, int(attempt), worker, max(int(time), linked)))
        return found

    def twice(self, effect: str) -> list[str]:
        """The keys under which an effect happened more than once."""
        counts = Counter(act.key for act in self.acts(effect))
        return [f"{effect} effect {key} happened {count} times" for key, count in counts.items() if count > 1]

    def _make(self, act: Act) -> bool:
        # Linked into place, so that whoever finds the file finds what it says.
        draft = self.directory / f"draft-{act.key}-{act.attempt}-{os.getpid()}"
        draft.write_text(_line(act))
        try:
            os.link(draft, self.directory / "reconcilable" / act.key)
        except FileExistsError:
            return False
        finally:
            draft.unlink()
        return True

    def _add(self, kind: str, act: Act) -> None:
        with (self.directory / kind / act.key).open("ab", buffering=0) as file:
            file.write(_line(act).encode())


def _line(act: Act) -> str:
    return f"{act.attempt} {act.worker} {act.time}\n"


What = Literal["kill", "stop", "server"]
_WHAT: Sequence[What] = ("kill", "stop", "server")


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens ``after`` so many seconds since the last one: to which process, and for how long."""

    after: float
    what: What
    victim: int
    seconds: float


def faults(random: Random, *, seconds: float, workers: int, server: bool) -> list[Fault]:
    """Faults for so long: processes are killed or stood still, the server (if it may be) is killed and stays away."""
    plan: list[Fault] = []
    while sum(fault.after for fault in plan) < seconds:
        what = random.choices(_WHAT, (5, 4, 2 if server else 0))[0]
        # A process stands still for less than its lease's time, or for much longer.
        lasts = {"kill": (0.0, 1.0), "stop": (0.3, 2.5 * LEASE_SECONDS), "server": (0.0, 1.5 * LEASE_SECONDS)}[what]
        plan.append(Fault(0.3 + random.expovariate(2.0), what, random.randrange(workers), random.uniform(*lasts)))
    return plan


def workflow(random: Random, name: str) -> Workflow:
    """A run of three to eight steps of all effect classes, some of which a person is asked about first."""
    steps: list[dict[str, Any]] = []
    for number in range(random.randint(3, 8)):
        before = [step["id"] for step in steps]
        effect = EFFECTS[number] if number < len(EFFECTS) else random.choice(EFFECTS)
        step: dict[str, Any] = {
            "id": f"{effect}-{number}",
            "run": name,
            "capability": effect,
            "effect": effect,
            "needs": random.sample(before, random.randint(0, min(2, len(before)))),
        }
        if random.random() < 0.1:
            step["approval"] = "May it?"
        steps.append(step)
    steps.append({"id": "rest", "tool": "noop", "needs": [steps[-1]["id"]]})
    steps.append({"id": "command", "run": "true", "needs": ["rest"], "retries": 1, "backoff": "100ms"})
    return Workflow.model_validate({"name": name, "steps": steps})


def starts(random: Random, *, runs: int, seconds: float) -> Sequence[float]:
    """When each run is started, in seconds from the beginning, ascending."""
    return sorted(random.uniform(0.0, seconds) for _ in range(runs))
