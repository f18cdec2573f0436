"""Half-written coverage data goes before the rest is combined; too much of it is a failure."""

from __future__ import annotations

from pathlib import Path

import pytest
from coverage import CoverageData

from tests.coverage_data import MOST, fault_of, main


def _data(directory: Path, name: str) -> Path:
    data = CoverageData(str(directory / name))
    data.add_arcs({f"/src/{number}.py": [(line, line + 1) for line in range(200)] for number in range(50)})
    data.write()
    data.close()
    return directory / name


@pytest.mark.parametrize("size", [0, 1000, 20_000])
def test_half_a_file_is_removed_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], size: int) -> None:
    """Whether nothing was written yet, a part of the first page, or the tables without their rows."""
    whole, half = _data(tmp_path, "data.whole"), _data(tmp_path, "data.half")
    half.write_bytes(half.read_bytes()[:size])
    assert main(str(tmp_path)) == 0
    assert "data.half" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["data.whole"]
    assert fault_of(whole) == ""


def test_many_such_files_are_another_trouble(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A few processes may be killed at a bad moment; more of them fail the run."""
    for number in range(MOST + 1):
        (tmp_path / f"data.{number}").touch()
    assert main(str(tmp_path)) == 1
    assert "FAILED: 6 processes" in capsys.readouterr().out
