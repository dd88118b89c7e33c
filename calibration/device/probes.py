"""Tables of kernels timed alone: one JSON object a line, as the work that each did and the microseconds it took.

``kind`` says which kernel, the other fields its shape; ``us`` is the device time of one call. A row ``{"kind": "device"}`` names
the device, its memory and the versions. bf16 unless ``dtype`` says otherwise. FLOPs and traffic follow the conventions of the
step program (``simulator/program``), so that a rate fitted here prices the operations there.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from calibration.device.observations import EXPONENTIALS, TRAFFIC, Observation, Quantity
from configuration.errors import ConfigurationError
from simulator.components import Kind

Row = Mapping[str, Any]
_ITEM_BYTES = {"bf16": 2, "fp32": 4}
_MICROSECOND = 1e-6

CACHED_BYTES = (2e6, 50e6)
"""What a repeated kernel moves from the L2 of a GPU and not from its memory; with less its launch counts alone. The upper end is the L2 of an H100 and of an
H200 (NVIDIA H100 Tensor Core GPU Architecture, 2022), taken for others too."""
STREAMING = (Kind.POINTWISE, Kind.REDUCE, Kind.GATHER, Kind.SCATTER)
"""Kinds whose kernels do little else than move their tensors."""
CACHED = "tensors that stay in the cache say nothing of the memory"


@dataclass(frozen=True)
class Probes:
    """``left_out``: kinds of rows that are not fitted, and why.

    ``host_s``: host time of a call, by operation; ``graph_s``: a small kernel in a CUDA graph, None where the others were timed in graphs too: their launches
    are a graph's already.
    """

    path: Path
    device: str
    memory_bytes: int | None
    versions: dict[str, str]
    observations: list[Observation]
    host_s: dict[str, float]
    graph_s: float | None
    left_out: dict[str, str]


def load_probes(path: Path) -> Probes:
    """Read a table. Raises ConfigurationError naming file, line and field."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigurationError(f"probes: {str(path)!r} cannot be read: {error.strerror}") from None
    device: Row = {}
    observations: list[Observation] = []
    host_s: dict[str, float] = {}
    graph_s: float | None = None
    in_graphs = False
    left_out: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            kind = row["kind"]
            if kind == "device":
                device = row
            elif kind == "host_per_call":
                host_s[row["op"]] = _seconds(row)
            elif kind == "launch" and row["op"] == "kernel_in_graph":
                graph_s = _seconds(row)
            elif kind in WORK:
                in_graphs |= row.get("issued") == "graph"
                observations.append(Observation(f"{path.name}:{number}", kind, _seconds(row), _seconds(row), WORK[kind](row)))
            else:
                left_out[kind] = LEFT_OUT.get(kind, "a kind that the table's reader does not know")
        except (ValueError, TypeError) as error:
            raise ConfigurationError(f"{path}, line {number}: {error}") from None
        except KeyError as error:
            raise ConfigurationError(f"{path}, line {number}: field {error.args[0]!r} is missing or has an unknown value") from None
    versions = {name: str(device[name]) for name in ("torch", "cuda") if device.get(name)}
    if "cuda" in versions:
        left_out |= {f"{observation.name} of 2 to 50 MB": CACHED for observation in observations if _is_cached(observation)}
        observations = [observation for observation in observations if not _is_cached(observation)]
    else:
        observations = [replace(observation, work=_without_irregular(observation.work)) for observation in observations]
    if not observations:
        raise ConfigurationError(f"{path}: no timed kernels (legal kinds: {', '.join(sorted(WORK))})")
    return Probes(path, str(device.get("name", "")), device.get("memory_bytes"), versions, observations, host_s, None if in_graphs else graph_s, left_out)


def _is_cached(observation: Observation) -> bool:
    low, high = CACHED_BYTES
    return any(low < amount < high for quantity, amount in observation.work.items() if quantity.term in TRAFFIC and quantity.kind in STREAMING)


def _without_irregular(work: Mapping[Quantity, float]) -> dict[Quantity, float]:
    """A CPU widens and broadcasts as fast as it copies."""
    return {quantity._replace(term="bytes") if quantity.term == "irregular_bytes" else quantity: amount for quantity, amount in work.items()}


def _seconds(row: Row) -> float:
    seconds = float(row["us"]) * _MICROSECOND
    if not seconds > 0:
        raise ValueError(f"us: expected a positive time, got {row['us']!r}")
    return seconds


def _moving(kind: Kind, size_bytes: float, launches: float = 1.0) -> dict[Quantity, float]:
    return {Quantity("launches", kind): launches, Quantity("bytes", kind): float(size_bytes)}


def _irregular(size_bytes: float) -> dict[Quantity, float]:
    return {Quantity("launches", Kind.POINTWISE): 1.0, Quantity("irregular_bytes", Kind.POINTWISE): float(size_bytes)}


def _product(kind: Kind, flops: float, elements: float, item: str) -> dict[Quantity, float]:
    return _moving(kind, _ITEM_BYTES[item] * elements) | {Quantity("flops", kind, item): float(flops)}


