"""What can go wrong on floor 3: events, publishing, subscriptions, brains and hands."""

from __future__ import annotations

from dataclasses import dataclass

from hive_errors.base import HiveError


@dataclass(eq=False, kw_only=True)
class BusError(HiveError):
    """The bus refused or failed."""

    code = "HIVE-BUS-000"
    hint = "run `hive doctor`"


@dataclass(eq=False, kw_only=True)
class InvalidTopic(BusError):
    """A topic or pattern is not of the form `name.name`, lower case, at most 128 characters."""

    code = "HIVE-BUS-001"
    sentence = "topic {topic!r} is refused: {reason}"
    hint = "write it like 'order.placed'; patterns may use '*' for one part and a last '>' for the rest"

    topic: str
    reason: str


@dataclass(eq=False, kw_only=True)
class TopicTaken(BusError):
    """Two event classes claim one topic."""

    code = "HIVE-BUS-002"
    sentence = "topic {topic!r} belongs to {owner}, {claimant} cannot claim it too"
    hint = "choose another topic, or give the one class a second version"

    topic: str
    owner: str
    claimant: str


@dataclass(eq=False, kw_only=True)
class PayloadRefused(BusError):
    """A value cannot be kept exactly as JSON: NaN, infinity, NUL, a lone surrogate, an integer beyond 64 bits."""

    code = "HIVE-BUS-003"
    sentence = "{topic}: field {field} = {value} is refused: {reason}"
    hint = "send what JSON can hold exactly; large integers and exotic floats as text"

    topic: str
    field: str
    value: str
    reason: str


@dataclass(eq=False, kw_only=True)
class UndecodableEvent(BusError):
    """A stored payload does not fit its event class."""

    code = "HIVE-BUS-004"
    sentence = "{topic} version {version} cannot be decoded: {reason}"
    hint = "add an upcaster for that version, or mend the event class; `hive parked` shows the keys that wait for it"

    topic: str
    version: int
    reason: str


@dataclass(eq=False, kw_only=True)
class NewerVersion(BusError):
    """The event, or the brain that decided it, is newer than this process's code."""

    code = "HIVE-BUS-005"
    sentence = "{what} has version {stored}, this process knows {known}"
    hint = "update this process; until then another member of the group goes on with the partition"

    what: str
    stored: int
    known: int


@dataclass(eq=False, kw_only=True)
class UpcasterMissing(BusError):
    """An old version of an event has no upcaster to the next."""

    code = "HIVE-BUS-006"
    sentence = "{topic} has no upcaster from version {version}"
    hint = "register one: @upcaster({topic!r}, from_version={version})"

    topic: str
    version: int


@dataclass(eq=False, kw_only=True)
class UnregisteredTopic(BusError):
    """No event class is registered for a topic that somebody wants to make an event of."""

    code = "HIVE-BUS-007"
    sentence = "no event class is registered for topic {topic!r}{suggestion}"
    hint = "import the module that defines it, or define class X(Event, topic={topic!r})"

    topic: str
    suggestion: str = ""


@dataclass(eq=False, kw_only=True)
class MetadataTooLarge(BusError):
    """Metadata is for small facts about an event; over 8 KiB it is refused."""

    code = "HIVE-BUS-008"
    sentence = "metadata of {topic} has {size} bytes, the limit is {limit}"
    hint = "move what is large into the event's body"

    topic: str
    size: int
    limit: int


@dataclass(eq=False, kw_only=True)
class GuardedTopic(BusError):
    """Results and a run's states are appended by the queue and the brains, never published into a live run."""

    code = "HIVE-BUS-009"
    sentence = "{topic} cannot be published into run {run}: only {owner} appends it there"
    hint = "use {instead}"

    topic: str
    run: str
    owner: str
    instead: str


@dataclass(eq=False, kw_only=True)
class BlockingCall(BusError):
    """The blocking bus was called on a running event loop."""

    code = "HIVE-BUS-010"
    sentence = "{method} blocks, and this thread runs an event loop"
    hint = "await {instead} there, or use the async bus: `async with open_bus(url) as bus`"

    method: str
    instead: str


@dataclass(eq=False, kw_only=True)
class BusClosed(BusError):
    """The bus is closed, or its handler has returned."""

    code = "HIVE-BUS-011"
    sentence = "{what}: {reason}"
    hint = "publish while the bus is open and inside the handler; `apart=True` appends on its own"

    what: str
    reason: str


