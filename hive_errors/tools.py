"""What can go wrong where hands touch files, commands and git: floor 4's tools and workspaces."""

from __future__ import annotations

from dataclasses import dataclass

from hive_errors.base import HiveError


@dataclass(eq=False, kw_only=True)
class ToolError(HiveError):
    """A tool refused or failed; a model can read why and mend its call."""

    code = "HIVE-TOOL-000"


@dataclass(eq=False, kw_only=True)
class PathOutsideWorkspace(ToolError):
    """A path leads out of the workspace, by its text or through a symbolic link."""

    code = "HIVE-TOOL-001"
    sentence = "path {path!r} is outside the workspace: {reason}"
    hint = "use a path relative to the workspace, without leaving it"

    path: str
    reason: str


@dataclass(eq=False, kw_only=True)
class PathDenied(ToolError):
    """The policy keeps tools away from this path."""

    code = "HIVE-TOOL-002"
    sentence = "path {path!r} is denied: {part!r} matches the policy's pattern {pattern!r}"
    hint = "leave this file alone, or let a person change the policy"

    path: str
    part: str
    pattern: str


@dataclass(eq=False, kw_only=True)
class PathUnusable(ToolError):
    """The path is inside the workspace, but not what the tool needs."""

    code = "HIVE-TOOL-003"
    sentence = "path {path!r} cannot be used: {reason}"
    hint = "list the directory to see what is there"

    path: str
    reason: str


@dataclass(eq=False, kw_only=True)
class ToolInputInvalid(ToolError):
    """A tool was called with a value that it cannot work with."""

    code = "HIVE-TOOL-004"
    sentence = "field {field!r} with value {value} is invalid: {reason}"
    hint = "call the tool again with this field mended"

    field: str
    value: str
    reason: str


@dataclass(eq=False, kw_only=True)
class ToolUnknown(ToolError):
    """No tool of that name is registered."""

    code = "HIVE-TOOL-005"
    sentence = "tool {name!r} is not registered; known are: {known}"
    hint = "call one of the known tools, or register this one"

    name: str
    known: str


@dataclass(eq=False, kw_only=True)
class ToolExists(ToolError):
    """A tool of that name is registered already."""

    code = "HIVE-TOOL-006"
    sentence = "tool {name!r} is registered already"
    hint = "give one of the two another name"

    name: str


@dataclass(eq=False, kw_only=True)
class ToolSignature(ToolError):
    """A function cannot be a tool as it is declared."""

    code = "HIVE-TOOL-007"
    sentence = "function {function!r} cannot be a tool: parameter {parameter!r} {reason}"
    hint = "give every parameter a name and a type annotation; no *args, no **kwargs"

    function: str
    parameter: str
    reason: str


@dataclass(eq=False, kw_only=True)
class CommandNotStarted(ToolError):
    """The operating system would not start the command."""

    code = "HIVE-TOOL-008"
    retryable = True
    sentence = "command {command!r} could not be started in {cwd!r}: {reason}"
    hint = "check that the directory exists and that processes and open files are not used up"

    command: str
    cwd: str
    reason: str


@dataclass(eq=False, kw_only=True)
class WorkspaceError(HiveError):
    """A workspace or its git repository cannot be used."""

    code = "HIVE-WORK-000"


@dataclass(eq=False, kw_only=True)
class WorkspaceMissing(WorkspaceError):
    """The workspace is not a directory."""

    code = "HIVE-WORK-001"
    sentence = "workspace {path!r} is not a directory"
    hint = "give an existing directory: --workspace DIR"

    path: str


@dataclass(eq=False, kw_only=True)
class NotARepository(WorkspaceError):
    """A workflow with prompt steps needs git, and the workspace has none."""

    code = "HIVE-WORK-002"
    sentence = "workspace {path!r} is not a git repository with a commit: {reason}"
    hint = "git init && git add -A && git commit -m start"

    path: str
    reason: str


@dataclass(eq=False, kw_only=True)
class UncommittedChanges(WorkspaceError):
    """The workspace has changes that no commit holds, so the drones would not see them."""

    code = "HIVE-WORK-003"
    sentence = "workspace {path!r} has {count} uncommitted change(s): {files}"
    hint = "commit or stash them, or start from a snapshot of them with --allow-dirty"

    path: str
    count: int
    files: str


@dataclass(eq=False, kw_only=True)
class GitFailed(WorkspaceError):
    """git ended with an error that nobody planned for."""

    code = "HIVE-WORK-004"
    retryable = True
    sentence = "git {command} ended with {exit_code} in {path!r}: {reason}"
    hint = "run the same git command by hand to see what is wrong"

    command: str
    path: str
    exit_code: int
    reason: str


@dataclass(eq=False, kw_only=True)
class RunNotBegun(WorkspaceError):
    """The repository holds nothing of this run."""

    code = "HIVE-WORK-005"
    sentence = "run {run_id!r} has no base commit in {path!r}"
    hint = "begin the run in this repository first; was the workspace moved or cloned anew?"

    run_id: str
    path: str
