"""What the wheel and the source archive must hold; `python -m tests.distribution DIST` checks a folder with both."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

from tests.architecture.tree import PACKAGES, ROOT

NOT_SHIPPED = {"__pycache__", "web", "node_modules"}


def package_files() -> set[str]:
    """Return every file of the five packages that users need: code, `py.typed`, SQL, migrations, built assets."""
    return {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and not NOT_SHIPPED & set(path.parts)
    }


def complaints(directory: Path) -> list[str]:
    """Return what is wrong with the one wheel and the one source archive in the directory."""
    [wheel] = directory.glob("*.whl")
    [sdist] = directory.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = set(archive.namelist())
        [entry_points] = [archive.read(name).decode() for name in in_wheel if name.endswith("/entry_points.txt")]
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    wanted = package_files()
    found = [f"the wheel lacks {name}" for name in sorted(wanted - in_wheel)]
    found += [f"the source archive lacks {name}" for name in sorted(wanted - in_sdist)]
    found += [f"{package} has no py.typed" for package in PACKAGES if f"{package}/py.typed" not in in_wheel]
    strangers = {name for name in in_wheel if name.split("/")[0] not in PACKAGES and ".dist-info/" not in name}
    found += [f"the wheel should not hold {name}" for name in sorted(strangers)]
    if not any(name.endswith("/licenses/LICENSE") for name in in_wheel):
        found.append("the wheel has no licence")
    if "hive = dashboard.cli:main" not in entry_points:
        found.append("the wheel does not install the `hive` command")
    return found


def main() -> int:
    """Print the complaints about the folder named on the command line; succeed when there are none."""
    found = complaints(Path(sys.argv[1]))
    sys.stdout.write("".join(f"{line}\n" for line in found) or "wheel and source archive are complete\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
