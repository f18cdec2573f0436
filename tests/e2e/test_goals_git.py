"""Goals on a user's real repository: conflicts between drones, uncommitted changes, and a branch that moved meanwhile."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hive_errors import NotARepository, UncommittedChanges
from tests.support.hives import (
    EVERYBODY_APPROVED,
    bodies,
    finished,
    hive_at,
    plan,
    script,
    topics,
    use,
)
from tests.support.patience import WITHIN
from tests.support.repositories import git, make_checkout

DONE: dict[str, Any] = {"text": "Done."}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A user's checkout with two files."""
    return make_checkout(tmp_path / "work")


def writer(tmp_path: Path, *more: dict[str, Any]) -> str:
    """A model whose plan has one drone, which writes a new file."""
    return script(
        tmp_path / "answers.yaml",
        planner={"": [plan({"id": "fix", "prompt": "Write it."}, *more)]},
        drone={"fix": [use("write", path="new.txt", content="new\n"), DONE]},
        reviewer=EVERYBODY_APPROVED,
    )


async def test_a_merge_conflict_goes_back_to_the_drone(tmp_path: Path, repository: Path, hive_url: str) -> None:
    """Two drones change one line; the second to be merged is told which file, starts from the merged state, and both changes are there."""
    both = [{"id": name, "prompt": f"Add {name} to one.txt."} for name in ("red", "blue")]
    mend = [
        use("read", path="one.txt"),
        use("command", command="sort one.txt; printf 'both\\n' >>one.txt"),
        {"text": "I added mine to what is there."},
    ]
    model = script(
        tmp_path / "answers.yaml",
        planner={"": [plan(*both, {"id": "look", "needs": ["red", "blue"], "run": "cat one.txt"})]},
        drone={
            "red.1": [use("edit", path="one.txt", old="one", new="red"), DONE],
            "blue.1": [use("edit", path="one.txt", old="one", new="blue"), DONE],
            "*": mend,
        },
        reviewer=EVERYBODY_APPROVED,
    )
    async with hive_at(hive_url, repository, model=model) as hive:
        result, records = await finished(await hive.start("colours"))
    assert result.status == "completed"
    assert result.output.split() in (["red", "both"], ["blue", "both"])
    (again,) = bodies(records, "task.retried")
    assert again["reason"] == "merge conflict"
    assert "one.txt" in " ".join(again["comments"])
    (asked,) = [body for body in bodies(records, "drone.buzzed") if "conflicts with changes" in body["prompt"]]
    assert "Your earlier changes are not in the workspace" in asked["prompt"]
    assert git(repository, "show", "HEAD:one.txt").split() == result.output.split()
    assert git(repository, "status", "--porcelain") == ""


async def test_uncommitted_changes_stop_the_start(tmp_path: Path, repository: Path, hive_url: str) -> None:
    """The error names the files and both remedies; no run is in the log, and nothing of the user's was touched."""
    (repository / "one.txt").write_text("mine\n")
    (repository / "three.txt").write_text("mine too\n")
    async with hive_at(hive_url, repository, model=writer(tmp_path)) as hive:
        with pytest.raises(UncommittedChanges, match=r"one\.txt, three\.txt") as caught:
            await hive.start("write")
        assert "--allow-dirty" in str(caught.value.advice)
        assert [record.topic async for record in hive.bus.read("workflow.*")] == []
    assert git(repository, "status", "--porcelain") == "M one.txt\n?? three.txt"


async def test_allowed_uncommitted_changes_are_where_the_run_starts(
    tmp_path: Path, repository: Path, hive_url: str
) -> None:
    """Drones see them; the user's files stay as they are, the result is left at its branch, and the printed command takes it."""
    (repository / "one.txt").write_text("mine\n")
    (repository / "three.txt").write_text("mine too\n")
    model = writer(tmp_path, {"id": "look", "needs": ["fix"], "run": "cat one.txt three.txt new.txt"})
    async with hive_at(hive_url, repository, model=model) as hive:
        run = await hive.start("write", allow_dirty=True)
        result, _ = await finished(run)
    assert (result.status, result.output) == ("completed", "mine\nmine too\nnew")
    assert (repository / "one.txt").read_text() == "mine\n"
    assert (repository / "three.txt").read_text() == "mine too\n"
    assert result.branch == f"hive/{run.id}"
    assert result.merge_command is not None
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "-m", "mine")
    await asyncio.to_thread(taken, repository, result.merge_command)
    assert (repository / "new.txt").read_text() == "new\n"
    assert (repository / "one.txt").read_text() == "mine\n"


