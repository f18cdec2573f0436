"""read, write, edit and list, on real files."""

from __future__ import annotations

import asyncio
import os
import resource
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.tool import ToolContext, ToolOutcome
from agents.tools import builtin_tools
from tests.support.patience import WITHIN

TOOLS = builtin_tools()


async def call(root: Path, name: str, **input: object) -> ToolOutcome:  # noqa: A002
    """Call a tool in a workspace."""
    return await TOOLS.call(name, input, ToolContext(root=root, idempotency_key="key", timeout=WITHIN))


class TestRead:
    """read: numbered lines, in parts."""

    async def test_lines_are_numbered(self, tmp_path: Path) -> None:
        """Each line has its number and a tab; line ends of any kind are no part of it."""
        (tmp_path / "f").write_bytes(b"one\r\ntwo\n\nfour")
        assert (await call(tmp_path, "read", path="f")).output == "     1\tone\n     2\ttwo\n     3\t\n     4\tfour"

    async def test_an_empty_file_is_empty(self, tmp_path: Path) -> None:
        """Nothing to show is no error."""
        (tmp_path / "f").touch()
        assert await call(tmp_path, "read", path="f") == ToolOutcome()

    async def test_a_long_file_is_read_in_parts(self, tmp_path: Path) -> None:
        """What is shown says how to go on, and going on shows the rest."""
        (tmp_path / "f").write_text("".join(f"line {number}\n" for number in range(1, 11)))
        first = await call(tmp_path, "read", path="f", limit=4)
        assert first.truncated
        assert first.output.endswith("     4\tline 4\n[... more lines; continue with offset 5 ...]")
        last = await call(tmp_path, "read", path="f", offset=9)
        assert (last.output, last.truncated) == ("     9\tline 9\n    10\tline 10", False)

    async def test_an_offset_behind_the_end_is_an_error(self, tmp_path: Path) -> None:
        """It says how many lines there are."""
        (tmp_path / "f").write_text("one\ntwo\n")
        assert "the file has 2 lines" in (await call(tmp_path, "read", path="f", offset=3)).output

    async def test_a_binary_file_is_refused(self, tmp_path: Path) -> None:
        """A model has no use for it."""
        (tmp_path / "f").write_bytes(b"\x7fELF\0\0")
        assert "binary" in (await call(tmp_path, "read", path="f")).output

    async def test_a_line_without_end_is_cut(self, tmp_path: Path) -> None:
        """Neither memory nor the answer grows with it, and the next line has the next number."""
        (tmp_path / "f").write_text("x" * 3_000_000 + "\nnext\n")
        outcome = await call(tmp_path, "read", path="f")
        assert len(outcome.output) < 10_000
        assert "[... line cut ...]" in outcome.output
        assert outcome.output.endswith("     2\tnext")

    async def test_a_huge_file_is_cut(self, tmp_path: Path) -> None:
        """However many lines are asked for, the answer is bounded, and says where to go on."""
        (tmp_path / "f").write_text("".join(f"{'x' * 100} {number}\n" for number in range(20_000)))
        outcome = await call(tmp_path, "read", path="f", limit=10_000)
        assert outcome.truncated
        assert len(outcome.output) < 140_000
        assert "continue with offset" in outcome.output

    async def test_what_is_no_text_is_shown_as_good_as_it_goes(self, tmp_path: Path) -> None:
        """Another encoding's bytes become replacement characters."""
        (tmp_path / "f").write_bytes(b"caf\xe9\n")
        assert (await call(tmp_path, "read", path="f")).output == "     1\tcaf\N{REPLACEMENT CHARACTER}"


class TestWrite:
    """write: whole files, atomically."""

    async def test_directories_on_the_way_are_made(self, tmp_path: Path) -> None:
        """A new file says that it is new."""
        outcome = await call(tmp_path, "write", path="a/b/c.txt", content="é\n")
        assert outcome.output == "created a/b/c.txt: 3 bytes"
        assert (tmp_path / "a" / "b" / "c.txt").read_text() == "é\n"

    async def test_replacing_keeps_the_mode(self, tmp_path: Path) -> None:
        """A script stays executable; no temporary file stays behind."""
        script = tmp_path / "run.sh"
        script.write_text("old")
        script.chmod(0o750)
        outcome = await call(tmp_path, "write", path="run.sh", content="new")
        assert outcome.output == "replaced run.sh: 3 bytes"
        assert stat.S_IMODE(script.stat().st_mode) == 0o750
        assert [entry.name for entry in tmp_path.iterdir()] == ["run.sh"]

    async def test_a_reader_sees_the_old_or_the_new_file(self, tmp_path: Path) -> None:
        """Who has the old file open keeps it, whole."""
        (tmp_path / "f").write_text("old")
        with (tmp_path / "f").open() as opened:
            await call(tmp_path, "write", path="f", content="new")
            assert opened.read() == "old"

    async def test_text_that_is_none_is_refused(self, tmp_path: Path) -> None:
        """A lone surrogate cannot be written, and the file stays as it was."""
        outcome = await call(tmp_path, "write", path="f", content="a\ud800")
        assert "content" in outcome.output
        assert outcome.is_error
        assert not (tmp_path / "f").exists()

    @pytest.mark.may_block("the writer is a process with a limit of its own, and the test waits for it")
    def test_a_full_disk_is_an_error_and_leaves_the_old_file(self, tmp_path: Path) -> None:
        """What cannot be written whole is not written at all, and no half of it stays behind."""
        (tmp_path / "f").write_text("old")
        script = f"""
            import asyncio, pathlib, resource, signal
            from agents.tool import ToolContext
            from agents.tools import builtin_tools
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            before = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
            ctx = ToolContext(root=pathlib.Path({str(tmp_path)!r}), idempotency_key="key")
            outcome = asyncio.run(builtin_tools().call("write", {{"path": "f", "content": "x" * 5000}}, ctx))
            resource.setrlimit(resource.RLIMIT_FSIZE, before)  # coverage writes its file when this ends
            assert outcome.is_error and "HIVE-TOOL-003" in outcome.output, outcome
        """
        root = Path(__file__).resolve().parents[2]
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)], cwd=root, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert [entry.name for entry in tmp_path.iterdir()] == ["f"]
        assert (tmp_path / "f").read_text() == "old"
        assert resource.RLIM_INFINITY in resource.getrlimit(resource.RLIMIT_FSIZE)


