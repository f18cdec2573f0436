"""Workspaces on real repositories: where a run starts, what its attempts see, what their snapshots hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.workspaces.git import Git
from agents.workspaces.workspace import MergeConflict, Repository, Workspace
from hive_errors import NotARepository, RunNotBegun, UncommittedChanges, WorkspaceMissing
from tests.support.repositories import RUN, WHEN, attempt_of, changed, git, make_checkout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A user's checkout."""
    return make_checkout(tmp_path / "project")


@pytest.fixture
async def repo(checkout: Path) -> Repository:
    """The repository of that checkout."""
    return await Workspace.open(checkout).repository()


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

    async def test_what_the_user_ignores_everywhere_is_no_change(
        self, checkout: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """An editor's folder stops no run and gets into no snapshot, by either of the two places for such a list."""
        (checkout / ".idea").mkdir()
        (checkout / ".idea" / "x.xml").write_text("")
        (checkout / "scratch").write_text("")
        for variable in ("XDG_CONFIG_HOME", "GIT_CONFIG_GLOBAL"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        (tmp_path / "home" / ".config" / "git").mkdir(parents=True)
        (tmp_path / "home" / ".config" / "git" / "ignore").write_text(".idea/\nscratch\n")
        await (await Workspace.open(checkout).repository()).check_clean()
        (tmp_path / "home" / ".gitconfig").write_text("[core]\n\texcludesFile = ~/mine\n[user]\n\tname = nobody\n")
        (tmp_path / "home" / "mine").write_text(".idea/\n")
        repo = await Workspace.open(checkout).repository()
        base = await repo.begin(RUN, when=WHEN, allow_dirty=True)
        assert git(checkout, "show", "--name-only", "--format=%an", base).split() == ["hive", "scratch"]

    async def test_somebody_else_s_repository_needs_the_user_s_word(
        self, checkout: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """What git refuses stays refused, unless the user's configuration trusts it; the repository's own cannot."""
        somebody_else_s = {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}
        git_config = tmp_path / "gitconfig"
        git_config.write_text("")
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(git_config))
        git(checkout, "config", "safe.directory", "*")
        refused = await (await Git.of_user(checkout)).tried("status", env=somebody_else_s)
        assert "dubious ownership" in refused.stderr
        git_config.write_text(f"[safe]\n\tdirectory = {checkout}\n")
        user_s = await Git.of_user(checkout)
        assert (await user_s.tried("status", env=somebody_else_s)).exit_code == 0

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

    async def test_a_half_made_worktree_is_made_anew(self, repo: Repository) -> None:
        """Without the mark that it is whole, what is there does not count, read-only directories included."""
        await repo.begin(RUN, when=WHEN)
        first = await attempt_of(repo, "t1")
        admin = Path(git(first.path, "rev-parse", "--absolute-git-dir"))
        (admin / "hive-ready").unlink()
        (first.path / "one.txt").unlink()
        (first.path / "deep" / "closed").mkdir(parents=True)
        (first.path / "deep" / "closed" / "f").touch()
        (first.path / "deep" / "closed").chmod(0o500)
        assert await attempt_of(repo, "t1") == first
        assert sorted(path.name for path in first.path.iterdir()) == [".git", ".gitignore", "one.txt", "two.txt"]

    async def test_a_git_killed_while_it_makes_a_worktree_stops_no_other(self, repo: Repository) -> None:
        """It leaves an empty file behind, over which git refuses every command on worktrees."""
        await repo.begin(RUN, when=WHEN)
        first = await attempt_of(repo, "t1")
        admin = Path(git(first.path, "rev-parse", "--absolute-git-dir"))
        (admin / "commondir").write_text("")
        (admin / "hive-ready").unlink()
        second = await attempt_of(repo, "t2")
        assert (second.path / "one.txt").exists()
        assert await attempt_of(repo, "t1") == first
        assert git(first.path, "status", "--porcelain") == ""

    async def test_a_file_in_its_place_is_no_worktree(self, repo: Repository) -> None:
        """Whatever lies there goes: the directory belongs to the hive."""
        await repo.begin(RUN, when=WHEN)
        place = repo.top / ".hive" / "worktrees" / RUN
        place.mkdir(parents=True)
        (place / "t1.1").write_text("")
        assert (await attempt_of(repo, "t1")).path == place / "t1.1"

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