def taken(repository: Path, command: str) -> None:
    """Run the command that the hive printed, as a user pastes it."""
    env = {"GIT_AUTHOR_NAME": "me", "GIT_AUTHOR_EMAIL": "me@localhost", "GIT_CONFIG_GLOBAL": "/dev/null"}
    env |= {"GIT_COMMITTER_NAME": "me", "GIT_COMMITTER_EMAIL": "me@localhost", "GIT_EDITOR": "true"}
    path = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
    subprocess.run(["sh", "-c", command], cwd=repository, env=env | path, check=True, capture_output=True)


async def test_a_branch_that_moved_is_left_alone(tmp_path: Path, repository: Path, hive_url: str) -> None:
    """Somebody commits while the run works: their branch stays theirs, the result is at hive/<run>, and the printed command merges it."""
    model = writer(tmp_path, {"id": "ask", "needs": ["fix"], "run": "true", "approval": "Hand it over?"})
    async with hive_at(hive_url, repository, model=model) as hive:
        run = await hive.start("write")
        async for record in run.events():
            if record.topic == "approval.requested":
                break
        await asyncio.to_thread(_commit_mine, repository)
        mine = await asyncio.to_thread(git, repository, "rev-parse", "HEAD")
        await hive.approve(run.id, by="me")
        result, records = await finished(run)
    assert result.status == "completed"
    assert git(repository, "rev-parse", "main") == mine
    assert not (repository / "new.txt").exists()
    assert result.branch == f"hive/{run.id}"
    assert git(repository, "rev-parse", result.branch) == result.commit
    assert result.merge_command is not None
    await asyncio.to_thread(taken, repository, result.merge_command)
    assert (repository / "new.txt").read_text() == "new\n"
    assert (repository / "mine.txt").read_text() == "mine\n"
    assert topics(records)[-1] == "workflow.completed"
    # The run's worktrees are gone: only the user's own is left.
    assert git(repository, "worktree", "list").count("\n") == 0


def _commit_mine(repository: Path) -> None:
    (repository / "mine.txt").write_text("mine\n")
    git(repository, "add", "mine.txt")
    git(repository, "commit", "--quiet", "-m", "mine")


async def test_a_run_leaves_the_repository_as_it_found_it(tmp_path: Path, repository: Path, hive_url: str) -> None:
    """After a run that failed: same branch, same commit, clean tree, and a sound repository."""
    before = git(repository, "rev-parse", "HEAD")
    model = writer(tmp_path, {"id": "no", "needs": ["fix"], "run": "cat new.txt; false"})
    async with hive_at(hive_url, repository, model=model) as hive:
        result, _ = await finished(await hive.start("write"))
    assert result.status == "failed"
    assert git(repository, "rev-parse", "HEAD") == before
    assert git(repository, "symbolic-ref", "--short", "HEAD") == "main"
    assert git(repository, "status", "--porcelain") == ""
    assert git(repository, "fsck", "--no-progress", "--no-dangling") == ""


async def test_a_goal_needs_a_repository(tmp_path: Path, hive_url: str) -> None:
    """Where there is none, the start says so; a workflow without prompts runs there all the same."""
    place = tmp_path / "plain"
    place.mkdir()
    async with hive_at(hive_url, place, model=writer(tmp_path)) as hive:
        with pytest.raises(NotARepository):
            await hive.start("write")
        (tmp_path / "flow.yaml").write_text("name: x\nsteps:\n- {id: a, run: echo fine}\n")
        run = await hive.start(tmp_path / "flow.yaml")
        assert (await run.result(within=WITHIN)).output == "fine"
