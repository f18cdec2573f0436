"""The chaos harness: processes of a hive, and the server under them, are killed and stood still while runs go on.

``await chaos(...)`` does all of it and returns what happened and what was wrong. What is done and
when follows from the seed; what comes of it does not, for processes are as quick as they are.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Protocol

from agents.hive import Hive
from hive_bus import Bus, Record, open_bus
from hive_bus.events import ApprovalRequested
from hive_bus.reading import FROM_BEGINNING
from hive_bus.surely import patiently
from hive_errors import NothingWaits
from tests.support.chaos_world import Fault, World, faults, starts, workflow
from tests.support.hives import differences, findings
from tests.support.patience import WITHIN
from tests.support.postgres import OwnServer
from tests.support.unmeasured import unmeasured

WORKERS = 3
ENDS = {"workflow.completed", "workflow.failed", "workflow.cancelled"}
CALM_SECONDS = 300.0
"""So long everything may take that is still to be done when the faults are over."""


TICK = 20_000
"""Microseconds by which the time of a file may be behind the clock."""


class Server(Protocol):
    """A database server of one's own."""

    def kill(self) -> None: ...
    def start(self) -> None: ...


@dataclass(slots=True)
class Report:
    """What happened, and what should not have: ``timeline`` for people, ``wrong`` is empty when all is well."""

    seed: int
    timeline: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    figures: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        figures = ", ".join(f"{value} {name}" for name, value in self.figures.items())
        return "\n".join([f"seed {self.seed}: {figures}", *self.timeline, *self.wrong])


