"""What a report must say of where it was measured: versions, settings of the environment, and which device each rank had."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from simulator.records.step_report import RankPlace
from trainer.parallel.world import World

PREFIXES = ("NCCL_", "TORCH_NCCL_", "GLOO_", "MALLOC_")
NAMES = (
    "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_MAX_CONNECTIONS", "CUDA_LAUNCH_BLOCKING", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF",
    "GLIBC_TUNABLES", "THP_MEM_ALLOC_ENABLE",
)  # fmt: skip
"""Variables that change how ranks talk, how kernels are launched or how memory is cut."""


def settings() -> dict[str, str]:
    """Those variables that are set, by name."""
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(PREFIXES) or name in NAMES}


def versions(device: str) -> dict[str, str]:
    """Of Python, PyTorch and this program; on CUDA also of CUDA, its driver, NCCL and Triton, where they are there."""
    found = {"python": platform.python_version(), "torch": torch.__version__, "moe-ledger": version("moe-ledger")}
    if device.startswith("cuda"):
        found["cuda"] = str(torch.version.cuda)
        if torch.distributed.is_nccl_available():
            found["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))  # type: ignore[no-untyped-call]
        found |= {name: value for name, value in (("driver", _driver()), ("triton", _triton())) if value is not None}
    return found


def processor() -> str:
    """The processor's name, as the system tells it."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def machine() -> str:
    """Processor, cores and system."""
    return f"{processor()}, {os.cpu_count()} cores, {platform.system()}"


def device_name(device: str) -> str:
    """Of a GPU its product name."""
    return torch.cuda.get_device_name(torch.device(device)) if device.startswith("cuda") else "cpu"


def place_of(world: World) -> RankPlace:
    """Where this rank runs."""
    place = RankPlace(rank=world.rank, host=platform.node(), device=world.device, device_name=device_name(world.device))
    if not world.device.startswith("cuda"):
        return place
    index = torch.device(world.device).index
    properties = torch.cuda.get_device_properties(torch.cuda.current_device() if index is None else index)
    return place.model_copy(update={"device_uuid": str(properties.uuid), "memory_bytes": properties.total_memory})


def _driver() -> str | None:
    file = Path("/proc/driver/nvidia/version")
    if not file.is_file():
        return None
    words = file.read_text(encoding="utf-8").split("\n")[0].split()
    return next((word for word in words if word.replace(".", "").isdigit() and "." in word), None)


def _triton() -> str | None:
    try:
        return version("triton")
    except PackageNotFoundError:
        return None
