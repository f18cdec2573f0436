"""Paths cannot leave the workspace: by their text, through links, or in a race."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.policy import DEFAULT_POLICY
from agents.tool import ToolContext, ToolOutcome
from agents.tools import builtin_tools
from agents.tools.rooted import Rooted
from hive_errors import PathOutsideWorkspace
from tests.support.patience import WITHIN

SECRET = "the secret outside"
TOOLS = builtin_tools()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace beside a secret."""
    (tmp_path / "secret.txt").write_text(SECRET)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text(SECRET)
    root = tmp_path / "work"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "inside.txt").write_text("inside")
    return root


async def call(root: Path, name: str, **input: object) -> ToolOutcome:  # noqa: A002
    """Call a tool in a workspace."""
    return await TOOLS.call(name, input, ToolContext(root=root, idempotency_key="key", timeout=WITHIN))


OUTSIDE = [
    "../secret.txt",
    "a/../../secret.txt",
    "/etc/passwd",
    "/proc/self/root/etc/passwd",
    "/",
    "..",
    "a/b/../../../x",
]


@pytest.mark.parametrize("path", OUTSIDE)
@pytest.mark.parametrize("name", ["read", "write", "edit", "list", "find", "grep"])
async def test_no_text_leads_out(root: Path, name: str, path: str) -> None:
    """Every tool refuses, names the path and says what to do instead."""
    fields = {
        "write": {"content": "x"},
        "edit": {"old": "x", "new": "y"},
        "find": {"pattern": "*"},
        "grep": {"pattern": "x"},
    }
    outcome = await call(root, name, path=path, **fields.get(name, {}))
    assert outcome.is_error
    assert "HIVE-TOOL-001" in outcome.output
    assert repr(path) in outcome.output


@pytest.mark.parametrize(
    "target", ["../secret.txt", "/etc/passwd", "a/../../secret.txt", "/proc/self/cwd/../secret.txt"]
)
async def test_no_link_leads_out(root: Path, target: str) -> None:
    """Neither a link to a file, nor one to a directory on the way, nor writing through one."""
    (root / "file").symlink_to(target)
    (root / "directory").symlink_to("../outside")
    for path in ("file", "directory/secret.txt", "a/../directory/secret.txt", "a/b/../../file"):
        assert "HIVE-TOOL-001" in (await call(root, "read", path=path)).output
        assert "HIVE-TOOL-001" in (await call(root, "write", path=path, content="x")).output
    assert (root.parent / "secret.txt").read_text() == SECRET
    assert (root.parent / "outside" / "secret.txt").read_text() == SECRET


async def test_links_that_stay_inside_work(root: Path) -> None:
    """To a file, to a directory, absolute, and up again: they lead where a shell would go."""
    (root / "file").symlink_to("a/inside.txt")
    (root / "directory").symlink_to(root / "a")
    (root / "a" / "b" / "up").symlink_to("../..")
    for path in ("file", "directory/inside.txt", "a/b/up/a/inside.txt", "a/b/up/directory/b/../inside.txt"):
        assert (await call(root, "read", path=path)).output == "     1\tinside"
    assert (await call(root, "list", path="directory/b/..")).output == "b/\ninside.txt 6"
    await call(root, "write", path="file", content="changed")
    assert (root / "file").is_symlink()
    assert (root / "a" / "inside.txt").read_text() == "changed"


async def test_a_link_to_a_denied_place_is_denied(root: Path) -> None:
    """The policy looks at where a path really leads."""
    (root / ".env").write_text(SECRET)
    (root / "innocent.txt").symlink_to(".env")
    assert "HIVE-TOOL-002" in (await call(root, "read", path="innocent.txt")).output


async def test_links_in_a_circle_end(root: Path) -> None:
    """A loop of links is refused, not followed for ever."""
    (root / "x").symlink_to("y")
    (root / "y").symlink_to("x")
    assert "more than 40" in (await call(root, "read", path="x")).output


async def test_what_is_no_file_is_not_opened(root: Path) -> None:
    """A named pipe, a device's like, a socket, a directory: refused, without waiting for anybody."""
    os.mkfifo(root / "pipe")
    for path, reason in (
        ("pipe", "not a regular file"),
        ("a", "directory"),
        (".", "directory"),
        ("none", "no such file"),
    ):
        assert reason in (await call(root, "read", path=path)).output
    assert "not a regular file" in (await call(root, "write", path="pipe", content="x")).output
    assert "directory" in (await call(root, "write", path="a", content="x")).output
    assert "directory" in (await call(root, "write", path="a/..", content="x")).output
    assert "not a directory" in (await call(root, "write", path="a/inside.txt/x", content="x")).output


@pytest.mark.parametrize("path", ["", "a\0b", "x" * 5000])
async def test_what_is_no_path_is_refused(root: Path, path: str) -> None:
    """Empty, too long, or with a NUL in it."""
    assert (await call(root, "read", path=path)).is_error


