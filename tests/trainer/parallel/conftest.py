import json
import os
import select
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

PATIENCE_S = 40


class Ranks:
    """Processes that run cases together; started once a session for each number of them."""

    def __init__(self, count: int, folder: Path) -> None:
        self.folder, self.asked = folder, 0
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        common = os.environ | {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(count),
            "GLOO_SOCKET_IFNAME": "lo",
        }
        self.processes = [
            subprocess.Popen(
                [sys.executable, Path(__file__).with_name("worker.py")],
                env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(count)
        ]

    def run(self, **case):
        """The answers of all ranks; a rank that fails fails the test."""
        self.asked += 1
        files = [self.folder / f"{len(self.processes)}-{self.asked}-{rank}.pt" for rank in range(len(self.processes))]
        for process, file in zip(self.processes, files, strict=True):
            process.stdin.write(json.dumps(case | {"answer": str(file)}) + "\n")
            process.stdin.flush()
        faults = [fault for fault in map(self.fault, self.processes) if fault]
        if faults:
            self.close()
        assert not faults, "\n".join(faults)
        return [torch.load(file) for file in files]

    def fault(self, process: subprocess.Popen) -> str | None:
        """What went wrong on a rank; waits for its answer."""
        if not select.select([process.stdout], [], [], PATIENCE_S)[0]:
            return f"no answer within {PATIENCE_S} s"
        reply = process.stdout.readline().strip()
        return None if reply == "done" else json.loads(reply) if reply else "the rank ended"

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()


@pytest.fixture(scope="session")
def ranks(tmp_path_factory):
    """``ranks(2)``: a world of two processes on gloo."""
    worlds: dict[int, Ranks] = {}

    def world(count: int) -> Ranks:
        if count not in worlds or worlds[count].processes[0].poll() is not None:
            worlds[count] = Ranks(count, tmp_path_factory.mktemp("ranks"))
        return worlds[count]

    yield world
    for started in worlds.values():
        started.close()
