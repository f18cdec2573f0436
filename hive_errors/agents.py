"""What can go wrong on floor 4: runs and the questions they wait on."""

from __future__ import annotations

from dataclasses import dataclass

from hive_errors.base import HiveError


@dataclass(eq=False, kw_only=True)
class RunError(HiveError):
    """A run cannot be started, or what was asked of it makes no sense."""

    code = "HIVE-RUN-000"
    hint = "`hive runs` lists the runs"


@dataclass(eq=False, kw_only=True)
class RunExists(RunError):
    """A run of that id is in the log already."""

    code = "HIVE-RUN-001"
    sentence = "run {run} exists already"
    hint = "choose another id, or start it with if_exists='return' to go on with the one there is"

    run: str


@dataclass(eq=False, kw_only=True)
class RunIdInvalid(RunError):
    """A run id is 4 to 64 letters, digits, `_` or `-`, and begins with a letter or digit."""

    code = "HIVE-RUN-002"
    sentence = "run id {run!r} is refused: {reason}"
    hint = "use letters, digits, '_' and '-', or leave it out to get a random one"

    run: str
    reason: str


@dataclass(eq=False, kw_only=True)
class NothingWaits(RunError):
    """The run has no such open question."""

    code = "HIVE-RUN-003"
    sentence = "run {run} waits for no approval{task}"
    hint = "`hive trace {run}` shows what it does"

    run: str
    task: str = ""


@dataclass(eq=False, kw_only=True)
class RunEnded(RunError):
    """The run has ended; nothing of it can be stopped any more."""

    code = "HIVE-RUN-004"
    sentence = "run {run} has ended already: {status}"
    hint = "`hive retry {run}` tries its failed tasks again; `hive run` starts a new one"

    run: str
    status: str


@dataclass(eq=False, kw_only=True)
class NothingToRetry(RunError):
    """No task of the run has failed, or not the one that was named."""

    code = "HIVE-RUN-005"
    sentence = "run {run} has nothing to retry{task}"
    hint = "`hive trace {run}` shows its tasks; only failed ones can be tried again"

    run: str
    task: str = ""


@dataclass(eq=False, kw_only=True)
class ModelNotChosen(RunError):
    """A goal or a prompt step needs a model, and none is named."""

    code = "HIVE-RUN-006"
    sentence = "no model is chosen for {what}"
    hint = "pass --model claude-sonnet-5-5 (with ANTHROPIC_API_KEY) or --model scripted:answers.yaml, or set HIVE_MODEL"

    what: str


@dataclass(eq=False, kw_only=True)
class EditRefused(RunError):
    """Another body for an inherited event is refused: there is no such event in the branch, or it cannot have that body."""

    code = "HIVE-RUN-007"
    sentence = "event {event} cannot be edited: {reason}"
    hint = "`hive events --correlation RUN --json` shows the events of a run with their bodies"

    event: str
    reason: str


@dataclass(eq=False, kw_only=True)
class WhatIfRefused(RunError):
    """A what-if decides a run from its request on, on one set of terms; this is no run of that kind."""

    code = "HIVE-RUN-008"
    sentence = "run {run} cannot be decided again: {reason}"
    hint = "ask of a run that somebody started; `hive runs` lists them, `hive fork` goes on from any moment of a branch"

    run: str
    reason: str
