"""What the architecture tests know of the tree: its packages, and the Python files in them."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
# From the bottom floor up.
PACKAGES = ("hive_errors", "hive_core_db", "hive_bus", "agents", "dashboard")


def python_files(*folders: str) -> list[Path]:
    """Return the Python files below these folders of the project, sorted; a folder that does not exist has none."""
    return sorted(
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if not {"__pycache__", "node_modules", ".venv"} & set(path.parts)
    )


def name_of(path: Path) -> str:
    """Return the path as the project's own files write it, with slashes."""
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    """Return the dotted name under which the file is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
