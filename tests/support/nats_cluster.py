"""Three real NATS servers on loopback, set up by examples/compose/nats.conf as it stands but for addresses: what the guide says is what is tested."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from hive_bus.mirror.settings import NatsSettings
from tests.architecture.tree import ROOT
from tests.support.nats_server import READY_SECONDS, answers, program
from tests.support.ports import free_port

CONFIG: Final = ROOT / "examples" / "compose" / "nats.conf"
PASSWORD: Final = "12e4 of the hive"
READERS: Final = "12e4 of a reader"
# As nats.yaml gives them: in quotes, or words of digits would be numbers.
SECRETS: Final = {"HIVE_NATS_PASSWORD": f'"{PASSWORD}"', "HIVE_NATS_READER_PASSWORD": f'"{READERS}"'}


class NatsCluster:
    """Servers nats-1 to nats-3, each with data of its own and ports that it keeps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ports = {f"nats-{number}": (free_port(), free_port(), free_port()) for number in (1, 2, 3)}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def settings(self, **fields: Any) -> NatsSettings:
        """The settings that lead to all of them, as user `hive` unless another is given."""
        url = ",".join(f"nats://127.0.0.1:{ports[0]}" for ports in self._ports.values())
        return NatsSettings.model_validate({"url": url, "user": "hive", **fields})

    def start(self, name: str) -> None:
        """Start one; it answers clients when this returns, which is before it is in the cluster."""
        client, monitor, route = self._ports[name]
        routes = ",".join(f"nats://127.0.0.1:{ports[2]}" for ports in self._ports.values())
        self.folder.mkdir(parents=True, exist_ok=True)
        words = [
            *("-c", str(CONFIG), "-n", name, "-a", "127.0.0.1", "-p", str(client), "-m", str(monitor)),
            *("-sd", str(self.folder / name), "--cluster", f"nats://127.0.0.1:{route}", "--routes", routes),
        ]
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [program(), *words], env=os.environ | SECRETS | {"SERVER_NAME": name}, stdout=log, stderr=log
            )
        self._processes[name] = process
        until = time.monotonic() + READY_SECONDS
        while not answers(client):
            assert process.poll() is None, (self.folder / f"{name}.log").read_text()
            assert time.monotonic() < until, f"{name} does not answer"
            time.sleep(0.02)

    def kill(self, name: str) -> None:
        """`kill -9`."""
        process = self._processes.pop(name)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(timeout=READY_SECONDS)

    def __enter__(self) -> Self:
        for name in self._ports:
            self.start(name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for name in tuple(self._processes):
            self.kill(name)