class TestEdit:
    """edit: exactly one place, unless told otherwise."""

    async def test_one_occurrence_is_replaced(self, tmp_path: Path) -> None:
        """The rest of the file stays byte for byte."""
        (tmp_path / "f").write_bytes(b"a\r\nb\xff\r\nc")
        outcome = await call(tmp_path, "edit", path="f", old="c", new="d")
        assert outcome.output == "replaced 1 occurrence in f"
        assert (tmp_path / "f").read_bytes() == b"a\r\nb\xff\r\nd"

    async def test_several_need_a_word(self, tmp_path: Path) -> None:
        """The error names the lines; with `replace_all` they are replaced."""
        (tmp_path / "f").write_text("x\ny\nx\n")
        outcome = await call(tmp_path, "edit", path="f", old="x", new="z")
        assert "occurs 2 times, on lines 1, 3" in outcome.output
        assert (tmp_path / "f").read_text() == "x\ny\nx\n"
        outcome = await call(tmp_path, "edit", path="f", old="x", new="z", replace_all=True)
        assert outcome.output == "replaced 2 occurrences in f"
        assert (tmp_path / "f").read_text() == "z\ny\nz\n"

    async def test_what_is_not_there_is_an_error(self, tmp_path: Path) -> None:
        """So is a replacement by the same, a directory, a binary and a giant."""
        (tmp_path / "f").write_text("x\n")
        (tmp_path / "binary").write_bytes(b"\0")
        os.truncate(os.open(tmp_path / "giant", os.O_CREAT | os.O_WRONLY), 9 * 1024 * 1024)
        assert "does not occur" in (await call(tmp_path, "edit", path="f", old="y", new="z")).output
        assert "the same" in (await call(tmp_path, "edit", path="f", old="x", new="x")).output
        assert "directory" in (await call(tmp_path, "edit", path=".", old="x", new="y")).output
        assert "binary" in (await call(tmp_path, "edit", path="binary", old="x", new="y")).output
        assert "bytes" in (await call(tmp_path, "edit", path="giant", old="x", new="y")).output

    async def test_lines_that_end_otherwise_match(self, tmp_path: Path) -> None:
        """A model sees no carriage returns; its text finds the place, and the file keeps its kind of line ends."""
        (tmp_path / "f").write_bytes(b"one\r\ntwo\r\nthree\r\n")
        await call(tmp_path, "edit", path="f", old="one\ntwo", new="1\n2")
        assert (tmp_path / "f").read_bytes() == b"1\r\n2\r\nthree\r\n"

    @given(
        before=st.text(max_size=20),
        old=st.text(min_size=1, max_size=5),
        new=st.text(max_size=5),
        after=st.text(max_size=20),
    )
    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    def test_editing_is_replacing(self, before: str, old: str, new: str, after: str, tmp_path: Path) -> None:
        """Whatever the text, the file is what `replace` would make of it, or untouched with an error."""
        text = before + old + after
        content = text.encode("utf-8", "replace")
        (tmp_path / "f").write_bytes(content)
        outcome = asyncio.run(call(tmp_path, "edit", path="f", old=old, new=new))
        found = (tmp_path / "f").read_bytes()
        if outcome.is_error:
            assert found == content
        else:
            assert found == content.replace(old.encode(), new.encode())
            assert content.count(old.encode()) == 1


class TestList:
    """list: one directory."""

    async def test_kinds_can_be_told_apart(self, tmp_path: Path) -> None:
        """Directories, links and files, by name; what the policy denies is only counted."""
        (tmp_path / "d").mkdir()
        (tmp_path / "f").write_text("12345")
        (tmp_path / "l").symlink_to("nowhere")
        (tmp_path / ".env").touch()
        assert (await call(tmp_path, "list")).output == "d/\nf 5\nl -> nowhere\n[1 denied by the policy]"
        assert (await call(tmp_path, "list", path="d")).output == "[empty]"

    async def test_a_long_list_is_cut(self, tmp_path: Path) -> None:
        """It says how many are left out."""
        for number in range(1005):
            (tmp_path / f"f{number:04}").touch()
        outcome = await call(tmp_path, "list")
        assert outcome.truncated
        assert outcome.output.endswith("[... 5 more entries ...]")

    async def test_a_name_that_is_no_text_is_shown_all_the_same(self, tmp_path: Path) -> None:
        """File names are bytes; the log takes only text."""
        (tmp_path / os.fsdecode(b"caf\xe9")).touch()
        assert (await call(tmp_path, "list")).output == "caf\\udce9 0"
