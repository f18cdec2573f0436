"""The examples of docs/embedding.md are programs that run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.patience import WITHIN

ROOT = Path(__file__).parents[2]
EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "embedding.md").read_text(), flags=re.DOTALL)
SHOWN = [
    "1 [OrderPlaced(order_id='o-1', total=9.5)]\n",
    "1 task.assigned planner task_id='t1' try_number=1 attempt=1 assignee='ada'\n",
    "3 number=2\nhandled once the next one is asked for:",
    "cake.requested progress in the oven 0.5\n",
    "somebody was faster, the stream is at version 2\n",
    "cents=250\n",
]


def test_every_example_is_checked() -> None:
    """An example that is added to the page needs a line of what it shows."""
    assert len(EXAMPLES) == len(SHOWN)


@pytest.mark.parametrize(("example", "shown"), list(zip(EXAMPLES, SHOWN, strict=True)), ids=range(len(SHOWN)))
def test_an_example_runs(tmp_path: Path, example: str, shown: str) -> None:
    """It ends well, shows what the page says, and warns of nothing."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HIVE_")}
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", example],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert shown in run.stdout