@dataclass(slots=True)
class Worker:
    """One process of the hive, and those that came after it under the same name."""

    url: str
    name: str
    directory: Path
    process: asyncio.subprocess.Process | None = None
    stopped: bool = False

    async def start(self) -> None:
        """Start it, or the next one."""
        with (self.directory / f"{self.name}.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.support.chaos_worker"),
                *(self.url, self.name, str(self.directory / "world")),
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**unmeasured(), "PYTHONUNBUFFERED": "1"},
            )

    async def kill(self) -> None:
        """Kill -9."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)

    async def terminate(self) -> int:
        """End it in an orderly way, as soon as it serves; its exit code."""
        assert self.process is not None
        assert self.process.stdout is not None
        async with asyncio.timeout(WITHIN):
            await self.process.stdout.readline()
            self.signal(signal.SIGTERM)
            return await self.process.wait()


class Chaos:
    """One chaos: the workers, the faults, the person who starts runs and answers questions."""

    def __init__(self, url: str, directory: Path, report: Report, *, server: Server | None) -> None:
        self.url = url
        self.world = World(directory / "world")
        self.report = report
        self.workers = [Worker(url, f"worker-{number}", directory) for number in range(WORKERS)]
        self.ended: dict[str, str] = {}
        self.started: set[str] = set()
        self.doubts: dict[str, set[str]] = {}
        self._server = server
        self._server_away = asyncio.Lock()
        self._changed = asyncio.Event()
        self._begun = asyncio.get_running_loop().time()

    def say(self, what: str) -> None:
        """One line of the timeline."""
        self.report.timeline.append(f"{asyncio.get_running_loop().time() - self._begun:7.2f} s  {what}")

    # The faults.

    async def strike(self, plan: Sequence[Fault]) -> None:
        """Let the faults happen, one after the other; how long each lasts is its own affair."""
        async with asyncio.TaskGroup() as tasks:
            for fault in plan:
                await asyncio.sleep(fault.after)
                tasks.create_task(self._strike(fault))

    async def _strike(self, fault: Fault) -> None:
        if fault.what == "server":
            # It gets the time to come back: work can only be hit where work is done.
            if not self._server_away.locked():
                await self._strike_server(fault.seconds)
            return
        worker = self.workers[fault.victim]
        if worker.stopped or worker.process is None or worker.process.returncode is not None:
            return
        if fault.what == "kill":
            self.say(f"kill -9 {worker.name}, {fault.seconds:.1f} s")
            self.report.figures["kills"] += 1
            await worker.kill()
            await asyncio.sleep(fault.seconds)
            await worker.start()
        else:
            self.say(f"SIGSTOP {worker.name} for {fault.seconds:.1f} s")
            self.report.figures["stops"] += 1
            worker.stopped = True
            worker.signal(signal.SIGSTOP)
            await asyncio.sleep(fault.seconds)
            worker.signal(signal.SIGCONT)
            worker.stopped = False

    async def _strike_server(self, seconds: float) -> None:
        assert self._server is not None
        async with self._server_away:
            self.say(f"kill -9 of the server, {seconds:.1f} s")
            self.report.figures["server kills"] += 1
            await asyncio.to_thread(self._server.kill)
            await asyncio.sleep(seconds)
            await asyncio.to_thread(self._server.start)
            self.say("the server is back")

    # The person.

    async def start_runs(self, hive: Hive, random: Random, when: Sequence[float]) -> None:
        """Start each run at its time, however often that has to be tried."""
        loop = asyncio.get_running_loop()
        for number, seconds in enumerate(when):
            await asyncio.sleep(max(0.0, self._begun + seconds - loop.time()))
            run, work = f"run-{number:03}", workflow(random, f"run-{number:03}")

            async def start(run: str = run, work: object = work) -> None:
                await hive.start(work, id=run, if_exists="return")  # type: ignore[arg-type]

            await patiently(start)
            self.started.add(run)

    async def watch(self, hive: Hive) -> None:
        """Follow the log: note who ended, grant what steps ask for; what is in doubt is left for later."""
        async with hive.bus.subscribe("workflow.*", "approval.*", start=FROM_BEGINNING) as records:
            async for record in records:
                self._note(record)
                if isinstance(question := self._question(record), ApprovalRequested) and question.reason == "step":
                    await self._grant(hive, record.correlation_id, question.task_id)
                self._changed.set()

    def _note(self, record: Record) -> None:
        if record.topic in ENDS:
            self.ended[record.correlation_id] = record.topic
        elif record.topic.startswith("approval.") and "unknown" in str(record.data.get("approval_id")):
            waiting = self.doubts.setdefault(record.correlation_id, set())
            if record.topic == "approval.requested":
                waiting.add(str(record.data["task_id"]))
            else:
                waiting.discard(str(record.data["task_id"]))

    @staticmethod
    def _question(record: Record) -> object:
        return record.event if record.topic == "approval.requested" else None

    async def _grant(self, hive: Hive, run: str, task: str, *, grant: bool = True) -> None:
        async def answer() -> None:
            try:
                await (hive.approve if grant else hive.deny)(run, task, by="somebody")
            except NothingWaits:
                return  # answered before, in an append whose reply was lost, or the run ended meanwhile

        await patiently(answer)

    async def settled(self) -> None:
        """Return when every run has ended or waits for an answer to what is in doubt."""

        def open_runs() -> list[str]:
            return [run for run in self.started if run not in self.ended and not self.doubts.get(run)]

        try:
            async with asyncio.timeout(CALM_SECONDS):
                while open_runs():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            self.report.wrong.append(f"neither ended nor waiting for anybody: {sorted(open_runs())}")

    async def resolve(self, hive: Hive, random: Random) -> None:
        """Whoever is in doubt waits, visibly, on a question; it is answered, and everything ends."""
        while in_doubt := {run: tasks for run, tasks in self.doubts.items() if tasks and run not in self.ended}:
            questions = [one for one in await hive.waiting() if one.data["reason"] == "unknown"]
            visible = {(one.correlation_id, str(one.data["task_id"])) for one in questions}
            for run, tasks in sorted(in_doubt.items()):
                for task in sorted(tasks):
                    if (run, task) not in visible:
                        self.report.wrong.append(f"{run} is in doubt about {task}, and nobody is asked")
                        return
                    self.report.figures["doubts"] += 1
                    await self._grant(hive, run, task, grant=random.random() < 0.5)
                    # Whoever watches may hear of the answer after the next look at what is in doubt.
                    tasks.discard(task)
            await self.settled()
            if self.report.wrong:
                return

    # Afterwards.

    async def judge(self, bus: Bus) -> None:
        """What must hold in the end: everything ended, nothing dangerous was done twice, one late result per attempt."""
        wrong = self.report.wrong
        wrong += [f"{run} did not end" for run in sorted(self.started - self.ended.keys())]
        wrong += self.world.twice("unsafe") + self.world.twice("reconcilable")
        records = [record async for record in bus.read("task.*", "workflow.*")]
        wrong += _too_late(records) + _unasked(records) + self._refused(records)
        for run in sorted(self.started):
            positions = await differences(bus, run)
            wrong += [f"{run} was decided otherwise at {position}" for position in positions]
            if positions or run not in self.ended:
                await self._keep(bus, run)
        figures = self.report.figures
        figures["runs"], figures["events"] = len(self.started), await bus.head()
        for topic, count in Counter(self.ended.values()).items():
            figures[topic] += count
        figures["attempts lost"] = sum(record.topic == "task.attempt_failed" for record in records)
        figures["superseded"] = sum(record.topic == "task.superseded" for record in records)

    async def _keep(self, bus: Bus, run: str) -> None:
        """Keep the history of a run that went wrong: the database goes with its server."""
        lines = [
            f"{r.position} v{r.version} {r.topic} by {r.decided_by or r.source} cause {r.cause_position} {r.causation_id} {r.event_id} {r.payload}\n"
            for r in await bus.history(run)
        ]
        await asyncio.to_thread((self.world.directory.parent / f"{run}.history").write_text, "".join(lines))

    def _refused(self, records: Sequence[Record]) -> list[str]:
        """Reconcilable effects that were asked for again although the world could have been asked about them before."""
        done = {act.key: act for act in self.world.acts("reconcilable")}
        claimed = {
            (record.causation_id, record.data["attempt"]): record.recorded_at
            for record in records
            if record.topic == "task.assigned"
        }
        found = []
        for act in self.world.acts("refused"):
            self.report.figures["refused by the world"] += 1
            first = done[act.key]
            # Whoever asked while the other's attempt was still under way could not know.
            if first.attempt < act.attempt and first.time + TICK < claimed[act.key, act.attempt]:
                found.append(f"reconcilable effect {act.key} was tried again by attempt {act.attempt}, not asked about")
        return found


def _too_late(records: Sequence[Record]) -> list[str]:
    """Late results are kept, at most one for each attempt."""
    late = Counter((r.causation_id, r.data["attempt"]) for r in records if r.topic == "task.superseded")
    return [
        f"attempt {attempt} of {key} was superseded {count} times"
        for (key, attempt), count in late.items()
        if count > 1
    ]


def _unasked(records: Sequence[Record]) -> list[str]:
    """An unsafe effect that was cut off is never claimed again."""
    unsafe = {r.event_id for r in records if r.topic == "task.ready" and r.data.get("effect") == "unsafe"}
    claims = Counter(r.causation_id for r in records if r.topic == "task.assigned" and r.causation_id in unsafe)
    return [f"unsafe effect {key} was claimed {count} times" for key, count in claims.items() if count > 1]


@asynccontextmanager
async def _workers(run: Chaos) -> AsyncIterator[None]:
    """All workers; when the block is left they end in an orderly way, or something is wrong."""
    try:
        for worker in run.workers:
            await worker.start()
        yield
        for worker in run.workers:
            code = await worker.terminate()
            if code != 0:
                run.report.wrong.append(f"{worker.name} ended with {code}: see {worker.name}.log")
    finally:
        for worker in run.workers:
            await worker.kill()


async def chaos(
    url: str, directory: Path, *, seed: int, runs: int, seconds: float, server: Server | None = None
) -> Report:
    """``runs`` runs on three processes while faults happen for so many seconds, then calm, answers, and the judgement."""
    report = Report(seed)
    run = Chaos(url, directory, report, server=server)
    run.world.prepare()
    random = Random(seed)
    plan = faults(random, seconds=seconds, workers=WORKERS, server=server is not None)
    when = starts(random, runs=runs, seconds=seconds)
    async with open_bus(url, source="person") as bus, Hive(bus=bus, workspace=directory, serve=False) as hive:
        async with _workers(run), asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(run.watch(hive))
            starting = tasks.create_task(run.start_runs(hive, random, when))
            await run.strike(plan)
            await starting
            run.say("the faults are over")
            await run.settled()
            run.say(f"settled: {len(run.ended)} of {len(run.started)} runs have ended")
            await run.resolve(hive, Random(seed + 1))
            run.say("everything is answered")
            watching.cancel()
        await run.judge(bus)
    report.wrong += await asyncio.to_thread(findings, url)
    return report


def main() -> None:
    """``python -m tests.support.chaos sqlite|16|18 SEED RUNS SECONDS DIRECTORY``: the same by hand; logs and world are kept."""
    kind, (seed, runs), seconds, directory = sys.argv[1], map(int, sys.argv[2:4]), float(sys.argv[4]), Path(sys.argv[5])
    directory.mkdir(parents=True)
    if kind == "sqlite":
        report = asyncio.run(chaos(f"sqlite:///{directory}/hive.db", directory, seed=seed, runs=runs, seconds=seconds))
    else:
        with OwnServer(int(kind)) as server:
            report = asyncio.run(chaos(server.url(), directory, seed=seed, runs=runs, seconds=seconds, server=server))
    sys.stdout.write(f"{report}\n")
    sys.exit(bool(report.wrong))


if __name__ == "__main__":
    main()
