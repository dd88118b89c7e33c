"""From what a user asks for to the document of a benchmark."""

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from configuration.errors import ConfigurationError
from configuration.overrides import grid_points, parse_grid, split_by_kind
from configuration.spec import validated
from trainer.bench.collectives import collective_rows
from trainer.bench.device_suite import device_rows
from trainer.bench.kernels import Row, chosen_families, measure_family
from trainer.bench.roofline import Roofline, draw_roofline, measure_roofline
from trainer.bench.shape import BenchShape
from trainer.bench.training_suite import SHAPES, training_rows

Log = Callable[[str], None]
LEAST_REPEATS = 5


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the command line says."""

    kernels: list[str]
    settings: list[str]
    suite: str | None
    file: Path | None
    device: str
    dtype: str | None
    repeats: int
    figure: Path | None
    hugging_face: bool
    ranks: int


@dataclass(frozen=True)
class Answer:
    """``rows`` and ``roofline`` of kernels; None for a suite. ``document`` has everything."""

    document: dict[str, Any]
    rows: list[Row]
    roofline: Roofline | None


def answer(request: Request, log: Log) -> Answer:
    """Check what was asked for, then measure. Raises ConfigurationError in one line."""
    device = _device(request)
    dtype = request.dtype or ("bf16" if device == "cuda" else "fp32")
    if request.repeats < LEAST_REPEATS:
        raise ConfigurationError(f"--repeats {request.repeats}: fewer than {LEAST_REPEATS} tell nothing of the spread (legal: {LEAST_REPEATS} or more)")
    document = {"schema_version": 1, "suite": request.suite or "kernels", "provenance": _provenance(device, dtype)}
    if request.suite is not None:
        if request.kernels or request.file is not None or request.figure is not None:
            raise ConfigurationError("--suite: measures a fixed list (--kernel, --file and --figure are for kernels)")
        return Answer(document | _suite(request, device, dtype, log), [], None)
    families = chosen_families(request.kernels, request.file)
    shapes = [validated(BenchShape, split_by_kind(point).get("shape", {}), "--set") for point in grid_points(parse_grid(request.settings, ("shape",)))]
    roofline = measure_roofline(device, dtype, request.repeats)
    rows = []
    for shape in shapes:
        for operation, family in families.items():
            log(f"{operation}: {shape}")
            rows += measure_family(operation, family, shape, dtype=dtype, device=device, repeats=request.repeats)
    if request.figure is not None:
        draw_roofline(rows, roofline, request.figure)
    document["roofline"] = {"flops_per_s": roofline.flops_per_s, "bytes_per_s": roofline.bytes_per_s}
    document["rows"] = [row.as_dict() for row in rows]
    return Answer(document, rows, roofline)


def _suite(request: Request, device: str, dtype: str, log: Log) -> dict[str, Any]:
    if request.suite == "device":
        return {"rows": device_rows(device, dtype, request.repeats, log), "collectives": collective_rows(device, request.ranks, request.repeats)}
    if device != "cuda":
        raise ConfigurationError("--suite training: its shapes need a CUDA device (legal here: device)")
    shapes = list(parse_grid(request.settings, ("shape",)).get("shape.model", SHAPES))
    return {"rows": training_rows(shapes, device, request.repeats, hugging_face=request.hugging_face, log=log)}


def _device(request: Request) -> str:
    cuda = torch.cuda.is_available()
    if request.device == "cuda" and not cuda:
        raise ConfigurationError("--device cuda: this machine has no CUDA device (legal here: auto, cpu)")
    return ("cuda" if cuda else "cpu") if request.device == "auto" else request.device


def _provenance(device: str, dtype: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "dtype": dtype,
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "moe-ledger": version("moe-ledger")},
    }
    if device == "cuda":
        found["memory_bytes"] = torch.cuda.get_device_properties(0).total_memory
        found["versions"]["cuda"] = str(torch.version.cuda)
        found["nccl_settings"] = {name: value for name, value in os.environ.items() if name.startswith("NCCL_")}
    return found
