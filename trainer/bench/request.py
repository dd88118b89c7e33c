"""From what a user asks for to the document of a benchmark."""

import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from configuration.errors import ConfigurationError
from configuration.overrides import grid_points, parse_grid, parse_single, split_by_kind
from configuration.spec import validated
from simulator.specs import load_model
from trainer.bench.collectives import collective_rows
from trainer.bench.device_suite import device_rows
from trainer.bench.kernels import Row, chosen_families, measure_family
from trainer.bench.losses import LossesShape, losses_document
from trainer.bench.optimizers import measure_optimizers
from trainer.bench.plans_suite import plan_rows
from trainer.bench.roofline import Roofline, draw_roofline, measure_roofline
from trainer.bench.shape import BenchShape
from trainer.bench.training_suite import SHAPES, training_rows
from trainer.host_memory import keep_freed_memory
from trainer.measure.surroundings import device_name, machine, settings, versions

Log = Callable[[str], None]
LEAST_REPEATS = 5
TAKEN = {
    None: ("--kernel", "--set", "--file", "--dtype", "--repeats", "--figure"),
    "device": ("--dtype", "--repeats", "--ranks", "--probes"),
    "training": ("--set", "--repeats", "--hugging-face"),
    "losses": ("--set",),
    "plans": ("--set", "--dtype", "--repeats"),
}
"""By suite (None: kernels) the options that it takes besides those that all take."""


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
    repeats_given: bool
    """Whether anybody asked for them."""
    figure: Path | None
    hugging_face: bool
    ranks: int | None
    probes: bool


@dataclass(frozen=True)
class Answer:
    """``rows`` and ``roofline`` of kernels; None for a suite. ``document`` has everything."""

    document: dict[str, Any]
    rows: list[Row]
    roofline: Roofline | None


def answer(request: Request, log: Log) -> Answer:
    """Check what was asked for, then measure. Raises ConfigurationError in one line."""
    device = _device(request)
    _check_options(request)
    dtype = request.dtype or ("bf16" if device == "cuda" else "fp32")
    if device == "cpu":
        # As training does: for every contender and kernel alike.
        keep_freed_memory()
    if request.repeats < LEAST_REPEATS:
        raise ConfigurationError(f"--repeats {request.repeats}: fewer than {LEAST_REPEATS} tell nothing of the spread (legal: {LEAST_REPEATS} or more)")
    document = {"schema_version": 1, "suite": request.suite or "kernels", "provenance": _provenance(device, dtype)}
    if request.suite is not None:
        return Answer(document | _suite(request, device, dtype, log), [], None)
    families = chosen_families(request.kernels, request.file)
    shapes = [validated(BenchShape, split_by_kind(point).get("shape", {}), "--set") for point in grid_points(parse_grid(request.settings, ("shape",)))]
    for shape in shapes:
        for family in families.values():
            if family is not None:
                family.check(shape)
    roofline = measure_roofline(device, dtype, request.repeats)
    rows = []
    for shape in shapes:
        for operation, family in families.items():
            log(f"{operation}: {shape}")
            if family is None:
                rows += measure_optimizers(shape, device=device, repeats=request.repeats)
            else:
                rows += measure_family(operation, family, shape, dtype=dtype, device=device, repeats=request.repeats)
    if request.figure is not None:
        draw_roofline(rows, roofline, request.figure)
    document["roofline"] = {"flops_per_s": roofline.flops_per_s, "bytes_per_s": roofline.bytes_per_s}
    document["rows"] = [row.as_dict() for row in rows]
    return Answer(document, rows, roofline)


def _check_options(request: Request) -> None:
    """Refuse options that what was asked for has no use for."""
    given = {
        "--kernel": bool(request.kernels), "--file": request.file is not None, "--figure": request.figure is not None, "--set": bool(request.settings),
        "--dtype": request.dtype is not None, "--repeats": request.repeats_given, "--hugging-face": request.hugging_face, "--ranks": request.ranks is not None,
        "--probes": request.probes,
    }  # fmt: skip
    what = "kernels" if request.suite is None else f"--suite {request.suite}"
    for option, is_given in given.items():
        if is_given and option not in TAKEN[request.suite]:
            raise ConfigurationError(f"{option}: {what} can do nothing with it (legal: {', '.join(TAKEN[request.suite])})")


def _suite(request: Request, device: str, dtype: str, log: Log) -> dict[str, Any]:
    if request.suite == "device":
        ranks = _ranks(request.ranks, device)
        rows = device_rows(device, dtype, request.repeats, log)
        return {"rows": rows, "collectives": [] if ranks is None else collective_rows(device, ranks, request.repeats)}
    if request.suite == "losses":
        return losses_document(validated(LossesShape, parse_single(request.settings, ("shape",)).get("shape", {}), "--set"), device, log)
    if request.suite == "plans":
        spec = load_model(str(_only(parse_single(request.settings, ("shape",)).get("shape", {}), "model", "tiny-moe")))
        return {"model": spec.model_dump(mode="json"), "rows": plan_rows(spec, device, dtype, request.repeats, log)}
    grid = parse_grid(request.settings, ("shape",))
    if device != "cuda" and "shape.model" not in grid:
        raise ConfigurationError("--suite training: its shapes need a CUDA device (legal here: a small model by --set shape.model=FILE)")
    if set(grid) - {"shape.model"}:
        raise ConfigurationError(f"--set {min(set(grid) - {'shape.model'})}: --suite training takes whole models (legal: shape.model)")
    specs = [load_model(str(name)) for name in grid.get("shape.model", SHAPES)]
    return {"rows": training_rows(specs, device, request.repeats, hugging_face=request.hugging_face, log=log)}


def _only(given: Mapping[str, object], field: str, default: object) -> object:
    """The one field that may be set. Raises ConfigurationError for others."""
    if set(given) - {field}:
        raise ConfigurationError(f"--set shape.{min(set(given) - {field})}: --suite plans takes a whole model (legal: shape.{field})")
    return given.get(field, default)


def _ranks(asked: int | None, device: str) -> int | None:
    """Processes of the collectives; None where nobody asked for them and there is one GPU."""
    if device != "cuda" or torch.cuda.device_count() >= (asked or 2):
        return asked or 2
    if asked is None:
        return None
    raise ConfigurationError(f"--ranks {asked}: this machine has {torch.cuda.device_count()} CUDA devices, and a rank needs one of its own")


def _device(request: Request) -> str:
    cuda = torch.cuda.is_available()
    if request.device == "cuda" and not cuda:
        raise ConfigurationError("--device cuda: this machine has no CUDA device (legal here: auto, cpu)")
    return ("cuda" if cuda else "cpu") if request.device == "auto" else request.device


def _provenance(device: str, dtype: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "device": device_name(device),
        "machine": machine(),
        "dtype": dtype,
        "threads": torch.get_num_threads(),
        "versions": versions(device),
        "settings": settings(),
        "command": f"python -m trainer {shlex.join(sys.argv[1:])}",
    }
    if device == "cuda":
        found["devices"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        found["memory_bytes"] = torch.cuda.get_device_properties(0).total_memory
    return found