@dataclass(eq=False, kw_only=True)
class FieldMissing(BusError):
    """A field that the event cannot do without is missing or of the wrong kind."""

    code = "HIVE-BUS-012"
    sentence = "{topic}: field {field} = {value}: {reason}"
    hint = "pass {field}=... of the right kind"

    topic: str
    field: str
    value: str
    reason: str


@dataclass(eq=False, kw_only=True)
class ImpureBrain(BusError):
    """A brain touched the clock, randomness, files or the network, or changed with the order of a set."""

    code = "HIVE-BUS-013"
    sentence = "brain {brain} called {function}: brains are pure"
    hint = "let an intent ask for it and a hand do it; the brain's only time is occurred_at"

    brain: str
    function: str


@dataclass(eq=False, kw_only=True)
class NotFound(BusError):
    """Nothing in the log goes by that name."""

    code = "HIVE-BUS-014"
    sentence = "no {kind} {name!r}: {reason}"
    hint = "`hive runs` lists the runs; four letters of an id are enough"

    kind: str
    name: str
    reason: str

    @property
    def advice(self) -> str:
        """Events and files are found elsewhere than runs."""
        if self.kind.startswith("event"):
            return "`hive events --correlation RUN` shows positions, with --json ids; --run RUN names another run than the last"
        return super().advice


@dataclass(eq=False, kw_only=True)
class TimedOut(BusError):
    """Something was waited for and did not come in time."""

    code = "HIVE-BUS-015"
    retryable = True
    sentence = "{what} did not happen within {seconds} s"
    hint = "look at `hive parked` and `hive trace @`, or wait longer"

    what: str
    seconds: float


@dataclass(eq=False, kw_only=True)
class GroupTaken(BusError):
    """A bus is one member of a group; it cannot be a second one at the same time."""

    code = "HIVE-BUS-017"
    sentence = "this bus is a member of group {group!r} already"
    hint = "open another bus for a second member, or give the other subscription a name of its own"

    group: str


@dataclass(eq=False, kw_only=True)
class SettingInvalid(BusError):
    """A setting has a value that it cannot have."""

    code = "HIVE-BUS-016"
    sentence = "setting {key} = {value} from {origin} is invalid: {reason}"
    hint = "mend it there; docs/settings.md lists every key with its values"

    key: str
    value: str
    origin: str
    reason: str


@dataclass(eq=False, kw_only=True)
class AgentInvalid(BusError):
    """An agent, or one of its functions, is not put together as it must be."""

    code = "HIVE-BUS-018"
    sentence = "agent {agent!r}: {part} is refused: {reason}"
    hint = "see docs/agents.md for what an agent's functions take and return"

    agent: str
    part: str
    reason: str


@dataclass(eq=False, kw_only=True)
class AgentNotLoaded(BusError):
    """`MODULE:NAME` does not lead to an agent."""

    code = "HIVE-BUS-019"
    sentence = "cannot load agent {target!r}: {reason}"
    hint = (
        "write MODULE:NAME, e.g. `shop.agents:mailer` for `mailer = Agent(...)` in shop/agents.py below this directory"
    )

    target: str
    reason: str


@dataclass(eq=False, kw_only=True)
class MomentInvalid(BusError):
    """What was written for a moment of the log means none."""

    code = "HIVE-BUS-020"
    sentence = "{field} = {value}: {reason}"
    hint = "{remedy}"

    field: str
    value: str
    reason: str
    remedy: str


@dataclass(eq=False, kw_only=True)
class HistoryUnusable(BusError):
    """A history file cannot be written or read, or what it holds cannot be imported here."""

    code = "HIVE-BUS-021"
    sentence = "history {file}: {reason}"
    hint = "`hive history export RUN FILE` writes one; a run that has ended can be imported into a hive that does not have it"

    file: str
    reason: str


@dataclass(eq=False, kw_only=True)
class BudgetInvalid(BusError):
    """A budget is not written as kinds and amounts."""

    code = "HIVE-BUS-022"
    sentence = "budget {value!r} is refused: {reason}"
    hint = "write it like usd=2,calls=50,tokens=200k,time=10m; `none` takes a limit away"

    value: str
    reason: str


@dataclass(eq=False, kw_only=True)
class BudgetMoved(BusError):
    """Others use or change the budget so quickly that it could not be set."""

    code = "HIVE-BUS-023"
    retryable = True
    sentence = "the budget of {whose} changed again and again while it was to be set"
    hint = "try again"

    whose: str
