"""Workspaces on real repositories: what a run sees, what it leaves, what the user gets back."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agents.workspace import Attempt, MergeConflict, Merged, Repository, Workspace
from hive_errors import GitFailed, NotARepository, RunNotBegun, UncommittedChanges, WorkspaceMissing

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RUN = "0123456789"


def git(path: Path, *arguments: str) -> str:
    """Run git as a user does, with an identity and without anybody's configuration."""
    env = os.environ | {
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "someone",
        "GIT_AUTHOR_EMAIL": "someone@localhost",
        "GIT_COMMITTER_NAME": "someone",
        "GIT_COMMITTER_EMAIL": "someone@localhost",
    }
    done = subprocess.run(["git", *arguments], cwd=path, env=env, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A user's repository on branch main with two files and one commit."""
    path = tmp_path / "project"
    path.mkdir()
    git(path, "init", "--quiet", "--initial-branch=main")
    (path / "one.txt").write_text("one\n")
    (path / "two.txt").write_text("two\n")
    (path / ".gitignore").write_text("*.log\n")
    git(path, "add", "--all")
    git(path, "commit", "--quiet", "-m", "start")
    return path


@pytest.fixture
async def repo(checkout: Path) -> Repository:
    """The repository of that checkout."""
    return await Workspace.open(checkout).repository()


async def attempt_of(repo: Repository, task: str, number: int = 1, *needs: str) -> Attempt:
    """A worktree that must not conflict."""
    made = await repo.worktree(RUN, task, number, needs, when=WHEN)
    assert isinstance(made, Attempt)
    return made


async def changed(repo: Repository, task: str, files: dict[str, str], *needs: str) -> str:
    """Do a task: write files in a worktree of its own; the commit it leaves."""
    attempt = await attempt_of(repo, task, 1, *needs)
    for name, text in files.items():
        (attempt.path / name).write_text(text)
    return (await repo.snapshot(attempt, f"Task {task}", when=WHEN)).commit


class TestStart:
    """From which commit a run starts."""

    def test_a_missing_directory_is_refused_with_its_path(self, tmp_path: Path) -> None:
        """A workspace that is no directory is an error that names it."""
        with pytest.raises(WorkspaceMissing, match="nowhere"):
            Workspace.open(tmp_path / "nowhere")

    async def test_a_directory_without_git_is_a_workspace_without_a_repository(self, tmp_path: Path) -> None:
        """Only runs with prompt steps need git, and they are told how to get it."""
        workspace = Workspace.open(tmp_path)
        with pytest.raises(NotARepository) as caught:
            await workspace.repository()
        assert "git init" in caught.value.advice

    async def test_a_repository_without_a_commit_is_refused(self, tmp_path: Path) -> None:
        """There is nothing that a worktree could start from."""
        git(tmp_path, "init", "--quiet")
        with pytest.raises(NotARepository, match="no commit"):
            await Workspace.open(tmp_path).repository()

    async def test_a_clean_checkout_starts_at_its_head(self, repo: Repository, checkout: Path) -> None:
        """The base is what the user has checked out, and stays that for the whole run."""
        base = await repo.begin(RUN, when=WHEN)
        assert base == git(checkout, "rev-parse", "HEAD")
        git(checkout, "commit", "--quiet", "--allow-empty", "-m", "later")
        assert await repo.begin(RUN, when=WHEN) == base

    @pytest.mark.parametrize("change", ["edit", "new", "delete", "staged"])
    async def test_uncommitted_changes_stop_the_run_with_the_remedy(
        self, repo: Repository, checkout: Path, change: str
    ) -> None:
        """Whatever the drones would not see is named, with what to do about it."""
        match change:
            case "edit":
                (checkout / "one.txt").write_text("mine\n")
            case "new":
                (checkout / "three.txt").write_text("three\n")
            case "delete":
                (checkout / "one.txt").unlink()
            case _:
                (checkout / "one.txt").write_text("mine\n")
                git(checkout, "add", "one.txt")
        with pytest.raises(UncommittedChanges) as caught:
            await repo.begin(RUN, when=WHEN)
        assert "one.txt" in caught.value.message or "three.txt" in caught.value.message
        assert "--allow-dirty" in caught.value.advice
        assert await repo.begun(RUN) is None

    async def test_ignored_files_and_the_hive_s_own_are_no_changes(self, repo: Repository, checkout: Path) -> None:
        """`.hive/` is kept out of git status by the repository's private list."""
        (checkout / ".hive").mkdir()
        (checkout / ".hive" / "hive.db").write_text("")
        (checkout / "noise.log").write_text("")
        await repo.check_clean()
        assert git(checkout, "status", "--porcelain") == ""

    async def test_allow_dirty_starts_from_a_snapshot_and_touches_nothing(
        self, repo: Repository, checkout: Path
    ) -> None:
        """The snapshot holds edits and new files; index, files and branch are as they were."""
        (checkout / "one.txt").write_text("staged\n")
        git(checkout, "add", "one.txt")
        (checkout / "one.txt").write_text("edited\n")
        (checkout / "new.txt").write_text("new\n")
        before, head = git(checkout, "status", "--porcelain=v2"), git(checkout, "rev-parse", "HEAD")
        base = await repo.begin(RUN, when=WHEN, allow_dirty=True)
        assert git(checkout, "show", f"{base}:one.txt") == "edited"
        assert git(checkout, "show", f"{base}:new.txt") == "new"
        assert git(checkout, "status", "--porcelain=v2") == before
        assert git(checkout, "rev-parse", "HEAD") == head == git(checkout, "rev-parse", f"{base}^")

    async def test_a_run_can_start_from_a_named_revision(self, repo: Repository, checkout: Path) -> None:
        """A fork starts from a snapshot, and uncommitted changes do not matter to it."""
        first = git(checkout, "rev-parse", "HEAD")
        (checkout / "one.txt").write_text("mine\n")
        assert await repo.begin(RUN, first, when=WHEN) == first
        with pytest.raises(NotARepository, match="nonsense"):
            await repo.begin("other", "nonsense", when=WHEN)

    async def test_a_run_that_did_not_begin_has_no_worktrees(self, repo: Repository) -> None:
        """Asking for one names the run and what may have happened."""
        with pytest.raises(RunNotBegun, match=RUN):
            await repo.worktree(RUN, "t1", 1, when=WHEN)


class TestAttempts:
    """A worktree for every attempt."""

    async def test_every_attempt_has_a_worktree_of_its_own(self, repo: Repository, checkout: Path) -> None:
        """What one attempt writes, neither another nor the user sees."""
        await repo.begin(RUN, when=WHEN)
        first, second = await attempt_of(repo, "t1", 1), await attempt_of(repo, "t1", 2)
        (first.path / "one.txt").write_text("changed\n")
        assert (second.path / "one.txt").read_text() == (checkout / "one.txt").read_text() == "one\n"
        assert first.worktree.is_relative_to(checkout / ".hive" / "worktrees")

    async def test_asked_again_it_is_the_same_and_left_alone(self, repo: Repository) -> None:
        """Calling twice, as after a kill, keeps work that no snapshot holds yet."""
        await repo.begin(RUN, when=WHEN)
        first = await attempt_of(repo, "t1")
        (first.path / "one.txt").write_text("in work\n")
        assert await attempt_of(repo, "t1") == first
        assert (first.path / "one.txt").read_text() == "in work\n"

    async def test_a_lost_worktree_comes_back_at_its_last_snapshot(self, repo: Repository) -> None:
        """A worktree whose directory is gone is made again from what is recorded."""
        await repo.begin(RUN, when=WHEN)
        first = await attempt_of(repo, "t1")
        (first.path / "one.txt").write_text("kept\n")
        await repo.snapshot(first, "work", when=WHEN)
        await repo.remove(first)
        assert not first.worktree.exists()
        assert await attempt_of(repo, "t1") == first
        assert (first.path / "one.txt").read_text() == "kept\n"

    async def test_it_starts_at_the_merge_of_what_it_needs(self, repo: Repository) -> None:
        """Both needs' changes are there, and equal dates give equal commits."""
        await repo.begin(RUN, when=WHEN)
        a = await changed(repo, "a", {"one.txt": "from a\n"})
        b = await changed(repo, "b", {"two.txt": "from b\n"})
        first, again = await attempt_of(repo, "c", 1, a, b), await attempt_of(repo, "c", 2, a, b)
        assert (first.path / "one.txt").read_text() == "from a\n"
        assert (first.path / "two.txt").read_text() == "from b\n"
        assert first.base_commit == again.base_commit

    async def test_needs_that_disagree_are_a_conflict_with_the_files(self, repo: Repository) -> None:
        """A conflict is an outcome; it leaves no worktree behind."""
        await repo.begin(RUN, when=WHEN)
        a = await changed(repo, "a", {"one.txt": "from a\n"})
        b = await changed(repo, "b", {"one.txt": "from b\n"})
        made = await repo.worktree(RUN, "c", 1, [a, b], when=WHEN)
        assert made == MergeConflict(files=("one.txt",), ours=a, theirs=b)
        assert not (repo.top / ".hive" / "worktrees" / RUN / "c.1").exists()

    async def test_a_workspace_in_a_part_of_a_repository_stays_that_part(self, checkout: Path) -> None:
        """Tools work in the same directory of the worktree as the user does in the checkout."""
        (checkout / "part").mkdir()
        (checkout / "part" / "p.txt").write_text("p\n")
        git(checkout, "add", "--all")
        git(checkout, "commit", "--quiet", "-m", "part")
        repo = await Workspace.open(checkout / "part").repository()
        await repo.begin(RUN, when=WHEN)
        attempt = await attempt_of(repo, "t1")
        assert (attempt.path / "p.txt").read_text() == "p\n"
        assert attempt.path == attempt.worktree / "part"

    async def test_any_task_name_is_a_fine_directory(self, repo: Repository) -> None:
        """Names that mean something to a file system or to git are quoted."""
        await repo.begin(RUN, when=WHEN)
        for name in ("../../x", "a b", ".lock", "x..y", "é~^:?*[", "-f", "@{0}"):
            attempt = await attempt_of(repo, name)
            assert attempt.worktree.parent == repo.top / ".hive" / "worktrees" / RUN
            await repo.remove(attempt)


class TestSnapshots:
    """What a tool call left."""

    async def test_a_snapshot_holds_new_changed_and_deleted_files(self, repo: Repository, checkout: Path) -> None:
        """Everything but what git ignores, as a commit under refs/hive, made by hive at the given date."""
        await repo.begin(RUN, when=WHEN)
        attempt = await attempt_of(repo, "t1")
        (attempt.path / "one.txt").write_text("changed\n")
        (attempt.path / "two.txt").unlink()
        (attempt.path / "new.txt").write_text("new\n")
        (attempt.path / "x.log").write_text("noise\n")
        snapshot = await repo.snapshot(attempt, "call 1", when=WHEN)
        assert git(checkout, "ls-tree", "--name-only", snapshot.tree).split() == [".gitignore", "new.txt", "one.txt"]
        shown = git(checkout, "show", "--no-patch", "--format=%an %ae %at %s", snapshot.commit)
        assert shown == f"hive hive@localhost {int(WHEN.timestamp())} call 1"
        assert snapshot.commit in git(checkout, "for-each-ref", "refs/hive/")

    async def test_nothing_changed_is_the_same_snapshot(self, repo: Repository) -> None:
        """A second look makes no second commit."""
        await repo.begin(RUN, when=WHEN)
        attempt = await attempt_of(repo, "t1")
        (attempt.path / "one.txt").write_text("changed\n")
        first = await repo.snapshot(attempt, "call 1", when=WHEN)
        assert await repo.snapshot(attempt, "call 2", when=WHEN) == first

    async def test_restoring_undoes_what_a_killed_call_left(self, repo: Repository) -> None:
        """Half-done files go, a lock of a killed git goes, ignored files stay."""
        await repo.begin(RUN, when=WHEN)
        attempt = await attempt_of(repo, "t1")
        (attempt.path / "one.txt").write_text("kept\n")
        snapshot = await repo.snapshot(attempt, "call 1", when=WHEN)
        (attempt.path / "one.txt").write_text("half-do")
        (attempt.path / "junk").mkdir()
        (attempt.path / "junk" / "f").write_text("")
        (attempt.path / "cache.log").write_text("")
        Path(git(attempt.path, "rev-parse", "--path-format=absolute", "--git-path", "index.lock")).touch()
        await repo.restore(attempt, snapshot.commit)
        assert (attempt.path / "one.txt").read_text() == "kept\n"
        assert sorted(path.name for path in attempt.path.iterdir()) == [
            ".git",
            ".gitignore",
            "cache.log",
            "one.txt",
            "two.txt",
        ]

    async def test_a_killed_git_s_lock_does_not_stop_a_snapshot(self, repo: Repository) -> None:
        """Nobody else works in an attempt's worktree, so a lock that stays is a dead git's."""
        await repo.begin(RUN, when=WHEN)
        attempt = await attempt_of(repo, "t1")
        Path(git(attempt.path, "rev-parse", "--path-format=absolute", "--git-path", "index.lock")).touch()
        (attempt.path / "one.txt").write_text("changed\n")
        assert (await repo.snapshot(attempt, "call 1", when=WHEN)).commit != attempt.base_commit

    async def test_a_branch_that_a_command_checked_out_is_not_moved(self, repo: Repository, checkout: Path) -> None:
        """A drone may play with git in its worktree; the user's branches stay where they are."""
        git(checkout, "branch", "side")
        side = git(checkout, "rev-parse", "side")
        await repo.begin(RUN, when=WHEN)
        attempt = await attempt_of(repo, "t1")
        git(attempt.path, "checkout", "--quiet", "side")
        (attempt.path / "one.txt").write_text("changed\n")
        await repo.snapshot(attempt, "call 1", when=WHEN)
        assert git(checkout, "rev-parse", "side") == side

    async def test_hooks_and_foreign_configuration_do_not_run(
        self, repo: Repository, checkout: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """A hook that fails, a signing key that is not there, a home full of settings: none is asked."""
        for hook in ("pre-commit", "post-checkout", "post-merge", "pre-merge-commit", "reference-transaction"):
            path = checkout / ".git" / "hooks" / hook
            path.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\nexit 1\n")
            path.chmod(0o755)
        git(checkout, "config", "commit.gpgsign", "true")
        (tmp_path / ".gitconfig").write_text("[user]\n\tname = nobody\n[core]\n\tautocrlf = true\n[nonsense\n")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("GIT_DIR", "/nonexistent")
        await repo.begin(RUN, when=WHEN)
        a = await changed(repo, "a", {"one.txt": "from a\n"})
        b = await changed(repo, "b", {"two.txt": "from b\n"})
        await attempt_of(repo, "c", 1, a, b)
        assert not (tmp_path / "ran").exists()


class TestIntegration:
    """Where results meet, and how they come back."""

    async def test_results_are_merged_once(self, repo: Repository) -> None:
        """Merging again what is merged already changes nothing."""
        await repo.begin(RUN, when=WHEN)
        a = await changed(repo, "a", {"one.txt": "from a\n"})
        b = await changed(repo, "b", {"two.txt": "from b\n"})
        assert isinstance(await repo.merge(RUN, a, "Accept a", when=WHEN), Merged)
        second = await repo.merge(RUN, b, "Accept b", when=WHEN)
        assert await repo.merge(RUN, a, "Accept a", when=WHEN) == second
        integration = await repo.integration(RUN, when=WHEN)
        assert (integration.path / "one.txt").read_text() == "from a\n"
        assert (integration.path / "two.txt").read_text() == "from b\n"

    async def test_a_conflict_names_the_files_and_changes_nothing(self, repo: Repository) -> None:
        """It goes back to the drone as rework; the integration worktree stays clean."""
        await repo.begin(RUN, when=WHEN)
        a = await changed(repo, "a", {"one.txt": "from a\n"})
        b = await changed(repo, "b", {"one.txt": "from b\n", "two.txt": "from b\n"})
        merged = await repo.merge(RUN, a, "Accept a", when=WHEN)
        assert isinstance(merged, Merged)
        assert await repo.merge(RUN, b, "Accept b", when=WHEN) == MergeConflict(
            files=("one.txt",), ours=merged.commit, theirs=b
        )
        integration = await repo.integration(RUN, when=WHEN)
        assert (integration.path / "two.txt").read_text() == "two\n"
        assert git(integration.path, "status", "--porcelain") == ""

    async def test_what_steps_leave_behind_survives_a_merge(self, repo: Repository) -> None:
        """A formatter's changes in the integration worktree are committed before anything is merged over them."""
        await repo.begin(RUN, when=WHEN)
        a = await changed(repo, "a", {"one.txt": "from a\n"})
        integration = await repo.integration(RUN, when=WHEN)
        (integration.path / "two.txt").write_text("formatted\n")
        await repo.merge(RUN, a, "Accept a", when=WHEN)
        assert (integration.path / "two.txt").read_text() == "formatted\n"
        assert (integration.path / "one.txt").read_text() == "from a\n"

    async def test_the_user_s_branch_is_fast_forwarded_with_its_files(self, repo: Repository, checkout: Path) -> None:
        """The usual end: the result is checked out, and no extra branch is left; saying it twice is fine."""
        base = await repo.begin(RUN, when=WHEN)
        a = await changed(repo, "a", {"one.txt": "from a\n", "new.txt": "new\nnew\n"})
        await repo.merge(RUN, a, "Accept a", when=WHEN)
        finished = await repo.finish(RUN, when=WHEN)
        assert (finished.fast_forwarded, finished.target, finished.merge_command) == (True, "main", None)
        assert (finished.stat.files, finished.stat.insertions, finished.stat.deletions) == (2, 3, 1)
        assert (checkout / "one.txt").read_text() == "from a\n"
        assert git(checkout, "rev-parse", "main") == finished.commit
        assert git(checkout, "status", "--porcelain") == ""
        assert git(checkout, "branch", "--list", "hive/*") == ""
        assert "+from a" in await repo.diff(base, finished.commit)
        assert await repo.finish(RUN, when=WHEN) == finished

    async def test_a_run_that_changed_nothing_lands_nothing(self, repo: Repository, checkout: Path) -> None:
        """No branch, no merge command, nothing to do."""
        base = await repo.begin(RUN, when=WHEN)
        finished = await repo.finish(RUN, when=WHEN)
        assert (finished.changed, finished.fast_forwarded, finished.merge_command) == (False, False, None)
        assert finished.commit == base == git(checkout, "rev-parse", "HEAD")

    async def test_a_branch_that_moved_is_left_alone(self, repo: Repository, checkout: Path) -> None:
        """The result waits at hive/<run>, and the printed command merges it."""
        await repo.begin(RUN, when=WHEN)
        a = await changed(repo, "a", {"one.txt": "from a\n"})
        await repo.merge(RUN, a, "Accept a", when=WHEN)
        (checkout / "mine.txt").write_text("mine\n")
        git(checkout, "add", "--all")
        git(checkout, "commit", "--quiet", "-m", "mine")
        finished = await repo.finish(RUN, when=WHEN)
        assert finished.merge_command == f"git merge hive/{RUN}"
        assert "moved" in finished.reason
        assert (checkout / "one.txt").read_text() == "one\n"
        assert await repo.finish(RUN, when=WHEN) == finished
        git(checkout, *finished.merge_command.split()[1:])
        assert (checkout / "one.txt").read_text() == "from a\n"

    async def test_changes_made_meanwhile_are_never_overwritten(self, repo: Repository, checkout: Path) -> None:
        """A dirty checkout keeps its files; the result waits at hive/<run>."""
        await repo.begin(RUN, when=WHEN)
        a = await changed(repo, "a", {"one.txt": "from a\n"})
        await repo.merge(RUN, a, "Accept a", when=WHEN)
        (checkout / "one.txt").write_text("mine\n")
        finished = await repo.finish(RUN, when=WHEN)
        assert not finished.fast_forwarded
        assert "uncommitted" in finished.reason
        assert (checkout / "one.txt").read_text() == "mine\n"

    async def test_a_new_file_in_the_way_is_never_overwritten(self, repo: Repository, checkout: Path) -> None:
        """An untracked file of the user's that the result would replace stops the fast-forward."""
        await repo.begin(RUN, when=WHEN)
        a = await changed(repo, "a", {"new.txt": "from a\n"})
        await repo.merge(RUN, a, "Accept a", when=WHEN)
        (checkout / "new.txt").write_text("mine\n")
        finished = await repo.finish(RUN, when=WHEN)
        assert not finished.fast_forwarded
        assert (checkout / "new.txt").read_text() == "mine\n"

    async def test_a_branch_that_is_no_longer_checked_out_moves_without_files(
        self, repo: Repository, checkout: Path
    ) -> None:
        """The user went to another branch: that one's files stay, the target moves."""
        await repo.begin(RUN, when=WHEN)
        a = await changed(repo, "a", {"one.txt": "from a\n"})
        await repo.merge(RUN, a, "Accept a", when=WHEN)
        git(checkout, "checkout", "--quiet", "-b", "other")
        finished = await repo.finish(RUN, when=WHEN)
        assert finished.fast_forwarded
        assert git(checkout, "rev-parse", "main") == finished.commit
        assert (checkout / "one.txt").read_text() == "one\n"

    async def test_a_branch_checked_out_elsewhere_is_left_alone(
        self, repo: Repository, checkout: Path, tmp_path: Path
    ) -> None:
        """Its files are not ours to change."""
        await repo.begin(RUN, when=WHEN)
        a = await changed(repo, "a", {"one.txt": "from a\n"})
        await repo.merge(RUN, a, "Accept a", when=WHEN)
        git(checkout, "checkout", "--quiet", "-b", "other")
        git(checkout, "worktree", "add", "--quiet", str(tmp_path / "elsewhere"), "main")
        finished = await repo.finish(RUN, when=WHEN)
        assert "elsewhere" in finished.reason
        assert (tmp_path / "elsewhere" / "one.txt").read_text() == "one\n"

    async def test_without_a_branch_the_result_waits(self, repo: Repository, checkout: Path) -> None:
        """A detached checkout has no branch to move."""
        git(checkout, "checkout", "--quiet", "--detach")
        await repo.begin(RUN, when=WHEN)
        a = await changed(repo, "a", {"one.txt": "from a\n"})
        await repo.merge(RUN, a, "Accept a", when=WHEN)
        finished = await repo.finish(RUN, when=WHEN)
        assert (finished.target, finished.fast_forwarded) == (None, False)
        assert git(checkout, "rev-parse", f"hive/{RUN}") == finished.commit

    async def test_cleaning_up_removes_worktrees_and_keeps_snapshots(self, repo: Repository, checkout: Path) -> None:
        """Snapshots go only when the run is to be forgotten; both can be said twice."""
        await repo.begin(RUN, when=WHEN)
        a = await changed(repo, "a", {"one.txt": "from a\n"})
        await repo.integration(RUN, when=WHEN)
        for _ in range(2):
            await repo.cleanup(RUN)
            assert not (checkout / ".hive" / "worktrees" / RUN).exists()
            assert len(git(checkout, "worktree", "list").splitlines()) == 1
            assert a in git(checkout, "for-each-ref", "refs/hive/")
        for _ in range(2):
            await repo.cleanup(RUN, forget=True)
            assert git(checkout, "for-each-ref", "refs/hive/") == ""

    async def test_what_git_refuses_is_an_error_that_says_why(self, repo: Repository) -> None:
        """An error of git's carries the command, its end and what it said."""
        with pytest.raises(GitFailed, match="nonsense") as caught:
            await repo.diff("nonsense", "HEAD")
        assert caught.value.exit_code == 128
