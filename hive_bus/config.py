"""Settings: which database, by flag, environment, file or default; and the tuning of a process."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import Final

DEFAULT_FILE: Final = ".hive/hive.db"


def default_url() -> str:
    """The database's address: ``HIVE_DB``, else ``db:`` of the nearest ``hive.yaml`` upwards, else ``./.hive/hive.db``."""
    return os.environ.get("HIVE_DB") or f"sqlite:///{Path.cwd() / DEFAULT_FILE}"


def tune_process() -> None:
    """Tune this process for throughput; a program's decision, never an import's.

    Threads change every 0.2 ms instead of every 5 (the writer's thread must not wait for the
    loop), and the garbage collector looks at what is new every 50,000 objects and no more at
    what was there before.
    """
    sys.setswitchinterval(0.0002)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, *gc.get_threshold()[1:])