def _gemm(row: Row) -> dict[Quantity, float]:
    m, n, k = row["m"], row["n"], row["k"]
    return _product(Kind.GEMM, 2.0 * m * n * k, m * k + k * n + m * n, row.get("dtype", "bf16"))


def _grouped_gemm(row: Row) -> dict[Quantity, float]:
    rows, k, n = row["tokens"], row["k"], row["n"]
    work = _product(Kind.GROUPED_GEMM, 2.0 * rows * k * n, rows * k + row["experts"] * k * n + rows * n, row.get("dtype", "bf16"))
    return work | {Quantity("products", Kind.GROUPED_GEMM): row["experts"] - 1.0}


def _attention_forward(row: Row) -> dict[Quantity, float]:
    """Two products over the causal half of the scores; queries, keys, values and output of bf16, and the logarithms of sums."""
    elements, log_sums = _attention_sizes(row)
    product = _product(Kind.ATTENTION, 2.0 * elements * row["sequence"], 4 * elements + log_sums, "bf16")
    return product | {Quantity("scores", Kind.ATTENTION): _scores(row)}


def _attention_both(row: Row) -> dict[Quantity, float]:
    """Forward, then backward: five products; reads the forward's tensors and the output's gradient, writes three gradients."""
    elements, log_sums = _attention_sizes(row)
    return _attention_forward(row) | {
        Quantity("launches", Kind.ATTENTION): 2.0,
        Quantity("backward_flops", Kind.ATTENTION, "bf16"): 5.0 * elements * row["sequence"],
        Quantity("backward_bytes", Kind.ATTENTION): float(_ITEM_BYTES["bf16"] * (8 * elements + log_sums)),
        Quantity("backward_scores", Kind.ATTENTION): _scores(row),
    }


def _scores(row: Row) -> float:
    """The causal half of queries times keys."""
    return float(row["batch"] * row["heads"] * row["sequence"] ** 2 / 2)


def _attention_sizes(row: Row) -> tuple[int, int]:
    """Elements of one tensor, and of the fp32 logarithms of sums counted as bf16 elements."""
    rows = row["batch"] * row["heads"] * row["sequence"]
    return rows * row["head_dim"], 2 * rows


WORK: dict[str, Callable[[Row], dict[Quantity, float]]] = {
    "gemm": _gemm,
    "grouped_gemm": _grouped_gemm,
    "attention_forward": _attention_forward,
    "attention_forward_backward": _attention_both,
    "add": lambda row: _moving(Kind.POINTWISE, row["bytes"]),
    "copy": lambda row: _moving(Kind.POINTWISE, row["bytes"]),
    "cast_fp32_bf16": lambda row: _moving(Kind.POINTWISE, row["bytes"]),
    "silu": lambda row: _moving(Kind.POINTWISE, row["bytes"]) | {EXPONENTIALS: float(row["elements"])},
    # Widened as it is read, broadcast, or parts of rows: element by element (``simulator/time/elementwise.py``).
    "cast_bf16_fp32": lambda row: _irregular(row["bytes"]),
    "multiply_by_row": lambda row: _irregular(row["bytes"]),
    "multiply_by_column": lambda row: _irregular(row["bytes"]),
    "copy_of_half": lambda row: _irregular(row["bytes"]),
    "silu_of_half": lambda row: _irregular(row["bytes"]) | {EXPONENTIALS: float(row["elements"])},
    "rms_norm_forward": lambda row: _moving(Kind.REDUCE, 2 * 2 * row["tokens"] * row["width"]),
    "index_select": lambda row: _moving(Kind.GATHER, 2 * 2 * row["rows"] * row["width"]),
    # Rows added two to a token, as top-2 routing does: the tokens are read and written, the rows read.
    "index_add": lambda row: _moving(Kind.SCATTER, 2 * 2 * row["rows"] * row["width"]),
    "topk": lambda row: _moving(Kind.SORT, row["tokens"] * (4 * row["experts"] + 12 * row["top_k"])),
    "argsort_stable": lambda row: _moving(Kind.SORT, 24 * row["rows"]),
    # Parameter, gradient and two moments read, all but the gradient written, in fp32.
    "adamw_fused": lambda row: _moving(Kind.OPTIMIZER, 28 * row["parameters"]),
}
"""Work of one call, by the row's ``kind``."""

LEFT_OUT = {
    "softmax_fp32": "the table does not say in which type its input is read",
    "cross_entropy_forward": "several kernels, and the table does not say in which type its input is read",
    "adamw_foreach": "many kernels a call; the step program has no such optimizer",
    "adamw_split": "the step program prices it as a pointwise kernel",
    "launch": "the host waits for every kernel; its overhead is taken from host_per_call",
    "copy_to_device": "the link to the host is no part of a step",
    "copy_to_host": "the link to the host is no part of a step",
    "collective": "for link profiles: fabrics/measurements.py reads them",
    "clip_grad_norm": "many kernels a call, held up by the host",
}