async def test_nothing_is_left_open(root: Path) -> None:
    """Refused or not, every handle is given back."""
    (root / "link").symlink_to("a/b/../inside.txt")
    (root / "bad").symlink_to("/etc/passwd")
    await call(root, "read", path="link")
    before = sorted(Path("/proc/self/fd").iterdir())
    for path in ("link", "bad", "a/b/../..", "none/none", "a/inside.txt", "../x", "a/b/../../none/x"):
        for name in ("read", "list"):
            await call(root, name, path=path)
    await call(root, "grep", pattern="i")
    await call(root, "find", pattern="*")
    assert sorted(Path("/proc/self/fd").iterdir()) == before


parts = st.sampled_from(
    ["..", ".", "a", "b", "c", "up", "out", "abs", "loop", "inside.txt", "secret.txt", "", "root", "etc", "passwd"]
)
paths = st.lists(parts, min_size=1, max_size=8).map("/".join)
links = st.dictionaries(
    st.sampled_from(["a/up", "a/b/c", "out", "abs", "loop", "b"]),
    paths | st.sampled_from(["/etc", "/", "../outside", "../..", "/proc/self/root", "/proc/self/cwd"]),
    max_size=5,
)


@given(links=links, path=paths, absolute=st.booleans())
@settings(max_examples=200, deadline=None)
def test_no_path_reads_or_writes_outside(links: dict[str, str], path: str, absolute: bool) -> None:
    """Whatever links there are and whatever path is asked for: what is read lies inside, and nothing outside changes."""
    with tempfile.TemporaryDirectory() as directory:
        base = Path(directory).resolve()
        (base / "secret.txt").write_text(SECRET)
        (base / "outside").mkdir()
        (base / "outside" / "secret.txt").write_text(SECRET)
        root = base / "root"
        (root / "a" / "b").mkdir(parents=True)
        (root / "a" / "inside.txt").write_text("inside")
        for place, target in links.items():
            (root / place).symlink_to(target or ".")
        asked = f"{root}/{path}" if absolute else path
        read = asyncio.run(call(root, "read", path=asked))
        assert SECRET not in read.output
        assert "root:" not in read.output
        if not read.is_error:
            assert os.path.realpath(f"{root}/{path}").startswith(f"{root}/"), "where the kernel would go is inside, too"
        wrote = asyncio.run(call(root, "write", path=asked, content="written"))
        if not wrote.is_error:
            assert Path(os.path.realpath(f"{root}/{path}")).read_text() == "written"
        assert sorted(entry.name for entry in base.iterdir()) == ["outside", "root", "secret.txt"]
        assert (base / "secret.txt").read_text() == SECRET
        assert [entry.name for entry in (base / "outside").iterdir()] == ["secret.txt"]
        assert (base / "outside" / "secret.txt").read_text() == SECRET


@pytest.mark.parametrize("name", ["directory", "file"])
def test_a_link_swapped_in_during_a_call_is_not_followed(root: Path, name: str, fault_seconds: float) -> None:
    """A thread swaps a directory, or a file, for a link to the outside and back as fast as it can: nobody ever reads the secret."""
    (root / "spot").mkdir()
    (root / "spot" / "secret.txt").write_text("harmless")
    good, bad, place = root / "good", root / "bad", root / "spot"
    if name == "file":
        place = root / "spot" / "secret.txt"
        good, bad = root / "good.txt", root / "bad.txt"
    bad.symlink_to(root.parent / "outside" if name == "directory" else root.parent / "outside" / "secret.txt")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            place.rename(good)
            bad.rename(place)
            place.rename(bad)
            good.rename(place)

    rooted = Rooted(root, DEFAULT_POLICY)
    swapper = threading.Thread(target=swap)
    swapper.start()
    seen: Counter[str] = Counter()
    try:
        # Until the race was hit, and often.
        while seen.total() < 2000 * fault_seconds or len(seen) < 2 or not seen["harmless"]:
            try:
                with rooted.open_file("spot/secret.txt") as (handle, _):
                    text = os.read(handle, 100).decode()
            except Exception as problem:  # noqa: BLE001  which refusals there are is what the test counts
                text = type(problem).__name__
            seen[text] += 1
    finally:
        stop.set()
        swapper.join()
    assert set(seen) <= {"harmless", "PathOutsideWorkspace", "PathUnusable"}


def test_the_workspace_itself_may_lie_behind_a_link(root: Path) -> None:
    """What the user calls the workspace is trusted; absolute paths are understood by either name."""
    alias = root.parent / "alias"
    alias.symlink_to(root)
    rooted = Rooted(alias, DEFAULT_POLICY)
    for path in ("a/inside.txt", f"{alias}/a/inside.txt", f"{root}/a/inside.txt"):
        with rooted.open_file(path) as (handle, place):
            assert os.read(handle, 100) == b"inside"
            assert place.path == "a/inside.txt"
    with pytest.raises(PathOutsideWorkspace), rooted.place(f"{root}x/y"):
        pass
