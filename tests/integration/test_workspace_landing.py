"""Where results meet, and how they come back to the user: merges, fast-forwards, and what is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.workspaces.workspace import MergeConflict, Merged, Repository, Workspace
from hive_errors import GitFailed
from tests.support.repositories import RUN, WHEN, changed, git, make_checkout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A user's checkout."""
    return make_checkout(tmp_path / "project")


@pytest.fixture
async def repo(checkout: Path) -> Repository:
    """The repository of that checkout."""
    return await Workspace.open(checkout).repository()


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


class TestHalfLanded:
    """A fast-forward that was killed in the middle of writing the user's files."""

    @pytest.fixture
    async def result(self, repo: Repository, checkout: Path) -> str:
        """A result that changes both files and adds one, and the mark that its landing had begun."""
        await repo.begin(RUN, when=WHEN)
        a = await changed(repo, "a", {"one.txt": "from a\n", "two.txt": "from a\n", "new.txt": "from a\n"})
        merged = await repo.merge(RUN, a, "Accept a", when=WHEN)
        assert isinstance(merged, Merged)
        git(checkout, "update-ref", f"refs/hive/{RUN}/landing", merged.commit)
        (checkout / "one.txt").write_text("from a\n")
        return merged.commit

    @pytest.mark.parametrize("locked", [False, True])
    async def test_it_is_completed(self, repo: Repository, checkout: Path, result: str, locked: bool) -> None:
        """Every file is the old one or the new one: what is missing is done, whoever's dead git held the lock."""
        (checkout / "new.txt").write_text("from a\n")
        if locked:
            (checkout / ".git" / "index.lock").touch()
        finished = await repo.finish(RUN, when=WHEN)
        assert finished.fast_forwarded
        assert git(checkout, "rev-parse", "main") == result
        assert git(checkout, "status", "--porcelain") == ""
        assert (checkout / "two.txt").read_text() == "from a\n"

    async def test_the_user_s_own_change_stops_it(self, repo: Repository, checkout: Path, result: str) -> None:
        """A file that is neither the old nor the new one is the user's: nothing is touched, the result waits."""
        (checkout / "two.txt").write_text("mine\n")
        finished = await repo.finish(RUN, when=WHEN)
        assert finished.merge_command == f"git merge hive/{RUN}"
        assert (checkout / "two.txt").read_text() == "mine\n"
        assert git(checkout, "rev-parse", f"hive/{RUN}") == result

    async def test_without_the_mark_it_is_the_user_s(self, repo: Repository, checkout: Path, result: str) -> None:
        """The same files without our mark are somebody's work."""
        git(checkout, "update-ref", "-d", f"refs/hive/{RUN}/landing")
        assert not (await repo.finish(RUN, when=WHEN)).fast_forwarded
